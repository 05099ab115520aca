"""The fit of components over a block of spectra on the processor."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.backends.scratch import aligned
from phonon_eels.kernels.component_fit import N_COLUMNS, N_VECTORS, SQUARES
from phonon_eels.kernels.component_position import fit_components_positions
from phonon_eels.kernels.components import evaluate_components, even_step, whole_spans
from phonon_eels.kernels.device import kernel

LANES = 8
"""Channels are filled up to a multiple of this with channels of no weight, so that no loop has a remainder."""


@kernel
def copy_rows(source: np.ndarray, target: np.ndarray) -> int:
    """Copy a matrix: an assignment of slices would compile its error message too, which takes six seconds."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]
    return 0


@kernel
def fit_components_block(
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
    pairs: np.ndarray,
    series: np.ndarray,
    start: np.ndarray,
    amplitude: np.ndarray,
    params: np.ndarray,  # in: starts, out: estimates (positions, parameters)
    std: np.ndarray,  # out (positions, parameters)
    covariance: np.ndarray,  # out (positions, free, free), or (1, 0, 1) if not wanted
    outcome: np.ndarray,  # out (positions, OUTCOMES)
    status: np.ndarray,  # out (positions,)
) -> int:
    """Fit every spectrum of a block; scratch is made once."""
    filled, n_params, blocks = axis.shape[1], params.shape[1], (n_free + 3) // 4
    z, weight = aligned(1, filled)[0], aligned(1, filled)[0]
    rows, vectors = aligned(n_params + 1, filled), aligned(N_VECTORS, filled)
    channels = aligned(4, filled)
    copy_rows(axis, channels)
    matrices = np.zeros((SQUARES, blocks * blocks, 16))
    columns = np.zeros((N_COLUMNS, max(4 * blocks, projection.shape[0], series.shape[1], n_params + 1)))
    narrow, no_bad, no_variance = np.zeros(projection.shape[1], np.float32), np.empty(0, np.bool_), np.empty(0)
    return fit_components_positions(
        counts, bad, variance, mask, first, gain, dark, likelihood, shift_e, table, owner, affine, bounds, channels,
        channel_mev, index, n_free, tolerance, max_evaluations, mean, projection, pairs, series, start, amplitude, params, std,
        covariance, outcome, status, z, weight, rows, vectors, matrices, columns, narrow, no_bad, no_variance,
    )  # fmt: skip


@kernel
def evaluate_spectrum(
    table: np.ndarray,
    owner: np.ndarray,
    affine: np.ndarray,
    axis: np.ndarray,
    channel_mev: float,
    params: np.ndarray,
    rows: np.ndarray,  # out (parameters, channels)
    model: np.ndarray,  # out (channels,)
) -> int:
    """Write one spectrum's model and derivatives."""
    scratch, spans = np.empty((4, model.shape[0])), np.empty((2, params.shape[0]))
    even_mev = even_step(axis[0])
    whole_spans(model.shape[0], spans)
    return int(
        evaluate_components(table, owner, affine, params, axis, channel_mev, even_mev, rows, spans, scratch, model)
    )


@kernel
def sum_rows(
    counts: np.ndarray,  # (rows, columns, channels) of any number type
    bad: np.ndarray,  # (rows, columns, channels) of bool, or (0, 0, 0)
    variance: np.ndarray,  # (rows, columns, channels), or (0, 0, 0)
    first: int,
    gain: float,
    dark: float,
    sums: np.ndarray,  # out (rows, 3, window): electrons, their variance, how many positions
) -> int:
    """Sum the spectra of each row, unusable channels left out."""
    for r in range(counts.shape[0]):
        for i in range(sums.shape[2]):
            sums[r, 0, i] = sums[r, 1, i] = sums[r, 2, i] = 0.0
        for c in range(counts.shape[1]):
            for i in range(sums.shape[2]):
                z = (counts[r, c, first + i] - dark) / gain
                if (bad.shape[0] > 0 and bad[r, c, first + i]) or not math.isfinite(z):
                    continue
                spread = 0.0
                if variance.shape[0] > 0:
                    spread = variance[r, c, first + i] / (gain * gain)
                    if not spread > 0.0 or not math.isfinite(spread):
                        continue
                sums[r, 0, i] += z
                sums[r, 1, i] += spread
                sums[r, 2, i] += 1.0
    return 0
