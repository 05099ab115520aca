"""Fit a smooth background to the windows of one spectrum, bounds always active."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.background_shapes import N_PARAMETERS, background_value, start_background
from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.linear import cholesky, solve_factored

SMALL_ROWS = 22
"""Rows of the small scratch array of `fit_background_one`."""

CONVERGED, AT_BOUND, NOT_CONVERGED, TOO_FEW_CHANNELS, NO_COUNTS = 0, 1, 2, 3, 4

MAX_ITERATIONS = 200
RELATIVE_TOLERANCE = 1e-8
RIDGE = 1e-7
"""Added to the unit diagonal of the scaled normal matrix before it is inverted: the far tail of a Pearson VII leaves
combinations of its parameters undetermined. They get a large, finite variance; the background's hardly changes."""

OVERSHOOT_FACTOR, SECOND_PASS_WEIGHT, ENERGY_EXPONENT = 4.0, 2.0, 0.4
"""Pearson VII, published recipe: residuals count four times where the background exceeds the data, channels that the first
pass left above the data weigh twice in the second, and all residuals are multiplied by |E|^0.4."""


@kernel
def _normal_equations(
    shape: int,
    energies: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    reference: float,
    table: np.ndarray,
    overshoot: float,
    p: np.ndarray,
    n_parameters: int,
    gradient: np.ndarray,
    normal: np.ndarray,
    rhs: np.ndarray,
) -> float:
    """Form J^T W J and J^T W r; return the weighted sum of squared residuals."""
    for a in range(n_parameters):
        rhs[a] = 0.0
        for b in range(n_parameters):
            normal[a, b] = 0.0
    cost = 0.0
    for i in range(energies.shape[0]):
        if weight[i] <= 0.0:
            continue
        r = y[i] - background_value(shape, p, energies[i], reference, table, gradient)
        w = weight[i] * (overshoot * overshoot if r < 0.0 else 1.0)
        cost += w * r * r
        for a in range(n_parameters):
            rhs[a] += w * r * gradient[a]
            for b in range(a + 1):
                normal[a, b] += w * gradient[a] * gradient[b]
    for a in range(n_parameters):
        for b in range(a):
            normal[b, a] = normal[a, b]
    return cost


@kernel
def _bounded_step(
    normal: np.ndarray,
    rhs: np.ndarray,
    damping: float,
    p: np.ndarray,
    n_parameters: int,
    lower: np.ndarray,
    upper: np.ndarray,
    factor: np.ndarray,
    step: np.ndarray,
    fixed: np.ndarray,
) -> int:
    """Solve the damped normal equations inside the bounds; return 1 if they cannot be solved.

    A parameter whose step would leave its bounds goes to the bound and the others are solved for again with it there:
    cutting the step afterwards would leave the others answering to a step that was not taken.
    """
    for a in range(n_parameters):
        outward = (p[a] <= lower[a] and rhs[a] < 0.0) or (p[a] >= upper[a] and rhs[a] > 0.0)
        fixed[a] = 0.0 if outward or normal[a, a] <= 0.0 else math.nan
    for _ in range(n_parameters + 1):
        for a in range(n_parameters):
            held = not math.isnan(fixed[a])
            step[a] = fixed[a] if held else rhs[a]
            for b in range(n_parameters):
                if not held and not math.isnan(fixed[b]):
                    step[a] -= normal[a, b] * fixed[b]
                factor[a, b] = 0.0 if held or not math.isnan(fixed[b]) else normal[a, b]
            factor[a, a] = 1.0 if held else normal[a, a] * (1.0 + damping)
        if cholesky(factor, n_parameters) != 0:
            return 1
        solve_factored(factor, n_parameters, step)
        inside = True
        for a in range(n_parameters):
            if math.isnan(fixed[a]) and not lower[a] <= p[a] + step[a] <= upper[a]:
                fixed[a] = (lower[a] if step[a] < 0.0 else upper[a]) - p[a]
                inside = False
        if inside:
            return 0
    return 1


@kernel
def _levenberg_marquardt(
    shape: int,
    energies: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    reference: float,
    table: np.ndarray,
    overshoot: float,
    p: np.ndarray,
    n_parameters: int,
    lower: np.ndarray,
    upper: np.ndarray,
    small: np.ndarray,
) -> int:
    """Minimise inside the bounds; return 0 if converged, 2 if not. `small` is scratch of `SMALL_ROWS` rows."""
    normal, factor = small[0:5], small[5:10]
    rhs, step, trial, gradient = small[15], small[16], small[17], small[18]
    damping = 1e-3
    cost = _normal_equations(
        shape, energies, y, weight, reference, table, overshoot, p, n_parameters, gradient, normal, rhs
    )
    for _ in range(MAX_ITERATIONS):
        accepted = False
        while damping < 1e14:
            if _bounded_step(normal, rhs, damping, p, n_parameters, lower, upper, factor, step, small[19]) == 0:
                promised = 0.0
                for a in range(n_parameters):
                    trial[a] = min(max(p[a] + step[a], lower[a]), upper[a])
                    promised += rhs[a] * step[a]
                if promised <= RELATIVE_TOLERANCE * cost:
                    return CONVERGED
                new_cost = 0.0
                for i in range(energies.shape[0]):
                    if weight[i] > 0.0:
                        r = y[i] - background_value(shape, trial, energies[i], reference, table, gradient)
                        new_cost += weight[i] * r * r * (overshoot * overshoot if r < 0.0 else 1.0)
                if new_cost < cost:
                    accepted = True
                    break
            damping *= 4.0
        if not accepted:
            return CONVERGED  # no shorter step lowers the cost: this is the minimum to rounding
        gained = cost - new_cost
        for a in range(n_parameters):
            p[a] = trial[a]
        cost = _normal_equations(
            shape, energies, y, weight, reference, table, overshoot, p, n_parameters, gradient, normal, rhs
        )
        damping = max(damping * 0.2, 1e-9)
        if gained <= RELATIVE_TOLERANCE * cost:
            return CONVERGED
    return NOT_CONVERGED


@kernel
def _covariance(
    shape: int,
    energies: np.ndarray,
    y: np.ndarray,
    variance: np.ndarray,
    weight: np.ndarray,
    reference: float,
    table: np.ndarray,
    overshoot: float,
    p: np.ndarray,
    n_parameters: int,
    lower: np.ndarray,
    upper: np.ndarray,
    small: np.ndarray,
    covariance: np.ndarray,
) -> int:
    """Write H^-1 G H^-1 with G = J^T W V W J: right for any weights, and (J^T V^-1 J)^-1 for weights 1/V."""
    normal, factor, middle = small[0:5], small[5:10], small[10:15]
    gradient, column = small[18], small[19]
    _normal_equations(
        shape, energies, y, weight, reference, table, overshoot, p, n_parameters, gradient, normal, column
    )
    for a in range(n_parameters):
        for b in range(n_parameters):
            middle[a, b] = 0.0
            covariance[a, b] = 0.0
    for i in range(energies.shape[0]):
        if weight[i] <= 0.0:
            continue
        r = y[i] - background_value(shape, p, energies[i], reference, table, gradient)
        w = weight[i] * (overshoot * overshoot if r < 0.0 else 1.0)
        for a in range(n_parameters):
            for b in range(n_parameters):
                middle[a, b] += w * w * variance[i] * gradient[a] * gradient[b]
    status = CONVERGED
    for a in range(n_parameters):
        column[a] = 1.0 / math.sqrt(normal[a, a]) if normal[a, a] > 0.0 else 0.0
        if p[a] <= lower[a] or p[a] >= upper[a]:
            status = AT_BOUND
            column[a] = 0.0
    for a in range(n_parameters):
        for b in range(n_parameters):
            factor[a, b] = normal[a, b] * column[a] * column[b]
        factor[a, a] = 1.0 + RIDGE
    if cholesky(factor, n_parameters) != 0:
        return NOT_CONVERGED
    # normal := H^-1 (held parameters have a zero scale, hence zero rows and columns), then covariance := H^-1 G H^-1.
    for b in range(n_parameters):
        for a in range(n_parameters):
            gradient[a] = column[a] if a == b else 0.0
        solve_factored(factor, n_parameters, gradient)
        for a in range(n_parameters):
            normal[a, b] = gradient[a] * column[a]
    for a in range(n_parameters):
        for b in range(n_parameters):
            for k in range(n_parameters):
                for j in range(n_parameters):
                    covariance[a, b] += normal[a, k] * middle[k, j] * normal[j, b]
    return status


@kernel
def _model_weights(
    shape: int,
    energies: np.ndarray,
    y: np.ndarray,
    variance: np.ndarray,
    reference: float,
    table: np.ndarray,
    p: np.ndarray,
    gradient: np.ndarray,
    weight: np.ndarray,
) -> int:
    """Replace 1/variance by one over the variance that the fitted background would have.

    Variance is slope × mean + floor; both come from the means over the lower and the upper half of the channels, so no
    channel weighs itself. Weights made of single channels pull the background down by one count (Neyman's bias).
    """
    n = energies.shape[0]
    used = 0.0
    for i in range(n):
        used += 1.0 if weight[i] > 0.0 else 0.0
    seen = 0.0
    low = high = low_v = high_v = n_low = 0.0
    for i in range(n):
        if weight[i] <= 0.0:
            continue
        seen += 1.0
        if seen <= 0.5 * used:
            low += y[i]
            low_v += variance[i]
            n_low += 1.0
        else:
            high += y[i]
            high_v += variance[i]
    total_v, total = low_v + high_v, low + high
    low, low_v, high, high_v = low / n_low, low_v / n_low, high / (used - n_low), high_v / (used - n_low)
    slope = (low_v - high_v) / (low - high) if low > high else 0.0
    floor = high_v - slope * high
    if not (slope > 0.0 and floor >= 0.0):
        slope, floor = (total_v / total, 0.0) if total > 0.0 else (0.0, total_v / used)
    smallest = 1e-3 * total_v / used
    for i in range(n):
        if weight[i] > 0.0:
            mean = background_value(shape, p, energies[i], reference, table, gradient)
            weight[i] = 1.0 / max(slope * mean + floor, smallest)
    return 0


@kernel
def _from_units_of_peak(
    shape: int, peak: float, failed: bool, n_parameters: int, parameters: np.ndarray, covariance: np.ndarray
) -> int:
    """Bring a fit back from units of the peak: amplitudes scale, logarithms of amplitudes shift, shapes stay."""
    if failed:
        for a in range(n_parameters):
            parameters[a] = math.nan
            for b in range(n_parameters):
                covariance[a, b] = math.nan
    elif shape <= 1 or 5 <= shape <= 7:
        parameters[0] += math.log(peak)
    else:
        for k in range(0, 4 if shape == 4 else 2, 2):
            parameters[k] *= peak
            for a in range(n_parameters):
                covariance[k, a] *= peak
                covariance[a, k] *= peak
    return 0


@kernel
def fit_background_one(
    shape: int,
    energies_mev: np.ndarray,
    counts: np.ndarray,
    variance: np.ndarray,
    usable: np.ndarray,
    peak: float,
    reference_mev: float,
    table: np.ndarray,
    parameters: np.ndarray,
    covariance: np.ndarray,
    work: np.ndarray,
    small: np.ndarray,
) -> int:
    """Fit a background shape to the channels of the windows.

    ``PEARSON7`` follows the published recipe: residuals times |E|^0.4, four times as heavy where the background
    exceeds the data, a second pass in which channels above the data weigh twice. The others are least squares weighted
    by the variance, first as given, then twice by the variance that the fitted background itself would have.

    Parameters
    ----------
    shape
        One of `background_shapes`; ``LOG_QUADRATIC`` and ``POWER_LAW`` need energies > 0.
    energies_mev, counts, variance
        Channels of all windows, (channels,), by increasing energy. Those without finite counts or positive variance are
        left out.
    usable
        False where a channel must not be used, (channels,).
    peak
        Largest value of the whole spectrum: scale and, for the Pearson VII, start of the height.
    reference_mev
        Energy the amplitudes count from.
    table
        Measured peak of ``REFERENCE``, else `NO_REFERENCE`.
    parameters, covariance
        Result, (5,) and (5, 5), in the units of `counts` and meV; NaN where there is none. A parameter on its bound has
        variance 0.
    work, small
        Scratch, (3, channels) and (`SMALL_ROWS`, 5).

    Returns
    -------
    int
        ``CONVERGED``, ``AT_BOUND`` (usable), ``NOT_CONVERGED``, ``TOO_FEW_CHANNELS`` or ``NO_COUNTS``.
    """
    n_parameters = N_PARAMETERS[shape]
    for a in range(parameters.shape[0]):
        parameters[a] = math.nan
        for b in range(parameters.shape[0]):
            covariance[a, b] = math.nan
    if not (peak > 0.0 and math.isfinite(peak)):
        return NO_COUNTS
    n = energies_mev.shape[0]
    y, v, weight = work[0], work[1], work[2]
    used = 0
    total = 0.0
    for i in range(n):
        good = usable[i] and math.isfinite(counts[i]) and variance[i] > 0.0 and math.isfinite(variance[i])
        y[i] = counts[i] / peak if good else 0.0
        v[i] = variance[i] / (peak * peak) if good else 1.0
        weight[i] = 0.0
        if good:
            weight[i] = (abs(energies_mev[i]) ** (2.0 * ENERGY_EXPONENT)) if shape == 0 else 1.0 / v[i]
            used += 1
            total += counts[i]
    if used <= n_parameters:
        return TOO_FEW_CHANNELS
    if not total > 0.0:
        return NO_COUNTS
    lower, upper = small[20], small[21]
    overshoot = OVERSHOOT_FACTOR if shape == 0 else 1.0
    start_background(shape, energies_mev, y, weight, 1.0, reference_mev, table, parameters, lower, upper)
    status = _levenberg_marquardt(
        shape, energies_mev, y, weight, reference_mev, table, overshoot, parameters, n_parameters, lower, upper, small
    )
    for _ in range(1 if shape == 0 else 2):
        if shape == 0:
            for i in range(n):
                if y[i] < background_value(shape, parameters, energies_mev[i], reference_mev, table, small[18]):
                    weight[i] *= SECOND_PASS_WEIGHT
        else:
            _model_weights(shape, energies_mev, y, v, reference_mev, table, parameters, small[18], weight)
        status = _levenberg_marquardt(
            shape,
            energies_mev,
            y,
            weight,
            reference_mev,
            table,
            overshoot,
            parameters,
            n_parameters,
            lower,
            upper,
            small,
        )
    bound = _covariance(
        shape, energies_mev, y, v, weight, reference_mev, table, overshoot, parameters, n_parameters, lower, upper, small,
        covariance,
    )  # fmt: skip
    if status == CONVERGED:
        status = bound
    _from_units_of_peak(shape, peak, status == NOT_CONVERGED, n_parameters, parameters, covariance)
    return status
