"""What a planned scan can show: expected spectrum, deviations, detectable amplitude, chance of detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from phonon_eels.plan.forecast import Forecast

FIRST_LOSS_MEV = 12.0


@style.styled
def plot_plan(found: Forecast, *, width_mm: float = style.PAGE_MM) -> Figure:
    """Return the four panels of a forecast.

    a: expected spectrum of one position. b: deviations of every mode's energy. c: amplitude detectable against dose for
    several numbers of scans. d: chance of detection against amplitude.
    """
    figure = style.new_figure(width_mm, 0.72 * width_mm)
    axes = figure.subplots(2, 2)
    _draw_spectrum(axes[0, 0], found)
    _draw_deviations(axes[0, 1], found)
    _draw_dose(axes[1, 0], found)
    _draw_chances(axes[1, 1], found)
    style.panel_letters(figure, axes.ravel())
    return figure


def _draw_spectrum(ax: Axes, found: Forecast) -> None:
    table = found.spectrum[found.spectrum["energy_loss_mev"] >= FIRST_LOSS_MEV]
    energy, mean, std = (np.asarray(table[c], dtype=float) for c in ("energy_loss_mev", "expected_e", "std_e"))
    ax.fill_between(energy, mean - std, mean + std, color=style.PALETTE[4], alpha=0.4, linewidth=0, label="± 1 std")
    ax.plot(energy, mean, color=style.INK)
    top = float((mean + std).max())
    for row in found.modes.to_dict("records"):
        height = float(np.interp(row["energy_mev"], energy, mean + std))
        ax.annotate(
            style.literal(row["mode"]), (row["energy_mev"], height), xytext=(0, 4), textcoords="offset points",
            rotation=90, ha="center", va="bottom", color=style.MUTED, fontsize=5.5,
        )  # fmt: skip
    ax.set_ylim(0, 1.25 * top)
    where = style.layer_text(found.summary["layer"])
    ax.set(xlabel="energy loss (meV)", ylabel="electrons per channel", title=f"expected at one position on {where}")
    ax.legend(loc="upper right")


def _draw_deviations(ax: Axes, found: Forecast) -> None:
    places = np.arange(len(found.modes))
    kinds = {
        "energy_position_std_mev": ("one position", "o"),
        "amplitude_plane_std_mev": ("amplitude, one plane", "s"),
        "energy_scan_std_mev": ("mean of all scans", "D"),
    }
    for (column, (label, marker)), colour in zip(kinds.items(), style.PALETTE, strict=False):
        ax.plot(places, found.modes[column], marker, color=colour, label=label, linestyle="none")
    ax.set_yscale("log")
    ax.set_xticks(places, [style.literal(name) for name in found.modes["mode"]], rotation=30, ha="right")
    ax.set(ylabel="standard deviation of energy (meV)", title="Cramér–Rao bounds")
    _headroom(ax, 6.0)
    ax.legend(loc="upper right", ncols=2)


def _headroom(ax: Axes, factor: float) -> None:
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * factor)


def _draw_dose(ax: Axes, found: Forecast) -> None:
    shown = found.curves[np.isfinite(found.curves["detectable_mev"])]
    if not len(shown):
        style.empty_note(ax, "too few half-slab planes\nfor a test, at any dose")
        return
    for (scans, part), colour in zip(shown.groupby("scans"), style.PALETTE, strict=False):
        words = f"{scans} scan{'s' if scans != 1 else ''}, {int(part['n_planes'].iloc[0])} planes"
        ax.plot(part["zero_loss_electrons_e"], part["detectable_mev"], "o-", color=colour, label=words)
    ax.axvline(found.summary["zero_loss_electrons_e"], color=style.MUTED, linewidth=0.6, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="zero-loss electrons per position", ylabel="detectable amplitude (meV)")
    name = f"{style.literal(found.summary['mode'])} in {style.layer_text(found.summary['layer'])}"
    ax.set_title(f"{name}, {100 * found.summary['power_wanted']:.0f} % chance; dotted: as planned", fontsize=6.5)
    ax.legend(loc="upper right")


def _draw_chances(ax: Axes, found: Forecast) -> None:
    amplitude = np.asarray(found.chances["amplitude_mev"], dtype=float)
    cases: dict[str, Any] = {"as planned": "-", "twice the dose": "--", "twice the scans": "-."}
    drawn = False
    for (what, line), colour in zip(cases.items(), style.PALETTE, strict=False):
        chance = np.asarray(found.chances[what.replace(" ", "_")], dtype=float)
        if np.isfinite(chance).any():
            ax.plot(amplitude, 100 * chance, line, color=colour, label=what)
            drawn = True
    if not drawn:
        style.empty_note(ax, "too few half-slab planes for a test")
        return
    ax.axhline(100 * found.summary["power_wanted"], color=style.MUTED, linewidth=0.5, linestyle=":")
    ax.set(xlabel="true amplitude (meV)", ylabel="chance of detection (%)", ylim=(0, 103), xlim=(0, amplitude[-1]))
    ax.set_title(f"at p < {1 - found.summary['confidence']:.2g}")
    ax.legend(loc="lower right")
