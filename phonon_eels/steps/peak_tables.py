"""Tables of `fit_peaks`: modes, close pairs, mean spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.config import Material
from phonon_eels.forward.mean import MeanFit
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.pooled import Pooled
from phonon_eels.forward.scan import Alignment, ScanFit
from phonon_eels.spectrum_image import EnergyAxis
from phonon_eels.steps.peak_maps import PeakMaps
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

MODEL_ERROR_FWHM = 1.3e-3
"""Bias of energies from carrying the zero-loss shape to first order, in its FWHM: up to 0.008 meV was found on noise-free
spectra whose peak was 2 % wider than the reference (7.5 meV)."""
IDENTIFIABLE, CENTROID_ONLY, NOT_IDENTIFIABLE = "identifiable", "centroid only", "not identifiable"


def local_maps(
    fit: ScanFit, model: ForwardModel, alignment: Alignment, axis: EnergyAxis, good: np.ndarray
) -> dict[str, tuple[np.ndarray, str]]:
    """Return the rest of the forward model at every position: with `area_e` and `background_e` it gives every curve.

    ``fitted_energy_mev`` is the energy that the model was evaluated with, also where the mode is too faint to report it.
    """
    center = axis.offset_mev + axis.dispersion_mev * alignment.channel + fit.params[..., 1]
    local = {
        "zlp_height_e": (fit.params[..., 0], fit.std[..., 0], "electrons/channel"),
        "zlp_center_mev": (center, fit.std[..., 1], "meV"),
        "zlp_log_width": (fit.params[..., 2], fit.std[..., 2], "1"),
        "zlp_log_tail_loss": (fit.params[..., 3], fit.std[..., 3], "1"),
        "zlp_log_tail_gain": (fit.params[..., 4], fit.std[..., 4], "1"),
    }
    if model.background.nonlinear:
        local["background_slope"] = (fit.params[..., 6], fit.std[..., 6], "1")
        local["background_bend"] = (fit.params[..., 7], fit.std[..., 7], "1")
    else:
        local["background_ramp_e"] = (fit.params[..., 6], fit.std[..., 6], "electrons/channel/100 meV")
    values: dict[str, tuple[np.ndarray, str]] = {}
    for name, (array, std, unit) in local.items():
        values[name] = (np.where(good, array, np.nan), unit)
        values[f"{name}_std"] = (np.where(good, std, np.nan), unit)
    energies = (np.moveaxis(fit.energies(v), 2, 0) for v in (fit.params, fit.std))
    for suffix, energy in zip(("", "_std"), energies, strict=True):
        values[f"fitted_energy_mev{suffix}"] = (np.where(good, energy, np.nan), "meV")
    return values


ABSOLUTE = ("energy_mev", "mean_energy_mev", "centroid_mev", "energy_first_mev", "energy_second_mev")
"""Columns that hold energies from the zero of the scale; differences of energies do not depend on it."""


def true_zero(context: StepContext) -> tuple[float, float]:
    """Return the zero of energy loss as seen from the zero-loss centre, and its standard deviation, in meV.

    The forward fit counts energies from the zero-loss centre; a calibration may have found the zero elsewhere. On the
    classic route spectra were brought to the calibrated axis before they were fitted: nothing is left to take off.
    """
    found = context.summaries.get("calibrate", {}).get("zero_from_zlp_mev")
    if not found or context.route == "classic":
        return 0.0, 0.0
    return float(found["value"]), float(found["std"] or 0.0)


def from_true_zero(table: pd.DataFrame, context: StepContext) -> pd.DataFrame:
    """Return a table whose energies count from the calibrated zero."""
    zero, _ = true_zero(context)
    columns = [name for name in ABSOLUTE if name in table]
    return table if zero == 0.0 or not columns else table.assign(**{name: table[name] - zero for name in columns})


def mode_table(
    by_rows: Pooled,
    by_columns: Pooled,
    model: ForwardModel,
    context: StepContext,
    maps: PeakMaps,
    follows: np.ndarray,
    by_vacuum: np.ndarray,
) -> pd.DataFrame:
    """Return one row per mode: scan-wide energy, intrinsic width and mean area.

    `maps` tell how many positions show the mode and how well; `follows` (modes, 3) how its energy follows ln FWHM and the
    logarithms of the tail exponents of the zero-loss peak; `by_vacuum` (modes,) what the noise of a vacuum measurement
    leaves in it, common to all positions.

    The deviation of an energy is the largest of counting statistics and the jackknives over blocks of rows and of
    columns, which also hold what varies between places. `energy_mev_syst` holds the linearisation of the zero-loss shape
    (`MODEL_ERROR_FWHM`) and the calibration's share (dispersion and zero), where one was made.
    """
    import pandas as pd

    material = context.material
    by_name = {mode.name: mode for mode in material.modes}
    dispersion = context.summaries.get("calibrate", {}).get("dispersion_mev")
    relative = dispersion["std"] / dispersion["value"] if dispersion and dispersion.get("std") is not None else 0.0
    resolution = float(model.reference[0]) if model.zero_loss is not None else float(model.fwhm_mev.min())
    energy_std = energy_deviations(by_rows, by_columns)
    area_std = np.maximum(by_rows.areas_std_e, by_columns.jackknife(lambda e, a: a)[1])
    split = {
        name: pair_is_split(by_rows, by_columns, model, pair)
        for pair in material.pairs
        for name in pair
        if name in model.mode_names
    }
    rows = []
    for m, name in enumerate(model.mode_names):
        prior = by_name[name].prior_energy_std_mev
        told = by_rows.areas_e[m] > 5.0 * by_rows.areas_std_e[m] and by_rows.energies_std_mev[m] < 0.5 * prior
        told = told and model.bounds_mev[m, 0] <= by_rows.energies_mev[m] <= model.bounds_mev[m, 1]
        label = IDENTIFIABLE if told else NOT_IDENTIFIABLE
        if told and not split.get(name, True):
            label = CENTROID_ONLY
        rows.append(
            {
                "mode": name,
                "label": by_name[name].label,
                "energy_mev": by_rows.energies_mev[m],
                "energy_mev_std": energy_std[m] if energy_std[m] > 0.0 else np.nan,
                "energy_mev_std_counting": by_rows.energies_std_mev[m] if energy_std[m] > 0.0 else np.nan,
                "energy_mev_syst": float(
                    np.linalg.norm(
                        [
                            relative * by_rows.energies_mev[m],
                            MODEL_ERROR_FWHM * resolution,
                            true_zero(context)[1],
                            by_vacuum[m],
                        ]
                    )
                ),
                "energy_mev_syst_vacuum": by_vacuum[m],
                "fwhm_mev": by_rows.fwhm_mev[m],
                "fwhm_mev_std": by_rows.fwhm_std_mev[m] if by_rows.fwhm_std_mev[m] > 0.0 else np.nan,
                "area_e": by_rows.areas_e[m],
                "area_e_std": area_std[m],
                "n_positions": int(np.count_nonzero(maps.mode_status[m] <= 1)),
                "prior_energy_mev_std": prior,
                "posterior_prior_ratio": energy_std[m] / prior if energy_std[m] > 0.0 else np.nan,
                "held": held_words(model, m),
                "energy_mev_crb_position": _median(maps.energy_bound_mev[m], maps.mode_status[m] <= 1),
                "energy_mev_per_ln_fwhm": follows[m, 0],
                "energy_mev_per_ln_tail_loss": follows[m, 1],
                "energy_mev_per_ln_tail_gain": follows[m, 2],
                "identifiable": label,
            }
        )
    table = pd.DataFrame(rows)
    if context.route == "classic":  # lines that still carry part of the instrument and no occupation
        table = table.rename(
            columns=lambda name: f"apparent_{name}" if name.startswith(("energy_mev", "fwhm_mev")) else name
        )
    return table


def held_words(model: ForwardModel, mode: int) -> str:
    """Return what the recipe does with a mode's energy; nothing where it is free."""
    recipe = model.recipe
    if recipe is None or recipe.owner[mode] == mode:
        return ""
    if recipe.fixed[mode]:
        return "energy fixed"
    return f"{model.mode_names[recipe.owner[mode]]} {recipe.offset_mev[mode]:+g} meV"


def sensitivity_summary(names: Sequence[str], follows: np.ndarray) -> dict[str, dict[str, float | str]]:
    """Return how each mode's energy follows the zero-loss shape, as the summary holds it: meV per unit of a logarithm."""
    keys = ("per_ln_fwhm", "per_ln_tail_loss", "per_ln_tail_gain")
    return {
        name: {**dict(zip(keys, map(float, row), strict=True)), "unit": "meV"}
        for name, row in zip(names, follows, strict=True)
    }


def _median(values: np.ndarray, kept: np.ndarray) -> float:
    known = values[kept & np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def energy_deviations(by_rows: Pooled, by_columns: Pooled) -> np.ndarray:
    """Return the largest of the three deviations of the modes' energies, (modes,)."""
    jackknives = [pooled.jackknife(lambda e, a: e)[1] for pooled in (by_rows, by_columns)]
    return np.asarray(np.max([by_rows.energies_std_mev, *jackknives], axis=0))


def pair_is_split(by_rows: Pooled, by_columns: Pooled, model: ForwardModel, pair: tuple[str, str]) -> bool:
    """Return whether a pair's splitting is known well enough (4 standard deviations) to speak of two modes."""
    if not all(name in model.mode_names for name in pair):
        return True
    low, high = (model.mode_names.index(name) for name in pair)
    std = energy_deviations(by_rows, by_columns)
    return bool(by_rows.energies_mev[high] - by_rows.energies_mev[low] > 4.0 * np.hypot(std[low], std[high]))


def pair_table(by_rows: Pooled, by_columns: Pooled, model: ForwardModel, material: Material) -> pd.DataFrame:
    """Return one row per close pair: area-weighted centroid, splitting and area ratio (low over high).

    Their deviations are jackknives over blocks of columns: every block of columns crosses all layers, so that the layers'
    own differences do not count as noise. That of the splitting is at least the one of blocks of rows.
    """
    import pandas as pd

    columns = ["pair", "centroid_mev", "centroid_mev_std", "splitting_mev", "splitting_mev_std"]
    columns += ["area_ratio", "area_ratio_std", "identifiable"]
    rows = []
    for pair in material.pairs:
        if not all(name in model.mode_names for name in pair):
            continue
        low, high = (model.mode_names.index(name) for name in pair)

        def derived(e: np.ndarray, a: np.ndarray, low: int = low, high: int = high) -> np.ndarray:
            centroid = (a[low] * e[low] + a[high] * e[high]) / (a[low] + a[high])
            return np.array([centroid, e[high] - e[low], a[low] / a[high]])

        value, std = by_columns.jackknife(derived)
        std[1] = max(std[1], by_rows.jackknife(derived)[1][1])
        label = IDENTIFIABLE if pair_is_split(by_rows, by_columns, model, pair) else CENTROID_ONLY
        rows.append(["+".join(pair), value[0], std[0], value[1], std[1], value[2], std[2], label])
    return pd.DataFrame(rows, columns=columns)


def mean_table(mean: MeanFit) -> pd.DataFrame:
    """Return the mean spectrum with its model, residual and components, electrons per channel and position."""
    import pandas as pd

    components = {f"{name}_e": values for name, values in mean.components_e.items()}
    if "zlp_e" not in components:
        components["zlp_e"] = np.zeros_like(mean.mean_e)
    return pd.DataFrame(
        {
            "energy_loss_mev": mean.energies_mev,
            "counts_e": mean.mean_e,
            "counts_e_std": mean.std_e,
            "model_e": mean.model_e,
            "residual_sigma": (mean.mean_e - mean.model_e) / np.maximum(mean.std_e, 1e-300),
            **components,
        }
    )
