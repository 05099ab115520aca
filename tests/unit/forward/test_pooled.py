"""Energies and widths shared by all positions, from made-up scores."""

import numpy as np
import pytest

from phonon_eels.forward.pooled import (
    COLUMNS,
    ROWS,
    block_sums,
    local_energies,
    moving_mean,
    pool_scores,
    relative_to,
    row_sums,
)
from phonon_eels.forward.scan import ScanFit

SHAPE = (24, 20)
TAKEN = np.array([42.0, 78.0])
WIDTHS, PRIOR_STD = np.array([4.0, 4.5]), np.array([1.6, 1.8])
FACTOR = np.array([[8.0, 0, 0, 0], [2.0, 6.0, 0, 0], [1.0, 0.5, 3.0, 0], [0.2, 1.0, 0.4, 2.5]])
INFORMATION = FACTOR @ FACTOR.T


def _fit(energies, widths=0.0, noise=1.0, seed=0):
    """A scan whose scores are exact to first order; areas are 100 with slopes 1 and 2 to the energies."""
    random = np.random.default_rng(seed)
    away = np.concatenate([np.broadcast_to(energies - TAKEN, (*SHAPE, 2)), np.full((*SHAPE, 2), widths)], axis=-1)
    score = away @ INFORMATION + noise * random.normal(size=(*SHAPE, 4)) @ FACTOR.T
    params, std = np.zeros((*SHAPE, 14)), np.ones((*SHAPE, 14))
    params[..., 8:10] = 100.0
    slope = np.broadcast_to(np.array([[1.0, 0, 0, 0], [0, 2.0, 0, 0]]), (*SHAPE, 2, 4))
    flat = np.zeros(SHAPE)
    information = np.broadcast_to(INFORMATION, (*SHAPE, 4, 4)).copy()
    whole = flat.astype(np.int16)
    return ScanFit(
        params, std, flat, flat, flat, flat, flat, flat, flat, whole, score, information, slope.copy()
    )  # fmt: skip


def _pool(fit, usable=None, axis=ROWS, free=True, prior_std=1e3 * PRIOR_STD):
    usable = np.ones(SHAPE, bool) if usable is None else usable
    sums = block_sums(row_sums(fit, usable), 2, axis)
    return pool_scores(sums, TAKEN, WIDTHS, WIDTHS, prior_std, [0, 1], free)


@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
def test_shared_values_come_back(axis):
    found = _pool(_fit(np.array([42.3, 77.6]), widths=0.2, noise=0.0), axis=axis)
    np.testing.assert_allclose(found.energies_mev, [42.3, 77.6], atol=1e-6)
    np.testing.assert_allclose(found.fwhm_mev, WIDTHS + 0.2, atol=1e-6)
    np.testing.assert_allclose(found.areas_e, [100.3, 99.2], atol=1e-5)
    np.testing.assert_allclose(
        found.replicates[:, 0], np.broadcast_to([42.3, 77.6], (len(found.replicates), 2)), atol=1e-6
    )


def test_deviations_agree_with_scatter_and_jackknife():
    energies, stds, jackknives = [], [], []
    for seed in range(150):
        found = _pool(_fit(TAKEN, seed=seed))
        energies.append(found.energies_mev)
        stds.append(found.energies_std_mev)
        jackknives.append(found.jackknife(lambda e, a: e)[1])
    scatter = np.std(energies, axis=0)
    np.testing.assert_allclose(np.mean(stds, axis=0), scatter, rtol=0.2)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(jackknives), axis=0)), scatter, rtol=0.3)
    assert np.abs(np.mean(energies, axis=0) - TAKEN).max() < 4.0 * (scatter / np.sqrt(150)).max()


def test_places_that_differ_show_in_the_jackknife_not_in_counting():
    energies = np.broadcast_to(TAKEN, (*SHAPE, 2)) + np.linspace(-0.5, 0.5, SHAPE[0])[:, None, None]
    found = _pool(_fit(energies, noise=0.0))
    jackknife = found.jackknife(lambda e, a: e)[1]
    assert (jackknife > 5.0 * found.energies_std_mev).all()


def test_held_widths_and_their_prior():
    fit = _fit(TAKEN, widths=0.3, noise=0.0)
    assert (_pool(fit, free=False).fwhm_std_mev == 0.0).all()
    np.testing.assert_array_equal(_pool(fit, free=False).fwhm_mev, WIDTHS)
    np.testing.assert_allclose(_pool(fit, prior_std=np.full(2, 1e-4)).fwhm_mev, WIDTHS, atol=1e-3)


def test_unusable_positions_count_for_nothing():
    fit = _fit(np.array([42.3, 77.6]), noise=0.0)
    usable = np.ones(SHAPE, bool)
    usable[3] = False
    fit.score[3] = np.nan
    fit.information[3] = np.nan
    np.testing.assert_allclose(_pool(fit, usable).energies_mev, [42.3, 77.6], atol=1e-6)


def test_scores_move_between_linearisations():
    local = np.broadcast_to(TAKEN + 0.7, (*SHAPE, 2))
    fit = _fit(np.array([42.3, 77.6]), noise=0.0)
    moved = relative_to(fit, local, local)
    np.testing.assert_array_equal(moved.score, fit.score)
    there = relative_to(fit, np.broadcast_to(TAKEN, (*SHAPE, 2)), TAKEN - 0.5)
    np.testing.assert_allclose(there.score - fit.score, np.broadcast_to(INFORMATION[:, :2] @ [0.5, 0.5], (*SHAPE, 4)))


@pytest.mark.parametrize("shape", [(9, 7, 2), (1, 2, 1), (4, 3, 2, 2)])
def test_moving_mean_is_that_of_scipy(shape):
    from scipy.ndimage import uniform_filter

    values = np.random.default_rng(3).normal(size=shape) * 10.0 ** np.arange(shape[0]).reshape(
        -1, *[1] * (len(shape) - 1)
    )
    ours = moving_mean(moving_mean(values, 3, ROWS), 5, COLUMNS)
    theirs = uniform_filter(values, size=(3, 5, *[1] * (len(shape) - 2)), mode="constant")
    np.testing.assert_array_equal(ours, theirs)


def test_local_energies_follow_variation_but_not_noise():
    taken = np.broadcast_to(TAKEN, (*SHAPE, 2))
    both = np.ones(2, bool)
    usable = np.ones(SHAPE, bool)
    flat = local_energies(_fit(TAKEN), usable, taken, both)
    assert np.ptp(flat[..., 0]) == 0.0
    truth = taken + 0.6 * np.sin(np.linspace(0, 6, SHAPE[0]))[:, None, None]
    followed = local_energies(_fit(truth), usable, taken, both)
    assert np.std(followed - truth) < 0.5 * np.std(truth)
    kept = local_energies(_fit(truth), usable, taken, np.array([False, True]))
    assert np.ptp(kept[..., 0]) == 0.0
    assert np.ptp(kept[..., 1]) > 0.0
