"""Phase of a modulated mode energy against that of the superconducting gap.

A lamella has no gap of its own to compare with: what is compared is the phase of a harmonic, with a template of the
literature or with the user's own curve or map. Where the crystal's mirror leaves every structure-locked scalar the phases 0 and π
only, that agreement is one bit, and every such quantity shares it (SCIENCE §8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.lattice.inference import hotelling_p_value
from phonon_eels.lattice.vector import HarmonicVector

MIN_PHASES = 5
"""A mean and a harmonic have three numbers; one more than that many again tells how well they fit."""
MIN_UNIT_POSITIONS = 12


@dataclass(frozen=True)
class Harmonic(HarmonicVector):
    """Mean and first harmonic of a quantity over the superstructure phase: mean + c cos φ + s sin φ.

    Attributes
    ----------
    mean, mean_std
        In meV; the deviation is NaN where it is not known.
    value, covariance
        (2,) c and s, (2, 2).
    """

    mean: float
    mean_std: float
    value: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class PhaseDifference:
    """A phase less another, folded into (-π, π], with its interval; the interval may be the whole circle.

    Attributes
    ----------
    value_rad, std_rad
        Difference and standard deviation.
    half_width_rad
        Half width of the interval about `value_rad`; π means that nothing is known.
    """

    value_rad: float
    std_rad: float
    half_width_rad: float

    def holds(self, angle_rad: float) -> bool:
        """Return whether an angle lies in the interval."""
        return bool(abs(np.angle(np.exp(1j * (angle_rad - self.value_rad)))) <= self.half_width_rad)

    @property
    def verdict(self) -> str:
        """ "in phase", "in antiphase", "between" (neither 0 nor π is in the interval) or "undecided"."""
        zero, half = self.holds(0.0), self.holds(np.pi)
        if zero == half:
            return "undecided" if zero else "between"
        return "in phase" if zero else "in antiphase"


def template_harmonic(
    mean_mev: float, modulation: float, modulation_std: float, is_peak_to_peak: bool, phase_rad: float
) -> Harmonic:
    """Return the harmonic of mean · [1 + (p/2) cos(φ - phase)], or with p in place of p/2 if p is no peak-to-peak value.

    Source: Slezak 2008, doi:10.1073/pnas.0706795105 (9 ± 1 %, cosinusoidal). The phase of a template has no error of its own.
    """
    share = (0.5 if is_peak_to_peak else 1.0) * mean_mev
    direction = np.array([np.cos(phase_rad), np.sin(phase_rad)])
    return Harmonic(
        mean_mev,
        float("nan"),
        share * modulation * direction,
        (share * modulation_std) ** 2 * np.outer(direction, direction),
    )


def curve_harmonic(phase_rad: np.ndarray, gap_mev: np.ndarray, gap_std_mev: np.ndarray) -> Harmonic:
    """Fit mean and harmonic to a gap measured against phase; errors are enlarged where the points scatter by more.

    Raises
    ------
    ValueError
        If the phases do not determine a harmonic.
    """
    design = np.column_stack([np.ones_like(phase_rad), np.cos(phase_rad), np.sin(phase_rad)])
    weighted = design / gap_std_mev[:, None]
    if len(phase_rad) < MIN_PHASES or np.linalg.cond(weighted.T @ weighted) > 1e4:
        raise ValueError(
            f"{len(phase_rad)} phases do not determine a mean and a harmonic; at least {MIN_PHASES} are needed, spread over the circle"
        )
    covariance = np.linalg.inv(weighted.T @ weighted)
    value = covariance @ weighted.T @ (gap_mev / gap_std_mev)
    misfit = float((((gap_mev - design @ value) / gap_std_mev) ** 2).sum() / max(len(phase_rad) - 3, 1))
    covariance = covariance * max(misfit, 1.0)
    return Harmonic(float(value[0]), float(np.sqrt(covariance[0, 0])), value[1:], covariance[1:, 1:])


def map_harmonics(
    gap_mev: np.ndarray, gap_std_mev: np.ndarray, phase_rad: np.ndarray, unit: np.ndarray, units: list[int]
) -> np.ndarray:
    """Return the gap's harmonic in each half-slab plane, (n, 2), NaN for planes with too few values.

    A mean of its own is taken off every plane.

    Parameters
    ----------
    gap_mev, gap_std_mev, phase_rad, unit
        (rows, columns): gap, its deviation, phase counted along the outward normal, number of the half slab.
    """
    found = np.full((len(units), 2), np.nan)
    usable = np.isfinite(gap_mev) & (gap_std_mev > 0.0) & np.isfinite(phase_rad)
    for k, number in enumerate(units):
        here = usable & (unit == number)
        if here.sum() < MIN_UNIT_POSITIONS:
            continue
        phase, weight = phase_rad[here], 1.0 / gap_std_mev[here]
        design = np.column_stack([np.ones_like(phase), np.cos(phase), np.sin(phase)]) * weight[:, None]
        if np.linalg.cond(design.T @ design) < 1e6:
            found[k] = np.linalg.lstsq(design, gap_mev[here] * weight, rcond=None)[0][1:]
    return found


def phase_half_width(value: np.ndarray, covariance: np.ndarray, dof: float, confidence: float) -> float:
    """Return the half width of the interval of a vector's phase, π if the whole circle is possible.

    Where the vector itself may be zero (Hotelling's test at the same confidence) any phase may be true. Else Fieller's argument: a
    direction is possible if the part of the vector across it is no more than noise. No small-error approximation is made.
    """
    from scipy.stats import t

    if not hotelling_p_value(value, covariance, dof) < 1.0 - confidence:
        return float(np.pi)
    angles = np.linspace(0.0, np.pi, 1801)
    center = np.arctan2(value[1], value[0])
    limit = float(t.ppf(0.5 * (1.0 + confidence), dof))
    widths = []
    for side in (1.0, -1.0):
        turned = center + side * angles
        across = np.stack([-np.sin(turned), np.cos(turned)], axis=1)
        noise = np.sqrt(np.einsum("ai,ij,aj->a", across, covariance, across))
        impossible = np.abs(across @ value) > limit * noise
        if not impossible.any():
            return float(np.pi)
        widths.append(float(angles[int(np.argmax(impossible))]))
    return max(widths)


def phase_difference(
    value: np.ndarray, covariance: np.ndarray, dof: float, gap: Harmonic, confidence: float
) -> PhaseDifference:
    """Return the phase of a mode's energy less that of the gap.

    Parameters
    ----------
    value, covariance, dof
        Mean amplitude over planes, (2,), (2, 2), and the degrees of freedom of its scatter.
    """
    from scipy.stats import norm

    angle = np.angle(np.exp(1j * (np.arctan2(value[1], value[0]) - gap.phase_rad)))
    own = phase_half_width(value, covariance, dof, confidence)
    other = float(norm.ppf(0.5 * (1.0 + confidence))) * gap.phase_std_rad
    energy = Harmonic(0.0, 0.0, value, covariance)
    return PhaseDifference(
        float(angle),
        float(np.hypot(energy.phase_std_rad, gap.phase_std_rad)),
        min(float(np.hypot(own, other)), float(np.pi)),
    )


@dataclass(frozen=True)
class MapComparison:
    """Energy and gap of the same planes.

    Attributes
    ----------
    lag
        Phase of the energy less that of the gap, over the planes.
    correlation, correlation_low, correlation_high
        Of both harmonics over the planes at no lag, -1 … 1, with interval. Noise of either brings it closer to 0.
    n_units
        Planes that both have.
    """

    lag: PhaseDifference
    correlation: float
    correlation_low: float
    correlation_high: float
    n_units: int


def compare_maps(energy: np.ndarray, gap: np.ndarray, confidence: float) -> MapComparison | None:
    """Compare the harmonics of energy and gap plane by plane, both (n, 2); None for fewer than 4 planes with both.

    The planes are the units: the lag is the phase of the mean of energy times conjugate gap, its interval from the
    scatter of these; the correlation's interval is the jackknife's over planes on Fisher's z.
    """
    from scipy.stats import t

    both = np.isfinite(energy).all(axis=1) & np.isfinite(gap).all(axis=1)
    e, g = (values[both, 0] + 1j * values[both, 1] for values in (energy, gap))
    n = len(e)
    if n < 4 or not (np.abs(e).any() and np.abs(g).any()):
        return None
    product = e * np.conj(g)
    vectors = np.column_stack([product.real, product.imag])
    mean, covariance = vectors.mean(axis=0), np.cov(vectors.T) / n
    lag = phase_difference(
        mean, covariance, n - 1, Harmonic(0.0, 0.0, np.array([1.0, 0.0]), np.zeros((2, 2))), confidence
    )

    def z_of(chosen: np.ndarray) -> float:
        r = float(product[chosen].real.sum() / np.sqrt((np.abs(e[chosen]) ** 2).sum() * (np.abs(g[chosen]) ** 2).sum()))
        return float(np.arctanh(np.clip(r, -0.999999, 0.999999)))

    whole = z_of(np.ones(n, dtype=bool))
    left_out = np.array([z_of(np.arange(n) != k) for k in range(n)])
    std = float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
    reach = float(t.ppf(0.5 * (1.0 + confidence), n - 1)) * std
    return MapComparison(lag, float(np.tanh(whole)), float(np.tanh(whole - reach)), float(np.tanh(whole + reach)), n)
