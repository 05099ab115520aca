"""Levenberg-Marquardt fit of components to one spectrum, bounds by an active set.

The fit stops when the next step will leave less than the tolerance to gain, and takes that step: the covariance of the last
normal equations then belongs to a point a few hundredths of a standard deviation away, and one evaluation of the model is
saved.
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.component_curvature import bend_hessian, bent_share, unbend_hessian
from phonon_eels.kernels.component_normal import saturated_terms, squared_pulls
from phonon_eels.kernels.component_objective import linearise, objective
from phonon_eels.kernels.component_solve import back_substitute, element, factor, invert, set_element
from phonon_eels.kernels.components import whole_spans
from phonon_eels.kernels.device import inlined, kernel
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, MAX_ITERATIONS, POISSON, SINGULAR
from phonon_eels.kernels.linear import copy_values

NOT_IDENTIFIED = 5
"""Converged, but a parameter has no information (the centre of a peak without area): its standard deviation is NaN."""

FIRST_DAMPING = 1e-3
LEAST_DAMPING = 1e-9
LAST_DAMPING = 1e9
OUTCOMES = 6
"""Objective, Pearson's chi-squared, sum of 1/mean (Poisson), channels used, evaluations, parameters held at bounds."""

N_VECTORS = 7
N_COLUMNS = 10
SQUARES = 3
"""Matrices of scratch."""

THIRD_ORDER, CURVATURE_WRONG = 8.0, 0.6
"""What the promise of a step after a Newton step is wrong by: so many times the quotient of the two promises, and this share of
what the curvature adds. With these the deviance told is off by more than 1e-6 in fewer than one spectrum of a thousand."""


@inlined(reducing=False)
def copy_tile(source: np.ndarray, target: np.ndarray) -> int:
    """Copy sixteen numbers, all read before the first is written: for all the compiler knows, both may be one."""
    s0, s1, s2, s3, s4, s5, s6, s7 = (
        source[0], source[1], source[2], source[3], source[4], source[5], source[6], source[7],
    )  # fmt: skip
    s8, s9, s10, s11, s12, s13, s14, s15 = (
        source[8], source[9], source[10], source[11], source[12], source[13], source[14], source[15],
    )  # fmt: skip
    target[0], target[1], target[2], target[3] = s0, s1, s2, s3
    target[4], target[5], target[6], target[7] = s4, s5, s6, s7
    target[8], target[9], target[10], target[11] = s8, s9, s10, s11
    target[12], target[13], target[14], target[15] = s12, s13, s14, s15
    return 0


@inlined(reducing=False)
def load_system(
    gram: np.ndarray,
    gradient: np.ndarray,
    n: int,
    blocks: int,
    damping: float,
    held: np.ndarray,
    n_held: int,
    upper: np.ndarray,
    rhs: np.ndarray,
) -> int:
    """Copy the damped normal equations, with the parameters that `held` (not NaN) gives a step for taken out.

    Parameters beyond n, up to a whole tile, get the unit matrix.
    """
    for i in range(blocks):
        for j in range(i, blocks):
            copy_tile(gram[i * blocks + j], upper[i * blocks + j])
        tile = upper[i * blocks + i]
        tile[0] *= 1.0 + damping
        tile[5] *= 1.0 + damping
        tile[10] *= 1.0 + damping
        tile[15] *= 1.0 + damping
    for a in range(n):
        rhs[a] = gradient[a]
    for a in range(n, 4 * blocks):
        rhs[a] = 0.0
        set_element(upper, blocks, a, a, 1.0)
    if n_held == 0:
        return 0
    for h in range(n):
        if math.isnan(held[h]):
            continue
        for a in range(n):
            if math.isnan(held[a]):
                rhs[a] -= held[h] * element(gram, blocks, a, h)
            set_element(upper, blocks, a, h, 0.0)
        set_element(upper, blocks, h, h, 1.0)
        rhs[h] = held[h]
    return 0


@kernel
def bounded_step(
    gram: np.ndarray,
    gradient: np.ndarray,
    index: np.ndarray,
    n: int,
    damping: float,
    params: np.ndarray,
    bounds: np.ndarray,
    upper: np.ndarray,  # out: factors
    columns: np.ndarray,  # out, rows: inverse pivots; held: NaN where free, else the step to the bound; step; two of scratch
) -> int:
    """Solve the damped normal equations inside the bounds; return how many pivots vanished.

    A parameter whose step would leave its bounds goes to the bound and the others are solved for again with it there:
    cutting the step afterwards would leave the others answering to a step that was not taken.
    """
    lower, higher = bounds[0], bounds[1]
    inverse, held, step, smallest, rhs = columns[0], columns[1], columns[2], columns[3], columns[4]
    blocks = (n + 3) // 4
    n_held = 0
    for a in range(n):
        p = index[a]
        outward = (params[p] <= lower[p] and gradient[a] <= 0.0) or (params[p] >= higher[p] and gradient[a] >= 0.0)
        held[a] = 0.0 if outward else math.nan
        n_held += outward
    vanished = 0
    for _ in range(n + 1):
        load_system(gram, gradient, n, blocks, damping, held, n_held, upper, rhs)
        vanished = factor(upper, blocks, rhs, inverse, smallest)
        back_substitute(upper, blocks, rhs, inverse, step)
        inside = True
        for a in range(n):
            p = index[a]
            target = params[p] + step[a]
            if math.isnan(held[a]) and (target < lower[p] or target > higher[p]):
                held[a] = (lower[p] if target < lower[p] else higher[p]) - params[p]
                inside = False
                n_held += 1
        if inside:
            break
    return vanished


@inlined(reducing=False)
def promised(gram: np.ndarray, gradient: np.ndarray, n: int, damping: float, columns: np.ndarray) -> float:
    """Return the decrease that the step promises, 2gᵀδ - δᵀGδ; for the free parameters Gδ is what was solved for."""
    held, step = columns[1], columns[2]
    blocks = (n + 3) // 4
    total = 0.0
    for a in range(n):
        if math.isnan(held[a]):
            d = gram[(a >> 2) * (blocks + 1), 5 * (a & 3)]
            total += step[a] * (gradient[a] + damping * d * step[a])
        elif step[a] != 0.0:
            inner = 0.0
            for b in range(n):
                inner += element(gram, blocks, a, b) * step[b]
            total += step[a] * (2.0 * gradient[a] - inner)
    return total


@inlined(reducing=False)
def moved(params: np.ndarray, bounds: np.ndarray, index: np.ndarray, n: int, step: np.ndarray, out: np.ndarray) -> int:
    """Write the parameters after a step; rounding is kept inside the bounds."""
    for p in range(params.shape[0]):
        out[p] = params[p]
    for a in range(n):
        p = index[a]
        out[p] = min(max(params[p] + step[a], bounds[0, p]), bounds[1, p])
    return 0


@inlined(reducing=False)
def next_damping(damping: float, gain: float) -> float:
    """Return the damping after an accepted step that gained this share of what it promised.

    Where little was gained the parabola is wrong, and undamped steps would go to and fro for ever.
    """
    if gain < 0.25:
        return max(4.0 * damping, FIRST_DAMPING)
    return 0.1 * damping if damping > LEAST_DAMPING else 0.0


@inlined(reducing=False)
def left_over(predicted: float, last: float, share: float) -> float:
    """Return by how much the objective will be wrong after a step that promises this, the one before having promised `last`.

    Full steps shrink the promise by a factor c² when the curvature is wrong by the share c (Gauss-Newton converges
    linearly), and by that share the promise itself is wrong; what then stays above the minimum is c times less again.
    `last` = 0 says that nothing is known, and c is taken as 1; `share` is the least it may be.
    """
    if predicted < last:
        return predicted * max(math.sqrt(predicted / last), share)
    return predicted


@inlined(reducing=False)
def of_the_data(likelihood: int, z: np.ndarray, mask: np.ndarray, shift_e: float, weight: np.ndarray) -> float:
    """Return what of the objective no model changes; for least squares write the weights, which none changes either."""
    if likelihood == POISSON:
        return float(saturated_terms(z, mask, shift_e))
    copy_values(mask, weight)
    return 0.0


@inlined(reducing=False)
def conclude(
    likelihood: int,
    z: np.ndarray,
    shift_e: float,
    vectors: np.ndarray,
    n: int,
    index: np.ndarray,
    columns: np.ndarray,
    upper: np.ndarray,
    unit: np.ndarray,
    covariance: np.ndarray,
    std: np.ndarray,
    outcome: np.ndarray,
) -> int:
    """Write standard deviations, covariance and the figures of the fit; return how many parameters are held at bounds."""
    pearson, thin = squared_pulls(z, shift_e if likelihood == POISSON else 0.0, vectors[0], vectors[1], vectors[2])
    inverse, held, diagonal = columns[0], columns[1], columns[3]
    outcome[1] = pearson
    outcome[2] = thin if likelihood == POISSON else 0.0
    invert(upper, (n + 3) // 4, inverse, unit, diagonal, covariance)
    for p in range(std.shape[0]):
        std[p] = math.nan
    n_held = 0
    whole = covariance.shape[0] == covariance.shape[1]
    for a in range(n):
        at_bound = not math.isnan(held[a])
        n_held += at_bound
        known = not at_bound and inverse[a] > 0.0
        std[index[a]] = math.sqrt(diagonal[a]) if known else math.nan
        if whole and not known:
            for b in range(n):
                covariance[a, b] = math.nan
                covariance[b, a] = math.nan
    outcome[5] = n_held
    return n_held


@inlined(reducing=False)
def descend(
    z: np.ndarray, mask: np.ndarray, likelihood: int, shift_e: float, table: np.ndarray, owner: np.ndarray,
    affine: np.ndarray, bounds: np.ndarray, axis: np.ndarray, channel_mev: float, even_mev: float, index: np.ndarray,
    n_free: int, allowed: float, max_evaluations: int, pairs: np.ndarray, params: np.ndarray, rows: np.ndarray,
    vectors: np.ndarray, matrices: np.ndarray, columns: np.ndarray, outcome: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Go to the minimum; leave the factored normal equations, the objective and the number of evaluations there.

    Arguments as `fit_components_one` takes them, `allowed` what of the objective the last step may leave. Returns the status,
    bounds and vanished pivots apart, and how many pivots vanished.
    """
    gram, upper = matrices[0], matrices[1]
    gradient, work, step, curvature = columns[0], columns[1:6], columns[3], columns[9]
    trial, spans, blocks = columns[6, : params.shape[0]], columns[7:9], (n_free + 3) // 4
    constant = of_the_data(likelihood, z, mask, shift_e, vectors[1])
    slack = 1e-14 * abs(constant)
    whole_spans(axis.shape[1], spans)
    spans[0, params.shape[0]], spans[1, params.shape[0]] = axis.shape[1], 0.0  # the row of zeros
    value = constant + objective(
        likelihood, z, mask, shift_e, table, owner, affine, bounds, axis, channel_mev, even_mev, params, rows, spans, vectors
    )  # fmt: skip
    linearise(rows, index, n_free, vectors, spans, params, bounds, gram, gradient)
    bent = pairs.shape[0] > 0 and max_evaluations > 1
    if bent:
        bend_hessian(gram, blocks, pairs, curvature, columns[5])
    damping, vanished, evaluations, rejected, status = 0.0, 0, 1, 0, MAX_ITERATIONS
    predicted = last = share = 0.0
    known = False
    while math.isfinite(value):
        vanished = bounded_step(gram, gradient, index, n_free, damping, params, bounds, upper, work)
        predicted = promised(gram, gradient, n_free, damping, work)
        if known:
            more = bent_share(pairs, curvature, step, predicted)
            small = predicted * max(THIRD_ORDER * predicted / last, CURVATURE_WRONG * abs(more)) < allowed
            predicted *= 1.0 + more if small else 1.0
        else:
            small = left_over(predicted, last, share) < allowed
        if bent and (small or rejected > 0):  # the covariance is of the Fisher matrix
            unbend_hessian(gram, blocks, pairs, curvature)
            bent = False
            continue
        if small and damping > 0.0 and rejected == 0:
            damping = 0.0  # short only because it is damped
            continue
        if small or damping > LAST_DAMPING:
            status = CONVERGED if rejected == 0 else SINGULAR
            break
        if evaluations >= max_evaluations:
            break
        moved(params, bounds, index, n_free, step, trial)
        new = constant + objective(
            likelihood, z, mask, shift_e, table, owner, affine, bounds, axis, channel_mev, even_mev, trial, rows, spans, vectors
        )  # fmt: skip
        evaluations += 1
        if new <= value + slack:
            last = predicted if damping == 0.0 else 0.0
            share = abs(bent_share(pairs, curvature, step, predicted)) if bent else 0.0
            known = bent and damping == 0.0
            bent = False
            damping = next_damping(damping, (value - new) / predicted)
            copy_values(trial, params)
            value, rejected = new, 0
            linearise(rows, index, n_free, vectors, spans, params, bounds, gram, gradient)
        else:
            last = 0.0
            rejected, damping = rejected + 1, max(10.0 * damping, 1e-2 * FIRST_DAMPING)
    if rejected > 0:  # what the last trial left belongs to a point that was not taken
        objective(
            likelihood, z, mask, shift_e, table, owner, affine, bounds, axis, channel_mev, even_mev, params, rows, spans, vectors
        )  # fmt: skip
    if damping > 0.0:
        vanished = bounded_step(gram, gradient, index, n_free, 0.0, params, bounds, upper, work)
        predicted = promised(gram, gradient, n_free, 0.0, work)
        # No step gains anything any more, however short: rounding, if little is promised, else a model that is no parabola.
        status = CONVERGED if status == SINGULAR and predicted < 100.0 * allowed else status
    elif status == CONVERGED:
        value -= predicted
        moved(params, bounds, index, n_free, step, params)
    outcome[0], outcome[4] = value, evaluations
    return status, vanished


@kernel
def fit_components_one(
    z: np.ndarray,  # (channels,) electrons, 0 where missing
    mask: np.ndarray,  # (channels,) 1 or 0 (Poisson), or the inverse variances; 0 where missing
    used: float,  # channels with data, more than free parameters
    likelihood: int,
    shift_e: float,
    table: np.ndarray,
    owner: np.ndarray,
    affine: np.ndarray,
    bounds: np.ndarray,  # (4, parameters): lower, upper, mean and precision of the prior
    axis: np.ndarray,
    channel_mev: float,
    even_mev: float,  # `even_step` of the energies
    index: np.ndarray,  # as `form_normal` takes it
    n_free: int,
    tolerance: float,  # of the objective per degree of freedom, which the last step may leave
    max_evaluations: int,
    pairs: np.ndarray,  # as `shared_step` takes them, whose curvature is in columns[9]; of length 0 if nothing is known
    params: np.ndarray,  # in: start inside the bounds, out: estimate
    std: np.ndarray,  # out (parameters,)
    covariance: np.ndarray,  # out (free, free), or (0, 1) if not wanted
    rows: np.ndarray,  # scratch (parameters + 1, channels), the last row 0
    vectors: np.ndarray,  # scratch (N_VECTORS, channels)
    matrices: np.ndarray,  # scratch (SQUARES, blocks², 16), blocks = ceil(free / 4)
    columns: np.ndarray,  # scratch (N_COLUMNS, n), n at least 4 · blocks and one more than the parameters
    outcome: np.ndarray,  # out (OUTCOMES,)
) -> int:
    """Fit one spectrum; return the status."""
    outcome[3] = used
    status, vanished = descend(
        z, mask, likelihood, shift_e, table, owner, affine, bounds, axis, channel_mev, even_mev, index, n_free, tolerance * (used - n_free),
        max_evaluations, pairs, params, rows, vectors, matrices, columns, outcome,
    )  # fmt: skip
    n_held = conclude(
        likelihood, z, shift_e, vectors, n_free, index, columns[1:6], matrices[1], matrices[2], covariance, std, outcome
    )
    if status == CONVERGED and n_held > 0:
        return AT_BOUND
    return NOT_IDENTIFIED if status == CONVERGED and vanished > 0 else status
