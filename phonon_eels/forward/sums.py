"""Sums of spectra over positions, each at its own zero-loss channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phonon_eels.backends.base import Backend
from phonon_eels.backends.spectra import NO_CHANNEL
from phonon_eels.forward.scan import Alignment, electrons
from phonon_eels.spectrum_image import SpectrumImage


def aligned_sums(
    image: SpectrumImage,
    alignment: Alignment,
    first_channel: int,
    n_channels: int,
    weights: np.ndarray,
    backend: Backend,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum spectra over positions with weights, each moved by whole channels to its zero-loss channel.

    Parameters
    ----------
    weights
        (groups, rows, columns) of non-negative or signed weights.

    Returns
    -------
    sums, squares
        (groups, channels) weighted sums of electrons, and the sums of weights² · electrons' variance.
        Sums are formed per row and added in row order, so blocks and threads leave no trace.
        A channel missing at a position (spike, axis end) takes the row's mean of that channel, weighted alike.
    """
    gain, dark = electrons(image)
    shift_e = 0.0 if image.variance is not None else image.noise.read_noise_e**2

    def sum_rows(
        first_row: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None
    ) -> list[np.ndarray]:
        results = []
        for r in range(counts.shape[0]):
            row = first_row + r
            z, var = np.full((2, counts.shape[1], n_channels), np.nan)
            for c in range(counts.shape[1]):
                zero = alignment.channel[row, c]
                if zero == NO_CHANNEL:
                    continue
                low = zero + first_channel
                inside = slice(max(low, 0), min(low + n_channels, counts.shape[2]))
                if inside.stop <= inside.start:
                    continue
                target = slice(inside.start - low, inside.stop - low)
                z[c, target] = (counts[r, c, inside] - dark) / gain
                if variance is not None:
                    var[c, target] = variance[r, c, inside]
                if bad is not None:
                    z[c, target][bad[r, c, inside]] = np.nan
            results.append(_weighted(z, var if variance is not None else None, weights[:, row], shift_e))
        return results

    parts = [
        row
        for block in backend.map_rows(sum_rows, [image.counts, image.bad, image.variance], progress=progress)
        for row in block
    ]
    stacked = np.stack(parts)  # (rows, 2, groups, channels)
    total = np.zeros(stacked.shape[1:])
    for row in stacked:
        total += row
    return total[0], total[1]


def _weighted(z: np.ndarray, var: np.ndarray | None, weights: np.ndarray, shift_e: float) -> np.ndarray:
    usable = np.isfinite(z)
    present = usable.any(axis=1)
    counted = np.where(usable, z, 0.0)
    n_usable = usable.sum(axis=0)
    mean = np.divide(counted.sum(axis=0), n_usable, out=np.zeros(z.shape[1]), where=n_usable > 0)
    filled = np.where(usable, counted, mean) * present[:, None]
    variance = np.where(usable, counted, mean) + shift_e if var is None else np.where(np.isfinite(var), var, 0.0)
    return np.stack([weights @ filled, (weights**2) @ (np.maximum(variance, 0.0) * present[:, None])])
