"""What the fit of every position leaves: values, deviations, statuses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.component_fit.model import ComponentModel
from phonon_eels.component_fit.start import evaluate_model
from phonon_eels.kernels.component_fit import NOT_IDENTIFIED
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED

STATUS_WORDS = ("converged", "max_iterations", "singular", "no_data", "at_bound", "not_identified", "few_counts")
"""What the numbers of a status map say."""
FEW_COUNTS = 6
ASYMPTOTIC_SIGMA = 5.0
"""A peak whose area is less than this many standard deviations has no parabola around its optimum: `few_counts`."""
USABLE = (CONVERGED, AT_BOUND, NOT_IDENTIFIED, FEW_COUNTS)


@dataclass(frozen=True)
class ComponentFit:
    """The fit of every position; maps are (rows, columns, …).

    Attributes
    ----------
    model
        What was fitted; its `names` are those of the parameters.
    values, std
        (rows, columns, parameters), std from the Fisher matrix: NaN where fixed, at a bound or not identified.
        Areas and amplitudes in electrons (counts where no gain was given), energies in meV.
    covariance
        (rows, columns, free, free) in the order of `model.free_names`, or None if not asked for.
    deviance
        Poisson deviance, or chi-squared.
    pearson_chi2, p_value
        Pearson's chi-squared, and the chance of a larger one: from a gamma distribution with its mean and variance, which
        at few counts is wider than chi-squared's.
    n_channels, evaluations
        Channels used, evaluations of the model.
    status
        Index into `STATUS_WORDS`.
    """

    model: ComponentModel
    values: np.ndarray
    std: np.ndarray
    covariance: np.ndarray | None
    deviance: np.ndarray
    pearson_chi2: np.ndarray
    p_value: np.ndarray
    n_channels: np.ndarray
    evaluations: np.ndarray
    status: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self.model.names

    @property
    def usable(self) -> np.ndarray:
        """True where the optimum was reached, (rows, columns)."""
        return np.isin(self.status, USABLE)

    def value(self, name: str) -> np.ndarray:
        """Return the map of a parameter, "component.parameter"."""
        return np.asarray(self.values[..., self.model.number(name)])

    def value_std(self, name: str) -> np.ndarray:
        """Return the standard deviation's map of a parameter."""
        return np.asarray(self.std[..., self.model.number(name)])

    def curve(self, row: int, column: int) -> np.ndarray:
        """Return the fitted curve at a position, (channels,)."""
        return evaluate_model(self.model, self.values[row, column])[0][: self.model.energies_mev.size]


def summarise(model: ComponentModel, results: list[np.ndarray]) -> ComponentFit:
    """Make the maps from what the kernel wrote."""
    from scipy.special import gammaincc

    params, std, outcome, status = results[:4]
    n_free = model.free.size
    std = std.copy()
    for p in np.flatnonzero((model.owner >= 0) & (model.owner != np.arange(model.owner.size))):
        std[..., p] = np.abs(model.affine[p, 0]) * std[..., model.owner[p]]
    dof = np.maximum(outcome[..., 3] - n_free + np.nan_to_num(outcome[..., 5]), 1.0)
    variance = 2.0 * dof + outcome[..., 2]
    p_value = gammaincc(
        dof**2 / variance, outcome[..., 1] * dof / variance
    )  # of the gamma distribution with that mean and variance
    status = status.astype(np.int16)
    areas = [p for p in model.peaks if model.owner[p] == p]
    if areas:
        with np.errstate(invalid="ignore"):
            weak = (params[..., areas] < ASYMPTOTIC_SIGMA * std[..., areas]).any(axis=-1)
        status = np.where(weak & (status == CONVERGED), np.int16(FEW_COUNTS), status)
    return ComponentFit(
        model, model.with_tied(params), std, results[4] if results[4].ndim == 4 else None, outcome[..., 0], outcome[..., 1],
        p_value, outcome[..., 3], outcome[..., 4], status,
    )  # fmt: skip


def rescaled(fit: ComponentFit) -> ComponentFit:
    """Return the fit with deviations scaled by the root of chi-squared per degree of freedom."""
    factor = fit.pearson_chi2 / np.maximum(fit.n_channels - fit.model.free.size, 1.0)
    matrix = None if fit.covariance is None else fit.covariance * factor[..., None, None]
    return replace(fit, std=fit.std * np.sqrt(factor)[..., None], covariance=matrix)
