"""Levenberg-Marquardt for one spectrum, bounds by an active set."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.forward import correction_lines, evaluate
from phonon_eels.kernels.likelihood import (
    CONVERGED,
    MAX_ITERATIONS,
    NO_DATA,
    SINGULAR,
    dot,
    finish,
    normal_equations,
    objective,
)
from phonon_eels.kernels.linear import cholesky, solve_factored

ENOUGH = 1e-4
"""A step that lowers the objective by less ends the fit: it moves no parameter by more than 0.01 standard deviations."""
FIRST_DAMPING = 1e-3
LEAST_DAMPING = 1e-9
TRIALS = 12


@kernel
def active_set(
    params: np.ndarray,
    free: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    jacobian: np.ndarray,
    weight: np.ndarray,
    residual: np.ndarray,
    weighted: np.ndarray,
    index: np.ndarray,
) -> int:
    """Write the free parameters that no bound holds back into `index`; return their number."""
    n_index = 0
    for p in range(params.shape[0]):
        if not free[p]:
            continue
        if params[p] <= lower[p] or params[p] >= upper[p]:
            for i in range(weight.shape[0]):
                weighted[i] = weight[i] * residual[i]
            slope = dot(weighted, jacobian[p]) - prior_precision[p] * (params[p] - prior_mean[p])
            if (params[p] <= lower[p] and slope <= 0.0) or (params[p] >= upper[p] and slope >= 0.0):
                continue
        index[n_index] = p
        n_index += 1
    return n_index


@kernel
def damped_step(
    matrix: np.ndarray, gradient: np.ndarray, n_index: int, damping: float, damped: np.ndarray, step: np.ndarray
) -> int:
    """Write the step of the damped normal equations; return 0, or 1 if they are singular."""
    for a in range(n_index):
        for b in range(n_index):
            damped[a, b] = matrix[a, b]
        damped[a, a] += damping * matrix[a, a] + 1e-300
        step[a] = gradient[a]
    if cholesky(damped, n_index) != 0:
        return 1
    return solve_factored(damped, n_index, step)


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
    evaluate(
        params,
        energies_mev,
        dispersion_mev,
        reference,
        tables,
        first_node_mev,
        node_step_mev,
        corrections,
        jacobian,
        model,
    )
    value = objective(z, variance, model, shift_e, likelihood, params, prior_mean, prior_precision, weight, residual)
    damping = FIRST_DAMPING
    status = MAX_ITERATIONS
    iterations = 0
    n_index = 0
    while iterations < max_iterations:
        iterations += 1
        n_index = active_set(
            params, free, lower, upper, prior_mean, prior_precision, jacobian, weight, residual, weighted, index
        )
        if n_index == 0:
            status = SINGULAR
            break
        normal_equations(
            jacobian, weight, residual, index, n_index, params, prior_mean, prior_precision, weighted, matrix, gradient
        )
        accepted = False
        predicted = 0.0
        for _ in range(TRIALS):
            if damped_step(matrix, gradient, n_index, damping, damped, step) == 0:
                predicted = 0.0
                trial[:] = params
                for a in range(n_index):
                    p = index[a]
                    predicted += step[a] * gradient[a]
                    trial[p] = min(max(params[p] + step[a], lower[p]), upper[p])
                evaluate(
                    trial, energies_mev, dispersion_mev, reference, tables, first_node_mev, node_step_mev, corrections,
                    jacobian, model,
                )  # fmt: skip
                new = objective(
                    z, variance, model, shift_e, likelihood, trial, prior_mean, prior_precision, weight, residual
                )
                if new <= value + 1e-9 * abs(value):
                    accepted = True
                    value = new
                    params[:] = trial
                    damping = max(0.1 * damping, LEAST_DAMPING)
                    break
            damping = max(10.0 * damping, 1e-6)
        if not accepted:
            evaluate(
                params, energies_mev, dispersion_mev, reference, tables, first_node_mev, node_step_mev, corrections, jacobian,
                model,
            )  # fmt: skip
            objective(z, variance, model, shift_e, likelihood, params, prior_mean, prior_precision, weight, residual)
            status = CONVERGED if predicted < 100.0 * ENOUGH else SINGULAR
            break
        if predicted < ENOUGH:
            status = CONVERGED
            break
    outcome[0] = value
    outcome[1] = 0.0
    outcome[2] = 0.0
    outcome[3] = iterations
    for i in range(z.shape[0]):
        outcome[1] += weight[i] * residual[i] * residual[i]
        outcome[2] += weight[i] > 0.0
    if outcome[2] <= n_index:
        return NO_DATA
    return finish(
        jacobian, weight, residual, index, n_index, free, params, prior_mean, prior_precision, weighted, matrices, columns,
        std, status,
    )  # fmt: skip
