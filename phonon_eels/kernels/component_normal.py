"""Weights and normal equations for the fit of components to one spectrum."""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import inlined, kernel, reducing_kernel
from phonon_eels.kernels.elementary import log_and_inverse, log_one
from phonon_eels.kernels.likelihood import FLOOR_E, POISSON

SMALLEST_NORMAL = 1e-300


@inlined(reducing=True)
def poisson_terms(
    z: np.ndarray, mask: np.ndarray, shift_e: float, model: np.ndarray, weight: np.ndarray, pull: np.ndarray
) -> float:
    """Write weights and weighted residuals of shifted counts; return what of the deviance depends on the model."""
    total = 0.0
    for i in range(z.shape[0]):
        mean = max(model[i] + shift_e, FLOOR_E)
        shifted = z[i] + shift_e
        logarithm, inverse = log_and_inverse(mean)
        w = mask[i] * inverse
        weight[i] = w
        pull[i] = w * (shifted - mean)
        model[i] = mean
        total += mask[i] * (mean - shifted * logarithm)
    return 2.0 * total


@inlined(reducing=True)
def gaussian_terms(z: np.ndarray, mask: np.ndarray, model: np.ndarray, pull: np.ndarray) -> float:
    """Write weighted residuals, return their chi-squared; `mask` holds the inverse variances."""
    total = 0.0
    for i in range(z.shape[0]):
        r = z[i] - model[i]
        p = mask[i] * r
        pull[i] = p
        total += p * r
    return total


@reducing_kernel
def saturated_terms(z: np.ndarray, mask: np.ndarray, shift_e: float) -> float:
    """Return what of the Poisson deviance depends on the counts alone."""
    total = 0.0
    for i in range(z.shape[0]):
        shifted = z[i] + shift_e
        safe = shifted if shifted > SMALLEST_NORMAL else 1.0
        term = mask[i] * shifted * (log_one(safe) - 1.0)
        total += term if shifted > SMALLEST_NORMAL else 0.0
    return 2.0 * total


@kernel
def weigh(
    likelihood: int,
    z: np.ndarray,
    mask: np.ndarray,
    shift_e: float,
    model: np.ndarray,
    weight: np.ndarray,
    pull: np.ndarray,
) -> float:
    """Write weights and weighted residuals; return minus twice the log likelihood, up to a constant of the data."""
    if likelihood == POISSON:
        return float(poisson_terms(z, mask, shift_e, model, weight, pull))
    return float(gaussian_terms(z, mask, model, pull))


@inlined(reducing=False)
def span_of_four(spans: np.ndarray, index: np.ndarray) -> tuple[int, int]:
    """Return between which channels any of four rows is not 0."""
    a, b, c, d = index[0], index[1], index[2], index[3]
    low = min(min(spans[0, a], spans[0, b]), min(spans[0, c], spans[0, d]))
    high = max(max(spans[1, a], spans[1, b]), max(spans[1, c], spans[1, d]))
    return int(low), int(high)


@inlined(reducing=True)
def diagonal_tile(
    rows: np.ndarray,
    index: np.ndarray,
    low: int,
    high: int,
    weights: np.ndarray,
    pulls: np.ndarray,
    gram: np.ndarray,
    out: np.ndarray,
) -> int:
    """Write the ten weighted products of four rows with each other, and those with the weighted residuals."""
    j0, j1 = rows[index[0], low:high], rows[index[1], low:high]
    j2, j3 = rows[index[2], low:high], rows[index[3], low:high]
    weight, pull = weights[low:high], pulls[low:high]
    a0 = a1 = a2 = a3 = b1 = b2 = b3 = c2 = c3 = d3 = 0.0
    g0 = g1 = g2 = g3 = 0.0
    for i in range(weight.shape[0]):
        x, y = weight[i], pull[i]
        p, q, r, s = j0[i], j1[i], j2[i], j3[i]
        t, u, v = x * p, x * q, x * r
        a0 += t * p
        a1 += t * q
        a2 += t * r
        a3 += t * s
        b1 += u * q
        b2 += u * r
        b3 += u * s
        c2 += v * r
        c3 += v * s
        d3 += x * s * s
        g0 += y * p
        g1 += y * q
        g2 += y * r
        g3 += y * s
    gram[0], gram[1], gram[2], gram[3] = a0, a1, a2, a3
    gram[4], gram[5], gram[6], gram[7] = a1, b1, b2, b3
    gram[8], gram[9], gram[10], gram[11] = a2, b2, c2, c3
    gram[12], gram[13], gram[14], gram[15] = a3, b3, c3, d3
    out[0], out[1], out[2], out[3] = g0, g1, g2, g3
    return 0


@inlined(reducing=True)
def tile(
    rows: np.ndarray, left: np.ndarray, right: np.ndarray, low: int, high: int, weights: np.ndarray, gram: np.ndarray
) -> int:
    """Write 4 × 4 weighted products of rows: sixteen sums in registers for nine loads.

    Weighting the four rows again in every tile costs less than writing weighted rows and reading them back.
    """
    j0, j1 = rows[left[0], low:high], rows[left[1], low:high]
    j2, j3 = rows[left[2], low:high], rows[left[3], low:high]
    k0, k1 = rows[right[0], low:high], rows[right[1], low:high]
    k2, k3 = rows[right[2], low:high], rows[right[3], low:high]
    weight = weights[low:high]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = 0.0
    for i in range(weight.shape[0]):
        x = weight[i]
        p, q, r, s = k0[i], k1[i], k2[i], k3[i]
        t, u, v, w = x * j0[i], x * j1[i], x * j2[i], x * j3[i]
        a0 += t * p
        a1 += t * q
        a2 += t * r
        a3 += t * s
        b0 += u * p
        b1 += u * q
        b2 += u * r
        b3 += u * s
        c0 += v * p
        c1 += v * q
        c2 += v * r
        c3 += v * s
        d0 += w * p
        d1 += w * q
        d2 += w * r
        d3 += w * s
    gram[0], gram[1], gram[2], gram[3] = a0, a1, a2, a3
    gram[4], gram[5], gram[6], gram[7] = b0, b1, b2, b3
    gram[8], gram[9], gram[10], gram[11] = c0, c1, c2, c3
    gram[12], gram[13], gram[14], gram[15] = d0, d1, d2, d3
    return 0


@inlined(reducing=True)
def half_tile(
    rows: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    low: int,
    high: int,
    weights: np.ndarray,
    gram: np.ndarray,
) -> int:
    """Write the products of four rows with two, weighted: the first two columns of a tile, of which the others stay 0."""
    j0, j1 = rows[left[0], low:high], rows[left[1], low:high]
    j2, j3 = rows[left[2], low:high], rows[left[3], low:high]
    k0, k1 = rows[right[0], low:high], rows[right[1], low:high]
    weight = weights[low:high]
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = 0.0
    for i in range(weight.shape[0]):
        x = weight[i]
        p, q = x * k0[i], x * k1[i]
        t, u, v, w = j0[i], j1[i], j2[i], j3[i]
        a0 += t * p
        a1 += t * q
        b0 += u * p
        b1 += u * q
        c0 += v * p
        c1 += v * q
        d0 += w * p
        d1 += w * q
    gram[0], gram[1], gram[4], gram[5] = a0, a1, b0, b1
    gram[8], gram[9], gram[12], gram[13] = c0, c1, d0, d1
    return 0


@kernel
def form_normal(
    rows: np.ndarray,  # (parameters + 1, channels), the last all zero
    index: np.ndarray,  # rows of the free parameters, then the zero row, up to a multiple of 4
    blocks: int,  # that multiple
    weight: np.ndarray,
    pull: np.ndarray,
    spans: np.ndarray,  # (2, parameters + 1): between which channels a row is not 0
    gram: np.ndarray,  # out (blocks², 16): tiles as in `component_solve`
    gradient: np.ndarray,  # out (4 · blocks,)
) -> int:
    """Form JᵀWJ (upper tiles) and JᵀWr, a tile at a time in registers."""
    for a in range(blocks):
        left = index[4 * a :]
        low, high = span_of_four(spans, left)
        diagonal_tile(rows, left, low, high, weight, pull, gram[a * blocks + a], gradient[4 * a :])
        for b in range(a + 1, blocks):
            right = index[4 * b :]
            first, last = span_of_four(spans, right)
            first, last = max(low, first), min(high, last)
            if right[2] == rows.shape[0] - 1:  # the last block, and two of its four are filling
                half_tile(rows, left, right, first, max(first, last), weight, gram[a * blocks + b])
            else:
                tile(rows, left, right, first, max(first, last), weight, gram[a * blocks + b])
    return 0


@reducing_kernel
def squared_pulls(
    z: np.ndarray, shift_e: float, model: np.ndarray, weight: np.ndarray, pull: np.ndarray
) -> tuple[float, float]:
    """Return Pearson's chi-squared and the sum of the weights; `model` holds the shift (0 for least squares)."""
    pearson, total = 0.0, 0.0
    for i in range(weight.shape[0]):
        pearson += pull[i] * (z[i] + shift_e - model[i])
        total += weight[i]
    return pearson, total
