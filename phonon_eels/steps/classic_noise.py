"""Deviations, p-values and bounds of fits to spectra whose channels share noise, from draws of that noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.component_fit.passes import Problem
from phonon_eels.component_fit.result import ASYMPTOTIC_SIGMA, FEW_COUNTS, ComponentFit
from phonon_eels.component_fit.start import evaluate_model
from phonon_eels.kernels.likelihood import CONVERGED
from phonon_eels.steps.carried_noise import known_draws

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend
    from phonon_eels.steps.spec import StepContext

SMALLEST_EIGENVALUE = 1e-10


@dataclass(frozen=True)
class SpectrumNoise:
    """What is known of the noise of the spectra that are fitted.

    Attributes
    ----------
    covariance
        Covariance of the channels over the product of the deviations that they carry, (channels, channels).
    n_draws
        Draws it was taken from.
    """

    covariance: np.ndarray
    n_draws: int

    @cached_property
    def inverse(self) -> np.ndarray:
        """Inverse of the covariance, (channels, channels)."""
        return self.inverse_of(np.ones(len(self.covariance), dtype=bool))

    def inverse_of(self, used: np.ndarray) -> np.ndarray:
        """Return the inverse for the channels that are used, 0 elsewhere; unbiased for draws of limited number.

        References
        ----------
        Hartlap, Simon and Schneider 2007, doi:10.1051/0004-6361:20066170.
        """
        own = used & (np.diag(self.covariance) > 0.0)
        result = np.zeros_like(self.covariance)
        place = np.ix_(own, own)
        factor = (self.n_draws - own.sum() - 2) / (self.n_draws - 1)
        result[place] = max(factor, 0.0) * np.linalg.pinv(self.covariance[place], hermitian=True)
        return result


@dataclass(frozen=True)
class NoisyFit:
    """A fit with deviations that hold, and what a fit of independent channels would have quoted.

    Attributes
    ----------
    fit
        Deviations, p-values and the status "few_counts" are those of the noise as it is.
    naive_std
        Deviations as if channels were independent, (rows, columns, parameters).
    bound
        Cramér-Rao bounds with the noise as it is, all parameters of the model free, no prior, (rows, columns, parameters).
    known
        False where the noise is not known: all deviations are naive then.
    kept, covariance
        Numbers of the parameters, and their covariance with the noise as it is, (rows, columns, kept, kept).
    chi2_mean
        What the noise lets Pearson's chi-squared be on average, (rows, columns).
    """

    fit: ComponentFit
    naive_std: np.ndarray
    bound: np.ndarray
    known: bool
    kept: np.ndarray
    covariance: np.ndarray
    chi2_mean: np.ndarray


def spectrum_noise(context: StepContext, channels: slice) -> SpectrumNoise | None:
    """Return the noise in the fitted channels of the image, None where no step has told it."""
    draws = known_draws(context.maps)
    if draws is None or draws.shape[1] < channels.stop:
        return None
    draws = draws[:, channels]
    return SpectrumNoise(np.cov(draws, rowvar=False), draws.shape[0])


def with_noise(
    fit: ComponentFit, problem: Problem, noise: SpectrumNoise | None, backend: Backend, kept: np.ndarray
) -> NoisyFit:
    """Return the fit with the deviations that the noise of its spectra makes.

    The estimate is linear in small noise, δθ = F⁻¹ Jᵀ W δy with F = Jᵀ W J + P, so its covariance is
    F⁻¹ (Jᵀ W C W J + P) F⁻¹ with C the covariance of the noise. Pearson's chi-squared has the mean tr(QC) and the variance
    2 tr(QCQC) with Q what the fit leaves; its p-value is that of the scaled chi-squared law with both
    (Satterthwaite, doi:10.2307/3002019). Parameters at a bound are held there.

    Parameters
    ----------
    kept
        Numbers of the parameters whose covariance is kept.
    """
    shape, n_params = fit.status.shape, fit.values.shape[2]
    naive = fit.std
    if noise is None:
        dof = np.maximum(fit.n_channels - fit.model.free.size, 1.0)
        unknown = np.full((*shape, n_params), np.nan)
        return NoisyFit(fit, naive, unknown, False, kept, _independent(fit, kept), dof)
    window = slice(problem.first, problem.first + problem.mask.size)
    fixed = fit.model.owner[kept] < 0

    def block(first_row: int, variance: np.ndarray, bad: np.ndarray | None) -> list[np.ndarray]:
        std, bound = np.full((2, *variance.shape[:2], n_params), np.nan)
        chi2 = np.full((*variance.shape[:2], 2), np.nan)
        matrix = np.full((*variance.shape[:2], kept.size, kept.size), np.nan)
        for at in np.ndindex(variance.shape[:2]):
            place = (first_row + at[0], at[1])
            spread = np.asarray(variance[at][window], dtype=float)
            used = np.isfinite(spread) & (spread > 0.0)
            if bad is not None:
                used &= ~np.asarray(bad[at][window], dtype=bool)
            if fit.usable[place] and used.any():
                whole, bound[at], chi2[at] = _position(fit, place, np.where(used, spread, np.inf), noise)
                std[at] = np.sqrt(np.maximum(np.diag(whole), 0.0))
                matrix[at] = np.where(fixed | fixed[:, None], 0.0, whole[np.ix_(kept, kept)])
        return [std, bound, chi2, matrix]

    parts = backend.map_rows(block, [problem.variance, problem.bad])
    std, bound, chi2, matrix = (np.concatenate([part[k] for part in parts]) for k in range(4))
    return NoisyFit(
        _told_anew(fit, std, chi2), naive, bound.reshape(*shape, n_params), True, kept, matrix, chi2[..., 0]
    )


def _independent(fit: ComponentFit, kept: np.ndarray) -> np.ndarray:
    """Return the covariance that channels taken as independent give, (rows, columns, kept, kept)."""
    matrix = np.full((*fit.status.shape, kept.size, kept.size), np.nan)
    if fit.covariance is None:
        return matrix
    place = {int(p): k for k, p in enumerate(fit.model.free)}
    owner, factor = fit.model.owner[kept], fit.model.affine[kept, 0]
    own = np.flatnonzero(owner >= 0)
    free = np.array([place[int(p)] for p in owner[own]], dtype=np.int64)
    matrix[...] = 0.0  # of what is fixed
    matrix[..., own[:, None], own] = fit.covariance[..., free[:, None], free] * np.outer(factor[own], factor[own])
    return np.where(fit.usable[..., None, None], matrix, np.nan)


def _position(
    fit: ComponentFit, place: tuple[int, int], variance: np.ndarray, noise: SpectrumNoise
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return covariance (parameters, parameters), bounds (parameters,), and mean and variance of chi-squared, of one position."""
    model, params = fit.model, fit.values[place]
    rows = evaluate_model(model, params)[1][:, : variance.size]
    used = np.isfinite(variance)
    root = np.where(used, 1.0 / np.sqrt(variance), 0.0)
    covariance = noise.covariance if used.all() else noise.covariance * used * used[:, None]
    free = model.free
    kept = free[np.isfinite(fit.std[place][free])]
    matrix, bound = np.full((params.size, params.size), np.nan), np.full(params.size, np.nan)

    precision = model.bounds[3, kept]
    jacobian = rows[kept] * root
    scale = np.sqrt((jacobian**2).sum(axis=1) + precision)
    unit, prior = jacobian / scale[:, None], precision / scale**2
    inverse = np.linalg.pinv(unit @ unit.T + np.diag(prior), hermitian=True)
    seen = unit @ covariance
    shared = inverse @ (seen @ unit.T)
    matrix[np.ix_(kept, kept)] = (shared @ inverse + (inverse * prior) @ inverse) / np.outer(scale, scale)

    mean = float(np.trace(covariance) - np.trace(shared))
    # Draws of limited number widen the sum of squares by the trace squared over their number.
    squares = float((covariance**2).sum() - np.trace(covariance) ** 2 / noise.n_draws)
    squares += float(-2.0 * (inverse * (seen @ seen.T)).sum() + (shared * shared.T).sum())
    chi2 = np.array([mean, 2.0 * max(squares, mean**2 / used.sum())])

    inverse_noise = noise.inverse if used.all() else noise.inverse_of(used)
    whitened = rows[free] * root
    bound[free] = _bound(whitened @ inverse_noise @ whitened.T)
    for p in np.flatnonzero((model.owner >= 0) & (model.owner != np.arange(model.owner.size))):  # those that are tied
        factor, owner = model.affine[p, 0], model.owner[p]
        matrix[p] = factor * matrix[owner]
        matrix[:, p] = factor * matrix[:, owner]
        bound[p] = abs(factor) * bound[owner]
    return matrix, bound, chi2


def _bound(information: np.ndarray) -> np.ndarray:
    """Return the roots of the diagonal of the inverse, infinite where there is no information."""
    scale = np.sqrt(np.maximum(np.diag(information), 0.0))
    told = scale > 0.0
    result = np.full(scale.size, np.inf)
    own = scale[told]
    values, vectors = np.linalg.eigh(information[np.ix_(told, told)] / np.outer(own, own))
    result[told] = np.sqrt((vectors**2 / np.maximum(values, SMALLEST_EIGENVALUE)).sum(axis=1)) / own
    return result


def _told_anew(fit: ComponentFit, std: np.ndarray, chi2: np.ndarray) -> ComponentFit:
    """Return the fit with other deviations; which peaks hold too few counts follows from them."""
    from scipy.stats import chi2 as law

    mean, variance = chi2[..., 0], chi2[..., 1]
    scale = 0.5 * variance / mean
    p_value = np.where(np.isfinite(scale), law.sf(fit.pearson_chi2 / scale, mean / scale), np.nan)
    areas = [p for p in fit.model.peaks if fit.model.owner[p] == p]
    with np.errstate(invalid="ignore"):
        weak = (fit.values[..., areas] < ASYMPTOTIC_SIGMA * std[..., areas]).any(axis=-1)
    told = np.isin(fit.status, (CONVERGED, FEW_COUNTS))
    status = np.where(told, np.where(weak, FEW_COUNTS, CONVERGED), fit.status).astype(fit.status.dtype)
    return replace(fit, std=std, p_value=p_value, status=status, covariance=None)
