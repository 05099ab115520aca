"""Tables of `fit_peaks`: modes, close pairs, mean spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.config import Material
from phonon_eels.forward.mean import MeanFit
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.pooled import PooledEnergies
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

IDENTIFIABLE, CENTROID_ONLY, NOT_IDENTIFIABLE = "identifiable", "centroid only", "not identifiable"


def mode_table(
    pooled: PooledEnergies, mean: MeanFit, model: ForwardModel, context: StepContext, mode_status: np.ndarray
) -> pd.DataFrame:
    """Return one row per mode: scan-wide energy, width and area.

    The deviation of an energy is the larger of counting statistics and the jackknife over blocks of rows, which also
    holds what varies between places. `energy_mev_syst` is the calibration's share, where a calibration was made.
    """
    import pandas as pd

    material = context.material
    by_name = {mode.name: mode for mode in material.modes}
    dispersion = context.summaries.get("calibrate", {}).get("dispersion_mev")
    relative = dispersion["std"] / dispersion["value"] if dispersion and dispersion.get("std") is not None else np.nan
    _, energy_std = pooled.jackknife(lambda e, a: e)
    _, area_std = pooled.jackknife(lambda e, a: a)
    energy_std = np.maximum(energy_std, pooled.fisher_std_mev)
    split = {name: pair_is_split(pooled, model, pair) for pair in material.pairs for name in pair if name in model.mode_names}
    rows = []
    for m, name in enumerate(model.mode_names):
        prior = by_name[name].prior_energy_std_mev
        visible = pooled.areas_e[m] > 5.0 * area_std[m]
        told = visible and pooled.fisher_std_mev[m] < 0.5 * prior
        label = IDENTIFIABLE if told else NOT_IDENTIFIABLE
        if told and not split.get(name, True):
            label = CENTROID_ONLY
        rows.append(
            {
                "mode": name,
                "label": by_name[name].label,
                "energy_mev": pooled.energies_mev[m],
                "energy_mev_std": energy_std[m],
                "energy_mev_std_counting": pooled.fisher_std_mev[m],
                "energy_mev_syst": relative * pooled.energies_mev[m],
                "fwhm_mev": mean.fwhm_mev[m],
                "fwhm_mev_std": np.nan,
                "area_e": pooled.areas_e[m],
                "area_e_std": area_std[m],
                "n_positions": int(np.count_nonzero(mode_status[m] <= 1)),
                "prior_energy_mev_std": prior,
                "identifiable": label,
            }
        )
    return pd.DataFrame(rows)


def pair_is_split(pooled: PooledEnergies, model: ForwardModel, pair: tuple[str, str]) -> bool:
    """Return whether a pair's splitting is known well enough to speak of two modes."""
    if not all(name in model.mode_names for name in pair):
        return True
    low, high = (model.mode_names.index(name) for name in pair)
    value, std = pooled.jackknife(lambda e, a: np.array([e[high] - e[low]]))
    std = np.maximum(std, np.hypot(pooled.fisher_std_mev[low], pooled.fisher_std_mev[high]) * 0.5)
    return bool(value[0] > 4.0 * std[0])


def pair_table(pooled: PooledEnergies, model: ForwardModel, material: Material) -> pd.DataFrame:
    """Return one row per close pair: area-weighted centroid, splitting and area ratio (low over high)."""
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

        value, std = pooled.jackknife(derived)
        label = IDENTIFIABLE if pair_is_split(pooled, model, pair) else CENTROID_ONLY
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
