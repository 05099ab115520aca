"""Amplitudes of several scans of one specimen beside their pooled mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.modulation import p_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_pooled(
    scans: pd.DataFrame | None,
    units: pd.DataFrame | None,
    amplitudes: pd.DataFrame | None,
    *,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return the complex amplitude of every plane and scan, and a forest plot of the scans' amplitude along the pooled phase.

    Parameters
    ----------
    scans
        dataset, mode, cos_mev, sin_mev, std_mev, weight, n_units.
    units
        dataset, mode, cos_mev, sin_mev.
    amplitudes
        Pooled rows; the primary one is drawn. None of the three: the figure says so.
    """
    if scans is None or units is None or amplitudes is None:
        figure = style.new_figure(width_mm, 30)
        style.empty_note(figure.subplots(), "no scan of this group has a modulation to pool")
        return figure
    row = amplitudes[amplitudes["role"] == "primary"].iloc[0]
    own = scans[scans["mode"] == row["mode"]].reset_index(drop=True)
    figure = style.new_figure(width_mm, 62 + 4 * len(own))
    plane, forest = figure.subplots(1, 2)
    _draw_plane(plane, own, units[units["mode"] == row["mode"]], row)
    _draw_forest(forest, own, row)
    p = float(row["p_value"])
    verdict = p_text(p) if math.isfinite(p) else "not testable"
    figure.suptitle(
        f"{style.literal(str(row['mode']))} in {style.layer_text(str(row['layer']))}: {int(row['n_units'])} planes in "
        f"{int(row['n_scans'])} scans, {verdict}"
    )
    return figure


def _draw_plane(ax: Axes, scans: pd.DataFrame, units: pd.DataFrame, row: pd.Series) -> None:
    ax.axhline(0, color=style.MUTED, linewidth=0.5)
    ax.axvline(0, color=style.MUTED, linewidth=0.5)
    points = [np.zeros((1, 2))]
    for k, name in enumerate(scans["dataset"]):
        colour = style.PALETTE[k % len(style.PALETTE)]
        of_scan = units.loc[units["dataset"] == name, ["cos_mev", "sin_mev"]].to_numpy(dtype=float)
        ax.plot(*of_scan.T, "o", color=colour, alpha=0.5, markersize=2.5)
        ax.plot(
            *scans.loc[k, ["cos_mev", "sin_mev"]].astype(float), "+", color=colour, markersize=8, markeredgewidth=1.4
        )
        points.append(of_scan)
    ax.plot(float(row["cos_mev"]), float(row["sin_mev"]), "D", color=style.INK, markersize=4)
    reach = 1.15 * float(np.nanmax(np.abs(np.vstack(points)))) or 1.0
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.set(
        xlabel="cosine part (meV)", ylabel="sine part (meV)", title="planes (dots), scans (crosses), pooled (diamond)"
    )


def _draw_forest(ax: Axes, scans: pd.DataFrame, row: pd.Series) -> None:
    direction = np.array([math.cos(float(row["phase_rad"])), math.sin(float(row["phase_rad"]))])
    along = scans[["cos_mev", "sin_mev"]].to_numpy(dtype=float) @ direction
    stds = scans["std_mev"].to_numpy(dtype=float)
    between = float(row["between_scans_std_mev"])
    for k in range(len(scans)):
        colour = style.PALETTE[k % len(style.PALETTE)]
        std = float(stds[k])
        if math.isfinite(between) and math.isfinite(std):
            ax.errorbar(along[k], -k, xerr=math.hypot(std, between), color=colour, elinewidth=0.5, capsize=1.5)
        ax.errorbar(along[k], -k, xerr=std if math.isfinite(std) else None, fmt="o", color=colour, elinewidth=1.6)
    low, high = float(row["amplitude_low_mev"]), float(row["amplitude_high_mev"])
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([low, high], [-len(scans)] * 2, color=style.INK, linewidth=2.0)
    ax.plot(float(row["amplitude_mev"]), -len(scans), "D", color=style.INK, markersize=4)
    ax.axvline(0, color=style.MUTED, linewidth=0.5)
    labels = [f"{style.literal(str(n))} ({int(u)})" for n, u in zip(scans["dataset"], scans["n_units"], strict=True)]
    ax.set_yticks([-k for k in range(len(scans) + 1)], [*labels, "pooled, interval"])
    ax.set(
        xlabel="amplitude along the pooled phase (meV)", title="thick: scatter of planes; thin: with that between scans"
    )
    ax.set_ylim(-len(scans) - 0.7, 0.7)
