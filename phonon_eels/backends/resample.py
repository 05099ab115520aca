"""Resampling over a block of spectra on the processor."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.noise import expected_variance_one
from phonon_eels.kernels.resample import resample_one


@kernel
def resample_position(
    p: int,  # which position of the block
    counts: np.ndarray,
    bad: np.ndarray,
    shift_channels: np.ndarray,
    gain: float,
    dark_level: float,
    read_noise_e: float,
    half_width: int,
    moved: np.ndarray,
    moved_variance: np.ndarray,
    electrons: np.ndarray,  # scratch (channels,)
    variance: np.ndarray,  # scratch (channels,)
) -> int:
    """Resample one spectrum of a block, with the arguments of `resample_block`."""
    for i in range(electrons.shape[0]):
        electrons[i] = (counts[p, i] - dark_level) / gain
    expected_variance_one(electrons, 1.0, 0.0, read_noise_e, half_width, variance)
    if bad.shape[0] > 0:
        for i in range(electrons.shape[0]):
            if bad[p, i]:
                variance[i] = math.nan
    return int(resample_one(electrons, variance, shift_channels[p], moved[p], moved_variance[p]))


@kernel
def resample_block(
    counts: np.ndarray,  # (positions, channels) of detector counts
    bad: np.ndarray,  # (positions, channels) of bool, or (0, 0)
    shift_channels: np.ndarray,  # (positions,)
    gain: float,
    dark_level: float,
    read_noise_e: float,
    half_width: int,  # of the running mean behind the variance, channels
    moved: np.ndarray,  # out (positions, channels), electrons
    moved_variance: np.ndarray,  # out (positions, channels)
) -> int:
    """Write electrons and their variance, each spectrum moved by its own fraction of a channel.

    The variance is estimated from smoothed counts, never from the channel's own, which would bias every weighted fit.
    Bad channels keep their (repaired) counts and get an unknown variance.
    """
    n_positions, n = counts.shape
    electrons = np.empty(n)
    variance = np.empty(n)
    for p in range(n_positions):
        resample_position(
            p, counts, bad, shift_channels, gain, dark_level, read_noise_e, half_width, moved, moved_variance, electrons,
            variance,
        )  # fmt: skip
    return 0
