"""Drift of made-up crystal frames with known shifts."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.lattice.frame_match import correlation_map
from phonon_eels.lattice.registration import common_area, estimate_drift, lattice_periods, mean_autocorrelation

B, C, WAVE = 0.5415, 3.0861, 2.578  # nm
PLANES = {0.0: 20, 0.1645: 29, 0.3367: 38, 0.6104: 83}


def crystal(n, step_nm, shift, *, wave_nm=0.035, edge=False):
    """[100] projection of a layered crystal; what is at r in a frame without shift is at r + shift (positions)."""
    rows = (np.arange(n) - shift[0]) * step_nm
    columns = (np.arange(n) - shift[1]) * step_nm
    image = np.zeros((n, n))
    size = n * step_nm
    for slab in range(-3, int(size / (C / 2)) + 4):
        for height, charge in PLANES.items():
            for side in (1, -1) if height else (1,):
                for k in range(-8, int(2 * size / B) + 8):
                    x = k * B / 2 + (B / 4 if slab % 2 else 0.0)
                    y = slab * C / 2 + side * height + wave_nm * np.cos(2 * np.pi * x / WAVE + np.pi * slab)
                    if -0.5 * size < y < 1.5 * size:
                        column = np.exp(-0.5 * ((columns - x) / 0.055) ** 2)
                        image += charge**1.7 * np.outer(np.exp(-0.5 * ((rows - y) / 0.055) ** 2), column)
    if edge:
        image[rows > 0.7 * size] *= 0.1
    return image / 1800.0


def walk(n, periods, rng):
    """Random walk whose largest distance from its start is some column distances b/2, in nm."""
    steps = rng.normal(size=(n, 2)).cumsum(axis=0)
    steps -= steps[0]
    return steps * periods * (B / 2) / np.abs(steps).max()


def noisy(shifts, n, step, rng, noise=0.1, **crystal_settings):
    return np.stack([rng.normal(crystal(n, step, s, **crystal_settings), noise) for s in shifts])


@pytest.mark.parametrize(("step_nm", "n"), [(0.03, 56), (0.07, 56), (0.1, 56)])
def test_drift_is_recovered_within_a_fifth_of_a_position(step_nm, n):
    rng = np.random.default_rng(int(1000 * step_nm))
    shifts = walk(8, 2.0 if step_nm > 0.03 else 1.0, rng) / step_nm
    drift = estimate_drift(noisy(shifts, n, step_nm, rng), step_nm=step_nm)
    error = drift.shifts - shifts
    assert np.abs(error - error.mean(axis=0)).max() < 0.2
    assert (drift.correlation > 0.7).all()
    assert (drift.std > 0.0).all()
    assert (drift.std < 0.2).all()


def test_periods_of_the_lattice_are_seen():
    rng = np.random.default_rng(1)
    frames = noisy(walk(3, 1.0, rng) / 0.05, 72, 0.05, rng)
    periods = lattice_periods(mean_autocorrelation(CpuBackend(1), frames - frames.mean(axis=(1, 2), keepdims=True)))
    assert abs(periods[0, 1]) * 0.05 == pytest.approx(B / 2, abs=0.02)
    assert abs(periods[0, 0]) < 0.5
    assert abs(periods[1, 0]) * 0.05 == pytest.approx(C / 2, abs=0.1)


def test_noise_has_no_periods():
    frames = np.random.default_rng(2).normal(size=(4, 40, 40))
    assert len(lattice_periods(mean_autocorrelation(CpuBackend(1), frames))) == 0


def test_a_perfect_crystal_is_followed_by_the_smallest_step():
    """Without superstructure a shift by a period cannot be seen; small steps must not become jumps."""
    rng = np.random.default_rng(3)
    shifts = np.column_stack([np.zeros(10), np.linspace(0.0, 1.5 * B / 2, 10)]) / 0.07
    frames = noisy(shifts, 50, 0.07, rng, wave_nm=0.0)
    drift = estimate_drift(frames, step_nm=0.07)
    np.testing.assert_allclose(drift.shifts, shifts, atol=0.2)


def test_a_sudden_large_step_is_believed_when_an_edge_proves_it():
    rng = np.random.default_rng(4)
    shifts = np.zeros((6, 2))
    shifts[3:] = [6.0, 4.0]
    drift = estimate_drift(noisy(shifts, 56, 0.07, rng, edge=True), step_nm=0.07)
    np.testing.assert_allclose(drift.shifts, shifts, atol=0.2)


def test_a_lost_frame_has_low_correlation_and_harms_no_other():
    rng = np.random.default_rng(5)
    shifts = walk(7, 0.7, rng) / 0.07
    frames = noisy(shifts, 50, 0.07, rng)
    frames[3] = rng.normal(size=frames[3].shape)
    drift = estimate_drift(frames, step_nm=0.07)
    assert drift.correlation[3] < 0.5 * np.median(drift.correlation)
    others = np.arange(7) != 3
    error = (drift.shifts - shifts)[others]
    assert np.abs(error - error.mean(axis=0)).max() < 0.2


def test_correlation_map_agrees_with_numpy_on_the_overlap():
    rng = np.random.default_rng(6)
    reference, frame = rng.normal(size=(2, 12, 14))
    coefficient, overlap = correlation_map(CpuBackend(1), reference, np.ones((12, 14), bool), frame)
    for i, j in ((0, 0), (3, -2), (-4, 5)):
        a = reference[max(-i, 0) : 12 - max(i, 0), max(-j, 0) : 14 - max(j, 0)]
        b = frame[max(i, 0) : 12 + min(i, 0), max(j, 0) : 14 + min(j, 0)]
        assert coefficient[i, j] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        assert overlap[i, j] == a.size


def test_common_area_is_what_all_frames_cover():
    assert common_area(np.array([[0, 0], [2, -3], [-1, 1]]), 10, 20) == (1, 8, 3, 19)


@pytest.mark.slow
@pytest.mark.parametrize(("step_nm", "n"), [(0.03, 64), (0.05, 64), (0.07, 64), (0.1, 64)])
def test_no_period_jump_in_many_random_walks(step_nm, n):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        shifts = walk(20, 2.0, rng) / step_nm
        error = estimate_drift(noisy(shifts, n, step_nm, rng), step_nm=step_nm).shifts - shifts
        assert np.abs(error - error.mean(axis=0)).max() < 0.2, f"seed {seed}"
