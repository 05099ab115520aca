"""Shapes of a smooth background, their derivatives, starting values and bounds.

Shapes (E in meV, u = ln(E / reference)):

- ``PEARSON7``: I w^(2m) / [w² + (2^(1/m) - 1)(2E - 2t0)²]^m, parameters (ln I, ln w, m, t0): the published group
  recipe's. Far from the peak only I w^(2m) (2^(1/m) - 1)^-m and m are determined; logarithms straighten that valley.
- ``LOG_QUADRATIC``: exp(p0 + p1 u + p2 u²).
- ``POWER_LAW``: A exp(-r u).
- ``EXPONENTIAL``: A exp(-k (E - reference)).
- ``DOUBLE_EXPONENTIAL``: the sum of two of these, parameters (A, k, B, l).
- ``EXP_POLYNOMIAL2``, ``…3``, ``…4``: exp(p0 + p1 v + p2 v² …), v = E / reference - 1.
- ``REFERENCE``: A R((E - s) / e^w), a measured peak R scaled, shifted and stretched, parameters (A, s, w).
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel

PEARSON7, LOG_QUADRATIC, POWER_LAW, EXPONENTIAL = 0, 1, 2, 3
DOUBLE_EXPONENTIAL, EXP_POLYNOMIAL2, EXP_POLYNOMIAL3, EXP_POLYNOMIAL4, REFERENCE = 4, 5, 6, 7, 8

N_PARAMETERS = (4, 3, 2, 2, 4, 3, 4, 5, 3)
"""Parameters of each shape."""
MAX_PARAMETERS = 5
HEADER = 3
"""Numbers before the values of a reference: energy of the first, spacing, FWHM, all in meV."""
NO_REFERENCE = np.zeros(HEADER + 4)
"""Stands in for the measured peak of shapes that need none."""


@kernel
def _reference_value(table: np.ndarray, energy_mev: float, slope: np.ndarray) -> float:
    """Return a measured peak between its channels by a cubic through four; its derivative goes into ``slope[0]``."""
    last = table.shape[0] - HEADER - 1
    at = (energy_mev - table[0]) / table[1]
    if at <= 0.0 or at >= last:
        slope[0] = 0.0
        return float(table[HEADER] if at <= 0.0 else table[HEADER + last])
    i = min(int(at), last - 1)
    t = at - i
    b, c = table[HEADER + i], table[HEADER + i + 1]
    a = table[HEADER + i - 1] if i > 0 else 2.0 * b - c
    d = table[HEADER + i + 2] if i + 2 <= last else 2.0 * c - b
    p1, p2, p3 = 0.5 * (c - a), a - 2.5 * b + 2.0 * c - 0.5 * d, 0.5 * (d - a) + 1.5 * (b - c)
    slope[0] = (p1 + t * (2.0 * p2 + t * 3.0 * p3)) / table[1]
    return float(b + t * (p1 + t * (p2 + t * p3)))


@kernel
def background_value(
    shape: int, p: np.ndarray, energy_mev: float, reference_mev: float, table: np.ndarray, gradient: np.ndarray
) -> float:
    """Return the background at an energy and write its derivatives to the parameters into `gradient`.

    `table` is the measured peak of ``REFERENCE`` (`HEADER`, then its values), `NO_REFERENCE` for the other shapes.
    """
    if shape == 0:
        curvature = 2.0 ** (1.0 / p[2]) - 1.0
        width = math.exp(p[1])
        x = 2.0 * (energy_mev - p[3]) / width
        q = 1.0 + curvature * x * x
        log_q = math.log(q)
        value: float = math.exp(p[0] - p[2] * log_q)
        steep = value / q
        gradient[0] = value
        gradient[1] = 2.0 * p[2] * steep * curvature * x * x
        gradient[2] = -value * log_q + steep * x * x * (curvature + 1.0) * math.log(2.0) / p[2]
        gradient[3] = 4.0 * p[2] * steep * curvature * x / width
        return value
    if shape == 1:
        u = math.log(energy_mev / reference_mev)
        value = math.exp(min(p[0] + p[1] * u + p[2] * u * u, 300.0))
        gradient[0] = value
        gradient[1] = value * u
        gradient[2] = value * u * u
        return value
    if shape == 8:
        stretch = math.exp(-p[2])
        x = (energy_mev - p[1]) * stretch
        value = _reference_value(table, x, gradient)
        slope = p[0] * gradient[0]
        gradient[0], gradient[1], gradient[2] = value, -slope * stretch, -slope * x
        return float(p[0]) * value
    if shape >= 5:
        u = energy_mev / reference_mev - 1.0
        exponent = 0.0
        for k in range(shape - 2):
            exponent = exponent * u + p[shape - 3 - k]
        value = math.exp(min(exponent, 300.0))
        power = value
        for k in range(shape - 2):
            gradient[k] = power
            power *= u
        return value
    if shape == 2:
        distance = math.log(energy_mev / reference_mev)
    else:
        distance = energy_mev - reference_mev
    if shape == 4:
        value = 0.0
        for k in range(2):
            unit = math.exp(min(-p[2 * k + 1] * distance, 300.0))
            gradient[2 * k] = unit
            gradient[2 * k + 1] = -p[2 * k] * unit * distance
            value += p[2 * k] * unit
        return value
    unit = math.exp(min(-p[1] * distance, 300.0))
    gradient[0] = unit
    gradient[1] = -p[0] * unit * distance
    return float(p[0]) * unit


@kernel
def start_background(
    shape: int,
    energies: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    peak: float,
    reference: float,
    table: np.ndarray,
    p: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> int:
    """Write starting values and bounds; energies in meV, `peak` the largest value of the whole spectrum."""
    if shape == 0:
        # Published: start [max, 10, 1.5, 0.01], lower [max/2, 2, 0.1, -1], upper [10 max, 50, 5, 1].
        p[0], p[1], p[2], p[3] = math.log(peak), math.log(10.0), 1.5, 0.01
        lower[0], lower[1], lower[2], lower[3] = math.log(0.5 * peak), math.log(2.0), 0.1, -1.0
        upper[0], upper[1], upper[2], upper[3] = math.log(10.0 * peak), math.log(50.0), 5.0, 1.0
        return 0
    if shape == 8:
        both, own = 0.0, 0.0
        for i in range(energies.shape[0]):
            if weight[i] > 0.0:
                value = _reference_value(table, energies[i], lower)
                both += weight[i] * value * y[i]
                own += weight[i] * value * value
        p[0], p[1], p[2] = (max(both / own, 1e-30) if own > 0.0 else 1.0), 0.0, 0.0
        lower[0], lower[1], lower[2] = 0.0, -0.5 * table[2], -0.3
        upper[0], upper[1], upper[2] = 1e35, 0.5 * table[2], 0.3
        return 0
    # The straight line through the means of the lower and the upper half of the channels, on the logarithm.
    n = energies.shape[0]
    used = seen = low = high = low_at = high_at = n_low = n_high = 0.0
    for i in range(n):
        used += 1.0 if weight[i] > 0.0 else 0.0
    for i in range(n):
        if weight[i] <= 0.0:
            continue
        seen += 1.0
        if seen <= 0.5 * used:
            low += y[i]
            low_at += energies[i]
            n_low += 1.0
        else:
            high += y[i]
            high_at += energies[i]
            n_high += 1.0
    low, low_at, high, high_at = low / n_low, low_at / n_low, high / n_high, high_at / n_high
    low = max(low, 1e-6)
    high = max(high, 0.01 * low)
    if shape >= 3:
        distance, from_reference = high_at - low_at, low_at - reference
    else:
        distance, from_reference = math.log(high_at / low_at), math.log(low_at / reference)
    rate = math.log(low / high) / distance
    height = math.log(low) + rate * from_reference
    if shape == 1:
        p[0], p[1], p[2] = height, -rate, 0.0
        lower[0], lower[1], lower[2] = -80.0, -100.0, -100.0
        upper[0], upper[1], upper[2] = 80.0, 100.0, 100.0
        return 0
    if shape >= 5:
        for k in range(shape - 2):
            p[k], lower[k], upper[k] = 0.0, -100.0, 100.0
        p[0], p[1] = height, -rate * reference
        return 0
    if shape == 4:
        # Two rates about the mean one; the smaller share decays more slowly, as a tail does.
        steep = max(rate, 1e-6)
        p[0], p[1] = 0.7 * math.exp(min(height, 80.0)), 1.5 * steep
        p[2], p[3] = 0.3 * math.exp(min(height, 80.0)), 0.5 * steep
        for k in range(2):
            lower[2 * k], lower[2 * k + 1] = 0.0, 0.0
            upper[2 * k], upper[2 * k + 1] = 1e35, 10.0
        return 0
    # A background that rises with the energy loss is no tail of the zero-loss peak: the rate is not negative.
    p[0], p[1] = math.exp(min(height, 80.0)), max(rate, 0.0)
    lower[0], lower[1] = 0.0, 0.0
    upper[0], upper[1] = 1e35, 50.0 if shape == 2 else 10.0
    return 0


@kernel
def background_curve_one(
    shape: int,
    p: np.ndarray,
    covariance: np.ndarray,
    energies_mev: np.ndarray,
    reference_mev: float,
    table: np.ndarray,
    work: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
) -> float:
    """Write a fitted background and its variance at some energies; return the variance of its sum over them.

    Parameters
    ----------
    p, covariance
        Parameters and their covariance, (5,) and (25,), from `fit_background_one`.
    work
        Scratch, (2, 5).
    value, variance
        Result, (energies,); NaN where the parameters are.
    """
    n_parameters = N_PARAMETERS[shape]
    gradient, summed = work[0], work[1]
    for a in range(MAX_PARAMETERS):
        summed[a] = 0.0
    for i in range(energies_mev.shape[0]):
        value[i] = background_value(shape, p, energies_mev[i], reference_mev, table, gradient)
        spread = 0.0
        for a in range(n_parameters):
            summed[a] += gradient[a]
            for b in range(n_parameters):
                spread += gradient[a] * covariance[MAX_PARAMETERS * a + b] * gradient[b]
        variance[i] = max(spread, 0.0) if spread == spread else math.nan
    total = 0.0
    for a in range(n_parameters):
        for b in range(n_parameters):
            total += summed[a] * covariance[MAX_PARAMETERS * a + b] * summed[b]
    return max(total, 0.0) if total == total else math.nan
