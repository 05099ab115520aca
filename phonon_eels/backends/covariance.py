"""Covariance and bounds of the forward fit's parameters, at its estimates, over a block of spectra on the processor."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.backends.spectra import NO_CHANNEL, read_spectrum, spectrum_scratch
from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.forward import correction_lines
from phonon_eels.kernels.least_squares import assess
from phonon_eels.kernels.likelihood import deviations, normal_equations

Array = np.ndarray


@kernel
def chosen_index(chosen: Array, index: Array, place: Array) -> int:
    """Write the numbers of the parameters that are chosen, and where each stands among them (-1: nowhere); return how many.

    One that follows another (`least_squares.fit_one`) stands where that one does.
    """
    n_index = 0
    for k in range(chosen.shape[0]):
        place[k] = -1
        if chosen[k] > 0:
            index[n_index] = k
            place[k] = n_index
            n_index += 1
    for k in range(chosen.shape[0]):
        if chosen[k] < 0:
            place[k] = place[-chosen[k] - 1]
    return n_index


@kernel
def write_covariance(
    matrices: Array,  # as `likelihood.deviations` left them
    n_index: int,
    shares_noise: bool,  # channels share noise
    place: Array,
    kept: Array,
    covariance: Array,  # out (kept, kept)
) -> int:
    """Write the covariance of the kept parameters; those that are not in the matrix stay as they are."""
    half, inverse = matrices[0], matrices[2]
    for i in range(kept.shape[0]):
        a = place[kept[i]]
        for j in range(i + 1):
            b = place[kept[j]]
            if a < 0 or b < 0:
                continue
            total = 0.0
            if shares_noise:  # F⁻¹ (B + P) F⁻¹
                for c in range(n_index):
                    total += half[a, c] * inverse[c, b]
            else:  # L⁻ᵀ L⁻¹, of which the lower triangle is written
                for c in range(max(a, b), n_index):
                    total += inverse[c, a] * inverse[c, b]
            covariance[i, j] = total
            covariance[j, i] = total
    return 0


@kernel
def covariance_position(
    p: int,  # which position of the block
    counts: Array, bad: Array, variance: Array, zero_channel: Array, gain: float, dark_level: float, shift_e: float,
    lags: Array, likelihood: int, first_channel: int, energies_mev: Array, dispersion_mev: float, reference: Array,
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float,
    params: Array, prior_mean: Array, included: Array, prior_precision: Array, kept: Array, free: Array, bound_precision: Array,
    covariance: Array, bound: Array,
    own: Array,  # scratch from here on, (parameters,)
    z: Array, var: Array, jacobian: Array, corrections: Array, rows: Array, vectors: Array, matrices: Array, columns: Array,
    index: Array,  # (2, parameters) of integers
    work: Array, bits: Array,
    no_bad: Array,  # (0,) of bool
    independent: Array,  # (0,)
) -> int:  # fmt: skip
    """Write covariance and bounds of one spectrum of a block, with the arguments of `covariance_block`."""
    covariance[p, :, :] = math.nan
    bound[p, :] = math.nan
    if zero_channel[p] == NO_CHANNEL or not math.isfinite(params[p, 0]):
        return 1
    first = zero_channel[p] + first_channel
    read_spectrum(counts[p], bad[p] if bad.shape[0] > 0 else no_bad, first, gain, dark_level, z)
    if variance.shape[0] > 0:
        read_spectrum(variance[p], no_bad, first, 1.0, 0.0, var)
    for k in range(own.shape[0]):
        own[k] = params[p, k]
    correction_lines(own, tables, first_node_mev, node_step_mev, dispersion_mev, corrections, work)
    assess(
        own, included[p], z, var, shift_e, likelihood, energies_mev, dispersion_mev, reference, background, kind, factor, tables,
        first_node_mev, node_step_mev, corrections, prior_mean, prior_precision, jacobian, vectors, work, bits,
    )  # fmt: skip
    weight, residual, gradient, std, place = vectors[1], vectors[2], columns[0], columns[1], index[1]
    n_index = chosen_index(included[p], index[0], place)
    normal_equations(
        jacobian, weight, residual, index[0], n_index, own, prior_mean, prior_precision, rows, matrices[0], gradient
    )
    taken = deviations(rows, weight, shift_e, lags, index[0], n_index, prior_precision, matrices, vectors[4], std)
    if taken >= 0.0:
        write_covariance(matrices, n_index, lags.shape[0] > 0, place, kept, covariance[p])
    n_index = chosen_index(free[p], index[0], place)
    normal_equations(
        jacobian, weight, residual, index[0], n_index, own, prior_mean, bound_precision, rows, matrices[0], gradient
    )
    taken = deviations(
        rows, weight, shift_e, independent, index[0], n_index, bound_precision, matrices, vectors[4], std
    )
    if taken >= 0.0:
        for k in range(own.shape[0]):
            if place[k] >= 0:
                bound[p, k] = std[index[0, place[k]]]
    return 0


@kernel
def covariance_block(
    counts: Array,  # (positions, channels), electrons or detector counts as float64
    bad: Array,  # (positions, channels) of bool, or (0, 0)
    variance: Array,  # (positions, channels), or (0, 0) for Poisson
    zero_channel: Array,  # (positions,) channel of the zero-loss peak, NO_CHANNEL: leave out
    gain: float, dark_level: float, shift_e: float,
    lags: Array,  # correlations of the noise that channels share, (0,) for none
    likelihood: int,
    first_channel: int,  # of the window, from the zero-loss channel
    energies_mev: Array, dispersion_mev: float,
    reference: Array,  # as `spectra.fit_block` takes it
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float,
    params: Array,  # (positions, parameters) estimates; a first one that is not finite: leave out
    prior_mean: Array,  # (parameters,)
    included: Array,  # (positions, parameters) which have a part in the covariance, and which follow another, as `fit_one` has it
    prior_precision: Array,
    kept: Array,  # (kept,) numbers of the parameters whose covariance is written
    free: Array,  # (positions, parameters) which are marginalised in the bounds
    bound_precision: Array,  # (parameters,) of what is known but for the data, in the bounds
    covariance: Array,  # out (positions, kept, kept); NaN where a parameter has no part
    bound: Array,  # out (positions, parameters); NaN where the data do not determine it
) -> int:  # fmt: skip
    """Write covariance and Cramér-Rao bounds of every spectrum of a block, evaluated at its estimates.

    The covariance is that of `likelihood.deviations`: the inverse Fisher matrix, or its sandwich where channels share noise.
    """
    own = np.empty(params.shape[1])
    z, var, jacobian, corrections, rows, vectors, matrices, columns, index, work, bits, no_bad = spectrum_scratch(
        energies_mev.shape[0], params.shape[1], tables.shape[0]
    )
    independent = np.empty(0)
    for p in range(counts.shape[0]):
        shape = reference[p] if reference.ndim == 2 else reference
        covariance_position(
            p, counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
            dispersion_mev, shape, background, kind, factor, tables, first_node_mev, node_step_mev, params, prior_mean, included,
            prior_precision, kept, free, bound_precision, covariance, bound, own, z, var, jacobian, corrections, rows, vectors,
            matrices, columns, index, work, bits, no_bad, independent,
        )  # fmt: skip
    return 0
