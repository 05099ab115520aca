"""Deviations of every mode's energy, at a position, in a plane and over all scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.planning import PlanSettings
from phonon_eels.forward.mean import LOG_FWHM_STD
from phonon_eels.forward.scan import SHOWN_SIGMA
from phonon_eels.lattice.modulation import UnitFit
from phonon_eels.plan.expectation import Expectation, stack_of_plan
from phonon_eels.plan.planes import positions_per_unit, unit_std_mev, units_per_scan
from phonon_eels.plan.power import detectable_amplitude
from phonon_eels.steps.position_fits import prior_stds

if TYPE_CHECKING:
    import pandas as pd

PRIOR_DOMINATED = 0.5  # as in `fit_peaks`: a deviation above this share of the prior's says little beside the prior


def mode_table(plan: PlanSettings, material: Material, expectation: Expectation, unit: UnitFit) -> pd.DataFrame:
    """Return one row per mode; see `Forecast.modes`."""
    import pandas as pd

    model, half = expectation.model, expectation.half_slab
    question, stack = plan.question, stack_of_plan(material)
    n_units = units_per_scan(plan, material) * plan.scan.scans
    scan = _scan_covariance(plan, material, expectation)
    prior = prior_stds(model, material)
    by_name = {mode.name: mode for mode in material.modes}
    rows = []
    for m, name in enumerate(model.mode_names):
        weights = by_name[name].layers
        layer = max(weights, key=lambda entry: weights[entry]) if weights else ""
        heights = dict(zip(stack.names, stack.heights_nm, strict=True))
        away = np.abs(half.c_nm - (0.5 * stack.repeat_nm - heights[layer])) if layer else np.zeros(half.c_nm.size)
        on_top = int(np.argmin(away))
        local = float(expectation.free.energies(expectation.free.std)[0, on_top, m])
        area = float(half.areas_e[on_top, m])
        std = unit_std_mev(plan, unit, m)
        noise = float(expectation.free.areas(expectation.free.std)[0, on_top, m])
        status = "vanished" if not area > SHOWN_SIGMA * noise else "ok"
        if status == "ok" and local > PRIOR_DOMINATED * prior[m]:
            status = "prior dominated"
        rows.append({
            "mode": name, "layer": layer, "energy_mev": float(model.mode_energies_mev[m]),
            "electrons_on_plane_e": area,
            "area_position_std_e": noise,
            "energy_position_std_mev": local,
            "position": status,
            "energy_plane_std_mev": float(np.sqrt(unit.covariance[m, 0, 0])),
            "energy_scan_std_mev": float(np.sqrt(scan[m, m])),
            "amplitude_plane_std_mev": std,
            "attenuation": float(np.abs(half.signed_share[m, on_top])),
            "n_planes": n_units,
            "detectable_mev": detectable_amplitude(std, n_units, question.confidence, question.power)
            if n_units >= question.min_units and layer else float("nan"),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _scan_covariance(plan: PlanSettings, material: Material, expectation: Expectation) -> np.ndarray:
    """Covariance of the energies and widths shared by all positions of all scans, (2M, 2M)."""
    scan, held = plan.scan, expectation.held
    assert held.information is not None
    stack = stack_of_plan(material)
    halves = scan.c_length_nm / (0.5 * stack.repeat_nm) * scan.scans
    total = held.information[0].mean(axis=0) * positions_per_unit(plan, material) * halves
    modes = expectation.model.n_modes
    precision = np.zeros(2 * modes)
    precision[modes:] = (LOG_FWHM_STD * expectation.model.fwhm_mev) ** -2.0
    return np.asarray(np.linalg.inv(total + np.diag(precision)))


def pair_table(plan: PlanSettings, material: Material, expectation: Expectation) -> pd.DataFrame:
    """Return one row per pair of close modes; see `Forecast.pairs`."""
    import pandas as pd

    names, modes = expectation.model.mode_names, expectation.model.n_modes
    scan = _scan_covariance(plan, material, expectation)
    areas = expectation.half_slab.areas_e.mean(axis=0)
    rows = []
    for low, high in material.pairs:
        if low not in names or high not in names:
            continue
        i, j = names.index(low), names.index(high)
        difference, mean = np.zeros(2 * modes), np.zeros(2 * modes)
        difference[[i, j]] = -1.0, 1.0
        mean[[i, j]] = areas[[i, j]] / areas[[i, j]].sum()
        rows.append({
            "pair": f"{low}+{high}",
            "centroid_scan_std_mev": float(np.sqrt(mean @ scan @ mean)),
            "splitting_mev": float(np.diff(expectation.model.mode_energies_mev[[i, j]])[0]),
            "splitting_scan_std_mev": float(np.sqrt(difference @ scan @ difference)),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=["pair", "centroid_scan_std_mev", "splitting_mev", "splitting_scan_std_mev"])
