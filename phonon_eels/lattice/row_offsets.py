"""Jumps of whole scan rows along c: where c runs across the rows, every row may stand a little off its place."""

from __future__ import annotations

import numpy as np

from phonon_eels.lattice.intensity import Intensity, Pixels, gaussians
from phonon_eels.lattice.rows import View
from phonon_eels.lattice.warp import Warp

MAX_TILT_RAD = np.deg2rad(25.0)
START_STD_NM = 0.02
CORRELATED = 1.0
"""Positions that count as one. Elsewhere four, since columns of the lattice correlate residuals; a row crosses all of them alike."""
MIN_STD_NM = 0.004
ROUNDS = 30


def row_offsets(pixels: Pixels, view: View, warp: Warp, intensity: Intensity) -> np.ndarray:
    """Return how far along c every row stood from its place, nm of the scan, (rows,); zeros where that cannot be told.

    One least-squares step per row against the fitted image, drawn towards zero by a prior whose deviation is that of
    the rows themselves (maximum likelihood). Rows on top of planes or between them, where the image is flat, stay near zero.
    """
    rows, columns = view.s.shape
    offsets = np.zeros(rows)
    if abs(np.sin(view.angle_rad)) > np.sin(MAX_TILT_RAD) or rows < 8:
        return offsets
    index, distance = warp.nearest(pixels.s, pixels.t)
    strength = intensity.plane_strength(pixels, warp.planes, index)
    pull = (strength * gaussians(distance, warp.sigma_nm) * distance).sum(axis=0) / warp.sigma_nm**2
    row = pixels.order // columns
    noise = CORRELATED * intensity.noise**2
    precision = np.bincount(row, weights=pull**2, minlength=rows) / noise
    right = -np.bincount(row, weights=pull * intensity.residual, minlength=rows) / noise
    variance = START_STD_NM**2
    for _ in range(ROUNDS):
        total = precision + 1.0 / variance
        offsets = right / total
        variance = max(float(np.mean(offsets**2 + 1.0 / total)), 1e-8)
    return offsets if variance > MIN_STD_NM**2 else np.zeros(rows)
