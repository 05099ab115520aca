"""The dark-field image: columns where the atoms are, as bright as their atomic number says."""

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings, load_material
from phonon_eels.simulate import crystal_scene, haadf
from phonon_eels.simulate.haadf import haadf_signal

MATERIAL = load_material("bi2212")


def scene(rows=310, columns=60, **sections):
    """A finely sampled steady scan with a sharp probe and straight columns, unless the sections say otherwise."""
    tree = {
        "scan": {"rows": rows, "columns": columns, "row_step_nm": 0.01, "column_step_nm": 0.01, "c_origin_nm": 0.0}
        | {"drift_row_nm": 0.0, "drift_column_nm": 0.0, "wander_nm": 0.0, "line_jitter_nm": 0.0},
        "acquisition": {"probe_fwhm_nm": 0.06},
        "structure": {"corrugation": 0.0},
        "thickness": {"wedge_rows": 0.0, "wedge_columns": 0.0},
        "haadf": {"background": 0.0},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return crystal_scene(SimulationSettings.model_validate(tree), MATERIAL)


def test_columns_are_as_bright_as_their_atoms():
    image = haadf_signal(scene())
    rows = np.arange(310) * 0.01
    top = {}
    for layer in MATERIAL.layers:
        near = np.argmin(np.abs(rows - (0.25 * MATERIAL.crystal.c_nm + layer.height_nm)))
        top[layer.name] = image[near - 2 : near + 3].max()
    for layer in MATERIAL.layers:
        expected = (layer.atomic_number / 83) ** 1.7
        assert top[layer.name] / top["BiO"] == pytest.approx(expected, rel=0.06), layer.name


def test_columns_repeat_every_half_b():
    line = haadf_signal(scene(columns=272))[round(0.1611 / 0.01)]
    period = 0.5 * MATERIAL.crystal.b_nm
    brightest = np.flatnonzero((line[1:-1] > line[:-2]) & (line[1:-1] > line[2:])) + 1
    assert np.diff(brightest).mean() * 0.01 == pytest.approx(period, rel=0.01)


def test_bunching_moves_columns_together():
    straight = haadf_signal(scene(columns=272, structure={"corrugation": 1.0, "bunching_nm": {}}))
    bunched = haadf_signal(scene(columns=272, structure={"corrugation": 1.0}))
    assert np.abs(bunched - straight).max() > 0.5


def test_gap_between_the_slabs_breathes_by_twice_the_displacement():
    image = haadf_signal(
        scene(rows=150, columns=270, scan={"c_origin_nm": 0.8, "column_step_nm": 0.02}, structure={"corrugation": 1.0})
    )
    rows = 0.8 + 0.01 * np.arange(150)
    middle = 0.5 * MATERIAL.crystal.c_nm
    below, above = np.abs(rows - middle + 0.161) < 0.09, np.abs(rows - middle - 0.161) < 0.09
    weight = lambda part: (rows[part][:, None] * image[part]).sum(axis=0) / image[part].sum(axis=0)  # noqa: E731
    gap = weight(above) - weight(below)
    assert gap.max() - gap.min() == pytest.approx(4 * 0.035, rel=0.15)
    assert gap.mean() == pytest.approx(0.322, abs=0.01)


def test_wedge_and_background():
    flat = haadf_signal(scene())
    ratio = haadf_signal(scene(thickness={"wedge_columns": 0.4}, haadf={"background": 1.0}))
    assert ratio[0, 0] == pytest.approx(0.8)
    assert ratio[0, -1] == pytest.approx(1.2)
    assert haadf_signal(scene(haadf={"background": 0.3})).min() >= 0.3
    assert flat.min() < 0.01


def test_noise_is_that_of_counted_electrons_and_can_be_switched_off():
    made = scene(haadf={"electrons": 300.0, "background": 1.0})
    image = haadf(made, np.random.default_rng(5))
    assert image.dtype == np.float32
    assert image.mean() == pytest.approx(300, rel=0.005)
    assert image.var() == pytest.approx(300, rel=0.03)
    quiet = haadf(scene(haadf={"electrons": 300.0, "background": 1.0, "noise": False}), np.random.default_rng(5))
    assert quiet == pytest.approx(300)
