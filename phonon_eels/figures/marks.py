"""What a figure shows, apart from who draws it: curves, points, bars, bands, lines, with their data, colours, words and limits.

One function per figure makes these descriptions. `paint` draws them with Matplotlib (report, notebooks, exports) and the viewer with
pyqtgraph, which is fast enough to follow a mouse. Neither decides anything that a reader could see as a different result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from phonon_eels.figures.style import INK, MUTED

Dash = Literal["-", "--", ":"]
Limits = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Line:
    """A curve through (x, y), both (n,); gaps at NaN. With `fill` (opacity, 0 to 1) the space down to zero is shaded."""

    x: np.ndarray
    y: np.ndarray
    colour: str
    width_pt: float = 1.0
    dash: Dash = "-"
    label: str = ""
    fill: float = 0.0


@dataclass(frozen=True, eq=False)
class Points:
    """Points at (x, y), both (n,), with bars of ± `std` (n,) where it is known and finite."""

    x: np.ndarray
    y: np.ndarray
    colour: str
    size_pt: float = 3.0
    std: np.ndarray | None = None
    label: str = ""
    opacity: float = 1.0


@dataclass(frozen=True, eq=False)
class Steps:
    """`heights` (n,) constant between `edges` (n + 1,); with `fill` (opacity) shaded down to zero."""

    edges: np.ndarray
    heights: np.ndarray
    colour: str
    width_pt: float = 1.0
    label: str = ""
    fill: float = 0.0


@dataclass(frozen=True, eq=False)
class Band:
    """The space between `low` and `high`, both (n,), along x (n,)."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    colour: str
    opacity: float = 0.2


@dataclass(frozen=True, eq=False)
class Rule:
    """A straight line over the whole panel, at one value of `axis`."""

    at: float
    axis: Literal["x", "y"]
    colour: str = MUTED
    width_pt: float = 0.5
    dash: Dash = "-"
    label: str = ""


@dataclass(frozen=True, eq=False)
class Span:
    """A stripe over the whole panel, between two values of `axis`, behind all else."""

    low: float
    high: float
    axis: Literal["x", "y"]
    colour: str
    opacity: float = 1.0


Mark = Line | Points | Steps | Band | Rule | Span


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    marks
        What is drawn, the lowest first.
    x_label, y_label
        Words with units.
    x_limits, y_limits
        Ends of the axes, in the units of the data also where `log_y`.
    log_y
        Whether y is logarithmic; values that are not above zero are left out.
    x_ticks
        (value, word) where the ticks are not to be round numbers.
    title, title_colour
        Words above, in one or two lines.
    legend_columns
        Columns of the legend of the marks that have labels.
    """

    marks: tuple[Mark, ...]
    x_label: str
    y_label: str
    x_limits: Limits
    y_limits: Limits
    log_y: bool = False
    x_ticks: tuple[tuple[float, str], ...] = ()
    title: str = ""
    title_colour: str = INK
    legend_columns: int = 1


def label_of(mark: Mark) -> str:
    """Return the words of a mark in the legend, empty for none."""
    return "" if isinstance(mark, Band | Span) else mark.label


def padded(values: np.ndarray, share: float) -> Limits:
    """Return the range of the finite values, widened by a share of it at both ends."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    room = share * (high - low) or 0.01 * abs(high) or 1.0
    return low - room, high + room


def edges_of(centres: np.ndarray) -> np.ndarray:
    """Return the edges of equal channels from their centres, one more than those."""
    if centres.size < 2:
        return np.array([0.0, 1.0]) if centres.size == 0 else np.array([centres[0] - 0.5, centres[0] + 0.5])
    step = centres[1] - centres[0]
    return np.append(centres - 0.5 * step, centres[-1] + 0.5 * step)
