"""Draws panels with Matplotlib: into given axes, or as a figure of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.marks import Band, Line, Mark, Panel, Points, Rule, Span, Steps, label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def paint(ax: Axes, panel: Panel, *, legend: bool = True) -> None:
    """Draw a panel into axes."""
    if panel.log_y:
        ax.set_yscale("log")
    for mark in panel.marks:
        _draw(ax, mark, panel.log_y)
    ax.set(xlim=panel.x_limits, ylim=panel.y_limits, xlabel=panel.x_label, ylabel=panel.y_label)
    if not panel.log_y:
        ax.ticklabel_format(axis="y", useOffset=False)
    if panel.x_ticks:
        ax.set_xticks([at for at, _ in panel.x_ticks], [word for _, word in panel.x_ticks])
    if panel.title:
        ax.set_title(style.literal(panel.title), fontsize=6, color=panel.title_colour)
    if legend and any(label_of(mark) for mark in panel.marks):
        ax.legend(loc="upper right", ncols=panel.legend_columns, columnspacing=0.8, fontsize=6.0)


def _draw(ax: Axes, mark: Mark, log: bool) -> None:
    label = style.literal(label_of(mark)) or None
    match mark:
        case Line():
            y = np.where(mark.y > 0, mark.y, np.nan) if log else mark.y
            if mark.fill:
                ax.fill_between(mark.x, 0, y, color=mark.colour, alpha=mark.fill, linewidth=0)
            ax.plot(mark.x, y, mark.dash, color=mark.colour, linewidth=mark.width_pt, label=label)
        case Points():
            y = np.where(mark.y > 0, mark.y, np.nan) if log else mark.y
            if mark.std is not None:
                reach = np.where(np.isfinite(mark.std), mark.std, 0.0)
                ax.errorbar(
                    mark.x, y, yerr=reach, fmt="none", ecolor=mark.colour, elinewidth=0.6, alpha=mark.opacity, zorder=1.5
                )  # fmt: skip
            ax.plot(
                mark.x, y, "o", color=mark.colour, markersize=mark.size_pt, markeredgewidth=0, alpha=mark.opacity,
                label=label, zorder=2.0 if len(mark.x) < 50 else 1.6,
            )  # fmt: skip
        case Steps():
            heights = np.nan_to_num(mark.heights)
            if mark.fill:
                ax.stairs(heights, mark.edges, fill=True, color=mark.colour, alpha=mark.fill, linewidth=0)
            ax.stairs(heights, mark.edges, color=mark.colour, linewidth=mark.width_pt, label=label)
        case Band():
            ax.fill_between(mark.x, mark.low, mark.high, color=mark.colour, alpha=mark.opacity, linewidth=0)
        case Rule():
            rule = ax.axvline if mark.axis == "x" else ax.axhline
            rule(mark.at, color=mark.colour, linewidth=mark.width_pt, linestyle=mark.dash, label=label)
        case Span():
            span = ax.axvspan if mark.axis == "x" else ax.axhspan
            span(mark.low, mark.high, color=mark.colour, alpha=mark.opacity, linewidth=0, zorder=0)


@style.styled
def plot_panels(panels: Sequence[Panel], *, width_mm: float = style.COLUMN_MM, title: str = "") -> Figure:
    """Return panels above each other as a figure; panels of equal limits along x share that axis.

    Parameters
    ----------
    panels
        As one of the functions that describe figures gives them (`spectrum_panels`, `phase_panel`, …).
    """
    heights = [1.0 if panel.y_label.startswith("residual") else 3.0 for panel in panels]
    figure = style.new_figure(width_mm, 12.0 + 0.18 * width_mm * sum(heights) / 3.0 * 2.6)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for index, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        paint(ax, panel)
        following = panels[index + 1] if index + 1 < len(panels) else None
        if following is not None and (following.x_label, following.x_limits) == (panel.x_label, panel.x_limits):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    if title:
        figure.suptitle(style.literal(title))
    return figure
