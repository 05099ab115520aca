"""Maps of the zero-loss peak, and how it drifts through the scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.maps import (
    QUANTITY_TITLES,
    aspect,
    draw_colour_bar,
    draw_map,
    draw_profile,
    draw_scale_bar,
    is_line,
    scan_extent,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_zero_loss(maps: xr.Dataset, *, width_mm: float = style.PAGE_MM) -> Figure:
    """Return maps of the centre and the FWHM of the zero-loss peak with their std, and the drift from row to row.

    Parameters
    ----------
    maps
        Result of `align_zlp`: `zlp_center_mev`, `zlp_fwhm_mev` and their ``_std``; missing ones are left out.
    """
    names = [name for name in ("zlp_center_mev", "zlp_fwhm_mev") if name in maps]
    if is_line(maps):
        figure = style.new_figure(width_mm, 50)
        for ax, name, colour in zip(
            figure.subplots(1, max(len(names), 1), squeeze=False)[0], names, style.PALETTE, strict=False
        ):
            draw_profile(ax, maps, name, colour)
            ax.set_ylabel(f"zero-loss {QUANTITY_TITLES[name]} (meV)")
        return figure
    extent = scan_extent(maps)
    map_mm = min(max(width_mm * 0.25 * aspect(extent), 12), 90)
    figure = style.new_figure(width_mm, max(len(names), 1) * (map_mm + 9) + 4)
    axes = figure.subplots(max(len(names), 1), 3, squeeze=False, width_ratios=(1, 1, 0.9))
    for line, name in zip(axes, names, strict=True):
        values, title = maps[name].values, QUANTITY_TITLES[name]
        limits = style.symmetric_limits(values, float(np.nanmedian(values))) if name == "zlp_center_mev" else None
        shade = "PuOr" if name == "zlp_center_mev" else "plasma"
        draw_colour_bar(line[0], draw_map(line[0], values, extent, cmap=shade, limits=limits), "meV", extent)
        line[0].set_title(f"zero-loss {title}")
        if f"{name}_std" in maps:
            std = maps[f"{name}_std"].values
            image = draw_map(line[1], std, extent, cmap="cividis", limits=style.std_limits(std))
            draw_colour_bar(line[1], image, "meV", extent)
            line[1].set_title(f"std of {title}")
        else:
            style.empty_note(line[1], "no std was stored")
        draw_scale_bar(line[0], extent)
        _drift(line[2], maps, name)
    return figure


def _drift(ax: Axes, maps: xr.Dataset, name: str) -> None:
    """Row by row is the order of the scan, so a drift in time shows along the rows."""
    values = np.asarray(maps[name].values, dtype=float)
    rows = np.asarray(maps["row"].values if "row" in maps.coords else np.arange(values.shape[0]), dtype=float)
    some = np.isfinite(values).any(axis=1)
    middle, low, high = (np.nanpercentile(values[some], level, axis=1) for level in (50, 16, 84))
    ax.fill_between(rows[some], low, high, color=style.PALETTE[4], alpha=0.4, linewidth=0, label="16–84 %")
    ax.plot(rows[some], middle, color=style.PALETTE[0], label="median")
    ax.set(xlabel="row (nm)" if "row" in maps.coords else "row", ylabel=f"{QUANTITY_TITLES[name]} (meV)")
    ax.ticklabel_format(useOffset=False)
    ax.legend(loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=2, fontsize=5.5, columnspacing=0.8)
