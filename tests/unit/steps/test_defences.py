"""Halves of the frames and turned slabs: what the lines of the defences say, and the slope from half to half."""

import numpy as np
import pytest

from phonon_eels.lattice.inference import MeanAmplitude
from phonon_eels.lattice.modulation import Scores
from phonon_eels.steps.half_defences import Change, HalfPair, frame_sensitivity, halves_verdict
from phonon_eels.steps.turned_defence import turned_verdict

SHAPE = (12, 60)
HALF_SLAB = np.arange(SHAPE[0])[:, None] // 2 + np.zeros(SHAPE, dtype=int)


def mean(amplitude, std, p_value):
    return MeanAmplitude(np.array([amplitude, 0.0]), std**2 * np.eye(2), 6.0, p_value)


def pair(slope, random, noise=0.5, smooth=0.0):
    """Return halves in which the energy follows the covariate by `slope`; the wave itself is in both."""
    information = 400.0  # deviation of an energy 0.05
    true = random.normal(size=SHAPE) + smooth
    wave = 0.8 * np.cos(np.linspace(0.0, 12.0, SHAPE[1]))
    scores = []
    for sign in (0.5, -0.5):
        energy = wave + sign * slope * true + information**-0.5 * random.normal(size=SHAPE)
        matrix = np.broadcast_to(information * np.eye(2), (*SHAPE, 2, 2))
        score = information * np.stack([energy, np.zeros(SHAPE)], axis=2)
        scores.append(Scores(score, matrix, np.zeros((*SHAPE, 1)), np.ones(SHAPE, dtype=bool)))
    seen = Change(true + noise * random.normal(size=SHAPE), np.full(SHAPE, noise))
    return HalfPair("odd_even", (scores[0], scores[1]), {"HAADF": seen})


def test_slope_from_half_to_half_is_not_pulled_to_zero_by_noise():
    random, pulls, slopes = np.random.default_rng(0), [], []
    for _ in range(40):
        beta, std = frame_sensitivity([pair(0.3, random)], "HAADF", 1.0, list(range(6)), HALF_SLAB, 0)
        slopes.append(beta)
        pulls.append((beta - 0.3) / std)
    assert np.mean(slopes) == pytest.approx(0.3, abs=4.0 * np.std(slopes) / np.sqrt(40))
    assert 0.6 < np.std(pulls) < 1.8  # six planes know their scatter to a third


def test_a_covariate_that_stands_still_tells_nothing():
    still = pair(0.0, np.random.default_rng(1), noise=1.0)
    noise = Change(np.random.default_rng(2).normal(size=SHAPE), np.ones(SHAPE))
    still = HalfPair("odd_even", still.scores, {"HAADF": noise})
    assert np.isnan(frame_sensitivity([still], "HAADF", 1.0, list(range(6)), HALF_SLAB, 0)[0])
    assert np.isnan(frame_sensitivity([], "HAADF", 1.0, list(range(6)), HALF_SLAB, 0)[0])


@pytest.mark.parametrize(
    ("difference", "amplitude", "verdict"),
    [
        (mean(0.02, 0.05, 0.6), 1.0, "pass"),
        (mean(0.05, 0.005, 1e-4), 1.0, "pass"),
        (mean(0.2, 0.03, 1e-4), 1.0, "not distinguished"),
        (mean(0.6, 0.05, 1e-4), 1.0, "fail"),
        (mean(0.3, 0.6, 0.5), 1.0, "no power"),
        (mean(0.3, 0.1, float("nan")), 1.0, "no power"),
    ],
)
def test_halves_are_judged_against_the_amplitude(difference, amplitude, verdict):
    assert halves_verdict(difference, amplitude)[0] == verdict


@pytest.mark.parametrize(
    ("control", "verdict"),
    [(mean(0.02, 0.1, 0.9), "pass"), (mean(0.9, 0.1, 1e-6), "fail"), (mean(0.5, 0.6, 0.5), "no power")],
)
def test_a_turned_slab_must_not_show_the_wave(control, verdict):
    assert turned_verdict(control, 1.0)[0] == verdict
