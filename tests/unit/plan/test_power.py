"""Predicted chance of detection against the test that is really made, drawn thousands of times."""

import numpy as np
import pytest
from scipy.stats import binom

from phonon_eels.lattice.inference import antiphase_and_inphase, balanced_weights, weighted_mean
from phonon_eels.plan.power import degrees_of_freedom, detectable_amplitude, mean_variance_factor, power

TRIALS = 3000


def detected(amplitude, n_units, seed):
    """Return how often a true amplitude is found with planes of unit noise, phase at random."""
    random = np.random.default_rng(seed)
    sign = np.resize([1.0, -1.0], n_units)
    hits = 0
    for _ in range(TRIALS):
        phase = random.uniform(0, 2 * np.pi)
        truth = amplitude * np.array([np.cos(phase), np.sin(phase)])
        hits += antiphase_and_inphase(random.normal(size=(n_units, 2)) + truth, sign)[0].p_value < 0.05
    return hits


@pytest.mark.parametrize("n_units", [4, 6, 7, 12])
def test_detectable_amplitude_is_detected_as_often_as_told(n_units):
    amplitude = detectable_amplitude(1.0, n_units, 0.95, 0.8)
    low, high = binom.ppf([0.005, 0.995], TRIALS, 0.8)
    assert low <= detected(amplitude, n_units, n_units) <= high


@pytest.mark.parametrize("amplitude", [0.0, 0.5, 1.5])
def test_power_at_other_amplitudes(amplitude):
    low, high = binom.ppf([0.005, 0.995], TRIALS, float(power(amplitude, 1.0, 8, 0.95)))
    assert low <= detected(amplitude, 8, 17) <= high


def test_variance_and_degrees_of_freedom_are_those_of_the_test():
    for n_units in range(4, 20):
        weights = balanced_weights(np.resize([1.0, -1.0], n_units))
        assert mean_variance_factor(n_units) == pytest.approx((weights**2).sum())
        if n_units % 2 == 0:
            mean = weighted_mean(np.random.default_rng(0).normal(size=(n_units, 2)), weights)
            assert mean.dof == pytest.approx(degrees_of_freedom(n_units))


def test_amplitudes_that_are_promised():
    """80 % power needs 7.9, 4.7 and 3.6 standard deviations of the mean at 4, 6 and 12 planes (SCIENCE §9)."""
    for n_units, wanted in ((4, 7.9), (6, 4.7), (12, 3.6)):
        assert detectable_amplitude(np.sqrt(n_units), n_units, 0.95, 0.8) == pytest.approx(wanted, abs=0.1)


def test_limits():
    assert power(0.0, 1.0, 8, 0.95) == pytest.approx(0.05, abs=1e-6)
    assert power(1e3, 1.0, 8, 0.95) == 1.0
    assert np.isnan(power(1.0, 1.0, 2, 0.95))
    assert np.isnan(detectable_amplitude(1.0, 2, 0.95, 0.8))
    assert detectable_amplitude(0.2, 8, 0.95, 0.8) == pytest.approx(
        0.2 * detectable_amplitude(1.0, 8, 0.95, 0.8), rel=1e-4
    )
