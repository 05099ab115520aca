"""The forward kernel over a block of spectra on the processor."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.least_squares import fit_one
from phonon_eels.kernels.likelihood import NO_DATA, profile_shared

NO_CHANNEL = -(2**31)
"""Stands for the zero-loss channel of a position without one; the true one may lie off the axis, below channel 0."""


@kernel
def read_spectrum(
    counts: np.ndarray, bad: np.ndarray, first: int, gain: float, dark_level: float, z: np.ndarray
) -> int:
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
    counts: np.ndarray,  # (positions, channels), electrons or detector counts as float64
    bad: np.ndarray,  # (positions, channels) of bool, or (0, 0)
    variance: np.ndarray,  # (positions, channels), or (0, 0) for Poisson
    zero_channel: np.ndarray,  # (positions,) channel of the zero-loss peak, NO_CHANNEL: leave out
    gain: float,
    dark_level: float,
    shift_e: float,
    likelihood: int,
    first_channel: int,  # of the window, from the zero-loss channel
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,
    tables: np.ndarray,
    first_node_mev: np.ndarray,
    node_step_mev: float,
    free: np.ndarray,  # (positions, parameters)
    lower: np.ndarray,
    upper: np.ndarray,
    prior_mean: np.ndarray,  # (positions, parameters)
    prior_precision: np.ndarray,
    max_iterations: int,
    params: np.ndarray,  # in: starts, out: estimates (positions, parameters)
    std: np.ndarray,  # out (positions, parameters)
    outcome: np.ndarray,  # out (positions, 4): objective, Pearson chi², channels used, iterations
    status: np.ndarray,  # out (positions,)
    score: np.ndarray,  # out (positions, 2M), or (0, 0) if not wanted
    information: np.ndarray,  # out (positions, 2M, 2M)
    area_slope: np.ndarray,  # out (positions, M, 2M)
) -> int:
    """Fit every spectrum of a block; scratch is made once and the positions do not know of each other."""
    n = energies_mev.shape[0]
    n_params = params.shape[1]
    n_modes = tables.shape[0]
    z = np.empty(n)
    var = np.ones(n)
    jacobian = np.empty((n_params, n))
    corrections = np.empty((n_modes, 4, n))
    vectors = np.empty((5, n))
    matrices = np.empty((3, n_params, n_params))
    columns = np.empty((4, n_params))
    index = np.empty(n_params, np.int64)
    no_bad = np.empty(0, np.bool_)
    for p in range(counts.shape[0]):
        status[p] = NO_DATA
        outcome[p, :] = math.nan
        if score.shape[0] > 0:
            score[p, :] = 0.0
            information[p, :, :] = 0.0
            area_slope[p, :, :] = 0.0
        std[p, :] = math.nan
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
        status[p] = fit_one(
            z, var, shift_e, likelihood, energies_mev, dispersion_mev, reference, tables, first_node_mev, node_step_mev,
            free[p], lower, upper, prior_mean[p], prior_precision, max_iterations, params[p], std[p], jacobian, corrections,
            vectors, matrices, columns, index, outcome[p],
        )  # fmt: skip
        if score.shape[0] > 0:
            profile_shared(
                jacobian, vectors[1], vectors[2], free[p], n_modes, params[p], prior_mean[p], prior_precision, vectors[3],
                matrices, index, columns, score[p], information[p], area_slope[p],
            )  # fmt: skip
    return 0
