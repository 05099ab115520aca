"""Layers taken apart: exactly where nothing is counted, with honest errors where something is."""

import numpy as np
import pytest

from phonon_eels.lattice.unmix import (
    components_of,
    leakage_matrix,
    shares_at,
    unmix_by_matrix,
    unmixing_weights,
    with_width_error,
)

LAYER = np.array(["BiO", "SrO", "CuO2", "Ca", "CuO2", "SrO", "BiO"])
OUTWARD = np.array([-1, -1, -1, 0, 1, 1, 1])
PLACE_NM = 0.77 + np.array([-0.6104, -0.3367, -0.1645, 0.0, 0.1645, 0.3367, 0.6104])
SIGMA_NM = 0.095
COMPONENTS = components_of(LAYER, OUTWARD, "CuO2")


def seen(rows=40, columns=12):
    """Return source planes and weights of a scan over one slab, (3, rows, columns)."""
    c = np.linspace(0.0, 1.543, rows)[:, None] * np.ones(columns)
    away = np.abs(c[None] - PLACE_NM[:, None, None])
    order = np.argsort(away, axis=0)[:3]
    weight = np.exp(-0.5 * (np.take_along_axis(away, order, axis=0) / SIGMA_NM) ** 2)
    return order.astype(np.int32), weight


def test_components_split_the_bilayer_only():
    assert COMPONENTS.names == ("BiO", "SrO", "CuO2 lower", "Ca", "CuO2 upper")
    assert COMPONENTS.of_plane.tolist() == [0, 1, 2, 3, 4, 1, 0]
    assert components_of(LAYER, OUTWARD, None).names == ("BiO", "SrO", "CuO2", "Ca")


def test_shares_follow_distance_and_width():
    plane = np.array([[[3]], [[2]], [[-1]]])
    weight = np.array([[[1.0]], [[0.5]], [[0.0]]])
    np.testing.assert_allclose(shares_at(plane, weight, COMPONENTS)[0, 0], [0, 0, 0.5, 1, 0])
    # Twice the width: exp(-d²/2σ²) to the power of a quarter.
    np.testing.assert_allclose(shares_at(plane, weight, COMPONENTS, 2.0)[0, 0], [0, 0, 0.5**0.25, 1, 0])


def test_exact_without_noise():
    shares = shares_at(*seen(), COMPONENTS)
    pure, everywhere = np.array([5.0, 3.0, 2.0, 0.5, 1.0]), 7.0
    usable = np.ones(shares.shape[:2], dtype=bool)
    usable[3, 4] = False
    spectrum = np.where(usable, shares @ pure + everywhere, 1e9)
    weights = unmixing_weights(shares, usable)
    assert (weights[:, 3, 4] == 0.0).all()
    np.testing.assert_allclose((weights * spectrum).sum(axis=(1, 2)), [*pure, everywhere], rtol=1e-9)


def test_deviations_are_the_scatter():
    random = np.random.default_rng(0)
    shares = shares_at(*seen(), COMPONENTS)
    usable = np.ones(shares.shape[:2], dtype=bool)
    weights = unmixing_weights(shares, usable)
    mean = 100 * (shares @ np.array([5.0, 3.0, 2.0, 0.5, 1.0]) + 7.0)
    found = np.array([(weights * random.poisson(mean)).sum(axis=(1, 2)) for _ in range(500)])
    told = np.sqrt((weights**2 * mean).sum(axis=(1, 2)))
    # 500 draws: standard deviations are known to 3.2 %.
    np.testing.assert_allclose(found.std(axis=0) / told, 1.0, atol=0.12)
    np.testing.assert_allclose((found.mean(axis=0) - [500, 300, 200, 50, 100, 700]) / told, 0.0, atol=4 / np.sqrt(500))


def test_what_is_not_in_view_or_not_told_apart_is_nan():
    order, weight = seen()
    upper = slice(24, 40)
    weights = unmixing_weights(shares_at(order[:, upper], weight[:, upper], COMPONENTS), np.ones((16, 12), bool))
    assert np.isnan(weights[2]).all()
    assert np.isfinite(weights[[0, 1, 4, 5]]).all()
    flat = np.ones((8, 8, 2))
    assert np.isnan(unmixing_weights(flat, np.ones((8, 8), bool))).all()


def test_leakage_rows_add_up_and_widen_with_the_width():
    order, weight = seen(200)
    probe = np.where(weight[0] > 0.9, COMPONENTS.of_plane[order[0]], -1)

    def matrix(ratio):
        return leakage_matrix(shares_at(order, weight, COMPONENTS, ratio), probe, 5)

    value, std = with_width_error(matrix, 0.1)
    np.testing.assert_allclose(value.sum(axis=1), 1.0)
    assert (np.diag(value) > 0.6).all()
    assert (std[np.diag_indices(5)] > 0.01).all()
    assert matrix(1.3)[2, 3] > value[2, 3] > matrix(0.7)[2, 3]
    np.testing.assert_allclose(std, 0.5 * np.abs(matrix(1.1) - matrix(0.9)))
    nowhere = leakage_matrix(shares_at(order, weight, COMPONENTS), np.full_like(probe, -1), 5)
    assert np.isnan(nowhere).all()


def test_errors_of_a_given_matrix_are_carried():
    random = np.random.default_rng(1)
    matrix = np.array([[0.9, 0.1, 0.0], [0.15, 0.7, 0.15], [0.0, 0.2, 0.8]])
    std = np.full((3, 3), 0.01)
    pure = np.array([[100.0, 10.0], [50.0, 40.0], [5.0, 80.0]])
    noise = np.full((3, 2), 0.5)
    found, counting, syst = unmix_by_matrix(matrix, std, matrix @ pure, noise)
    np.testing.assert_allclose(found, pure)
    draws = np.array([
        unmix_by_matrix(matrix + std * random.normal(size=(3, 3)), std, matrix @ pure, noise)[0] for _ in range(2000)
    ])  # fmt: skip
    np.testing.assert_allclose(draws.std(axis=0) / syst, 1.0, atol=0.08)
    draws = np.array([
        unmix_by_matrix(matrix, std, matrix @ pure + noise * random.normal(size=(3, 2)), noise)[0] for _ in range(2000)
    ])  # fmt: skip
    np.testing.assert_allclose(draws.std(axis=0) / counting, 1.0, atol=0.08)
    with pytest.raises(ValueError, match="cannot be inverted"):
        unmix_by_matrix(np.full((3, 3), 1 / 3), std, pure, noise)
