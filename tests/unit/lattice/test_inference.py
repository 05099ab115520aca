"""Claims from one complex amplitude per plane."""

import numpy as np
import pytest
from scipy import stats

from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase, holm, hotelling_f, rotation_p_value


def _mean(value=(3.0, 0.0), std=1.0, dof=5, p_value=float("nan")):
    return MeanAmplitude(np.array(value, float), std**2 * np.eye(2), dof, p_value)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1; then made monotone.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, np.nan, 0.01])), [0.5, np.nan, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert holm(np.array([])).size == 0


def test_hotelling_agrees_with_the_textbook():
    random = np.random.default_rng(0)
    units = random.normal(size=(8, 2)) @ np.array([[1.0, 0.4], [0.0, 2.0]]) + [0.5, -0.3]
    mean, scatter = units.mean(axis=0), np.cov(units.T)
    t2 = 8 * mean @ np.linalg.solve(scatter, mean)
    f = t2 * (8 - 2) / (2 * (8 - 1))
    antiphase, inphase = antiphase_and_inphase(units, np.ones(8))
    assert antiphase.p_value == pytest.approx(stats.f.sf(f, 2, 6), rel=1e-10)
    assert hotelling_f(mean, scatter / 8, 7) == pytest.approx(f, rel=1e-10)
    np.testing.assert_allclose(antiphase.covariance, scatter / 8, rtol=1e-10)
    assert np.isnan(inphase.value).all()
    assert np.isnan(inphase.p_value)


@pytest.mark.parametrize("sign", [[1, -1] * 4, [1, 1, 1, 1, 1, 1, -1, -1], [1, -1, -1, -1, -1, -1, -1, 1]])
def test_in_phase_part_does_not_leak_into_the_antiphase_one(sign):
    sign = np.array(sign, float)
    antiphase_truth, inphase_truth = np.array([0.7, -0.2]), np.array([5.0, 3.0])
    units = antiphase_truth + sign[:, None] * inphase_truth
    antiphase, inphase = antiphase_and_inphase(units, sign)
    np.testing.assert_allclose(antiphase.value, antiphase_truth, atol=1e-12)
    np.testing.assert_allclose(inphase.value, inphase_truth, atol=1e-12)
    # What a plain mean would have said:
    if abs(sign.sum()) > 2:
        assert np.hypot(*(units.mean(axis=0) - antiphase_truth)) > 1.0


def test_too_few_units_give_no_number():
    for n in (0, 1, 2, 3):
        mean, other = antiphase_and_inphase(np.ones((n, 2)), np.resize([1.0, -1.0], n))
        assert np.isnan(mean.value).all() or mean.dof >= 2
        assert np.isnan(other.p_value)
        if n < 3:
            assert np.isnan(mean.interval(0.95)).all()


def test_amplitude_and_phase():
    mean = MeanAmplitude(np.array([3.0, 4.0]), np.diag([0.09, 0.16]), 7, 0.01)
    assert mean.amplitude == 5.0
    assert mean.phase_rad == pytest.approx(np.arctan2(4.0, 3.0))
    along, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    assert mean.amplitude_std == pytest.approx(np.sqrt(along**2 @ [0.09, 0.16]))
    assert mean.phase_std_rad == pytest.approx(np.sqrt(across**2 @ [0.09, 0.16]) / 5.0)
    assert _mean((0.0, 0.0)).phase_std_rad <= np.pi / np.sqrt(3.0)


def test_far_from_zero_the_interval_is_students():
    low, high = _mean((100.0, 0.0), dof=5).interval(0.95)
    half = stats.t.ppf(0.975, 5)
    assert low == pytest.approx(100.0 - half, abs=0.08)
    assert high == pytest.approx(100.0 + half, abs=0.08)


def test_at_zero_the_interval_begins_at_zero():
    low, high = _mean((0.1, 0.0)).interval(0.95)
    assert low == 0.0
    assert 1.0 < high < 4.0
    assert _mean((8.0, 0.0)).interval(0.95)[0] > 3.0


def test_interval_is_never_empty():
    """A vector shorter than noise would give excludes no more than a typical one would."""
    low, high = _mean((1e-3, 0.0)).interval(0.95)
    assert low == 0.0
    assert high == pytest.approx(_mean((1.0, 0.0)).interval(0.95)[1], rel=1e-3)


def test_interval_does_not_turn_with_the_phase():
    first = _mean((3.0, 0.0)).interval(0.9)
    turned = _mean((3.0 * np.cos(2.0), 3.0 * np.sin(2.0))).interval(0.9)
    np.testing.assert_allclose(first, turned, rtol=1e-6, atol=1e-9)


def test_unknown_noise_gives_no_interval():
    for noise in (np.nan, 0.0):
        assert np.isnan(_mean(std=noise).interval(0.95)).all()


def test_rotation_p_value_is_seeded_and_small_for_equal_phases():
    units = np.tile([1.0, 0.2], (8, 1))
    assert rotation_p_value(units, 1) == rotation_p_value(units, 1)
    assert rotation_p_value(units, 1) < 1e-3
    assert rotation_p_value(np.array([[1.0, 0.0], [-1.0, 0.0]] * 4), 1) > 0.99


def test_singular_scatter_is_not_testable():
    assert np.isnan(hotelling_f(np.array([1.0, 0.0]), np.zeros((2, 2)), 5))
    assert np.isnan(hotelling_f(np.array([1.0, 0.0]), np.full((2, 2), np.nan), 5))
    assert np.isnan(hotelling_f(np.array([1.0, 0.0]), np.eye(2), 1))
