"""Tests and intervals of the modulation over thousands of draws of per-plane amplitudes."""

import numpy as np
import pytest
from scipy.stats import binom

from phonon_eels.lattice.inference import antiphase_and_inphase, rotation_p_value

pytestmark = pytest.mark.statistics
NULLS = 4000


def _signs(n, balanced):
    return np.resize([1.0, -1.0], n) if balanced else np.where(np.arange(n) < n - 2, 1.0, -1.0)


def _units(random, n, skewed):
    """Amplitudes of planes: alike, or of very different noise and elongated."""
    if not skewed:
        return random.normal(size=(n, 2))
    noise = random.permutation(np.linspace(0.6, 1.6, n))
    return random.normal(size=(n, 2)) * noise[:, None] @ np.array([[1.0, 0.6], [0.0, 0.8]])


@pytest.mark.parametrize("skewed", [False, True], ids=["alike", "uneven"])
@pytest.mark.parametrize("n", [6, 8, 12])
def test_false_positives_at_five_per_cent(n, skewed):
    random = np.random.default_rng(n)
    hits = np.zeros(2)
    for trial in range(NULLS):
        found = antiphase_and_inphase(_units(random, n, skewed), _signs(n, trial % 2 == 0))
        hits += [mean.p_value < 0.05 for mean in found]
    # Conservative is allowed; more than the upper 99 % binomial limit is not.
    assert (hits <= binom.ppf(0.99, NULLS, 0.05)).all(), hits / NULLS
    assert (hits >= 0.01 * NULLS).all(), hits / NULLS


def test_p_values_are_uniform():
    random = np.random.default_rng(1)
    p = np.array([antiphase_and_inphase(_units(random, 8, False), _signs(8, True))[0].p_value for _ in range(NULLS)])
    counts = np.histogram(p, bins=10, range=(0, 1))[0]
    assert ((counts - NULLS / 10) ** 2 / (NULLS / 10)).sum() < 21.7  # 99 % of chi-squared, 9 degrees of freedom


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


def coverage(amplitude_sigma, trials, n=8, seed=0):
    """Return how often the 95 % interval of the amplitude holds the truth; the mean has deviation 1."""
    random = np.random.default_rng(seed)
    hits = 0
    for _ in range(trials):
        units = random.normal(size=(n, 2)) * np.sqrt(n) + [amplitude_sigma, 0.0]
        low, high = antiphase_and_inphase(units, np.ones(n))[0].interval(0.95)
        hits += low <= amplitude_sigma <= high
    return hits


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
