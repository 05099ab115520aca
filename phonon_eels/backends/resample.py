"""Resampling over a block of spectra on the processor."""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.noise import expected_variance_one
from phonon_eels.kernels.resample import resample_one


@kernel
def resample_block(
    counts: np.ndarray,  # (positions, channels) of detector counts
    bad: np.ndarray,  # (positions, channels) of bool, or (0, 0)
    shift_channels: np.ndarray,  # (positions,)
    gain: float,
    dark_level: float,
    read_noise_e: float,
    half_width: int,  # of the running mean behind the variance, channels
) -> tuple[np.ndarray, np.ndarray]:
    """Return electrons and their variance, each spectrum moved by its own fraction of a channel.

    The variance is estimated from smoothed counts, never from the channel's own, which would bias every weighted fit.
    Bad channels keep their (repaired) counts and get an unknown variance.
    """
    n_positions, n = counts.shape
    moved = np.empty((n_positions, n))
    moved_variance = np.empty((n_positions, n))
    electrons = np.empty(n)
    variance = np.empty(n)
    for p in range(n_positions):
        for i in range(n):
            electrons[i] = (counts[p, i] - dark_level) / gain
        expected_variance_one(electrons, 1.0, 0.0, read_noise_e, half_width, variance)
        if bad.shape[0] > 0:
            for i in range(n):
                if bad[p, i]:
                    variance[i] = np.nan
        resample_one(electrons, variance, shift_channels[p], moved[p], moved_variance[p])
    return moved, moved_variance
