"""Direction, offset and contrast of the stack in an image."""

import numpy as np
import pytest

from phonon_eels.config import load_material
from phonon_eels.lattice.drift import fit_slow_field
from phonon_eels.lattice.rows import match_rows, view_along
from phonon_eels.lattice.stack import stack_of
from tests.unit.lattice.scene import make_scene

STACK = stack_of(load_material("bi2212"))


def _match(scene, **settings):
    rows, columns = (np.arange(n) * scene.step_nm for n in scene.haadf.shape)
    return rows, columns, match_rows(scene.haadf, rows, columns, STACK, **settings)


@pytest.mark.parametrize("tilt", [-18.0, 0.0, 11.0])
@pytest.mark.parametrize("transpose", [False, True])
def test_direction_is_found_tilted_either_way(tilt, transpose):
    scene = make_scene(70, 70, tilt_deg=tilt, transpose=transpose, noise=0.1)
    rows, columns, match = _match(scene)
    found = np.rad2deg(fit_slow_field(scene.haadf, rows, columns, STACK, match).match.angle_rad)
    expected = 90.0 - tilt if transpose else tilt
    assert found == pytest.approx(expected, abs=0.7)


def test_dark_layers_are_told_from_bright_ones():
    assert _match(make_scene(contrast=1.0))[2].contrast == 1.0
    assert _match(make_scene(contrast=-1.0))[2].contrast == -1.0


def test_settings_restrict_direction_and_contrast():
    scene = make_scene()
    assert abs(np.cos(_match(scene, c_direction="columns")[2].angle_rad)) < 0.5
    assert _match(scene, contrast="dark")[2].contrast == -1.0
    assert _match(scene)[2].explained > 2.0 * _match(scene, c_direction="columns")[2].explained


@pytest.mark.parametrize("scale", [0.96, 1.04])
def test_scale_error_of_the_scan_is_measured(scale):
    scene = make_scene(128, 80, scale=scale)
    rows, columns, match = _match(scene)
    slow = fit_slow_field(scene.haadf, rows, columns, STACK, match)
    assert slow.match.scale == pytest.approx(scale, abs=0.004)


def test_nothing_in_view_gives_nothing():
    assert match_rows(np.ones((40, 40)), np.arange(40) * 0.05, np.arange(40) * 0.05, STACK) is None
    assert (
        match_rows(np.random.default_rng(0).normal(size=(8, 8)), np.arange(8) * 0.05, np.arange(8) * 0.05, STACK)
        is None
    )


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.4, 1.7])
def test_view_keeps_lengths_and_b_points_to_larger_index(angle):
    rows, columns = np.arange(7) * 0.1, np.arange(5) * 0.2
    view = view_along(rows, columns, angle)
    length2 = (rows - rows.mean())[:, None] ** 2 + (columns - columns.mean())[None, :] ** 2
    np.testing.assert_allclose(view.s**2 + view.t**2, length2, atol=1e-12)
    along_b = view.t[:, -1] - view.t[:, 0] if abs(np.cos(angle)) > 0.7 else view.t[-1] - view.t[0]
    assert (along_b > 0).all()
