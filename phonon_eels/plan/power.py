"""Chance to detect an amplitude with Hotelling's test over half-slab planes, and what chance asks of the amplitude.

The test is that of `lattice.inference.antiphase_and_inphase`: one sample of n planes, weighted so that either orientation
counts half, scatter on n - 1 degrees of freedom. Under a true amplitude A its statistic follows the non-central F
distribution with (2, n - 2) degrees of freedom and non-centrality A² / variance of the mean (exactly so where there are as many
planes of one orientation as of the other).
"""

from __future__ import annotations

import numpy as np


def mean_variance_factor(n_units: int) -> float:
    """Return the variance of the outward mean over that of one plane; planes of either orientation take turns."""
    excess = n_units % 2
    return n_units / (n_units**2 - excess) if n_units > 1 else 1.0


def degrees_of_freedom(n_units: int) -> int:
    """Return the degrees of freedom of the scatter between planes."""
    return n_units - 1


def power(amplitude_mev: float | np.ndarray, unit_std_mev: float, n_units: int, confidence: float) -> np.ndarray:
    """Return the chance that the test rejects "no modulation".

    Parameters
    ----------
    amplitude_mev
        True amplitudes.
    unit_std_mev
        Standard deviation of a component of one plane's amplitude.
    n_units
        Planes in all scans together.
    """
    from scipy.stats import f, ncf

    amplitude = np.asarray(amplitude_mev, dtype=float)
    second = degrees_of_freedom(n_units) - 1
    if second < 1 or not np.isfinite(unit_std_mev):
        return np.full(amplitude.shape, np.nan)
    critical = f.isf(1.0 - confidence, 2, second)
    noise = unit_std_mev**2 * mean_variance_factor(n_units)
    shift = np.maximum(amplitude**2 / noise, 1e-12)
    chance = np.asarray(ncf.sf(critical, 2, second, shift))
    # The series of the distribution ends in NaN where the chance is 1 to all digits.
    return np.where(np.isfinite(chance), chance, np.where(shift > 4.0 * critical, 1.0, np.nan))


def detectable_amplitude(unit_std_mev: float, n_units: int, confidence: float, wanted: float) -> float:
    """Return the amplitude that is detected with the wanted chance, in meV; NaN where nothing can be tested."""
    from scipy.optimize import brentq

    if degrees_of_freedom(n_units) < 2 or not np.isfinite(unit_std_mev):
        return float("nan")
    top = unit_std_mev
    while power(top, unit_std_mev, n_units, confidence) < wanted:
        top *= 2.0
    return float(brentq(lambda a: float(power(a, unit_std_mev, n_units, confidence)) - wanted, 0.0, top, xtol=1e-6))
