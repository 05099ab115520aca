"""Slabs without the wave that their neighbours show: 90° twins, whose superstructure runs along the beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.lattice.superstructure import NoSuperstructureError, Superstructure, find_superstructure
from phonon_eels.lattice.wave import Samples, amplitude_of

NO_WAVE = "no wave"
SEEN_SIGMA = 3.0
ABSENT_SHARE = 0.5
"""A slab whose amplitude stays below this share of the median by two deviations has no wave."""


@dataclass(frozen=True)
class SlabWave:
    """Amplitude of the wave in one slab.

    Attributes
    ----------
    verdict
        "wave", "no wave", or "not distinguished" where noise allows both.
    """

    slab: int
    amplitude_nm: float
    amplitude_std_nm: float
    verdict: str


def slab_waves(samples: Samples, found: Superstructure) -> tuple[SlabWave, ...]:
    """Return the amplitude of the wave in every slab, all fitted together at the wavevector of the whole.

    Stacks of Bi2212 hold 90° twist boundaries across c (Phys. Rev. B 37, 9834); a slab turned so shows the lattice but no wave.
    """
    slabs = np.unique(samples.slab)
    patterns = np.array([np.where(samples.slab == slab, found.sign, 0.0) for slab in slabs])
    parts, covariance = amplitude_of(samples, patterns, found.wave)
    sizes, spreads = np.hypot(parts[:, 0], parts[:, 1]), np.empty(len(slabs))
    for k, (cos, sin) in enumerate(parts):
        along = np.array([cos, sin]) / max(float(sizes[k]), 1e-15)
        spreads[k] = np.sqrt(max(along @ covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] @ along, 0.0))
    usual = float(np.median(sizes))
    return tuple(
        SlabWave(int(slab), float(size), float(spread), _verdict(float(size), float(spread), usual))
        for slab, size, spread in zip(slabs, sizes, spreads, strict=True)
    )


def find_in_slabs(
    samples: Samples,
    side: np.ndarray,
    period_bounds_nm: tuple[float, float],
    *,
    antiphase_slabs: bool,
    period_nm: float | None = None,
) -> tuple[Samples, Superstructure, tuple[SlabWave, ...]]:
    """Find the wave, leave slabs out that do not show it, and find it again in the rest.

    Parameters
    ----------
    samples, side, period_bounds_nm, antiphase_slabs, period_nm
        As in `find_superstructure`.

    Returns
    -------
    The samples that show the wave, the wave, and every slab's amplitude.

    Raises
    ------
    NoSuperstructureError
        If too little is in view or no wave is significant.
    """

    def find(kept: Samples, of: np.ndarray) -> Superstructure:
        return find_superstructure(kept, of, period_bounds_nm, antiphase_slabs=antiphase_slabs, period_nm=period_nm)

    found = find(samples, side)
    slabs = slab_waves(samples, found)
    turned = [entry.slab for entry in slabs if entry.verdict == NO_WAVE]
    if not turned:
        return samples, found, slabs
    kept = ~np.isin(samples.slab, turned)
    rest = samples.select(kept)
    try:
        return rest, find(rest, side[kept]), slabs
    except NoSuperstructureError:  # the rest alone may be too little to show it
        return samples, found, slabs


def _verdict(size: float, spread: float, usual: float) -> str:
    if size + 2.0 * spread < ABSENT_SHARE * usual:
        return NO_WAVE
    return "wave" if size > SEEN_SIGMA * spread else "not distinguished"
