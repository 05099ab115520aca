"""Drift within frames: each frame stretched and sheared by a known amount."""

import numpy as np
from scipy import ndimage

from phonon_eels.lattice.line_drift import measure_line_drift
from tests.unit.lattice.test_registration import crystal


def drifting(change, noise=0.05, n=64, seed=0):
    """Frames whose rows move by `change` (row, column) positions from the first to the last, mean 0."""
    still = crystal(n, 0.06, (0.0, 0.0))
    rows, columns = np.mgrid[0:n, 0:n].astype(float)
    place = (rows + 0.5) / n - 0.5
    rng = np.random.default_rng(seed)
    moved = [
        ndimage.map_coordinates(still, [rows - by[0] * place, columns - by[1] * place], order=3, mode="nearest")
        for by in change
    ]
    return np.stack(moved) + rng.normal(0.0, noise, (len(change), n, n))


def test_drift_within_frames_is_recovered_against_the_mean_of_the_others():
    change = np.array([[0.0, 1.2], [0.8, -0.6], [-0.8, 0.0], [0.0, -0.6], [0.0, 0.0], [0.0, 0.0]])
    found = measure_line_drift(drifting(change), np.zeros((6, 2)))
    n = len(change)
    wanted = change - (change.sum(axis=0) - change) / (n - 1)  # against the others
    assert np.abs(found.change - wanted).max() < 0.25
    assert (found.std > 0.0).all()
    at_rows = found.at_rows(64)
    assert at_rows.shape == (6, 64, 2)
    assert np.allclose(at_rows[:, -1] - at_rows[:, 0], found.change * 63 / 64)


def test_still_frames_have_none():
    found = measure_line_drift(drifting(np.zeros((5, 2)), noise=0.1), np.zeros((5, 2)))
    assert np.abs(found.change).max() < 0.5  # what is said from half a position on
    assert (np.abs(found.change) < 4.0 * found.std).all()


def test_small_scans_are_not_measured():
    found = measure_line_drift(np.zeros((4, 20, 20)), np.zeros((4, 2)))
    assert np.isnan(found.change).all()
    assert not found.at_rows(20).any()
