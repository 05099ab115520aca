"""38 meV (BiO) and 42 meV (CuO2), closer than the resolution: told apart by layer, and what a third mode takes away."""

import numpy as np
import pytest

from phonon_eels.config import Settings, SimulationSettings
from phonon_eels.simulate import simulate
from phonon_eels.steps.registry import find_step
from tests.unit.forward.spectra import BI2212, context_of, with_results

pytestmark = [pytest.mark.statistics, pytest.mark.slow]
THIRD = BI2212.modes[1].model_copy(
    update={
        "name": "Cu35", "energy_mev": 35.5, "bounds_mev": (32.0, 38.0), "layers": {"CuO2": 1.0}, "relative_area": 0.6,
    }
)  # fmt: skip
CROWDED = BI2212.model_copy(update={"modes": (BI2212.modes[0], THIRD, *BI2212.modes[1:])})


def fitted(material, steps, rows=28, columns=24):
    """Return tables and summaries of the steps on a scan of this material."""
    tree = {
        "seed": 7, "scan": {"rows": rows, "columns": columns, "column_step_nm": 0.16}, "detector": {"spike_rate": 0.0},
        "modulation": {"energy_enabled": False},
    }  # fmt: skip
    image, context = simulate(SimulationSettings.model_validate(tree), material).image, context_of(material, threads=2)
    for name in steps:
        result = find_step(name).load().run(image, getattr(Settings(), name), context)
        assert result.skipped is None, result.skipped
        context = with_results(context, **{name: result})
    return context


@pytest.fixture(scope="module")
def usual():
    steps = ("align_zlp", "fit_peaks", "assign_layers", "map_superstructure", "measure_modulation")
    return fitted(BI2212, steps, rows=56)


def test_energies_splitting_and_ratio_are_right(usual):
    row = usual.tables["fit_peaks"]["pairs"].set_index("pair").loc["BiO38+CuO42"]
    assert row["identifiable"] == "identifiable"
    assert abs(row["splitting_mev"] - 4.0) < 3.5 * row["splitting_mev_std"]
    assert row["splitting_mev_std"] < 0.3
    modes = usual.tables["fit_peaks"]["modes"].set_index("mode")
    for name, energy in (("BiO38", 38.0), ("CuO42", 42.0)):
        assert abs(modes.loc[name, "energy_mev"] - energy) < 3.5 * modes.loc[name, "energy_mev_std"]


def test_each_stands_in_its_own_layer(usual):
    shares = usual.tables["measure_modulation"]["mode_layers"].set_index(["mode", "layer"])
    for mode, layer in (("BiO38", "BiO"), ("CuO42", "CuO2"), ("CuO78", "CuO2"), ("SrO67", "SrO")):
        own = shares.loc[(mode, layer)]
        # Negative shares of the others do not count in the whole, positive ones do: their noise takes from the own.
        assert abs(own["share"] - 1.0) < 3.5 * own["share_std"] + 0.02
        others = shares.loc[mode].drop([layer, "everywhere"])
        assert (np.abs(others["share"]) < 3.5 * others["share_std"]).all()


def test_apical_oxygen_is_told_from_copper_oxide(usual):
    """Near 78 meV: CuO2 against SrO, 0.172 nm apart, with a deviation that tells them apart."""
    shares = usual.tables["measure_modulation"]["mode_layers"].set_index(["mode", "layer"])
    copper, strontium = shares.loc[("CuO78", "CuO2")], shares.loc[("CuO78", "SrO")]
    assert (copper["share"] - strontium["share"]) > 10 * np.hypot(copper["share_std"], strontium["share_std"])


def test_a_third_mode_takes_single_positions_away_and_says_so():
    two, three = (fitted(material, ("align_zlp", "fit_peaks")) for material in (BI2212, CROWDED))
    told = [context.summaries["fit_peaks"]["mode_status_counts"] for context in (two, three)]
    # With two modes single positions know their energies; with three most of it is the prior, and the status says so.
    assert told[0]["BiO38"]["ok"] > 100
    assert told[1]["BiO38"]["ok"] < 0.1 * told[0]["BiO38"]["ok"]
    assert told[1]["Cu35"]["ok"] == 0
    assert told[1]["CuO78"]["ok"] > 0.8 * told[0]["CuO78"]["ok"]
    pairs = [context.tables["fit_peaks"]["pairs"].set_index("pair").loc["BiO38+CuO42"] for context in (two, three)]
    assert pairs[1]["area_ratio_std"] > 1.7 * pairs[0]["area_ratio_std"]
    for row in pairs:
        assert abs(row["splitting_mev"] - 4.0) < 3.5 * row["splitting_mev_std"]
