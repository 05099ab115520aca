"""What a deconvolution does to a known peak on these data: put one in, see what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.kernels.convolve import convolve_one
from phonon_eels.kernels.deconvolve import Response

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.config import Material
    from phonon_eels.spectrum_image import EnergyAxis

INJECTED_SHIFT_MEV = 1.0
RELATIVE_HEIGHT = 0.2
"""Height of the injected peak over the highest value of the mean spectrum: seen well, but not alone."""

Deconvolution = Callable[[np.ndarray], np.ndarray]
"""Spectra (n, channels) -> deconvolved spectra."""


def injected_peaks(
    mean: np.ndarray, axis: EnergyAxis, material: Material, response: Response, deconvolution: Deconvolution
) -> pd.DataFrame:
    """Inject a peak at each mode and 1 meV above it into the mean spectrum, deconvolve, and measure the difference.

    Parameters
    ----------
    mean
        Mean spectrum, (channels,).

    Returns
    -------
    pandas.DataFrame
        One row per mode on the axis: energy, position bias, injected and measured shift, intrinsic FWHM
        (Lorentzian), FWHM before (seen by the instrument) and after deconvolution, area after over area before.
        Empty where the mean spectrum is not finite.
    """
    import pandas as pd

    columns = (
        "mode", "energy_mev", "position_bias_mev", "injected_shift_mev", "measured_shift_mev",
        "intrinsic_fwhm_mev", "blurred_fwhm_mev", "measured_fwhm_mev", "area_ratio",
    )  # fmt: skip
    rows = []
    energies = axis.energies_mev
    if np.isfinite(mean).all():
        plain = _deconvolved(mean, deconvolution)
        height = RELATIVE_HEIGHT * float(mean.max()) if mean.max() > 0.0 else 1.0
        for mode in material.modes:
            reach = mode.fwhm_mev + INJECTED_SHIFT_MEV
            if not energies[0] + reach < mode.energy_mev < energies[-1] - reach:
                continue
            places, widths, ratios, blurred_width = [], [], [], np.nan
            for shift in (0.0, INJECTED_SHIFT_MEV):
                line = 1.0 / (1.0 + (2.0 * (energies - mode.energy_mev - shift) / mode.fwhm_mev) ** 2)
                blurred = np.empty_like(line)
                convolve_one(line, response.values, response.anchor, blurred)
                blurred *= height / blurred.max()
                seen = _deconvolved(mean + blurred, deconvolution) - plain
                if shift == 0.0:
                    blurred_width = place_and_width(energies, blurred)[1]
                # Beside a ringing neighbour the largest difference may be elsewhere: look where the peak was put.
                near = np.abs(energies - mode.energy_mev - shift) <= blurred_width
                place, width = place_and_width(energies[near], seen[near])
                places.append(place - mode.energy_mev - shift)
                widths.append(width)
                ratios.append(float(seen.sum() / blurred.sum()))
            rows.append(
                (
                    mode.name,
                    mode.energy_mev,
                    places[0],
                    INJECTED_SHIFT_MEV,
                    INJECTED_SHIFT_MEV + places[1] - places[0],
                    mode.fwhm_mev,
                    blurred_width,
                    widths[0],
                    ratios[0],
                )
            )
    return pd.DataFrame(rows, columns=list(columns))


def place_and_width(energies_mev: np.ndarray, peak: np.ndarray) -> tuple[float, float]:
    """Return the centroid of what stands above half height around the maximum, and the full width there, in meV."""
    top = int(np.argmax(peak))
    half = 0.5 * peak[top]
    if not half > 0.0:
        return float("nan"), float("nan")
    low = high = top
    while low > 0 and peak[low - 1] > half:
        low -= 1
    while high < peak.size - 1 and peak[high + 1] > half:
        high += 1
    step = energies_mev[1] - energies_mev[0]
    left, right = energies_mev[low], energies_mev[high]
    if low > 0:
        left -= step * (peak[low] - half) / (peak[low] - peak[low - 1])
    if high < peak.size - 1:
        right += step * (peak[high] - half) / (peak[high] - peak[high + 1])
    # The area above half height by trapezoids whose ends are the crossings: no jump when a channel enters.
    x = np.concatenate([[left], energies_mev[low : high + 1], [right]])
    y = np.concatenate([[0.0], peak[low : high + 1] - half, [0.0]])
    return float(np.trapezoid(x * y, x) / np.trapezoid(y, x)), float(right - left)


def _deconvolved(spectrum: np.ndarray, deconvolution: Deconvolution) -> np.ndarray:
    return np.asarray(deconvolution(spectrum[None])[0])
