"""One picture of a whole result, for the head of the report and for those who look at nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.lattice import draw_haadf, draw_layers
from phonon_eels.figures.maps import (
    Extent,
    aspect,
    draw_colour_bar,
    draw_map,
    draw_profile,
    draw_scale_bar,
    energy_name,
    is_line,
    mode_limits,
    scan_extent,
    select_mode,
)
from phonon_eels.figures.paint import paint
from phonon_eels.figures.phase_panels import phase_panel, ranked_pairs
from phonon_eels.figures.spectrum_panels import spectrum_panels

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_overview(
    *,
    haadf: Any | None = None,
    extent: Extent | None = None,
    layers: xr.Dataset | None = None,
    mean_spectrum: pd.DataFrame | None = None,
    peaks: xr.Dataset | None = None,
    mode: str | None = None,
    phase_bins: pd.DataFrame | None = None,
    amplitudes: pd.DataFrame | None = None,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return HAADF with layers, mean spectrum with fit, energy map of one mode, and energy against phase.

    Parameters
    ----------
    extent
        Edges of the scan in nm; default: those of the maps.
    mode
        Mode of the map; default: the first. Parts that are None are left out and the others take their room.
    """
    maps = next((m for m in (layers, peaks) if m is not None and not is_line(m)), None)
    if extent is None and maps is not None:
        extent = scan_extent(maps)
    if extent is None and haadf is not None:
        shape = np.asarray(haadf).shape
        extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    parts: list[Callable[[Axes], None]] = []
    if haadf is not None and extent is not None and min(np.asarray(haadf).shape) > 1:
        parts.append(lambda ax: _image(ax, haadf, layers, extent))
    if mean_spectrum is not None:
        parts.append(lambda ax: _spectrum(ax, mean_spectrum))
    if peaks is not None and energy_name(peaks) is not None:
        parts.append(lambda ax: _energies(ax, peaks, mode))
    if phase_bins is not None and len(phase_bins):
        primary = ranked_pairs(amplitudes, phase_bins, 1)[0]
        parts.append(lambda ax: paint(ax, phase_panel(phase_bins, amplitudes, *primary)))
    columns = 1 if len(parts) < 2 else 2
    rows = max((len(parts) + 1) // 2, 1)
    tall = min(max(0.42 * width_mm * aspect(extent), 45), 62) if extent is not None else 52
    figure = style.new_figure(width_mm if columns == 2 else style.COLUMN_MM, rows * (tall + 13))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    if not parts:
        style.empty_note(axes[0], "there is no result to show")
        return figure
    for ax, part in zip(axes, parts, strict=False):
        part(ax)
    for ax in axes[len(parts) :]:
        ax.set_visible(False)
    style.panel_letters(figure, axes[: len(parts)])
    return figure


def _image(ax: Axes, haadf: Any, layers: xr.Dataset | None, extent: tuple[float, float, float, float]) -> None:
    draw_haadf(ax, np.asarray(haadf, dtype=float), extent, pale=layers is not None)
    if layers is not None and "layer" in layers:
        draw_layers(ax, layers, extent)
    ax.set_title("HAADF and layers" if layers is not None else "HAADF")


def _spectrum(ax: Axes, table: pd.DataFrame) -> None:
    paint(ax, spectrum_panels(table, view="loss", word="mean counts")[0])
    ax.set_title("mean loss spectrum and fit")


def _energies(ax: Axes, peaks: xr.Dataset, mode: str | None) -> None:
    name = energy_name(peaks) or "energy_mev"
    modes = [str(m) for m in peaks["mode"].values] if "mode" in peaks.dims else []
    chosen = mode if mode in modes else (modes[0] if modes else None)
    of_mode = select_mode(peaks, chosen)
    label = f"energy of {style.literal(chosen)}" if chosen else "energy"
    if is_line(peaks):
        draw_profile(ax, of_mode, name)
        ax.set(ylabel="energy (meV)", title=label)
        return
    extent = scan_extent(peaks)
    image = draw_map(ax, of_mode[name].values, extent, limits=mode_limits(of_mode, name))
    draw_scale_bar(ax, extent)
    draw_colour_bar(ax, image, "meV", extent)
    ax.set_title(label)
