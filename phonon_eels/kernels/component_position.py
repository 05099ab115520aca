"""One position of a component fit: read the counts, start from the mean spectrum's fit, fit."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.component_fit import fit_components_one
from phonon_eels.kernels.component_start import shared_step
from phonon_eels.kernels.components import even_step
from phonon_eels.kernels.device import inlined, kernel
from phonon_eels.kernels.likelihood import NO_DATA

LARGEST = 1.7976931348623157e308


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
def read_data(z: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Take channels without data out of the sums; return how many are left and the sum of their sizes."""
    used = size = 0.0
    for i in range(z.shape[0]):
        usable = abs(z[i]) <= LARGEST and mask[i] > 0.0 and mask[i] <= LARGEST
        value = z[i] if usable else 0.0
        z[i] = value
        mask[i] = mask[i] if usable else 0.0
        used += 1.0 if usable else 0.0
        size += abs(value)
    return used, size


@inlined(reducing=False)
def no_result(params: np.ndarray, std: np.ndarray, outcome: np.ndarray, covariance: np.ndarray) -> int:
    """Write that nothing is known."""
    for k in range(params.shape[0]):
        params[k] = math.nan
        std[k] = math.nan
    for k in range(outcome.shape[0]):
        outcome[k] = math.nan
    for a in range(covariance.shape[0]):
        for b in range(covariance.shape[0]):
            covariance[a, b] = math.nan
    return NO_DATA


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
    even_mev: float,  # `even_step` of the energies
    index: np.ndarray,
    n_free: int,
    tolerance: float,
    max_evaluations: int,
    mean: np.ndarray,  # (filled window,), or (0,): `params` holds the starts
    projection: np.ndarray,
    pairs: np.ndarray,
    series: np.ndarray,
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
    narrow: np.ndarray,  # (columns of the projection,) of float32, 0 beyond the window
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
    matrix = covariance[p if covariance.shape[1] > 0 else 0]
    used, size = read_data(z, weight)
    if used <= n_free or size == 0.0:
        status[p] = no_result(params[p], std[p], outcome[p], matrix)
        return NO_DATA
    if mean.shape[0] > 0:
        shared_step(
            z,
            weight,
            mean,
            projection,
            pairs,
            series,
            start,
            amplitude,
            bounds,
            narrow,
            columns,
            columns[9],
            params[p],
        )
    status[p] = fit_components_one(
        z, weight, used, likelihood, shift_e, table, owner, affine, bounds, axis, channel_mev, even_mev, index, n_free,
        tolerance, max_evaluations, pairs, params[p], std[p], matrix, rows, vectors, matrices, columns, outcome[p],
    )  # fmt: skip
    return int(status[p])


@kernel
def fit_components_positions(
    counts: np.ndarray,  # all as `fit_components_position` takes them
    bad: np.ndarray,
    variance: np.ndarray,
    mask: np.ndarray,
    first: int,
    gain: float,
    dark: float,
    likelihood: int,
    shift_e: float,
    table: np.ndarray,
    owner: np.ndarray,
    affine: np.ndarray,
    bounds: np.ndarray,
    axis: np.ndarray,
    channel_mev: float,
    index: np.ndarray,
    n_free: int,
    tolerance: float,
    max_evaluations: int,
    mean: np.ndarray,
    projection: np.ndarray,
    pairs: np.ndarray,
    series: np.ndarray,
    start: np.ndarray,
    amplitude: np.ndarray,
    params: np.ndarray,
    std: np.ndarray,
    covariance: np.ndarray,
    outcome: np.ndarray,
    status: np.ndarray,
    z: np.ndarray,
    weight: np.ndarray,
    rows: np.ndarray,
    vectors: np.ndarray,
    matrices: np.ndarray,
    columns: np.ndarray,
    narrow: np.ndarray,
    no_bad: np.ndarray,
    no_variance: np.ndarray,
) -> int:
    """Fit all positions of a block: a loop in the driver would count references to every array at every position."""
    even_mev = even_step(axis[0])
    for p in range(counts.shape[0]):
        fit_components_position(
            p, counts, bad, variance, mask, first, gain, dark, likelihood, shift_e, table, owner, affine, bounds, axis,
            channel_mev, even_mev, index, n_free, tolerance, max_evaluations, mean, projection, pairs, series, start, amplitude,
            params, std, covariance, outcome, status, z, weight, rows, vectors, matrices, columns, narrow, no_bad, no_variance,
        )  # fmt: skip
    return 0
