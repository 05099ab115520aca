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
    work: np.ndarray,
    bits: np.ndarray,
) -> float:
    """Return minus twice the log likelihood (up to a constant of the data) plus the priors; fill weights and residuals.

    Poisson: the shifted counts z + σ² have mean and variance model + σ² (SCIENCE §9); weight 0 marks unused channels.
    """
    total = 0.0
    n = z.shape[0]
    ratio, logs = work[:n], work[n : 2 * n]
    for i in range(n):
        ratio[i] = 1.0
        if not math.isfinite(z[i]) or (likelihood == GAUSSIAN and not variance[i] > 0.0):
            weight[i] = 0.0
            residual[i] = 0.0
        elif likelihood == POISSON:
            mean = max(model[i] + shift_e, FLOOR_E)
            shifted = z[i] + shift_e
            weight[i] = 1.0 / mean
            residual[i] = shifted - mean
            ratio[i] = shifted / mean if shifted > 0.0 else mean
        else:
            weight[i] = 1.0 / variance[i]
            residual[i] = z[i] - model[i]
            total += residual[i] * residual[i] * weight[i]
    if likelihood == POISSON:
        log_array(ratio, logs, bits[:n])
        for i in range(n):
            if weight[i] > 0.0:
                shifted = z[i] + shift_e
                if shifted > 0.0:
                    total += 2.0 * (shifted * logs[i] - residual[i])
                else:  # the saturated term has no logarithm; what depends on the mean is left
                    total += 2.0 * (shifted - residual[i] - shifted * logs[i])
    for p in range(params.shape[0]):
        distance = params[p] - prior_mean[p]
        total += prior_precision[p] * distance * distance
    return total


@kernel
def scale_row(row: np.ndarray, root: np.ndarray, out: np.ndarray) -> int:
    """Write the product of two rows."""
    for i in range(out.shape[0]):
        out[i] = row[i] * root[i]
    return 0


@reducing_kernel
def gram(rows: np.ndarray, count: int, matrix: np.ndarray) -> int:
    """Write the products of all pairs of rows into a lower triangle; `count` is a multiple of four.

    Two rows times four at a time: six loads serve eight multiply-adds, and the sums stay in registers.
    """
    n = rows.shape[1]
    for a in range(0, count, 2):
        x0, x1 = rows[a], rows[a + 1]
        for b in range(0, a + 2, 4):
            y0, y1, y2, y3 = rows[b], rows[b + 1], rows[b + 2], rows[b + 3]
            s00, s01, s02, s03, s10, s11, s12, s13 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(n):
                s00 += x0[i] * y0[i]
                s01 += x0[i] * y1[i]
                s02 += x0[i] * y2[i]
                s03 += x0[i] * y3[i]
                s10 += x1[i] * y0[i]
                s11 += x1[i] * y1[i]
                s12 += x1[i] * y2[i]
                s13 += x1[i] * y3[i]
            matrix[a, b], matrix[a, b + 1], matrix[a, b + 2], matrix[a, b + 3] = s00, s01, s02, s03
            matrix[a + 1, b], matrix[a + 1, b + 1], matrix[a + 1, b + 2], matrix[a + 1, b + 3] = s10, s11, s12, s13
    return 0


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
    rows: np.ndarray,  # scratch (parameters + 5, n)
    matrix: np.ndarray,  # out (parameters + 4, parameters + 4), the leading block
    gradient: np.ndarray,
) -> int:
    """Write Fisher matrix and gradient of the parameters in `index`, priors included.

    `rows` keeps their derivatives over the noise, and behind them the residuals over the noise.
    """
    n = weight.shape[0]
    count = (n_index + 4) // 4 * 4
    root = rows[count]
    for i in range(n):
        root[i] = math.sqrt(weight[i])
    for a in range(n_index + 1, count):
        rows[a, :] = 0.0
    for a in range(n_index):
        scale_row(jacobian[index[a]], root, rows[a])
    scale_row(residual, root, rows[n_index])
    gram(rows, count, matrix)
    for a in range(n_index):
        p = index[a]
        gradient[a] = matrix[n_index, a] - prior_precision[p] * (params[p] - prior_mean[p])
        matrix[a, a] += prior_precision[p]
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    return 0


@kernel
def spread_row(row: np.ndarray, weight: np.ndarray, shift_e: float, lags: np.ndarray, out: np.ndarray) -> int:
    """Apply the covariance of the noise, in units of its deviations, to a row.

    Electrons are shared by neighbouring channels with correlations `lags` (sum over both sides 1), read noise is not;
    `lags` of length 0 stands for independent channels.
    """
    n = row.shape[0]
    for i in range(n):
        out[i] = row[i]
    if lags.shape[0] == 0:
        return 0
    for i in range(n):
        own = max(1.0 - shift_e * weight[i], 0.0)
        total = lags[0] * own * row[i]
        for d in range(1, lags.shape[0]):
            if i >= d:
                total += lags[d] * math.sqrt(own * max(1.0 - shift_e * weight[i - d], 0.0)) * row[i - d]
            if i + d < n:
                total += lags[d] * math.sqrt(own * max(1.0 - shift_e * weight[i + d], 0.0)) * row[i + d]
        out[i] = total + (1.0 - own) * row[i]
    return 0


@kernel
def deviations(
    rows: np.ndarray,
    weight: np.ndarray,
    shift_e: float,
    lags: np.ndarray,
    index: np.ndarray,
    n_index: int,
    prior_precision: np.ndarray,
    matrices: np.ndarray,
    spread: np.ndarray,
    std: np.ndarray,
) -> float:
    """Write standard deviations of the parameters in `index` from the Fisher matrix `matrices[0]`.

    Returns how much of chi-squared the fit takes, for independent channels the number of parameters less what priors
    tell of them; -1 if the matrix is singular.

    Where channels share noise (`lags`), the covariance is F⁻¹ (B + P) F⁻¹ with B that of the score and P the priors:
    the sandwich of Huber (Proc. Fifth Berkeley Symp. 1, 221, 1967), with the noise known.
    """
    matrix, factor, inverse, meat = matrices[0], matrices[1], matrices[2], matrices[3]
    for a in range(n_index):
        for b in range(a + 1):
            factor[a, b] = matrix[a, b]
    if cholesky(factor, n_index) != 0:
        return -1.0
    taken = 0.0
    for a in range(n_index):  # row by row: L⁻¹
        for b in range(a):
            value = 0.0
            for c in range(b, a):
                value += factor[a, c] * inverse[c, b]
            inverse[a, b] = -value / factor[a, a]
        inverse[a, a] = 1.0 / factor[a, a]
    if lags.shape[0] == 0:
        for a in range(n_index):
            total = 0.0
            for b in range(a, n_index):
                total += inverse[b, a] * inverse[b, a]
            std[index[a]] = math.sqrt(total)
            taken += 1.0 - prior_precision[index[a]] * total
        return taken
    for a in range(n_index):
        for b in range(n_index):
            inverse[a, b] = 1.0 if a == b else 0.0
        solve_factored(factor, n_index, inverse[a])
    for b in range(n_index):
        spread_row(rows[b], weight, shift_e, lags, spread)
        for a in range(n_index):
            meat[a, b] = dot(rows[a], spread)
        meat[b, b] += prior_precision[index[b]]
    half = matrix  # F⁻¹ (B + P); the Fisher matrix is of no more use
    for a in range(n_index):
        for b in range(n_index):
            total = 0.0
            for c in range(n_index):
                total += inverse[a, c] * meat[c, b]
            half[a, b] = total
    for a in range(n_index):
        variance = 0.0
        for b in range(n_index):
            variance += half[a, b] * inverse[b, a]
        std[index[a]] = math.sqrt(max(variance, 0.0))
        taken += half[a, a] + prior_precision[index[a]] * (variance - 2.0 * inverse[a, a])
    return taken


@kernel
def sum_up(
    weight: np.ndarray,
    residual: np.ndarray,
    shift_e: float,
    lags: np.ndarray,
    likelihood: int,
    value: float,
    iterations: int,
    outcome: np.ndarray,
) -> int:
    """Write objective, Pearson's chi-squared, channels used, iterations, and chi-squared's mean and variance without a fit.

    The variance holds the fourth cumulant of electrons, which at few counts is most of it, and what channels share.
    Returns the channels used.
    """
    n = weight.shape[0]
    used = 0
    chi_squared, mean, variance = 0.0, 0.0, 0.0
    alone = lags.shape[0] == 0 or likelihood == GAUSSIAN
    for i in range(n):
        if not weight[i] > 0.0:
            continue
        used += 1
        chi_squared += weight[i] * residual[i] * residual[i]
        own = max(1.0 - shift_e * weight[i], 0.0) if likelihood == POISSON else 0.0
        share = 1.0 if alone else lags[0] * own + 1.0 - own
        mean += share
        variance += 2.0 * share * share
        variance += own * weight[i] if alone else lags[0] * lags[0] * own * weight[i]
        if not alone:
            for d in range(1, min(lags.shape[0], n - i)):
                if weight[i + d] > 0.0:
                    other = max(1.0 - shift_e * weight[i + d], 0.0)
                    variance += 4.0 * lags[d] * lags[d] * own * other
    outcome[0], outcome[1], outcome[2], outcome[3] = value, chi_squared, used, iterations
    outcome[4], outcome[5] = mean, variance
    return used


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
    rows: np.ndarray,
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
        jacobian, weight, residual, index, total, params, prior_mean, prior_precision, rows, matrix, gradient
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
