"""What the classic steps know of the instrument: the zero-loss peak as response, variances, the mean spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.kernels.noise import expected_variance_one

if TYPE_CHECKING:
    from phonon_eels.spectrum_image import NoiseModel, SpectrumImage
    from phonon_eels.steps.spec import StepContext


@dataclass(frozen=True)
class ZeroLossPeak:
    """Scan means of the fitted split Pearson VII: FWHM in meV, exponents of the loss and the gain tail."""

    fwhm_mev: float
    tail_loss: float
    tail_gain: float


def zero_loss_peak(context: StepContext, step: str) -> ZeroLossPeak:
    """Return the scan's zero-loss peak as `align_zlp` found it.

    Raises
    ------
    DataError
        If `align_zlp` has left no such numbers.
    """
    summary = context.summaries.get("align_zlp", {})
    found = []
    for name in ("zlp_fwhm_mev", "zlp_tail_loss", "zlp_tail_gain"):
        entry = summary.get(name)
        value = entry.get("value") if isinstance(entry, Mapping) else entry
        if value is None or not np.isfinite(value) or value <= 0.0:
            raise DataError(
                f"{step} needs {name} of align_zlp, which gave {value!r}; "
                f"run align_zlp first, on spectra that hold the zero-loss peak"
            )
        found.append(float(value))
    return ZeroLossPeak(*found)


def zero_loss_fwhm_mev(image: SpectrumImage, context: StepContext) -> float:
    """Return the FWHM in meV from `align_zlp`, else the width at half height of the mean spectrum's highest peak."""
    try:
        return zero_loss_peak(context, "").fwhm_mev
    except DataError:
        mean = mean_spectrum(image, context)
        above = np.flatnonzero(mean >= 0.5 * np.nanmax(mean)) if np.isfinite(mean).any() else np.array([0])
        return float(image.energy.dispersion_mev * (above[-1] - above[0] + 1))


def mean_spectrum(image: SpectrumImage, context: StepContext) -> np.ndarray:
    """Return the mean over all positions whose channels are all finite, (channels,); NaN if there is none.

    Rows are summed one by one and added in order, so the bits do not depend on how the rows were grouped.
    """

    def row_sums(_: int, block: np.ndarray) -> list[tuple[np.ndarray, int]]:
        sums = []
        for row in block:
            values = np.ascontiguousarray(row, dtype=np.float64)
            finite = np.isfinite(values).all(axis=1)
            sums.append((values[finite].sum(axis=0), int(finite.sum())))
        return sums

    total, used = np.zeros(image.energy.n_channels), 0
    for block_sums in context.backend.map_rows(row_sums, [image.counts], progress=context.progress):
        for values, number in block_sums:
            total += values
            used += number
    return total / used if used else np.full_like(total, np.nan)


def block_variance(
    counts: np.ndarray, variance: np.ndarray | None, noise: NoiseModel, largest_half_width: int
) -> np.ndarray:
    """Return the variance of a block of spectra in squared units of the counts, (rows, columns, channels).

    As carried by an earlier step; else from the noise model and a local mean (`expected_variance_one`). Channels are
    counted as independent with the full variance mean + read noise², which is right for anything wider than the
    detector's point spread, even where that spread makes single channels look quieter.
    """
    if variance is not None:
        return np.asarray(variance, dtype=np.float64)
    spectra = np.ascontiguousarray(counts, dtype=np.float64)
    result = np.empty_like(spectra)
    for position in np.ndindex(spectra.shape[:2]):
        expected_variance_one(
            spectra[position], noise.gain, noise.dark_level, noise.read_noise_e, largest_half_width, result[position]
        )
    return result


def half_width_channels(fwhm_mev: float, image: SpectrumImage) -> int:
    """Return the largest half width, in channels, of the running mean behind a variance: half the FWHM.

    Nothing in a spectrum is narrower than its zero-loss peak, so a mean over one FWHM is close to the truth.
    """
    return int(np.clip(round(0.5 * fwhm_mev / image.energy.dispersion_mev), 2, max(2, image.energy.n_channels // 8)))


def count_unit(context: StepContext) -> str:
    """Return what a sum over channels of the image counts: "1" after `normalise`, else "detector counts"."""
    return str(context.summaries.get("normalise", {}).get("area_unit", "detector counts"))


def mean_variance(image: SpectrumImage, fwhm_mev: float) -> np.ndarray:
    """Return the mean variance of single positions, from up to 16 rows, (channels,)."""
    rows = np.unique(np.linspace(0, image.shape[0] - 1, min(16, image.shape[0])).astype(int))
    half, parts = half_width_channels(fwhm_mev, image), []
    for row in rows:
        given = None if image.variance is None else np.asarray(image.variance[row : row + 1])
        parts.append(block_variance(np.asarray(image.counts[row : row + 1]), given, image.noise, half)[0])
    found = np.concatenate(parts)
    usable = np.isfinite(found)
    return np.asarray(np.where(usable, found, 0.0).sum(axis=0) / np.maximum(usable.sum(axis=0), 1))
