"""What can be claimed from one complex amplitude per half-slab plane.

The unit of replication is the plane, not the position: positions of one plane share drift, thickness and strain, so
counting them as independent finds modulations in noise (SCIENCE §9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.lattice.vector import HarmonicVector

NOISE_NODES = 200
TYPICAL_NULL_LENGTH = float(np.sqrt(2.0 * np.log(2.0)))
"""Median length of a vector of noise alone, in standard deviations of a component."""
MIN_VECTORS = 3
"""Fewer vectors than this say nothing of their own scatter in two dimensions."""
MIN_DOF = 2.0


@dataclass(frozen=True)
class MeanAmplitude(HarmonicVector):
    """Mean complex amplitude of the units, with the scatter between them.

    Attributes
    ----------
    value
        (2,) cos and sin component.
    covariance
        (2, 2) of the mean, from the scatter between units.
    dof
        Degrees of freedom of that scatter.
    p_value
        Of Hotelling's F test against zero; NaN if there are too few units.
    """

    value: np.ndarray
    covariance: np.ndarray
    dof: float
    p_value: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval of the true amplitude by inverting the non-central chi-squared distribution.

        The length of a noisy vector is biased upwards; subtracting a bias does not mend that (SCIENCE §9), inverting the
        distribution of the length does. The noise is itself estimated from few planes, so the distribution is averaged
        over what is then known of it (scaled inverse chi-squared with `dof`): far from zero this is Student's interval, at
        zero the lower end is 0. A vector shorter than noise alone would give in half of all cases excludes nothing that
        such a typical one would not (power-constrained limit, arXiv:1105.3166), so the interval is never empty.
        """
        from scipy.optimize import brentq
        from scipy.stats import chi2, ncx2

        length, noise = self.amplitude, self.amplitude_std
        if not (np.isfinite(length) and np.isfinite(noise) and noise > 0.0 and self.dof >= 2):
            return float("nan"), float("nan")
        quantiles = (np.arange(NOISE_NODES) + 0.5) / NOISE_NODES
        variance = noise**2 * self.dof / chi2.ppf(quantiles, self.dof)

        def below(amplitude: float, observed: float) -> float:
            """Probability of a shorter vector than the observed one if this were the truth."""
            return float(np.mean(ncx2.cdf(observed**2 / variance, 2, np.maximum(amplitude**2 / variance, 1e-12))))

        tail = 0.5 * (1.0 - confidence)
        typical = max(length, TYPICAL_NULL_LENGTH * noise)
        top = typical + 10.0 * noise
        while below(top, typical) > tail:
            top *= 1.5
        low = 0.0
        if below(0.0, length) > 1.0 - tail:
            low = brentq(lambda a: below(a, length) - (1.0 - tail), 0.0, top)
        high = brentq(lambda a: below(a, typical) - tail, 0.0, top)
        return float(low), float(high)


def hotelling_f(value: np.ndarray, covariance: np.ndarray, dof: float) -> float:
    """Return Hotelling's F of a 2-vector: T² (dof - 1)/(2 dof), distributed as F(2, dof - 1) under no effect."""
    if dof < 2 or not np.isfinite(covariance).all() or np.linalg.det(covariance) <= 0.0:
        return float("nan")
    return float(value @ np.linalg.solve(covariance, value)) * (dof - 1) / (2.0 * dof)


def hotelling_p_value(value: np.ndarray, covariance: np.ndarray, dof: float) -> float:
    """Return the p-value of Hotelling's F; the tail of F(2, ν) is elementary: (1 + 2F/ν)^(-ν/2)."""
    statistic = hotelling_f(value, covariance, dof)
    return float((1.0 + 2.0 * statistic / (dof - 1)) ** (-0.5 * (dof - 1))) if np.isfinite(statistic) else float("nan")


def balanced_weights(sign: np.ndarray) -> np.ndarray:
    """Return weights of the units whose sum is 1 and half of it in each orientation, (n,).

    With them what is equal in all planes at equal lateral place cancels exactly, however many planes of each
    orientation there are. If all planes have one orientation the weights are equal.
    """
    up = sign > 0
    if up.all() or not up.any():
        return np.full(len(sign), 1.0 / max(len(sign), 1))
    return np.where(up, 0.5 / up.sum(), 0.5 / (~up).sum())


def weighted_mean(units: np.ndarray, weights: np.ndarray) -> MeanAmplitude:
    """Return the weighted mean of independent 2-vectors of unknown and unequal noise.

    Under no effect the vectors n · weight · unit all have mean zero, whatever their noise, so the test is that of one
    sample of those. One-sample tests of this kind stay below their level at 5 % however unequal the variances are
    (t statistic: Bakirov and Székely 2005, doi:10.1007/s10958-006-0366-5; its use with few groups: Ibragimov and Müller 2010,
    doi:10.1198/jbes.2009.08046; for Hotelling's T² shown by simulation here). The price: with unequal weights an effect
    itself scatters the vectors, so p-values have a floor that only planes of both orientations lower.

    The covariance, for intervals, is that of the residuals, each with its weight; its degrees of freedom are
    Satterthwaite's for equal noise, 2 at least.

    Parameters
    ----------
    units
        (n, 2).
    weights
        (n,) with sum 1, chosen without looking at the values.
    """
    n = len(units)
    if n < MIN_VECTORS:
        return MeanAmplitude(np.full(2, np.nan), np.full((2, 2), np.nan), float(n - 1), float("nan"))
    value = weights @ units
    spread = n * weights[:, None] * units - value
    p_value = hotelling_p_value(value, spread.T @ spread / (n * (n - 1)), n - 1)
    squared = float((weights**2).sum())
    residual = weights[:, None] * (units - value)
    expected = float((weights**2 * (1.0 - 2.0 * weights + squared)).sum())
    covariance = residual.T @ residual * squared / expected
    dof = max(squared**2 / float((weights**4).sum()) - 1.0, MIN_DOF)
    return MeanAmplitude(value, covariance, dof, p_value)


def antiphase_and_inphase(units: np.ndarray, sign: np.ndarray) -> tuple[MeanAmplitude, MeanAmplitude]:
    """Split the units' outward-signed amplitudes into what follows the outward normal and what does not.

    Parameters
    ----------
    units
        (n, 2) cos and sin components, phase counted along each plane's outward normal.
    sign
        (n,) +1 or -1: the sign that the outward normal put on the plane; its product with `units` is the amplitude at
        equal lateral phase, in which an energy drift is equal for all planes.

    Returns
    -------
    antiphase, inphase
        Mean over the orientations, and half of their difference; neither leaks into the other. The antiphase part
        is tested as a weighted mean, with an in-phase part counted as scatter: conservative. The in-phase part is tested
        against the scatter within each orientation, so that a strong antiphase one does not hide it. If all signs are equal the
        second is unknown (NaN) and the first is the plain mean.
    """
    antiphase = weighted_mean(units, balanced_weights(sign))
    n = len(units)
    nothing = MeanAmplitude(np.full(2, np.nan), np.full((2, 2), np.nan), float(n - 2), float("nan"))
    if n < MIN_VECTORS + 1 or not (np.any(sign > 0) and np.any(sign < 0)):
        return antiphase, nothing
    design = np.column_stack([np.ones(n), sign])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ units
    residual = units - design @ coefficients
    covariance = inverse[1, 1] * residual.T @ residual / (n - 2)
    p_value = hotelling_p_value(coefficients[1], covariance, n - 2)
    return antiphase, MeanAmplitude(coefficients[1], covariance, float(n - 2), p_value)


def rotation_p_value(units: np.ndarray, seed: int, trials: int = 9999) -> float:
    """Return the p-value of the mean's length when each unit's phase is rotated at random, (n, 2) units."""
    phasors = units[:, 0] + 1j * units[:, 1]
    rng = np.random.default_rng(seed)
    turned = phasors * np.exp(2j * np.pi * rng.random((trials, len(phasors))))
    return float((1 + np.count_nonzero(np.abs(turned.mean(axis=1)) >= np.abs(phasors.mean()))) / (trials + 1))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number by Holm's step-down method; NaN stays NaN."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * float(p_values[index])))
        adjusted[index] = running
    return adjusted
