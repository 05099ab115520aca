"""Remove the instrument response from one spectrum: Richardson-Lucy and Fourier ratio.

The response is given on the channels of the spectrum, of any length, with one of its channels (the anchor) at zero
energy loss; `centred_response` brings a response with its centre between channels there. Sums are in channels, so
nothing depends on the unit of energy or on the dispersion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.resample import resample_one

DONE, NOT_FINITE, EMPTY = 0, 1, 2

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
    transpose_cover
        Share of each channel's counts that the model returns to the axis, (channels,); 1 away from the edges.
    """

    values: np.ndarray
    anchor: int
    inverse_cover: np.ndarray
    transpose_cover: np.ndarray


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
    """Prepare a response for spectra of `n_channels`.

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
    unit = centred / centred.sum()
    cover, transpose = np.empty(n_channels), np.empty(n_channels)
    convolve_one(np.ones(n_channels), unit, anchor, cover)
    correlate_one(1.0 / cover, unit, anchor, transpose)
    return Response(unit, anchor, 1.0 / cover, transpose)


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


@kernel
def richardson_lucy_one(
    counts: np.ndarray,
    variance: np.ndarray,
    response: np.ndarray,
    anchor: int,
    inverse_cover: np.ndarray,
    transpose_cover: np.ndarray,
    iterations: int,
    by_discrepancy: bool,
    estimate: np.ndarray,
    work: np.ndarray,
    report: np.ndarray,
) -> int:
    """Deconvolve a spectrum by Richardson and Lucy's iteration, started from the spectrum itself.

    Negative values are data (a background was subtracted): the iteration runs on the spectrum plus a constant that
    makes the lowest channel zero, and the constant is taken off afterwards. A constant passes the iteration unchanged,
    so nothing is clipped, and the sum over channels of the model of the result equals that of the data after every
    iteration, edges included.

    Parameters
    ----------
    counts, variance
        Spectrum and variance, (channels,). `variance` is only used to stop by discrepancy.
    response, anchor, inverse_cover, transpose_cover
        From `make_response`.
    iterations
        Number of iterations, or the largest number.
    by_discrepancy
        Stop as soon as chi-squared per channel between the spectrum and the model is at most 1.
    estimate
        Result, (channels,).
    work
        Scratch, (2, channels).
    report
        (3,): iterations done, constant that was added, chi-squared per channel at the end (NaN without variances).

    Returns
    -------
    int
        ``DONE``; ``NOT_FINITE`` (result is NaN); ``EMPTY`` (all channels equal: returned as they are).

    References
    ----------
    Richardson 1972, doi:10.1364/JOSA.62.000055; Lucy 1974, doi:10.1086/111605.
    """
    n = counts.shape[0]
    model, ratio = work[0], work[1]
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
    for iteration in range(iterations + 1):
        convolve_one(estimate, response, anchor, model)
        chi_squared = 0.0
        used = 0.0
        for i in range(n):
            model[i] *= inverse_cover[i]
            if variance[i] > 0.0:
                chi_squared += (counts[i] + offset - model[i]) ** 2 / variance[i]
                used += 1.0
        report[0] = iteration
        report[2] = chi_squared / used if used > 0.0 else math.nan
        if iteration == iterations or (by_discrepancy and iteration > 0 and report[2] <= 1.0):
            break
        for i in range(n):
            # A model of exactly 0 needs an estimate of 0 all around; such channels ask for no change.
            ratio[i] = inverse_cover[i] * (counts[i] + offset) / model[i] if model[i] > 0.0 else inverse_cover[i]
        correlate_one(ratio, response, anchor, model)
        for i in range(n):
            estimate[i] *= model[i] / transpose_cover[i]
    for i in range(n):
        estimate[i] -= offset
    return DONE


@kernel
def apply_matrix_one(matrix: np.ndarray, values: np.ndarray, out: np.ndarray) -> int:
    """Write ``values @ matrix`` into `out`, the sum always in the same order; return 0."""
    for i in range(out.shape[0]):
        out[i] = 0.0
    for j in range(values.shape[0]):
        weight = values[j]
        for i in range(out.shape[0]):
            out[i] += weight * matrix[j, i]
    return 0


def fourier_ratio_matrix(
    response: np.ndarray, anchor: int, n_channels: int, modifier_fwhm_channels: float
) -> np.ndarray:
    """Return the matrix M of the Fourier-ratio deconvolution: result = spectrum @ M, (channels, channels).

    The response is replaced by a Gaussian of `modifier_fwhm_channels` (both of unit sum, so the scale is 1 at any
    dispersion). The spectrum is continued by its mirror image, so its ends do not meet across a jump.

    References
    ----------
    Egerton, Electron Energy-Loss Spectroscopy in the Electron Microscope, 3rd ed., section 4.1,
    doi:10.1007/978-1-4419-9583-4.
    """
    length = 2 * n_channels
    wrapped = np.zeros(length)
    np.add.at(wrapped, (np.arange(response.size) - anchor) % length, response / response.sum())
    frequency = fft.rfftfreq(length)
    modifier = np.exp(-((math.pi * modifier_fwhm_channels * frequency) ** 2) / (4.0 * math.log(2.0)))
    transfer = fft.rfft(wrapped)
    # Where the response passes nothing, nothing can be restored; there the modifier is (nearly) zero as well.
    passes = np.abs(transfer) > 1e-12
    quotient = np.where(passes, modifier / np.where(passes, transfer, 1.0), 0.0)
    unit = np.eye(n_channels)
    mirrored = np.concatenate([unit, unit[:, ::-1]], axis=1)
    return np.ascontiguousarray(fft.irfft(fft.rfft(mirrored, axis=1) * quotient, length, axis=1)[:, :n_channels])


def richardson_lucy_noise_gain(response: np.ndarray, anchor: int, iterations: int) -> np.ndarray:
    """Return how many times the variance of a channel grows in 0 … `iterations` iterations, (iterations + 1,).

    First order about a flat spectrum, where one iteration is a linear filter, T' = T + H* (1 - H T), T = 1 at first;
    the growth is the mean of |T|². On a peak the true growth is larger, on its flanks smaller, and the noise of
    neighbouring channels is correlated: good for drawing error bars, not for likelihoods.
    """
    length = fft.next_fast_len(4 * response.size)
    wrapped = np.zeros(length)
    np.add.at(wrapped, (np.arange(response.size) - anchor) % length, response / response.sum())
    transfer = fft.fft(wrapped)
    filtered = np.ones(length, dtype=complex)
    gain = [1.0]
    for _ in range(iterations):
        filtered = filtered + np.conj(transfer) * (1.0 - transfer * filtered)
        gain.append(float(np.mean(np.abs(filtered) ** 2)))
    return np.array(gain)
