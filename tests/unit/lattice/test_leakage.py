"""Source planes of a position."""

import numpy as np
import pytest

from phonon_eels.lattice.leakage import plane_leakage


def test_weights_are_gaussians_of_localisation_and_probe_together():
    distance = np.array([[0.0, 0.2], [0.15, 0.05]])
    plane, weight = plane_leakage(distance, np.array([[4, 4], [5, 5]]), 0.2, 0.15)
    fwhm = np.hypot(0.2, 0.15)  # 0.25 nm: half at 0.125 nm
    np.testing.assert_array_equal(plane, [[4, 5], [5, 4]])
    assert weight[0, 0] == 1.0
    assert weight[1, 0] == pytest.approx(0.5 ** ((0.15 / (0.5 * fwhm)) ** 2))
    assert (np.diff(weight, axis=0) <= 0).all()


def test_gaps_hold_no_source_and_stand_last():
    plane, weight = plane_leakage(np.array([[0.0], [0.1], [30.0]]), np.array([[-1], [7], [8]]), 0.2, 0.1)
    np.testing.assert_array_equal(plane[:, 0], [7, 8, -1])
    assert weight[2, 0] == 0.0
