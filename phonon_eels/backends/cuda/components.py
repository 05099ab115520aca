"""The fit of components on the GPU, one thread per spectrum."""

from __future__ import annotations

import numpy as np
from numba import cuda

from phonon_eels.backends.cuda.stream import Call, Changed, Given, Made, Scratch, Shared
from phonon_eels.kernels.component_fit import N_COLUMNS, N_VECTORS, SQUARES
from phonon_eels.kernels.component_position import fit_components_position
from phonon_eels.kernels.components import even_step

Array = np.ndarray


@cuda.jit(cache=True)
def components_kernel(
    counts, bad, variance, mask, first, gain, dark, likelihood, shift_e, table, owner, affine, bounds, axis, channel_mev, index,
    n_free, tolerance, max_evaluations, mean, projection, pairs, series, start, amplitude, params, std, covariance, outcome, status, z,
    weight, rows, vectors, matrices, columns, narrow, no_bad, no_variance,
):  # fmt: skip
    """Fit the spectrum of this thread."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        # The processor's scratch is made of zeros, and what no spectrum writes stays so.
        for i in range(rows.shape[1]):
            rows[rows.shape[0] - 1, i, p] = 0.0
        for a in range(matrices.shape[0]):
            for b in range(matrices.shape[1]):
                for c in range(matrices.shape[2]):
                    matrices[a, b, c, p] = 0.0
        for a in range(columns.shape[0]):
            for b in range(columns.shape[1]):
                columns[a, b, p] = 0.0
        for i in range(narrow.shape[0]):
            narrow[i, p] = 0.0
        fit_components_position(
            p, counts, bad, variance, mask, first, gain, dark, likelihood, shift_e, table, owner, affine, bounds, axis,
            channel_mev, even_step(axis[0]), index, n_free, tolerance, max_evaluations, mean, projection, pairs, series, start,
            amplitude, params, std, covariance, outcome, status, z[:, p], weight[:, p], rows[:, :, p], vectors[:, :, p],
            matrices[:, :, :, p], columns[:, :, p], narrow[:, p], no_bad, no_variance,
        )  # fmt: skip


def components_call(
    counts: Array, bad: Array, variance: Array, mask: Array, first: int, gain: float, dark: float, likelihood: int,
    shift_e: float, table: Array, owner: Array, affine: Array, bounds: Array, axis: Array, channel_mev: float, index: Array,
    n_free: int, tolerance: float, max_evaluations: int, mean: Array, projection: Array, pairs: Array, series: Array,
    start: Array, amplitude: Array, params: Array, std: Array, covariance: Array, outcome: Array, status: Array,
) -> Call:  # fmt: skip
    """Return the call of the kernel for the arguments of `fit_components_block`.

    The covariance is computed also where it is not wanted: a kernel for each would be compiled twice.
    """
    n, n_params, blocks, filled = counts.shape[0], params.shape[1], (n_free + 3) // 4, axis.shape[1]
    wanted = covariance if covariance.shape[1] > 0 else np.empty((n, n_free, n_free))
    return Call(
        components_kernel,
        n,
        (
            Given(counts), Given(bad), Given(variance), Shared(mask), int(first), float(gain), float(dark), int(likelihood),
            float(shift_e), Shared(table), Shared(owner), Shared(affine), Shared(bounds), Shared(axis), float(channel_mev),
            Shared(index), int(n_free), float(tolerance), int(max_evaluations), Shared(mean), Shared(projection),
            Shared(pairs), Shared(series), Shared(start), Shared(amplitude), Changed(params), Made(std), Made(wanted), Made(outcome), Made(status),
            Scratch((filled,)), Scratch((filled,)), Scratch((n_params + 1, filled)), Scratch((N_VECTORS, filled)),
            Scratch((SQUARES, blocks * blocks, 16)),
            Scratch((N_COLUMNS, max(4 * blocks, projection.shape[0], series.shape[1], n_params + 1))),
            Scratch((projection.shape[1],), np.float32), Shared(np.empty(0, np.bool_)), Shared(np.empty(0)),
        ),
    )  # fmt: skip
