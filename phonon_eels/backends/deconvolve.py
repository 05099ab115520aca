"""Richardson and Lucy's iteration, and linear filters, over a block of spectra on the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.backends.scratch import aligned
from phonon_eels.kernels.deconvolve import SCRATCH_ARRAYS, Response, richardson_lucy_one
from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.fourier import apply_matrix_one

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend


@kernel
def lucy_block(
    counts: np.ndarray,  # (spectra, channels)
    check: np.ndarray,  # (spectra, channels), or (0, 0): the spectra themselves
    check_variance: np.ndarray,  # (spectra, channels), or (0, 0): nothing is compared
    taps: np.ndarray,
    anchors: np.ndarray,
    inverse_cover: np.ndarray,
    inverse_transpose: np.ndarray,
    iterations: int,
    stop_at_noise: bool,
    accelerate: bool,
    out: np.ndarray,
    misfit: np.ndarray,
    report: np.ndarray,
    status: np.ndarray,
) -> int:
    """Deconvolve every spectrum; scratch is made once. For the arguments see `richardson_lucy_one`."""
    n = counts.shape[1]
    rows = 4 * -(-n // 64)
    scratch = aligned(1, 16 * (SCRATCH_ARRAYS * rows + rows + taps.shape[1] - 1))[0]
    unknown = np.full(n, np.nan)
    for p in range(counts.shape[0]):
        kept_apart = check.shape[0] > 0
        known = check_variance.shape[0] > 0
        status[p] = richardson_lucy_one(
            counts[p], check[p] if kept_apart else counts[p], check_variance[p] if known else unknown, taps, anchors,
            inverse_cover, inverse_transpose, iterations, stop_at_noise, accelerate, out[p], scratch, misfit[p], report[p],
        )  # fmt: skip
    return 0


@kernel
def filter_block(
    spectra: np.ndarray,  # (spectra, channels)
    matrix: np.ndarray,  # (channels, channels)
    out: np.ndarray,  # (spectra, channels)
) -> int:
    """Apply a filter to every spectrum; see `apply_matrix_one`."""
    for p in range(spectra.shape[0]):
        apply_matrix_one(matrix, spectra[p], out[p])
    return 0


def richardson_lucy_block(
    counts: np.ndarray,
    response: Response,
    iterations: int,
    *,
    variance: np.ndarray | None = None,
    check: np.ndarray | None = None,
    stop_at_noise: bool = False,
    accelerate: bool = False,
    backend: Backend | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Deconvolve every spectrum of a block; see `richardson_lucy_one`.

    Parameters
    ----------
    counts
        (spectra, channels).
    variance
        Variance of what the models are compared with, (spectra, channels); None: nothing is compared.
    check
        Spectra kept apart to compare with; default: the spectra themselves.
    backend
        Where; default: here, on the processor.

    Returns
    -------
    tuple
        Result (spectra, channels), misfit before each iteration (spectra, iterations + 1; NaN after the last), report
        (spectra, 3) and status (spectra,).
    """
    spectra = np.ascontiguousarray(counts, dtype=np.float64)
    none = np.empty((0, 0))
    spread = none if variance is None else np.ascontiguousarray(variance, dtype=np.float64)
    apart = none if check is None else np.ascontiguousarray(check, dtype=np.float64)
    out, misfit = np.empty_like(spectra), np.full((spectra.shape[0], iterations + 1), np.nan)
    report, status = np.empty((spectra.shape[0], 3)), np.empty(spectra.shape[0], dtype=np.int64)
    arguments = (
        spectra, apart, spread, response.taps, response.anchors, response.inverse_cover, response.inverse_transpose,
        iterations, stop_at_noise, accelerate, out, misfit, report, status,
    )  # fmt: skip
    if backend is None:
        lucy_block(*arguments)
    else:
        backend.run(lucy_block, *arguments)
    return out, misfit, report, status
