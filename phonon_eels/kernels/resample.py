"""Move a spectrum by a fraction of a channel without losing counts."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel


@kernel
def resample_one(
    counts: np.ndarray,
    variance: np.ndarray,
    shift_channels: float,
    out: np.ndarray,
    out_variance: np.ndarray,
) -> int:
    """Move a spectrum towards higher channels by `shift_channels`; negative shifts move it towards lower ones.

    The cumulative counts are interpolated by a cubic through the four nearest channel edges and differenced on the
    moved edges. That is a filter of four weights whose sum is 1: the counts are conserved, and the mean, variance and
    skewness of a peak are those of the peak moved by exactly the shift (linear interpolation broadens it by up to
    half a channel). A whole number of channels is a plain copy, bit for bit.

    The variance is the sum of squared weights times the variances. It is that of the single channels: neighbours are
    now correlated, so a fit of something wider than a channel that takes them as independent quotes a standard
    deviation too small by the root of the sum of squared weights, 0.80 at half a channel and 1 at none.

    Parameters
    ----------
    counts, variance
        Spectrum and its variance, (channels,).
    shift_channels
        Where to: what was at channel c is afterwards at c + shift_channels.
    out, out_variance
        Moved spectrum and its variance, (channels,). Channels that the measured axis does not fully cover get 0 counts
        and NaN variance: nothing is extrapolated, and a NaN variance reads "not measured". Mask them.

    Returns
    -------
    int
        Number of channels not covered; -1 if the shift is not finite (then everything is NaN).
    """
    n = counts.shape[0]
    if not math.isfinite(shift_channels):
        for j in range(n):
            out[j] = math.nan
            out_variance[j] = math.nan
        return -1
    whole = int(math.floor(shift_channels))
    fraction = shift_channels - whole
    # Edge j of the result lies at edge j - whole - fraction of the data: t in (0, 1] above edge j - whole - 1.
    t = 1.0 - fraction
    w0 = -t * (t - 1.0) * (t - 2.0) / 6.0
    w1 = (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0
    w2 = -(t + 1.0) * t * (t - 2.0) / 2.0
    w3 = (t + 1.0) * t * (t - 1.0) / 6.0
    uncovered = 0
    for j in range(n):
        k = j - whole
        if k < 0 or k >= n or (k == 0 and fraction > 0.0):
            out[j] = 0.0
            out_variance[j] = math.nan
            uncovered += 1
        elif fraction == 0.0:
            out[j] = counts[k]
            out_variance[j] = variance[k]
        elif k == 1 or k == n - 1:
            # The outermost channel that is still covered: linear, because one outer weight has no channel.
            out[j] = fraction * counts[k - 1] + t * counts[k]
            out_variance[j] = fraction * fraction * variance[k - 1] + t * t * variance[k]
        else:
            out[j] = w0 * counts[k - 2] + w1 * counts[k - 1] + w2 * counts[k] + w3 * counts[k + 1]
            out_variance[j] = (
                w0 * w0 * variance[k - 2]
                + w1 * w1 * variance[k - 1]
                + w2 * w2 * variance[k]
                + w3 * w3 * variance[k + 1]
            )
    return uncovered
