"""Attenuation from a leakage matrix of a file, and what the matrix's own deviations make of an amplitude."""

import numpy as np
import pytest

from phonon_eels.lattice.leakage_matrix import LeakageMatrix, plane_weights, with_matrix
from phonon_eels.lattice.localisation import Sources, fit_localisation

# Two planes of CuO2 in antiphase with a plane of Ca between them, seen by three kinds of position.
LAYER = np.array(["CuO2", "Ca", "CuO2"])
SHAPE = (30, 8)
KIND = np.arange(SHAPE[0])[:, None] % 3 + np.zeros(SHAPE, dtype=int)
NEAR = {0: (1.0, 0.3, 0.1), 1: (0.4, 1.0, 0.4), 2: (0.1, 0.3, 1.0)}
WEIGHT = np.moveaxis(np.array([[NEAR[k] for k in row] for row in KIND]), 2, 0)
PLANE = np.broadcast_to(np.arange(3)[:, None, None], WEIGHT.shape)
SOURCES = Sources(PLANE, WEIGHT, np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, -1.0]), 0.22)
SHARE = np.array([[0.7, 0.3], [0.5, 0.5]])
PROBABILITY = np.stack([KIND != 1, KIND == 1]).astype(float)


def matrix(std=0.0, share=SHARE):
    return LeakageMatrix(("CuO2", "Ca"), share, np.full((2, 2), std), PROBABILITY)


def located(found_matrix, constant=0.0):
    area = 1000.0 * (plane_weights(SOURCES, found_matrix, found_matrix.share, LAYER) * SOURCES.strength[PLANE]).sum(
        axis=0
    )
    area, std = area + constant, np.full(SHAPE, 5.0)
    by_distance = fit_localisation(SOURCES, area, std, 0.22, 0.05)
    return with_matrix(by_distance, SOURCES, found_matrix, LAYER, area, std, np.ones(SHAPE))


def test_a_layers_share_is_parted_by_distance():
    weights = plane_weights(SOURCES, matrix(), SHARE, LAYER)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0)
    np.testing.assert_allclose(weights[:, 0, 0], [0.7 / 1.1, 0.3, 0.07 / 1.1])
    np.testing.assert_allclose(weights[:, 1, 0], [0.25, 0.5, 0.25])


def test_the_other_plane_attenuates_and_a_constant_part_more():
    share = located(matrix()).signed_share
    np.testing.assert_allclose(share[0], 0.9 / 1.1, atol=1e-6)
    np.testing.assert_allclose(share[1], 0.0, atol=1e-6)  # midway both planes count alike
    np.testing.assert_allclose(share[2], -0.9 / 1.1, atol=1e-6)
    diluted = located(matrix(), constant=70.0)
    # On CuO2 the plane's 700 electrons stand on 70.
    np.testing.assert_allclose(diluted.signed_share[0], 0.9 / 1.1 * 700.0 / 770.0, rtol=1e-6)
    assert diluted.constant_share == pytest.approx(70.0 / (70.0 + 1000.0 * (0.7 * 2 + 0.5) / 3.0), rel=1e-6)


def test_deviations_of_the_matrix_are_carried():
    """Against matrices drawn at random: an amplitude fitted with the wrong share is off by as much as is told."""
    told = located(matrix(0.03), constant=300.0).leakage_std
    base = located(matrix(0.03), constant=300.0).signed_share
    strength, constant = 1000.0, 300.0
    random, found = np.random.default_rng(1), []
    for _ in range(2000):
        drawn = matrix(share=SHARE + 0.03 * random.normal(size=(2, 2)))
        strong = plane_weights(SOURCES, drawn, drawn.share, LAYER) * SOURCES.strength[PLANE]
        share = strength * (strong * SOURCES.sign[PLANE]).sum(axis=0) / (strength * strong.sum(axis=0) + constant)
        found.append((base * share).sum() / (base**2).sum())
    # 99.8 % limits of the deviation of 2,000 draws are 5 %; 3 % for what is not linear.
    assert told == pytest.approx(np.std(found), rel=0.08)
    assert located(matrix(0.0)).leakage_std == 0.0
