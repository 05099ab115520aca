"""Search and fast estimate of zero-loss peaks on the GPU, one thread per spectrum."""

from __future__ import annotations

import numpy as np
from numba import cuda

from phonon_eels.backends.cuda.stream import Call, Given, Made, Scratch, Shared
from phonon_eels.kernels.zero_loss import find_peak, score_peak

Array = np.ndarray


@cuda.jit(cache=True)
def find_kernel(counts, bad, low, high, half_smooth, dark_level, out, status, no_bad):
    """Find the highest peak of the spectrum of this thread."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        for k in range(out.shape[1]):
            out[p, k] = np.nan
        own = bad[p] if bad.shape[0] > 0 else no_bad
        status[p] = find_peak(counts[p], own, low, high, half_smooth, dark_level, out[p])


@cuda.jit(cache=True)
def score_kernel(
    counts, bad, low, high, gain, dark_level, models, scores, constants, shift, precision, out, status, small, no_bad
):
    """Estimate the zero-loss peak of the spectrum of this thread."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        status[p] = score_peak(
            counts[p], bad[p] if bad.shape[0] > 0 else no_bad, low, high, gain, dark_level, models, scores, constants, shift,
            precision, small[:, :, p], out[p],
        )  # fmt: skip


def find_call(
    counts: Array, bad: Array, low: int, high: int, half_smooth: int, dark_level: float, out: Array, status: Array
) -> Call:
    """Return the call of the kernel for the arguments of `find_peaks_block`."""
    return Call(
        find_kernel,
        counts.shape[0],
        (
            Given(counts), Given(bad), int(low), int(high), int(half_smooth), float(dark_level), Made(out), Made(status),
            Shared(np.empty(0, np.bool_)),
        ),
    )  # fmt: skip


def score_call(
    counts: Array, bad: Array, low: int, high: int, gain: float, dark_level: float, models: Array, scores: Array,
    constants: Array, shift: float, precision: Array, out: Array, status: Array,
) -> Call:  # fmt: skip
    """Return the call of the kernel for the arguments of `score_block`."""
    return Call(
        score_kernel,
        counts.shape[0],
        (
            Given(counts), Given(bad), int(low), int(high), float(gain), float(dark_level), Shared(models), Shared(scores),
            Shared(constants), float(shift), Shared(precision), Made(out), Made(status), Scratch((3, 32)),
            Shared(np.empty(0, np.bool_)),
        ),
    )  # fmt: skip
