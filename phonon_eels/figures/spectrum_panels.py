"""What the figure of a fitted spectrum shows: counts, zero-loss peak, background, every mode, their sum, residuals in σ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.marks import Limits, Line, Mark, Panel, Points, Rule, Span, Steps, edges_of

if TYPE_CHECKING:
    import pandas as pd

ENERGY = "energy_loss_mev"
ENERGY_LABEL = "energy loss (meV)"
NOT_COMPONENTS = frozenset({"counts_e", "model_e", "background_e", "zlp_e"})
COUNTS_COLOUR = "#8a8a8a"
BACKGROUND_COLOUR = "#a05a2c"
SIDES = ("loss side", "gain side", "both sides")
ZERO_LOSS_MEV = 10.0
"""Within it the zero-loss peak is all that is seen; the sides begin here."""
STEEP_MEV = 16.0
"""Below it the tail would set the scale of a linear axis."""

View = Literal["log", "linear", "loss"]
"""Logarithmic, linear, or linear without zero-loss peak and background."""
Table: TypeAlias = "Mapping[str, Any] | pd.DataFrame"
Pins = Sequence[tuple[str, np.ndarray, np.ndarray]]
"""(colour, energy_loss_mev, counts_e) of spectra to compare with."""


def component_names(table: Table) -> list[str]:
    """Return the modes that `mean_spectrum` has a column for (``<mode>_e``)."""
    return [str(name)[:-2] for name in table if str(name).endswith("_e") and name not in NOT_COMPONENTS]


def spectrum_panels(
    table: Table,
    *,
    view: View = "log",
    limits_mev: Limits | None = None,
    counts: tuple[np.ndarray, np.ndarray] | None = None,
    pins: Pins = (),
    word: str = "counts",
) -> tuple[Panel, Panel]:
    """Describe a fitted spectrum: what is drawn above, and the residuals below.

    Parameters
    ----------
    table
        (n,) columns as in `mean_spectrum` of `fit_peaks`: energy_loss_mev, counts_e, and as far as there: counts_e_std, model_e,
        residual_sigma, zlp_e, background_e and one ``<mode>_e`` per mode, electrons per channel.
    limits_mev
        Ends of the energy axis; default: all energies, of the "loss" view those of the modes.
    counts
        Energy losses and counts of all channels, where the table holds those of the fit alone; not for the "loss" view.
    pins
        Spectra to compare with; not for the "loss" view, since they have no fit here.
    word
        What the counts are, for the legend.
    """
    energy = column(table, ENERGY)
    if view == "loss" or counts is None:
        counts = energy, column(table, "counts_e")
    whole = (float(counts[0].min()), float(counts[0].max()))
    limits = limits_mev or (mode_window(table) if view == "loss" else whole)
    marks = tuple(_loss_marks(table, limits, word) if view == "loss" else _count_marks(table, counts, pins, word))
    heights = {"log": _log_limits, "linear": _linear_limits, "loss": _loss_limits}[view](table, counts, limits)
    less = "phonons (e⁻)" if "zlp_e" in table else "loss (e⁻)"
    y_label = less if view == "loss" else "e⁻ / channel"
    above = Panel(marks, ENERGY_LABEL, y_label, limits, heights, view == "log", legend_columns=2)
    return above, _residual_panel(table, limits)


def side_limits(table: Table, view: View, side: str, whole: Limits) -> Limits:
    """Return the ends of the energy axis for one of `SIDES`; all energies where a side has none."""
    low, high = whole
    if side == SIDES[0]:
        if view == "loss":
            return mode_window(table)
        low = max(low, ZERO_LOSS_MEV)
    elif side == SIDES[1]:
        high = min(high, -ZERO_LOSS_MEV)
    return (low, high) if low < high else whole


def _count_marks(table: Table, counts: tuple[np.ndarray, np.ndarray], pins: Pins, word: str) -> Iterator[Mark]:
    energy = column(table, ENERGY)
    for colour, x, y in pins:
        yield Line(x, y, colour, 0.7)
    yield Points(*counts, COUNTS_COLOUR, 2.2, label=word)
    for name, label, colour, dash in (
        ("zlp_e", "zero-loss peak", style.MUTED, "--"), ("background_e", "background", BACKGROUND_COLOUR, ":"),
    ):  # fmt: skip
        if name in table:
            yield Line(energy, column(table, name), colour, 1.0, dash, label)  # type: ignore[arg-type]
    for mode, colour in style.colours(component_names(table)).items():
        yield Line(energy, column(table, f"{mode}_e"), colour, 0.9, label=mode)
    if "model_e" in table:
        yield Line(energy, column(table, "model_e"), style.INK, 0.8, label="fit")


def _loss_marks(table: Table, limits: Limits, word: str) -> Iterator[Mark]:
    energy, under = column(table, ENERGY), _under(table)
    inside = (energy >= limits[0]) & (energy <= limits[1])
    x = energy[inside]
    std = column(table, "counts_e_std")[inside] if "counts_e_std" in table else None
    yield Rule(0.0, "y")
    yield Points(x, (column(table, "counts_e") - under)[inside], COUNTS_COLOUR, 2.2, std, word)
    for mode, colour in style.colours(component_names(table)).items():
        yield Line(x, column(table, f"{mode}_e")[inside], colour, 0.9, label=mode, fill=0.22)
    if "model_e" in table:
        yield Line(x, (column(table, "model_e") - under)[inside], style.INK, 0.9, label="fit")


def _residual_panel(table: Table, limits: Limits) -> Panel:
    """The scale always reaches the largest residual that is seen: none is cut."""
    if "residual_sigma" not in table:
        return Panel((), ENERGY_LABEL, "residual (σ)", limits, (-4.0, 4.0), title="no residual was stored")
    energy, residual = column(table, ENERGY), column(table, "residual_sigma")
    seen = residual[(energy >= limits[0]) & (energy <= limits[1]) & np.isfinite(residual)]
    reach = max(4.0, 1.1 * float(np.max(np.abs(seen), initial=0.0)))
    marks = (
        Span(-2.0, 2.0, "y", "#ececec"),
        Rule(0.0, "y"),
        Steps(edges_of(energy), residual, style.PALETTE[0], 0.6, fill=0.33),
    )
    return Panel(marks, ENERGY_LABEL, "residual (σ)", limits, (-reach, reach))


def _log_limits(table: Table, counts: tuple[np.ndarray, np.ndarray], limits: Limits) -> Limits:
    """From below the model's lowest value, and the counts' as far as they are not far below it, to above the highest."""
    values = _inside(*counts, limits)
    positive = values[values > 0.0]
    if positive.size == 0:
        return 0.1, 10.0
    floor = float(positive.min())
    if "model_e" in table:
        model = _inside(column(table, ENERGY), column(table, "model_e"), limits)
        model = model[model > 0.0]
        if model.size:
            floor = min(0.5 * float(model.min()), max(floor, 0.02 * float(model.min())))
    return 0.5 * floor, 2.0 * max(float(positive.max()), floor)


def _linear_limits(table: Table, counts: tuple[np.ndarray, np.ndarray], limits: Limits) -> Limits:
    """Let what lies clear of the zero-loss peak set the scale; where the peak itself is to be seen, the peak."""
    start = STEEP_MEV if 0.0 < limits[0] < STEEP_MEV < limits[1] else limits[0]
    values = _inside(*counts, (start, limits[1]))
    if not values.size:
        return 0.0, 1.0
    return min(1.1 * float(values.min()), 0.0), 1.2 * max(float(values.max()), 1e-12)


def _loss_limits(table: Table, counts: tuple[np.ndarray, np.ndarray], limits: Limits) -> Limits:
    """Let the model and what scatters about it set the scale, not the noise left of a steep zero-loss tail."""
    energy = column(table, ENERGY)
    name = "model_e" if "model_e" in table else "counts_e"
    shape = _inside(energy, column(table, name) - _under(table), limits)
    low, high = (float(shape.min()), float(shape.max())) if shape.size else (0.0, 1.0)
    reach = max(high - low, 1e-12)
    std = _inside(energy, column(table, "counts_e_std"), limits) if "counts_e_std" in table else np.zeros(0)
    spread = 3.0 * float(np.median(std)) if std.size else 0.0
    return min(low, 0.0) - max(0.15 * reach, spread), high + max(0.45 * reach, spread)


def _inside(energy: np.ndarray, values: np.ndarray, limits: Limits) -> np.ndarray:
    return np.asarray(values[(energy >= limits[0]) & (energy <= limits[1]) & np.isfinite(values)])


def _under(table: Table) -> np.ndarray:
    energy = column(table, ENERGY)
    return np.asarray(
        sum((column(table, name) for name in ("zlp_e", "background_e") if name in table), np.zeros_like(energy))
    )


def mode_window(table: Table) -> Limits:
    """Return the loss range of the modes: where their components exceed 2 % of the tallest, with a margin."""
    energy = column(table, ENERGY)
    modes = [column(table, f"{mode}_e") for mode in component_names(table)]
    total = np.sum(modes, axis=0) if modes else np.zeros_like(energy)
    some = (energy > 0) & (total > 0.02 * max(float(np.nanmax(total[energy > 0], initial=0.0)), 1e-300))
    if not modes or not some.any():
        return max(float(energy.min()), 0.15 * float(energy.max())), float(energy.max())
    low, high = float(energy[some].min()), float(energy[some].max())
    # The zero-loss peak ends about where the first mode's centre begins to stand clear of it.
    low = max(low, 0.5 * float(energy[int(np.argmax(np.where(energy > 0, modes[0], -1.0)))]))
    return low, min(high + 0.1 * (high - low), float(energy.max()))


def column(table: Table, name: str) -> np.ndarray:
    """Return a column of a table as an array."""
    return np.asarray(table[name], dtype=float)
