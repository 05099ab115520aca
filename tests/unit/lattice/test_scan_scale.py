"""A wrong scan step is told from a drift along c by the spacing of the columns along b; jumps of rows are followed."""

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings
from phonon_eels.simulate.crystal import crystal_scene
from phonon_eels.simulate.haadf import haadf
from tests.unit.lattice.scan_steps import BI2212, assign, names_of, superstructure
from tests.unit.lattice.scene import make_scene


def simulated(seed, **scan):
    still = {"drift_row_nm": 0.0, "drift_column_nm": 0.0, "wander_nm": 0.0, **scan}
    settings = SimulationSettings.model_validate(
        {"seed": seed, "scan": {"rows": 96, "columns": 96, "row_step_nm": 0.06, "column_step_nm": 0.06, **still}}
    )
    return haadf(crystal_scene(settings, BI2212), np.random.default_rng(seed)).astype(float)


@pytest.mark.parametrize("factor", [0.95, 1.0, 1.04])
def test_an_error_of_the_scan_step_is_no_drift(factor):
    result = assign(simulated(1), 0.06 * factor)[2]
    told = result.summary
    assert told["scan_step_factor"]["value"] == pytest.approx(factor, abs=0.003)
    assert abs(told["drift_along_slow_nm"]["value"]) < 0.03
    said = [m for m in result.messages if "scan step is off" in m]
    assert len(said) == (factor != 1.0)
    assert not any("drift" in message for message in result.messages)


@pytest.mark.parametrize("drift_nm", [-0.3, 0.2])
def test_a_drift_along_c_is_no_error_of_the_scan_step(drift_nm):
    result = assign(simulated(2, drift_row_nm=drift_nm), 0.06)[2]
    told = result.summary
    assert told["slow_direction"] == "c"
    assert told["scan_step_factor"]["value"] == pytest.approx(1.0, abs=0.003)
    assert told["drift_along_slow_nm"]["value"] == pytest.approx(drift_nm, abs=0.03)
    assert any("as by a drift of" in message for message in result.messages)
    assert not any("scan step is off" in message for message in result.messages)


def test_with_c_along_the_fast_direction_it_is_b_that_drifts():
    told = assign(simulated(0, rotation_rad=0.5 * np.pi, drift_row_nm=0.2), 0.06)[2].summary
    assert told["slow_direction"] == "b"
    assert told["scan_step_factor"]["value"] == pytest.approx(1.0, abs=0.003)
    assert told["drift_along_slow_nm"]["value"] == pytest.approx(0.2, abs=0.04)


def test_columns_too_coarsely_scanned_are_not_measured():
    result = assign(simulated(0, column_step_nm=0.16), (0.06, 0.16))[2]
    assert result.summary["scan_nm_per_crystal_nm_b"]["status"] == "not measured"
    assert np.isnan(result.summary["scan_nm_per_crystal_nm_b"]["value"])


@pytest.mark.parametrize(("step_nm", "low", "high"), [(0.2, 0.92, 0.96), (0.16, 0.96, 1.04)])
def test_displacements_of_coarse_scans(step_nm, low, high):
    """A plane that one position crosses may be brighter or displaced: with both free 2 Å leave 7 % too little, not 21 %."""
    scene = make_scene(64, 64, step_nm=step_nm, noise=0.05)
    layers, wave = superstructure(scene.haadf, step_nm)
    assert low * 0.035 < wave.summary["displacement_nm"]["value"] < high * 0.035
    said = any("displacements come out about 7 % too small" in message for message in layers.messages)
    assert said == (step_nm > 0.18)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_that_jump_along_c_are_followed(seed):
    """0.2 Å of jitter from row to row: 87 to 92 % without following them."""
    jumping = make_scene(96, 96, row_jitter_nm=0.02, seed=seed, noise=0.1)
    steady = make_scene(96, 96, seed=seed, noise=0.1)
    assert (names_of(assign(jumping.haadf, 0.05)[2].maps) == jumping.label).mean() > 0.92
    assert (names_of(assign(steady.haadf, 0.05)[2].maps) == steady.label).mean() > 0.98
