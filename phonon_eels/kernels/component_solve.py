"""Solution and inverse of the normal equations of a component fit, in tiles of 4 × 4.

A symmetric matrix of n parameters lies in blocks² rows of 16 numbers, blocks = ceil(n / 4): row `i * blocks + j` is the tile of
block row i and block column j ≥ i, row by row. With the offsets inside a tile constant, no index has to be checked or
multiplied: a third of the time of loops over rows and columns.
"""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import inlined, kernel

SMALLEST_PIVOT = 1e-12
"""Of the diagonal it came from: below that, a parameter is what the others make of it, and has no value of its own."""


@inlined(reducing=False)
def element(matrix: np.ndarray, blocks: int, a: int, b: int) -> float:
    """Return the element of two parameters, in either order."""
    low, high = min(a, b), max(a, b)
    return float(matrix[(low >> 2) * blocks + (high >> 2), (low & 3) * 4 + (high & 3)])


@inlined(reducing=False)
def set_element(matrix: np.ndarray, blocks: int, a: int, b: int, value: float) -> int:
    """Set the element of two parameters, in either order."""
    low, high = min(a, b), max(a, b)
    matrix[(low >> 2) * blocks + (high >> 2), (low & 3) * 4 + (high & 3)] = value
    return 0


@inlined(reducing=False)
def finish_rows(u: np.ndarray, i: np.ndarray, t: np.ndarray) -> int:
    """Eliminate in the four rows of a tile what the factored diagonal tile `u` with the inverse pivots `i` says."""
    l10, l20, l30 = u[1] * i[0], u[2] * i[0], u[3] * i[0]
    l21, l31, l32 = u[6] * i[1], u[7] * i[1], u[11] * i[2]
    a0, a1, a2, a3 = t[0], t[1], t[2], t[3]
    b0, b1, b2, b3 = t[4] - l10 * a0, t[5] - l10 * a1, t[6] - l10 * a2, t[7] - l10 * a3
    c0, c1 = t[8] - l20 * a0 - l21 * b0, t[9] - l20 * a1 - l21 * b1
    c2, c3 = t[10] - l20 * a2 - l21 * b2, t[11] - l20 * a3 - l21 * b3
    d0, d1 = t[12] - l30 * a0 - l31 * b0 - l32 * c0, t[13] - l30 * a1 - l31 * b1 - l32 * c1
    d2, d3 = t[14] - l30 * a2 - l31 * b2 - l32 * c2, t[15] - l30 * a3 - l31 * b3 - l32 * c3
    t[4], t[5], t[6], t[7] = b0, b1, b2, b3
    t[8], t[9], t[10], t[11] = c0, c1, c2, c3
    t[12], t[13], t[14], t[15] = d0, d1, d2, d3
    return 0


@inlined(reducing=False)
def subtract_product(s: np.ndarray, i: np.ndarray, b: np.ndarray, t: np.ndarray) -> int:
    """Subtract sᵀ · diag(i) · b from a tile; all are tiles, `i` the four inverse pivots.

    All is read before anything is written: for all the compiler knows, the tiles may be one, and only what no store comes
    between can share a register, four neighbours at a time.
    """
    i0, i1, i2, i3 = i[0], i[1], i[2], i[3]
    b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
    b4, b5, b6, b7 = b[4], b[5], b[6], b[7]
    b8, b9, b10, b11 = b[8], b[9], b[10], b[11]
    b12, b13, b14, b15 = b[12], b[13], b[14], b[15]
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    s4, s5, s6, s7 = s[4], s[5], s[6], s[7]
    s8, s9, s10, s11 = s[8], s[9], s[10], s[11]
    s12, s13, s14, s15 = s[12], s[13], s[14], s[15]
    t0, t1, t2, t3 = t[0], t[1], t[2], t[3]
    t4, t5, t6, t7 = t[4], t[5], t[6], t[7]
    t8, t9, t10, t11 = t[8], t[9], t[10], t[11]
    t12, t13, t14, t15 = t[12], t[13], t[14], t[15]
    f0, f1, f2, f3 = s0 * i0, s4 * i1, s8 * i2, s12 * i3
    t0 -= (f0 * b0 + f1 * b4) + (f2 * b8 + f3 * b12)
    t1 -= (f0 * b1 + f1 * b5) + (f2 * b9 + f3 * b13)
    t2 -= (f0 * b2 + f1 * b6) + (f2 * b10 + f3 * b14)
    t3 -= (f0 * b3 + f1 * b7) + (f2 * b11 + f3 * b15)
    f0, f1, f2, f3 = s1 * i0, s5 * i1, s9 * i2, s13 * i3
    t4 -= (f0 * b0 + f1 * b4) + (f2 * b8 + f3 * b12)
    t5 -= (f0 * b1 + f1 * b5) + (f2 * b9 + f3 * b13)
    t6 -= (f0 * b2 + f1 * b6) + (f2 * b10 + f3 * b14)
    t7 -= (f0 * b3 + f1 * b7) + (f2 * b11 + f3 * b15)
    f0, f1, f2, f3 = s2 * i0, s6 * i1, s10 * i2, s14 * i3
    t8 -= (f0 * b0 + f1 * b4) + (f2 * b8 + f3 * b12)
    t9 -= (f0 * b1 + f1 * b5) + (f2 * b9 + f3 * b13)
    t10 -= (f0 * b2 + f1 * b6) + (f2 * b10 + f3 * b14)
    t11 -= (f0 * b3 + f1 * b7) + (f2 * b11 + f3 * b15)
    f0, f1, f2, f3 = s3 * i0, s7 * i1, s11 * i2, s15 * i3
    t12 -= (f0 * b0 + f1 * b4) + (f2 * b8 + f3 * b12)
    t13 -= (f0 * b1 + f1 * b5) + (f2 * b9 + f3 * b13)
    t14 -= (f0 * b2 + f1 * b6) + (f2 * b10 + f3 * b14)
    t15 -= (f0 * b3 + f1 * b7) + (f2 * b11 + f3 * b15)
    t[0], t[1], t[2], t[3] = t0, t1, t2, t3
    t[4], t[5], t[6], t[7] = t4, t5, t6, t7
    t[8], t[9], t[10], t[11] = t8, t9, t10, t11
    t[12], t[13], t[14], t[15] = t12, t13, t14, t15
    return 0


@inlined(reducing=False)
def factor_diagonal(u: np.ndarray, smallest: np.ndarray, inverse: np.ndarray, y: np.ndarray) -> int:
    """Factor a diagonal tile and eliminate in its part of the right-hand side; return how many pivots vanished."""
    d0, u01, u02, u03 = u[0], u[1], u[2], u[3]
    i0 = 1.0 / d0 if d0 > smallest[0] else 0.0
    l10, l20, l30 = u01 * i0, u02 * i0, u03 * i0
    d1, u12, u13 = u[5] - l10 * u01, u[6] - l10 * u02, u[7] - l10 * u03
    i1 = 1.0 / d1 if d1 > smallest[1] else 0.0
    l21, l31 = u12 * i1, u13 * i1
    d2, u23 = u[10] - l20 * u02 - l21 * u12, u[11] - l20 * u03 - l21 * u13
    i2 = 1.0 / d2 if d2 > smallest[2] else 0.0
    l32 = u23 * i2
    d3 = u[15] - l30 * u03 - l31 * u13 - l32 * u23
    i3 = 1.0 / d3 if d3 > smallest[3] else 0.0
    u[6], u[7], u[11] = u12, u13, u23
    inverse[0], inverse[1], inverse[2], inverse[3] = i0, i1, i2, i3
    y0 = y[0]
    y1 = y[1] - l10 * y0
    y2 = y[2] - l20 * y0 - l21 * y1
    y[1], y[2], y[3] = y1, y2, y[3] - l30 * y0 - l31 * y1 - l32 * y2
    return int((i0 == 0.0) + (i1 == 0.0) + (i2 == 0.0) + (i3 == 0.0))


@kernel
def factor(upper: np.ndarray, blocks: int, rhs: np.ndarray, inverse: np.ndarray, smallest: np.ndarray) -> int:
    """Factor LDLᵀ in place, and the right-hand side with it; return how many pivots vanished.

    Row k of the upper triangle becomes D times column k of L. A parameter whose pivot vanishes gets the inverse 0: it takes
    no step and the others are solved for without it.

    Parameters
    ----------
    upper
        (blocks², 16).
    rhs, inverse, smallest
        (4 · blocks,): right-hand side b, becomes L⁻¹b; out: inverse pivots; scratch.
    """
    vanished = 0
    for k in range(blocks):
        tile, least = upper[k * blocks + k], smallest[4 * k :]
        least[0], least[1] = SMALLEST_PIVOT * tile[0], SMALLEST_PIVOT * tile[5]
        least[2], least[3] = SMALLEST_PIVOT * tile[10], SMALLEST_PIVOT * tile[15]
    for k in range(blocks):
        pivots, y = inverse[4 * k :], rhs[4 * k :]
        u = upper[k * blocks + k]
        vanished += factor_diagonal(u, smallest[4 * k :], pivots, y)
        for j in range(k + 1, blocks):
            finish_rows(u, pivots, upper[k * blocks + j])
        f0, f1, f2, f3 = y[0] * pivots[0], y[1] * pivots[1], y[2] * pivots[2], y[3] * pivots[3]
        for i in range(k + 1, blocks):
            s, t = upper[k * blocks + i], rhs[4 * i :]
            t[0] -= (s[0] * f0 + s[4] * f1) + (s[8] * f2 + s[12] * f3)
            t[1] -= (s[1] * f0 + s[5] * f1) + (s[9] * f2 + s[13] * f3)
            t[2] -= (s[2] * f0 + s[6] * f1) + (s[10] * f2 + s[14] * f3)
            t[3] -= (s[3] * f0 + s[7] * f1) + (s[11] * f2 + s[15] * f3)
            for j in range(i, blocks):
                subtract_product(s, pivots, upper[k * blocks + j], upper[i * blocks + j])
    return vanished


@kernel
def back_substitute(upper: np.ndarray, blocks: int, rhs: np.ndarray, inverse: np.ndarray, out: np.ndarray) -> int:
    """Write the solution from what `factor` left."""
    for k in range(blocks - 1, -1, -1):
        y, i, x = rhs[4 * k :], inverse[4 * k :], out[4 * k :]
        t0, t1, t2, t3 = y[0], y[1], y[2], y[3]
        for j in range(k + 1, blocks):
            s, known = upper[k * blocks + j], out[4 * j :]
            x0, x1, x2, x3 = known[0], known[1], known[2], known[3]
            t0 -= (s[0] * x0 + s[1] * x1) + (s[2] * x2 + s[3] * x3)
            t1 -= (s[4] * x0 + s[5] * x1) + (s[6] * x2 + s[7] * x3)
            t2 -= (s[8] * x0 + s[9] * x1) + (s[10] * x2 + s[11] * x3)
            t3 -= (s[12] * x0 + s[13] * x1) + (s[14] * x2 + s[15] * x3)
        u = upper[k * blocks + k]
        x3 = t3 * i[3]
        x2 = (t2 - u[11] * x3) * i[2]
        x1 = (t1 - u[6] * x2 - u[7] * x3) * i[1]
        x[0] = (t0 - u[1] * x1 - u[2] * x2 - u[3] * x3) * i[0]
        x[1], x[2], x[3] = x1, x2, x3
    return 0


@inlined(reducing=False)
def add_squares(tile: np.ndarray, i: np.ndarray, out: np.ndarray) -> int:
    """Add the squares of each column, weighted by the inverse pivots of the rows."""
    i0, i1, i2, i3 = i[0], i[1], i[2], i[3]
    t = tile
    out[0] += (t[0] * t[0] * i0 + t[4] * t[4] * i1) + (t[8] * t[8] * i2 + t[12] * t[12] * i3)
    out[1] += (t[1] * t[1] * i0 + t[5] * t[5] * i1) + (t[9] * t[9] * i2 + t[13] * t[13] * i3)
    out[2] += (t[2] * t[2] * i0 + t[6] * t[6] * i1) + (t[10] * t[10] * i2 + t[14] * t[14] * i3)
    out[3] += (t[3] * t[3] * i0 + t[7] * t[7] * i1) + (t[11] * t[11] * i2 + t[15] * t[15] * i3)
    return 0


@inlined(reducing=False)
def put_negative(t: np.ndarray, a: int, b: int, out: np.ndarray) -> int:
    """Write the negative of a tile at row a and column b of a symmetric matrix, and its transpose."""
    n = out.shape[0]
    if a + 4 <= n and b + 4 <= n:
        w, x, y, z = out[a], out[a + 1], out[a + 2], out[a + 3]
        w[b], w[b + 1], w[b + 2], w[b + 3] = -t[0], -t[1], -t[2], -t[3]
        x[b], x[b + 1], x[b + 2], x[b + 3] = -t[4], -t[5], -t[6], -t[7]
        y[b], y[b + 1], y[b + 2], y[b + 3] = -t[8], -t[9], -t[10], -t[11]
        z[b], z[b + 1], z[b + 2], z[b + 3] = -t[12], -t[13], -t[14], -t[15]
        w, x, y, z = out[b], out[b + 1], out[b + 2], out[b + 3]
        w[a], w[a + 1], w[a + 2], w[a + 3] = -t[0], -t[4], -t[8], -t[12]
        x[a], x[a + 1], x[a + 2], x[a + 3] = -t[1], -t[5], -t[9], -t[13]
        y[a], y[a + 1], y[a + 2], y[a + 3] = -t[2], -t[6], -t[10], -t[14]
        z[a], z[a + 1], z[a + 2], z[a + 3] = -t[3], -t[7], -t[11], -t[15]
        return 0
    for i in range(min(4, n - a)):
        for j in range(min(4, n - b)):
            out[a + i, b + j] = out[b + j, a + i] = -t[4 * i + j]
    return 0


@kernel
def whole_inverse(unit: np.ndarray, blocks: int, inverse: np.ndarray, work: np.ndarray, covariance: np.ndarray) -> int:
    """Write L⁻ᵀ D⁻¹ L⁻¹ from L⁻¹; `work` is scratch as `unit`."""
    for i in range(blocks):
        for j in range(i, blocks):
            tile = work[i * blocks + j]
            for e in range(16):
                tile[e] = 0.0
            for k in range(j, blocks):
                subtract_product(unit[k * blocks + i], inverse[4 * k :], unit[k * blocks + j], tile)
            if i == j:  # symmetric to the last bit
                tile[4], tile[8], tile[9] = tile[1], tile[2], tile[6]
                tile[12], tile[13], tile[14] = tile[3], tile[7], tile[11]
            put_negative(tile, 4 * i, 4 * j, covariance)
    return 0


@kernel
def invert(
    upper: np.ndarray,  # overwritten where `covariance` is wanted
    blocks: int,
    inverse: np.ndarray,
    unit: np.ndarray,  # scratch as `upper`: tile (i, j) of L⁻¹, j ≤ i, in row i · blocks + j
    diagonal: np.ndarray,  # out (4 · blocks,)
    covariance: np.ndarray,  # out (n, n), or (1, …) if not wanted
) -> int:
    """Write the inverse from the factors: its diagonal, and all of it where `covariance` has n rows."""
    for i in range(blocks):
        for j in range(i + 1):
            tile = unit[i * blocks + j]
            for e in range(16):
                tile[e] = 0.0
            if i == j:
                tile[0] = tile[5] = tile[10] = tile[15] = 1.0
        out = diagonal[4 * i :]
        out[0] = out[1] = out[2] = out[3] = 0.0
    for k in range(blocks):
        pivots = inverse[4 * k :]
        for j in range(k + 1):
            tile = unit[k * blocks + j]
            finish_rows(upper[k * blocks + k], pivots, tile)
            add_squares(tile, pivots, diagonal[4 * j :])
        for i in range(k + 1, blocks):
            for j in range(k + 1):
                subtract_product(upper[k * blocks + i], pivots, unit[k * blocks + j], unit[i * blocks + j])
    if covariance.shape[0] == covariance.shape[1]:
        whole_inverse(unit, blocks, inverse, upper, covariance)
    return 0
