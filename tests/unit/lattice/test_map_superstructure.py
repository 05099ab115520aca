"""The step `map_superstructure` on images with a known wave, and what it says without one."""

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.steps.map_superstructure import map_superstructure
from tests.unit.lattice.scan_steps import BI2212, assign, phase_difference, superstructure
from tests.unit.lattice.scene import make_scene

CASES = {
    "as measured": {"columns": 128},
    "four times the noise": {"noise": 0.2, "rows": 96, "columns": 160},
    "dark layers": {"contrast": -1.0, "columns": 128},
    "c along columns": {"transpose": True, "rows": 128, "columns": 64},
    "tilted": {"tilt_deg": 9.0, "columns": 140},
    "drifting": {"drift_nm": 0.08, "rows": 100, "columns": 128},
    "other period": {"period_nm": 2.54, "columns": 160},
}


@pytest.mark.parametrize("case", CASES)
def test_period_and_phase_are_right(case):
    scene = make_scene(**CASES[case])
    layers, result = superstructure(scene.haadf, scene.step_nm)
    assert result.skipped is None, result.skipped
    period = result.summary["period_nm"]
    assert abs(period["value"] - scene.period_nm) < 0.005 * scene.period_nm
    off = phase_difference(result.maps["lateral_phase_rad"], scene.lateral_phase)
    off = phase_difference(off, np.pi * np.rint(np.median(np.abs(off)) / np.pi))  # parity of slab 0 is free
    assert np.sqrt(np.mean(off**2)) < 0.1
    # Outward phases do not depend on that parity. At Ca the normal itself turns over.
    away = (scene.label != "Ca") & (layers.maps["outward"].values != 0)
    outward = phase_difference(result.maps["phase_rad"], scene.outward_phase)[away]
    assert np.sqrt(np.mean(outward**2)) < 0.1
    amplitude = result.summary["displacement_nm"]
    assert amplitude["value"] == pytest.approx(0.035, rel=0.06)
    assert result.summary["phase_rule"]["verdict"] == "gap breathes"
    assert result.summary["p_value"] < 1e-6
    assert (result.maps["status"].values == 0).all()


def test_crest_is_where_the_plane_is_displaced_outward():
    scene = make_scene(noise=0.02, columns=128)
    layers, result = superstructure(scene.haadf, scene.step_nm)
    planes, table = result.tables["planes"], layers.tables["displacements"]
    maps = result.maps
    row_of = layers.maps["c_scan_nm"].values[:, 0]
    for number, part in table.groupby("plane"):
        plane = planes.iloc[number]
        nearest_row = int(np.argmin(np.abs(row_of - plane["c_scan_nm"])))
        lateral = np.interp(
            part["b_nm"], layers.maps["b_scan_nm"].values[0], np.unwrap(maps["lateral_phase_rad"].values[nearest_row])
        )
        outward = plane["outward"] * (part["displacement_nm"] - part["displacement_nm"].mean())
        weight = part["displacement_std_nm"] ** -2.0
        along = np.sum(weight * outward * np.cos(lateral + plane["phase_offset_rad"])) / np.sum(weight)
        across = np.sum(weight * outward * np.sin(lateral + plane["phase_offset_rad"])) / np.sum(weight)
        assert along > 0.012  # half the amplitude: the mean of cos²
        assert abs(across) < 0.3 * along


def test_map_and_planes_keep_the_same_phase():
    scene = make_scene(columns=110)
    layers, result = superstructure(scene.haadf, scene.step_nm)
    source = layers.maps["source_plane"].values[0]
    offset = result.tables["planes"]["phase_offset_rad"].to_numpy()[source]
    plane_side = result.tables["planes"]["side"].to_numpy()[source]
    own = (plane_side == layers.maps["outward"].values) & (plane_side != 0)
    off = phase_difference(result.maps["phase_rad"], result.maps["lateral_phase_rad"].values + offset)
    assert np.abs(off[own]).max() < 1e-9
    assert own.mean() > 0.7


def test_without_outward_normals_both_sides_of_a_slab_share_a_phase():
    scene = make_scene(columns=110)
    _layers, result = superstructure(scene.haadf, scene.step_nm, antiphase_planes=False)
    offsets = result.tables["planes"].groupby("slab")["phase_offset_rad"].nunique()
    assert (offsets == 1).all()
    _layers, result = superstructure(scene.haadf, scene.step_nm)
    inner = result.tables["planes"].query("side != 0").groupby("slab")["phase_offset_rad"].nunique()
    assert inner.max() == 2


def test_wavevector_lies_along_b_with_one_c_star():
    for transpose, direction in ((False, 0.0), (True, np.pi / 2)):
        scene = make_scene(100, 100, transpose=transpose)
        summary = superstructure(scene.haadf, scene.step_nm)[1].summary
        found = summary["direction_rad"]
        assert abs(phase_difference(found["value"], direction)) < 4 * found["std"] + 0.003
        assert abs(summary["c_component"]["value"] - 1.0) < 4 * summary["c_component"]["std"] + 0.003


def test_breathing_slabs_are_noticed():
    scene = make_scene(mode="breathing", columns=128)
    summary = superstructure(scene.haadf, scene.step_nm)[1].summary
    assert summary["pattern"] == "breathing"
    assert summary["phase_rule"]["verdict"] == "slab breathes"


def test_fixed_period_is_kept():
    scene = make_scene(columns=110)
    period = superstructure(scene.haadf, scene.step_nm, period_nm=2.6)[1].summary["period_nm"]
    assert period == {"value": 2.6, "std": pytest.approx(0.0, abs=1e-6), "unit": "nm", "status": "fixed"}


def test_one_slab_alone_gives_a_phase_and_says_so():
    scene = make_scene(rows=18, columns=110)
    _layers, result = superstructure(scene.haadf, scene.step_nm)
    assert result.summary["c_component"]["status"] == "assumed"
    assert result.summary["period_nm"]["value"] == pytest.approx(2.578, rel=0.01)


def test_no_wave_gives_a_sentence_and_no_number():
    _layers, result = superstructure(make_scene(amplitude=0.0).haadf, 0.05)
    assert "superstructure" in result.skipped
    assert result.maps is None
    _layers, result = superstructure(make_scene(columns=36).haadf, 0.05)
    assert "periods of the superstructure" in result.skipped


def test_absent_layers_or_material_are_said():
    scene = make_scene(40, 60)
    image, context, _result = assign(scene.haadf, scene.step_nm)
    settings = Settings().map_superstructure
    from dataclasses import replace

    bare = replace(context, maps={}, tables={})
    assert "no layers were assigned" in map_superstructure(image, settings, bare).skipped
    flat = replace(context, material=BI2212.model_copy(update={"superstructure": None}))
    assert "has no superstructure" in map_superstructure(image, settings, flat).skipped
    off = settings.model_copy(update={"enabled": False})
    assert "switched off" in map_superstructure(image, off, context).skipped
