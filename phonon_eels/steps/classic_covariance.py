"""Classic route: close pairs, bounds and the whole covariance at every position, with the noise that channels share."""

from __future__ import annotations

import numpy as np

from phonon_eels.component_fit.model import ComponentModel
from phonon_eels.config import Material
from phonon_eels.forward.model import ForwardModel
from phonon_eels.kernels.components import POLYNOMIAL
from phonon_eels.steps.classic_noise import NoisyFit
from phonon_eels.steps.covariance_maps import CovarianceMaps, Told, empty_covariance
from phonon_eels.steps.pair_maps import PairMaps, pair_maps, pairs_in
from phonon_eels.steps.peak_maps import Values

WORDS = {
    "area": ("area_e", "electrons"),
    "centre": ("apparent_energy_mev", "meV"),
    "fwhm": ("fwhm_mev", "meV"),
    "fwhm_gauss": ("fwhm_gauss_mev", "meV"),
    "fwhm_lorentz": ("fwhm_lorentz_mev", "meV"),
    "fraction": ("lorentzian_fraction", "1"),
}
"""Parameter of a peak → its map and unit."""
AMPLITUDES = ("value", "amplitude", "amplitude_2")
BACKGROUND_UNITS = {
    **dict.fromkeys(AMPLITUDES, "electrons/channel"),
    "rate": "1/meV",
    "rate_2": "1/meV",
    "exponent": "1",
}


def kept_parameters(fitted: ComponentModel, model: ForwardModel, material: Material, whole: bool) -> np.ndarray:
    """Return the numbers of the parameters whose covariance is needed: those of the pairs, or all that are free."""
    if whole:
        return np.asarray(fitted.free, dtype=np.int64)
    modes = sorted({model.mode_names[m] for pair in pairs_in(material, model.mode_names) for m in pair})
    numbers = [fitted.number(f"{mode}.{word}") for mode in modes for word in ("area", "centre")]
    return np.array(numbers, dtype=np.int64)


def classic_covariance(
    found: NoisyFit, model: ForwardModel, material: Material, label: np.ndarray, per_unit: float, *, whole: bool
) -> Told:
    """Return the maps that rest on the covariance.

    Parameters
    ----------
    label
        (modes, rows, columns) what can be told of each mode, numbers of `peak_maps.IDENTIFIABILITY`.
    per_unit
        Electrons for a unit of area; see `classic_peaks.electrons_per_unit`.
    whole
        Also return the covariance of all free parameters, which `found` must have kept.
    """
    scale = np.array([per_unit if _is_amount(found.fit.model, int(p)) else 1.0 for p in found.kept])
    matrix = found.covariance * scale[:, None] * scale
    pairs = pairs_in(material, model.mode_names)
    told = _pairs(found, model, pairs, matrix, label, per_unit) if pairs else None
    ratio = np.where(found.fit.usable, found.fit.pearson_chi2 / np.maximum(found.chi2_mean, 1.0), np.nan)
    return Told(_bounds(found, model, per_unit), told, _whole(found, matrix) if whole else None, ratio)


def _is_amount(fitted: ComponentModel, number: int) -> bool:
    """Return whether a parameter is in proportion to the spectrum."""
    word = fitted.names[number].rpartition(".")[2]
    return word in ("area", *AMPLITUDES) or (_coefficient(word) and fitted.has(POLYNOMIAL))


def _coefficient(word: str) -> bool:
    return word[0] == "c" and word[1:].isdigit()


def _pairs(
    found: NoisyFit,
    model: ForwardModel,
    pairs: list[tuple[int, int]],
    matrix: np.ndarray,
    label: np.ndarray,
    per_unit: float,
) -> PairMaps:
    fit, place = found.fit, {int(p): k for k, p in enumerate(found.kept)}
    numbers = {
        word: [fit.model.number(f"{name}.{word}") for name in model.mode_names] for word in ("area", "centre")
    }  # fmt: skip
    matrices = []
    for pair in pairs:
        own = [place[numbers[word][m]] for word in ("area", "centre") for m in pair]
        matrices.append(matrix[..., own, :][..., :, own])
    areas, energies = per_unit * fit.values[..., numbers["area"]], fit.values[..., numbers["centre"]]
    fitted = np.isfinite(fit.std[..., numbers["centre"]])
    return pair_maps(pairs, model.mode_names, areas, energies, np.stack(matrices), fitted, label, "apparent_")


def _bounds(found: NoisyFit, model: ForwardModel, per_unit: float) -> Values:
    """Return bounds of widths and shapes, (modes, rows, columns), and of the background in the middle of the window."""
    if not found.known:
        return {}
    fit, values = found.fit, Values()
    free = set(fit.model.free_names)
    for word, (name, unit) in WORDS.items():
        if word not in ("area", "centre") and f"{model.mode_names[0]}.{word}" in free:
            places = [fit.model.number(f"{mode}.{word}") for mode in model.mode_names]
            values[f"{name}_crb"] = (_known(np.moveaxis(found.bound[..., places], 2, 0), fit.usable), unit)
    single = "background.amplitude_2" not in fit.names
    for word in (*AMPLITUDES[:2], "c0"):
        if f"background.{word}" in free and single and _is_amount(fit.model, fit.model.number(f"background.{word}")):
            bound = per_unit * found.bound[..., fit.model.number(f"background.{word}")]
            values["background_e_crb"] = (_known(bound, fit.usable), "electrons/channel")
    return values


def _known(bound: np.ndarray, good: np.ndarray) -> np.ndarray:
    return np.where(good & np.isfinite(bound), bound, np.nan)


def _whole(found: NoisyFit, matrix: np.ndarray) -> CovarianceMaps:
    fitted = found.fit.model
    names = []
    for number in found.kept.tolist():
        component, _, word = fitted.names[number].rpartition(".")
        if component == "background":
            unit = (
                "1"
                if _coefficient(word) and not fitted.has(POLYNOMIAL)
                else BACKGROUND_UNITS.get(word, "electrons/channel")
            )
            names.append((fitted.names[number], unit))
        else:
            names.append((f"{component}.{WORDS[word][0]}", WORDS[word][1]))
    told = empty_covariance(names, found.fit.status.shape)
    told.values[...] = np.moveaxis(matrix, (2, 3), (0, 1))
    return told
