"""Geometry: planes at the material's heights, displaced and phased as the symmetry says."""

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings, load_material
from phonon_eels.errors import ConfigError
from phonon_eels.simulate import crystal_scene
from phonon_eels.simulate.crystal import lateral_phase, planes_between

MATERIAL = load_material("bi2212")
STEADY = {
    "drift_row_nm": 0.0,
    "drift_column_nm": 0.0,
    "wander_nm": 0.0,
    "line_jitter_nm": 0.0,
    "frame_jump_nm": 0.0,
}


def settings(scan=None, **sections):
    return SimulationSettings.model_validate(
        {"scan": {"rows": 60, "columns": 40, **STEADY, **(scan or {})}, **sections}
    )


def planes(name, **sections):
    """Indices of the planes of one layer over two slabs, and all planes."""
    stack = planes_between(settings(**sections), MATERIAL, 0.0, MATERIAL.crystal.c_nm)
    index = [layer.name for layer in MATERIAL.layers].index(name)
    return np.flatnonzero(stack.layer == index), stack


def test_heights_are_those_of_the_material_file():
    for layer in MATERIAL.layers:
        found, stack = planes(layer.name)
        mirrors = np.array([0.25, 0.75]) * MATERIAL.crystal.c_nm
        expected = np.unique(np.concatenate([mirrors - layer.height_nm, mirrors + layer.height_nm]))
        assert stack.height_nm[found] == pytest.approx(expected, abs=1e-12)


def test_a_slab_has_seven_planes_and_the_gap_is_wider_than_any_spacing():
    stack = planes_between(settings(), MATERIAL, 0.0, 0.5 * MATERIAL.crystal.c_nm)
    names = [MATERIAL.layers[i].name for i in stack.layer]
    assert names == ["BiO", "SrO", "CuO2", "Ca", "CuO2", "SrO", "BiO"]
    whole = planes_between(settings(), MATERIAL, 0.0, MATERIAL.crystal.c_nm)
    spacing = np.diff(whole.height_nm)
    assert np.argmax(spacing) == 6
    assert spacing[6] == pytest.approx(0.3222, abs=1e-4)


def test_the_two_planes_of_a_bilayer_are_in_antiphase():
    found, stack = planes("CuO2")
    shift = stack.outward_shift_rad[found]
    assert np.cos(shift[0] - shift[1]) == pytest.approx(-1.0)
    assert np.cos(shift[2] - shift[3]) == pytest.approx(-1.0)
    assert stack.amplitude_nm[found[0]] == stack.amplitude_nm[found[1]], "a slab undulates rigidly"
    assert stack.amplitude_nm[found[1]] == -stack.amplitude_nm[found[2]], "slabs are in antiphase"


def test_outward_crest_is_where_the_plane_stands_out_most():
    """Phase 0 is defined by the displacement along the outward normal, for every plane of every rule."""
    theta = np.linspace(0, 2 * np.pi, 721)
    for breathing in (False, True):
        stack = planes_between(settings(structure={"breathing": breathing}), MATERIAL, -2.0, 5.0)
        for p in np.flatnonzero(stack.side != 0):
            outward = stack.side[p] * stack.amplitude_nm[p] * np.cos(theta)
            crest = theta[np.argmax(outward)]
            assert np.cos(crest + stack.outward_shift_rad[p]) == pytest.approx(1.0, abs=1e-4)


def test_gap_breathes_and_slab_does_not():
    found, stack = planes("BiO")
    lower, upper = found[1], found[2]  # the two sides of the van der Waals gap
    assert stack.outward_shift_rad[lower] == stack.outward_shift_rad[upper], "facing BiO planes are in phase"
    assert stack.amplitude_nm[lower] == pytest.approx(0.035)
    assert stack.amplitude_nm[upper] == pytest.approx(-0.035)
    found, stack = planes("BiO", structure={"breathing": True})
    assert stack.amplitude_nm[found[1]] == stack.amplitude_nm[found[2]], "the other rule keeps the gap rigid"
    assert stack.amplitude_nm[found[0]] == -stack.amplitude_nm[found[1]]


def test_the_impostor_has_one_phase_for_all_planes():
    _, stack = planes("CuO2", modulation={"phase_rule": "in_phase"})
    assert not stack.modulation_shift_rad.any()
    assert stack.outward_shift_rad.any(), "the geometry keeps its own phase"


def test_without_antiphase_planes_slabs_keep_the_phase_of_the_wavevector():
    """The planes of a slab are alike then, but q = b* + c* still puts π between slabs c/2 apart (SCIENCE §3)."""
    wave = MATERIAL.superstructure.model_copy(update={"antiphase_planes": False})
    material = MATERIAL.model_copy(update={"superstructure": wave})
    stack = crystal_scene(settings(), material).planes
    copper = stack.layer == [layer.name for layer in material.layers].index("CuO2")
    for slab in np.unique(stack.slab[copper]):
        of_slab = stack.modulation_shift_rad[copper & (stack.slab == slab)]
        assert np.allclose(of_slab, np.pi if slab % 2 else 0.0)


def test_true_layer_is_the_nearest_displaced_plane():
    scene = crystal_scene(settings(), MATERIAL)
    truth = scene.truth
    b_nm, c_nm = truth["b_nm"].values, truth["c_nm"].values
    theta = lateral_phase(scene.settings, scene.period_nm, b_nm)
    places = scene.planes.height_nm[:, None, None] + scene.planes.amplitude_nm[:, None, None] * np.cos(theta)
    nearest = np.argmin(np.abs(c_nm - places), axis=0)
    assert np.array_equal(truth["layer"].values, scene.planes.layer[nearest])
    assert np.abs(truth["layer_distance_nm"].values).max() < 0.162 + 2 * 0.035
    assert truth["layer"].attrs["flag_meanings"] == "Ca CuO2 SrO BiO"


def test_warped_coordinate_is_flat_on_displaced_planes():
    scene = crystal_scene(settings(scan={"row_step_nm": 0.01, "rows": 300}), MATERIAL)
    truth = scene.truth
    on_plane = np.abs(truth["layer_distance_nm"].values) < 0.005
    heights = np.unique(scene.planes.height_nm)
    away = np.abs(truth["c_position_nm"].values[on_plane][:, None] - heights).min(axis=1)
    assert on_plane.sum() > 400
    assert away.max() < 0.0075
    rigid = np.abs(truth["c_nm"].values[on_plane][:, None] - heights).min(axis=1)
    assert rigid.max() > 0.02, "the rigid coordinate does move"


def test_half_slab_side_and_fraction_agree():
    truth = crystal_scene(settings(scan={"rows": 112}), MATERIAL).truth
    fraction = np.mod(truth["c_fraction"].values, 0.5)
    upper = truth["half_slab"].values % 2 == 1
    assert np.array_equal(upper, fraction >= 0.25)
    ca = truth["layer"].values == 0
    assert np.array_equal(truth["outward"].values == 0, ca)
    assert np.array_equal(truth["outward"].values[~ca] > 0, upper[~ca])
    assert set(np.unique(truth["half_slab"])) == set(range(8))


def test_phase_map_is_that_of_the_nearest_plane():
    """Every position belongs to one half-slab, and its phase is that of the planes of that half."""
    scene = crystal_scene(settings(scan={"rows": 112}), MATERIAL)
    truth, planes_ = scene.truth, scene.planes
    for p in np.flatnonzero(planes_.side != 0):
        here = (truth["half_slab"].values == planes_.half_slab[p]) & (truth["layer"].values == planes_.layer[p])
        outward = planes_.side[p] * planes_.amplitude_nm[p] * np.cos(truth["lateral_phase_rad"].values[here])
        assert outward == pytest.approx(abs(planes_.amplitude_nm[p]) * np.cos(truth["phase_rad"].values[here]))


def test_phase_follows_the_period():
    truth = crystal_scene(settings(scan={"rows": 3, "columns": 400, "column_step_nm": 0.02578}), MATERIAL).truth
    phase = truth["lateral_phase_rad"].values[0]
    assert np.cos(phase[100:] - phase[:-100]) == pytest.approx(1.0)
    assert phase[0] == pytest.approx(0.6)
    other = truth["phase_rad"].values[0] - phase
    assert np.abs(np.cos(other)) == pytest.approx(1.0)


def test_rotation_turns_the_layers():
    turned = crystal_scene(settings(scan={"rotation_rad": 0.2}), MATERIAL).truth
    gradient = np.gradient(turned["c_nm"].values, 0.055, 0.09)
    assert gradient[0].mean() == pytest.approx(np.cos(0.2))
    assert gradient[1].mean() == pytest.approx(-np.sin(0.2))


def test_material_without_crystal_is_refused():
    bare = MATERIAL.model_copy(update={"crystal": None})
    with pytest.raises(ConfigError, match=r"material bi2212: a simulation needs `crystal` and `layers`"):
        crystal_scene(settings(), bare)
