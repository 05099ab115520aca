"""Mode energy and superconducting gap against the phase of the superstructure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phonon_eels.figures import style
from phonon_eels.figures.paint import paint
from phonon_eels.figures.phase_panels import gap_panel, phase_panel, ranked_pairs

if TYPE_CHECKING:
    import pandas as pd
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
        paint(upper, phase_panel(phase_bins, amplitudes, *pairs[0]))
        upper.set_xlabel("")
    else:
        style.empty_note(upper, "no energies by phase were stored")
    paint(lower, gap_panel(gap_curve, gap))
    return figure
