"""Variance from the counts themselves."""

import numpy as np
import pytest

from phonon_eels.kernels.noise import expected_variance_one


def variance_of(
    counts: np.ndarray, half: int = 16, gain: float = 1.0, dark: float = 0.0, read: float = 0.0
) -> np.ndarray:
    out = np.empty(counts.size)
    expected_variance_one(counts.astype(float), gain, dark, read, half, out)
    return out


@pytest.mark.parametrize("mean", [0.5, 4.0, 20.0, 1000.0])
def test_weights_made_of_it_do_not_pull_a_mean_down(mean: float) -> None:
    counts = np.random.default_rng(2).poisson(mean, 20000)
    weight = 1.0 / variance_of(counts)
    # Weights of single channels give 18.95 for 20 and 3.09 for 4.
    assert (weight * counts).sum() / weight.sum() == pytest.approx(mean, rel=max(0.005, 0.08 / mean))


def test_gain_dark_level_and_read_noise() -> None:
    electrons = np.random.default_rng(3).poisson(200.0, 500)
    plain = variance_of(electrons)
    assert variance_of(5.0 * electrons + 80.0, gain=5.0, dark=80.0) == pytest.approx(25.0 * plain)
    assert variance_of(electrons, read=4.0) == pytest.approx(plain + 16.0)


def test_steep_peak_is_followed_where_counts_are_high() -> None:
    peak = 1e6 * np.exp(-0.5 * ((np.arange(200) - 100) / 6.8) ** 2)
    assert variance_of(peak)[100] == pytest.approx(1e6, rel=0.03)


def test_empty_and_missing_channels() -> None:
    assert (variance_of(np.zeros(50), half=4) > 0.0).all()
    assert (variance_of(np.full(50, -3.0), half=4) > 0.0).all()
    counts = np.full(50, 100.0)
    counts[20] = np.nan
    assert variance_of(counts) == pytest.approx(100.0)
    assert np.isnan(variance_of(np.full(50, np.nan))).all()
