"""Tables of the zero-loss peak at sub-channel offsets, made once for a scan, that `zero_loss.score_peak` reads."""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.lineshapes import split_pearson7_slopes
from phonon_eels.kernels.zero_loss import N_SHAPE

WITHIN = 8
"""Points over which a channel is averaged."""
LOWER = ([0, 1, 1, 2, 2, 2, 3, 3, 3, 3], [0, 0, 1, 0, 1, 2, 0, 1, 2, 3])
"""Rows and columns of a lower triangle of four."""


def score_tables(
    fwhm_channels: float, tail_loss: float, tail_gain: float, half: int, shift: float = 0.0, n_phases: int = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tabulate a zero-loss peak μ of unit height and the scores of its shape at sub-channel offsets.

    Parameters
    ----------
    half
        Half the window, channels.
    shift
        Variance of the read noise over the typical height, both in electrons: weights are 1 / (μ + shift).
    n_phases
        Number of offsets, a multiple of 8.

    Returns
    -------
    models
        (phases, 2 · half + 1). Offset of phase p: (p + 1/2) / phases - 1/2.
    scores
        Derivatives of μ to centre, ln FWHM, ln m₊, ln m₋ over μ + shift, and μ itself over it, (phases, 5, 2 · half + 1).
    constants
        Sums over the window, (phases, 25): of μ times its weight (1), of the scores (4), of μ times scores (4), of μ + shift
        times products of scores (10, lower triangle), of the weights (1); the last is the number of channels.
    """
    # The points within all channels at all offsets lie on one grid, so that each is computed once.
    between, n = n_phases // WITHIN, 2 * half + 1
    first = -(half + 1) * n_phases + 0.5 * (between + 1)
    points = split_pearson7_slopes(
        (first + np.arange(n * n_phases + between * (WITHIN - 1))) / n_phases, fwhm_channels, tail_loss, tail_gain
    )
    for doubled in (1, 2, 4):
        points = points[:, : -between * doubled] + points[:, between * doubled :]
    peaks = np.ascontiguousarray(points.reshape(-1, n, n_phases)[:, :, ::-1].transpose(2, 0, 1)) / WITHIN
    models = np.ascontiguousarray(peaks[:, N_SHAPE])
    scores = peaks / (models + shift)[:, None, :]
    sums, on_model = scores.sum(axis=2), (scores @ models[:, :, None])[..., 0]
    products = peaks @ scores.transpose(0, 2, 1)  # of derivatives and scores: weighted by μ + shift
    constants = np.empty((n_phases, 25))
    constants[:, 0], constants[:, 1:5], constants[:, 5:9] = (
        on_model[:, N_SHAPE],
        sums[:, :N_SHAPE],
        on_model[:, :N_SHAPE],
    )
    constants[:, 9:19] = products[:, *LOWER]
    constants[:, 19], constants[:, 20:24], constants[:, 24] = sums[:, N_SHAPE], 0.0, n
    return models, scores, constants
