"""Resampling, backgrounds, filters and Richardson and Lucy's iteration on the GPU, one thread per spectrum."""

from __future__ import annotations

import numpy as np
from numba import cuda

from phonon_eels.backends.backgrounds import background_position
from phonon_eels.backends.cuda.stream import Call, Changed, Given, Made, Scratch, Shared
from phonon_eels.backends.resample import resample_position
from phonon_eels.kernels.background_shapes import MAX_PARAMETERS
from phonon_eels.kernels.backgrounds import SMALL_ROWS
from phonon_eels.kernels.deconvolve import richardson_lucy_one, richardson_lucy_scratch
from phonon_eels.kernels.fourier import apply_matrix_one

Array = np.ndarray


@cuda.jit(cache=True)
def resample_kernel(
    counts, bad, shift_channels, gain, dark_level, read_noise_e, half_width, moved, moved_variance, electrons, variance
):
    """Resample the spectrum of this thread."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        resample_position(
            p, counts, bad, shift_channels, gain, dark_level, read_noise_e, half_width, moved, moved_variance,
            electrons[:, p], variance[:, p],
        )  # fmt: skip


@cuda.jit(cache=True)
def background_kernel(
    shape, energies_mev, channels, reference_mev, table, shown_mev, counts, variance, bad, parameters, covariance, area,
    status, y, usable, work, small, curve, square,
):  # fmt: skip
    """Fit the background of the spectrum of this thread."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        background_position(
            p, shape, energies_mev, channels, reference_mev, table, shown_mev, counts, variance, bad, parameters, covariance,
            area, status, y[:, :, p], usable[:, p], work[:, :, p], small[:, :, p], curve[:, :, p], square[:, :, p],
        )  # fmt: skip


@cuda.jit(cache=True)
def lucy_kernel(
    counts, check, check_variance, taps, anchors, inverse_cover, inverse_transpose, iterations, stop_at_noise, accelerate,
    out, misfit, report, status, scratch, unknown,
):  # fmt: skip
    """Deconvolve the spectrum of this thread."""
    p = cuda.grid(1)
    if p < counts.shape[0]:
        status[p] = richardson_lucy_one(
            counts[p], check[p] if check.shape[0] > 0 else counts[p],
            check_variance[p] if check_variance.shape[0] > 0 else unknown, taps, anchors, inverse_cover, inverse_transpose,
            iterations, stop_at_noise, accelerate, out[p], scratch[:, p], misfit[p], report[p],
        )  # fmt: skip


@cuda.jit(cache=True)
def filter_kernel(spectra, matrix, out):
    """Filter the spectrum of this thread."""
    p = cuda.grid(1)
    if p < spectra.shape[0]:
        apply_matrix_one(matrix, spectra[p], out[p])


def filter_call(spectra: Array, matrix: Array, out: Array) -> Call:
    """Return the call of the kernel for the arguments of `filter_block`."""
    return Call(filter_kernel, spectra.shape[0], (Given(spectra), Shared(matrix), Made(out)))


def resample_call(
    counts: Array, bad: Array, shift_channels: Array, gain: float, dark_level: float, read_noise_e: float, half_width: int,
    moved: Array, moved_variance: Array,
) -> Call:  # fmt: skip
    """Return the call of the kernel for the arguments of `resample_block`."""
    n = counts.shape[1]
    return Call(
        resample_kernel,
        counts.shape[0],
        (
            Given(counts), Given(bad), Given(shift_channels), float(gain), float(dark_level), float(read_noise_e),
            int(half_width), Made(moved), Made(moved_variance), Scratch((n,)), Scratch((n,)),
        ),
    )  # fmt: skip


def background_call(
    shape: int, energies_mev: Array, channels: Array, reference_mev: float, table: Array, shown_mev: Array, counts: Array,
    variance: Array, bad: Array, parameters: Array, covariance: Array, area: Array, status: Array,
) -> Call:  # fmt: skip
    """Return the call of the kernel for the arguments of `fit_backgrounds_block`."""
    n = channels.size
    return Call(
        background_kernel,
        counts.shape[0],
        (
            int(shape), Shared(energies_mev), Shared(channels), float(reference_mev), Shared(table), Shared(shown_mev),
            Given(counts), Given(variance), Given(bad), Made(parameters), Made(covariance), Made(area), Made(status),
            Scratch((2, n)), Scratch((n,), np.bool_), Scratch((3, n)), Scratch((SMALL_ROWS, MAX_PARAMETERS)),
            Scratch((2, shown_mev.size)), Scratch((MAX_PARAMETERS, MAX_PARAMETERS)),
        ),
    )  # fmt: skip


def lucy_call(
    counts: Array, check: Array, check_variance: Array, taps: Array, anchors: Array, inverse_cover: Array,
    inverse_transpose: Array, iterations: int, stop_at_noise: bool, accelerate: bool, out: Array, misfit: Array,
    report: Array, status: Array,
) -> Call:  # fmt: skip
    """Return the call of the kernel for the arguments of `lucy_block`."""
    n = counts.shape[1]
    return Call(
        lucy_kernel,
        counts.shape[0],
        (
            Given(counts), Given(check), Given(check_variance), Shared(taps), Shared(anchors), Shared(inverse_cover),
            Shared(inverse_transpose), int(iterations), bool(stop_at_noise), bool(accelerate), Made(out), Changed(misfit),
            Made(report), Made(status), Scratch((richardson_lucy_scratch(n, taps.shape[1]),)), Shared(np.full(n, np.nan)),
        ),
    )  # fmt: skip
