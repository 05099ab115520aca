"""The zero-loss peak that lines are seen through, as it was measured beside the specimen."""

from __future__ import annotations

import numpy as np

from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import DataError
from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.vacuum import VacuumReference, fit_vacuum
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.spec import StepContext
from phonon_eels.steps.vacuum import known_reference

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


def response_sentence(vacuum: VacuumReference | None, context: StepContext) -> str | None:
    """Return what a reader must know of the response, None where no vacuum was measured."""
    if vacuum is not None:
        return (
            f"lines are seen through a zero-loss peak measured in vacuum with {vacuum.electrons:.3g} electrons (chi-squared "
            f"{vacuum.chi2_per_dof:.2f} per degree of freedom); what its noise does to energies is common to all positions "
            f"(energy_mev_syst_vacuum)"
        )
    known = known_reference(context)
    if known is None or context.route == "classic":
        return None
    return (
        f"the response is the fitted peak, not the vacuum reference: {known.sentence}; fit_peaks.response: vacuum takes it "
        f"nevertheless"
    )
