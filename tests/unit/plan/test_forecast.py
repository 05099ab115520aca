"""What a plan foretells: against the forward fit of simulated spectra, and how it follows dose, area and scans."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.stats import chi2

from phonon_eels.cli.program import main
from phonon_eels.config.planning import PlanSettings, load_plan
from phonon_eels.errors import ConfigError
from phonon_eels.figures import plot_plan
from phonon_eels.plan.expectation import electrons_per_position, expect, incident_electrons
from phonon_eels.plan.forecast import forecast
from phonon_eels.plan.modes import mode_table, pair_table
from phonon_eels.plan.planes import unit_of, unit_std_mev
from phonon_eels.plan.text import as_text
from tests.unit.forward.spectra import BI2212, fit, model_of, simulated

ISOLATED = ("Sr22", "BiO57", "SrO67", "CuO78")
"""Modes farther from their neighbours than the resolution: no prior on their energies."""


def plan_of(**sections):
    """Return a plan like the simulator's defaults, with changes."""
    tree = {"beam": {"zero_loss_electrons": 2e5}}
    for key, values in sections.items():
        tree.setdefault(key, {}).update(values)
    return PlanSettings.model_validate(tree)


@pytest.fixture(scope="module")
def usual():
    return forecast(plan_of(), BI2212)


def unit_std(plan, name="CuO78"):
    seen = expect(plan, BI2212)
    return unit_std_mev(plan, unit_of(plan, BI2212, seen), seen.model.mode_names.index(name))


def modes_at(electrons):
    plan = plan_of(beam={"zero_loss_electrons": electrons})
    seen = expect(plan, BI2212)
    return mode_table(plan, BI2212, seen, unit_of(plan, BI2212, seen)).set_index("mode")


def test_deviations_are_the_scatter_of_fitted_energies():
    """Every position of the simulation sees the same spectrum, so the scatter between positions is counting noise."""
    counted = simulated(
        14, 16, seed=3, zero_loss={"electrons": 2e6}, detector={"poisson": True, "read_noise_e": 1.0},
        phonons={"dechannelled_fraction": 1.0, "area_e": 2e4, "background_e_per_mev": 20.0},
    )  # fmt: skip
    model = model_of(counted)
    found = fit(counted, model, energy_prior_std_mev=None)
    plan = plan_of(
        beam={"zero_loss_electrons": 2e6},
        specimen={"dechannelled_fraction": 1.0},
        spectrum={"range_mev": (-51.0, 110.5)},
    )
    seen = expect(plan, BI2212)
    n = found.status.size
    for name in ISOLATED:
        m = model.mode_names.index(name)
        told = seen.free.energies(seen.free.std)[0, 0, m]
        scatter = found.energies()[..., m].std(ddof=1)
        low, high = np.sqrt(chi2.ppf([0.001, 0.999], n - 1) / (n - 1))
        assert low < scatter / told < high, (name, scatter / told)
        assert counted.truth_maps["area_e"].values[m].mean() == pytest.approx(seen.half_slab.areas_e[0, m], rel=1e-6)


def test_areas_are_those_of_the_simulator():
    scan = simulated(28, 4, phonons={"dechannelled_fraction": 0.1}, scan={"c_origin_nm": 0.0, "row_step_nm": 0.0275})
    seen = expect(plan_of(), BI2212)
    true = scan.truth_maps["area_e"].values[:, :, 0]
    c = 0.0275 * np.arange(28)
    for m in range(6):
        told = CubicSpline(seen.half_slab.c_nm, seen.half_slab.areas_e[:, m])(c)
        inside = (c > seen.half_slab.c_nm[0]) & (c < seen.half_slab.c_nm[-1])
        np.testing.assert_allclose(true[m][inside], told[inside], rtol=0.003)


def test_attenuation_is_that_of_the_simulator():
    truth = simulated(4, 4, phonons={"dechannelled_fraction": 0.1}).truth["attenuation"]
    seen = expect(plan_of(), BI2212)
    for m, name in enumerate(seen.model.mode_names):
        share = np.abs(seen.half_slab.signed_share[m])
        place = int(np.argmax(seen.half_slab.areas_e[:, m]))
        assert share[place] == pytest.approx(truth[name], abs=0.01)


def test_more_dose_area_and_scans_buy_what_statistics_says(usual):
    strong = {"detector": {"read_noise_e": 0.0}}
    once, twice = (unit_std(plan_of(beam={"zero_loss_electrons": dose}, **strong)) for dose in (2e5, 4e5))
    assert once / twice == pytest.approx(np.sqrt(2.0), rel=0.02)
    assert unit_std(plan_of(scan={"b_length_nm": 11.6}, **strong)) == pytest.approx(once / np.sqrt(2.0), rel=0.02)
    assert unit_std(plan_of(scan={"c_step_nm": 0.11}, **strong)) == pytest.approx(once * np.sqrt(2.0), rel=0.02)
    choices = usual.choices.set_index("choice")
    assert choices.loc["twice the scans", "n_planes"] == 2 * choices.loc["as planned", "n_planes"] == 16
    assert choices.loc["twice the scans", "detectable_mev"] < choices.loc["twice the dose", "detectable_mev"]
    curves = usual.curves.pivot(index="dose_factor", columns="scans", values="detectable_mev")
    assert (np.diff(curves.values, axis=0) < 0).all()
    assert (np.diff(curves.values, axis=1) < 0).all()


def test_read_noise_dipole_part_and_plane_scatter_cost():
    usual = unit_std(plan_of())
    assert unit_std(plan_of(detector={"read_noise_e": 5.0})) > 1.3 * usual
    assert unit_std(plan_of(specimen={"dipole_fraction": 0.5})) > 1.5 * usual
    assert unit_std(plan_of(specimen={"plane_scatter_mev": 1.0})) == pytest.approx(np.hypot(1.0, usual))


def test_current_and_time_make_the_dose():
    plan = PlanSettings.model_validate({"beam": {"current_pa": 10.0, "dwell_time_s": 0.1, "frames": 3}})
    assert incident_electrons(plan) == pytest.approx(10e-12 * 0.3 / 1.602176634e-19)
    assert electrons_per_position(plan) == pytest.approx(0.032 * incident_electrons(plan))
    assert incident_electrons(plan_of()) == pytest.approx(2e5 / 0.032)


def test_close_modes_are_told_as_such(usual):
    pair = usual.pairs.set_index("pair").loc["BiO38+CuO42"]
    assert pair["centroid_scan_std_mev"] < pair["splitting_scan_std_mev"]
    table = usual.modes.set_index("mode")
    assert table.loc["CuO42", "energy_position_std_mev"] > table.loc["CuO78", "energy_position_std_mev"]
    weak = modes_at(5e4)
    assert weak.loc["BiO38", "position"] == "prior dominated"
    assert modes_at(1e4).loc["SrO67", "position"] == "vanished"


def test_a_third_mode_takes_the_pair_apart():
    """With a mode at 35.5 meV as well, the splitting of 38 and 42 is known much worse, and the plan says so."""
    extra = BI2212.modes[1].model_copy(
        update={"name": "Cu35", "energy_mev": 35.5, "bounds_mev": (32.0, 38.0), "layers": {"CuO2": 1.0}}
    )
    crowded = BI2212.model_copy(update={"modes": (BI2212.modes[0], extra, *BI2212.modes[1:])})
    plan = plan_of()
    usual, worse = (pair_table(plan, m, expect(plan, m)).set_index("pair") for m in (BI2212, crowded))
    column = "splitting_scan_std_mev"
    assert worse.loc["BiO38+CuO42", column] > 2.0 * usual.loc["BiO38+CuO42", column]


def test_too_few_planes_are_no_test():
    found = forecast(plan_of(scan={"c_length_nm": 3.0}), BI2212)
    assert not found.summary["testable"]
    assert found.summary["scans_needed"] == 2
    assert np.isnan(found.summary["detectable_mev"])
    assert "not testable: 3 half-slab planes" in found.summary["warnings"][0]
    assert "cannot be tested" in as_text(found)
    assert plot_plan(found).axes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": {"mode": "CuO99"}}, "question.mode = CuO99: is no mode of bi2212; it has Sr22"),
        ({"question": {"mode": "CuO78", "layer": "BiO"}}, "question.layer = 'BiO': mode CuO78 is not carried"),
        ({"spectrum": {"range_mev": (-60.0, 70.0)}}, "question.mode = CuO78: lies beyond the end of the energy axis"),
    ],
)
def test_questions_that_cannot_be_answered(changes, message):
    with pytest.raises(ConfigError, match=message):
        forecast(plan_of(**changes), BI2212)


def test_settings_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key beam\.curent_pa; did you mean current_pa"):
        load_plan(None, ["beam.curent_pa=3"])
    with pytest.raises(ConfigError, match="must hold the zero-loss peak"):
        load_plan(None, ["spectrum.range_mev=[10, 100]"])
    file = tmp_path / "plan.yaml"
    file.write_text("scan: {scans: 3}\nmaterial: mine.yaml\n")
    plan = load_plan(file, ["beam.frames=2"])
    assert (plan.scan.scans, plan.beam.frames) == (3, 2)
    assert plan.material == str(tmp_path / "mine.yaml")


def test_command_line(tmp_path, capsys):
    assert main(["plan", "--set", "beam.current_pa=1", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "is detected with 80 % chance" in printed
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= 125
    for name in ("plan.json", "plan.png", "plan.svg", "plan_modes.csv", "plan_curves.csv"):
        assert (tmp_path / "out" / name).stat().st_size > 200
    assert main(["plan", "--json", "--set", "beam.current_pa=1"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree == json.loads((tmp_path / "out" / "plan.json").read_text("utf-8"))
    assert main(["plan", "--set", "beam.current_pa=-1"]) == 2
    assert "beam.current_pa" in capsys.readouterr().err


def test_example_is_a_plan():
    example = Path(__file__).parents[3] / "docs" / "examples" / "plan.yaml"
    assert load_plan(example).scan.scans == 3
