"""Drift while a frame is scanned: rows that were read later lie elsewhere.

What all frames share cannot be seen in their comparison (the lattice's slow field takes it, `lattice.drift`); what differs between them
can: each band of rows is registered by itself on the mean of the other frames, and a line through the bands is the drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from phonon_eels.lattice.frame_match import correlation_at, refine_shift
from phonon_eels.lattice.registration import MeanFrame, standardised

BANDS = 3
LEAST_ROWS = 16
"""Rows of a band: fewer hold too little of the crystal."""
NEAR = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Where a band is looked for about the shift of its frame, positions along either direction."""


@dataclass(frozen=True)
class LineDrift:
    """Change of a frame's shift from its first row to its last, against the mean of the others.

    Attributes
    ----------
    change, std
        In positions, (frames, 2) as (row, column); NaN where it was not measured.
    """

    change: np.ndarray
    std: np.ndarray

    def at_rows(self, n_rows: int) -> np.ndarray:
        """Return the shift of every row beyond that of its frame, (frames, rows, 2), positions; 0 where not measured."""
        place = (np.arange(n_rows) + 0.5) / n_rows - 0.5
        return np.asarray(np.nan_to_num(self.change)[:, None, :] * place[None, :, None])


def measure_line_drift(frames: np.ndarray, shifts: np.ndarray, upsample_factor: int = 20) -> LineDrift:
    """Measure the drift within frames that were registered as a whole.

    Parameters
    ----------
    frames
        (frames, rows, columns).
    shifts
        Their registration, (frames, 2).

    Returns
    -------
    LineDrift
        NaN where frames have fewer than 48 rows. The deviation is that of the bands about the line, at least 0.05 position.
    """
    n, rows = frames.shape[:2]
    nothing = np.full((n, 2), np.nan)
    if rows < BANDS * LEAST_ROWS or n < 3:
        return LineDrift(nothing, nothing.copy())
    images = np.stack([standardised(np.asarray(frame, dtype=np.float64)) for frame in frames])
    edges = np.linspace(0, rows, BANDS + 1).astype(int)
    middle = (0.5 * (edges[1:] + edges[:-1])) / rows - 0.5
    design = np.column_stack([np.ones(BANDS), middle])
    inverse = np.linalg.inv(design.T @ design)
    change, std = nothing, nothing.copy()
    for f in range(n):
        others = MeanFrame(images.shape[1:])
        for g in range(n):
            if g != f:
                others.add(images[g], shifts[g])
        reference, covered = others.mean()
        found = np.array([
            _band_shift(reference[a:b], covered[a:b], images[f, a:b], shifts[f], upsample_factor) for a, b in pairwise(edges)
        ])  # fmt: skip
        line = inverse @ design.T @ found
        rest = found - design @ line
        spread = np.maximum((rest**2).sum(axis=0) / (BANDS - 2), 0.05**2)
        change[f], std[f] = line[1], np.sqrt(inverse[1, 1] * spread)
    return LineDrift(change, std)


def _band_shift(
    reference: np.ndarray, covered: np.ndarray, band: np.ndarray, start: np.ndarray, upsample_factor: int
) -> np.ndarray:
    """Refine from the best place near the frame's own shift: the best of all may be a lattice period off."""
    places = [start + np.array([r, c]) for r in NEAR for c in NEAR]
    best = max(places, key=lambda place: correlation_at(reference, covered, band, place)[0])
    return refine_shift(reference, covered, band, best, upsample_factor)
