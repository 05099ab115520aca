"""Levenberg-Marquardt for one spectrum, bounds by an active set."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.forward import correction_lines, evaluate
from phonon_eels.kernels.interpolation import add_scaled
from phonon_eels.kernels.likelihood import (
    AT_BOUND,
    CONVERGED,
    MAX_ITERATIONS,
    NO_DATA,
    SINGULAR,
    deviations,
    dot,
    normal_equations,
    objective,
    sum_up,
)
from phonon_eels.kernels.linear import cholesky, copy_values, solve_factored

Array = np.ndarray

ENOUGH = 1e-4
"""A step that would lower the objective by less is the last: it moves no parameter by more than 0.01 standard deviations,
and what remains after it is smaller again by the share of the curvature that the Fisher matrix misses."""
FIRST_DAMPING = 1e-3
LEAST_DAMPING = 1e-9
TRIALS = 12


@kernel
def add_followers(free: Array, jacobian: Array) -> int:
    """Add the derivatives of parameters that follow another one (`fit_one`) to that one's, whose step moves them all."""
    for p in range(free.shape[0]):
        if free[p] < 0:
            add_scaled(1.0, jacobian[p], jacobian[-free[p] - 1])
    return 0


@kernel
def active_set(
    params: Array,
    free: Array,
    lower: Array,
    upper: Array,
    prior_mean: Array,
    prior_precision: Array,
    jacobian: Array,
    weight: Array,
    residual: Array,
    weighted: Array,
    index: Array,
) -> int:
    """Write the free parameters that no bound holds back into `index`; return their number."""
    n_index = 0
    for p in range(params.shape[0]):
        if free[p] <= 0:
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
def damped_step(matrix: Array, gradient: Array, n_index: int, damping: float, damped: Array, step: Array) -> int:
    """Write the step of the damped normal equations; return 0, or 1 if they are singular."""
    for a in range(n_index):
        for b in range(a + 1):
            damped[a, b] = matrix[a, b]
        damped[a, a] += damping * matrix[a, a] + 1e-300
        step[a] = gradient[a]
    if cholesky(damped, n_index) != 0:
        return 1
    return solve_factored(damped, n_index, step)


@kernel
def assess(
    params: Array, free: Array, z: Array, variance: Array, shift_e: float, likelihood: int,
    energies_mev: Array, dispersion_mev: float, reference: Array, background: Array, kind: int,
    factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float,
    corrections: Array, prior_mean: Array, prior_precision: Array, jacobian: Array,
    vectors: Array, work: Array, bits: Array,
) -> float:  # fmt: skip
    """Evaluate model, Jacobian, weights and residuals at `params` and return the objective."""
    evaluate(
        params, energies_mev, dispersion_mev, reference, background, kind, factor, tables, first_node_mev, node_step_mev,
        corrections, jacobian, vectors[0], work, bits,
    )  # fmt: skip
    add_followers(free, jacobian)
    return objective(
        z, variance, vectors[0], shift_e, likelihood, params, prior_mean, prior_precision, vectors[1], vectors[2], work, bits
    )  # fmt: skip


@kernel
def propose(
    params: Array,
    free: Array,
    lower: Array,
    upper: Array,
    index: Array,
    n_index: int,
    step: Array,
    gradient: Array,
    trial: Array,
) -> tuple[float, bool]:
    """Write the parameters after a step, kept inside the bounds; return the decrease it predicts, and whether a bound cut it."""
    predicted = 0.0
    cut = False
    for p in range(params.shape[0]):
        trial[p] = params[p]
    for a in range(n_index):
        p = index[a]
        predicted += step[a] * gradient[a]
        trial[p] = min(max(params[p] + step[a], lower[p]), upper[p])
        cut = cut or trial[p] != params[p] + step[a]
    for p in range(params.shape[0]):
        if free[p] < 0:
            owner = -free[p] - 1
            trial[p] = params[p] + (trial[owner] - params[owner])
    return predicted, cut


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
def minimise(
    z: Array, variance: Array, shift_e: float, likelihood: int, energies_mev: Array,
    dispersion_mev: float, reference: Array, background: Array, kind: int, factor: Array,
    tables: Array, first_node_mev: Array, node_step_mev: float, corrections: Array, free: Array,
    lower: Array, upper: Array, prior_mean: Array, prior_precision: Array, max_iterations: int,
    exact: bool, params: Array, jacobian: Array, rows: Array, vectors: Array,
    matrices: Array, columns: Array, index: Array, work: Array, bits: Array,
) -> tuple[int, float, int, int]:  # fmt: skip
    """Bring `params` to the least objective; return status, objective, iterations, and the number of free parameters in `index`.

    The last step is taken without evaluating the model there once more (its gain is known), unless `exact`. Jacobian, weights,
    residuals and normal equations belong to the point before it.
    """
    weight, residual, weighted = vectors[1], vectors[2], vectors[3]
    gradient, step, trial = columns[0], columns[1], columns[2]
    value = assess(
        params, free, z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor, tables,
        first_node_mev, node_step_mev, corrections, prior_mean, prior_precision, jacobian, vectors, work, bits,
    )  # fmt: skip
    damping, predicted = FIRST_DAMPING, 0.0
    status, iterations, n_index, rejected = MAX_ITERATIONS, 0, 0, 0
    stale = True
    while iterations < max_iterations:
        if rejected == 0:
            iterations += 1
            n_index = active_set(
                params, free, lower, upper, prior_mean, prior_precision, jacobian, weight, residual, weighted, index
            )
            normal_equations(
                jacobian, weight, residual, index, n_index, params, prior_mean, prior_precision, rows, matrices[0], gradient
            )  # fmt: skip
            stale = False
        if n_index == 0 or rejected == TRIALS:
            status = CONVERGED if 0 < n_index and predicted < 100.0 * ENOUGH else SINGULAR
            break
        if damped_step(matrices[0], gradient, n_index, damping, matrices[1], step) == 0:
            predicted, cut = propose(params, free, lower, upper, index, n_index, step, gradient, trial)
            last = predicted * (1.0 + damping) < ENOUGH
            if last and not cut and not exact and rejected == 0:
                copy_values(trial, params)
                return CONVERGED, value - predicted, iterations, n_index
            new = assess(
                trial, free, z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor,
                tables, first_node_mev, node_step_mev, corrections, prior_mean, prior_precision, jacobian, vectors, work, bits,
            )  # fmt: skip
            if new <= value + 1e-9 * abs(value):
                damping = next_damping(damping, value - new, predicted)
                value, rejected, stale = new, 0, True
                copy_values(trial, params)
                if last:
                    status = CONVERGED
                    break
                continue
        rejected += 1
        damping = max(10.0 * damping, 1e-6)
    if rejected > 0:  # what the last trial left belongs to a point that was not taken
        assess(
            params, free, z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor, tables,
            first_node_mev, node_step_mev, corrections, prior_mean, prior_precision, jacobian, vectors, work, bits,
        )  # fmt: skip
    if stale:
        normal_equations(
            jacobian, weight, residual, index, n_index, params, prior_mean, prior_precision, rows, matrices[0], gradient
        )  # fmt: skip
    return status, value, iterations, n_index


@kernel
def fit_one(
    z: Array, variance: Array, shift_e: float,
    lags: Array,  # correlations that channels share, (0,) for none; see `likelihood.spread_row`
    likelihood: int, energies_mev: Array, dispersion_mev: float, reference: Array, background: Array,
    kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float,
    free: Array,  # (P,) 1 free, 0 fixed, -k - 1: keeps its distance from parameter k, which is free
    lower: Array, upper: Array, prior_mean: Array, prior_precision: Array,
    max_iterations: int, exact: bool, params: Array, std: Array, jacobian: Array,
    corrections: Array,
    rows: Array,  # scratch (P + 5, n)
    vectors: Array,  # scratch (5, n)
    matrices: Array,  # scratch (4, P + 4, P + 4)
    columns: Array,  # scratch (5, P)
    index: Array,  # scratch (P,) of integers
    work: Array,  # scratch (work_size(n),)
    bits: Array,  # scratch (2n,) of integers
    outcome: Array,  # out (7,), see `likelihood.sum_up`, and what the fit takes from chi-squared
) -> tuple[int, int]:  # fmt: skip
    """Fit one spectrum by Levenberg-Marquardt with an active set for the bounds; return status and free parameters in `index`.

    `params` holds the start and receives the estimate, `std` the standard deviations from the Fisher matrix
    (NaN where fixed or at a bound; of a parameter that follows another, that one's, whose row of `jacobian` holds both). Afterwards `jacobian`, `vectors[1]` (weights) and `vectors[2]` (residuals) belong
    to the estimate, or if not `exact` to the point a last short step before it; `matrices[1]` holds the Cholesky factor of the Fisher matrix.
    """
    n_free = 0
    for p in range(params.shape[0]):
        std[p] = math.nan
        params[p] = min(max(params[p], lower[p]), upper[p])
        n_free += free[p] > 0
    correction_lines(params, tables, first_node_mev, node_step_mev, dispersion_mev, corrections, work)
    status, value, iterations, n_index = minimise(
        z, variance, shift_e, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor, tables,
        first_node_mev, node_step_mev, corrections, free, lower, upper, prior_mean, prior_precision, max_iterations, exact,
        params, jacobian, rows, vectors, matrices, columns, index, work, bits,
    )  # fmt: skip
    used = sum_up(vectors[1], vectors[2], shift_e, lags, likelihood, value, iterations, outcome)
    if used <= n_free:
        return NO_DATA, 0
    outcome[6] = n_index
    taken = deviations(rows, vectors[1], shift_e, lags, index, n_index, prior_precision, matrices, vectors[4], std)
    if taken < 0.0:
        return SINGULAR, 0
    for p in range(params.shape[0]):
        if free[p] < 0:
            std[p] = std[-free[p] - 1]
    outcome[6] = taken
    return (AT_BOUND if status == CONVERGED and n_index < n_free else status), n_index
