"""Likelihoods of one spectrum, their normal equations, and what follows from them."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel, reducing_kernel
from phonon_eels.kernels.elementary import log_array
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.linear import cholesky, forward_substitute, solve_factored

FLOOR_E = 0.02
"""Least expected electrons per channel: keeps weights finite where a trial model turns negative."""

CONVERGED, MAX_ITERATIONS, SINGULAR, NO_DATA, AT_BOUND = 0, 1, 2, 3, 4
POISSON, GAUSSIAN = 0, 1


@reducing_kernel
def dot(left: np.ndarray, right: np.ndarray) -> float:
    """Return the sum of products; the order of the sum is free, so that it runs in all lanes."""
    total = 0.0
    for i in range(left.shape[0]):
        total += left[i] * right[i]
    return total


@kernel
def objective(
    z: np.ndarray,
    variance: np.ndarray,
    model: np.ndarray,
    shift_e: float,
    likelihood: int,
    params: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    weight: np.ndarray,
    residual: np.ndarray,
) -> float:
    """Return minus twice the log likelihood (up to a constant of the data) plus the priors; fill weights and residuals.

    Poisson: the shifted counts z + σ² have mean and variance model + σ² (SCIENCE §9); weight 0 marks unused channels.
    """
    total = 0.0
    n = z.shape[0]
    ratio = np.empty((2, n))
    bits = np.empty(n, np.int64)
    for i in range(n):
        ratio[0, i] = 1.0
        if not math.isfinite(z[i]) or (likelihood == GAUSSIAN and not variance[i] > 0.0):
            weight[i] = 0.0
            residual[i] = 0.0
        elif likelihood == POISSON:
            mean = max(model[i] + shift_e, FLOOR_E)
            shifted = z[i] + shift_e
            weight[i] = 1.0 / mean
            residual[i] = shifted - mean
            ratio[0, i] = shifted / mean if shifted > 0.0 else mean
        else:
            weight[i] = 1.0 / variance[i]
            residual[i] = z[i] - model[i]
            total += residual[i] * residual[i] * weight[i]
    if likelihood == POISSON:
        log_array(ratio[0], ratio[1], bits)
        for i in range(n):
            if weight[i] > 0.0:
                shifted = z[i] + shift_e
                if shifted > 0.0:
                    total += 2.0 * (shifted * ratio[1, i] - residual[i])
                else:  # the saturated term has no logarithm; what depends on the mean is left
                    total += 2.0 * (shifted - residual[i] - shifted * ratio[1, i])
    for p in range(params.shape[0]):
        distance = params[p] - prior_mean[p]
        total += prior_precision[p] * distance * distance
    return total


@kernel
def normal_equations(
    jacobian: np.ndarray,
    weight: np.ndarray,
    residual: np.ndarray,
    index: np.ndarray,
    n_index: int,
    params: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    weighted: np.ndarray,
    matrix: np.ndarray,
    gradient: np.ndarray,
) -> int:
    """Write Fisher matrix and gradient of the parameters in `index`, priors included."""
    n = weight.shape[0]
    for a in range(n_index):
        row = jacobian[index[a]]
        for i in range(n):
            weighted[i] = row[i] * weight[i]
        slope = dot(weighted, residual)
        p = index[a]
        gradient[a] = slope - prior_precision[p] * (params[p] - prior_mean[p])
        for b in range(a + 1):
            total = dot(weighted, jacobian[index[b]])
            matrix[a, b] = total
            matrix[b, a] = total
        matrix[a, a] += prior_precision[p]
    return 0


@kernel
def finish(
    jacobian: np.ndarray,
    weight: np.ndarray,
    residual: np.ndarray,
    index: np.ndarray,
    n_index: int,
    free: np.ndarray,
    params: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    weighted: np.ndarray,
    matrices: np.ndarray,
    columns: np.ndarray,
    std: np.ndarray,
    status: int,
) -> int:
    """Write standard deviations of the parameters in `index`; say if another free one stands at its bound."""
    matrix, factor = matrices[0], matrices[1]
    gradient, column = columns[0], columns[1]
    normal_equations(
        jacobian, weight, residual, index, n_index, params, prior_mean, prior_precision, weighted, matrix, gradient
    )
    for a in range(n_index):
        for b in range(n_index):
            factor[a, b] = matrix[a, b]
    if cholesky(factor, n_index) != 0:
        return SINGULAR
    for a in range(n_index):
        for b in range(n_index):
            column[b] = 1.0 if a == b else 0.0
        forward_substitute(factor, n_index, column)
        total = 0.0
        for b in range(n_index):
            total += column[b] * column[b]
        std[index[a]] = math.sqrt(total)
    n_free = 0
    for p in range(free.shape[0]):
        n_free += free[p] != 0
    return AT_BOUND if status == CONVERGED and n_index < n_free else status


@kernel
def profile_shared(
    jacobian: np.ndarray,
    weight: np.ndarray,
    residual: np.ndarray,
    free: np.ndarray,
    n_modes: int,
    params: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    weighted: np.ndarray,
    matrices: np.ndarray,
    index: np.ndarray,
    columns: np.ndarray,
    score: np.ndarray,  # out (2M,)
    information: np.ndarray,  # out (2M, 2M)
    area_slope: np.ndarray,  # out (M, 2M)
) -> int:
    """Score and information of energies and widths of all modes, this spectrum's own parameters marginalised (Schur complement).

    Called after `fit_one` with the energies and widths fixed. `area_slope` tells how the areas follow when those change.
    """
    n_local = 0
    for p in range(N_LOCAL + n_modes):
        if free[p]:
            index[n_local] = p
            n_local += 1
    total = n_local
    for p in range(N_LOCAL + n_modes, N_LOCAL + 3 * n_modes):
        index[total] = p
        total += 1
    matrix, factor = matrices[0], matrices[1]
    gradient, column = columns[0], columns[1]
    normal_equations(
        jacobian, weight, residual, index, total, params, prior_mean, prior_precision, weighted, matrix, gradient
    )
    for a in range(n_local):
        for b in range(n_local):
            factor[a, b] = matrix[a, b]
    score[:] = 0.0
    information[:, :] = 0.0
    if cholesky(factor, n_local) != 0:
        return SINGULAR
    half = matrices[2]
    for s in range(2 * n_modes):
        for a in range(n_local):
            half[s, a] = matrix[a, n_local + s]
        forward_substitute(factor, n_local, half[s])
    for a in range(n_local):
        column[a] = gradient[a]
    forward_substitute(factor, n_local, column)
    for s in range(2 * n_modes):
        value = gradient[n_local + s]
        for a in range(n_local):
            value -= half[s, a] * column[a]
        score[s] = value
        for t in range(2 * n_modes):
            entry = matrix[n_local + s, n_local + t]
            for a in range(n_local):
                entry -= half[s, a] * half[t, a]
            information[s, t] = entry
    area_slope[:, :] = 0.0
    for s in range(2 * n_modes):
        for a in range(n_local):
            column[a] = matrix[a, n_local + s]
        solve_factored(factor, n_local, column)
        for a in range(n_local):
            if index[a] >= N_LOCAL:
                area_slope[index[a] - N_LOCAL, s] = -column[a]
    return CONVERGED
