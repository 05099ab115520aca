"""The outlier kernels on single spectra."""

import math

import numpy as np
import pytest
from scipy import stats

from phonon_eels.kernels.expectations import (
    deviance_sigma,
    excess_scatter,
    expect_from_channels,
    expect_from_positions,
)
from phonon_eels.kernels.outliers import DEAD, GOOD, HOT, SATURATED, SPIKE, clean_spectrum, find_outliers


@pytest.mark.parametrize(("mean", "count"), [(0.5, 6), (2.0, 12), (10.0, 28), (100.0, 155), (1e4, 10_480)])
def test_deviance_sigma_ranks_like_the_poisson_tail(mean, count):
    """The level must mean the same probability at low and high counts."""
    sigma = deviance_sigma(float(count), mean, 0.0)
    tail = stats.norm.isf(stats.poisson.sf(count - 1, mean))
    assert sigma == pytest.approx(tail, abs=0.45)


def test_deviance_sigma_is_gaussian_with_read_noise_and_signed():
    assert deviance_sigma(30.0, 0.0, 400.0) == pytest.approx(30.0 / 20.0, rel=0.03)
    assert deviance_sigma(-30.0, 0.0, 400.0) == pytest.approx(-30.0 / 20.0, rel=0.03)
    assert deviance_sigma(7.0, 7.0, 1.0) == 0.0
    assert math.isfinite(deviance_sigma(-50.0, 0.0, 4.0))


@pytest.mark.parametrize("freedom", [4, 13, 40])
def test_excess_scatter_begins_at_the_99_percent_quantile(freedom):
    quantile = stats.chi2.ppf(0.99, freedom) / freedom
    assert excess_scatter(0.98 * quantile, float(freedom)) == pytest.approx(1.0, abs=0.02)
    assert excess_scatter(3.0 * quantile, float(freedom)) == pytest.approx(3.0, rel=0.02)


def test_expectation_follows_slope_and_curvature():
    x = np.arange(60.0)
    spectrum = 1e6 + 3e4 * (x - 30) - 2e3 * (x - 30) ** 2
    expected, share, excess = expect_from_channels(spectrum, 30, 8, 0.0)
    assert expected == pytest.approx(1e6, rel=1e-6)
    assert 0.1 < share < 0.3
    assert excess == 1.0


def test_expectation_does_not_see_the_channel_and_its_neighbours():
    spectrum = np.full(60, 100.0)
    spectrum[29:32] = 1e9
    assert expect_from_channels(spectrum, 30, 8, 0.0)[0] == 100.0
    assert expect_from_positions(spectrum, np.full(60, 100.0), 6, 30, 8, 0.0)[0] == pytest.approx(100.0)


def test_neighbours_are_scaled_on_both_sides():
    """A peak shifted by a third of a channel multiplies the shape by a slope, which must not look like a spike."""
    x = np.arange(200.0)
    peak = 1e6 / (1.0 + ((x - 100.33) / 10.0) ** 2) ** 2
    shifted = 0.7e6 / (1.0 + ((x - 100.0) / 10.0) ** 2) ** 2
    expected, share, excess = expect_from_positions(peak, shifted, 6, 85, 8, 0.0)
    assert abs(expected - peak[85]) / np.sqrt(peak[85] * (1 + share) * excess) < 3.0


def test_clean_spectrum_takes_out_wide_spikes_and_leaves_slopes():
    spectrum = np.linspace(100.0, 10_000.0, 80)
    spoiled = spectrum.copy()
    spoiled[40:43] += 1e5
    cleaned, scratch = np.empty(80), np.empty(8)
    usable = np.ones(80, np.uint8)
    clean_spectrum(spoiled, usable, 0.0, 4.0, scratch, cleaned)
    assert np.abs(cleaned[40:43] / spectrum[40:43] - 1).max() < 0.1
    others = np.r_[3:37, 46:77]  # a running median flattens the ends
    np.testing.assert_array_equal(cleaned[others], spectrum[others])
    spoiled = spectrum.copy()
    spoiled[10] += 60.0  # below the level
    usable[10] = 0
    clean_spectrum(spoiled, usable, 0.0, 4.0, scratch, cleaned)
    assert cleaned[10] == pytest.approx(spectrum[10])


def judge(spectrum, neighbours, *, state=None, level=4.8, spared=0.0):
    n = spectrum.size
    cleaned, scratch = np.empty(n), np.empty(8)
    state = np.zeros(n, np.uint8) if state is None else state
    clean_spectrum(spectrum, (state != HOT).astype(np.uint8), 0.0, 4.0, scratch, cleaned)
    flags, expected = np.full(n, 99, np.uint8), np.zeros(n)
    find_outliers(spectrum, cleaned, neighbours, 6, state, 0.0, 1.0, level, 8, spared, flags, expected)
    return flags, expected


def test_spikes_close_to_each_other_do_not_hide_or_invent():
    neighbours = np.full(120, 400.0)
    spectrum = neighbours.copy()
    spectrum[60] += 1e6
    spectrum[64] += 300.0
    spectrum[66] -= 250.0
    flags, expected = judge(spectrum, neighbours)
    assert np.flatnonzero(flags).tolist() == [60, 64, 66]
    assert flags[[60, 64, 66]].tolist() == [SPIKE, SPIKE, DEAD]
    np.testing.assert_allclose(expected[[60, 64, 66]], 400.0, rtol=0.02)


def test_both_tests_must_agree():
    """A narrow line that all positions have is no spike; a step that only this spectrum has, but smooth, neither."""
    neighbours = np.full(120, 400.0)
    line = neighbours.copy()
    line[60] = 1200.0
    assert not judge(line, line)[0].any()
    bump = 400.0 + 400.0 * np.exp(-0.5 * ((np.arange(120) - 60) / 8.0) ** 2)
    assert not judge(bump, neighbours)[0].any()


def test_zero_loss_peak_is_spared_unless_something_towers_above_it():
    x = np.arange(200.0)
    own = 1e5 / (1.0 + ((x - 100.0) / 2.0) ** 2) ** 2
    neighbours = 1e5 / (1.0 + ((x - 101.0) / 2.0) ** 2) ** 2
    assert not judge(own, neighbours, spared=8.0)[0].any()
    own[103] += 1e6
    flags, _ = judge(own, neighbours, spared=8.0)
    assert np.flatnonzero(flags).tolist() == [103]


def test_states_are_kept():
    spectrum = np.full(60, 400.0)
    state = np.zeros(60, np.uint8)
    state[10], state[20], state[30] = HOT, SATURATED, 5
    spectrum[[10, 20, 30]] = 9000.0
    flags, expected = judge(spectrum, np.full(60, 400.0), state=state)
    assert (flags[10], flags[20], flags[30]) == (HOT, SATURATED, GOOD)
    assert expected[10] == pytest.approx(400.0, rel=0.01)


def test_nan_is_no_spike():
    spectrum = np.full(60, 400.0)
    spectrum[30] = np.nan
    assert not judge(spectrum, np.full(60, 400.0))[0].any()
