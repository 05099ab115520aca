"""Where the probe goes."""

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings
from phonon_eels.simulate.scan import probe_path

OFF = dict.fromkeys(("drift_row_nm", "drift_column_nm", "wander_nm", "line_jitter_nm", "frame_jump_nm"), 0.0)


def path(**scan):
    return probe_path(SimulationSettings.model_validate({"scan": {"rows": 50, "columns": 30, **OFF, **scan}}), 2.578)


def test_everything_off_is_the_nominal_grid():
    made = path(c_origin_nm=1.0, b_origin_nm=2.0, frames=2)
    assert made.row_offset_nm == pytest.approx(0.0)
    assert made.column_offset_nm == pytest.approx(0.0)
    assert made.c_nm[1, :, 0] == pytest.approx(1.0 + 0.055 * np.arange(50))
    assert made.b_nm[0, 7] == pytest.approx(2.0 + 0.09 * np.arange(30))


def test_linear_drift_goes_on_through_the_frames():
    made = path(drift_row_nm=0.1, drift_column_nm=-0.2, frames=3)
    flat = made.row_offset_nm.ravel()
    assert np.diff(flat) == pytest.approx(0.1 / 1500)
    assert made.column_offset_nm[2, -1, -1] == pytest.approx(-0.6, rel=1e-3)


def test_wander_has_its_spread_and_memory():
    made = path(rows=20_000, columns=1, wander_nm=0.01, wander_memory=0.9)
    walk = made.row_offset_nm[0, 100:, 0]
    assert walk.std() == pytest.approx(0.01, rel=0.05)
    assert np.corrcoef(walk[1:], walk[:-1])[0, 1] == pytest.approx(0.9, abs=0.02)


def test_line_jitter_is_one_number_a_row_along_the_row():
    made = path(rows=4000, line_jitter_nm=0.02)
    assert np.ptp(made.column_offset_nm[0], axis=1) == pytest.approx(0.0)
    assert made.column_offset_nm[0, :, 0].std() == pytest.approx(0.02, rel=0.05)
    assert made.row_offset_nm == pytest.approx(0.0)


def test_flyback_settles():
    offset = path(flyback_nm=0.1, flyback_columns=3.0).column_offset_nm[0, 4]
    assert offset[0] == pytest.approx(0.1)
    assert offset[3] == pytest.approx(0.1 / np.e)


@pytest.mark.parametrize(("wave", "moved", "still"), [("wave_c_nm", "c_nm", "b_nm"), ("wave_b_nm", "b_nm", "c_nm")])
def test_scan_waves_run_along_b(wave, moved, still):
    made, plain = path(columns=58, **{wave: 0.02}), path(columns=58)
    change = (getattr(made, moved) - getattr(plain, moved))[0, 0]
    assert change == pytest.approx(0.02 * np.cos(2 * np.pi * plain.b_nm[0, 0] / 2.578))
    assert getattr(made, still) == pytest.approx(getattr(plain, still))


def test_seed_decides():
    def offsets(seed):
        settings = SimulationSettings.model_validate({"seed": seed, "scan": {"rows": 50, "columns": 30}})
        return probe_path(settings, 2.578).row_offset_nm

    assert np.array_equal(offsets(1), offsets(1))
    assert not np.array_equal(offsets(1), offsets(2))
