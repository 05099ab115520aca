"""Spikes and dead channels in one spectrum: what leaves the expectations of its channels and of its neighbours."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.expectations import (
    NEAREST,
    PSEUDO_ELECTRONS,
    deviance_sigma,
    expect,
    expect_from_channels,
    expect_from_positions,
)

GOOD, SPIKE, DEAD, HOT, SATURATED, GROWN = 0, 1, 2, 3, 4, 5
"""What a channel is found to be."""

MEDIAN_HALF = 3
"""The running median of seven takes out spikes up to three channels wide."""


@kernel
def clean_spectrum(
    spectrum: np.ndarray,
    usable: np.ndarray,
    read_variance_e: float,
    level: float,
    scratch: np.ndarray,
    cleaned: np.ndarray,
) -> int:
    """Replace what stands out of a running median, as a first guess free of spikes.

    Parameters
    ----------
    spectrum
        Electrons, (channels,).
    usable
        0 for channels that are always replaced (hot ones; so are those that are not finite), (channels,).
    level
        Standard deviations that stand out.
    scratch
        Seven values of working memory.
    cleaned
        Output, (channels,).

    Returns
    -------
    int
        Number of channels replaced.
    """
    n = spectrum.shape[0]
    replaced = 0
    for c in range(n):
        used = 0
        for d in range(-MEDIAN_HALF, MEDIAN_HALF + 1):
            k = c + d
            if 0 <= k < n and usable[k] and math.isfinite(spectrum[k]):
                value = spectrum[k]
                place = used
                while place > 0 and scratch[place - 1] > value:
                    scratch[place] = scratch[place - 1]
                    place -= 1
                scratch[place] = value
                used += 1
        cleaned[c] = spectrum[c]
        if used == 0:
            continue
        middle = 0.5 * (scratch[(used - 1) // 2] + scratch[used // 2])
        # At few electrons the median says nothing: 1 electron among empty channels is no outlier.
        sigma = abs(deviance_sigma(spectrum[c], max(middle, 0.0) + 0.3, read_variance_e))
        if not usable[c] or not math.isfinite(spectrum[c]) or sigma > level:
            cleaned[c] = middle
            replaced += 1
    return replaced


@kernel
def find_outliers(
    spectrum: np.ndarray,
    cleaned: np.ndarray,
    neighbours: np.ndarray,
    n_neighbours: int,
    state: np.ndarray,
    read_variance_e: float,
    noise_scale: float,
    level: float,
    half: int,
    zero_loss_half: float,
    flags: np.ndarray,
    expected: np.ndarray,
) -> int:
    """Find spikes and dead channels of one spectrum, and what should have been counted there.

    Parameters
    ----------
    spectrum
        Electrons, (channels,).
    cleaned
        First guess without spikes (`clean_spectrum`), changed in place.
    neighbours, n_neighbours
        As in `expect_from_positions`; with 0 neighbours one test has to do, at a higher level.
    state
        Per channel: `GOOD`, `HOT`, `SATURATED`, or `GROWN` for a channel that must not be touched.
    noise_scale
        True noise over that of the noise model.
    level
        Standard deviations (of expectation and channel together) that both tests must exceed.
    half
        Channels on each side that the expectation is made of.
    zero_loss_half
        Channels on each side of the zero-loss maximum where only what towers above the peak is a spike.
    flags
        Output, (channels,) of `GOOD`, `SPIKE`, `DEAD`, `HOT` or `SATURATED`.
    expected
        Output, (channels,): electrons expected at the flagged channels.

    Returns
    -------
    int
        Number of flagged channels.
    """
    n = spectrum.shape[0]
    top = _zero_loss_channel(cleaned, zero_loss_half)
    found = 0
    for _ in range(2):  # the second round judges with the first round's spikes out of the way
        found = 0
        for c in range(n):
            flags[c] = state[c] if state[c] == HOT or state[c] == SATURATED else GOOD
            if state[c] == HOT:
                expected[c] = expect_from_channels(cleaned, c, half, read_variance_e)[0]
            elif state[c] == GOOD:
                inputs = (spectrum, cleaned, neighbours, n_neighbours, c, half, read_variance_e, level * noise_scale)
                flags[c] = _judge_zero_loss(*inputs) if abs(c - top) <= zero_loss_half else _judge(*inputs)
                if flags[c] != GOOD:
                    expected[c] = expect(cleaned, neighbours, n_neighbours, c, half, read_variance_e)
            found += flags[c] != GOOD
        for c in range(n):
            if flags[c] == SPIKE or flags[c] == DEAD or flags[c] == HOT:
                cleaned[c] = expected[c]
            else:
                beside = (c > 0 and flags[c - 1] != GOOD) or (c < n - 1 and flags[c + 1] != GOOD)
                if not beside and state[c] == GOOD and math.isfinite(spectrum[c]):
                    cleaned[c] = spectrum[c]
    return found


@kernel
def _judge(
    spectrum: np.ndarray,
    cleaned: np.ndarray,
    neighbours: np.ndarray,
    n_neighbours: int,
    c: int,
    half: int,
    read_variance_e: float,
    level: float,
) -> int:
    value = spectrum[c]
    if not math.isfinite(value):
        return GOOD
    # A quick look first: nearly all channels end here.
    total, used = 0.0, 0
    for d in range(NEAREST, NEAREST + 2):
        if c - d >= 0:
            total += cleaned[c - d]
            used += 1
        if c + d < cleaned.shape[0]:
            total += cleaned[c + d]
            used += 1
    if used == 0 or abs(deviance_sigma(value, total / used, read_variance_e)) < 2.0:
        return GOOD
    if n_neighbours == 0:
        level = level * 1.2
    expected, share, excess = expect_from_channels(cleaned, c, half, read_variance_e)
    sign = 1.0 if value > expected else -1.0
    doubt = 0.5 * share if sign > 0 else 0.0  # electrons: an expectation of none is never certain
    sigma = sign * deviance_sigma(value, expected + doubt, read_variance_e)
    if not sigma >= level * math.sqrt((1.0 + share) * excess):  # also refuses what is not finite
        return GOOD
    if n_neighbours > 0:
        expected, share, excess = expect_from_positions(cleaned, neighbours, n_neighbours, c, half, read_variance_e)
        doubt = 0.5 * share if sign > 0 else 0.0
        sigma = sign * deviance_sigma(value, expected + doubt, read_variance_e)
        if not sigma >= level * math.sqrt((1.0 + share) * excess):
            return GOOD
    return SPIKE if sign > 0 else DEAD


@kernel
def _judge_zero_loss(
    spectrum: np.ndarray,
    cleaned: np.ndarray,
    neighbours: np.ndarray,
    n_neighbours: int,
    c: int,
    half: int,
    read_variance_e: float,
    level: float,
) -> int:
    """On the zero-loss peak a small shift looks like a spike: only twice the neighbours' peak nearby convinces."""
    if n_neighbours == 0:
        return GOOD
    n = spectrum.shape[0]
    own, far, peak = 0.0, 0.0, 0.0
    for k in range(max(c - half, 0), min(c + half + 1, n)):
        own += cleaned[k]
        far += neighbours[k]
        if abs(k - c) <= 3:
            peak = max(peak, neighbours[k])
    if far < PSEUDO_ELECTRONS or own <= 0.0:
        return GOOD
    envelope = 2.0 * max(peak, 0.0) * own / far
    return SPIKE if deviance_sigma(spectrum[c], envelope + 1.0, read_variance_e) > 3.0 * level else GOOD


@kernel
def _zero_loss_channel(cleaned: np.ndarray, zero_loss_half: float) -> int:
    """Middle of the highest running sum as wide as the zero-loss peak."""
    n = cleaned.shape[0]
    half = max(int(zero_loss_half / 3.0), 0)
    total = 0.0
    for k in range(min(2 * half + 1, n)):
        total += cleaned[k]
    best, top = total, half
    for c in range(half + 1, n - half):
        total += cleaned[c + half] - cleaned[c - half - 1]
        if total > best:
            best, top = total, c
    return top
