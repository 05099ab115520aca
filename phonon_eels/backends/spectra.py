"""The forward kernel over a block of spectra on the processor."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.intervals import energy_intervals
from phonon_eels.kernels.least_squares import fit_one
from phonon_eels.kernels.likelihood import NO_DATA, profile_shared

Array = np.ndarray

NO_CHANNEL = -(2**31)
"""Stands for the zero-loss channel of a position without one; the true one may lie off the axis, below channel 0."""


@kernel
def read_spectrum(counts: Array, bad: Array, first: int, gain: float, dark_level: float, z: Array) -> int:
    """Convert detector counts from channel `first` on to electrons; unused and missing channels become NaN."""
    usable = 0
    for i in range(z.shape[0]):
        channel = first + i
        if channel < 0 or channel >= counts.shape[0] or (bad.shape[0] > 0 and bad[channel]):
            z[i] = math.nan
        else:
            z[i] = (counts[channel] - dark_level) / gain
            usable += math.isfinite(z[i])
    return usable


@kernel
def fit_block(
    counts: Array,  # (positions, channels), electrons or detector counts as float64
    bad: Array,  # (positions, channels) of bool, or (0, 0)
    variance: Array,  # (positions, channels), or (0, 0) for Poisson
    zero_channel: Array,  # (positions,) channel of the zero-loss peak, NO_CHANNEL: leave out
    gain: float, dark_level: float, shift_e: float,
    lags: Array,  # correlations of the noise that channels share, (0,) for none
    likelihood: int,
    first_channel: int,  # of the window, from the zero-loss channel
    energies_mev: Array, dispersion_mev: float, reference: Array, background: Array, kind: int,
    factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float,
    free: Array,  # (positions, parameters)
    lower: Array, upper: Array,
    prior_mean: Array,  # (positions, parameters)
    prior_precision: Array, max_iterations: int,
    params: Array,  # in: starts, out: estimates (positions, parameters)
    std: Array,  # out (positions, parameters)
    outcome: Array,  # out (positions, 7), see `least_squares.fit_one`
    status: Array,  # out (positions,)
    score: Array, information: Array, area_slope: Array,  # out (positions, 2M), (…, 2M, 2M), (…, M, 2M), or empty
    profile_below: float,  # see `intervals.energy_intervals`
    shown_above: float,
    intervals: Array, kinds: Array,  # out (positions, M, 4) and (positions, M), or empty
) -> int:  # fmt: skip
    """Fit every spectrum of a block; scratch is made once and the positions do not know of each other."""
    n = energies_mev.shape[0]
    n_params = params.shape[1]
    n_modes = tables.shape[0]
    z = np.empty(n)
    var = np.ones(n)
    jacobian = np.empty((n_params, n))
    corrections = np.empty((n_modes, 4, n))
    rows = np.empty((n_params + 5, n))
    vectors = np.empty((5, n))
    matrices = np.empty((4, n_params + 4, n_params + 4))
    columns = np.empty((5, n_params))
    index = np.empty((2, n_params), np.int64)
    work = np.empty(8 * n + 16)
    bits = np.empty(2 * n, np.int64)
    no_bad = np.empty(0, np.bool_)
    for p in range(counts.shape[0]):
        status[p] = NO_DATA
        outcome[p, :] = math.nan
        std[p, :] = math.nan
        if score.shape[0] > 0:
            score[p, :] = 0.0
            information[p, :, :] = 0.0
            area_slope[p, :, :] = 0.0
        if intervals.shape[0] > 0:
            intervals[p, :, :] = math.nan
            kinds[p, :] = 0
        if zero_channel[p] == NO_CHANNEL:
            params[p, :] = math.nan
            continue
        first = zero_channel[p] + first_channel
        usable = read_spectrum(counts[p], bad[p] if bad.shape[0] > 0 else no_bad, first, gain, dark_level, z)
        if variance.shape[0] > 0:
            read_spectrum(variance[p], no_bad, first, 1.0, 0.0, var)
        if usable < n_params:
            params[p, :] = math.nan
            continue
        status[p], n_index = fit_one(
            z, var, shift_e, lags, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor, tables,
            first_node_mev, node_step_mev, free[p], lower, upper, prior_mean[p], prior_precision, max_iterations,
            score.shape[0] > 0, params[p], std[p], jacobian, corrections, rows, vectors, matrices, columns, index[0], work,
            bits, outcome[p],
        )  # fmt: skip
        if score.shape[0] > 0:
            profile_shared(
                jacobian, vectors[1], vectors[2], free[p], n_modes, params[p], prior_mean[p], prior_precision, rows, matrices,
                index[0], columns, score[p], information[p], area_slope[p],
            )  # fmt: skip
        elif intervals.shape[0] > 0 and n_index > 0:
            energy_intervals(
                profile_below, shown_above, n_index, outcome[p, 0], z, var, shift_e, likelihood, energies_mev, dispersion_mev,
                reference, background, kind, factor, tables, first_node_mev, node_step_mev, corrections, free[p], lower, upper,
                prior_mean[p], prior_precision, params[p], std[p], jacobian, rows, vectors, matrices, columns, index[0],
                index[1], work, bits, intervals[p], kinds[p],
            )  # fmt: skip
    return 0
