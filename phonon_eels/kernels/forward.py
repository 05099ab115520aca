"""The forward fit of one spectrum: zero-loss peak + modes seen through it + background, on raw counts.

Parameters of one spectrum, in this order (M modes):

    0 height   expected electrons per channel at the zero-loss mode
    1 shift    zero-loss mode from the centre of the zero-loss channel, meV
    2 width    ln(FWHM / reference FWHM)
    3 tail+    ln(loss exponent / reference)
    4 tail-    ln(gain exponent / reference)
    5 constant electrons per channel
    6 ramp     electrons per channel and 100 meV, on the loss side
    7 …        M areas, electrons on the loss side
    7+M …      M energies, meV
    7+2M …     M widths, meV from the tabulated width
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.linear import cholesky, forward_substitute, solve_factored
from phonon_eels.kernels.response import PAD_CHANNELS

N_LOCAL = 7
FLOOR_E = 0.02
"""Least expected electrons per channel: keeps weights finite where a trial model turns negative."""

ENOUGH = 1e-4
"""A step that lowers the objective by less ends the fit: it moves no parameter by more than 0.01 standard deviations."""

CONVERGED, MAX_ITERATIONS, SINGULAR, NO_DATA, AT_BOUND = 0, 1, 2, 3, 4
POISSON, GAUSSIAN = 0, 1


@kernel
def cubic_weights(fraction: float, value: np.ndarray, slope: np.ndarray) -> int:
    """Write the weights of the four points -1, 0, 1, 2 for the cubic through them at `fraction`, and their derivatives."""
    f = fraction
    value[0] = -f * (f - 1.0) * (f - 2.0) / 6.0
    value[1] = (f + 1.0) * (f - 1.0) * (f - 2.0) / 2.0
    value[2] = -(f + 1.0) * f * (f - 2.0) / 2.0
    value[3] = (f + 1.0) * f * (f - 1.0) / 6.0
    slope[0] = -(3.0 * f * f - 6.0 * f + 2.0) / 6.0
    slope[1] = (3.0 * f * f - 4.0 * f - 1.0) / 2.0
    slope[2] = -(3.0 * f * f - 2.0 * f - 2.0) / 2.0
    slope[3] = (3.0 * f * f - 1.0) / 6.0
    return 0


@kernel
def mode_cell(energy_mev: float, first_mev: float, step_mev: float, n_nodes: int) -> int:
    """Return the node below an energy, such that the four nodes around it exist."""
    return min(max(int(math.floor((energy_mev - first_mev) / step_mev)), 1), n_nodes - 3)


@kernel
def interpolate_lines(
    tables: np.ndarray,  # (nodes, phases, channels) of one mode and table
    node: int,
    node_weights: np.ndarray,
    shift_cell: int,
    shift_weights: np.ndarray,
    out: np.ndarray,
) -> int:
    """Add the interpolated line to `out`."""
    phases = tables.shape[1]
    n = out.shape[0]
    for a in range(4):
        for b in range(4):
            weight = node_weights[a] * shift_weights[b]
            fine = shift_cell - 1 + b
            channel = fine // phases
            row = tables[node - 1 + a, fine - channel * phases, PAD_CHANNELS + channel : PAD_CHANNELS + channel + n]
            for i in range(n):
                out[i] += weight * row[i]
    return 0


@kernel
def correction_lines(
    params: np.ndarray,
    tables: np.ndarray,  # (modes, 5, nodes, phases, channels)
    first_node_mev: np.ndarray,
    node_step_mev: float,
    dispersion_mev: float,
    corrections: np.ndarray,  # out (modes, 4, channels)
) -> int:
    """Tabulate the derivative lines at the starting energies and shift; they stay fixed during a fit.

    A mode's line changes by a few per cent with width and tails, so their dependence on the last tenths of
    a meV is of second order (< 1e-4 of the line).
    """
    wa = np.empty(4)
    wb = np.empty(4)
    da = np.empty(4)
    db = np.empty(4)
    n_modes = tables.shape[0]
    position = -params[1] * tables.shape[3] / dispersion_mev
    cell = int(math.floor(position))
    cubic_weights(position - cell, wb, db)
    corrections[:, :, :] = 0.0
    for m in range(n_modes):
        energy = params[N_LOCAL + n_modes + m]
        node = mode_cell(energy, first_node_mev[m], node_step_mev, tables.shape[2])
        cubic_weights((energy - first_node_mev[m]) / node_step_mev - node, wa, da)
        for t in range(4):
            interpolate_lines(tables[m, t + 1], node, wa, cell, wb, corrections[m, t])
    return 0


@kernel
def zero_loss_rows(
    params: np.ndarray,
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,  # FWHM, loss exponent, gain exponent
    jacobian: np.ndarray,
    model: np.ndarray,
) -> int:
    """Write the zero-loss peak into `model` and its derivatives into rows 0 to 4.

    A channel is averaged by two Gauss-Legendre points, exact to third order, so that peaks two channels wide come out right.
    """
    height = params[0]
    width = reference[0] * math.exp(params[2])
    offset = dispersion_mev / (2.0 * math.sqrt(3.0))
    for i in range(energies_mev.shape[0]):
        total = 0.0
        by_shift = 0.0
        by_width = 0.0
        by_loss = 0.0
        by_gain = 0.0
        for k in range(2):
            x = energies_mev[i] - params[1] + (offset if k else -offset)
            side = 3 if x > 0.0 else 4
            tail = reference[side - 2] * math.exp(params[side])
            root = math.exp(math.log(2.0) / tail)
            curvature = root - 1.0
            ratio = 2.0 * x / width
            q = ratio * ratio
            s = 1.0 + curvature * q
            log_s = math.log(s)
            value = 0.5 * math.exp(-tail * log_s)
            common = 2.0 * value * tail * curvature * q / s
            total += value
            by_width += common
            if x != 0.0:
                by_shift += common / x
            change = value * (-tail * log_s + q * math.log(2.0) * root / s)
            if side == 3:
                by_loss += change
            else:
                by_gain += change
        model[i] = height * total
        jacobian[0, i] = total
        jacobian[1, i] = height * by_shift
        jacobian[2, i] = height * by_width
        jacobian[3, i] = height * by_loss
        jacobian[4, i] = height * by_gain
    return 0


@kernel
def evaluate(
    params: np.ndarray,
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,
    tables: np.ndarray,
    first_node_mev: np.ndarray,
    node_step_mev: float,
    corrections: np.ndarray,
    jacobian: np.ndarray,
    model: np.ndarray,
) -> int:
    """Write model (n,) and all rows of the Jacobian (parameters, n)."""
    n = energies_mev.shape[0]
    n_modes = tables.shape[0]
    zero_loss_rows(params, energies_mev, dispersion_mev, reference, jacobian, model)
    for i in range(n):
        ramp = max(energies_mev[i], 0.0) * 0.01
        jacobian[5, i] = 1.0
        jacobian[6, i] = ramp
        model[i] += params[5] + params[6] * ramp
    wa = np.empty(4)
    wb = np.empty(4)
    da = np.empty(4)
    db = np.empty(4)
    phases = tables.shape[3]
    position = -params[1] * phases / dispersion_mev
    cell = int(math.floor(position))
    cubic_weights(position - cell, wb, db)
    by_shift = -phases / dispersion_mev
    for m in range(n_modes):
        area = params[N_LOCAL + m]
        energy = params[N_LOCAL + n_modes + m]
        extra = params[N_LOCAL + 2 * n_modes + m]
        row_area = jacobian[N_LOCAL + m]
        row_energy = jacobian[N_LOCAL + n_modes + m]
        row_width = jacobian[N_LOCAL + 2 * n_modes + m]
        correction = corrections[m]
        node = mode_cell(energy, first_node_mev[m], node_step_mev, tables.shape[2])
        cubic_weights((energy - first_node_mev[m]) / node_step_mev - node, wa, da)
        for i in range(n):
            row_area[i] = (
                params[2] * correction[0, i]
                + params[3] * correction[1, i]
                + params[4] * correction[2, i]
                + extra * correction[3, i]
            )
            row_energy[i] = 0.0
            row_width[i] = area * correction[3, i]
        for a in range(4):
            for b in range(4):
                weight = wa[a] * wb[b]
                weight_energy = area * da[a] / node_step_mev * wb[b]
                weight_shift = area * wa[a] * db[b] * by_shift
                fine = cell - 1 + b
                channel = fine // phases
                row = tables[m, 0, node - 1 + a, fine - channel * phases, PAD_CHANNELS + channel : PAD_CHANNELS + channel + n]
                for i in range(n):
                    row_area[i] += weight * row[i]
                    row_energy[i] += weight_energy * row[i]
                    jacobian[1, i] += weight_shift * row[i]
        for i in range(n):
            model[i] += area * row_area[i]
            jacobian[2, i] += area * correction[0, i]
            jacobian[3, i] += area * correction[1, i]
            jacobian[4, i] += area * correction[2, i]
    return 0


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
    for i in range(z.shape[0]):
        if not math.isfinite(z[i]) or (likelihood == GAUSSIAN and not variance[i] > 0.0):
            weight[i] = 0.0
            residual[i] = 0.0
        elif likelihood == POISSON:
            mean = max(model[i] + shift_e, FLOOR_E)
            shifted = z[i] + shift_e
            weight[i] = 1.0 / mean
            residual[i] = shifted - mean
            if shifted > 0.0:
                total += 2.0 * (mean - shifted + shifted * math.log(shifted / mean))
            else:
                total += 2.0 * (mean - shifted * math.log(mean))
        else:
            weight[i] = 1.0 / variance[i]
            residual[i] = z[i] - model[i]
            total += residual[i] * residual[i] * weight[i]
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
        slope = 0.0
        for i in range(n):
            weighted[i] = row[i] * weight[i]
        for i in range(n):
            slope += weighted[i] * residual[i]
        p = index[a]
        gradient[a] = slope - prior_precision[p] * (params[p] - prior_mean[p])
        for b in range(a + 1):
            other = jacobian[index[b]]
            total = 0.0
            for i in range(n):
                total += weighted[i] * other[i]
            matrix[a, b] = total
            matrix[b, a] = total
        matrix[a, a] += prior_precision[p]
    return 0


@kernel
def fit_one(
    z: np.ndarray,
    variance: np.ndarray,
    shift_e: float,
    likelihood: int,
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,
    tables: np.ndarray,
    first_node_mev: np.ndarray,
    node_step_mev: float,
    free: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    max_iterations: int,
    params: np.ndarray,
    std: np.ndarray,
    jacobian: np.ndarray,
    corrections: np.ndarray,
    vectors: np.ndarray,  # scratch (5, n)
    matrices: np.ndarray,  # scratch (3, P, P)
    columns: np.ndarray,  # scratch (4, P)
    index: np.ndarray,  # scratch (P,) of integers
    outcome: np.ndarray,  # out: objective, Pearson chi², channels used, iterations
) -> int:
    """Fit one spectrum by Levenberg-Marquardt with an active set for the bounds; return the status.

    `params` holds the start and receives the estimate, `std` the standard deviations from the Fisher matrix
    (NaN where fixed or at a bound). Afterwards `jacobian`, `vectors[1]` (weights) and `vectors[2]` (residuals) belong
    to the estimate.
    """
    n_params = params.shape[0]
    model, weight, residual, weighted = vectors[0], vectors[1], vectors[2], vectors[3]
    matrix, damped = matrices[0], matrices[1]
    gradient, step, trial = columns[0], columns[1], columns[2]
    for p in range(n_params):
        std[p] = math.nan
        params[p] = min(max(params[p], lower[p]), upper[p])
    correction_lines(params, tables, first_node_mev, node_step_mev, dispersion_mev, corrections)
    evaluate(params, energies_mev, dispersion_mev, reference, tables, first_node_mev, node_step_mev, corrections, jacobian, model)
    value = objective(z, variance, model, shift_e, likelihood, params, prior_mean, prior_precision, weight, residual)
    damping = 1e-3
    status = MAX_ITERATIONS
    iterations = 0
    n_index = 0
    while iterations < max_iterations:
        iterations += 1
        n_index = 0
        for p in range(n_params):
            if free[p]:
                slope = -prior_precision[p] * (params[p] - prior_mean[p])
                if params[p] <= lower[p] or params[p] >= upper[p]:
                    row = jacobian[p]
                    for i in range(z.shape[0]):
                        slope += row[i] * weight[i] * residual[i]
                    if (params[p] <= lower[p] and slope <= 0.0) or (params[p] >= upper[p] and slope >= 0.0):
                        continue  # pushed against its bound: out of this step
                index[n_index] = p
                n_index += 1
        if n_index == 0:
            status = SINGULAR
            break
        normal_equations(
            jacobian, weight, residual, index, n_index, params, prior_mean, prior_precision, weighted, matrix, gradient
        )
        accepted = False
        predicted = 0.0
        for _ in range(12):
            for a in range(n_index):
                for b in range(n_index):
                    damped[a, b] = matrix[a, b]
                damped[a, a] += damping * matrix[a, a] + 1e-300
                step[a] = gradient[a]
            if cholesky(damped, n_index) != 0:
                damping = max(10.0 * damping, 1e-6)
                continue
            solve_factored(damped, n_index, step)
            for p in range(n_params):
                trial[p] = params[p]
            predicted = 0.0
            for a in range(n_index):
                p = index[a]
                predicted += step[a] * gradient[a]
                trial[p] = min(max(params[p] + step[a], lower[p]), upper[p])
            evaluate(
                trial, energies_mev, dispersion_mev, reference, tables, first_node_mev, node_step_mev, corrections, jacobian, model
            )
            new = objective(z, variance, model, shift_e, likelihood, trial, prior_mean, prior_precision, weight, residual)
            if new <= value + 1e-9 * abs(value):
                accepted = True
                value = new
                for p in range(n_params):
                    params[p] = trial[p]
                damping = max(0.1 * damping, 1e-9)
                break
            damping = max(10.0 * damping, 1e-6)
        if not accepted:
            evaluate(
                params, energies_mev, dispersion_mev, reference, tables, first_node_mev, node_step_mev, corrections, jacobian, model
            )
            objective(z, variance, model, shift_e, likelihood, params, prior_mean, prior_precision, weight, residual)
            status = CONVERGED if predicted < 1e-2 else SINGULAR
            break
        if predicted < ENOUGH:
            status = CONVERGED
            break
    chi_squared = 0.0
    used = 0
    for i in range(z.shape[0]):
        chi_squared += weight[i] * residual[i] * residual[i]
        used += weight[i] > 0.0
    outcome[0], outcome[1], outcome[2], outcome[3] = value, chi_squared, used, iterations
    if used <= n_index:
        return NO_DATA
    return finish(
        jacobian, weight, residual, index, n_index, free, params, prior_mean, prior_precision, weighted, matrices, columns, std, status
    )


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
    normal_equations(jacobian, weight, residual, index, n_index, params, prior_mean, prior_precision, weighted, matrix, gradient)
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
    normal_equations(jacobian, weight, residual, index, total, params, prior_mean, prior_precision, weighted, matrix, gradient)
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
