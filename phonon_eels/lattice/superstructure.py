"""The superstructure in the displacements of the BiO planes: wavevector, phase, and a check of the phase rule.

The symmetry of Bi2212 makes each slab undulate rigidly, neighbouring slabs in antiphase: the van der Waals gap
breathes, the slab keeps its thickness. The image itself is asked whether that
holds before any phase is counted along an outward normal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.lattice.wave import MIN_PERIODS, Samples, Wave, amplitude_of, fit_wave, slab_sign

MAX_P_VALUE = 1e-3


class NoSuperstructureError(Exception):
    """No wave can be measured; the message says why. Steps turn it into a skipped result."""


@dataclass(frozen=True)
class Breathing:
    """Amplitudes, in nm, of the width of the gaps and of the slabs, and of planes moving all alike.

    Attributes
    ----------
    gap_nm, slab_nm
        Amplitude of the width of the van der Waals gap and of the thickness of the slab at the wave's period.
    common_nm
        Amplitude of a wave that is in phase in all slabs.
    verdict
        "gap breathes", "slab breathes" or "not distinguished".
    """

    gap_nm: float
    gap_std_nm: float
    slab_nm: float
    slab_std_nm: float
    common_nm: float
    common_std_nm: float
    verdict: str


@dataclass(frozen=True)
class Superstructure:
    """What was found.

    Attributes
    ----------
    wave
        Global fit.
    pattern
        "rigid": planes of a slab move alike; "breathing": oppositely.
    sign
        Sign of the wave at each sample.
    breathing
        Check of the phase rule, or None where only one kind of plane is in view.
    antiphase_slabs
        Whether neighbouring slabs were taken as antiphase.
    """

    wave: Wave
    pattern: str
    sign: np.ndarray
    breathing: Breathing | None
    antiphase_slabs: bool


def wave_sign(slab: np.ndarray, side: np.ndarray, pattern: str, antiphase_slabs: bool) -> np.ndarray:
    """Return the direction (+1: increasing c) in which planes move at phase 0; middle planes count as upper ones."""
    sign = slab_sign(slab, antiphase_slabs)
    return sign if pattern == "rigid" else sign * np.where(np.asarray(side) < 0, -1.0, 1.0)


def phase_offset(slab: np.ndarray, side: np.ndarray, found: Superstructure, antiphase_planes: bool) -> np.ndarray:
    """Return what a plane's own phase is ahead of the lateral phase: 0 or π.

    Phase 0 is where the plane is displaced outward most. Without outward normals (`antiphase_planes` False) it
    is where the slab is displaced along +c most, for all its planes.
    """
    if not antiphase_planes:
        return np.where(slab_sign(slab, found.antiphase_slabs) > 0, 0.0, np.pi)
    outward = wave_sign(slab, side, found.pattern, found.antiphase_slabs) * np.where(np.asarray(side) < 0, -1.0, 1.0)
    return np.where(outward > 0, 0.0, np.pi)


def find_superstructure(
    samples: Samples,
    side: np.ndarray,
    period_bounds_nm: tuple[float, float],
    *,
    antiphase_slabs: bool,
    period_nm: float | None = None,
) -> Superstructure:
    """Find the wave and the rule that it follows.

    Parameters
    ----------
    samples
        Displacements of the anchor planes.
    side
        Side of its slab, +1 or -1, of the plane of each sample.
    period_bounds_nm
        Allowed periods in nm of the scan.
    antiphase_slabs
        Neighbouring slabs are in antiphase.
    period_nm
        Keep the period here.

    Raises
    ------
    NoSuperstructureError
        If too little is in view or no wave is significant.
    """
    length = float(np.ptp(samples.t_nm)) if len(samples.t_nm) else 0.0
    shortest = period_nm or period_bounds_nm[0]
    if length < MIN_PERIODS * shortest:
        raise NoSuperstructureError(
            f"{length:.2f} nm along b show {length / shortest:.2f} periods of the superstructure; "
            f"at least {MIN_PERIODS:g} are needed"
        )
    both_sides = len(np.unique(side)) > 1 and len(np.unique(samples.plane)) > 1
    fits: dict[str, tuple[Wave, np.ndarray]] = {}
    for pattern in ("rigid", "breathing") if both_sides else ("rigid",):
        sign = wave_sign(samples.slab, side, pattern, antiphase_slabs)
        wave = fit_wave(samples, sign, period_bounds_nm, period_nm)
        if wave is not None:
            fits[pattern] = (wave, sign)
    if not fits:
        raise NoSuperstructureError(
            f"only {len(samples.t_nm)} displacements of planes were measured: too few for a wave"
        )

    def strength(pattern: str) -> float:
        wave = fits[pattern][0]
        return 0.0 if wave.at_bound else wave.amplitude_nm / wave.amplitude_std_nm

    pattern = max(fits, key=lambda name: (strength(name), name == "rigid"))
    wave, sign = fits[pattern]
    if wave.at_bound:
        slipped = _period_of_segments(samples, sign, wave, period_bounds_nm)
        wave = wave if slipped is None else slipped
    if wave.at_bound:
        raise NoSuperstructureError(
            f"no superstructure: the displacement wave has no best period inside {period_bounds_nm[0]:.3f} … "
            f"{period_bounds_nm[1]:.3f} nm (amplitude at the end of the range {1e3 * wave.amplitude_nm:.2f} ± "
            f"{1e3 * wave.amplitude_std_nm:.2f} pm)"
        )
    if wave.p_value > MAX_P_VALUE:
        raise NoSuperstructureError(
            f"no significant superstructure: amplitude {1e3 * wave.amplitude_nm:.2f} ± "
            f"{1e3 * wave.amplitude_std_nm:.2f} pm, p = {wave.p_value:.2g} (at most {MAX_P_VALUE:g} needed)"
        )
    breathing = _breathing(samples, side, wave, antiphase_slabs) if both_sides else None
    return Superstructure(wave, pattern, sign, breathing, antiphase_slabs)


def _period_of_segments(samples: Samples, sign: np.ndarray, wave: Wave, bounds_nm: tuple[float, float]) -> Wave | None:
    """Wave at the period that segments agree on without a common phase, or None.

    A phase slip inside the scan splits the peak of the period in two and can push its maximum out of the allowed range.
    """
    length, segment = float(np.ptp(samples.t_nm)), 2.5 * bounds_nm[1]
    if wave.amplitude_nm < 4.0 * wave.amplitude_std_nm or length < 1.6 * segment:
        return None
    starts = samples.t_nm.min() + np.linspace(0.0, length - segment, int(np.ceil(2.0 * length / segment)) - 1)
    parts = [(samples.t_nm >= start) & (samples.t_nm <= start + segment) for start in starts]
    frequencies = np.linspace(1.0 / bounds_nm[1], 1.0 / bounds_nm[0], 9)
    power = np.zeros(len(frequencies))
    for k, frequency in enumerate(frequencies):
        for part in parts:
            local = fit_wave(samples.select(part), sign[part], bounds_nm, 1.0 / frequency)
            power[k] += 0.0 if local is None else (local.amplitude_nm / local.amplitude_std_nm) ** 2
    best = int(np.argmax(power))
    if best in (0, len(power) - 1):
        return None
    bend = 2.0 * power[best] - power[best - 1] - power[best + 1]
    step = float(frequencies[1] - frequencies[0])
    frequency = float(frequencies[best]) + step * 0.5 * float(power[best + 1] - power[best - 1]) / bend
    found = fit_wave(samples, sign, bounds_nm, 1.0 / frequency)
    local_p = [fit_wave(samples.select(part), sign[part], bounds_nm, 1.0 / frequency) for part in parts]
    if found is None or not any(local_p):
        return None
    p_value = min(1.0, len(parts) * min(wave.p_value for wave in local_p if wave is not None))
    covariance = found.covariance.copy()
    covariance[0, 0] = 2.0 * step**2 / bend  # power falls by 1 within a standard deviation; segments overlap by half
    return replace(found, covariance=covariance, p_value=p_value)


def _breathing(samples: Samples, side: np.ndarray, wave: Wave, antiphase_slabs: bool) -> Breathing:
    """Rigid, breathing and common parts fitted together at the wave's period."""
    patterns = [wave_sign(samples.slab, side, name, antiphase_slabs) for name in ("rigid", "breathing")]
    if len(np.unique(samples.slab)) > 1:
        patterns.append(np.ones(len(side)) if antiphase_slabs else slab_sign(samples.slab, True))
    parts, covariance = amplitude_of(samples, np.array(patterns), wave)
    found = []
    for k, (cos, sin) in enumerate(parts):
        amplitude = float(np.hypot(cos, sin))
        direction = np.array([cos, sin]) / max(amplitude, 1e-15)
        found.append(
            (amplitude, float(np.sqrt(direction @ covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] @ direction)))
        )
    if len(found) < 3:
        found.append((float("nan"), float("nan")))
    (rigid, rigid_std), (slab, slab_std), (common, common_std) = found
    verdict = "not distinguished"
    if abs(rigid - slab) > 3.0 * np.hypot(rigid_std, slab_std):
        verdict = "gap breathes" if rigid > slab else "slab breathes"
    # Two facing planes that move oppositely change the width between them by twice their amplitude.
    return Breathing(2 * rigid, 2 * rigid_std, 2 * slab, 2 * slab_std, common, common_std, verdict)
