"""Remove the instrument response from one spectrum by Richardson and Lucy's iteration.

The response is given on the channels of the spectrum, of any length, with one of its channels (the anchor) at zero
energy loss; `centred_response` brings a response with its centre between channels there. Sums are in channels, so
nothing depends on the unit of energy or on the dispersion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from phonon_eels.kernels.convolve import (
    LANES,
    TAPS,
    convolve_folded,
    convolve_one,
    correlate_one,
    fold_one,
    folded_rows,
    unfold_one,
)
from phonon_eels.kernels.device import kernel, reducing_kernel
from phonon_eels.kernels.resample import resample_one

DONE, NOT_FINITE, EMPTY = 0, 1, 2

SMALLEST_RESPONSE = 1e-6
"""The response ends where it stays below this share of its maximum."""
EMPTY_CHANNEL_START = 1e-2
"""Start of a channel without counts, in units of the mean channel: the iteration multiplies, so 0 would stay 0."""


@dataclass(frozen=True)
class Response:
    """An instrument response and how much of it the axis holds.

    Attributes
    ----------
    values
        Response of unit sum, (response channels,).
    anchor
        Channel of `values` that lies at zero energy loss.
    inverse_cover
        One over the share of the response that falls from within the axis into each channel, (channels,): a channel at
        the edge is compared with what the known part of the axis says, as if the spectrum went on alike outside.
    inverse_transpose
        One over the share of each channel's counts that the model returns to the axis, (channels,); 1 away from the edges.
    taps
        Response and flipped response, filled with zeros to a multiple of `TAPS` channels, (2, taps).
    anchors
        Channel of each that lies at zero energy loss, (2,).
    """

    values: np.ndarray
    anchor: int
    inverse_cover: np.ndarray
    inverse_transpose: np.ndarray
    taps: np.ndarray
    anchors: np.ndarray


def centred_response(values: np.ndarray, centre_channel: float) -> tuple[np.ndarray, int]:
    """Return the response moved so that `centre_channel`, any fraction, falls on a channel, and that channel.

    Raises
    ------
    ValueError
        If the response is not finite, negative, all zero, or its centre lies outside it.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or not np.isfinite(given).all() or (given < 0.0).any() or not given.sum() > 0.0:
        raise ValueError("the response must be one row of finite values >= 0 that are not all zero")
    if not 0.0 <= centre_channel <= given.size - 1:
        raise ValueError(f"centre_channel = {centre_channel:g} must lie inside the response, 0 … {given.size - 1}")
    anchor = round(centre_channel)
    padded = np.concatenate([np.zeros(2), given, np.zeros(2)])
    moved, unused = np.empty_like(padded), np.empty_like(padded)
    resample_one(padded, padded, anchor - centre_channel, moved, unused)
    return np.maximum(moved, 0.0), anchor + 2


def make_response(values: np.ndarray, centre_channel: float, n_channels: int) -> Response:
    """Prepare a response for spectra of `n_channels`, its far ends below a millionth of its maximum cut off.

    Parameters
    ----------
    values
        Response on channels of the spectra's dispersion, any length and scale, not negative.
    centre_channel
        Where zero energy loss lies in it, a fractional channel number.
    """
    centred, anchor = centred_response(values, centre_channel)
    if not centred[anchor] > 0.0:
        raise ValueError("the response is zero at its centre")
    kept = np.flatnonzero(centred >= SMALLEST_RESPONSE * centred.max())
    low, high = min(int(kept[0]), anchor), max(int(kept[-1]), anchor)
    centred, anchor = centred[low : high + 1], anchor - low
    unit = centred / centred.sum()
    cover, transpose = np.empty(n_channels), np.empty(n_channels)
    convolve_one(np.ones(n_channels), unit, anchor, cover)
    correlate_one(1.0 / cover, unit, anchor, transpose)
    taps = np.zeros((2, TAPS * -(-unit.size // TAPS)))
    taps[0, : unit.size], taps[1, : unit.size] = unit, unit[::-1]
    anchors = np.array([anchor, unit.size - 1 - anchor])
    return Response(unit, anchor, 1.0 / cover, 1.0 / transpose, taps, anchors)


SCRATCH_ARRAYS = 10


def richardson_lucy_scratch(n_channels: int, n_taps: int) -> int:
    """Return the length of the scratch array of `richardson_lucy_one`."""
    rows = folded_rows(n_channels)
    return LANES * (SCRATCH_ARRAYS * rows + rows + n_taps - 1)


@kernel
def _start(counts: np.ndarray, estimate: np.ndarray, report: np.ndarray) -> int:
    """Write the start of the iteration into `estimate` and the constant that was added into ``report[1]``."""
    n = counts.shape[0]
    report[0], report[1], report[2] = 0.0, 0.0, math.nan
    lowest = 0.0
    total = 0.0
    for i in range(n):
        if not math.isfinite(counts[i]):
            for j in range(n):
                estimate[j] = math.nan
            return NOT_FINITE
        lowest = min(lowest, counts[i])
        total += counts[i]
    offset = 0.0 - lowest
    mean = total / n + offset
    report[1] = offset
    if not mean > 0.0:
        for i in range(n):
            estimate[i] = counts[i]
        return EMPTY
    for i in range(n):
        estimate[i] = max(counts[i] + offset, EMPTY_CHANNEL_START * mean)
    return DONE


@reducing_kernel
def _misfit(check: np.ndarray, weight: np.ndarray, cover: np.ndarray, model: np.ndarray) -> float:
    """Return the weighted sum of squares that a model, multiplied by `cover`, misses of what is checked."""
    total = 0.0
    for i in range(model.shape[0]):
        miss = check[i] - cover[i] * model[i]
        total += weight[i] * miss * miss
    return total


@kernel
def _quotient(data: np.ndarray, cover: np.ndarray, model: np.ndarray, out: np.ndarray) -> int:
    """Write by what each channel asks its surroundings to be multiplied: the data over the model.

    The model would first be multiplied by `cover`, and the quotient after: that cancels.
    """
    for i in range(data.shape[0]):
        # A model of exactly 0 needs an estimate of 0 all around; such channels ask for no change.
        quotient = data[i] / model[i]
        out[i] = quotient if model[i] > 0.0 else cover[i]
    return 0


@kernel
def _multiply(change: np.ndarray, transpose: np.ndarray, start: np.ndarray, out: np.ndarray) -> int:
    """Multiply the estimate by what the channels around each ask for: the start of the next iteration, in `out` too."""
    for i in range(start.shape[0]):
        now = start[i] * change[i] * transpose[i]
        start[i] = now
        out[i] = now
    return 0


@kernel
def _extrapolate(x: np.ndarray, before: np.ndarray, strength: float, start: np.ndarray, out: np.ndarray) -> int:
    """Write x + strength · (x - before), not below a tenth of x, into `start` and `out`; `before` becomes x."""
    for i in range(x.shape[0]):
        ahead = max(x[i] + strength * (x[i] - before[i]), 0.1 * x[i])
        before[i] = x[i]
        start[i] = ahead
        out[i] = ahead
    return 0


@kernel
def _next_strength(x: np.ndarray, start: np.ndarray, change: np.ndarray) -> float:
    """Return how far the next start is extrapolated; `change` becomes what this iteration did, x - start."""
    both, own = 0.0, 0.0
    for i in range(x.shape[0]):
        now = x[i] - start[i]
        both += now * change[i]
        own += change[i] * change[i]
        change[i] = now
    return min(max(both / own, 0.0), 1.0) if own > 0.0 else 0.0


@kernel
def richardson_lucy_one(
    counts: np.ndarray,
    check: np.ndarray,
    check_variance: np.ndarray,
    taps: np.ndarray,
    anchors: np.ndarray,
    inverse_cover: np.ndarray,
    inverse_transpose: np.ndarray,
    iterations: int,
    stop_at_noise: bool,
    accelerate: bool,
    estimate: np.ndarray,
    scratch: np.ndarray,
    misfit: np.ndarray,
    report: np.ndarray,
) -> int:
    """Deconvolve a spectrum by Richardson and Lucy's iteration, started from the spectrum itself.

    Negative values are data (a background was subtracted): the iteration runs on the spectrum plus a constant that
    makes the lowest channel zero, and the constant is taken off afterwards. A constant passes the iteration unchanged,
    so nothing is clipped, and the sum over channels of the model of the result equals that of the data after every
    iteration, edges included.

    Parameters
    ----------
    counts
        Spectrum, (channels,).
    check, check_variance
        Spectrum that the models are compared with and its variance, (channels,): `counts` itself, or one kept apart.
        Channels without a positive variance do not count.
    taps, anchors, inverse_cover, inverse_transpose
        From `make_response`; `taps` and `anchors` hold the response (row 0) and the flipped one (row 1).
    iterations
        Number of iterations, or the largest number.
    stop_at_noise
        Stop as soon as chi-squared per channel against `check` is at most 1.
    accelerate
        Start each iteration from an extrapolation of the last two (Biggs and Andrews): the same sequence in fewer steps.
        Every iteration is still one of Richardson and Lucy's, so counts are conserved.
    estimate
        Result, (channels,).
    scratch
        (`richardson_lucy_scratch`,).
    misfit
        (iterations + 1,): chi-squared per channel against `check` before each iteration and after the last one done.
    report
        (3,): iterations done, constant that was added, last misfit (NaN without variances).

    Returns
    -------
    int
        ``DONE``; ``NOT_FINITE`` (result is NaN); ``EMPTY`` (all channels equal: returned as they are).

    References
    ----------
    Richardson 1972, doi:10.1364/JOSA.62.000055; Lucy 1974, doi:10.1086/111605; Biggs and Andrews 1997,
    doi:10.1364/AO.36.001766.
    """
    status = _start(counts, estimate, report)
    if status != DONE:
        return status
    rows = 4 * -(-counts.shape[0] // 64)
    size = 16 * rows
    data, cover, transpose = scratch[0:size], scratch[size : 2 * size], scratch[2 * size : 3 * size]
    checked, weight, model = scratch[3 * size : 4 * size], scratch[4 * size : 5 * size], scratch[5 * size : 6 * size]
    x, before = scratch[6 * size : 7 * size], scratch[7 * size : 8 * size]
    start, change = scratch[8 * size : 9 * size], scratch[9 * size : 10 * size]
    padded = scratch[10 * size :]
    n_taps = taps.shape[1]
    first, first_flipped = n_taps - 1 - anchors[0], n_taps - 1 - anchors[1]
    centre = padded[16 * first : 16 * first + size]
    centre_flipped = padded[16 * first_flipped : 16 * first_flipped + size]
    offset = report[1]
    fold_one(counts, rows, -offset, data)
    fold_one(check, rows, 0.0, checked)
    fold_one(check_variance, rows, 0.0, weight)
    fold_one(inverse_cover, rows, 0.0, cover)
    fold_one(inverse_transpose, rows, 0.0, transpose)
    fold_one(estimate, rows, 0.0, start)
    compared = 0.0
    for i in range(size):
        data[i] += offset
        share = 1.0 / weight[i] if weight[i] > 0.0 else 0.0
        known = share > 0.0 and math.isfinite(checked[i])
        checked[i] = checked[i] + offset if known else 0.0
        weight[i] = share if known else 0.0
        compared += 1.0 if known else 0.0
        before[i] = start[i]
        change[i] = 0.0
        centre[i] = start[i]
    for iteration in range(iterations + 1):
        final = iteration == iterations
        report[0], misfit[iteration] = iteration, math.nan
        if final and compared == 0.0:
            break
        convolve_folded(padded, first, rows, taps[0], anchors[0], model)
        if compared > 0.0:
            misfit[iteration] = report[2] = _misfit(checked, weight, cover, model) / compared
            if final or (stop_at_noise and iteration > 0 and report[2] <= 1.0):
                break
        _quotient(data, cover, model, centre_flipped)
        convolve_folded(padded, first_flipped, rows, taps[1], anchors[1], model)
        if accelerate:
            for i in range(size):
                x[i] = start[i] * model[i] * transpose[i]
            strength = _next_strength(x, start, change)
            _extrapolate(x, before, strength if iteration + 1 < iterations else 0.0, start, centre)
        else:
            _multiply(model, transpose, start, centre)
    unfold_one(start, rows, estimate)
    for i in range(estimate.shape[0]):
        estimate[i] -= offset
    return DONE
