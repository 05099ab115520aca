"""Covariance of the parameters of every position of a forward fit, and Cramér-Rao bounds of those beside the modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from phonon_eels.backends.base import Backend
from phonon_eels.backends.covariance import covariance_block
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit, electrons, flat_block, own_reference, zero_loss_references
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.spectrum_image import SpectrumImage


@dataclass(frozen=True)
class PositionCovariance:
    """What the spectra of some rows tell of the parameters fitted to them.

    Attributes
    ----------
    kept
        Numbers of the parameters in `covariance`, in the order of `kernels.forward`.
    covariance
        (rows, columns, kept, kept), in the product of the parameters' units; NaN where one has no deviation there, 0 for an energy
        that a recipe fixes.
    bound
        (rows, columns, parameters) Cramér-Rao bounds, everything else that is fitted marginalised, without prior on the
        modes; NaN where the data do not determine a parameter.
    """

    kept: np.ndarray
    covariance: np.ndarray
    bound: np.ndarray


Take = Callable[[int, PositionCovariance], None]
"""Called with the first row and what was found of a block of rows."""


def mode_parameters(n_modes: int, modes: list[int]) -> np.ndarray:
    """Return the numbers of areas and energies of some modes: all areas, then all energies."""
    first = np.array(modes, dtype=np.int64)
    return np.concatenate([N_LOCAL + first, N_LOCAL + n_modes + first])


def fit_covariance(
    image: SpectrumImage,
    model: ForwardModel,
    alignment: Alignment,
    fit: ScanFit,
    backend: Backend,
    kept: np.ndarray,
    take: Take,
    *,
    prior_std_mev: np.ndarray,
    with_held: bool,
) -> None:
    """Go through the positions of a fit once more, block by block, and hand on covariance and bounds at its estimates.

    The covariance is the inverse Fisher matrix at the estimate, priors included, or its sandwich where channels share noise; no
    chi-squared is multiplied to it. Its diagonal is the square of the fit's deviations up to what the last short step of the
    fit and its linearised lines leave, 1e-3 of it.

    Parameters
    ----------
    kept
        Parameters whose covariance is asked for.
    take
        Takes what was found of each block of rows, in any order.
    prior_std_mev
        (modes,) prior deviations that the energies had in the fit, infinite for none.
    with_held
        A kept energy that the fit has held, because its mode was not seen, is as uncertain as its prior says, and the others
        with it; else it has no part in the covariance. It stays out where there is no prior.
    """
    columns, n_params = image.shape[1], model.n_params
    (gain, dark), reference = electrons(image), zero_loss_references(model, alignment)
    lower, upper = model.bounds()
    held = np.zeros(n_params, bool)
    if with_held:
        energies = kept[kept >= N_LOCAL + model.n_modes]
        held[energies] = np.isfinite(prior_std_mev[energies - N_LOCAL - model.n_modes])
    precision = model.prior_precision(prior_std_mev)
    estimates, std = fit.params, fit.std  # no more of the fit travels to a worker

    def rows_of(first_row: int, counts: Any, bad: Any, variance: Any) -> PositionCovariance:
        here = slice(first_row, first_row + counts.shape[0])
        n = counts.shape[0] * columns
        params, free = estimates[here], np.isfinite(std[here])
        included = free | (held & (params > lower) & (params < upper))
        usable = np.ascontiguousarray(np.where(free.any(axis=2, keepdims=True), params, np.nan)).reshape(n, n_params)
        covariance, bound = np.empty((n, kept.size, kept.size)), np.empty((n, n_params))
        backend.run(
            covariance_block, flat_block(counts, float), flat_block(bad, bool), flat_block(variance, float),
            alignment.channel[here].ravel(), gain, dark, model.shift_e, model.lags, model.likelihood, model.first_channel,
            model.energies_mev, model.dispersion_mev, own_reference(reference, here), model.background.rows,
            model.background.code, model.factor, model.tables.values, model.tables.first_node_mev, model.tables.node_step_mev,
            usable, model.prior_mean(), _flags(included, model), precision, kept, _flags(free, model),
            model.prior_precision(), covariance, bound,
        )  # fmt: skip
        shape = (counts.shape[0], columns)
        if model.recipe is not None:
            fixed = np.asarray(np.isin(kept - N_LOCAL - model.n_modes, np.flatnonzero(model.recipe.fixed)))
            known = np.asarray(np.isfinite(bound).any(axis=1))[:, None, None]
            covariance = np.where(known & np.logical_or.outer(fixed, fixed), 0.0, covariance)
        return PositionCovariance(
            kept, covariance.reshape(*shape, kept.size, kept.size), bound.reshape(*shape, n_params)
        )

    backend.map_rows(rows_of, [image.counts, image.bad, image.variance], take=take)


def _flags(chosen: np.ndarray, model: ForwardModel) -> np.ndarray:
    """Return which parameters are chosen and which follow another one, (positions, parameters), as the kernels take it."""
    flags, first = np.array(chosen, dtype=np.int8).reshape(-1, model.n_params), N_LOCAL + model.n_modes
    if model.recipe is not None:
        energies = slice(first, first + model.n_modes)
        flags[:, energies] = model.recipe.codes(flags[:, energies] > 0, first)
    return flags
