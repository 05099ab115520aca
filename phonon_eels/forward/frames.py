"""Frames that were added by whole channels: what is expected of the sum is the sum of the models of the frames.

Frame f of a position was added with its zero-loss peak δ_f from where the mean of the frames has it, so the sum is expected to
be Σ_f M(E - δ_f) / n of the model M of the whole dose. Only the distribution of the δ_f enters, and of that, as far as M is
smooth over a channel, its moments: two shifts with two weights have the same mean, variance and skewness (the Gauss rule
of the distribution), so that the model is evaluated twice however many frames there are.
"""

from __future__ import annotations

import numpy as np

NODES = 2
REACH_CHANNELS = 1.5
"""Offsets farther than this from the mean are not followed: the lines are tabulated for shifts of a few channels."""


def frame_pairs(offset_channel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gauss rule of the offsets of every position's frames.

    Parameters
    ----------
    offset_channel
        Zero-loss peak of each frame from the channel that it was added to, (frames, rows, columns), in channels; NaN where a
        frame has no part in the sum.

    Returns
    -------
    pairs
        (rows, columns, 4): offset in channels from the mean of the frames, weight, offset, weight.
    too_far
        (rows, columns), True where a frame lies beyond `REACH_CHANNELS`; there the frames are taken as one.

    Notes
    -----
    Golub and Welsch, doi:10.1090/S0025-5718-69-99647-1, for two nodes. The fourth moment is that of a pair: of offsets spread
    evenly over a channel, expected counts are off by at most 4e-4 of a Gaussian's height where it is three channels wide, by
    5e-5 where it is five.
    """
    known = np.isfinite(offset_channel)
    n = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, offset_channel, 0.0)
    away = np.where(known, filled - filled.sum(axis=0) / n, 0.0)
    too_far = np.abs(away).max(axis=0) > REACH_CHANNELS
    second, third = (away**2).sum(axis=0) / n, (away**3).sum(axis=0) / n
    spread = np.where(too_far, 0.0, second)
    skew = np.divide(third, second, out=np.zeros_like(second), where=(spread > 1e-12))
    half = np.sqrt(0.25 * skew**2 + spread)
    low, high = 0.5 * skew - half, 0.5 * skew + half
    width = high - low
    weight = np.divide(high, width, out=np.full_like(width, 0.5), where=width > 1e-9)
    return np.stack([low, weight, high, 1.0 - weight], axis=-1), too_far


def in_mev(pairs: np.ndarray, dispersion_mev: float) -> np.ndarray:
    """Return the pairs with their offsets in meV."""
    return np.asarray(pairs * np.array([dispersion_mev, 1.0] * NODES))
