"""Background from the energy-gain side, whose mirror image holds the same elastic tail and far fewer phonons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.background_windows import MIN_WINDOW_CHANNELS, loss_image, output_channels
from phonon_eels.steps.instrument import block_variance, count_unit, half_width_channels, zero_loss_fwhm_mev
from phonon_eels.steps.maps import count_status, scan_dataset
from phonon_eels.units import thermal_energy_mev

if TYPE_CHECKING:
    from phonon_eels.config.settings import SubtractZlp
    from phonon_eels.spectrum_image import EnergyAxis, SpectrumImage
    from phonon_eels.steps.spec import StepContext

MEANINGS = ("ok", "not_finite")


def subtract_mirrored_gain(image: SpectrumImage, settings: SubtractZlp, context: StepContext) -> StepResult:
    """Return the loss spectrum P(E) = [I(E) - I(-E)] / (1 - e^(-E/kT)), variance carried.

    With I(E) = tail + P(E) on the loss side and I(-E) = tail + P(E) e^(-E/kT) on the gain side, a tail that is the same
    on both sides drops out exactly. The tail itself obeys no detailed balance, and if it is not symmetric the
    difference of its two sides stays in the result. I(-E) is read between channels by linear interpolation.

    Raises
    ------
    DataError
        If the temperature is not known, or the axis has too little of the gain side.
    """
    temperature = image.acquisition.temperature_k
    if temperature is None:
        raise DataError(
            "subtract_zlp.method = mirrored_gain needs the temperature of the specimen, which the file does not give; "
            "set acquisition.temperature_k"
        )
    sides = _sides(image.energy, settings, temperature)
    noise, n = image.noise, sides.out.stop - sides.out.start
    half_width = half_width_channels(zero_loss_fwhm_mev(image, context), image)

    def variances(counts: np.ndarray, variance: np.ndarray | None, on_phonons: bool) -> np.ndarray:
        return sides.variance(block_variance(counts, variance, noise, half_width), on_phonons)

    def counts_block(counts: np.ndarray) -> np.ndarray:
        return sides.phonons(np.asarray(counts, dtype=np.float64) - noise.dark_level).astype(np.float32)

    def variance_block(counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        return variances(counts, variance, True).astype(np.float32)

    def areas(_: int, counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        spectra = np.asarray(counts, dtype=np.float64) - noise.dark_level
        background = np.ascontiguousarray(spectra[..., sides.out] - sides.phonons(spectra))
        spread = np.ascontiguousarray(variances(counts, variance, False))
        return np.stack([background.sum(-1), np.sqrt(spread.sum(-1))])

    cubes = [image.counts, image.variance]
    rows = context.backend.map_rows(areas, cubes, progress=context.progress)
    area, area_std = np.concatenate(rows, axis=1)
    status = np.where(np.isfinite(area), 0, 1)
    unit = count_unit(context)
    result = loss_image(
        image,
        context.backend.map_cube(counts_block, cubes[:1], dtype=np.float32, n_channels=n),
        context.backend.map_cube(variance_block, cubes, dtype=np.float32, n_channels=n),
        sides.out,
    )
    messages = ["mirrored_gain takes the zero-loss tail to be symmetric; what is not stays in the loss spectrum"]
    wanted = output_channels(image.energy, settings)
    if n < wanted.stop - wanted.start:
        messages.append(
            f"the gain side ends at {image.energy.offset_mev:g} meV: the loss spectrum was cut to "
            f"{result.energy.offset_mev:g} … {result.energy.last_mev:g} meV"
        )
    summary = {
        "method": "mirrored_gain",
        "temperature_k": temperature,
        "output_window_mev": [result.energy.offset_mev, result.energy.last_mev],
        "status_counts": count_status(status, MEANINGS),
    }
    maps = scan_dataset(
        image, {"background_counts": (area, unit), "background_counts_std": (area_std, unit)}, status, MEANINGS
    )
    return StepResult(image=result, maps=maps, summary=summary, messages=tuple(messages))


@dataclass(frozen=True)
class _Sides:
    """Channels of the loss side and, for each, the two of the gain side around its mirror image.

    `upper` is the weight of `above`; `balance` is 1 - e^(-E/kT), (kept channels,).
    """

    out: slice
    below: np.ndarray
    above: np.ndarray
    upper: np.ndarray
    balance: np.ndarray

    def phonons(self, spectra: np.ndarray) -> np.ndarray:
        """Return P(E), (rows, columns, kept channels)."""
        mirrored = (1.0 - self.upper) * spectra[..., self.below] + self.upper * spectra[..., self.above]
        return np.asarray((spectra[..., self.out] - mirrored) / self.balance)

    def variance(self, own: np.ndarray, on_phonons: bool) -> np.ndarray:
        """Return the variance of the phonons, or that of the background, [mirrored - loss e^(-E/kT)] / balance."""
        gain_side = (1.0 - self.upper) ** 2 * own[..., self.below] + self.upper**2 * own[..., self.above]
        loss_weight = 1.0 if on_phonons else (1.0 - self.balance) ** 2
        return np.asarray((loss_weight * own[..., self.out] + gain_side) / self.balance**2)


def _sides(axis: EnergyAxis, settings: SubtractZlp, temperature_k: float) -> _Sides:
    wanted = output_channels(axis, settings)
    energies = axis.energies_mev[wanted]
    mirrored = (-energies - axis.offset_mev) / axis.dispersion_mev
    inside = (energies > 0.5 * axis.dispersion_mev) & (mirrored >= 0.0)
    if inside.sum() < MIN_WINDOW_CHANNELS:
        low, high = settings.output_window_mev
        raise DataError(
            f"subtract_zlp.method = mirrored_gain needs the energy-gain side, but the axis starts at "
            f"{axis.offset_mev:g} meV and subtract_zlp.output_window_mev is {low:g} … {high:g} meV; "
            f"choose another method, or a window whose mirror image is on the axis"
        )
    first = wanted.start + int(np.flatnonzero(inside)[0])
    below = np.floor(mirrored[inside]).astype(int)
    above = np.minimum(below + 1, axis.n_channels - 1)
    balance = -np.expm1(-energies[inside] / thermal_energy_mev(temperature_k))
    return _Sides(slice(first, first + int(inside.sum())), below, above, mirrored[inside] - below, balance)
