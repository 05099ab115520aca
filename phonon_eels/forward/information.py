"""What the data can tell: model and Fisher matrix at given parameters, Cramér-Rao bounds, sensitivities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.pooled import gathered
from phonon_eels.forward.recipe import Recipe
from phonon_eels.forward.scan import ScanFit
from phonon_eels.kernels.forward import N_LOCAL, correction_lines, evaluate, work_size


def model_at(
    model: ForwardModel, params: np.ndarray, tabulated_at: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return expected electrons (n,) and their derivatives (parameters, n).

    Parameters
    ----------
    params
        (parameters,).
    tabulated_at
        Parameters at which the lines of derivatives are taken, as at the start of a fit; default `params`.
    """
    n, tables = model.energies_mev.size, model.tables
    work, bits = np.empty(work_size(n)), np.empty(2 * n, np.int64)
    corrections = np.empty((model.n_modes, 4, n))
    jacobian, values = np.empty((2 * model.n_params + 1, n)), np.empty(n)
    lines = (tables.values, tables.first_node_mev, tables.node_step_mev)
    correction_lines(
        params if tabulated_at is None else tabulated_at, *lines, model.dispersion_mev, corrections, work
    )  # fmt: skip
    evaluate(
        params, model.energies_mev, model.dispersion_mev, model.reference, model.background.rows, model.background.code,
        model.factor, *lines, corrections, jacobian, values, work, bits,
    )  # fmt: skip
    return values, jacobian[: model.n_params]


def fisher_matrix(model: ForwardModel, params: np.ndarray, precision: np.ndarray | None = None) -> np.ndarray:
    """Return the expected information of all parameters of one spectrum, (parameters, parameters), priors included.

    Parameters
    ----------
    precision
        Prior precisions, (parameters,); default those of the zero-loss shape and the background.
    """
    values, jacobian = model_at(model, params)
    weight = 1.0 / np.maximum(values + model.shift_e, 1e-3)
    prior = model.prior_precision() if precision is None else precision
    return np.asarray((jacobian * weight) @ jacobian.T + np.diag(prior))


def sensitivities(model: ForwardModel, params: np.ndarray) -> np.ndarray:
    """Return how the fitted energies follow an error of the zero-loss shape: meV for ln FWHM, ln m₊, ln m₋, (modes, 3).

    dE/dθ = C_Eθ / C_θθ with C the inverse Fisher matrix: what the energies do when θ is held at a wrong value and
    everything else is fitted, the zero-loss core included.
    """
    design = model.design()
    covariance = np.linalg.pinv(design.T @ fisher_matrix(model, params) @ design, hermitian=True)
    covariance = design @ covariance @ design.T
    energies = slice(N_LOCAL + model.n_modes, N_LOCAL + 2 * model.n_modes)
    result = np.full((model.n_modes, 3), np.nan)
    for k, nuisance in enumerate((2, 3, 4)):
        if model.free_local[nuisance]:
            result[:, k] = covariance[energies, nuisance] / covariance[nuisance, nuisance]
    return result


def vacuum_deviations(model: ForwardModel, params: np.ndarray) -> np.ndarray:
    """Return what the noise of the vacuum measurement does to the energies, meV, (modes,); zeros without one.

    It is common to all positions. Each coefficient β of the measured shape moves the energies by -F⁻¹ Jᵀ W ∂μ/∂β; the lines
    themselves, whose response changes as well, are a hundredth of the peak and are left out.
    """
    if model.vacuum is None:
        return np.zeros(model.n_modes)
    energies = energies_by_factor(model, params)[0]
    return np.asarray(np.sqrt(np.maximum(np.diag(energies @ model.vacuum.covariance @ energies.T), 0.0)))


def energies_by_factor(model: ForwardModel, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return dE/dβ of the measured shape's coefficients, (modes, splines), and the deviations of the energies without, (modes,)."""
    assert model.vacuum is not None
    follows, own = energies_by_shared(model, params)
    return follows[:, : model.vacuum.beta.size], own


def energies_by_shared(model: ForwardModel, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `energies_by_factor` with the derivatives to the intrinsic widths beside, (modes, splines + modes)."""
    assert model.vacuum is not None
    values, jacobian = model_at(model, params)
    weight = 1.0 / np.maximum(values + model.shift_e, 1e-3)
    design = model.design()
    by_beta = params[0] * jacobian[0] * model.vacuum.basis(model.energies_mev - params[1])
    fisher = design.T @ fisher_matrix(model, params) @ design
    shared = np.concatenate([by_beta, jacobian[N_LOCAL + 2 * model.n_modes :]])
    moved = -np.linalg.solve(fisher, design.T @ ((jacobian * weight) @ shared.T))
    of_energies = design[N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes]
    own = np.sqrt(np.diag(of_energies @ np.linalg.inv(fisher) @ of_energies.T))
    return np.asarray(of_energies @ moved), own


@dataclass(frozen=True)
class CramerRao:
    """Bounds of what any unbiased estimate could reach at every position, from the data alone: no prior on the modes.

    Height, shift, width and tails of the zero-loss peak, background and all other modes are marginalised.

    Attributes
    ----------
    energy_mev, area_e
        (rows, columns, modes), infinite where the data say nothing.
    energy_covariance
        (rows, columns, modes, modes), meV².
    """

    energy_mev: np.ndarray
    area_e: np.ndarray
    energy_covariance: np.ndarray


def cramer_rao(held: ScanFit, recipe: Recipe | None = None) -> CramerRao:
    """Return the bounds from a fit with the energies held that kept its information (`fit_scan(profile=True)`).

    The inverse of the block of the energies, everything else already marginalised (Schur complement), is their bound. An area
    varies with its own noise at held energies, and with the energies as it follows them. Energies that a recipe ties have one bound,
    those that it fixes a bound of 0.
    """
    assert held.information is not None
    assert held.area_slope is not None
    modes = held.n_modes
    if recipe is None:
        covariance, told = inverse_or_large(np.nan_to_num(held.information[..., :modes, :modes]))
    else:
        design = recipe.design
        information = gathered(held, design).information
        assert information is not None
        covariance, told = of_all_energies(*inverse_or_large(information), design)
    variance = np.where(told, np.diagonal(covariance, axis1=-2, axis2=-1), np.inf)
    slope = held.area_slope[..., :modes]
    followed = np.einsum("...mi,...ij,...mj->...m", slope, covariance, slope)
    area = np.sqrt(held.areas(held.std) ** 2 + np.maximum(followed, 0.0))
    return CramerRao(np.sqrt(variance), np.where(np.isfinite(area), area, np.inf), covariance)


def inverse_or_large(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverse of information matrices (…, modes, modes), and which modes have any information, (…, modes).

    Directions that the data do not determine at all would come out with a negative variance; they get a very large one.
    """
    scale = np.sqrt(np.maximum(np.diagonal(information, axis1=-2, axis2=-1), 0.0))
    told = scale > 0.0
    safe = np.where(told, scale, 1.0)
    normal = information / (safe[..., :, None] * safe[..., None, :])
    normal = np.where(told[..., :, None] & told[..., None, :], normal, np.eye(information.shape[-1]))
    values, vectors = np.linalg.eigh(normal)
    inverse = np.einsum("...ik,...k,...jk->...ij", vectors, 1.0 / np.maximum(values, 1e-10), vectors)
    return inverse / (safe[..., :, None] * safe[..., None, :]), told


def of_all_energies(covariance: np.ndarray, told: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `inverse_or_large` says of the free energies for all of them, those that are fixed being told."""
    return design @ covariance @ design.T, (told @ design.T > 0.0) | ~design.any(axis=1)


def centroid_bound(held: ScanFit, bound: CramerRao, pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a pair's area-weighted centroid and of its splitting, meV, (rows, columns) each.

    The areas follow the energies, which is what makes the centroid of two lines that overlap far better known than either.
    """
    assert held.area_slope is not None
    low, high = pair
    areas, energies = np.maximum(held.areas()[..., pair], 1e-12), held.energies()[..., pair]
    total = areas.sum(axis=-1)
    centre = (areas * energies).sum(axis=-1) / total
    modes = held.n_modes
    lever = (energies - centre[..., None]) / total[..., None]
    gradient = np.einsum("...k,...kj->...j", lever, held.area_slope[..., pair, :modes])
    gradient[..., pair] += areas / total[..., None]
    variance = np.einsum("...i,...ij,...j->...", gradient, bound.energy_covariance, gradient)
    variance += (lever**2 * held.areas(held.std)[..., pair] ** 2).sum(axis=-1)
    c = bound.energy_covariance
    splitting = c[..., low, low] + c[..., high, high] - 2.0 * c[..., low, high]
    return np.sqrt(np.maximum(variance, 0.0)), np.sqrt(np.maximum(splitting, 0.0))
