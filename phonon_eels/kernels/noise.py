"""Variance of a measured spectrum from its own counts, where no earlier step has carried one."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel

ENOUGH_ELECTRONS = 400.0
"""The mean is taken over as many channels as hold this many electrons: its own noise is then below 5 %, and weights
made of it move a weighted mean by less than 1/400 (1/1 for weights made of single channels)."""

SMALLEST_HALF_WIDTH = 2


@kernel
def expected_variance_one(
    counts: np.ndarray,
    gain: float,
    dark_level: float,
    read_noise_e: float,
    largest_half_width: int,
    out: np.ndarray,
) -> int:
    """Estimate the variance of each channel from a local mean of the spectrum.

    The mean is a running one, of 5 channels where counts are high and of up to ``2 largest_half_width + 1`` where they
    are low, so that the variance (and a weight made of it) hardly follows the noise of its own channel. It never
    falls below one electron per window: a channel that happens to be empty is not a channel known exactly.

    Parameters
    ----------
    counts
        Detector counts y, (channels,). Channels that are not finite do not enter the means.
    gain
        Detector counts per electron.
    dark_level
        Detector counts per channel without electrons.
    read_noise_e
        Standard deviation of the read noise per channel, in electrons.
    largest_half_width
        Largest half width of the running mean in channels; about the FWHM of the zero-loss peak.
    out
        Variance in squared detector counts, (channels,).

    Returns
    -------
    int
        0, or 1 if no channel is finite (then `out` is NaN).
    """
    n = counts.shape[0]
    status = 1
    for i in range(n):
        total = 0.0
        used = 0
        half = 0
        while True:
            for side in range(2):
                j = i - half if side == 0 else i + half
                if half == 0 and side == 1:
                    continue
                if 0 <= j < n and math.isfinite(counts[j]):
                    total += (counts[j] - dark_level) / gain
                    used += 1
            if half >= largest_half_width or (half >= SMALLEST_HALF_WIDTH and total >= ENOUGH_ELECTRONS):
                break
            half += 1
        if used == 0:
            out[i] = math.nan
        else:
            status = 0
            out[i] = gain * gain * (max(total, 1.0) / used + read_noise_e * read_noise_e)
    return status
