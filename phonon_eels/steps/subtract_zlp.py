"""Subtract the tail of the zero-loss peak (and any smooth background) from under the phonons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.kernels.background_shapes import EXPONENTIAL, LOG_QUADRATIC, PEARSON7, POWER_LAW, background_curve_one
from phonon_eels.kernels.backgrounds import SMALL_ROWS, fit_background_one
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.background_windows import fit_windows, loss_image, output_channels, overlap_messages
from phonon_eels.steps.instrument import block_variance, count_unit, half_width_channels, zero_loss_fwhm_mev
from phonon_eels.steps.maps import count_status, scan_dataset
from phonon_eels.steps.mirrored_gain import subtract_mirrored_gain
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    from phonon_eels.config.settings import SubtractZlp
    from phonon_eels.spectrum_image import SpectrumImage

SHAPES = {
    "pearson7": PEARSON7,
    "log_quadratic": LOG_QUADRATIC,
    "power_law": POWER_LAW,
    "exponential": EXPONENTIAL,
}
MEANINGS = ("ok", "ok_parameter_at_bound", "not_converged", "too_few_channels", "no_counts")

PARAMETER_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "pearson7": (("height", ""), ("width_mev", "meV"), ("exponent", "1"), ("centre_mev", "meV")),
    "log_quadratic": (("log_height", "1"), ("slope", "1"), ("curvature", "1")),
    "power_law": (("height", ""), ("exponent", "1")),
    "exponential": (("height", ""), ("rate_per_mev", "1/meV")),
}
"""Parameter and unit by method; an empty unit is that of the image per channel."""


@dataclass(frozen=True)
class BackgroundFit:
    """Parameters (rows, columns, 4), their covariances (rows, columns, 16), the rest (rows, columns)."""

    parameters: np.ndarray
    covariance: np.ndarray
    status: np.ndarray
    area: np.ndarray
    area_std: np.ndarray


def subtract_zlp(image: SpectrumImage, settings: SubtractZlp, context: StepContext) -> StepResult:
    """Fit a background to windows of every spectrum and subtract it; negative values are kept.

    Parameters
    ----------
    image
        Aligned spectra (zero-loss peak at 0 meV), (rows, columns, channels).

    Returns
    -------
    StepResult
        Loss spectrum in ``output_window_mev`` with the variance of the counts plus that of the background (their
        covariance inside the windows is neglected). Maps: parameters with std, ``background_counts`` (sum over the
        output channels) with std, ``status``.

    Raises
    ------
    DataError
        If the spectra are not aligned, or the windows do not fit the energy axis.

    Notes
    -----
    ``pearson7`` follows the published group recipe with its one-sided weights: where noise counts, the background comes
    out below the truth. That is the recipe, not a fault of the fit; the other shapes are weighted by the variance.
    """
    if context.summaries.get("align_zlp", {}).get("alignment") == "coordinate":
        raise DataError(
            "subtract_zlp needs spectra whose zero-loss peak is at 0 meV, but align_zlp.alignment was coordinate "
            "(counts untouched); set align_zlp.alignment to resample"
        )
    if settings.method == "mirrored_gain":
        return subtract_mirrored_gain(image, settings, context)
    windows, messages = fit_windows(image.energy, settings)
    messages += overlap_messages(windows, image.energy, context.material)
    out = output_channels(image.energy, settings)
    channels = np.unique(np.concatenate([np.arange(window.start, window.stop) for window in windows]))
    energies = image.energy.energies_mev
    low, high = energies[channels[0]], energies[channels[-1]]
    reference = float(np.sqrt(low * high)) if low > 0.0 else 0.5 * float(low + high)
    half_width = half_width_channels(zero_loss_fwhm_mev(image, context), image)
    shape = SHAPES[settings.method]

    fit = _fit(image, context, shape, channels, out, reference, half_width)
    counts, variance = _subtracted(image, context, shape, fit, out, reference, half_width)
    result = loss_image(image, counts, variance, out)
    bad = int((fit.status > 1).sum())
    if bad:
        messages.append(f"the background could not be fitted at {bad} of {fit.status.size} positions: NaN there")
    at_bound = int((fit.status == 1).sum())
    if at_bound:
        messages.append(
            f"at {at_bound} of {fit.status.size} positions a parameter of the background ended on its bound; "
            f"far from the peak these shapes leave their parameters undetermined, the background itself is used"
        )
    maps = scan_dataset(image, _map_values(settings.method, fit, count_unit(context)), fit.status, MEANINGS)
    maps.attrs["reference_mev"] = reference
    summary: dict[str, Any] = {
        "method": settings.method,
        "windows_mev": [[float(energies[w.start]), float(energies[w.stop - 1])] for w in windows],
        "output_window_mev": [result.energy.offset_mev, result.energy.last_mev],
        "reference_mev": reference,
        "status_counts": count_status(fit.status, MEANINGS),
    }
    return StepResult(image=result, maps=maps, summary=summary, messages=tuple(messages))


def _fit(
    image: SpectrumImage,
    context: StepContext,
    shape: int,
    channels: np.ndarray,
    out: slice,
    reference: float,
    half_width: int,
) -> BackgroundFit:
    """Fit every position; positions do not know of each other."""
    energies, dark = image.energy.energies_mev, image.noise.dark_level
    fitted, shown = np.ascontiguousarray(energies[channels]), np.ascontiguousarray(energies[out])

    def block(_: int, counts: np.ndarray, variance: np.ndarray | None, bad: np.ndarray | None) -> BackgroundFit:
        rows, columns = counts.shape[:2]
        parameters, covariance = np.full((rows, columns, 4), np.nan), np.full((rows, columns, 16), np.nan)
        status = np.zeros((rows, columns), dtype=np.int16)
        area, area_std = np.full((rows, columns), np.nan), np.full((rows, columns), np.nan)
        spread = block_variance(counts, variance, image.noise, half_width)[..., channels]
        spectra = np.asarray(counts, dtype=np.float64) - dark
        matrix, work, small = np.empty((4, 4)), np.empty((3, fitted.size)), np.empty((SMALL_ROWS, 4))
        value, value_variance = np.empty(shown.size), np.empty(shown.size)
        for at in np.ndindex(rows, columns):
            finite = spectra[at][np.isfinite(spectra[at])]
            peak = float(finite.max()) if finite.size else np.nan
            usable = np.ones(fitted.size, dtype=bool) if bad is None else ~np.asarray(bad[at][channels], dtype=bool)
            inside = np.ascontiguousarray(spectra[at][channels])
            status[at] = fit_background_one(
                shape, fitted, inside, spread[at], usable, peak, reference, parameters[at], matrix, work, small
            )
            covariance[at] = matrix.ravel()
            total = background_curve_one(
                shape, parameters[at], covariance[at], shown, reference, small, value, value_variance
            )
            area[at], area_std[at] = value.sum(), np.sqrt(total)
        return BackgroundFit(parameters, covariance, status, area, area_std)

    blocks = context.backend.map_rows(block, [image.counts, image.variance, image.bad], progress=context.progress)
    names = ("parameters", "covariance", "status", "area", "area_std")
    return BackgroundFit(*(np.concatenate([getattr(part, name) for part in blocks]) for name in names))


def _subtracted(
    image: SpectrumImage,
    context: StepContext,
    shape: int,
    fit: BackgroundFit,
    out: slice,
    reference: float,
    half_width: int,
) -> tuple[Any, Any]:
    """Return the lazy cubes of the loss spectrum and its variance."""
    dark = image.noise.dark_level
    shown = np.ascontiguousarray(image.energy.energies_mev[out])

    def curves(parameters: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = np.empty((*parameters.shape[:2], shown.size))
        variance, work = np.empty_like(value), np.empty((2, 4))
        for at in np.ndindex(parameters.shape[:2]):
            background_curve_one(shape, parameters[at], covariance[at], shown, reference, work, value[at], variance[at])
        return value, variance

    def counts_block(counts: np.ndarray, parameters: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        value, _ = curves(parameters, covariance)
        return np.asarray(np.asarray(counts[..., out], dtype=np.float64) - dark - value, dtype=np.float32)

    def variance_block(
        counts: np.ndarray, variance: np.ndarray | None, parameters: np.ndarray, covariance: np.ndarray
    ) -> np.ndarray:
        _, background = curves(parameters, covariance)
        own = block_variance(counts, variance, image.noise, half_width)[..., out]
        return np.asarray(own + background, dtype=np.float32)

    map_cube, n = context.backend.map_cube, shown.size
    fitted = [fit.parameters, fit.covariance]
    counts = map_cube(counts_block, [image.counts, *fitted], dtype=np.float32, n_channels=n)
    variance = map_cube(variance_block, [image.counts, image.variance, *fitted], dtype=np.float32, n_channels=n)
    return counts, variance


def _map_values(method: str, fit: BackgroundFit, unit: str) -> dict[str, tuple[np.ndarray, str]]:
    """Return the maps; the logarithms that the Pearson VII is fitted with are turned back."""
    values: dict[str, tuple[np.ndarray, str]] = {}
    for number, (name, own_unit) in enumerate(PARAMETER_NAMES[method]):
        value = fit.parameters[..., number]
        std = np.sqrt(np.maximum(fit.covariance[..., 5 * number], 0.0))
        if method == "pearson7" and number < 2:
            value = np.exp(value)
            std = std * value
        # A parameter held on its bound has no variance of its own: unknown, not exactly known.
        values[f"background_{name}"] = (value, own_unit or f"{unit}/channel")
        values[f"background_{name}_std"] = (np.where(std > 0.0, std, np.nan), own_unit or f"{unit}/channel")
    values["background_counts"] = (fit.area, unit)
    values["background_counts_std"] = (fit.area_std, unit)
    return values


SUBTRACT_ZLP = StepSpec(
    name="subtract_zlp",
    run=subtract_zlp,
    routes=("classic",),
    makes={"background_counts": "detector counts, or 1 after normalise"},
    needs=("align_zlp", "normalise"),
    bytes_per_channel=48.0,
    reference="two-window fit: doi:10.1038/s41467-021-21452-5 and its public code (ruishiqi/EELS)",
)
