"""Images that cannot show what is asked for: a clear statement, and no number that pretends to be a result."""

import numpy as np
import pytest

from tests.unit.lattice.scan_steps import superstructure
from tests.unit.lattice.scene import make_scene

STEP_NM = 0.05


def with_rows_gone(chosen):
    haadf = make_scene().haadf.copy()
    haadf[chosen] = np.nan
    return haadf


def says_nothing(result):
    return result.skipped is not None and result.maps is None and not result.tables and not result.summary


@pytest.mark.parametrize("seed", range(4))
def test_without_superstructure_layers_stand_and_no_wave_is_named(seed):
    layers, wave = superstructure(make_scene(amplitude=0.0, in_plane_nm=0.0, seed=seed).haadf, STEP_NM)
    assert layers.skipped is None
    assert says_nothing(wave)
    assert wave.skipped.startswith(("no superstructure: ", "no significant superstructure: "))


@pytest.mark.parametrize(("rows", "words"), [(8, "no layer contrast"), (10, "layers cannot be told apart")])
def test_a_single_layer_is_no_stack(rows, words):
    layers, wave = superstructure(make_scene(rows=rows, origin_nm=1.38).haadf, STEP_NM)
    assert says_nothing(layers)
    assert words in layers.skipped
    assert says_nothing(wave)
    assert wave.skipped.startswith("no layers were assigned")


@pytest.mark.parametrize(("columns", "share"), [(17, "0.32"), (26, "0.50"), (40, "0.78")])
def test_part_of_a_period_has_no_wavevector(columns, share):
    layers, wave = superstructure(make_scene(columns=columns).haadf, STEP_NM)
    assert layers.skipped is None
    assert says_nothing(wave)
    assert f"show {share} periods of the superstructure; at least 0.8 are needed" in wave.skipped


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.5, "no layer contrast"),
        (0.8, "repeat every 0.82 times the material's spacing: check the scan step"),
        (1.25, "repeat every 1.26 times the material's spacing: check the scan step"),
        (2.0, "no layer contrast"),
        (10.0, "no layer contrast"),
    ],
)
def test_a_pixel_size_far_off_is_refused(factor, words):
    layers, wave = superstructure(make_scene().haadf, STEP_NM * factor)
    assert says_nothing(layers)
    assert words in layers.skipped
    assert says_nothing(wave)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_pixel_size_a_little_off_is_said_and_taken_out_by_c(factor):
    layers, wave = superstructure(make_scene().haadf, STEP_NM * factor)
    assert any("the scan step is off (acquisition.scan_step_nm)" in message for message in layers.messages)
    assert not any("drift" in message for message in layers.messages)
    assert layers.summary["c_period_nm"]["value"] == pytest.approx(3.0861 * factor, rel=2e-3)
    assert wave.summary["period_by_c_nm"]["value"] == pytest.approx(2.578, rel=5e-3)


def test_rows_without_numbers_are_said_or_refused():
    layers, wave = superstructure(with_rows_gone(slice(10, 14)), STEP_NM)
    assert any("384 positions have no HAADF" in message for message in layers.messages)
    assert np.isnan(wave.maps["phase_rad"].values[10:14]).all()
    assert wave.summary["period_nm"]["value"] == pytest.approx(2.578, rel=5e-3)
    for gone in (slice(20, None), slice(3, None), slice(None)):
        layers, wave = superstructure(with_rows_gone(gone), STEP_NM)
        assert says_nothing(layers)
        assert "layers need at least half" in layers.skipped
        assert says_nothing(wave)
