"""How far a fitted line follows two lines of opposite modulation that are seen as one.

A position sees its own plane at E0 + x and planes of the opposite phase at E0 - x, with x the modulation there. To first
order one fitted line follows their centroid, share · x. Lines that move apart pull less on each other: at a modulation
of half the line's standard deviation an amplitude corrected to first order comes out 2 % too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

N_SHARES = 11
N_OFFSETS = 9
ITERATIONS = 8


@dataclass(frozen=True)
class MixtureResponse:
    """Share that a fitted line follows, on a grid.

    Attributes
    ----------
    offset_mev
        (offsets,) of the lines from their middle, from 0.
    share
        (shares,) true share less that of the opposite phase, 0 to 1.
    followed
        (offsets, shares).
    """

    offset_mev: np.ndarray
    share: np.ndarray
    followed: np.ndarray

    def at(self, signed_share: np.ndarray, offset_mev: np.ndarray) -> np.ndarray:
        """Return the signed share that the fitted energy follows; offsets beyond the grid take its end."""
        from scipy.interpolate import RegularGridInterpolator

        grid = RegularGridInterpolator((self.offset_mev, self.share), self.followed)
        size = np.clip(np.abs(signed_share), 0.0, 1.0)
        place = np.stack([np.minimum(np.abs(offset_mev), self.offset_mev[-1]), size], axis=-1)
        known = np.isfinite(place).all(axis=-1)
        result = np.full(size.shape, np.nan)
        result[known] = grid(place[known])
        return np.sign(signed_share) * result


def mixture_response(
    line: Callable[[float], np.ndarray],
    nuisances: np.ndarray,
    expected: np.ndarray,
    energy_mev: float,
    largest_mev: float,
) -> MixtureResponse:
    """Fit one line to noise-free pairs of lines.

    Parameters
    ----------
    line
        Returns the line of unit area at an energy, (channels,).
    nuisances
        (k, channels) shapes whose sizes are free in the fit.
    expected
        (channels,) expected electrons, which set the weights.
    largest_mev
        Largest offset of interest.
    """
    weight = 1.0 / np.sqrt(np.maximum(expected, 1e-12))
    offsets = np.linspace(0.0, largest_mev, N_OFFSETS)
    shares = np.linspace(0.0, 1.0, N_SHARES)
    step = 0.02 * max(largest_mev, 0.1)

    def fitted(share: float, offset: float) -> float:
        seen = 0.5 * ((1.0 + share) * line(energy_mev + offset) + (1.0 - share) * line(energy_mev - offset))
        place = energy_mev + share * offset
        for _ in range(ITERATIONS):
            slope = (line(place + step) - line(place - step)) / (2.0 * step)
            design = np.vstack([slope, line(place), nuisances]) * weight
            found = np.linalg.lstsq(design.T, seen * weight, rcond=None)[0]
            place += float(np.clip(found[0] / found[1], -offset, offset))
        return place - energy_mev

    followed = np.tile(shares, (N_OFFSETS, 1))
    for i, offset in enumerate(offsets[1:], start=1):
        for j, share in enumerate(shares[1:-1], start=1):
            followed[i, j] = (fitted(share, offset) - fitted(-share, offset)) / (2.0 * offset)
    return MixtureResponse(offsets, shares, followed)
