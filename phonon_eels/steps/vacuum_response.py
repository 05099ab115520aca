"""The zero-loss peak that lines are seen through, as it was measured beside the specimen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phonon_eels.backends.spectra import NO_CHANNEL
from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import DataError
from phonon_eels.forward.joint_vacuum import fit_jointly
from phonon_eels.forward.mean import LOG_FWHM_STD
from phonon_eels.forward.model import ForwardModel, rebuilt
from phonon_eels.forward.recipe import width_groups
from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.vacuum import VacuumReference, fit_vacuum
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.position_fits import Prepared, prior_stds
from phonon_eels.steps.spec import StepContext
from phonon_eels.steps.vacuum import known_reference

MOST_POSITIONS = 8192
"""Of the scan in the joint fit."""
TENSION_P = 1e-3
CORE_FWHM = 2.0
"""A reference that is shorter than this does not hold the peak."""


def vacuum_response(
    image: SpectrumImage,
    settings: FitPeaks,
    alignment: Alignment,
    channels: np.ndarray,
    shape: ZeroLossShape,
    context: StepContext,
) -> VacuumReference | None:
    """Return the zero-loss peak measured in vacuum: in the region that the settings name, else as `masks` has it; or None.

    Raises
    ------
    DataError
        If the region leaves the scan or holds no zero-loss peak, or vacuum is asked for and there is none.
    """
    if settings.response == "peak":
        return None
    if settings.vacuum_region is None:
        return _of_masks(settings, channels * image.energy.dispersion_mev, shape, context)
    top, bottom, left, right = settings.vacuum_region
    rows, columns = image.shape[:2]
    if bottom > rows or right > columns:
        raise DataError(
            f"fit_peaks.vacuum_region = {settings.vacuum_region} leaves the scan of {rows} rows and {columns} columns; give "
            "first row, row after the last, first column, column after the last"
        )
    weights = np.zeros((1, rows, columns))
    weights[0, top:bottom, left:right] = alignment.found[top:bottom, left:right]
    if not weights.any():
        raise DataError("no position of fit_peaks.vacuum_region has a zero-loss peak; give another region")
    total, squares = aligned_sums(image, alignment, int(channels[0]), channels.size, weights, context.backend)
    return fit_vacuum(channels * image.energy.dispersion_mev, total[0], np.maximum(squares[0], 1e-12), shape)


def _of_masks(
    settings: FitPeaks, energies_mev: np.ndarray, shape: ZeroLossShape, context: StepContext
) -> VacuumReference | None:
    known = known_reference(context)
    if known is None:
        if settings.response == "vacuum":
            raise DataError(
                "fit_peaks.response = vacuum has no vacuum: mark some with masks.files, give masks.vacuum_file, or give "
                "fit_peaks.vacuum_region"
            )
        return None
    if known.n_too_close and settings.response == "auto":
        return None
    inside = (known.energies_mev >= energies_mev[0]) & (known.energies_mev <= energies_mev[-1])
    own = known.energies_mev[inside]
    if not own.size or min(-own[0], own[-1]) < CORE_FWHM * shape.fwhm_mev:
        raise DataError(
            f"the vacuum reference does not reach {CORE_FWHM:g} FWHM to either side of its zero-loss peak inside the fitted window; "
            "record it on a longer axis, or set fit_peaks.response: peak"
        )
    return fit_vacuum(own, known.electrons[inside], np.maximum(known.variance[inside], 1e-12), shape)


def joint_response(
    image: SpectrumImage, prepared: Prepared, settings: FitPeaks, context: StepContext
) -> VacuumReference:
    """Fit the reference and the spectra of the scan together; return the reference with what both say of it.

    Positions that are vacuum themselves, and masked ones, have no part in it. Of a large scan a grid of positions has: each takes
    half a millisecond a step, and what more of them would say is less than the scan's own deviations, which are told.
    """
    model, alignment = prepared.model, prepared.alignment
    taking_part = np.ones(alignment.channel.shape, bool) if image.masked is None else ~image.masked
    if settings.vacuum_region is not None:
        top, bottom, left, right = settings.vacuum_region
        taking_part[top:bottom, left:right] = False
    taking_part = thinned(taking_part & (alignment.channel != NO_CHANNEL), MOST_POSITIONS)
    chosen = replace(alignment, channel=np.where(taking_part, alignment.channel, NO_CHANNEL))

    groups = width_groups(model.mode_names, (), settings)

    def rebuild(reference: VacuumReference, fwhm_mev: np.ndarray) -> ForwardModel:
        new, energies = replace(model, vacuum=reference), model.mode_energies_mev
        return rebuilt(new, settings, context.material, prepared.thermal_mev, energies, fwhm_mev)

    found = fit_jointly(
        image, model, chosen, prepared.starts(), context.backend, rebuild,
        energy_prior_std_mev=prior_stds(model, context.material),
        log_width_std=LOG_FWHM_STD if settings.intrinsic_widths == "shared" else 0.0,
        width_design=np.equal.outer(groups, range(max(groups) + 1)).astype(float),
    )  # fmt: skip
    return replace(found.reference, positions=int(np.count_nonzero(taking_part)))


def thinned(chosen: np.ndarray, most: int) -> np.ndarray:
    """Return those of the chosen positions, (rows, columns), that lie on the finest even grid that holds at most so many of them."""
    for step in range(1, max(chosen.shape) + 1):
        grid = np.zeros_like(chosen)
        grid[::step, ::step] = chosen[::step, ::step]
        if np.count_nonzero(grid) <= most:
            break
    return grid


def _joint_words(vacuum: VacuumReference) -> str:
    if not vacuum.joint:
        return ""
    words = f"; its shape is that of a joint fit with {vacuum.positions} spectra of the scan"
    if not vacuum.settled:
        words += ", which had not settled when it was stopped"
    if vacuum.tension_p < TENSION_P:
        words += (
            f", but vacuum and scan disagree about it (p = {vacuum.tension_p:.1g}): the peak may have changed between them, or the "
            f"list of modes is not complete; compare with fit_peaks.vacuum_fit: before"
        )
    return words


def response_sentence(vacuum: VacuumReference | None, context: StepContext) -> str | None:
    """Return what a reader must know of the response, None where no vacuum was measured."""
    if vacuum is not None:
        return (
            f"lines are seen through a zero-loss peak measured in vacuum with {vacuum.electrons:.3g} electrons (chi-squared "
            f"{vacuum.chi2_per_dof:.2f} per degree of freedom); what its noise does to energies is common to all positions "
            f"(energy_mev_syst_vacuum){_joint_words(vacuum)}"
        )
    known = known_reference(context)
    if known is None or context.route == "classic":
        return None
    return (
        f"the response is the fitted peak, not the vacuum reference: {known.sentence}; fit_peaks.response: vacuum takes it "
        f"nevertheless"
    )
