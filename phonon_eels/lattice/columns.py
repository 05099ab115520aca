"""What single columns of atoms say: an image drawn from their positions, and the length of the scan step along b."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from phonon_eels.lattice.rows import View
from phonon_eels.lattice.warp import Warp

DRAWN_SIGMA_NM = 0.055
REACH_SIGMA = 4.0
B_SCALES = (0.88, 1.12)
MIN_LENGTH_NM = 1.5
SAMPLES_PER_COLUMN = 2.2
"""Coarser steps along b do not resolve the columns."""
MIN_POWER_RATIO = 4.0


def drawn_image(
    places: np.ndarray, intensity: np.ndarray | None, haadf: np.ndarray, steps_nm: tuple[float, float]
) -> np.ndarray:
    """Return an image with a Gaussian at every column of atoms, (rows, columns).

    Parameters
    ----------
    places
        (n, 2) row and column, fractional.
    intensity
        (n,) of each; None takes them from the image, above its lowest hundredth.
    haadf
        Image that the columns belong to; positions that are not finite stay so.
    """
    rows, columns = haadf.shape
    if intensity is None:
        floor = float(np.nanpercentile(haadf, 1.0))
        filled = np.where(np.isfinite(haadf), haadf, floor)
        intensity = map_coordinates(filled, places.T, order=1, mode="nearest") - floor
    drawn = np.zeros(haadf.shape)
    reach = [int(np.ceil(REACH_SIGMA * DRAWN_SIGMA_NM / step)) for step in steps_nm]
    for (row, column), height in zip(places, intensity, strict=True):
        i = np.arange(max(0, int(row) - reach[0]), min(rows, int(row) + reach[0] + 2))
        j = np.arange(max(0, int(column) - reach[1]), min(columns, int(column) + reach[1] + 2))
        away = ((i[:, None] - row) * steps_nm[0]) ** 2 + ((j[None, :] - column) * steps_nm[1]) ** 2
        drawn[np.ix_(i, j)] += height * np.exp(-0.5 * away / DRAWN_SIGMA_NM**2)
    return np.where(np.isfinite(haadf), drawn, np.nan)


def scale_along_b(haadf: np.ndarray, view: View, warp: Warp, column_nm: float) -> tuple[float, float]:
    """Return scan nm per crystal nm along b from the spacing of the columns in the brightest planes, and its deviation; NaN if unseen.

    Along the fast scan direction drift does not stretch the image, so this tells an error of the scan step from a drift
    along c. Every anchor plane gives a power spectrum of its own; their sum has its maximum at the columns' spacing.

    Parameters
    ----------
    column_nm
        Spacing of the columns along b in the crystal.
    """
    step = _step_along_b(view)
    length = float(np.ptp(view.t))
    if step * SAMPLES_PER_COLUMN > column_nm or length < MIN_LENGTH_NM or not len(warp.anchors):
        return float("nan"), float("nan")
    index, distance = warp.nearest(view.s.ravel(), view.t.ravel())
    scales = np.linspace(*B_SCALES, max(int(16 * length / column_nm), 241))
    powers = []
    for plane in warp.anchors:
        near = np.where(index == plane, np.exp(-0.5 * (distance / warp.sigma_nm) ** 2), 0.0).sum(axis=0)
        near *= np.isfinite(haadf).ravel()
        chosen = near > 0.3
        if chosen.sum() < 30:
            continue
        t, weight = view.t.ravel()[chosen], near[chosen]
        value = haadf.ravel()[chosen]
        # A smooth trend (thickness) must not leak into the columns.
        design = np.stack([np.ones_like(t), t / length, (t / length) ** 2], axis=1)
        root = np.sqrt(weight)[:, None]
        value = value - design @ np.linalg.lstsq(design * root, value * root[:, 0], rcond=None)[0]
        waves = np.exp(-2j * np.pi * t[None, :] / (scales[:, None] * column_nm))
        powers.append(np.abs(waves @ (weight * value)) ** 2 / float((weight**2).sum()))
    if len(powers) < 2:
        return float("nan"), float("nan")
    return _peak(scales, np.array(powers))


def _peak(scales: np.ndarray, powers: np.ndarray) -> tuple[float, float]:
    """Maximum of the summed power and its deviation by leaving out one plane after the other."""

    def best(power: np.ndarray) -> float:
        k = int(np.argmax(power))
        if not 0 < k < len(power) - 1:
            return float("nan")
        bend = 2.0 * power[k] - power[k - 1] - power[k + 1]
        return float(scales[k] + 0.5 * (scales[1] - scales[0]) * (power[k + 1] - power[k - 1]) / max(bend, 1e-300))

    total = powers.sum(axis=0)
    value = best(total)
    if not np.isfinite(value) or total.max() < MIN_POWER_RATIO * np.median(total):
        return float("nan"), float("nan")
    n = len(powers)
    without = np.array([best(total - power) for power in powers])
    std = float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
    return value, std


def _step_along_b(view: View) -> float:
    along_rows = abs(float(view.t[1, 0] - view.t[0, 0])) if view.t.shape[0] > 1 else 0.0
    along_columns = abs(float(view.t[0, 1] - view.t[0, 0])) if view.t.shape[1] > 1 else 0.0
    return max(along_rows, along_columns)
