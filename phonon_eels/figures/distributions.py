"""Distributions of maps: a histogram of one by layer of the crystal, and one against another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.marks import Mark, Panel, Points, Steps
from phonon_eels.figures.paint import plot_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40
MOST_POINTS = 20_000
EVERYWHERE = "all positions"

Groups = Mapping[str, np.ndarray]
"""Layer → (rows, columns) of bool: the positions that are drawn apart."""


def histogram_panel(values: np.ndarray, groups: Groups, label: str) -> Panel:
    """Describe how often the values of a map, (rows, columns), occur in each group; the ends are the 0.5 % quantiles."""
    low, high = style.robust_limits(values, 0.5, 99.5)
    edges = np.linspace(low, high, BINS + 1)
    marks: list[Mark] = []
    highest = 1.0
    for name, colour in group_colours(groups).items():
        counts = np.histogram(values[groups[name] & np.isfinite(values)], edges)[0].astype(float)
        highest = max(highest, float(counts.max()))
        marks.append(Steps(edges, counts, colour, label=style.subscripts(name)))
    limits = (low, high + 0.07 * (high - low))
    return Panel(tuple(marks), label, "positions", limits, (0.0, 1.5 * highest), legend_columns=5)


def scatter_panel(x: np.ndarray, y: np.ndarray, groups: Groups, x_label: str, y_label: str) -> Panel:
    """Describe one map against another, (rows, columns) both; of large scans every n-th position, as the title says."""
    limits = [style.robust_limits(values, 0.5, 99.5) for values in (x, y)]
    every = max(math.ceil(x.size / MOST_POINTS), 1)
    some = np.zeros(x.size, bool)
    some[::every] = True
    some = some.reshape(x.shape) & np.isfinite(x) & np.isfinite(y)
    marks = tuple(
        Points(x[mask & some], y[mask & some], colour, 1.8, opacity=0.55)
        for (name, colour), mask in zip(group_colours(groups).items(), groups.values(), strict=True)
    )
    room = [0.03 * (high - low) for low, high in limits]
    return Panel(
        marks, x_label, y_label, (limits[0][0] - room[0], limits[0][1] + 4.0 * room[0]),
        (limits[1][0] - room[1], limits[1][1] + room[1]), title=f"every {every}th position" if every > 1 else "",
    )  # fmt: skip


def group_colours(groups: Groups) -> dict[str, str]:
    """Return group → colour, those of the layers in all figures."""
    return {EVERYWHERE: style.PALETTE[0]} if set(groups) == {EVERYWHERE} else style.layer_colours(groups)


def plot_distributions(
    x: np.ndarray,
    y: np.ndarray,
    groups: Groups | None = None,
    *,
    labels: tuple[str, str],
    width_mm: float = style.COLUMN_MM,
) -> Figure:
    """Return the histogram of a map by layer above the scatter of that map against another.

    Parameters
    ----------
    x, y
        (rows, columns).
    groups
        Layer → (rows, columns) of bool; default: all positions together.
    labels
        What the maps are, with units.
    """
    groups = groups or {EVERYWHERE: np.ones(x.shape, bool)}
    panels = histogram_panel(x, groups, labels[0]), scatter_panel(x, y, groups, *labels)
    return plot_panels(panels, width_mm=width_mm)
