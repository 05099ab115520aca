"""Small dense linear algebra on views: Cholesky factor, solve, inverse."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel


@kernel
def copy_values(source: np.ndarray, target: np.ndarray) -> int:
    """Copy a vector; an assignment of slices would allocate, which a GPU cannot."""
    for i in range(target.shape[0]):
        target[i] = source[i]
    return 0


@kernel
def cholesky(matrix: np.ndarray, n: int) -> int:
    """Factor the leading n × n block in place (lower triangle); return 0, or 1 if it is not positive definite."""
    for j in range(n):
        diagonal = matrix[j, j]
        for k in range(j):
            diagonal -= matrix[j, k] * matrix[j, k]
        if not diagonal > 1e-14 * abs(matrix[j, j]) or not math.isfinite(diagonal):
            return 1
        root = math.sqrt(diagonal)
        matrix[j, j] = root
        for i in range(j + 1, n):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = value / root
    return 0


@kernel
def solve_factored(factor: np.ndarray, n: int, rhs: np.ndarray) -> int:
    """Solve L Lᵀ x = rhs in place, L from `cholesky`."""
    for i in range(n):
        value = rhs[i]
        for k in range(i):
            value -= factor[i, k] * rhs[k]
        rhs[i] = value / factor[i, i]
    for i in range(n - 1, -1, -1):
        value = rhs[i]
        for k in range(i + 1, n):
            value -= factor[k, i] * rhs[k]
        rhs[i] = value / factor[i, i]
    return 0


@kernel
def forward_substitute(factor: np.ndarray, n: int, rhs: np.ndarray) -> int:
    """Solve L x = rhs in place, L from `cholesky`."""
    for i in range(n):
        value = rhs[i]
        for k in range(i):
            value -= factor[i, k] * rhs[k]
        rhs[i] = value / factor[i, i]
    return 0
