"""Several scans of one specimen: one amplitude, with the variance between scans.

A scan's planes share its thickness, its drift and its piece of crystal, so planes of three scans are not three times as
many independent witnesses. The scans' means are combined with random effects between them (DerSimonian and Laird 1986,
doi:10.1016/0197-2456(86)90046-2; variance by Paule and Mandel 1982, doi:10.6028/jres.087.022), and tested against what
scatters between scans with its own few degrees of freedom (Hartung and Knapp 2001, doi:10.1002/sim.791).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.lattice.inference import MeanAmplitude, balanced_weights, weighted_mean


@dataclass(frozen=True)
class ScanUnits:
    """Planes of one scan.

    Attributes
    ----------
    values
        (n, 2) cos and sin component of every plane, outward-signed.
    sign
        (n,) +1 or -1, see `inference.antiphase_and_inphase`.
    variance
        (n,) counting variance of a component; only the ratios between scans count.
    """

    values: np.ndarray
    sign: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class PooledAmplitude:
    """One amplitude of several scans.

    Attributes
    ----------
    mean
        Pooled amplitude with covariance, degrees of freedom and p-value; the latter is NaN with too few planes.
    between_std
        Standard deviation of a component between scans beyond what planes scatter within them; NaN for one scan.
    heterogeneity_p
        Of the hypothesis that the scans agree (Cochran's Q); NaN for one scan.
    scan_values, scan_std
        (k, 2), (k,) each scan's mean, and the standard deviation of its components from the scatter within scans.
    scan_weight
        (k,) share of each scan in the mean.
    n_units
        Planes in all.
    scans_needed
        Scans like these that would be needed for as many planes as a test asks for.
    """

    mean: MeanAmplitude
    between_std: float
    heterogeneity_p: float
    scan_values: np.ndarray
    scan_std: np.ndarray
    scan_weight: np.ndarray
    n_units: int
    scans_needed: int


def pool_scans(scans: Sequence[ScanUnits], min_units: int) -> PooledAmplitude:
    """Pool the planes of several scans.

    In each scan both orientations weigh the same, so nothing that is equal in all of its planes enters. How far planes
    scatter is estimated from all scans together, in proportion to their counting variances. Unequal variances of the cos
    and sin component lower the degrees of freedom (Box 1954, doi:10.1214/aoms/1177728786).

    Parameters
    ----------
    min_units
        Fewer planes than this in all: no p-value.
    """
    kept = [scan for scan in scans if len(scan.values)]
    n_units = sum(len(scan.values) for scan in kept)
    per_scan = n_units / len(kept) if kept else 0.0
    needed = math.ceil(min_units / per_scan) if per_scan else 0
    if len(kept) < 2:
        return _one_scan(kept, min_units, n_units, max(needed, 1))
    weights = [balanced_weights(scan.sign) for scan in kept]
    means = np.array([w @ scan.values for w, scan in zip(weights, kept, strict=True)])
    counting = np.array([(w**2 @ scan.variance) for w, scan in zip(weights, kept, strict=True)])
    scatter, dof = _scatter_within(kept, means)
    k = len(kept)
    if dof < 1:
        nothing = _nothing(float(k - 1))
        return PooledAmplitude(
            nothing, np.nan, np.nan, means, np.full(k, np.nan), np.full(k, np.nan), n_units, max(needed, k + 1)
        )
    within = float(np.trace(scatter)) / 2.0 * counting
    between = _between_variance(means, within)
    precision = 1.0 / (within + between)
    value = precision @ means / precision.sum()
    excess = float((precision[:, None] * (means - value) ** 2).sum()) / (2.0 * (k - 1))
    evenness = _evenness(scatter)
    mean = _tested(value, excess, float(precision.sum()), k, evenness, n_units >= min_units)
    at_zero = 1.0 / within
    middle = at_zero @ means / at_zero.sum()
    q = float((at_zero[:, None] * (means - middle) ** 2).sum())
    from scipy.stats import f as f_distribution

    agree = float(f_distribution.sf(q / (2.0 * (k - 1)), 2 * (k - 1) * evenness, 2 * dof * evenness))
    share = precision / precision.sum()
    return PooledAmplitude(mean, np.sqrt(between), agree, means, np.sqrt(within), share, n_units, max(needed, k))


def _tested(value: np.ndarray, excess: float, precision: float, k: int, evenness: float, enough: bool) -> MeanAmplitude:
    """Hartung and Knapp's test in two dimensions."""
    from scipy.stats import f as f_distribution

    dof = 2.0 * (k - 1) * evenness
    variance = excess / precision
    p_value = float("nan")
    if enough and variance > 0.0:
        p_value = float(f_distribution.sf(value @ value / (2.0 * variance), 2.0 * evenness, dof))
    return MeanAmplitude(value, variance * np.eye(2), dof, p_value)


def _one_scan(kept: list[ScanUnits], min_units: int, n_units: int, needed: int) -> PooledAmplitude:
    if not kept:
        return PooledAmplitude(_nothing(0.0), np.nan, np.nan, np.zeros((0, 2)), np.zeros(0), np.zeros(0), 0, 0)
    scan = kept[0]
    mean = weighted_mean(scan.values, balanced_weights(scan.sign))
    if n_units < min_units:
        mean = replace(mean, p_value=float("nan"))
    std = float(np.sqrt(np.trace(mean.covariance) / 2.0))
    return PooledAmplitude(
        mean, float("nan"), float("nan"), mean.value[None], np.array([std]), np.ones(1), n_units, needed
    )


def _nothing(dof: float) -> MeanAmplitude:
    return MeanAmplitude(np.full(2, np.nan), np.full((2, 2), np.nan), dof, float("nan"))


def _scatter_within(scans: list[ScanUnits], means: np.ndarray) -> tuple[np.ndarray, int]:
    """Covariance of a plane over its counting variance, (2, 2), from the scatter within all scans."""
    total, dof = np.zeros((2, 2)), 0
    for scan, mean in zip(scans, means, strict=True):
        residual = (scan.values - mean) / np.sqrt(scan.variance)[:, None]
        total += residual.T @ residual
        dof += len(scan.values) - 1
    return total / max(dof, 1), dof


def _evenness(scatter: np.ndarray) -> float:
    """Box's factor of the degrees of freedom: 1 for equal variances of both components, 1/2 if one has none."""
    return float(np.trace(scatter) ** 2 / (2.0 * np.trace(scatter @ scatter)))


def _between_variance(means: np.ndarray, within: np.ndarray) -> float:
    """Variance between scans with which they scatter as much as expected (Paule and Mandel); 0 if they scatter less."""
    from scipy.optimize import brentq

    expected = 2.0 * (len(means) - 1)

    def excess(between: float) -> float:
        precision = 1.0 / (within + between)
        middle = precision @ means / precision.sum()
        return float((precision[:, None] * (means - middle) ** 2).sum()) - expected

    if excess(0.0) <= 0.0:
        return 0.0
    top = float(((means - means.mean(axis=0)) ** 2).sum()) + float(within.max())
    while excess(top) > 0.0:
        top *= 4.0
    return float(brentq(excess, 0.0, top))
