"""Width of the highest peak of a mean spectrum, for steps that run before the zero-loss peak is fitted."""

from __future__ import annotations

import numpy as np


def peak_width_channels(spectrum: np.ndarray) -> float:
    """Return the full width at half height of the highest peak in channels, from 1 to an eighth of the axis.

    Parameters
    ----------
    spectrum
        Counts, (channels,); the level of the lowest tenth of the channels is taken as base line.
    """
    values = np.nan_to_num(np.asarray(spectrum, dtype=np.float64))
    widest = max(values.size / 8.0, 1.0)
    smooth = np.convolve(values, [0.25, 0.5, 0.25], mode="same") if values.size > 50 else values
    base = float(np.quantile(values, 0.1))
    top = int(np.argmax(smooth))
    level = base + 0.5 * (float(values[max(top - 1, 0) : top + 2].max()) - base)
    width = 0.0
    for side in (values[: top + 1][::-1], values[top:]):
        below = np.flatnonzero(side < level)
        if not below.size:
            return widest
        first = int(below[0])
        inner = float(side[first - 1]) if first > 0 else level
        drop = inner - float(side[first])
        width += max(first - 1 + (inner - level) / drop, 0.0) if drop > 0 else first
    return float(np.clip(width, 1.0, widest))
