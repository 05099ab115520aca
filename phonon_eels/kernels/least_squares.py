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
def assess(
    params: np.ndarray,
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
    corrections: np.ndarray,
    prior_mean: np.ndarray,
    prior_precision: np.ndarray,
    jacobian: np.ndarray,
    vectors: np.ndarray,
) -> float:
    """Evaluate the model at `params`; return the objective, leave Jacobian, weights and residuals."""
    evaluate(
        params, energies_mev, dispersion_mev, reference, tables, first_node_mev, node_step_mev, corrections, jacobian,
        vectors[0],
    )  # fmt: skip
    return objective(
        z, variance, vectors[0], shift_e, likelihood, params, prior_mean, prior_precision, vectors[1], vectors[2]
    )


@kernel
def propose(
    params: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    index: np.ndarray,
    n_index: int,
    step: np.ndarray,
    gradient: np.ndarray,
    trial: np.ndarray,
) -> float:
    """Write the parameters after a step, kept inside the bounds; return the decrease that the step predicts."""
    predicted = 0.0
    trial[:] = params
    for a in range(n_index):
        p = index[a]
        predicted += step[a] * gradient[a]
        trial[p] = min(max(params[p] + step[a], lower[p]), upper[p])
    return predicted


@kernel
def next_damping(damping: float, gained: float, predicted: float) -> float:
    """Return the damping after an accepted step.

    The expected Hessian overshoots where a weak peak's energy is ill known: where much less was gained than predicted,
    steps are shortened, or they would go to and fro for ever.
    """
    if gained < 0.25 * predicted and predicted > ENOUGH:
        return max(4.0 * damping, FIRST_DAMPING)
    return max(0.1 * damping, LEAST_DAMPING)


@kernel
def sum_up(vectors: np.ndarray, value: float, iterations: int, outcome: np.ndarray) -> int:
    """Write objective, Pearson's chi-squared, channels used and iterations; return the channels used."""
    used = 0
    chi_squared = 0.0
    for i in range(vectors.shape[1]):
        chi_squared += vectors[1, i] * vectors[2, i] * vectors[2, i]
        used += vectors[1, i] > 0.0
    outcome[0], outcome[1], outcome[2], outcome[3] = value, chi_squared, used, iterations
    return used


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
    weight, residual, weighted = vectors[1], vectors[2], vectors[3]
    gradient, step, trial = columns[0], columns[1], columns[2]
    std[:] = math.nan
    for p in range(params.shape[0]):
        params[p] = min(max(params[p], lower[p]), upper[p])
    correction_lines(params, tables, first_node_mev, node_step_mev, dispersion_mev, corrections)
    value = assess(
        params, z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, tables, first_node_mev,
        node_step_mev, corrections, prior_mean, prior_precision, jacobian, vectors,
    )  # fmt: skip
    damping, predicted = FIRST_DAMPING, 0.0
    status, iterations, n_index, rejected = MAX_ITERATIONS, 0, 0, 0
    while iterations < max_iterations:
        if rejected == 0:
            iterations += 1
            n_index = active_set(
                params, free, lower, upper, prior_mean, prior_precision, jacobian, weight, residual, weighted, index
            )
            normal_equations(
                jacobian, weight, residual, index, n_index, params, prior_mean, prior_precision, weighted, matrices[0],
                gradient,
            )  # fmt: skip
        if n_index == 0 or rejected == TRIALS:
            status = CONVERGED if 0 < n_index and predicted < 100.0 * ENOUGH else SINGULAR
            break
        if damped_step(matrices[0], gradient, n_index, damping, matrices[1], step) == 0:
            predicted = propose(params, lower, upper, index, n_index, step, gradient, trial)
            new = assess(
                trial, z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, tables, first_node_mev,
                node_step_mev, corrections, prior_mean, prior_precision, jacobian, vectors,
            )  # fmt: skip
            if new <= value + 1e-9 * abs(value):
                damping = next_damping(damping, value - new, predicted)
                value, rejected = new, 0
                params[:] = trial
                if predicted < ENOUGH:
                    status = CONVERGED
                    break
                continue
        rejected += 1
        damping = max(10.0 * damping, 1e-6)
    if rejected > 0:  # what the last trial left belongs to a point that was not taken
        assess(
            params, z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, tables, first_node_mev,
            node_step_mev, corrections, prior_mean, prior_precision, jacobian, vectors,
        )  # fmt: skip
    if sum_up(vectors, value, iterations, outcome) <= free.sum():
        return NO_DATA
    return finish(
        jacobian, weight, residual, index, n_index, free, params, prior_mean, prior_precision, weighted, matrices, columns,
        std, status,
    )  # fmt: skip
