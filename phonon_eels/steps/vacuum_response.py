"""The zero-loss peak that lines are seen through, as it was measured beside the specimen."""

from __future__ import annotations

import numpy as np

from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import DataError
from phonon_eels.forward.scan import Alignment, aligned_sums
from phonon_eels.forward.vacuum import VacuumReference, fit_vacuum
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.spec import StepContext


def vacuum_response(
    image: SpectrumImage,
    settings: FitPeaks,
    alignment: Alignment,
    channels: np.ndarray,
    shape: ZeroLossShape,
    context: StepContext,
) -> VacuumReference | None:
    """Return the zero-loss peak measured in the region of the scan that the settings call vacuum, None if they call none.

    Raises
    ------
    DataError
        If the region leaves the scan or holds no zero-loss peak.
    """
    if settings.vacuum_region is None:
        return None
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
