"""A picture of a scan for a table of many: small, without axes, in the proportions of the specimen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imsave


def save_thumbnail(values: np.ndarray, path: Path, *, height_per_width: float = 1.0, pixels: int = 112) -> None:
    """Save a map as a small grey PNG; what is not finite is black.

    Parameters
    ----------
    values
        (rows, columns).
    path
        File to write.
    height_per_width
        Extent along the rows' axis divided by that along the columns'.
    pixels
        Longer side of the picture.
    """
    tall = max(1, round(pixels * min(1.0, height_per_width)))
    wide = max(1, round(pixels * min(1.0, 1.0 / height_per_width)))
    rows = (np.arange(tall) + 0.5) * values.shape[0] / tall
    columns = (np.arange(wide) + 0.5) * values.shape[1] / wide
    picture = np.asarray(values, dtype=float)[np.ix_(rows.astype(int), columns.astype(int))]
    finite = picture[np.isfinite(picture)]
    # The darkest and brightest hundredth are not worth the contrast of the rest.
    low, high = np.percentile(finite, (1.0, 99.0)) if finite.size else (0.0, 1.0)
    shown = np.where(np.isfinite(picture), picture, low)
    imsave(path, shown, cmap="gray", vmin=low, vmax=high if high > low else low + 1.0)
