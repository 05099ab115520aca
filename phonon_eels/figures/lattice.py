"""The dark-field image with what was found of the crystal drawn over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Patch

from phonon_eels.figures import style
from phonon_eels.figures.maps import Extent, aspect, draw_map, draw_scale_bar, flag_names, is_line, scan_extent

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_lattice(
    haadf: Any,
    layers: xr.Dataset | None = None,
    superstructure: xr.Dataset | None = None,
    *,
    extent: Extent | None = None,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return the HAADF image bare, with the layers, and with the phase of the superstructure.

    Parameters
    ----------
    haadf
        (rows, columns).
    layers
        Maps of `assign_layers` (`layer`), or None.
    superstructure
        Maps of `map_superstructure` (`phase_rad`, `lateral_phase_rad`), or None.
    extent
        Edges of the scan in nm; default: those of the maps.
    """
    haadf = np.asarray(haadf, dtype=float)
    extent = extent or _extent(haadf, layers, superstructure)
    panels = 1 + (layers is not None and "layer" in layers) + (superstructure is not None)
    flat = aspect(extent) < 0.45
    rows, columns = (panels, 1) if flat else (1, panels)
    each_mm = width_mm / columns - 6
    figure = style.new_figure(width_mm, rows * (min(each_mm * aspect(extent), 150) + 20) + 2, layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    draw_haadf(axes[0], haadf, extent)
    axes[0].set_title("HAADF")
    remaining = iter(axes[1:])
    if layers is not None and "layer" in layers:
        ax = next(remaining)
        draw_haadf(ax, haadf, extent, bar=False, pale=True)
        draw_layers(ax, layers, extent)
        ax.set_title("layers")
    if superstructure is not None:
        ax = next(remaining)
        draw_haadf(ax, haadf, extent, bar=False, pale=True)
        draw_phase(ax, superstructure, extent)
        ax.set_title("superstructure phase")
    style.panel_letters(figure, axes)
    return figure


def _extent(haadf: np.ndarray, *candidates: xr.Dataset | None) -> Extent:
    for maps in candidates:
        if maps is not None and not is_line(maps):
            return scan_extent(maps)
    return (-0.5, haadf.shape[1] - 0.5, haadf.shape[0] - 0.5, -0.5)


def draw_haadf(ax: Axes, haadf: np.ndarray, extent: Extent, bar: bool = True, pale: bool = False) -> None:
    """Draw the dark-field image with a scale bar, brightness as its square root so that light columns show too.

    `pale` leaves black unused for colours laid over it.
    """
    low, high = style.robust_limits(haadf, 0.5, 99.5)
    draw_map(ax, haadf, extent, cmap="gray", limits=(low - 0.6 * (high - low) if pale else low, high), gamma=0.5)
    if bar:
        draw_scale_bar(ax, extent)


def draw_layers(ax: Axes, layers: xr.Dataset, extent: Extent, legend: bool = True) -> None:
    """Lay translucent colours and boundaries of the layers over an image."""
    labels = np.asarray(layers["layer"].values, dtype=float)
    names = flag_names(layers["layer"])
    flags = sorted(int(v) for v in np.unique(labels[np.isfinite(labels)]))
    shades = style.layer_colours(names.values())
    chosen = [shades.get(names.get(flag, ""), style.FAILED) for flag in flags]
    index = np.where(np.isfinite(labels), np.searchsorted(flags, np.nan_to_num(labels)), 0).astype(float)
    index[~np.isfinite(labels)] = np.nan
    ax.imshow(
        np.ma.masked_invalid(index),
        extent=extent,
        cmap=ListedColormap(chosen or [style.FAILED]),
        norm=Normalize(-0.5, max(len(flags), 1) - 0.5),
        alpha=0.5,
        aspect="equal",
    )
    if legend:
        handles = [
            Patch(facecolor=colour, alpha=0.7, label=style.layer_text(names.get(flag, f"label {flag}")))
            for flag, colour in zip(flags, chosen, strict=True)
        ]
        ax.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=min(len(handles), 3 if len(handles) > 4 else 4),
            handlelength=1.0,
            columnspacing=0.9,
        )


def draw_phase(ax: Axes, superstructure: xr.Dataset, extent: Extent, colour_bar: bool = True) -> None:
    """Lay the phase over an image in cyclic colours, with lines along the crests and troughs of the wave.

    The colours count the phase along each plane's outward normal, so neighbouring half-slabs differ by π; the lines
    follow the undivided wave of one slab, which is why they run straight through the layers.
    """
    if "phase_rad" in superstructure:
        phase = np.ma.masked_invalid(wrap(superstructure["phase_rad"].values))
        image = ax.imshow(phase, extent=extent, cmap="twilight", vmin=-np.pi, vmax=np.pi, alpha=0.5, aspect="equal")
        if colour_bar:
            height = 0.045 / aspect(extent)  # in heights of the axes, the same thickness whatever the shape of the scan
            place = ax.inset_axes((0.1, -1.8 * height, 0.8, height))
            bar = ax.figure.colorbar(image, cax=place, orientation="horizontal")
            bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0 (crest)", "π"])
            bar.set_label("phase along the outward normal (rad)", labelpad=1)
            bar.outline.set_linewidth(0.4)
    if "lateral_phase_rad" in superstructure:
        draw_wave_fronts(ax, superstructure["lateral_phase_rad"].values, extent)


def draw_wave_fronts(ax: Axes, phase_rad: Any, extent: Extent) -> None:
    """Draw crests (solid) and troughs (dashed) of a wave where its phase is 0 and π."""
    phase = np.asarray(phase_rad, dtype=float)
    if min(phase.shape) < 2 or not np.isfinite(phase).any():
        return
    x = _centres(extent[0], extent[1], phase.shape[1])
    y = _centres(extent[3], extent[2], phase.shape[0])
    for sign, line, colour in ((1.0, "solid", style.INK), (-1.0, "dashed", style.INK)):
        # sin changes sign at crests and at troughs; keep only those where the cosine has the wanted sign.
        wave = np.where(sign * np.cos(phase) > 0, np.sin(phase), np.nan)
        finite = wave[np.isfinite(wave)]
        if finite.size and finite.min() < 0 < finite.max():
            ax.contour(x, y, np.ma.masked_invalid(wave), levels=[0.0], colors=colour, linestyles=line, linewidths=0.8)


def _centres(first_edge: float, last_edge: float, n: int) -> np.ndarray:
    step = (last_edge - first_edge) / n
    return first_edge + step * (np.arange(n) + 0.5)


def wrap(phase_rad: Any) -> np.ndarray:
    """Return phases wrapped into (−π, π]."""
    phase = np.asarray(phase_rad, dtype=float)
    return np.asarray(np.pi - np.mod(np.pi - phase, 2 * np.pi))


def layer_legend(layers: xr.Dataset) -> Mapping[str, str]:
    """Return layer → colour as the figures use it."""
    return style.layer_colours(flag_names(layers["layer"]).values())
