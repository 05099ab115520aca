"""A picture of what was checked before anything was fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.maps import draw_colour_bar, draw_map, draw_scale_bar, is_line, scan_extent

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICTS = {"pass": style.PALETTE[2], "warn": style.PALETTE[5], "fail": style.PALETTE[1]}


@style.styled
def plot_quality(
    checks: pd.DataFrame,
    mean_spectrum: pd.DataFrame,
    gain_by_bin: pd.DataFrame,
    maps: xr.Dataset | None = None,
    noise: Mapping[str, Mapping[str, Any]] | None = None,
    zero_loss: Mapping[str, float] | None = None,
    *,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return mean spectrum, variance over mean by bin width, counts of every position, and a dot for every check.

    Parameters
    ----------
    checks
        Table `quality` of `ingest`: check, verdict.
    mean_spectrum
        Columns energy_loss_mev, mean_counts.
    gain_by_bin
        Columns bin_channels, variance_over_mean, variance_over_mean_std; may be empty.
    maps
        Maps of `ingest` (`total_counts`), or None.
    noise
        Summary of `ingest`: gain, dark_level …, each with value, std and status.
    zero_loss
        position_mev and fwhm_mev of the mean spectrum's peak, or None.
    """
    noise = noise or {}
    figure = style.new_figure(width_mm, 66, layout="compressed")
    grid = figure.add_gridspec(2, 3, height_ratios=(1.0, 0.16))
    axes = [figure.add_subplot(grid[0, k]) for k in range(3)]
    _mean(axes[0], mean_spectrum, noise, zero_loss)
    _gain(axes[1], gain_by_bin, noise)
    _counts(axes[2], maps)
    _verdicts(figure.add_subplot(grid[1, :]), checks)
    style.panel_letters(figure, axes)
    return figure


def _mean(
    ax: Axes, table: pd.DataFrame, noise: Mapping[str, Mapping[str, Any]], zero_loss: Mapping[str, float] | None
) -> None:
    energies, counts = (table[name].to_numpy(dtype=float) for name in ("energy_loss_mev", "mean_counts"))
    ax.plot(energies, counts, color=style.PALETTE[0], linewidth=0.8)
    positive = counts[np.isfinite(counts) & (counts > 0.0)]
    if positive.size and positive.max() > 20.0 * positive.min():
        ax.set_yscale("symlog", linthresh=max(float(np.quantile(positive, 0.02)), 1e-3))
    dark = noise.get("dark_level") or {}
    if dark.get("value") is not None and dark.get("status") != "assumed":
        ax.axhline(float(dark["value"]), color=style.MUTED, linestyle="--", linewidth=0.7)
    if zero_loss:
        ax.axvline(zero_loss["position_mev"], color=style.MUTED, linewidth=0.5)
        words = f"zero-loss FWHM\n{zero_loss['fwhm_mev']:.3g} meV"
        ax.text(0.97, 0.95, words, transform=ax.transAxes, ha="right", va="top", fontsize=6.0)
    ax.set_title("mean spectrum")
    ax.set_xlabel("energy loss (meV)")
    ax.set_ylabel("detector counts")


def _gain(ax: Axes, table: pd.DataFrame, noise: Mapping[str, Mapping[str, Any]]) -> None:
    gain = noise.get("gain") or {}
    known = gain.get("value") is not None and gain.get("status") != "assumed"
    ax.set_title("variance / mean")
    ax.set_xlabel("channels per bin")
    if table.empty:
        style.empty_note(ax, "the gain could not be measured")
        return
    bins, value, std = (table[name].to_numpy(dtype=float) for name in table.columns)
    ax.errorbar(bins, value, std, fmt="o", color=style.PALETTE[0], markersize=3, linewidth=0.8)
    if known:
        middle, half = float(gain["value"]), float(gain.get("std") or 0.0)
        ax.axhspan(middle - half, middle + half, color=style.PALETTE[2], alpha=0.3, linewidth=0)
        ax.axhline(middle, color=style.PALETTE[2], linewidth=0.8)
        words = f"gain {middle:.3g}\n({gain['status']})"
        ax.text(0.04, 0.95, words, transform=ax.transAxes, va="top", fontsize=6.0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(bins, [f"{size:g}" for size in bins])
    ax.set_ylabel("counts per electron")


def _counts(ax: Axes, maps: xr.Dataset | None) -> None:
    ax.set_title("counts of every position")
    if maps is None or "total_counts" not in maps:
        style.empty_note(ax, "no map")
        return
    values = maps["total_counts"].values
    if is_line(maps):
        ax.plot(values.ravel(), color=style.PALETTE[0], linewidth=0.8, marker="." if values.size < 80 else "")
        ax.set_xlabel("position")
        return
    words = str(maps["status"].attrs.get("flag_meanings", "")).split()
    empty = maps["status"].values == words.index("empty") if "empty" in words else np.zeros(values.shape, bool)
    extent = scan_extent(maps)
    image = draw_map(ax, np.where(empty, np.nan, values), extent, cmap="gray")
    draw_scale_bar(ax, extent)
    draw_colour_bar(ax, image, "counts", extent)


def _verdicts(ax: Axes, checks: pd.DataFrame) -> None:
    ax.set_axis_off()
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(-1.0, 1.0)
    n = max(len(checks), 1)
    columns = -(-n // 2)
    for number, (check, verdict) in enumerate(zip(checks["check"], checks["verdict"], strict=True)):
        x, y = (number % columns) / columns, 0.5 - (number // columns)
        ax.plot([x + 0.008], [y], "o", color=VERDICTS.get(str(verdict), style.MUTED), markersize=4)
        ax.text(x + 0.018, y, str(check).replace("_", " "), va="center", fontsize=6.0)
