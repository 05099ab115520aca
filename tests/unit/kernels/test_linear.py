"""Small dense algebra against NumPy."""

import numpy as np
import pytest

from phonon_eels.kernels.linear import cholesky, forward_substitute, solve_factored


def _matrix(n, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n + 3))
    return a @ a.T


@pytest.mark.parametrize("n", [1, 2, 7, 25])
def test_factor_and_solve(n):
    matrix, rhs = _matrix(n), np.random.default_rng(1).normal(size=n)
    factor, x, y = matrix.copy(), rhs.copy(), rhs.copy()
    assert cholesky(factor, n) == 0
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(matrix), rtol=1e-10, atol=1e-12)
    assert solve_factored(factor, n, x) == 0
    np.testing.assert_allclose(matrix @ x, rhs, rtol=1e-8, atol=1e-10)
    assert forward_substitute(factor, n, y) == 0
    np.testing.assert_allclose(np.tril(factor) @ y, rhs, rtol=1e-8, atol=1e-10)


def test_only_the_leading_block_is_read_and_changed():
    matrix = np.full((5, 5), np.nan)
    matrix[:3, :3] = _matrix(3)
    before = matrix.copy()
    assert cholesky(matrix, 3) == 0
    np.testing.assert_allclose(np.tril(matrix[:3, :3]), np.linalg.cholesky(before[:3, :3]), rtol=1e-10)
    assert np.isnan(matrix[3:]).all()
    assert np.isnan(matrix[:, 3:]).all()


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((2, 2)),
        np.array([[1.0, 1.0], [1.0, 1.0]]),
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        np.array([[-1.0, 0.0], [0.0, 1.0]]),
        np.array([[np.nan, 0.0], [0.0, 1.0]]),
        np.array([[np.inf, 0.0], [0.0, 1.0]]),
    ],
    ids=["zero", "singular", "indefinite", "negative", "nan", "inf"],
)
def test_what_is_not_positive_definite_is_told(matrix):
    assert cholesky(matrix.copy(), 2) == 1


def test_very_different_scales_are_no_reason_to_refuse():
    scale = np.array([1e-8, 1.0, 1e8])
    matrix = _matrix(3) * np.outer(scale, scale)
    factor = matrix.copy()
    assert cholesky(factor, 3) == 0
