"""Convolve one spectrum with a response: plainly, and folded for speed.

Folded: channel i of a spectrum lies in row ``i % rows`` of lane ``i // rows``, lanes beside each other in memory. A shift by any
number of channels is then a shift by rows, every load is aligned, and four rows share the eleven loads of eight channels of
the response: about twice the rate of the plain loop, whose unaligned loads are its limit.
"""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import kernel

LANES = 16
"""Lanes of the folded layout; the kernels below have the number written out, so that their loops are of known length."""

TAPS = 8
"""The response of the folded convolution is filled with zeros to a multiple of this many channels."""


@kernel
def convolve_one(values: np.ndarray, response: np.ndarray, anchor: int, out: np.ndarray) -> int:
    """Write the convolution with the response, nothing outside the axis, into `out`; return 0.

    Four channels of the response at a time: every load and store of `out` then serves four products.
    """
    n = values.shape[0]
    n_response = response.shape[0]
    for i in range(n):
        out[i] = 0.0
    n_fours = n_response // 4
    for four in range(n_fours):
        k = 4 * four
        shift = k - anchor
        first, last = max(0, shift + 3), min(n, n + shift)
        if first < last:
            w0, w1, w2, w3 = response[k], response[k + 1], response[k + 2], response[k + 3]
            # Views that all start at 0: an index that might be negative keeps the compiler from vectorising.
            v0, v1 = values[first - shift : last - shift], values[first - shift - 1 : last - shift - 1]
            v2, v3 = values[first - shift - 2 : last - shift - 2], values[first - shift - 3 : last - shift - 3]
            part = out[first:last]
            for i in range(part.shape[0]):
                part[i] += w0 * v0[i] + w1 * v1[i] + w2 * v2[i] + w3 * v3[i]
        else:
            first = last = max(0, min(n, last))
        for m in range(4):  # the few channels that not all four reach
            for i in range(max(0, shift + m), min(first, n + shift + m)):
                out[i] += response[k + m] * values[i - shift - m]
            for i in range(max(last, shift + m, 0), min(n, n + shift + m)):
                out[i] += response[k + m] * values[i - shift - m]
    for k in range(4 * n_fours, n_response):
        shift = k - anchor
        for i in range(max(0, shift), min(n, n + shift)):
            out[i] += response[k] * values[i - shift]
    return 0


@kernel
def correlate_one(values: np.ndarray, response: np.ndarray, anchor: int, out: np.ndarray) -> int:
    """Write the transpose of `convolve_one` (the response flipped) applied to `values` into `out`; return 0."""
    return convolve_one(values, response[::-1], response.shape[0] - 1 - anchor, out)


def folded_rows(n_channels: int) -> int:
    """Return the rows of a folded spectrum: a multiple of four, so that rows can be taken by fours."""
    return 4 * -(-n_channels // (4 * LANES))


@kernel
def fold_one(values: np.ndarray, rows: int, beyond: float, out: np.ndarray) -> int:
    """Fold a spectrum into ``out``, (16 · rows,), `beyond` in the places after its end; return 0."""
    n = values.shape[0]
    for lane in range(16):
        for row in range(rows):
            i = lane * rows + row
            out[16 * row + lane] = values[i] if i < n else beyond
    return 0


@kernel
def unfold_one(folded: np.ndarray, rows: int, out: np.ndarray) -> int:
    """Bring a folded spectrum back to channels, (channels,); return 0."""
    n = out.shape[0]
    for lane in range(16):
        for row in range(rows):
            i = lane * rows + row
            if i < n:
                out[i] = folded[16 * row + lane]
    return 0


@kernel
def fill_halo(padded: np.ndarray, first: int, rows: int, total: int) -> int:
    """Continue a folded spectrum, rows `first` … `first` + `rows`, to all `total` rows; return 0.

    The row below a lane's first is the last of the lane before, and nothing lies outside the axis.
    """
    size = 16 * rows
    high = first
    while high > 0:
        low = max(high - rows, 0)
        target, source = padded[16 * low : 16 * high], padded[16 * low + size - 1 : 16 * high + size - 1]
        for i in range(target.shape[0]):
            target[i] = source[i]
        for row in range(low, high):
            padded[16 * row] = 0.0
        high = low
    low = first + rows
    while low < total:
        high = min(low + rows, total)
        target, source = padded[16 * low : 16 * high], padded[16 * low - size + 1 : 16 * high - size + 1]
        for i in range(target.shape[0]):
            target[i] = source[i]
        for row in range(low, high):
            padded[16 * row + 15] = 0.0
        low = high
    return 0


@kernel
def convolve_folded(padded: np.ndarray, first: int, rows: int, taps: np.ndarray, anchor: int, out: np.ndarray) -> int:
    """Convolve a folded spectrum with a response; return 0.

    Parameters
    ----------
    padded
        Scratch, 16 · (rows + taps - 1); rows `first` … hold the folded spectrum, the others are filled here.
    first
        Number of taps less one less `anchor`.
    taps
        Response, its length a multiple of `TAPS` (zeros at its end).
    anchor
        Tap at zero energy loss.
    out
        Folded result, (16 · rows,). What it holds beyond the end of the spectrum has no meaning.
    """
    n_taps = taps.shape[0]
    fill_halo(padded, first, rows, rows + n_taps - 1)
    for row in range(0, rows, 4):
        part = out[16 * row : 16 * row + 64]
        for j in range(64):
            part[j] = 0.0
        for k in range(0, n_taps, 8):
            here = taps[k : k + 8]
            w0, w1, w2, w3, w4, w5, w6, w7 = here[0], here[1], here[2], here[3], here[4], here[5], here[6], here[7]
            start = 16 * (first + anchor + row - k - 7)
            v = padded[start : start + 176]
            for j in range(16):
                a, b, c, d = v[j], v[16 + j], v[32 + j], v[48 + j]
                e, f, g, h = v[64 + j], v[80 + j], v[96 + j], v[112 + j]
                p, q, r = v[128 + j], v[144 + j], v[160 + j]
                part[j] = part[j] + w0 * h + w1 * g + w2 * f + w3 * e + w4 * d + w5 * c + w6 * b + w7 * a
                part[16 + j] = part[16 + j] + w0 * p + w1 * h + w2 * g + w3 * f + w4 * e + w5 * d + w6 * c + w7 * b
                part[32 + j] = part[32 + j] + w0 * q + w1 * p + w2 * h + w3 * g + w4 * f + w5 * e + w6 * d + w7 * c
                part[48 + j] = part[48 + j] + w0 * r + w1 * q + w2 * p + w3 * h + w4 * g + w5 * f + w6 * e + w7 * d
    return 0
