"""Spectra: the mean with its fit, one per layer, and the stages of the classic route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.paint import paint
from phonon_eels.figures.spectrum_panels import ENERGY, ENERGY_LABEL, View, column, spectrum_panels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VIEWS: tuple[View, View] = ("log", "loss")


@style.styled
def plot_mean_spectrum(
    table: pd.DataFrame, *, window_mev: tuple[float, float] | None = None, width_mm: float = style.PAGE_MM
) -> Figure:
    """Return the mean spectrum with its fit, on a log scale and less the zero-loss peak, residuals below.

    Parameters
    ----------
    table
        `mean_spectrum` of `fit_peaks`: energy_loss_mev, counts_e, and as far as there: counts_e_std, model_e,
        residual_sigma, zlp_e, background_e and one ``<mode>_e`` per mode, in electrons per channel and position.
    window_mev
        Range of the linear panel; default: the loss side, from where the modes begin.
    """
    figure = style.new_figure(width_mm, 78)
    axes = figure.subplots(2, 2, sharex="col", height_ratios=(3, 1))
    for (upper, lower), view in zip(axes.T, VIEWS, strict=True):
        limits = window_mev if view == "loss" else None
        above, below = spectrum_panels(table, view=view, limits_mev=limits, word="mean counts")
        paint(upper, above)
        paint(lower, below)
        upper.set_xlabel("")
    axes[1, 1].set_ylabel("")
    style.panel_letters(figure, axes[0])
    return figure


def layer_spectra_of(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Return layer → (energy, mean, std or None) from a long table (one row per layer and channel) or a wide one."""
    if "layer" in table:
        std = next((name for name in map(str, table.columns) if "std" in name), None)
        value = next(name for name in map(str, table.columns) if name.endswith("_e") and name != std)
        return {
            str(layer): (column(part, ENERGY), column(part, value), column(part, std) if std else None)
            for layer, part in table.groupby("layer", sort=False)
        }
    names = [name for name in map(str, table.columns) if name.endswith("_e") and "_std" not in name]
    return {
        name.removesuffix("_e").removesuffix("_mean"): (
            column(table, ENERGY),
            column(table, name),
            next((column(table, s) for s in (f"{name}_std", f"{name[:-2]}_std_e") if s in table), None),
        )
        for name in names
    }


@style.styled
def plot_layer_spectra(
    table: pd.DataFrame,
    *,
    window_mev: tuple[float, float] | None = None,
    mode_energies_mev: Mapping[str, float] | None = None,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return the mean spectrum of each layer (offset) and its difference from the mean of all layers, with std bands.

    Parameters
    ----------
    table
        `layer_spectra`: energy_loss_mev with mean and std per layer, in electrons per channel and position.
    mode_energies_mev
        Thin lines at these energies.
    """
    spectra = {name: part for name, part in layer_spectra_of(table).items() if np.isfinite(part[1]).any()}
    figure = style.new_figure(width_mm, 30 + 12 * max(len(spectra), 2))
    left, right = figure.subplots(1, 2)
    if not spectra:
        for ax in (left, right):
            style.empty_note(ax, "no layer has a spectrum")
        return figure
    shades = style.layer_colours(spectra)
    energy = next(iter(spectra.values()))[0]
    low, high = window_mev or (max(float(energy.min()), 0.15 * float(energy.max())), float(energy.max()))
    inside = (energy >= low) & (energy <= high)
    # Planes that are also shown apart count once.
    whole = [part[1] for name, part in spectra.items() if not name.endswith((" lower", " upper"))]
    overall = np.nanmean(whole, axis=0)
    # A steep tail needs a log scale, and there an offset is a factor; subtracted spectra keep a linear one.
    steep = bool(np.all(overall[inside] > 0)) and float(np.ptp(np.log10(overall[inside]))) > 1.0
    _offset_spectra(left, spectra, shades, inside, steep)
    differences = {name: (e, mean - overall, std) for name, (e, mean, std) in spectra.items()}
    _offset_spectra(right, differences, shades, inside, False, baseline=True)
    left.set_ylabel("e⁻ per channel" + (", times factors" if steep else ", offset"))
    right.set_ylabel("minus the mean of all layers (e⁻), offset")
    for ax in (left, right):
        ax.set(xlabel=ENERGY_LABEL, xlim=(low, high))
        for mode_energy in (mode_energies_mev or {}).values():
            ax.axvline(mode_energy, color="#bbbbbb", linewidth=0.5, zorder=0)
    style.panel_letters(figure, (left, right))
    return figure


def _offset_spectra(
    ax: Axes,
    spectra: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    shades: Mapping[str, str],
    inside: np.ndarray,
    steep: bool,
    baseline: bool = False,
) -> None:
    values = [part[1][inside] for part in spectra.values()]
    spread = max(float(style.robust_limits(v, 3, 97)[1] - style.robust_limits(v, 3, 97)[0]) for v in values)
    for index, (name, (energy, mean, std)) in enumerate(spectra.items()):
        factor, offset = (3.0**index, 0.0) if steep else (1.0, 1.1 * index * spread)
        x, y = energy[inside], factor * mean[inside] + offset
        if std is not None:
            width = factor * std[inside]
            ax.fill_between(
                x,
                np.maximum(y - width, 1e-12 if steep else -np.inf),
                y + width,
                color=shades[name],
                alpha=0.3,
                linewidth=0,
            )
        ax.plot(x, y, color=shades[name], linewidth=0.9)
        if baseline:
            ax.axhline(offset, color=shades[name], linewidth=0.4, linestyle=":")
        ax.annotate(
            style.layer_text(name),
            (1.0, offset if baseline else float(np.nanmean(y[-max(len(y) // 20, 1) :]))),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color=shades[name],
            annotation_clip=False,
        )
    if steep:
        ax.set_yscale("log")


@style.styled
def plot_classic_route(
    tables: Mapping[str, pd.DataFrame],
    *,
    windows_mev: Sequence[tuple[float, float]] = (),
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return the mean spectra of the classic route: background under the loss spectrum, and after deconvolution.

    Parameters
    ----------
    tables
        Title → table with energy_loss_mev and columns ``<name>_e`` (with ``<name>_e_std``), one panel each.
    windows_mev
        Windows in which the background was fitted, shaded.
    """
    usable = {name: table for name, table in tables.items() if ENERGY in table}
    figure = style.new_figure(width_mm, 62)
    axes = figure.subplots(1, max(len(usable), 1), squeeze=False)[0]
    if not usable:
        style.empty_note(axes[0], "no spectrum was stored")
    for ax, (title, table) in zip(axes, usable.items(), strict=False):
        _draw_columns(ax, table)
        ax.set(xlabel=ENERGY_LABEL, ylabel="e⁻ per channel")
        ax.set_title(style.literal(title))
        for low, high in windows_mev:
            if low < ax.get_xlim()[1]:
                ax.axvspan(low, min(high, ax.get_xlim()[1]), color="#fff0c2", zorder=-1, linewidth=0)
    return figure


def _draw_columns(ax: Axes, table: pd.DataFrame) -> None:
    energy = column(table, ENERGY)
    names = [str(name) for name in table.columns if str(name).endswith("_e")]
    for name, colour in style.colours(names).items():
        values = column(table, name)
        ax.plot(energy, values, color=colour, label=style.literal(name.removesuffix("_e").replace("_", " ")))
        if f"{name}_std" in table:
            std = column(table, f"{name}_std")
            ax.fill_between(energy, values - std, values + std, color=colour, alpha=0.3, linewidth=0)
    loss = energy > 0.15 * float(energy.max())
    shown = np.concatenate([column(table, name)[loss] for name in names]) if names and loss.any() else np.zeros(0)
    positive = shown[shown > 0]
    if positive.size and shown.min() > 0 and np.ptp(np.log10(positive)) > 1.3:
        ax.set_yscale("log")
    ax.set_xlim(float(energy[loss].min()), float(energy.max()))
    if shown.size:
        low, high = style.robust_limits(shown, 0, 99.8)
        ax.set_ylim((low * 0.7 if ax.get_yscale() == "log" else low - 0.05 * (high - low)), high * 1.15)
    ax.legend(loc="upper right", fontsize=6.0)
