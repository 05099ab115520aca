"""Tests and intervals of the modulation over thousands of draws of per-plane amplitudes."""

import numpy as np
import pytest
from scipy.stats import binom

from phonon_eels.lattice.inference import antiphase_and_inphase, rotation_p_value

pytestmark = pytest.mark.statistics
NULLS = 2000
DRAWS = 4000


def _signs(n, balanced):
    return np.resize([1.0, -1.0], n) if balanced else np.where(np.arange(n) < n - 2, 1.0, -1.0)


def _units(random, n, sign, noise):
    """Amplitudes of planes: alike, of very different and elongated noise, or noisiest in one orientation."""
    if noise == "alike":
        return random.normal(size=(n, 2))
    ladder = np.linspace(0.6, 1.6, n)
    if noise == "placed at random":
        size = random.permutation(ladder)
    else:
        size = np.empty(n)
        size[np.argsort(-sign if noise == "noisiest the fewer" else sign, kind="stable")] = ladder
    return random.normal(size=(n, 2)) * size[:, None] @ np.array([[1.0, 0.6], [0.0, 0.8]])


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("noise", ["alike", "placed at random", "noisiest the fewer", "noisiest the more"])
@pytest.mark.parametrize("n", [6, 8, 12])
def test_false_positives_at_five_per_cent(n, noise, balanced):
    random = np.random.default_rng(n)
    sign = _signs(n, balanced)
    hits = sum(antiphase_and_inphase(_units(random, n, sign, noise), sign)[0].p_value < 0.05 for _ in range(NULLS))
    # Conservative is allowed; more than the upper 99 % binomial limit is not.
    assert hits <= binom.ppf(0.99, NULLS, 0.05), hits / NULLS
    assert hits >= 0.005 * NULLS, hits / NULLS


@pytest.mark.parametrize("noise", ["alike", "placed at random"])
@pytest.mark.parametrize("n", [6, 12])
def test_the_null_channel_is_as_often_wrong_as_it_says(n, noise):
    random = np.random.default_rng(n)
    sign = _signs(n, True)
    hits = sum(antiphase_and_inphase(_units(random, n, sign, noise), sign)[1].p_value < 0.05 for _ in range(NULLS))
    assert hits <= binom.ppf(0.995, NULLS, 0.065), hits / NULLS


def test_p_values_are_uniform():
    random = np.random.default_rng(1)
    p = np.array([antiphase_and_inphase(random.normal(size=(8, 2)), _signs(8, True))[0].p_value for _ in range(DRAWS)])
    counts = np.histogram(p, bins=10, range=(0, 1))[0]
    assert ((counts - DRAWS / 10) ** 2 / (DRAWS / 10)).sum() < 21.7  # 99 % of chi-squared, 9 degrees of freedom


def test_in_phase_drift_makes_no_antiphase_claims():
    """An energy drift of 5 standard deviations common to all planes, more of one orientation than of the other."""
    random = np.random.default_rng(2)
    sign = _signs(8, False)
    hits = {"antiphase": 0, "plain mean": 0}
    for _ in range(1000):
        units = random.normal(size=(8, 2)) + sign[:, None] * np.array([5.0, 0.0])
        hits["antiphase"] += antiphase_and_inphase(units, sign)[0].p_value < 0.05
        hits["plain mean"] += antiphase_and_inphase(units, np.ones(8))[0].p_value < 0.05
    assert hits["antiphase"] <= binom.ppf(0.99, 1000, 0.05)


def test_rotation_p_value_is_uniform_under_the_null():
    random = np.random.default_rng(3)
    p = np.array([rotation_p_value(random.normal(size=(8, 2)), seed, trials=199) for seed in range(1500)])
    for level in (0.05, 0.2, 0.5):
        low, high = binom.ppf([0.005, 0.995], p.size, level)
        assert low <= np.count_nonzero(p <= level) <= high


def coverage(amplitude_sigma, trials, n=8, seed=0, sign=None, size=None):
    """Return how often the 95 % interval of the amplitude holds the truth; the mean of alike planes has deviation 1."""
    random = np.random.default_rng(seed)
    sign = np.ones(n) if sign is None else sign
    size = np.ones(n) if size is None else size
    hits = 0
    for _ in range(trials):
        units = random.normal(size=(n, 2)) * size[:, None] * np.sqrt(n) + [amplitude_sigma, 0.0]
        low, high = antiphase_and_inphase(units, sign)[0].interval(0.95)
        hits += low <= amplitude_sigma <= high
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [1.0, -1.0], ids=["the more", "the fewer"])
@pytest.mark.parametrize("amplitude_sigma", [1.0, 4.0, 20.0])
def test_interval_covers_the_truth_of_uneven_planes(amplitude_sigma, noisy):
    sign = _signs(8, False)
    hits = coverage(amplitude_sigma, 500, 8, 2, sign, np.where(sign == noisy, 1.6, 0.6))
    assert hits >= binom.ppf(0.005, 500, 0.95), hits / 500


@pytest.mark.parametrize("amplitude_sigma", [0.0, 1.0, 2.0, 4.0, 20.0])
def test_interval_covers_the_truth(amplitude_sigma):
    hits = coverage(amplitude_sigma, 150)
    assert hits >= binom.ppf(0.005, 150, 0.95), hits / 150


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("amplitude_sigma", [0.0, 1.0, 2.0, 4.0, 20.0])
def test_interval_covers_the_truth_in_many_draws(amplitude_sigma, n):
    hits = coverage(amplitude_sigma, 1000, n, seed=1)
    assert hits >= binom.ppf(0.005, 1000, 0.95), hits / 1000


def test_power_at_the_amplitudes_that_are_promised():
    """80 % power needs about 4.7 and 3.6 standard deviations of a unit-sized mean at 6 and 12 planes."""
    random = np.random.default_rng(4)
    for n, amplitude in ((6, 4.7), (12, 3.6)):
        p = [
            antiphase_and_inphase(random.normal(size=(n, 2)) * np.sqrt(n) + [amplitude, 0.0], np.ones(n))[0].p_value
            for _ in range(600)
        ]
        assert 0.74 < np.mean(np.array(p) < 0.05) < 0.86
