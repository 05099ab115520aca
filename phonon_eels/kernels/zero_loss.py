"""Find the zero-loss peak of one spectrum: the fast start of the maximum-likelihood fit."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel


@kernel
def find_peak(
    counts: np.ndarray, bad: np.ndarray, low: int, high: int, half_smooth: int, dark_level: float, out: np.ndarray
) -> int:
    """Find the highest peak of a spectrum between two channels.

    A median of three removes single-channel spikes, a running mean of 2 · half_smooth + 1 channels the noise.

    Parameters
    ----------
    out
        Receives the fractional channel of the peak (parabola through the smoothed top), the half-height width in
        channels and the smoothed height above the dark level.

    Returns
    -------
    0, or 1 if there are no usable counts, 2 if the peak lies at the end of the range.
    """
    best = -math.inf
    place = -1
    for i in range(low, high):
        value = _smooth(counts, bad, i, half_smooth, low, high)
        if value > best:
            best = value
            place = i
    if place < 0 or not best > dark_level:
        return 1
    if place <= low or place >= high - 1:
        return 2
    left = _smooth(counts, bad, place - 1, half_smooth, low, high)
    right = _smooth(counts, bad, place + 1, half_smooth, low, high)
    bend = left - 2.0 * best + right
    out[0] = place + (0.5 * (left - right) / bend if bend < 0.0 else 0.0)
    out[2] = best - dark_level
    half = dark_level + 0.5 * out[2]
    width = 0.0
    for direction in (-1, 1):
        i = place
        before = best
        while low <= i + direction < high:
            i += direction
            value = _smooth(counts, bad, i, half_smooth, low, high)
            if value <= half:
                width += abs(i - out[0]) - (half - value) / max(before - value, 1e-300)
                break
            before = value
    out[1] = width
    return 0


@kernel
def _smooth(counts: np.ndarray, bad: np.ndarray, center: int, half: int, low: int, high: int) -> float:
    total = 0.0
    used = 0
    for i in range(max(center - half, low), min(center + half + 1, high)):
        value = _median3(counts, i, low, high)
        if math.isfinite(value) and not (bad.shape[0] > 0 and bad[i]):
            total += value
            used += 1
    return total / used if used else -math.inf


@kernel
def _median3(counts: np.ndarray, i: int, low: int, high: int) -> float:
    b = float(counts[i])
    if i - 1 < low or i + 1 >= high:
        return b
    a, c = float(counts[i - 1]), float(counts[i + 1])
    return max(min(a, b), min(max(a, b), c))
