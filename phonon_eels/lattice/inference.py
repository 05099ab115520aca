"""What can be claimed from one complex amplitude per half-slab plane.

The unit of replication is the plane, not the position: positions of one plane share drift, thickness and strain, so
counting them as independent finds modulations in noise (SCIENCE §9).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOISE_NODES = 200
TYPICAL_NULL_LENGTH = float(np.sqrt(2.0 * np.log(2.0)))
"""Median length of a vector of noise alone, in standard deviations of a component."""


@dataclass(frozen=True)
class MeanAmplitude:
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
    dof: int
    p_value: float

    @property
    def amplitude(self) -> float:
        """Length of the mean vector."""
        return float(np.hypot(*self.value))

    @property
    def phase_rad(self) -> float:
        """Phase ψ of amplitude · cos(φ - ψ)."""
        return float(np.arctan2(self.value[1], self.value[0]))

    @property
    def amplitude_std(self) -> float:
        """Standard deviation along the vector."""
        along = self.value / max(self.amplitude, 1e-300)
        return float(np.sqrt(along @ self.covariance @ along))

    @property
    def phase_std_rad(self) -> float:
        """Standard deviation across the vector over its length; π/√3 (nothing known) at most."""
        across = np.array([-self.value[1], self.value[0]]) / max(self.amplitude, 1e-300)
        return float(
            min(np.sqrt(across @ self.covariance @ across) / max(self.amplitude, 1e-300), np.pi / np.sqrt(3.0))
        )

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


def hotelling_f(value: np.ndarray, covariance: np.ndarray, dof: int) -> float:
    """Return Hotelling's F of a 2-vector: T² (dof - 1)/(2 dof), distributed as F(2, dof - 1) under no effect."""
    if dof < 2 or not np.isfinite(covariance).all() or np.linalg.det(covariance) <= 0.0:
        return float("nan")
    return float(value @ np.linalg.solve(covariance, value)) * (dof - 1) / (2.0 * dof)


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
        Both from one least-squares fit ``units = antiphase + sign · inphase``, so that neither leaks into the other when
        there are more planes of one kind. If all signs are equal the second is unknown (NaN) and the first is the mean.
    """
    from scipy.stats import f as f_distribution

    n = len(units)
    both = bool(np.any(sign > 0) and np.any(sign < 0))
    design = np.column_stack([np.ones(n), sign]) if both else np.ones((n, 1))
    dof = n - design.shape[1]
    nothing = MeanAmplitude(np.full(2, np.nan), np.full((2, 2), np.nan), dof, float("nan"))
    if dof < 2:
        return nothing, nothing
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ units
    residual = units - design @ coefficients
    scatter = residual.T @ residual / dof
    results = []
    for k in range(design.shape[1]):
        covariance = inverse[k, k] * scatter
        statistic = hotelling_f(coefficients[k], covariance, dof)
        p_value = float(f_distribution.sf(statistic, 2, dof - 1)) if np.isfinite(statistic) else float("nan")
        results.append(MeanAmplitude(coefficients[k], covariance, dof, p_value))
    return results[0], results[1] if both else nothing


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
