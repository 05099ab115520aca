"""One position of a component fit: read the counts, start from the mean spectrum's fit, fit."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.component_fit import fit_components_one, read_data
from phonon_eels.kernels.device import inlined, kernel
from phonon_eels.kernels.likelihood import NO_DATA

LEAST_RATIO = 0.25
"""A component this much weaker than in the mean (or weaker still) is moved as if it were as strong: the step is a start only."""


@inlined(reducing=False)
def read_counts(
    counts: np.ndarray,
    bad: np.ndarray,
    mask: np.ndarray,
    variance: np.ndarray,
    first: int,
    n: int,
    gain: float,
    dark: float,
    z: np.ndarray,
    weight: np.ndarray,
) -> int:
    """Convert the window of one spectrum, of any number type, to electrons and weights."""
    window = counts[first : first + n]
    scale = 1.0 / gain
    for i in range(n):
        z[i] = (window[i] - dark) * scale
        weight[i] = mask[i]
    if variance.shape[0] > 0:
        spread = variance[first : first + n]
        for i in range(n):
            weight[i] = mask[i] * gain * gain / spread[i]
    if bad.shape[0] > 0:
        wrong = bad[first : first + n]
        for i in range(n):
            if wrong[i]:
                weight[i] = 0.0
    return 0


@inlined(reducing=True)
def sums(z: np.ndarray, weight: np.ndarray, mean: np.ndarray) -> tuple[float, float]:
    """Return the sums over the usable channels of the data and of the mean."""
    above = below = 0.0
    for i in range(mean.shape[0]):
        use = 1.0 if weight[i] > 0.0 else 0.0
        above += use * z[i]
        below += use * mean[i]
    return above, below


@inlined(reducing=True)
def project(projection: np.ndarray, first: int, residual: np.ndarray, out: np.ndarray) -> int:
    """Write the products of four rows with the residuals."""
    r0, r1, r2, r3 = projection[first], projection[first + 1], projection[first + 2], projection[first + 3]
    a0 = a1 = a2 = a3 = 0.0
    for i in range(residual.shape[0]):
        r = residual[i]
        a0 += r0[i] * r
        a1 += r1[i] * r
        a2 += r2[i] * r
        a3 += r3[i] * r
    out[first], out[first + 1], out[first + 2], out[first + 3] = a0, a1, a2, a3
    return 0


@kernel
def shared_step(
    z: np.ndarray,
    weight: np.ndarray,
    mean: np.ndarray,  # (channels,) model of the mean spectrum
    projection: np.ndarray,  # (multiple of 4, channels) Gauss-Newton step per electron of residual
    start: np.ndarray,  # (parameters,) fit of the mean spectrum
    amplitude: np.ndarray,  # (parameters, 2): 1 amplitude, 2 its logarithm, else 0; parameter that scales this one, or -1
    bounds: np.ndarray,
    residual: np.ndarray,  # scratch (channels,)
    change: np.ndarray,  # scratch (multiple of 4,)
    params: np.ndarray,
) -> float:
    """Start from the fit of the mean spectrum, scaled to these counts, by one step whose matrix all spectra share."""
    above, below = sums(z, weight, mean)
    ratio = above / below if below > 0.0 and above > 0.0 else 1.0
    scale = 1.0 / ratio
    for i in range(mean.shape[0]):
        use = 1.0 if weight[i] > 0.0 else 0.0
        residual[i] = use * (z[i] * scale - mean[i])
    for p in range(0, projection.shape[0], 4):
        project(projection, p, residual, change)
    n_params = start.shape[0]
    for p in range(n_params):
        params[p] = change[p]
    for p in range(n_params):
        if amplitude[p, 0] == 0:
            k = amplitude[p, 1]
            relative = 1.0
            if k >= 0 and start[k] != 0.0:
                relative = max(1.0 + params[k] / start[k], LEAST_RATIO)
            params[p] = start[p] + params[p] / relative
    for p in range(n_params):
        if amplitude[p, 0] == 1:
            value = start[p] + params[p]
            if bounds[0, p] >= 0.0:
                value = max(value, 0.05 * start[p])  # a peak that starts at 0 has no centre to fit
            params[p] = ratio * value
        elif amplitude[p, 0] == 2:
            params[p] = start[p] + params[p] + math.log(ratio)
        params[p] = min(max(params[p], bounds[0, p]), bounds[1, p])
    return ratio


@kernel
def fit_components_position(
    p: int,  # which position of the block
    counts: np.ndarray,  # (positions, channels) of any number type
    bad: np.ndarray,  # (positions, channels) of bool, or (0, 0)
    variance: np.ndarray,  # (positions, channels) of counts, or (0, 0)
    mask: np.ndarray,  # (window,) 1 or 0; for least squares without `variance`, inverse variances
    first: int,
    gain: float,
    dark: float,
    likelihood: int,
    shift_e: float,
    table: np.ndarray,
    owner: np.ndarray,
    affine: np.ndarray,
    bounds: np.ndarray,
    axis: np.ndarray,  # (4, filled window)
    channel_mev: float,
    index: np.ndarray,
    n_free: int,
    tolerance: float,
    max_evaluations: int,
    mean: np.ndarray,  # (filled window,), or (0,): `params` holds the starts
    projection: np.ndarray,
    start: np.ndarray,
    amplitude: np.ndarray,
    params: np.ndarray,  # in: starts, out: estimates (positions, parameters)
    std: np.ndarray,  # out (positions, parameters)
    covariance: np.ndarray,  # out (positions, free, free), or (1, 0, 1) if not wanted
    outcome: np.ndarray,  # out (positions, OUTCOMES)
    status: np.ndarray,  # out (positions,)
    z: np.ndarray,  # scratch from here on: (filled window,)
    weight: np.ndarray,  # (filled window,)
    rows: np.ndarray,  # as `fit_components_one` takes them
    vectors: np.ndarray,
    matrices: np.ndarray,
    columns: np.ndarray,
    no_bad: np.ndarray,  # (0,) of bool
    no_variance: np.ndarray,  # (0,)
) -> int:
    """Fit one position of a block; positions do not know of each other."""
    n = mask.shape[0]
    read_counts(
        counts[p], bad[p] if bad.shape[0] > 0 else no_bad, mask, variance[p] if variance.shape[0] > 0 else no_variance,
        first, n, gain, dark, z, weight,
    )  # fmt: skip
    for i in range(n, z.shape[0]):
        z[i] = 0.0
        weight[i] = 0.0
    if mean.shape[0] > 0:
        read_data(z, weight)
        shared_step(z, weight, mean, projection, start, amplitude, bounds, vectors[0], columns[0], params[p])
    wanted = covariance.shape[1] > 0
    matrix = covariance[p if wanted else 0]
    status[p] = fit_components_one(
        z, weight, likelihood, shift_e, table, owner, affine, bounds, axis, channel_mev, index, n_free, tolerance,
        max_evaluations, params[p], std[p], matrix, rows, vectors, matrices, columns, outcome[p],
    )  # fmt: skip
    if status[p] == NO_DATA:
        for k in range(params.shape[1]):
            params[p, k] = math.nan
            std[p, k] = math.nan
        for k in range(outcome.shape[1]):
            outcome[p, k] = math.nan
        for a in range(matrix.shape[0]):
            for b in range(matrix.shape[0]):
                matrix[a, b] = math.nan
    return int(status[p])
