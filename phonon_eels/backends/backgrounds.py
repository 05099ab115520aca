"""Backgrounds of a block of spectra on the processor."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.background_shapes import MAX_PARAMETERS, background_curve_one
from phonon_eels.kernels.backgrounds import SMALL_ROWS, fit_background_one
from phonon_eels.kernels.device import kernel

Array = np.ndarray


@kernel
def background_position(
    p: int,  # which position of the block
    shape: int, energies_mev: Array, channels: Array, reference_mev: float, table: Array, shown_mev: Array, counts: Array,
    variance: Array, bad: Array, parameters: Array, covariance: Array, area: Array, status: Array,
    y: Array,  # scratch from here on, (2, window): counts, variance
    usable: Array,  # (window,) of bool
    work: Array,  # (3, window)
    small: Array,  # (SMALL_ROWS, 5)
    curve: Array,  # (2, shown)
    square: Array,  # (5, 5)
) -> int:  # fmt: skip
    """Fit one spectrum of a block, with the arguments of `fit_backgrounds_block`."""
    peak = math.nan
    for i in range(counts.shape[1]):
        value = counts[p, i]
        if math.isfinite(value) and not value <= peak:
            peak = value
    for i in range(channels.shape[0]):
        channel = channels[i]
        y[0, i], y[1, i] = counts[p, channel], variance[p, channel]
        usable[i] = not (bad.shape[0] > 0 and bad[p, channel])
    status[p] = fit_background_one(
        shape, energies_mev, y[0], y[1], usable, peak, reference_mev, table, parameters[p], square, work, small
    )
    for a in range(MAX_PARAMETERS):
        for b in range(MAX_PARAMETERS):
            covariance[p, MAX_PARAMETERS * a + b] = square[a, b]
    area[p, 1] = background_curve_one(
        shape, parameters[p], covariance[p], shown_mev, reference_mev, table, small, curve[0], curve[1]
    )
    total = 0.0
    for i in range(shown_mev.shape[0]):
        total += curve[0, i]
    area[p, 0] = total
    return 0


@kernel
def fit_backgrounds_block(
    shape: int,  # one of `background_shapes`
    energies_mev: Array,  # (window,) of the fitted channels
    channels: Array,  # (window,) which those are
    reference_mev: float,
    table: Array,
    shown_mev: Array,  # (shown,) where the fitted background is summed
    counts: Array,  # (positions, channels), dark level taken off
    variance: Array,  # (positions, channels)
    bad: Array,  # (positions, channels) of bool, or (0, 0)
    parameters: Array,  # out (positions, 5)
    covariance: Array,  # out (positions, 25)
    area: Array,  # out (positions, 2): sum over `shown_mev`, its variance
    status: Array,  # out (positions,)
) -> int:
    """Fit the background of every spectrum by `fit_background_one`; scratch is made once."""
    y, work = np.empty((2, channels.shape[0])), np.empty((3, channels.shape[0]))
    usable = np.empty(channels.shape[0], np.bool_)
    small, curve = np.empty((SMALL_ROWS, MAX_PARAMETERS)), np.empty((2, shown_mev.shape[0]))
    square = np.empty((MAX_PARAMETERS, MAX_PARAMETERS))
    for p in range(counts.shape[0]):
        background_position(
            p, shape, energies_mev, channels, reference_mev, table, shown_mev, counts, variance, bad, parameters, covariance,
            area, status, y, usable, work, small, curve, square,
        )  # fmt: skip
    return 0
