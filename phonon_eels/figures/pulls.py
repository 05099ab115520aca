"""Are error bars honest? Deviations from the truth in units of the standard deviations that were stated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REACH = 6.0
"""Pulls are drawn from -REACH to REACH; what lies beyond is counted at the edge."""


@style.styled
def plot_pulls(pulls: Mapping[str, xr.DataArray], *, width_mm: float = style.PAGE_MM) -> Figure:
    """Return histograms of (measured − true) / std, one panel per mode, with the normal curve they should follow.

    Parameters
    ----------
    pulls
        Words for the legend → pulls over (mode, row, column); NaN where there is no value.

    Returns
    -------
    Figure
        The share of pulls between -1 and 1 stands in each panel; it should be 68 %.
    """
    modes = [str(mode) for mode in next(iter(pulls.values())).mode.values]
    columns = min(3, len(modes))
    rows = -(-len(modes) // columns)
    figure = style.new_figure(width_mm, width_mm * (0.08 + 0.27 * rows))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, mode in zip(panels, modes, strict=False):
        _draw_panel(ax, {name: values.sel(mode=mode) for name, values in pulls.items()})
        ax.set_title(mode)
    for ax in panels[len(modes) :]:
        ax.set_axis_off()
    for ax in panels[len(modes) - columns : len(modes)]:
        ax.set_xlabel("(measured − true) / std")
    for ax in panels[::columns]:
        ax.set_ylabel("density")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure


def _draw_panel(ax: Axes, pulls: Mapping[str, xr.DataArray]) -> None:
    edges = np.linspace(-REACH, REACH, 49)
    colours = style.colours(pulls)
    for i, (name, values) in enumerate(pulls.items()):
        seen = values.values[np.isfinite(values.values)]
        colour = colours[name]
        heights, _ = np.histogram(np.clip(seen, -REACH, REACH), edges, density=bool(seen.size))
        ax.stairs(heights, edges, fill=True, alpha=0.45, color=colour, label=name)
        inside = f"{np.mean(np.abs(seen) < 1):.0%} inside ±1 std" if seen.size else "no value"
        ax.text(0.03, 0.95 - 0.11 * i, inside, color=colour, transform=ax.transAxes, va="top", fontsize="small")
    x = np.linspace(-REACH, REACH, 200)
    ax.plot(x, np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), color=style.INK, linewidth=0.8, label="normal (68 %)")
    ax.set_xlim(-REACH, REACH)
