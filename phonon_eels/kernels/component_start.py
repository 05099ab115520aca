"""Where a component fit starts: the mean spectrum's fit, moved to one spectrum by the series of the optimum in the counts.

The optimum is a function of the counts. Its first order around the mean spectrum is one Gauss-Newton step with a matrix that
all spectra share. Its second order needs the second derivatives of the model there, and they too are the same for all: what is
left for each spectrum are sums over the channels of its residuals times rows computed once. A start a few tenths of a standard
deviation from the optimum instead of one and a half saves an evaluation of the model in three, which costs five times as much.

A step of a centre or width is written as area times step: in these coordinates the model is linear in the area.
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.component_curvature import relative_curvature
from phonon_eels.kernels.device import inlined, kernel

LEAST_RATIO = 0.25
"""A component this much weaker than in the mean (or weaker still) is moved as if it were as strong: the step is a start only."""
BENDS = 2
"""Rounds of the second order, each with the step of the one before."""


@inlined(reducing=True)
def sums(z: np.ndarray, weight: np.ndarray, mean: np.ndarray) -> tuple[float, float]:
    """Return the sums over the usable channels of the data (0 where not usable) and of the mean."""
    above = below = 0.0
    for i in range(mean.shape[0]):
        above += z[i]
        below += mean[i] if weight[i] > 0.0 else 0.0
    return above, below


@inlined(reducing=True)
def project(projection: np.ndarray, first: int, residual: np.ndarray, out: np.ndarray) -> int:
    """Write the products of eight rows with the residuals."""
    r0, r1, r2, r3 = projection[first], projection[first + 1], projection[first + 2], projection[first + 3]
    r4, r5, r6, r7 = projection[first + 4], projection[first + 5], projection[first + 6], projection[first + 7]
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0.0)
    for i in range(residual.shape[0]):
        r = residual[i]
        a0 += r0[i] * r
        a1 += r1[i] * r
        a2 += r2[i] * r
        a3 += r3[i] * r
        a4 += r4[i] * r
        a5 += r5[i] * r
        a6 += r6[i] * r
        a7 += r7[i] * r
    out[first], out[first + 1], out[first + 2], out[first + 3] = a0, a1, a2, a3
    out[first + 4], out[first + 5], out[first + 6], out[first + 7] = a4, a5, a6, a7
    return 0


@inlined(reducing=False)
def add_rows(rows: np.ndarray, first: int, factors: np.ndarray, out: np.ndarray) -> int:
    """Add eight rows, each times its factor."""
    r0, r1, r2, r3 = rows[first], rows[first + 1], rows[first + 2], rows[first + 3]
    r4, r5, r6, r7 = rows[first + 4], rows[first + 5], rows[first + 6], rows[first + 7]
    f0, f1, f2, f3 = factors[first], factors[first + 1], factors[first + 2], factors[first + 3]
    f4, f5, f6, f7 = factors[first + 4], factors[first + 5], factors[first + 6], factors[first + 7]
    for i in range(rows.shape[1]):
        early = (f0 * r0[i] + f1 * r1[i]) + (f2 * r2[i] + f3 * r3[i])
        late = (f4 * r4[i] + f5 * r5[i]) + (f6 * r6[i] + f7 * r7[i])
        out[i] += early + late
    return 0


@inlined(reducing=False)
def inverse_ratios(start: np.ndarray, step: np.ndarray, amplitude: np.ndarray, out: np.ndarray) -> int:
    """Write what the steps of each component's other parameters are divided by, inverted, in the place of its amplitude."""
    for p in range(start.shape[0]):
        known = amplitude[p, 0] == 1 and start[p] != 0.0
        out[p] = 1.0 / max(1.0 + step[p] / start[p], LEAST_RATIO) if known else 1.0
    return 0


@inlined(reducing=False)
def bend(
    start: np.ndarray,
    amplitude: np.ndarray,
    pairs: np.ndarray,
    series: np.ndarray,
    change: np.ndarray,
    step: np.ndarray,
    factors: np.ndarray,
    inverse: np.ndarray,
) -> int:
    """Write the step with the second order in it, evaluated at the step given, over that; not if it were the larger part."""
    n_params = start.shape[0]
    first = (n_params + 3) // 4 * 4  # of the sums that belong to pairs
    n_pairs = change.shape[0] - first
    inverse_ratios(start, step, amplitude, inverse)
    for k in range(factors.shape[0]):
        factors[k] = 0.0
    for k in range(pairs.shape[0]):
        a, b, owner = pairs[k, 0], pairs[k, 1], pairs[k, 2]
        scale = inverse[owner] if owner >= 0 else 1.0
        factors[k] = scale * step[a] * step[b]
        turn = scale * change[first + k]
        factors[n_pairs + a] += turn * step[b]
        if a != b:
            factors[n_pairs + b] += turn * step[a]
    width = series.shape[1]
    for i in range(width):
        step[i] = 0.0
    for k in range(0, factors.shape[0], 8):
        add_rows(series, k, factors, step)
    large = small = 0.0
    precision = series[factors.shape[0]]
    for p in range(n_params):
        small += precision[p] * step[p] * step[p]
        large += precision[p] * change[p] * change[p]
        step[p] += change[p]
    if not small <= large:
        for p in range(n_params):
            step[p] = change[p]
    return 0


@kernel
def shared_step(
    z: np.ndarray,
    weight: np.ndarray,
    mean: np.ndarray,  # (channels,) model of the mean spectrum
    projection: np.ndarray,  # (rows, channels and more) of float32, see `SharedStart`
    pairs: np.ndarray,  # (pairs, 5), see `SharedStart`
    series: np.ndarray,  # (rows of the projection + 2, parameters up to a multiple of 8), see `SharedStart`
    start: np.ndarray,  # (parameters,) fit of the mean spectrum
    amplitude: np.ndarray,  # (parameters, 2): 1 amplitude, 2 its logarithm, else 0; parameter that scales this one, or -1
    bounds: np.ndarray,
    residual: np.ndarray,  # scratch (columns of the projection,) of float32, 0 beyond the channels
    columns: np.ndarray,  # scratch (4, rows of the projection and columns of the series, the larger)
    curvature: np.ndarray,  # out (pairs or more,), see `relative_curvature`
    params: np.ndarray,
) -> float:
    """Start from the fit of the mean spectrum, scaled to these counts, by the first two orders that all spectra share."""
    above, below = sums(z, weight, mean)
    ratio = above / below if below > 0.0 and above > 0.0 else 1.0
    scale = 1.0 / ratio
    for i in range(mean.shape[0]):
        r = z[i] * scale - mean[i]
        residual[i] = np.float32(r if weight[i] > 0.0 else 0.0)
    change, step = columns[0, : projection.shape[0]], columns[1]
    for p in range(0, projection.shape[0], 8):
        project(projection, p, residual, change)
    n_params = start.shape[0]
    for p in range(n_params):
        step[p] = change[p]
    if pairs.shape[0] > 0:
        for _ in range(BENDS):
            bend(start, amplitude, pairs, series, change, step, columns[2, : projection.shape[0]], columns[3])
    inverse_ratios(start, step, amplitude, columns[3])
    relative_curvature((n_params + 3) // 4 * 4, pairs, series, change, columns[3], curvature)
    for p in range(n_params):
        kind, owner = amplitude[p, 0], amplitude[p, 1]
        value = start[p] + (step[p] * columns[3, owner] if kind == 0 and owner >= 0 else step[p])
        if kind == 1:
            if bounds[0, p] >= 0.0:
                value = max(value, 0.05 * start[p])  # a peak that starts at 0 has no centre to fit
            value *= ratio
        elif kind == 2:
            value += math.log(ratio)
        params[p] = min(max(value, bounds[0, p]), bounds[1, p])
    return ratio
