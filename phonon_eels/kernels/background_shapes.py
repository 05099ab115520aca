"""Shapes of a smooth background, their derivatives, starting values and bounds.

Shapes (E in meV, u = ln(E / reference)):

- ``PEARSON7``: I w^(2m) / [w² + (2^(1/m) - 1)(2E - 2t0)²]^m, parameters (ln I, ln w, m, t0): the published group
  recipe's. Far from the peak only I w^(2m) (2^(1/m) - 1)^-m and m are determined; logarithms straighten that valley.
- ``LOG_QUADRATIC``: exp(p0 + p1 u + p2 u²).
- ``POWER_LAW``: A exp(-r u).
- ``EXPONENTIAL``: A exp(-k (E - reference)).
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel

PEARSON7, LOG_QUADRATIC, POWER_LAW, EXPONENTIAL = 0, 1, 2, 3

N_PARAMETERS = (4, 3, 2, 2)
"""Parameters of each shape."""


@kernel
def background_value(shape: int, p: np.ndarray, energy_mev: float, reference_mev: float, gradient: np.ndarray) -> float:
    """Return the background at an energy and write its derivatives to the parameters into `gradient`."""
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
    if shape == 2:
        distance = math.log(energy_mev / reference_mev)
    else:
        distance = energy_mev - reference_mev
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
    # The straight line through the means of the lower and the upper half of the channels, on the logarithm.
    n = energies.shape[0]
    used = 0.0
    for i in range(n):
        used += 1.0 if weight[i] > 0.0 else 0.0
    seen = 0.0
    low = high = low_at = high_at = n_low = n_high = 0.0
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
    if shape == 3:
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
    work: np.ndarray,
    value: np.ndarray,
    variance: np.ndarray,
) -> float:
    """Write a fitted background and its variance at some energies; return the variance of its sum over them.

    Parameters
    ----------
    p, covariance
        Parameters and their covariance, (4,) and (16,), from `fit_background_one`.
    work
        Scratch, (2, 4).
    value, variance
        Result, (energies,); NaN where the parameters are.
    """
    n_parameters = 4 if shape == 0 else (3 if shape == 1 else 2)
    gradient, summed = work[0], work[1]
    for a in range(4):
        summed[a] = 0.0
    for i in range(energies_mev.shape[0]):
        value[i] = background_value(shape, p, energies_mev[i], reference_mev, gradient)
        spread = 0.0
        for a in range(n_parameters):
            summed[a] += gradient[a]
            for b in range(n_parameters):
                spread += gradient[a] * covariance[4 * a + b] * gradient[b]
        variance[i] = max(spread, 0.0) if spread == spread else math.nan
    total = 0.0
    for a in range(n_parameters):
        for b in range(n_parameters):
            total += summed[a] * covariance[4 * a + b] * summed[b]
    return max(total, 0.0) if total == total else math.nan
