"""What a deconvolution does to noise, by sending noise through it: growth per channel, correlation, error bars of fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LAGS = 60
Many = Callable[[np.ndarray], np.ndarray]
"""Spectra (draws, channels) -> deconvolved spectra."""


@dataclass(frozen=True)
class NoiseResponse:
    """Noise before and after.

    Attributes
    ----------
    gain
        Variance of a channel after over the variance that was carried before, (channels,).
    correlation
        Mean correlation of two channels by their distance, (lags,).
    before, after
        The noise itself, (draws, channels).
    """

    gain: np.ndarray
    correlation: np.ndarray
    before: np.ndarray
    after: np.ndarray


def noise_response(mean: np.ndarray, variance: np.ndarray, before: np.ndarray, deconvolution: Many) -> NoiseResponse:
    """Add noise to the mean spectrum, deconvolve, and look at what comes out.

    Parameters
    ----------
    mean, variance
        Mean spectrum and the variance that one position carries, (channels,).
    before
        Draws of the noise of one position, as the steps before have left it, (draws, channels).
    deconvolution
        The method, as it is used on the data.

    Notes
    -----
    `gain` is relative to the variance that the image carries. Draws are of the mean spectrum: positions much brighter or darker
    than it respond differently where the method is not linear.
    """
    spread = np.sqrt(np.where(np.isfinite(variance) & (variance > 0.0), variance, 0.0))
    n = mean.size
    after = deconvolution(mean + before) - deconvolution(mean[None])[0]
    finite = np.isfinite(after).all(axis=1)
    before, after = before[finite], after[finite]
    grown = after.var(axis=0)
    gain = np.where(spread > 0.0, grown / np.where(spread > 0.0, spread, 1.0) ** 2, np.nan)
    unit = (after - after.mean(axis=0)) / np.sqrt(np.where(grown > 0.0, grown, 1.0))
    lags = min(LAGS, n - 1)
    correlation = np.array([float((unit[:, : n - lag] * unit[:, lag:]).mean()) for lag in range(lags)])
    return NoiseResponse(_smooth(gain), correlation / correlation[0], before, after)


def _smooth(gain: np.ndarray) -> np.ndarray:
    """Average over five channels: each value of 400 draws is known to 7 %, and neighbours tell of each other."""
    padded = np.pad(np.where(np.isfinite(gain), gain, np.nanmedian(gain)), 2, mode="edge")
    return np.convolve(padded, np.full(5, 0.2), mode="valid")


def correlation_length(correlation: np.ndarray) -> float:
    """Return how many channels at which the correlation has fallen to one half, by straight lines between channels."""
    below = np.flatnonzero(correlation < 0.5)
    if below.size == 0:
        return float(correlation.size)
    k = int(below[0])
    return k - 1 + float((correlation[k - 1] - 0.5) / (correlation[k - 1] - correlation[k]))


def std_factors(
    noise: NoiseResponse, variance: np.ndarray, energies_mev: np.ndarray, peaks: pd.DataFrame, dispersion_mev: float
) -> pd.DataFrame:
    """Return by how much a least-squares fit that takes channels as independent understates its deviations.

    For each peak a Gaussian of its measured width on a constant is fitted, linearised, to the noise that came out, with the
    weights that a fit of the deconvolved spectra would use. `std_factor` is the scatter of its energy (and area) over the
    deviation it would quote: `fit_peaks` propagates the same noise through its own model instead of multiplying by it.

    Parameters
    ----------
    variance
        That the result carries for one position, (channels,).
    peaks
        Rows with ``mode``, ``energy_mev``, ``measured_fwhm_mev``.
    """
    import pandas as pd

    rows = []
    length = dispersion_mev * correlation_length(noise.correlation)
    for row in peaks.to_dict("records"):
        sigma = float(row["measured_fwhm_mev"]) / (2.0 * np.sqrt(2.0 * np.log(2.0)))
        x = (energies_mev - float(row["energy_mev"])) / sigma if sigma > 0.0 else np.full_like(energies_mev, np.inf)
        near = (np.abs(x) < 3.0) & (variance > 0.0)
        if near.sum() < 6:
            continue
        line = np.exp(-0.5 * x[near] ** 2)
        jacobian = np.stack([line, x[near] * line, np.ones(near.sum())])
        weighted = jacobian / variance[near]
        information = weighted @ jacobian.T
        estimates = np.linalg.solve(information, weighted @ noise.after[:, near].T)
        quoted = np.sqrt(np.diag(np.linalg.inv(information)))
        factor = estimates.std(axis=1, ddof=1) / quoted
        rows.append(
            (row["mode"], row["energy_mev"], factor[1], factor[0], 1.0 / np.sqrt(2.0 * len(noise.after)), length)
        )
    columns = ["mode", "energy_mev", "energy_std_factor", "area_std_factor", "relative_std", "correlation_length_mev"]
    return pd.DataFrame(rows, columns=columns)


def maxima_table(
    energies_mev: np.ndarray, before: np.ndarray, after: np.ndarray, after_std: np.ndarray, reach_mev: float
) -> pd.DataFrame:
    """Return the maxima of the deconvolved mean spectrum, and which of them were there before.

    Parameters
    ----------
    before, after
        Mean spectrum, (channels,).
    after_std
        Its standard deviation after deconvolution; maxima that stand out by less than three of it are left out.
    reach_mev
        A maximum before counts for the nearest one after, once, if it is no farther than this.
    """
    import pandas as pd

    columns = ["energy_mev", "prominence_std", "seen_before", "evidence"]
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return pd.DataFrame(columns=columns)
    found = local_maxima(after)
    above = prominences(after, found) / np.where(after_std[found] > 0.0, after_std[found], np.inf)
    found, above = found[above >= 3.0], above[above >= 3.0]
    earlier = energies_mev[local_maxima(before)]
    pairs = sorted(
        (abs(energies_mev[k] - energy), number, other)
        for number, k in enumerate(found)
        for other, energy in enumerate(earlier)
    )
    seen, used = set(), set()
    for distance, number, other in pairs:
        if distance <= reach_mev and number not in seen and other not in used:
            seen.add(number)
            used.add(other)
    rows = [
        (
            energies_mev[k],
            above[n],
            n in seen,
            "seen before deconvolution" if n in seen else "none: only after deconvolution",
        )
        for n, k in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=columns)


def local_maxima(values: np.ndarray) -> np.ndarray:
    """Return the channels that are higher than those on both sides, the middle one of several that are equal, (maxima,).

    As `scipy.signal.find_peaks`, which a test holds against it: that module loads all of SciPy's statistics, half a second.
    """
    first = np.flatnonzero(np.diff(values, prepend=np.nan) != 0.0)  # of every run of equal values
    last = np.append(first[1:], values.size) - 1
    height = values[first]
    top = np.flatnonzero((height[1:-1] > height[:-2]) & (height[1:-1] > height[2:])) + 1
    return np.asarray((first[top] + last[top]) // 2)


def prominences(values: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """Return how far one has to go down from each maximum, at least, before it goes up to anything higher, (maxima,)."""
    result = np.empty(maxima.size)
    for number, k in enumerate(maxima):
        higher = np.flatnonzero(values > values[k])
        n_left = np.searchsorted(higher, k)
        start = higher[n_left - 1] if n_left > 0 else 0
        stop = higher[n_left] if n_left < higher.size else values.size
        left, right = values[start : k + 1].min(), values[k:stop].min()
        result[number] = values[k] - max(left, right)
    return result
