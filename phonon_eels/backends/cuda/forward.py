"""The forward fit on the GPU: the arguments of `backends.spectra.fit_block`, one thread per spectrum."""

from __future__ import annotations

import numpy as np
from numba import cuda

from phonon_eels.backends.cuda.stream import Call, Changed, Given, Made, Scratch, Shared
from phonon_eels.backends.spectra import fit_position, interval_position
from phonon_eels.kernels.forward import N_SHAPE, work_size

Array = np.ndarray


@cuda.jit(cache=True)
def fit_kernel(
    counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
    dispersion_mev, reference, background, kind, factor, tables, first_node_mev, node_step_mev, free, lower, upper, prior_mean,
    prior_precision, max_iterations, params, std, outcome, status, score, information, area_slope, profile_below, shown_above,
    intervals, kinds, z, var, jacobian, corrections, rows, vectors, matrices, columns, index, work, bits, no_bad,
):  # fmt: skip
    """Fit the spectrum of this thread; scratch has the threads as its last axis."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        own = reference[p] if reference.ndim == 2 else reference
        fit_position(
            p, counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
            dispersion_mev, own, background, kind, factor, tables, first_node_mev, node_step_mev, free, lower, upper,
            prior_mean, prior_precision, max_iterations, params, std, outcome, status, score, information, area_slope,
            intervals, kinds, z[:, p], var[:, p], jacobian[:, :, p], corrections[:, :, :, p], rows[:, :, p], vectors[:, :, p],
            matrices[:, :, :, p], columns[:, :, p], index[:, :, p], work[:, p], bits[:, p], no_bad,
        )  # fmt: skip


@cuda.jit(cache=True)
def fit_intervals_kernel(
    counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
    dispersion_mev, reference, background, kind, factor, tables, first_node_mev, node_step_mev, free, lower, upper, prior_mean,
    prior_precision, max_iterations, params, std, outcome, status, score, information, area_slope, profile_below, shown_above,
    intervals, kinds, z, var, jacobian, corrections, rows, vectors, matrices, columns, index, work, bits, no_bad,
):  # fmt: skip
    """Fit the spectrum of this thread, then find the intervals of its energies."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        own = reference[p] if reference.ndim == 2 else reference
        n_index = fit_position(
            p, counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
            dispersion_mev, own, background, kind, factor, tables, first_node_mev, node_step_mev, free, lower, upper,
            prior_mean, prior_precision, max_iterations, params, std, outcome, status, score, information, area_slope,
            intervals, kinds, z[:, p], var[:, p], jacobian[:, :, p], corrections[:, :, :, p], rows[:, :, p], vectors[:, :, p],
            matrices[:, :, :, p], columns[:, :, p], index[:, :, p], work[:, p], bits[:, p], no_bad,
        )  # fmt: skip
        if n_index > 0:
            interval_position(
                p, n_index, shift_e, likelihood, energies_mev, dispersion_mev, own, background, kind, factor, tables,
                first_node_mev, node_step_mev, free, lower, upper, prior_mean, prior_precision, params, std, outcome,
                profile_below, shown_above, intervals, kinds, z[:, p], var[:, p], jacobian[:, :, p], corrections[:, :, :, p],
                rows[:, :, p], vectors[:, :, p], matrices[:, :, :, p], columns[:, :, p], index[:, :, p], work[:, p],
                bits[:, p],
            )  # fmt: skip


def fit_call(
    counts: Array, bad: Array, variance: Array, zero_channel: Array, gain: float, dark_level: float, shift_e: float,
    lags: Array, likelihood: int, first_channel: int, energies_mev: Array, dispersion_mev: float, reference: Array,
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float, free: Array,
    lower: Array, upper: Array, prior_mean: Array, prior_precision: Array, max_iterations: int, params: Array, std: Array,
    outcome: Array, status: Array, score: Array, information: Array, area_slope: Array, profile_below: float,
    shown_above: float, intervals: Array, kinds: Array,
) -> Call:  # fmt: skip
    """Return the call of the kernel for the arguments of `fit_block`."""
    n, n_params, n_modes = energies_mev.size, params.shape[1], tables.shape[0]
    square = n_params + 4
    of_frames = reference.shape[-1] > N_SHAPE  # then `evaluate` adds the frames' models up behind the Jacobian
    scratch = (
        Scratch((n,)), Scratch((n if variance.shape[0] > 0 else 1,)), Scratch((2 * n_params + 1 if of_frames else n_params, n)),
        Scratch((max(n_modes, 1), 4, n)), Scratch((n_params + 5, n)), Scratch((5, n)), Scratch((4, square, square)),
        Scratch((5, n_params)), Scratch((2, n_params), np.int64), Scratch((work_size(n),)), Scratch((2 * n,), np.int64),
    )  # fmt: skip
    return Call(
        fit_intervals_kernel if intervals.shape[0] > 0 and score.shape[0] == 0 else fit_kernel,
        counts.shape[0],
        (
            Given(counts), Given(bad), Given(variance), Given(zero_channel), float(gain), float(dark_level), float(shift_e),
            Shared(lags), int(likelihood), int(first_channel), Shared(energies_mev), float(dispersion_mev),
            Given(reference) if reference.ndim == 2 else Shared(reference), Shared(background), int(kind), Shared(factor),
            Shared(tables), Shared(first_node_mev), float(node_step_mev), Given(free), Shared(lower), Shared(upper),
            Given(prior_mean), Shared(prior_precision), int(max_iterations), Changed(params), Made(std), Made(outcome), Made(status), Made(score), Made(information),
            Made(area_slope), float(profile_below), float(shown_above), Made(intervals), Made(kinds), *scratch,
            Shared(np.empty(0, np.bool_)),
        ),
    )  # fmt: skip
