"""Weights, normal equations and their solution for the fit of components to one spectrum."""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import kernel, reducing_kernel
from phonon_eels.kernels.elementary import log_one
from phonon_eels.kernels.likelihood import FLOOR_E, POISSON

SMALLEST_PIVOT = 1e-12
"""Of the diagonal it came from: below that, a parameter is what the others make of it, and has no value of its own."""
SMALLEST_NORMAL = 1e-300


@reducing_kernel
def poisson_terms(
    z: np.ndarray, mask: np.ndarray, shift_e: float, model: np.ndarray, weight: np.ndarray, pull: np.ndarray
) -> float:
    """Write weights and weighted residuals of shifted counts; return what of the deviance depends on the model."""
    total = 0.0
    for i in range(z.shape[0]):
        mean = max(model[i] + shift_e, FLOOR_E)
        shifted = z[i] + shift_e
        w = mask[i] / mean
        weight[i] = w
        pull[i] = w * (shifted - mean)
        model[i] = mean
    for i in range(z.shape[0]):
        total += mask[i] * (model[i] - (z[i] + shift_e) * log_one(model[i]))
    return 2.0 * total


@reducing_kernel
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


@reducing_kernel
def weigh_four(
    rows: np.ndarray, index: np.ndarray, weight: np.ndarray, pull: np.ndarray, strip: np.ndarray, out: np.ndarray
) -> int:
    """Write four weighted rows of the Jacobian, and their products with the residuals."""
    j0, j1, j2, j3 = rows[index[0]], rows[index[1]], rows[index[2]], rows[index[3]]
    w0, w1, w2, w3 = strip[0], strip[1], strip[2], strip[3]
    g0 = g1 = g2 = g3 = 0.0
    for i in range(weight.shape[0]):
        a, b, c, d, w, r = j0[i], j1[i], j2[i], j3[i], weight[i], pull[i]
        g0 += a * r
        g1 += b * r
        g2 += c * r
        g3 += d * r
        w0[i] = a * w
        w1[i] = b * w
        w2[i] = c * w
        w3[i] = d * w
    out[0], out[1], out[2], out[3] = g0, g1, g2, g3
    return 0


@reducing_kernel
def tile(strip: np.ndarray, rows: np.ndarray, index: np.ndarray, gram: np.ndarray) -> int:
    """Write 4 × 4 products of rows: sixteen sums in registers for eight loads.

    With the 32 registers of AVX-512 this takes three quarters of the time of 2 × 4 tiles.
    """
    w0, w1, w2, w3 = strip[0], strip[1], strip[2], strip[3]
    j0, j1, j2, j3 = rows[index[0]], rows[index[1]], rows[index[2]], rows[index[3]]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = 0.0
    for i in range(w0.shape[0]):
        p, q, r, s = j0[i], j1[i], j2[i], j3[i]
        t, u, v, w = w0[i], w1[i], w2[i], w3[i]
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
    gram[0, 0], gram[0, 1], gram[0, 2], gram[0, 3] = a0, a1, a2, a3
    gram[1, 0], gram[1, 1], gram[1, 2], gram[1, 3] = b0, b1, b2, b3
    gram[2, 0], gram[2, 1], gram[2, 2], gram[2, 3] = c0, c1, c2, c3
    gram[3, 0], gram[3, 1], gram[3, 2], gram[3, 3] = d0, d1, d2, d3
    return 0


@kernel
def form_normal(
    rows: np.ndarray,  # (parameters + 1, channels), the last all zero
    index: np.ndarray,  # rows of the free parameters, then the zero row, up to a multiple of 4
    n_free: int,
    weight: np.ndarray,
    pull: np.ndarray,
    strip: np.ndarray,  # scratch (4, channels)
    gram: np.ndarray,  # out: upper triangle, (index, index)
    gradient: np.ndarray,  # out
) -> int:
    """Form JᵀWJ (upper triangle) and JᵀWr in tiles that stay in registers."""
    for a in range(0, n_free, 4):
        weigh_four(rows, index[a:], weight, pull, strip, gradient[a:])
        for b in range(a, n_free, 4):
            tile(strip, rows, index[b:], gram[a:, b:])
    return 0


@kernel
def pivot_block(upper: np.ndarray, k: int, inverse: np.ndarray, smallest: np.ndarray) -> int:
    """Eliminate four pivots and finish their rows over all columns; return how many pivots vanished."""
    vanished = 0
    r0, r1, r2, r3 = upper[k], upper[k + 1], upper[k + 2], upper[k + 3]
    d0 = r0[k]
    i0 = 1.0 / d0 if d0 > smallest[k] else 0.0
    l10, l20, l30 = r0[k + 1] * i0, r0[k + 2] * i0, r0[k + 3] * i0
    d1 = r1[k + 1] - l10 * r0[k + 1]
    i1 = 1.0 / d1 if d1 > smallest[k + 1] else 0.0
    u12, u13 = r1[k + 2] - l10 * r0[k + 2], r1[k + 3] - l10 * r0[k + 3]
    l21, l31 = u12 * i1, u13 * i1
    d2 = r2[k + 2] - l20 * r0[k + 2] - l21 * u12
    i2 = 1.0 / d2 if d2 > smallest[k + 2] else 0.0
    u23 = r2[k + 3] - l20 * r0[k + 3] - l21 * u13
    l32 = u23 * i2
    d3 = r3[k + 3] - l30 * r0[k + 3] - l31 * u13 - l32 * u23
    i3 = 1.0 / d3 if d3 > smallest[k + 3] else 0.0
    inverse[k], inverse[k + 1], inverse[k + 2], inverse[k + 3] = i0, i1, i2, i3
    vanished += (i0 == 0.0) + (i1 == 0.0) + (i2 == 0.0) + (i3 == 0.0)
    r1[k + 2], r1[k + 3], r2[k + 3] = u12, u13, u23
    c0, c1, c2, c3 = r0[k + 4 :], r1[k + 4 :], r2[k + 4 :], r3[k + 4 :]
    for j in range(c0.shape[0]):
        u0 = c0[j]
        u1 = c1[j] - l10 * u0
        u2 = c2[j] - l20 * u0 - l21 * u1
        u3 = c3[j] - l30 * u0 - l31 * u1 - l32 * u2
        c1[j] = u1
        c2[j] = u2
        c3[j] = u3
    return vanished


@kernel
def factor(upper: np.ndarray, n: int, inverse: np.ndarray, smallest: np.ndarray) -> int:
    """Factor LDLᵀ in place, four pivots at a time, and the right-hand sides with it; return how many pivots vanished.

    Row k of the upper triangle becomes D times column k of L. A parameter whose pivot vanishes gets the inverse 0: it takes
    no step and the others are solved for without it.

    Parameters
    ----------
    upper
        (n, columns), n a multiple of 4; the columns from n on are right-hand sides b and become L⁻¹b.
    inverse, smallest
        (n,) out: inverse pivots; scratch.
    """
    vanished = 0
    for k in range(n):
        smallest[k] = SMALLEST_PIVOT * upper[k, k]
    for k in range(0, n, 4):
        vanished += pivot_block(upper, k, inverse, smallest)
        for i in range(k + 4, n):
            start = i - i % 4
            f0, f1 = upper[k, i] * inverse[k], upper[k + 1, i] * inverse[k + 1]
            f2, f3 = upper[k + 2, i] * inverse[k + 2], upper[k + 3, i] * inverse[k + 3]
            r0, r1, r2, r3 = upper[k, start:], upper[k + 1, start:], upper[k + 2, start:], upper[k + 3, start:]
            target = upper[i, start:]
            for j in range(target.shape[0]):
                target[j] -= (f0 * r0[j] + f1 * r1[j]) + (f2 * r2[j] + f3 * r3[j])
    return vanished


@kernel
def back_substitute(upper: np.ndarray, n: int, inverse: np.ndarray, out: np.ndarray) -> int:
    """Write the solution for the right-hand side in column n of the factored matrix."""
    for k in range(n - 1, -1, -1):
        total = upper[k, n]
        for i in range(k + 1, n):
            total -= upper[k, i] * out[i]
        out[k] = total * inverse[k]
    return 0


@kernel
def invert(upper: np.ndarray, n: int, inverse: np.ndarray, unit: np.ndarray, covariance: np.ndarray) -> int:
    """Write the inverse from the factors: the diagonal into row 0 of `covariance`, all of it where that has n rows.

    `unit` is scratch, (n, n): it receives L⁻¹, whose rows weighted by 1/D make the sum.
    """
    for k in range(n):
        here = unit[k, :n]
        for j in range(n):
            here[j] = 0.0
        here[k] = 1.0
    for k in range(n):
        end = k + 1
        here = unit[k, :end]
        for i in range(k + 1, n):
            f = upper[k, i] * inverse[k]
            target = unit[i, :end]
            for j in range(end):
                target[j] -= f * here[j]
    whole = covariance.shape[0] > 1
    for a in range(covariance.shape[0]):
        for b in range(covariance.shape[1]):
            covariance[a, b] = 0.0
    for k in range(n):
        end = min(k + 1, covariance.shape[1])
        here = unit[k, :end]
        d = inverse[k]
        for a in range(end if whole else 1):
            target = covariance[a, :end]
            if whole:
                f = d * here[a]
                for b in range(end):
                    target[b] += f * here[b]
            else:
                for b in range(end):
                    target[b] += d * here[b] * here[b]
    return 0
