"""Energies that follow a wave, from made-up scores."""

import numpy as np
import pytest

from phonon_eels.lattice.modulation import (
    Scores,
    basis,
    binned_energies,
    fit_unit,
    mode_sources,
    modelled_energies,
    period_scan,
)

SHAPE = (30, 24)
REFERENCE = np.array([42.0, 78.0])
WIDTHS = np.array([4.0, 4.5])
PHASE = np.broadcast_to(np.linspace(0.0, 4 * np.pi, SHAPE[1], endpoint=False) + 0.1, SHAPE)
SHARE = np.stack([np.full(SHAPE, 0.8), np.where(np.arange(SHAPE[0])[:, None] % 2 == 0, 0.9, -0.7) + np.zeros(SHAPE)])
# Every position: correlated energies and widths of both modes.
FACTOR = np.array([[8.0, 0, 0, 0], [2.0, 6.0, 0, 0], [1.0, 0.5, 3.0, 0], [0.2, 1.0, 0.4, 2.5]])
INFORMATION = FACTOR @ FACTOR.T


def _scores(seed, energies, widths, taken_at, noise=1.0):
    """Scores whose information is exact: E[g] = F (truth - taken at), cov g = F."""
    random = np.random.default_rng(seed)
    information = np.broadcast_to(INFORMATION, (*SHAPE, 4, 4))
    away = np.concatenate([energies - taken_at, widths], axis=-1)
    score = np.einsum("rcij,rcj->rci", information, away) + noise * random.normal(size=(*SHAPE, 4)) @ FACTOR.T
    return Scores(score, information, taken_at, np.ones(SHAPE, bool))


def _truth(coefficients):
    regressors = basis(PHASE, SHARE)
    return REFERENCE + np.einsum("rcmi,mi->rcm", regressors, np.asarray(coefficients, float)), regressors


PLANTED = [[0.3, 0.5, -0.2], [-0.1, 0.0, 0.8]]


def test_regressors():
    found = basis(PHASE, SHARE)
    assert found.shape == (*SHAPE, 2, 3)
    np.testing.assert_array_equal(found[..., 0], 1.0)
    np.testing.assert_allclose(found[3, 5, 1], [1.0, -0.7 * np.cos(PHASE[3, 5]), -0.7 * np.sin(PHASE[3, 5])])


@pytest.mark.parametrize("start", [0.0, 1.5])
def test_planted_harmonics_come_back_whatever_the_linearisation(start):
    energies, regressors = _truth(PLANTED)
    widths = 0.2 * np.cos(PHASE)[..., None] * SHARE.transpose(1, 2, 0)
    taken_at = np.broadcast_to(REFERENCE + start, energies.shape)
    scores = _scores(0, energies, widths, taken_at, noise=0.0)
    fit = fit_unit(scores, REFERENCE, regressors, np.ones(SHAPE, bool), WIDTHS)
    np.testing.assert_allclose(fit.value[:2], PLANTED, atol=2e-4)
    np.testing.assert_allclose(fit.value[2:, 1], 0.2, atol=2e-3)
    np.testing.assert_allclose(modelled_energies(REFERENCE, fit, regressors), energies, atol=1e-3)
    assert fit.n_positions == SHAPE[0] * SHAPE[1]
    np.testing.assert_allclose(fit.information, np.diag(INFORMATION)[:2] * fit.n_positions)


def test_pulls_and_leakage_from_a_modulated_width():
    """A width that follows the wave does not pass for an energy, and the deviations are right."""
    energies, regressors = _truth(PLANTED)
    widths = 0.3 * np.sin(PHASE)[..., None] * SHARE.transpose(1, 2, 0)
    taken_at = np.broadcast_to(REFERENCE, energies.shape)
    pulls = []
    for seed in range(300):
        fit = fit_unit(
            _scores(seed, energies, widths, taken_at), REFERENCE, regressors, np.arange(SHAPE[0])[:, None] + 0 * PHASE < 6, WIDTHS
        )  # fmt: skip
        std = np.sqrt(np.stack([np.diag(fit.covariance[m]) for m in range(2)]))
        pulls.append((fit.value[:2] - PLANTED) / std)
    pulls = np.array(pulls)
    assert np.abs(pulls.mean(axis=0)).max() < 4.0 / np.sqrt(300)
    assert np.abs(pulls.std(axis=0) - 1.0).max() < 4.0 / np.sqrt(600)


def test_leakage_of_antiphase_planes_is_undone():
    """Where planes of both signs are seen the amplitude is damped; the signed share gives it back without bias."""
    energies, regressors = _truth([[0.0, 0.5, 0.0], [0.0, 1.0, 0.0]])
    taken_at = np.broadcast_to(REFERENCE, energies.shape)
    scores = _scores(0, energies, np.zeros_like(energies), taken_at, noise=0.0)
    everywhere = np.ones(SHAPE, bool)
    assert fit_unit(scores, REFERENCE, regressors, everywhere, WIDTHS).value[1, 1] == pytest.approx(1.0, abs=1e-3)
    ignored = basis(PHASE, np.sign(SHARE))
    naive = fit_unit(scores, REFERENCE, ignored, everywhere, WIDTHS).value[1, 1]
    assert naive == pytest.approx(0.8, abs=0.02)


def test_unusable_positions_and_missing_phases_are_left_out():
    energies, regressors = _truth(PLANTED)
    taken_at = np.broadcast_to(REFERENCE, energies.shape)
    scores = _scores(0, energies, np.zeros_like(energies), taken_at, noise=0.0)
    usable = np.ones(SHAPE, bool)
    usable[::3] = False
    score = np.where(usable[..., None], scores.score, 1e9)
    regressors = regressors.copy()
    regressors[:, 5] = np.nan
    fit = fit_unit(
        Scores(score, scores.information, scores.energies_mev, usable), REFERENCE, regressors, np.ones(SHAPE, bool), WIDTHS
    )  # fmt: skip
    np.testing.assert_allclose(fit.value[:2], PLANTED, atol=1e-3)
    assert fit.n_positions == 20 * 23


def test_mode_a_unit_does_not_show_stays_unknown():
    information = np.zeros((*SHAPE, 4, 4))
    information[..., 0, 0] = 50.0
    scores = Scores(np.zeros((*SHAPE, 4)), information, np.broadcast_to(REFERENCE, (*SHAPE, 2)), np.ones(SHAPE, bool))
    fit = fit_unit(scores, REFERENCE, basis(PHASE, SHARE), np.ones(SHAPE, bool), WIDTHS)
    assert np.isfinite(fit.value).all()
    assert np.sqrt(fit.covariance[1, 1, 1]) > 5.0
    assert fit.information[1] == 0.0


def test_bins_hold_the_energies_at_their_phases():
    """The energies of the plane, not those damped by leakage."""
    outward = np.mod(PHASE + np.where(SHARE[1] < 0.0, np.pi, 0.0), 2 * np.pi)
    energies = np.broadcast_to(REFERENCE, (*SHAPE, 2)).copy()
    energies[..., 1] = 78.2 + np.abs(SHARE[1]) * np.cos(outward)
    scores = _scores(1, energies, np.zeros_like(energies), np.broadcast_to(REFERENCE, energies.shape), noise=0.0)
    arguments = (scores, 1, 78.2, outward, np.abs(SHARE[1]))
    phase, energy, std, n = binned_energies(*arguments, np.ones(SHAPE, bool), 6, WIDTHS)
    assert n.sum() == SHAPE[0] * SHAPE[1]
    bins = (outward // (np.pi / 3)).astype(int)
    weight = SHARE[1] ** 2
    means = [78.2 + (weight * np.cos(outward))[bins == b].sum() / weight[bins == b].sum() for b in range(6)]
    np.testing.assert_allclose(energy, means, atol=0.02)
    assert ((phase // (np.pi / 3)).astype(int) == np.arange(6)).all()
    assert (std > 0.0).all()
    assert np.isnan(binned_energies(*arguments, np.zeros(SHAPE, bool), 6, WIDTHS)[1]).all()


def test_period_scan_is_largest_at_the_planted_period():
    b = np.broadcast_to(np.linspace(0.0, 10.0, SHAPE[1]), SHAPE)
    energies = np.broadcast_to(REFERENCE, (*SHAPE, 2)).copy()
    energies[..., 1] += SHARE[1] * np.cos(2 * np.pi * b / 2.578 + 0.4)
    scores = _scores(2, energies, np.zeros_like(energies), np.broadcast_to(REFERENCE, energies.shape), noise=0.2)
    periods = 2.578 * np.exp(np.linspace(-0.7, 0.7, 61))
    unit = np.arange(SHAPE[0])[:, None] // 10 + np.zeros(SHAPE, int)
    gain = period_scan(scores, 1, np.full(SHAPE, 78.0), b, SHARE[1], unit, periods)
    assert periods[np.argmax(gain)] == pytest.approx(2.578, rel=0.05)
    assert gain.max() > 5.0 * np.median(gain)


def test_sources_have_the_strength_of_their_layer_and_the_sign_of_their_phase():
    plane = np.zeros((1, 2, 2), int)
    found = mode_sources(
        plane, np.ones((1, 2, 2)), np.array(["CuO2", "CuO2", "BiO"]), np.array([0.0, np.pi, 0.0]), {"CuO2": 0.8}, 0.2
    )
    assert found.strength.tolist() == [0.8, 0.8, 0.0]
    assert found.sign.tolist() == [1.0, -1.0, 1.0]
