"""Energies against the phase of the superstructure, and what the claim rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Ellipse

from phonon_eels.figures import style
from phonon_eels.figures.paint import paint
from phonon_eels.figures.phase_panels import amplitude_of, finite, p_text, period_panel, phase_panel, ranked_pairs
from phonon_eels.figures.spectrum_panels import ENERGY, ENERGY_LABEL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST_LOSS_MEV = 15.0
TEMPLATE_NAMES = {
    "shift": "−∂S/∂E (energy shift)",
    "weight": "S (weight)",
    "width": "∂²S/∂E² (width)",
    "background": "background",
}


@style.styled
def plot_phase_dependence(
    phase_bins: pd.DataFrame,
    amplitudes: pd.DataFrame | None = None,
    *,
    limit: int = 9,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return energy against superstructure phase with error bars and the fitted harmonic, one panel per mode and layer.

    Parameters
    ----------
    phase_bins
        mode, layer, phase_rad, energy_mev, energy_mev_std.
    amplitudes
        mode, layer, cos_mev, sin_mev and their ``_std``, amplitude_mev, p_value, role; panels are in order of role.
    limit
        Most panels that are drawn.
    """
    pairs = ranked_pairs(amplitudes, phase_bins, limit)
    columns = min(3, max(len(pairs), 1))
    rows = max(math.ceil(len(pairs) / columns), 1)
    figure = style.new_figure(width_mm if columns > 1 else style.COLUMN_MM, 46 * rows + 4)
    axes = figure.subplots(rows, columns, squeeze=False)
    if not pairs:
        style.empty_note(axes[0, 0], "no energies by phase were stored")
    for ax, (mode, layer) in zip(axes.ravel(), pairs, strict=False):
        paint(ax, phase_panel(phase_bins, amplitudes, mode, layer))
    for ax in axes.ravel()[len(pairs) :]:
        ax.set_visible(False)
    for index, ax in enumerate(axes.ravel()[: len(pairs)]):
        ax.set_ylabel("energy (meV)" if index % columns == 0 else "")
        ax.set_xlabel("superstructure phase (rad)" if index + columns >= len(pairs) else "")
    return figure


@style.styled
def plot_units(
    units: pd.DataFrame, amplitudes: pd.DataFrame | None = None, *, limit: int = 4, width_mm: float = style.PAGE_MM
) -> Figure:
    """Return the complex amplitude of every half-slab plane with their mean and its 95 % confidence ellipse.

    The planes are the units of replication: their scatter, not the noise of the positions, says how sure the mean is.

    Parameters
    ----------
    units
        half_slab, mode, layer, cos_mev, sin_mev and their ``_std``, n_positions.
    """
    pairs = ranked_pairs(amplitudes, units, limit)
    columns = max(min(len(pairs), 4), 1)
    size_mm = min(width_mm / columns, 70.0)
    figure = style.new_figure(size_mm * columns, size_mm + 8)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    if not pairs:
        style.empty_note(axes[0], "no plane has an amplitude")
    for ax, (mode, layer) in zip(axes, pairs, strict=False):
        _draw_units(ax, units, amplitudes, mode, layer)
        ax.set_ylabel("sine part (meV)" if ax is axes[0] else "")
    return figure


def _draw_units(ax: Axes, units: pd.DataFrame, amplitudes: pd.DataFrame | None, mode: str, layer: str) -> None:
    part = units[(units["mode"].astype(str) == mode) & (units["layer"].astype(str) == layer)]
    points = np.asarray(part[["cos_mev", "sin_mev"]], dtype=float)
    std = (
        np.asarray(part[["cos_mev_std", "sin_mev_std"]], dtype=float)
        if "cos_mev_std" in part
        else np.zeros_like(points)
    )
    good = np.isfinite(points).all(axis=1)
    points, std = points[good], np.nan_to_num(std[good])
    ax.axhline(0, color=style.MUTED, linewidth=0.5)
    ax.axvline(0, color=style.MUTED, linewidth=0.5)
    ax.errorbar(
        points[:, 0],
        points[:, 1],
        xerr=std[:, 0],
        yerr=std[:, 1],
        fmt="o",
        color=style.PALETTE[0],
        elinewidth=0.4,
        markersize=2.5,
        alpha=0.85,
    )
    row = amplitude_of(amplitudes, mode, layer)
    ellipse = confidence_ellipse(points)
    if ellipse is not None:
        ax.add_patch(Ellipse(**ellipse, facecolor=style.PALETTE[1], edgecolor=style.PALETTE[1], alpha=0.3))
    if len(points):
        ax.plot(*points.mean(axis=0), "+", color=style.PALETTE[1], markersize=7, markeredgewidth=1.4)
    reach = 1.15 * float(np.max(np.abs(points) + std, initial=1e-3))
    ax.set(
        xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="cosine part (meV)", ylabel="sine part (meV)"
    )
    words = f"{len(points)} planes" + (f", {p_text(float(row['p_value']))}" if finite(row, "p_value") else "")
    ax.set_title(f"{style.literal(mode)} in {style.layer_text(layer)}\n{words}", fontsize=6.5)


def confidence_ellipse(points: np.ndarray, confidence: float = 0.95) -> dict[str, Any] | None:
    """Return centre, axes and angle of the region that holds the true mean of 2-D points (Hotelling's T²).

    Parameters
    ----------
    points
        (n, 2), n ≥ 3; None is returned for fewer, or where the points do not scatter.
    """
    n = len(points)
    if n < 3:
        return None
    values, vectors = np.linalg.eigh(np.cov(points.T))
    if not values[-1] > 0:
        return None
    # Quantile of Fisher's F with 2 and n − 2 degrees of freedom, which is elementary for 2.
    quantile = 0.5 * (n - 2) * ((1 - confidence) ** (-2 / (n - 2)) - 1)
    factor = 2 * (n - 1) / (n - 2) * quantile / n
    half = np.sqrt(np.maximum(values, 0.0) * factor)
    return {
        "xy": tuple(float(v) for v in points.mean(axis=0)),
        "width": float(2 * half[1]),
        "height": float(2 * half[0]),
        "angle": math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])),
    }


@style.styled
def plot_modulation_spectrum(
    table: pd.DataFrame,
    *,
    mode_energies_mev: Mapping[str, float] | None = None,
    layers: Sequence[str] | None = None,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return what oscillates with the superstructure in every energy channel, without any model of the peaks.

    Parameters
    ----------
    table
        layer, energy_loss_mev, cos_e, sin_e, std_e (electrons per channel), and what the templates of a shift,
        a weight, a width and a background explain of the cosine part (columns with ``template`` in their name).
    layers
        Layers to show; default: all.
    """
    names = [str(v) for v in (layers or dict.fromkeys(table["layer"].astype(str)))]
    figure = style.new_figure(width_mm, 32 * max(len(names), 1) + 12)
    axes = figure.subplots(max(len(names), 1), 2, squeeze=False, sharex=True, sharey="row")
    for line, name in zip(axes, names, strict=False):
        part = table[table["layer"].astype(str) == name]
        for ax, component, colour in zip(line, ("cos", "sin"), style.PALETTE, strict=False):
            _draw_component(ax, part, component, colour)
            for mode_energy in (mode_energies_mev or {}).values():
                ax.axvline(mode_energy, color="#bbbbbb", linewidth=0.5, zorder=0)
        _label_modes(line[0], mode_energies_mev or {}) if name == names[0] else None
        line[0].set_ylabel(f"{style.layer_text(name)}\ne⁻ per channel")
    for ax in axes[-1]:
        ax.set_xlabel(ENERGY_LABEL)
    for ax, title in zip(axes[0], ("in phase with the crest (cosine)", "quadrature (sine)"), strict=True):
        ax.set_title(title, pad=4)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(len(labels), 1))
    return figure


def _draw_component(ax: Axes, part: pd.DataFrame, component: str, colour: str) -> None:
    energy = np.asarray(part[ENERGY], dtype=float)
    values = np.asarray(part[f"{component}_e"], dtype=float)
    if "std_e" in part:
        std = np.asarray(part["std_e"], dtype=float)
        ax.fill_between(energy, -std, std, color="#dddddd", linewidth=0, label="±1 std of no modulation")
    ax.axhline(0, color=style.MUTED, linewidth=0.5)
    ax.plot(energy, values, color=style.INK, linewidth=0.8, label="measured")
    losses = energy > FIRST_LOSS_MEV
    if losses.any():
        # The zero-loss peak wanders too, and by far more electrons: the axis is that of the losses, the peak is cut.
        top = 1.3 * float(
            np.nanmax(np.abs(np.concatenate([values[losses], 3.0 * std[losses] if "std_e" in part else []])))
        )
        before = 0.0 if ax.get_autoscaley_on() else ax.get_ylim()[1]
        ax.set_ylim(-max(top, before), max(top, before))
    shades = iter((style.PALETTE[1], *style.PALETTE[2:]))
    for name in (str(column) for column in part.columns if "template" in str(column)):
        kind = name.split("_")[0]
        if name.startswith("sin") != (component == "sin") and name.split("_")[0] in ("cos", "sin"):
            continue
        if component == "sin" and kind not in ("sin",):
            continue  # a template without a component belongs to the cosine part, where a modulation is expected
        kind = name.removeprefix("cos_").removeprefix("sin_").split("_")[0]
        ax.plot(energy, np.asarray(part[name], dtype=float), color=next(shades), label=TEMPLATE_NAMES.get(kind, kind))


def _label_modes(ax: Axes, mode_energies_mev: Mapping[str, float]) -> None:
    low, high = ax.get_xlim()
    nearest_right = 2 * high
    for name, energy in sorted(mode_energies_mev.items(), key=lambda item: -item[1]):
        if low <= energy <= high:
            # Along the line and to its right; to its left where the next mode is close.
            left = nearest_right - energy < 0.05 * (high - low)
            ax.annotate(
                style.literal(name),
                (energy, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-1 if left else 1, -2),
                textcoords="offset points",
                rotation=90,
                ha="right" if left else "left",
                va="top",
                fontsize=5.5,
                color=style.MUTED,
            )
            nearest_right = energy


@style.styled
def plot_period_scan(
    table: pd.DataFrame,
    *,
    period_nm: float | None = None,
    period_std_nm: float | None = None,
    width_mm: float = style.COLUMN_MM,
) -> Figure:
    """Return the test statistic against an assumed period; the period of the HAADF is marked, not fitted here.

    Parameters
    ----------
    table
        period_nm, statistic (dimensionless).
    period_nm, period_std_nm
        What the HAADF says.
    """
    figure = style.new_figure(width_mm, 50)
    paint(figure.add_subplot(), period_panel(table, period_nm=period_nm, period_std_nm=period_std_nm))
    return figure
