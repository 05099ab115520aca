"""Tables of the zero-loss peak: means over channels, their derivatives, and sums that do not depend on the data."""

import numpy as np
import pytest

from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.zero_loss import _score_step
from phonon_eels.kernels.zero_loss_tables import score_tables

FWHM, LOSS, GAIN, HALF = 6.3, 1.6, 1.9, 11


def means(phase, n_phases, place=0.0, width=0.0, loss=0.0, gain=0.0):
    """Return the peak averaged over eight points of each channel, as a scan sees it whose peak lies at that offset."""
    within = (np.arange(8) + 0.5) / 8 - 0.5
    offset = (phase + 0.5) / n_phases - 0.5
    x = np.arange(-HALF, HALF + 1)[:, None] + within - offset - place
    return split_pearson7(x, FWHM * np.exp(width), LOSS * np.exp(loss), GAIN * np.exp(gain)).mean(axis=1)


@pytest.mark.parametrize("n_phases", [8, 16])
@pytest.mark.parametrize("shift", [0.0, 0.02])
def test_tables_are_means_over_channels_and_their_derivatives(n_phases, shift):
    models, scores, constants = score_tables(FWHM, LOSS, GAIN, HALF, shift, n_phases)
    assert models.shape == (n_phases, 2 * HALF + 1)
    for phase in range(n_phases):
        model = means(phase, n_phases)
        slopes = [
            (means(phase, n_phases, **{name: 1e-4}) - means(phase, n_phases, **{name: -1e-4})) / 2e-4
            for name in ("place", "width", "loss", "gain")
        ]
        np.testing.assert_allclose(models[phase], model, rtol=1e-12)
        np.testing.assert_allclose(scores[phase], np.array([*slopes, model]) / (model + shift), atol=1e-6)
        shape = scores[phase, :4]
        told = constants[phase]
        np.testing.assert_allclose(told[0], model @ scores[phase, 4], rtol=1e-12)
        np.testing.assert_allclose(told[1:5], shape.sum(axis=1), atol=1e-10)
        np.testing.assert_allclose(told[5:9], shape @ model, atol=1e-10)
        np.testing.assert_allclose(told[9:19], ((shape * (model + shift)) @ shape.T)[np.tril_indices(4)], atol=1e-10)
        np.testing.assert_allclose(told[19], scores[phase, 4].sum(), rtol=1e-12)
        assert told[24] == 2 * HALF + 1


@pytest.mark.parametrize("masked", [False, True])
def test_a_step_solves_the_normal_equations_and_tells_their_deviations(masked):
    """Against NumPy's own solution, the height taken out; with a bad channel the sums are those of the others."""
    gain, dark, shift, phase, first = 2.0, 3.0, 0.01, 9, 7
    models, scores, constants = (table[phase] for table in score_tables(FWHM, LOSS, GAIN, HALF, shift))
    precision = np.array([0.0, 0.0, 11.0, 7.0])
    counts = np.full(80, dark)
    counts[first : first + models.size] += gain * np.random.default_rng(3).poisson(500.0 * models)
    bad = np.zeros(80 if masked else 0, bool)
    used = np.ones(models.size, bool)
    if masked:
        bad[first + 9], used[9] = True, False
    step = np.zeros(32)
    height = _score_step(
        counts, bad, first, gain, dark, models, scores, constants, shift, precision, not masked, np.zeros(32), step
    )
    electrons = ((counts[first : first + models.size] - dark) / gain)[used]
    model, weights = models[used], scores[4, used]
    assert height == pytest.approx((electrons @ weights) / (model @ weights), rel=1e-12)
    slopes = scores[:, used] * (model + shift)
    information = height * (slopes / (model + shift)) @ slopes.T
    between = information[:4, 4] / information[4, 4]
    matrix = information[:4, :4] - np.outer(between, information[4, :4]) + np.diag(precision)
    right = scores[:4, used] @ (electrons - height * model)
    np.testing.assert_allclose(step[:4], np.linalg.solve(matrix, right), rtol=1e-9)
    np.testing.assert_allclose(step[4:8], np.sqrt(np.diag(np.linalg.inv(matrix))), rtol=1e-9)


def test_a_window_that_tells_too_little_has_no_step():
    models, scores, constants = (table[3] for table in score_tables(FWHM, LOSS, GAIN, HALF))
    bad = np.ones(40, bool)
    bad[[5, 8, 11, 14]] = False  # four channels for height and four parameters
    arguments = (np.full(40, 9.0), bad, 0, 1.0, 0.0, models, scores, constants, 0.0, np.zeros(4), False)
    assert _score_step(*arguments, np.zeros(32), np.zeros(32)) == -1.0
    same = constants.copy()
    same[2], same[6], same[10:12] = same[1], same[5], same[9]  # two parameters that do the same
    assert _score_step(
        np.full(40, 9.0), np.empty(0, bool), 0, 1.0, 0.0, models, scores, same, 0.0, np.zeros(4), True, np.zeros(32),
        np.zeros(32),
    ) == -1.0  # fmt: skip
