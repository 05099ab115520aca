"""Phase against the gap: intervals that hold, the bit that they are worth, maps plane by plane."""

import numpy as np
import pytest
from scipy.stats import binom

from phonon_eels.lattice.gap import (
    Harmonic,
    PhaseDifference,
    compare_maps,
    curve_harmonic,
    map_harmonics,
    phase_difference,
    phase_half_width,
    template_harmonic,
)
from phonon_eels.lattice.inference import antiphase_and_inphase

TRIALS = 1000


def test_template_is_slezaks():
    gap = template_harmonic(38.0, 0.09, 0.01, True, 0.0)
    # 9 % from largest to smallest gap of 38 meV: 3.42 meV peak to peak.
    assert gap.amplitude == pytest.approx(1.71)
    assert gap.amplitude_std == pytest.approx(0.19)
    assert gap.phase_rad == 0.0
    assert gap.phase_std_rad == 0.0
    assert template_harmonic(38.0, 0.09, 0.01, False, 0.0).amplitude == pytest.approx(3.42)
    assert template_harmonic(38.0, 0.09, 0.01, True, np.pi / 3).phase_rad == pytest.approx(np.pi / 3)


def test_curve_gives_its_harmonic_back():
    random = np.random.default_rng(0)
    phase = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    std = np.full(24, 0.3)
    pulls = []
    for _ in range(300):
        gap = curve_harmonic(phase, 40 + 1.5 * np.cos(phase - 0.7) + std * random.normal(size=24), std)
        pulls.append(
            [
                (gap.mean - 40) / gap.mean_std,
                (gap.amplitude - 1.5) / gap.amplitude_std,
                (gap.phase_rad - 0.7) / gap.phase_std_rad,
            ]
        )
    # Errors enlarged by a misfit above 1 only: pulls at or a little below 1.
    assert (np.abs(np.mean(pulls, axis=0)) < 3 / np.sqrt(300)).all()
    assert (np.std(pulls, axis=0) > 0.8).all()
    assert (np.std(pulls, axis=0) < 1.1).all()


def test_points_that_scatter_more_than_they_say_count_less():
    phase = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    gap = 40 + 1.5 * np.cos(phase) + 0.9 * np.resize([1.0, -1.0], 24)
    expected = 0.3 * np.sqrt(2 / 24) * np.sqrt(9 * 24 / 21)
    assert curve_harmonic(phase, gap, np.full(24, 0.3)).amplitude_std == pytest.approx(expected)


@pytest.mark.parametrize("phase", [np.zeros(8), np.array([0.0, 1.0, 2.0]), np.linspace(0, 0.05, 9)])
def test_phases_that_determine_nothing(phase):
    with pytest.raises(ValueError, match="do not determine a mean and a harmonic"):
        curve_harmonic(phase, np.full(len(phase), 40.0), np.ones(len(phase)))


@pytest.mark.parametrize("amplitude", [0.0, 2.0, 4.0, 12.0])
def test_interval_of_the_phase_holds_the_truth(amplitude):
    """In units of the mean's deviation; planes of unit-sized noise of the mean, Fieller's interval at 95 %."""
    random = np.random.default_rng(int(amplitude))
    hits = 0
    for _ in range(TRIALS):
        units = random.normal(size=(8, 2)) * np.sqrt(8) + amplitude * np.array([np.cos(2.5), np.sin(2.5)])
        mean = antiphase_and_inphase(units, np.resize([1.0, -1.0], 8))[0]
        half = phase_half_width(mean.value, mean.covariance, mean.dof, 0.95)
        hits += abs(np.angle(np.exp(1j * (mean.phase_rad - 2.5)))) <= half
    assert hits >= binom.ppf(0.005, TRIALS, 0.95), hits / TRIALS


def test_nothing_known_is_the_whole_circle():
    assert phase_half_width(np.array([0.1, 0.0]), np.eye(2), 7, 0.95) == pytest.approx(np.pi)


def test_difference_counts_both_errors_and_is_folded():
    value, covariance = np.array([np.cos(3.0), np.sin(3.0)]), 1e-4 * np.eye(2)
    exact = template_harmonic(38.0, 0.09, 0.01, True, -3.0)
    difference = phase_difference(value, covariance, 7, exact, 0.95)
    assert difference.value_rad == pytest.approx(6.0 - 2 * np.pi)
    unsure = Harmonic(38.0, 0.1, exact.value, 0.01 * np.eye(2) * exact.amplitude**2)
    wider = phase_difference(value, covariance, 7, unsure, 0.95)
    assert wider.std_rad == pytest.approx(np.hypot(0.01, 0.1), rel=1e-3)
    assert wider.half_width_rad > 7 * difference.half_width_rad


@pytest.mark.parametrize(
    ("value", "half", "verdict"),
    [
        (0.1, 0.3, "in phase"),
        (-3.1, 0.3, "in antiphase"),
        (1.5, 0.3, "between"),
        (1.5, 2.0, "undecided"),
        (0.0, np.pi, "undecided"),
    ],
)
def test_verdicts(value, half, verdict):
    assert PhaseDifference(value, 0.1, half).verdict == verdict


def planes(lag, noise, seed, n=10):
    random = np.random.default_rng(seed)
    gap = np.exp(0.4j) * (1.5 + 0.5 * random.normal(size=n))
    energy = 0.6 * gap * np.exp(1j * lag) + noise * (random.normal(size=n) + 1j * random.normal(size=n))
    return (np.column_stack([z.real, z.imag]) for z in (energy, gap))


def test_maps_lag_and_correlation():
    same = compare_maps(*planes(0.0, 0.1, 0), 0.95)
    assert same.lag.verdict == "in phase"
    assert same.correlation > 0.95
    opposite = compare_maps(*planes(np.pi, 0.1, 0), 0.95)
    assert opposite.lag.verdict == "in antiphase"
    assert opposite.correlation < -0.95
    quarter = compare_maps(*planes(np.pi / 2, 0.1, 0), 0.95)
    assert quarter.lag.verdict == "between"
    assert quarter.correlation_low < 0.1
    assert quarter.correlation_high > -0.1
    hits = [compare_maps(*planes(0.8, 0.3, seed), 0.95).lag.holds(0.8) for seed in range(400)]
    assert np.sum(hits) >= binom.ppf(0.005, 400, 0.95)


def test_maps_of_noise_claim_nothing_and_few_planes_are_not_compared():
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        found = compare_maps(random.normal(size=(8, 2)), random.normal(size=(8, 2)), 0.95)
        hits += not found.correlation_low <= 0.0 <= found.correlation_high
    assert hits <= binom.ppf(0.995, 400, 0.05), hits / 400
    assert compare_maps(random.normal(size=(3, 2)), random.normal(size=(3, 2)), 0.95) is None
    missing = random.normal(size=(6, 2))
    missing[:3] = np.nan
    assert compare_maps(random.normal(size=(6, 2)), missing, 0.95) is None


def test_harmonics_of_a_map_are_those_of_its_planes():
    phase = np.broadcast_to(np.linspace(0, 12, 40), (30, 40)).copy()
    unit = np.repeat([4, 5, 6], 10)[:, None] * np.ones(40, int)
    size = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0])[unit]
    gap = 38 + unit + size * np.cos(phase - 0.5)
    gap[0] = np.nan
    found = map_harmonics(gap, np.ones_like(gap), phase, unit, [4, 5, 6, 7])
    np.testing.assert_allclose(np.hypot(*found[:3].T), [1, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(found[:3, 1], found[:3, 0]), 0.5, rtol=1e-6)
    assert np.isnan(found[3]).all()
