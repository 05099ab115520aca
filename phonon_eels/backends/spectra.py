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
def fit_position(
    p: int,  # which position of the block
    counts: Array, bad: Array, variance: Array, zero_channel: Array, gain: float, dark_level: float, shift_e: float,
    lags: Array, likelihood: int, first_channel: int, energies_mev: Array, dispersion_mev: float, reference: Array,
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float, free: Array,
    lower: Array, upper: Array, prior_mean: Array, prior_precision: Array, max_iterations: int, params: Array, std: Array,
    outcome: Array, status: Array, score: Array, information: Array, area_slope: Array, intervals: Array, kinds: Array,
    z: Array,  # scratch from here on, (channels,)
    var: Array,  # (channels,)
    jacobian: Array, corrections: Array, rows: Array, vectors: Array, matrices: Array, columns: Array,
    index: Array,  # (2, parameters) of integers
    work: Array, bits: Array,
    no_bad: Array,  # (0,) of bool
) -> int:  # fmt: skip
    """Fit one spectrum of a block, with the arguments of `fit_block` and the scratch of `least_squares.fit_one`.

    Returns how many parameters were free in the end, 0 if the fit ended badly; see `interval_position`.
    """
    n_params = params.shape[1]
    status[p] = NO_DATA
    for k in range(outcome.shape[1]):
        outcome[p, k] = math.nan
    for k in range(n_params):
        std[p, k] = math.nan
    if score.shape[0] > 0:
        score[p, :] = 0.0
        information[p, :, :] = 0.0
        area_slope[p, :, :] = 0.0
    if intervals.shape[0] > 0:
        intervals[p, :, :] = math.nan
        kinds[p, :] = 0
    usable = 0
    if zero_channel[p] != NO_CHANNEL:
        first = zero_channel[p] + first_channel
        usable = read_spectrum(counts[p], bad[p] if bad.shape[0] > 0 else no_bad, first, gain, dark_level, z)
        if variance.shape[0] > 0:
            read_spectrum(variance[p], no_bad, first, 1.0, 0.0, var)
    if usable < n_params:
        params[p, :] = math.nan
        return 0
    found, n_index = fit_one(
        z, var, shift_e, lags, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor, tables,
        first_node_mev, node_step_mev, free[p], lower, upper, prior_mean[p], prior_precision, max_iterations,
        score.shape[0] > 0, params[p], std[p], jacobian, corrections, rows, vectors, matrices, columns, index[0], work,
        bits, outcome[p],
    )  # fmt: skip
    status[p] = found
    if score.shape[0] > 0:
        profile_shared(
            jacobian, vectors[1], vectors[2], free[p], tables.shape[0], params[p], prior_mean[p], prior_precision, rows, matrices,
            index[0], columns, score[p], information[p], area_slope[p],
        )  # fmt: skip
    return int(n_index)


@kernel
def interval_position(
    p: int,
    n_index: int,  # what `fit_position` returned, more than 0
    shift_e: float, likelihood: int, energies_mev: Array, dispersion_mev: float, reference: Array,
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float, free: Array,
    lower: Array, upper: Array, prior_mean: Array, prior_precision: Array, params: Array, std: Array, outcome: Array,
    profile_below: float, shown_above: float, intervals: Array, kinds: Array, z: Array, var: Array, jacobian: Array,
    corrections: Array, rows: Array, vectors: Array, matrices: Array, columns: Array, index: Array, work: Array, bits: Array,
) -> int:  # fmt: skip
    """Write the intervals of one spectrum, from the scratch as `fit_position` left it.

    Apart from it because a GPU's compiler inlines every fit: kernels that need no intervals are a third of the size.
    """
    return int(energy_intervals(
        profile_below, shown_above, n_index, outcome[p, 0], z, var, shift_e, likelihood, energies_mev, dispersion_mev,
        reference, background, kind, factor, tables, first_node_mev, node_step_mev, corrections, free[p], lower, upper,
        prior_mean[p], prior_precision, params[p], std[p], jacobian, rows, vectors, matrices, columns, index[0],
        index[1], work, bits, intervals[p], kinds[p],
    ))  # fmt: skip


@kernel
def spectrum_scratch(
    n: int, n_params: int, n_modes: int
) -> tuple[Array, Array, Array, Array, Array, Array, Array, Array, Array, Array, Array, Array]:
    """Return what one spectrum of n channels needs, in the order in which `fit_position` takes it."""
    return (
        np.empty(n),
        np.ones(n),
        np.empty((2 * n_params + 1, n)),  # the second half is scratch of `evaluate`
        np.empty((n_modes, 4, n)),
        np.empty((n_params + 5, n)),
        np.empty((5, n)),
        np.empty((4, n_params + 4, n_params + 4)),
        np.empty((5, n_params)),
        np.empty((2, n_params), np.int64),
        np.empty(8 * n + 16),
        np.empty(2 * n, np.int64),
        np.empty(0, np.bool_),
    )


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
    energies_mev: Array, dispersion_mev: float,
    reference: Array,  # see `kernels.forward.evaluate`; (…,) for all, or (positions, …) where frames were added
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float,
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
    z, var, jacobian, corrections, rows, vectors, matrices, columns, index, work, bits, no_bad = spectrum_scratch(
        energies_mev.shape[0], params.shape[1], tables.shape[0]
    )
    for p in range(counts.shape[0]):
        own = reference[p] if reference.ndim == 2 else reference
        n_index = fit_position(
            p, counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
            dispersion_mev, own, background, kind, factor, tables, first_node_mev, node_step_mev, free, lower, upper,
            prior_mean, prior_precision, max_iterations, params, std, outcome, status, score, information, area_slope,
            intervals, kinds, z, var, jacobian, corrections, rows, vectors, matrices, columns, index, work, bits, no_bad,
        )  # fmt: skip
        if score.shape[0] == 0 and intervals.shape[0] > 0 and n_index > 0:
            interval_position(
                p, n_index, shift_e, likelihood, energies_mev, dispersion_mev, own, background, kind, factor, tables,
                first_node_mev, node_step_mev, free, lower, upper, prior_mean, prior_precision, params, std, outcome,
                profile_below, shown_above, intervals, kinds, z, var, jacobian, corrections, rows, vectors, matrices, columns,
                index, work, bits,
            )  # fmt: skip
    return 0
