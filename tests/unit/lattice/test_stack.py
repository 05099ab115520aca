"""The stack of planes as numbers."""

import numpy as np
import pytest

from phonon_eels.config import Material, load_material
from phonon_eels.lattice.stack import GAP, periodic_profile, planes_between, stack_of


@pytest.fixture(scope="module")
def stack():
    return stack_of(load_material("bi2212"))


def test_planes_of_one_cell_are_those_of_the_crystal(stack):
    planes = planes_between(stack, -0.01, stack.c_nm - 0.01)
    names = [stack.layer_name(kind) for kind in planes.kind]
    half = ["gap", "BiO", "SrO", "CuO2", "Ca", "CuO2", "SrO", "BiO"]
    assert names == half + half
    # fractions of c of BiO, SrO, CuO2, Ca in half a cell
    fractions = planes.position_nm / stack.c_nm
    np.testing.assert_allclose(fractions[1:5], [0.0522, 0.1409, 0.1967, 0.25], atol=2e-4)
    np.testing.assert_array_equal(planes.side[1:8], [-1, -1, -1, 0, 1, 1, 1])
    np.testing.assert_array_equal(planes.slab[1:8], 0)
    np.testing.assert_array_equal(planes.slab[9:], 1)
    assert GAP not in stack.names


def test_anchor_is_the_heaviest_layer_and_carries_the_wave(stack):
    assert stack.names[stack.anchor] == "BiO"
    assert stack.wave_ratio[stack.anchor] == 1.0
    assert stack.wave_ratio[stack.names.index("CuO2")] == pytest.approx(0.027 / 0.035)


def test_profile_repeats_and_is_symmetric_about_slab_and_gap(stack):
    profile = periodic_profile(stack, 0.06)
    np.testing.assert_allclose(profile[1:], profile[1:][::-1], rtol=1e-9)
    assert profile.argmax() / len(profile) * stack.repeat_nm == pytest.approx(0.161, abs=0.005)


def test_material_without_layers_has_no_stack():
    bare = Material(name="x", modes=[{"name": "A", "energy_mev": 40.0, "bounds_mev": (30.0, 50.0), "fwhm_mev": 4.0}])
    assert stack_of(bare) is None
