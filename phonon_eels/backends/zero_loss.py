"""The search for zero-loss peaks, and their fast estimate, over a block of spectra on the processor."""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.zero_loss import find_peak, score_peak


@kernel
def find_peaks_block(
    counts: np.ndarray,
    bad: np.ndarray,
    low: int,
    high: int,
    half_smooth: int,
    dark_level: float,
    out: np.ndarray,
    status: np.ndarray,
) -> int:
    """Find the highest peak of every spectrum: counts (positions, channels) → out (positions, 3), status (positions,)."""
    no_bad = np.empty(0, np.bool_)
    for p in range(counts.shape[0]):
        status[p] = find_peak(
            counts[p], bad[p] if bad.shape[0] > 0 else no_bad, low, high, half_smooth, dark_level, out[p]
        )
    return 0


@kernel
def score_block(
    counts: np.ndarray,  # (positions, channels) of detector counts, any type
    bad: np.ndarray,  # (positions, channels) of bool, or (0, 0)
    low: int,
    high: int,
    gain: float,
    dark_level: float,
    models: np.ndarray,
    scores: np.ndarray,
    constants: np.ndarray,
    shift: float,
    precision: np.ndarray,
    out: np.ndarray,  # (positions, 9)
    status: np.ndarray,  # (positions,)
) -> int:
    """Estimate the zero-loss peak of every spectrum by `score_peak`; scratch is made once."""
    small = np.empty((3, 32))
    no_bad = np.empty(0, np.bool_)
    for p in range(counts.shape[0]):
        status[p] = score_peak(
            counts[p], bad[p] if bad.shape[0] > 0 else no_bad, low, high, gain, dark_level, models, scores, constants, shift,
            precision, small, out[p],
        )  # fmt: skip
    return 0
