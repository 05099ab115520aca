"""Covariance of the forward fit on the GPU: the arguments of `backends.covariance.covariance_block`, one thread per spectrum."""

from __future__ import annotations

import numpy as np
from numba import cuda

from phonon_eels.backends.covariance import covariance_position
from phonon_eels.backends.cuda.stream import Call, Given, Made, Scratch, Shared
from phonon_eels.kernels.forward import N_SHAPE, work_size

Array = np.ndarray


@cuda.jit(cache=True)
def covariance_kernel(
    counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
    dispersion_mev, reference, background, kind, factor, tables, first_node_mev, node_step_mev, params, prior_mean, included,
    prior_precision, kept, free, bound_precision, covariance, bound, own, z, var, jacobian, corrections, rows, vectors, matrices,
    columns, index, work, bits, no_bad, independent,
):  # fmt: skip
    """Write covariance and bounds of the spectrum of this thread; scratch has the threads as its last axis."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        shape = reference[p] if reference.ndim == 2 else reference
        covariance_position(
            p, counts, bad, variance, zero_channel, gain, dark_level, shift_e, lags, likelihood, first_channel, energies_mev,
            dispersion_mev, shape, background, kind, factor, tables, first_node_mev, node_step_mev, params, prior_mean,
            included, prior_precision, kept, free, bound_precision, covariance, bound, own[:, p], z[:, p], var[:, p],
            jacobian[:, :, p], corrections[:, :, :, p], rows[:, :, p], vectors[:, :, p], matrices[:, :, :, p], columns[:, :, p],
            index[:, :, p], work[:, p], bits[:, p], no_bad, independent,
        )  # fmt: skip


def covariance_call(
    counts: Array, bad: Array, variance: Array, zero_channel: Array, gain: float, dark_level: float, shift_e: float,
    lags: Array, likelihood: int, first_channel: int, energies_mev: Array, dispersion_mev: float, reference: Array,
    background: Array, kind: int, factor: Array, tables: Array, first_node_mev: Array, node_step_mev: float, params: Array,
    prior_mean: Array, included: Array, prior_precision: Array, kept: Array, free: Array, bound_precision: Array,
    covariance: Array, bound: Array,
) -> Call:  # fmt: skip
    """Return the call of the kernel for the arguments of `covariance_block`."""
    n, n_params, n_modes = energies_mev.size, params.shape[1], tables.shape[0]
    square = n_params + 4
    of_frames = reference.shape[-1] > N_SHAPE  # then `evaluate` adds the frames' models up behind the Jacobian
    scratch = (
        Scratch((n_params,)), Scratch((n,)), Scratch((n if variance.shape[0] > 0 else 1,)),
        Scratch((2 * n_params + 1 if of_frames else n_params, n)),
        Scratch((max(n_modes, 1), 4, n)), Scratch((n_params + 5, n)), Scratch((5, n)), Scratch((4, square, square)),
        Scratch((5, n_params)), Scratch((2, n_params), np.int64), Scratch((work_size(n),)), Scratch((2 * n,), np.int64),
    )  # fmt: skip
    return Call(
        covariance_kernel,
        counts.shape[0],
        (
            Given(counts), Given(bad), Given(variance), Given(zero_channel), float(gain), float(dark_level), float(shift_e),
            Shared(lags), int(likelihood), int(first_channel), Shared(energies_mev), float(dispersion_mev),
            Given(reference) if reference.ndim == 2 else Shared(reference), Shared(background), int(kind), Shared(factor), Shared(tables), Shared(first_node_mev),
            float(node_step_mev), Given(params), Shared(prior_mean), Given(included), Shared(prior_precision), Shared(kept),
            Given(free), Shared(bound_precision), Made(covariance), Made(bound), *scratch, Shared(np.empty(0, np.bool_)),
            Shared(np.empty(0)),
        ),
    )  # fmt: skip
