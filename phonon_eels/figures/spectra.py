"""Spectra: the mean with its fit, one per layer, and the stages of the classic route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.figures import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENERGY = "energy_loss_mev"
ENERGY_LABEL = "energy loss (meV)"
NOT_COMPONENTS = frozenset({"counts_e", "model_e", "background_e", "zlp_e"})


def component_names(table: pd.DataFrame) -> list[str]:
    """Return the modes that `mean_spectrum` has a column for (``<mode>_e``)."""
    return [str(name)[:-2] for name in table.columns if str(name).endswith("_e") and name not in NOT_COMPONENTS]


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
    draw_fit_log(axes[0, 0], table)
    draw_fit_loss(axes[0, 1], table, window_mev)
    for ax, above in zip(axes[1], axes[0], strict=True):
        _draw_residual(ax, table, above.get_xlim())
    axes[1, 1].set_ylabel("")
    style.panel_letters(figure, axes[0])
    return figure


def draw_fit_log(ax: Axes, table: pd.DataFrame) -> None:
    """Draw counts, model, zero-loss peak, background and modes on a logarithmic axis."""
    energy, counts = _column(table, ENERGY), _column(table, "counts_e")
    ax.plot(energy, np.where(counts > 0, counts, np.nan), ".", color="#8a8a8a", markersize=2.2, label="mean counts")
    for name, label, colour, line in (
        ("zlp_e", "zero-loss peak", style.MUTED, "--"),
        ("background_e", "background", "#a05a2c", ":"),
    ):
        if name in table:
            ax.plot(energy, _positive(table, name), line, color=colour, label=label)
    for mode, colour in style.colours(component_names(table)).items():
        ax.plot(energy, _positive(table, f"{mode}_e"), color=colour, linewidth=0.8)
    if "model_e" in table:
        ax.plot(energy, _positive(table, "model_e"), color=style.INK, linewidth=0.8, label="fit")
    ax.set_yscale("log")
    floor = counts[counts > 0].min() if np.any(counts > 0) else 1e-3
    ax.set_ylim(0.2 * floor, 3 * max(float(np.nanmax(counts)), floor))
    ax.set_xlim(float(energy.min()), float(energy.max()))
    ax.set_ylabel("e⁻ per channel")
    ax.legend(loc="upper right", fontsize=6.0)


def draw_fit_loss(ax: Axes, table: pd.DataFrame, window_mev: tuple[float, float] | None = None) -> None:
    """Draw what is left of the counts without zero-loss peak and background, with each mode, on a linear axis."""
    energy, counts = _column(table, ENERGY), _column(table, "counts_e")
    under = sum((_column(table, name) for name in ("zlp_e", "background_e") if name in table), np.zeros_like(energy))
    low, high = window_mev or default_window(table)
    inside = (energy >= low) & (energy <= high)
    if "counts_e_std" in table:
        ax.errorbar(
            energy[inside],
            (counts - under)[inside],
            yerr=_column(table, "counts_e_std")[inside],
            fmt=".",
            color="#8a8a8a",
            markersize=2.2,
            elinewidth=0.5,
            zorder=1,
        )
    else:
        ax.plot(energy[inside], (counts - under)[inside], ".", color=style.INK, markersize=2, zorder=1)
    for mode, colour in style.colours(component_names(table)).items():
        values = _column(table, f"{mode}_e")[inside]
        ax.fill_between(energy[inside], 0, values, color=colour, alpha=0.22, linewidth=0)
        ax.plot(energy[inside], values, color=colour, linewidth=0.9, label=style.literal(mode))
    if "model_e" in table:
        ax.plot(energy[inside], (_column(table, "model_e") - under)[inside], color=style.INK, linewidth=0.9)
    ax.axhline(0.0, color=style.MUTED, linewidth=0.5)
    ax.set_xlim(low, high)
    _linear_limits(ax, table, inside, under)
    has_zlp = "zlp_e" in table
    ax.set_ylabel("counts − zero-loss − background (e⁻)" if has_zlp else "counts − background (e⁻)")
    ax.legend(loc="upper right", ncols=2, columnspacing=0.8, fontsize=6.0)


def _linear_limits(ax: Axes, table: pd.DataFrame, inside: np.ndarray, under: np.ndarray) -> None:
    """Let the model and the well-known counts set the scale, not the noise left of a steep zero-loss tail."""
    name = "model_e" if "model_e" in table else "counts_e"
    shape = (_column(table, name) - under)[inside]
    low, high = float(np.nanmin(shape)), float(np.nanmax(shape))
    reach = max(high - low, 1e-12)
    ax.set_ylim(min(low, 0.0) - 0.15 * reach, high + 0.45 * reach)


def _draw_residual(ax: Axes, table: pd.DataFrame, limits: tuple[float, float]) -> None:
    if "residual_sigma" not in table:
        style.empty_note(ax, "no residual was stored")
        return
    energy, residual = _column(table, ENERGY), _column(table, "residual_sigma")
    ax.axhspan(-2, 2, color="#eeeeee", linewidth=0)
    ax.axhline(0, color=style.MUTED, linewidth=0.5)
    inside = (energy >= limits[0]) & (energy <= limits[1]) & np.isfinite(residual)
    ax.vlines(energy[inside], 0, residual[inside], color=style.PALETTE[0], linewidth=0.5)
    ax.plot(energy[inside], residual[inside], ".", color=style.PALETTE[0], markersize=2)
    reach = max(4.0, 1.1 * float(np.max(np.abs(residual[inside]), initial=0.0)))
    ax.set(xlim=limits, ylim=(-reach, reach), xlabel=ENERGY_LABEL, ylabel="residual (σ)")


def default_window(table: pd.DataFrame) -> tuple[float, float]:
    """Return the loss range of the modes: where their components exceed 2 % of the tallest, with a margin."""
    energy = _column(table, ENERGY)
    modes = [_column(table, f"{mode}_e") for mode in component_names(table)]
    total = np.sum(modes, axis=0) if modes else np.zeros_like(energy)
    some = (energy > 0) & (total > 0.02 * max(float(np.nanmax(total[energy > 0], initial=0.0)), 1e-300))
    if not modes or not some.any():
        return max(float(energy.min()), 0.15 * float(energy.max())), float(energy.max())
    low, high = float(energy[some].min()), float(energy[some].max())
    # The zero-loss peak ends about where the first mode's centre begins to stand clear of it.
    low = max(low, 0.5 * float(energy[int(np.argmax(np.where(energy > 0, modes[0], -1.0)))]))
    return low, min(high + 0.1 * (high - low), float(energy.max()))


def layer_spectra_of(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Return layer → (energy, mean, std or None) from a long table (one row per layer and channel) or a wide one."""
    if "layer" in table:
        std = next((name for name in map(str, table.columns) if "std" in name), None)
        value = next(name for name in map(str, table.columns) if name.endswith("_e") and name != std)
        return {
            str(layer): (_column(part, ENERGY), _column(part, value), _column(part, std) if std else None)
            for layer, part in table.groupby("layer", sort=False)
        }
    names = [name for name in map(str, table.columns) if name.endswith("_e") and "_std" not in name]
    return {
        name.removesuffix("_e").removesuffix("_mean"): (
            _column(table, ENERGY),
            _column(table, name),
            next((_column(table, s) for s in (f"{name}_std", f"{name[:-2]}_std_e") if s in table), None),
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
    overall = np.nanmean([mean for _, mean, _ in spectra.values()], axis=0)
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
    energy = _column(table, ENERGY)
    names = [str(name) for name in table.columns if str(name).endswith("_e")]
    for name, colour in style.colours(names).items():
        values = _column(table, name)
        ax.plot(energy, values, color=colour, label=style.literal(name.removesuffix("_e").replace("_", " ")))
        if f"{name}_std" in table:
            std = _column(table, f"{name}_std")
            ax.fill_between(energy, values - std, values + std, color=colour, alpha=0.3, linewidth=0)
    loss = energy > 0.15 * float(energy.max())
    shown = np.concatenate([_column(table, name)[loss] for name in names]) if names and loss.any() else np.zeros(0)
    positive = shown[shown > 0]
    if positive.size and shown.min() > 0 and np.ptp(np.log10(positive)) > 1.3:
        ax.set_yscale("log")
    ax.set_xlim(float(energy[loss].min()), float(energy.max()))
    if shown.size:
        low, high = style.robust_limits(shown, 0, 99.8)
        ax.set_ylim((low * 0.7 if ax.get_yscale() == "log" else low - 0.05 * (high - low)), high * 1.15)
    ax.legend(loc="upper right", fontsize=6.0)


def _column(table: pd.DataFrame, name: Any) -> np.ndarray:
    return np.asarray(table[name], dtype=float)


def _positive(table: pd.DataFrame, name: str) -> np.ndarray:
    values = _column(table, name)
    return np.where(values > 0, values, np.nan)
