"""The passes of `fit_peaks` over the scan on the forward route: energies that all positions share, then each position's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.mean import LOG_FWHM_STD, MeanFit, MeanModel
from phonon_eels.forward.model import ForwardModel, rebuilt
from phonon_eels.forward.pooled import (
    COLUMNS,
    ROWS,
    Pooled,
    block_sums,
    gathered,
    local_energies,
    pool_scores,
    relative_to,
    row_sums,
)
from phonon_eels.forward.recipe import recipe_modes, width_groups
from phonon_eels.forward.scan import Alignment, Reduce, ScanFit, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.spec import StepContext

SEEN_SIGMA = 2.0
RELINEARISATIONS = 3


@dataclass(frozen=True)
class Prepared:
    """What all passes over the scan share."""

    model: ForwardModel
    mean_model: MeanModel
    mean: MeanFit
    alignment: Alignment
    relative_counts: np.ndarray
    thermal_mev: float | None

    def starts(self, rows: slice = slice(None)) -> np.ndarray:
        """Return the mean fit scaled by each position's own zero-loss counts, (rows, columns, parameters)."""
        mean, scale = self.mean.starts(), self.relative_counts[rows]
        start = np.broadcast_to(mean, (*scale.shape, mean.size)).copy()
        scaled = [0, *range(N_LOCAL, N_LOCAL + len(self.mean.areas_e))]
        start[..., scaled] *= scale[..., None]
        return start


def prior_stds(model: ForwardModel, material: Material) -> np.ndarray:
    """Return the prior deviation of each mode's energy: the material's where a neighbour is closer than the resolution, else none."""
    by_name = {mode.name: mode.prior_energy_std_mev for mode in material.modes}
    resolution = float(model.reference[0]) if model.zero_loss is not None else float(model.fwhm_mev.min())
    energies = model.mode_energies_mev
    stds = np.full(model.n_modes, np.inf)
    for m, name in enumerate(model.mode_names):
        others = np.delete(energies, m)
        if others.size and np.abs(others - energies[m]).min() < resolution:
            stds[m] = by_name[name]
    return stds


def pooled_settings(settings: FitPeaks) -> FitPeaks:
    """Return the settings of the pass that shares energies and widths: it knows fewer shapes than a single fit."""
    line = settings.line_shape if settings.line_shape in ("oscillator", "lorentzian", "gaussian") else "gaussian"
    flat = settings.background if settings.background in ("none", "constant") else "linear"
    return settings.model_copy(update={"line_shape": line, "background": flat})


def pool(
    image: SpectrumImage, prepared: Prepared, settings: FitPeaks, context: StepContext
) -> tuple[ForwardModel, Pooled, Pooled, ScanFit, np.ndarray]:
    """Estimate energies and widths shared by all positions; areas, zero-loss shape and background stay free at each.

    Returns
    -------
    model, by_rows, by_columns
        The model at these energies and widths, and the estimates with blocks of rows and of columns to leave out.
    fit, starts
        The last pass with its energies held, and where the free fit of each position starts.
    """
    model = prepared.model
    by_name = {mode.name: mode for mode in recipe_modes(settings, context.material)}
    prior = np.array([by_name[name].fwhm_mev for name in model.mode_names])
    if context.route == "classic":
        prior = model.fwhm_mev
    groups = width_groups(model.mode_names, context.material.pairs, settings)
    starts = _at_energies(prepared.starts(), model.mode_energies_mev)
    fit: ScanFit | None
    for _ in range(RELINEARISATIONS):
        fit = None  # the pass before is as large as the one to come
        fit = fit_scan(
            image, model, prepared.alignment, starts, context.backend, free_energies=False, profile=True, max_iterations=15,
            reduce=_summed(starts, model),
        )  # fmt: skip
        assert fit.sums is not None
        usable = np.isin(fit.status, (CONVERGED, AT_BOUND))
        by_rows, by_columns = (
            pool_scores(
                block_sums(fit.sums, model.n_modes, axis), model.mode_energies_mev, model.fwhm_mev, prior, LOG_FWHM_STD * prior,
                groups, settings.intrinsic_widths == "shared", None if model.recipe is None else model.recipe.design,
            )
            for axis in (ROWS, COLUMNS)
        )  # fmt: skip
        widths = np.clip(by_rows.fwhm_mev, 0.7 * model.fwhm_mev, 1.4 * model.fwhm_mev)
        energies = model.inside(by_rows.energies_mev)
        model = rebuilt(model, settings, context.material, prepared.thermal_mev, energies, widths)
        local = _local(fit, usable, _energies(starts, model), model, context.material)
        starts = np.where(np.isfinite(fit.params), fit.params, starts)
        starts = _at_energies(starts, model.inside(local))
    assert fit is not None
    return model, by_rows, by_columns, replace(fit, sums=None), starts


def _local(
    fit: ScanFit, usable: np.ndarray, taken_at: np.ndarray, model: ForwardModel, material: Material
) -> np.ndarray:
    """Return the energies around every position, (rows, columns, modes), as the recipe ties them."""
    separate = np.isinf(prior_stds(model, material))
    if model.recipe is None:
        return local_energies(fit, usable, taken_at, separate)
    free = model.recipe.free_modes
    own = local_energies(gathered(fit, model.recipe.design), usable, taken_at[..., free], separate[free])
    return model.recipe.of_free(own)


def _energies(params: np.ndarray, model: ForwardModel) -> np.ndarray:
    return params[..., N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes]


def _summed(starts: np.ndarray, model: ForwardModel) -> Reduce:
    """Sum the scores of each block of rows, moved to the common energies, and keep those of the energies alone."""
    taken_at, common = _energies(starts, model).copy(), model.mode_energies_mev

    def reduce(here: slice, fit: ScanFit) -> ScanFit:
        usable = np.isin(fit.status, (CONVERGED, AT_BOUND))
        return replace(fit.of_energies(), sums=row_sums(relative_to(fit, taken_at[here], common), usable))

    return reduce


def _at_energies(starts: np.ndarray, energies_mev: np.ndarray) -> np.ndarray:
    modes = energies_mev.shape[-1]
    moved = np.array(starts)
    moved[..., N_LOCAL + modes : N_LOCAL + 2 * modes] = energies_mev
    moved[..., N_LOCAL + 2 * modes :] = 0.0
    return moved


def fit_positions(
    image: SpectrumImage,
    model: ForwardModel,
    prepared: Prepared,
    held: ScanFit,
    starts: np.ndarray,
    prior_std_mev: np.ndarray,
    settings: FitPeaks,
    context: StepContext,
) -> ScanFit:
    """Fit each position with its own energies; those that end badly are tried once more from the shared ones.

    A mode that is not seen with its energy held (area below 2 standard deviations) keeps it held: it has no energy to fit.
    """
    seen = held.areas() > SEEN_SIGMA * held.areas(held.std)
    return fit_scan(
        image, model, prepared.alignment, starts, context.backend, free_energies=seen, energy_prior_std_mev=prior_std_mev,
        profile_below=settings.profile_below_sigma if settings.profile_below_sigma > 0.0 else None,
        max_iterations=settings.max_iterations, progress=context.progress,
        retry_starts=lambda here: _at_energies(prepared.starts(here), model.mode_energies_mev),
    )  # fmt: skip
