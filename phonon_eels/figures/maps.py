"""Maps over the scan: modes, zero-loss peak, status; profiles where the scan is a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap, Normalize, PowerNorm
from matplotlib.font_manager import FontProperties
from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, TextArea, VPacker
from matplotlib.patches import Rectangle

from phonon_eels.figures import style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Extent = tuple[float, float, float, float]
"""(left, right, bottom, top) in nm, rows counted downwards as in the image."""

QUANTITY_TITLES = {
    "energy_mev": "energy",
    "apparent_energy_mev": "apparent energy",
    "binned_energy_mev": "energy of bins",
    "bin_positions": "size of bin",
    "fwhm_mev": "FWHM",
    "area_e": "area",
    "energy_mev_crb": "bound of energy",
    "apparent_energy_mev_crb": "bound of apparent energy",
    "area_e_crb": "bound of area",
    "temperature_k": "temperature",
    "temperature_pull_to_stage": "deviations from the stage's",
    "zlp_center_mev": "centre",
    "zlp_fwhm_mev": "FWHM",
    "zlp_tail_loss": "tail exponent, loss side",
    "zlp_tail_gain": "tail exponent, gain side",
}
COLOUR_MAPS = {"energy": "viridis", "fwhm": "plasma", "area": "magma", "std": "cividis", "centre": "PuOr"}


def scan_extent(dataset: xr.Dataset | xr.DataArray) -> Extent:
    """Return the edges of the scan in nm from its `row` and `column` coordinates (positions where there are none)."""
    edges = {}
    steps = {name: _step(dataset, name) for name in ("row", "column")}
    for name, other in (("row", "column"), ("column", "row")):
        n = dataset.sizes[name]
        centres = np.asarray(dataset[name].values, dtype=float) if name in dataset.coords else np.arange(n, dtype=float)
        step = steps[name] or steps[other] or 1.0
        edges[name] = (float(centres[0]) - step / 2, float(centres[-1]) + step / 2)
    return edges["column"][0], edges["column"][1], edges["row"][1], edges["row"][0]


def _step(dataset: xr.Dataset | xr.DataArray, name: str) -> float:
    if dataset.sizes[name] < 2 or name not in dataset.coords:
        return 0.0
    values = np.asarray(dataset[name].values, dtype=float)
    return float(abs(values[-1] - values[0]) / (values.size - 1))


def is_line(dataset: xr.Dataset | xr.DataArray) -> bool:
    """Say whether the scan is a single row or a single column."""
    return min(dataset.sizes["row"], dataset.sizes["column"]) == 1


def aspect(extent: Extent) -> float:
    """Return height over width of the scan."""
    return abs(extent[3] - extent[2]) / max(abs(extent[1] - extent[0]), 1e-12)


def draw_map(
    ax: Axes,
    values: Any,
    extent: Extent,
    *,
    cmap: Any = "viridis",
    limits: tuple[float, float] | None = None,
    gamma: float = 1.0,
) -> AxesImage:
    """Draw one map with the true proportions of the scan; positions without a value are grey and hatched.

    `gamma` below 1 lifts what is dark.
    """
    values = np.ma.masked_invalid(np.asarray(values, dtype=float))
    low, high = limits if limits is not None else style.robust_limits(values.filled(np.nan))
    if np.any(values.mask):
        ax.add_patch(
            Rectangle(
                (extent[0], min(extent[2:])),
                extent[1] - extent[0],
                abs(extent[3] - extent[2]),
                facecolor="#ececec",
                edgecolor="#b0b0b0",
                hatch="//////",
                linewidth=0,
                zorder=-1,
            )
        )
    norm = PowerNorm(gamma, low, high) if gamma != 1.0 else Normalize(low, high)
    image = ax.imshow(values, extent=extent, origin="upper", cmap=cmap, norm=norm, aspect="equal")
    ax.set_xticks([])
    ax.set_yticks([])
    return image


def draw_scale_bar(ax: Axes, extent: Extent) -> None:
    """Draw a bar of a round length, about a quarter of the width, with its length in nm (or pm, µm) on a dark plate."""
    length = nice_length(0.3 * (extent[1] - extent[0]))
    bar = AuxTransformBox(ax.transData)
    bar.add_artist(Rectangle((0.0, 0.0), length, 0.0, edgecolor="white", facecolor="white", linewidth=1.6))
    text = TextArea(length_text(length), textprops={"color": "white", "fontsize": 6.0})
    plate = AnchoredOffsetbox(
        loc="lower left",
        child=VPacker(children=[text, bar], align="center", pad=0, sep=1.5),
        pad=0.25,
        borderpad=0.3,
        frameon=True,
        prop=FontProperties(size=6.0),  # pads count in its size
    )
    plate.patch.set(facecolor="black", alpha=0.6, linewidth=0)
    plate.set_zorder(6)
    ax.add_artist(plate)


def nice_length(wanted: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not longer than `wanted`."""
    if not (math.isfinite(wanted) and wanted > 0):
        return 1.0
    power = 10.0 ** math.floor(math.log10(wanted) + 1e-9)
    return max(factor * power for factor in (1.0, 2.0, 5.0) if factor * power <= wanted * (1 + 1e-9))


def length_text(length_nm: float) -> str:
    """Return a length as it stands beside a scale bar."""
    if length_nm < 0.1:
        return f"{length_nm * 1e3:g} pm"
    return f"{length_nm:g} nm" if length_nm < 1000 else f"{length_nm * 1e-3:g} µm"


def draw_colour_bar(ax: Axes, image: AxesImage, unit: str, extent: Extent | None = None) -> Any:
    """Put a colour bar beside a map as high as the map (below it where the map is flat), with its unit."""
    flat = extent is not None and aspect(extent) < 0.3
    place = (
        ax.inset_axes((0.0, -0.16 / max(aspect(extent) / 0.3, 0.3), 1.0, 0.08))
        if flat and extent
        else ax.inset_axes((1.03, 0.0, 0.05, 1.0))
    )
    bar = ax.figure.colorbar(image, cax=place, orientation="horizontal" if flat else "vertical", extend="neither")
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(length=1.8, pad=1.5, labelsize=6.5)
    bar.ax.locator_params(nbins=4)
    bar.ax.ticklabel_format(useOffset=False) if not isinstance(image.cmap, ListedColormap) else None
    label = style.unit_text(unit)
    if flat:
        bar.set_label(label)
    else:
        bar.ax.set_title(label, fontsize=6.5, pad=2.5)
    return bar


@style.styled
def plot_map(
    dataset: xr.Dataset, name: str, *, title: str = "", cmap: str = "viridis", width_mm: float = style.COLUMN_MM
) -> Figure:
    """Return one map of `dataset` (or its profile, if the scan is a line) with scale bar and colour bar."""
    extent = scan_extent(dataset)
    figure = style.new_figure(width_mm, _clip(width_mm * 0.8 * aspect(extent), 25, 160) + 10, layout="compressed")
    ax = figure.add_subplot()
    if is_line(dataset):
        draw_profile(ax, dataset, name)
    else:
        image = draw_map(ax, dataset[name].values, extent, cmap=cmap)
        draw_scale_bar(ax, extent)
        draw_colour_bar(ax, image, dataset[name].attrs.get("units", ""), extent)
    ax.set_title(style.literal(title or name))
    return figure


def draw_profile(ax: Axes, dataset: xr.Dataset, name: str, colour: str = style.PALETTE[0], label: str = "") -> None:
    """Draw a quantity with its standard deviation along a line scan."""
    along = "column" if dataset.sizes["column"] >= dataset.sizes["row"] else "row"
    positions = np.asarray(
        dataset[along].values if along in dataset.coords else np.arange(dataset.sizes[along]), dtype=float
    )
    values = np.asarray(dataset[name].values, dtype=float).ravel()
    std = np.asarray(dataset[f"{name}_std"].values, dtype=float).ravel() if f"{name}_std" in dataset else None
    ax.errorbar(positions, values, yerr=std, fmt="o", color=colour, markersize=2, elinewidth=0.6, label=label)
    _robust_y(ax, values, std)
    ax.set_xlabel(f"position along the scan ({'nm' if along in dataset.coords else 'positions'})")


def _robust_y(ax: Axes, values: np.ndarray, std: np.ndarray | None) -> None:
    """Keep a few wild positions from hiding all others."""
    low, high = style.robust_limits(values, 1, 99)
    reach = 0.35 * (high - low) + (2 * float(np.nanmedian(std)) if std is not None and np.isfinite(std).any() else 0.0)
    ax.set_ylim(low - reach, high + reach)


def select_mode(maps: xr.Dataset, mode: str | None) -> xr.Dataset:
    """Return the maps of one mode, or the maps as they are where there is no such dimension."""
    return maps.sel(mode=mode, drop=True) if mode is not None and "mode" in maps.dims else maps


def energy_name(maps: xr.Dataset) -> str | None:
    """Return which energy the maps hold: the intrinsic one, else the apparent one of the classic route."""
    return next((name for name in ("energy_mev", "apparent_energy_mev") if name in maps), None)


@style.styled
def plot_mode_maps(
    maps: xr.Dataset,
    quantities: Sequence[str] = ("energy_mev", "area_e"),
    *,
    labels: Mapping[str, str] | None = None,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return a grid of maps: one row per mode; for each quantity its map and, beside it, the map of its std.

    Parameters
    ----------
    maps
        Result of `fit_peaks`: variables over (mode, row, column), ``<name>_std`` beside each.
    quantities
        Variables to show; those not there are left out.
    labels
        Mode → words under its name.
    """
    present = [name for name in quantities if name in maps]
    modes = [str(mode) for mode in maps["mode"].values] if "mode" in maps.dims else [None]
    if is_line(maps):
        return _mode_profiles(maps, present, modes, width_mm)
    columns = [column for name in present for column in (name, f"{name}_std") if column in maps]
    extent = scan_extent(maps)
    panel_mm = width_mm / max(len(columns), 1) * 0.72
    each_mm = _clip(panel_mm * aspect(extent), 8, 120)
    height_mm = len(modes) * (each_mm + 5.5) + 5
    figure = style.new_figure(width_mm, max(height_mm, 30), layout="compressed")
    axes = figure.subplots(len(modes), max(len(columns), 1), squeeze=False)
    for line, mode in zip(axes, modes, strict=True):
        of_mode = select_mode(maps, mode)
        for ax, name in zip(line, columns, strict=True):
            _mode_panel(ax, of_mode, name, extent)
        line[0].set_ylabel(_row_label(mode, labels, each_mm), labelpad=3)
        draw_scale_bar(line[0], extent)
    for ax, name in zip(axes[0], columns, strict=True):
        # On a line of their own above the units of the colour bars.
        ax.set_title(_column_title(name), pad=5)
    return figure


def _row_label(mode: str | None, labels: Mapping[str, str] | None, room_mm: float) -> str:
    """Return the mode's name, and its words under it where a letter's 1.3 mm let them fit beside the map."""
    if mode is None:
        return ""
    text = (labels or {}).get(mode, "")
    return style.literal(mode) + (f"\n{style.literal(text)}" if text and 1.3 * len(text) < room_mm else "")


def _column_title(name: str) -> str:
    base = name.removesuffix("_std")
    title = QUANTITY_TITLES.get(base, base)
    return f"std of {title}" if name.endswith("_std") else title


def _mode_panel(ax: Axes, maps: xr.Dataset, name: str, extent: Extent) -> None:
    values = maps[name].values
    if not np.isfinite(values).any():
        image = draw_map(ax, values, extent)
        ax.text(0.5, 0.5, "no value", transform=ax.transAxes, ha="center", va="center", fontsize=6.5)
        return
    kind = "std" if name.endswith(("_std", "_crb")) else next((key for key in COLOUR_MAPS if key in name), "energy")
    limits = style.std_limits(values) if kind == "std" else mode_limits(maps, name)
    image = draw_map(ax, values, extent, cmap=COLOUR_MAPS[kind], limits=limits)
    draw_colour_bar(ax, image, maps[name].attrs.get("units", ""), extent)


def mode_limits(maps: xr.Dataset, name: str) -> tuple[float, float]:
    """Return limits of the well-determined half, lest positions without signal use up the colours of those with it."""
    values = np.asarray(maps[name].values, dtype=float)
    if "energy" in name and f"{name}_std" in maps:
        std = np.asarray(maps[f"{name}_std"].values, dtype=float)
        if np.isfinite(std).any():
            values = np.where(std <= np.nanmedian(std), values, np.nan)
    return style.robust_limits(values)


def _mode_profiles(maps: xr.Dataset, names: Sequence[str], modes: Sequence[str | None], width_mm: float) -> Figure:
    figure = style.new_figure(width_mm, max(28 * len(modes), 32) + 6)
    axes = figure.subplots(len(modes), max(len(names), 1), squeeze=False, sharex=True)
    for line, mode in zip(axes, modes, strict=True):
        of_mode = select_mode(maps, mode)
        for ax, name, colour in zip(line, names, style.PALETTE, strict=False):
            draw_profile(ax, of_mode, name, colour)
            unit = style.unit_text(maps[name].attrs.get("units", ""))
            prefix = f"{style.literal(mode)}: " if mode else ""
            ax.set_ylabel(f"{prefix}{QUANTITY_TITLES.get(name, name)}" + (f"\n({unit})" if unit else ""))
            if mode != modes[-1]:
                ax.set_xlabel("")
    return figure


def status_counts(maps: xr.Dataset) -> list[tuple[str, int]]:
    """Return (meaning, number of positions) for every status that occurs or is declared, in order of its flag."""
    return flag_counts(maps["status"]) if "status" in maps else []


def flag_counts(array: xr.DataArray) -> list[tuple[str, int]]:
    """Return (meaning, number of entries) for every flag of a map that occurs or is declared, in order."""
    values = np.asarray(array.values).astype(int).ravel()
    meanings = _flag_names(array.attrs)
    flags = sorted({*meanings, *(int(v) for v in np.unique(values))})
    return [(meanings.get(flag, f"status {flag}"), int(np.count_nonzero(values == flag))) for flag in flags]


def _flag_names(attributes: Mapping[str, Any]) -> dict[int, str]:
    flags = np.atleast_1d(np.asarray(attributes.get("flag_values", []), dtype=int))
    meanings = attributes.get("flag_meanings", "")
    # NetCDF keeps no lists of words: they come back as JSON.
    if isinstance(meanings, str):
        words = [str(word) for word in json.loads(meanings)] if meanings.startswith("[") else meanings.split()
    else:
        words = [str(word) for word in meanings]
    return {int(flag): word.replace("_", " ") for flag, word in zip(flags, words, strict=False)}


def flag_names(array: xr.DataArray) -> dict[int, str]:
    """Return flag → meaning of a map of labels."""
    return _flag_names(array.attrs)


@style.styled
def plot_status(maps: xr.Dataset, *, title: str = "", width_mm: float = style.PAGE_MM * 0.75) -> Figure:
    """Return the map of statuses with the number of positions of each beside it."""
    counts = status_counts(maps)
    names = _flag_names(maps["status"].attrs)
    values = np.asarray(maps["status"].values).astype(int)
    flags = sorted({*names, *(int(v) for v in np.unique(values))})
    # Grey for the status that is fine (the first), colours for all that need a look.
    shades = ["#cfd8dc", *[style.PALETTE[1:][i % (len(style.PALETTE) - 1)] for i in range(len(flags) - 1)]]
    extent = scan_extent(maps)
    height_mm = _clip(width_mm * 0.42 * aspect(extent), 22, 130) + 12
    figure = style.new_figure(width_mm, max(height_mm, 5 * len(flags) + 14))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 0.8))
    index = np.searchsorted(flags, values).astype(float)
    if is_line(maps):
        left.step(np.arange(index.size), index.ravel(), where="mid", color=style.INK)
        left.set(xlabel="position along the scan", yticks=range(len(flags)), yticklabels=[name for name, _ in counts])
    else:
        draw_map(left, index, extent, cmap=ListedColormap(shades), limits=(-0.5, len(flags) - 0.5))
        draw_scale_bar(left, extent)
    heights = np.arange(len(flags))
    numbers = [number for _, number in counts]
    right.barh(heights, numbers, color=shades, edgecolor=style.INK, linewidth=0.4, height=0.6)
    for height, number in zip(heights, numbers, strict=True):
        right.text(number, height, f" {number} ({percent(number, values.size)})", va="center", fontsize=6.5)
    right.set(yticks=heights, yticklabels=[style.literal(name) for name, _ in counts], xlabel="number of positions")
    right.set_xlim(0, 1.45 * max([*numbers, 1]))
    right.invert_yaxis()
    right.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(style.literal(title))
    return figure


def percent(number: int, total: int) -> str:
    """Return a share as words that never round some to none or most to all."""
    share = 100 * number / max(total, 1)
    if 0 < share < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if 99.9 < share < 100 else f"{share:.3g} %" if share >= 1 else f"{share:.2g} %"


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
