"""Measured against truth, for simulated data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style
from phonon_eels.rounding import plus_minus

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@style.styled
def plot_truth(table: pd.DataFrame, *, width_mm: float = style.PAGE_MM * 0.8) -> Figure:
    """Return (measured − truth) / std of every quantity, with the numbers beside it.

    Parameters
    ----------
    table
        `truth_comparison`: quantity, measured, std, truth, pull, unit, verdict.
    """
    n = len(table)
    figure = style.new_figure(width_mm, 6.0 * max(n, 2) + 16)
    ax = figure.add_subplot()
    if n == 0:
        style.empty_note(ax, "nothing could be compared")
        return figure
    pulls = np.asarray(table["pull"], dtype=float)
    heights = np.arange(n)
    ax.axvspan(-3, 3, color="#f3f3f3", linewidth=0)
    ax.axvspan(-1, 1, color="#e4e4e4", linewidth=0)
    ax.axvline(0, color=style.MUTED, linewidth=0.6)
    reach = float(np.clip(1.2 * np.max(np.abs(pulls[np.isfinite(pulls)]), initial=0.0), 4.0, 12.0))
    for height, pull, verdict in zip(heights, pulls, table["verdict"], strict=True):
        colour = style.PALETTE[0] if str(verdict).startswith("agrees") else style.PALETTE[1]
        if not np.isfinite(pull):
            continue
        if abs(pull) > reach:  # outside: an arrow at the rim
            ax.plot(np.sign(pull) * reach, height, ">" if pull > 0 else "<", color=colour, clip_on=False)
        else:
            ax.errorbar(pull, height, xerr=1.0, fmt="o", color=colour, elinewidth=0.9)
    for height, row in zip(heights, table.to_dict("records"), strict=True):
        ax.annotate(
            f"{plus_minus(row['measured'], row['std'])}   truth {float(row['truth']):.4g} {style.unit_text(row['unit'])}",
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    ax.set(yticks=heights, yticklabels=[style.literal(name) for name in table["quantity"]], ylim=(n - 0.5, -0.5))
    ax.set(xlim=(-reach, reach), xlabel="(measured − truth) / std")
    ax.spines[["top", "right"]].set_visible(False)
    return figure
