"""A picture for every check at ingest, with its verdict and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.maps import draw_map, is_line, scan_extent
from phonon_eels.figures.quality import VERDICTS

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
ROW_MM = 38.0
LABELS = {
    "negative": ("detector counts", "channels"),
    "whole_numbers": ("fraction of a count", "channels"),
    "clipping": ("rank in its spectrum", "counts"),
    "constant": ("rank in its spectrum", "counts"),
    "axis_order": ("position", "highest at (meV)"),
    "read_noise_e": ("mean counts", "variance"),
    "fixed_pattern": ("energy loss (meV)", "rest (counts)"),
    "frame_drift": ("frame", "zero-loss peak (meV)"),
}
BARS = ("negative", "whole_numbers")
DOTS = ("axis_order", "read_noise_e", "frame_drift", "clipping", "constant")
MAPS = {"finite": "not_finite", "empty": "empty", "saturation": "saturated"}


@style.styled
def plot_checks(
    checks: pd.DataFrame,
    pictures: pd.DataFrame,
    mean_spectrum: pd.DataFrame,
    gain_by_bin: pd.DataFrame,
    maps: xr.Dataset | None = None,
    noise: Mapping[str, Mapping[str, Any]] | None = None,
    zero_loss: Mapping[str, float] | None = None,
    *,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return one panel for every check, its frame and title in the colour of the verdict.

    Parameters
    ----------
    checks
        Table `quality` of `ingest`: check, verdict, value, unit.
    pictures
        Table `check_pictures` of `ingest`: check, x, y.
    mean_spectrum, gain_by_bin, maps, noise, zero_loss
        As `plot_quality` takes them.
    """
    rows = max(-(-len(checks) // COLUMNS), 1)
    figure = style.new_figure(width_mm, ROW_MM * rows, layout="compressed")
    axes = np.atleast_1d(figure.subplots(rows, COLUMNS)).ravel()
    energies, counts = (mean_spectrum[name].to_numpy(dtype=float) for name in ("energy_loss_mev", "mean_counts"))
    for ax, check in zip(axes, checks.to_dict("records"), strict=False):
        name = str(check["check"])
        points = pictures[pictures["check"] == name]
        if name in MAPS or name == "haadf_contrast":
            _map(ax, maps, name)
        elif name in ("gain", "noise_correlation"):
            _gain(ax, gain_by_bin, noise or {})
        elif name in ("zero_loss_peak", "zero_loss_fwhm", "dispersion"):
            _peak(ax, energies, counts, zero_loss, name)
        elif name == "dark_level":
            _dark(ax, energies, counts, noise or {})
        else:
            _points(ax, name, points, noise or {})
        _verdict(ax, {str(key): value for key, value in check.items()})
    for ax in axes[len(checks) :]:
        ax.set_axis_off()
    return figure


def _verdict(ax: Axes, check: Mapping[str, Any]) -> None:
    verdict = str(check["verdict"])
    colour = VERDICTS.get(verdict, style.MUTED)
    value = check.get("value")
    known = value is not None and np.isfinite(float(value))
    number = f"{float(value):.3g} {check.get('unit') or ''}".strip() if known and value is not None else "not measured"
    name = str(check["check"]).removesuffix("_e").replace("_", " ")
    ax.set_title(f"{name}: {verdict}\n{number}", color=colour, fontsize=6.5, loc="left")
    for spine in ax.spines.values():
        spine.set(color=colour, linewidth=1.2, visible=True)


def _map(ax: Axes, maps: xr.Dataset | None, name: str) -> None:
    variable = "haadf" if name == "haadf_contrast" else "status"
    if maps is None or variable not in maps:
        style.empty_note(ax, "no map")
        return
    values = np.asarray(maps[variable].values, dtype=float)
    if name in MAPS:
        words = str(maps["status"].attrs.get("flag_meanings", "")).split()
        values = (values == words.index(MAPS[name])).astype(float) if MAPS[name] in words else np.zeros(values.shape)
    if is_line(maps):
        ax.plot(values.ravel(), color=style.PALETTE[0], linewidth=0.8)
        ax.set_xlabel("position")
        return
    limits = {"limits": (0.0, 1.0), "cmap": "Reds"} if name in MAPS else {"cmap": "gray"}
    draw_map(ax, values, scan_extent(maps), **limits)
    ax.set_xlabel("red: positions concerned" if name in MAPS else "HAADF", fontsize=6.0)


def _gain(ax: Axes, table: pd.DataFrame, noise: Mapping[str, Mapping[str, Any]]) -> None:
    if table.empty:
        style.empty_note(ax, "could not be measured")
        return
    bins, value, std = (table[name].to_numpy(dtype=float) for name in table.columns)
    ax.errorbar(bins, value, std, fmt="o", color=style.PALETTE[0], markersize=2.5, linewidth=0.8)
    gain = noise.get("gain") or {}
    if gain.get("value") is not None:
        ax.axhline(float(gain["value"]), color=style.PALETTE[2], linewidth=0.8)
    ax.set_xscale("log", base=2)
    ax.set_xticks(bins, [f"{size:g}" for size in bins])
    ax.set_xlabel("channels per bin")
    ax.set_ylabel("variance / mean")


def _peak(ax: Axes, energies: np.ndarray, counts: np.ndarray, zero_loss: Mapping[str, float] | None, name: str) -> None:
    if not zero_loss:
        ax.plot(energies, counts, color=style.PALETTE[0], linewidth=0.8)
        ax.set_xlabel("energy loss (meV)")
        return
    middle, fwhm = float(zero_loss["position_mev"]), float(zero_loss["fwhm_mev"])
    near = np.abs(energies - middle) <= 2.5 * max(fwhm, 2.0 * float(energies[1] - energies[0]))
    marker = "." if name == "dispersion" else ""
    ax.plot(energies[near], counts[near], color=style.PALETTE[0], linewidth=0.8, marker=marker, markersize=3)
    if name == "zero_loss_peak":
        ax.axvline(0.0, color=style.MUTED, linestyle="--", linewidth=0.7)
        ax.axvline(middle, color=style.PALETTE[1], linewidth=0.8)
    elif name == "zero_loss_fwhm":
        half = 0.5 * float(np.nanmax(counts[near]))
        ax.plot([middle - 0.5 * fwhm, middle + 0.5 * fwhm], [half, half], color=style.PALETTE[1], linewidth=1.2)
    ax.set_xlabel("energy loss (meV)")
    ax.set_ylabel("mean counts")


def _dark(ax: Axes, energies: np.ndarray, counts: np.ndarray, noise: Mapping[str, Mapping[str, Any]]) -> None:
    dark = noise.get("dark_level") or {}
    ax.plot(energies, counts, color=style.PALETTE[0], linewidth=0.8)
    low, high = np.nanquantile(counts, [0.0, 0.6])
    if dark.get("value") is not None:
        level = float(dark["value"])
        ax.axhline(level, color=style.PALETTE[1], linestyle="--", linewidth=0.8)
        low, high = min(low, level), max(high, level)
    room = 0.1 * max(float(high - low), 1e-9)
    ax.set_ylim(float(low) - room, float(high) + room)
    ax.set_xlabel("energy loss (meV)")
    ax.set_ylabel("mean counts")


def _points(ax: Axes, name: str, points: pd.DataFrame, noise: Mapping[str, Mapping[str, Any]]) -> None:
    if points.empty:
        style.empty_note(ax, "nothing to show")
        return
    x, y = points["x"].to_numpy(dtype=float), points["y"].to_numpy(dtype=float)
    if name in BARS:
        ax.bar(x, y, width=float(np.diff(x).mean()), color=style.PALETTE[0])
        ax.set_yscale("symlog", linthresh=1.0)
        if name == "negative":
            ax.axvline(0.0, color=style.MUTED, linewidth=0.7)
    elif name in DOTS:
        ax.plot(x, y, ".", color=style.PALETTE[0], markersize=2.5)
    else:
        ax.plot(x, y, color=style.PALETTE[0], linewidth=0.7)
        ax.axhline(0.0, color=style.MUTED, linewidth=0.5)
    numbers = [(noise.get(key) or {}).get("value") for key in ("gain", "dark_level", "read_noise_e")]
    if name == "read_noise_e" and all(number is not None for number in numbers):
        gain, dark, read = (float(number) for number in numbers)  # type: ignore[arg-type]
        line = np.array([x.min(), x.max()])
        correlation = float((noise.get("noise_correlation") or {}).get("value") or 1.0)
        ax.plot(
            line,
            gain * np.maximum(line - dark, 0.0) / correlation + (gain * read) ** 2,
            color=style.PALETTE[1],
            linewidth=0.8,
        )
    label = LABELS.get(name, ("", ""))
    ax.set_xlabel(label[0])
    ax.set_ylabel(label[1])
