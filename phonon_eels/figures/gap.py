"""Mode energy and superconducting gap against the phase of the superstructure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.modulation import draw_phase_dependence, ranked_pairs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_gap(
    phase_bins: pd.DataFrame,
    amplitudes: pd.DataFrame,
    gap_curve: pd.DataFrame,
    gap: pd.DataFrame,
    *,
    width_mm: float = style.COLUMN_MM,
) -> Figure:
    """Return the primary mode's energy over phase above the gap over the same phase.

    Parameters
    ----------
    phase_bins, amplitudes
        Tables of `measure_modulation`.
    gap_curve
        kind ("harmonic" or "measured"), phase_rad, gap_mev, gap_std_mev.
    gap
        quantity, value, low, high, sentence; the phase difference stands in the title.
    """
    figure = style.new_figure(width_mm, 0.95 * width_mm)
    upper, lower = figure.subplots(2, 1, sharex=True)
    pairs = ranked_pairs(amplitudes, phase_bins, 1)
    if pairs:
        draw_phase_dependence(upper, phase_bins, amplitudes, *pairs[0])
        upper.set_xlabel("")
    else:
        style.empty_note(upper, "no energies by phase were stored")
    _draw_gap(lower, gap_curve)
    lower.set_title(_difference_words(gap), fontsize=6)
    return figure


def _draw_gap(ax: Axes, table: pd.DataFrame) -> None:
    curve, points = (table[table["kind"] == kind] for kind in ("harmonic", "measured"))
    phase, gap, std = (np.asarray(curve[name], dtype=float) for name in ("phase_rad", "gap_mev", "gap_std_mev"))
    ax.fill_between(phase, gap - std, gap + std, color=style.PALETTE[2], alpha=0.25, linewidth=0)
    label = "harmonic of the measured gap" if len(points) else "template of the literature"
    ax.plot(phase, gap, color=style.PALETTE[2], label=label)
    if len(points):
        folded = np.angle(np.exp(1j * np.asarray(points["phase_rad"], dtype=float)))
        ax.errorbar(
            folded, points["gap_mev"], yerr=points["gap_std_mev"], fmt="o", color=style.INK, elinewidth=0.7, capsize=1.5,
            label="measured",
        )  # fmt: skip
    ax.set(xlim=(-np.pi * 1.04, np.pi * 1.04), xlabel="superstructure phase (rad)", ylabel="gap (meV)")
    ax.set_xticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0\ncrest", "π/2", "π"])
    ax.margins(y=0.25)
    ax.legend(loc="upper right")


def _difference_words(gap: pd.DataFrame) -> str:
    rows = gap[gap["quantity"] == "phase of energy less phase of gap"]
    if not len(rows):
        return "no phase difference"
    row = rows.iloc[0]
    if row["high"] - row["low"] >= 2 * np.pi:
        return "phase difference unknown"
    return f"phase of energy less phase of gap {row['value']:.2f} rad, interval {row['low']:.2f} … {row['high']:.2f}"
