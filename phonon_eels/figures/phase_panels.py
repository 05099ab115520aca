"""What the figures over the phase of the superstructure show: energies with their harmonic, the gap, the scan of periods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.figures import style
from phonon_eels.figures.marks import Band, Line, Mark, Panel, Points, Rule, Span, padded

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("primary", "secondary", "exploratory")
PHASE_LABEL = "superstructure phase (rad)"
PHASE_LIMITS = (-np.pi * 1.04, np.pi * 1.04)
PHASE_TICKS = ((-np.pi, "−π"), (-np.pi / 2, "−π/2"), (0.0, "0\ncrest"), (np.pi / 2, "π/2"), (np.pi, "π"))
GAP_COLOUR = style.PALETTE[2]


def ranked_pairs(amplitudes: pd.DataFrame | None, table: pd.DataFrame, limit: int) -> list[tuple[str, str]]:
    """Return the (mode, layer) pairs of a table, the pre-declared primary one first, at most `limit` of them."""
    pairs = list(dict.fromkeys(zip(table["mode"].astype(str), table["layer"].astype(str), strict=True)))
    rank: dict[tuple[str, str], int] = {}
    for row in _records(amplitudes):
        # A pair may have rows of several methods; the first of the highest role counts.
        pair = (str(row.get("mode")), str(row.get("layer")))
        rank[pair] = min(ROLES.index(row["role"]) if row.get("role") in ROLES else 3, rank.get(pair, 4))
    return sorted(pairs, key=lambda pair: rank.get(pair, 4))[:limit]


def amplitude_of(amplitudes: pd.DataFrame | None, mode: str, layer: str) -> dict[str, Any]:
    """Return the row of the table of amplitudes for a mode in a layer, or an empty mapping."""
    return next((r for r in _records(amplitudes) if str(r.get("mode")) == mode and str(r.get("layer")) == layer), {})


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def phase_panel(phase_bins: pd.DataFrame, amplitudes: pd.DataFrame | None, mode: str, layer: str) -> Panel:
    """Describe one mode in one layer: energies by phase with their deviations, and the fitted harmonic.

    The mean energy is read from the bins, the harmonic from the table of amplitudes.

    Parameters
    ----------
    phase_bins
        mode, layer, phase_rad, energy_mev, energy_mev_std.
    amplitudes
        mode, layer, cos_mev, sin_mev and their ``_std``, amplitude_mev, p_value, role.
    """
    part = phase_bins[(phase_bins["mode"].astype(str) == mode) & (phase_bins["layer"].astype(str) == layer)]
    phase = folded(np.asarray(part["phase_rad"], dtype=float))
    energy = np.asarray(part["energy_mev"], dtype=float)
    std = np.asarray(part["energy_mev_std"], dtype=float) if "energy_mev_std" in part else np.full_like(energy, np.nan)
    row = amplitude_of(amplitudes, mode, layer)
    role = row.get("role", "")
    primary = role == "primary"
    harmonic = tuple(_harmonic(row, phase, energy, std, style.PALETTE[1] if primary else style.PALETTE[0]))
    marks = (*harmonic, Points(phase, energy, style.INK, 3.0, std))
    reach = np.nan_to_num(std)
    seen = [energy - reach, energy + reach, *(mark.y for mark in harmonic if isinstance(mark, Line))]
    heading = f"{mode} in {style.subscripts(layer)}" + (f" ({role})" if role in ROLES else "")
    return Panel(
        marks, PHASE_LABEL, "energy (meV)", PHASE_LIMITS, padded(np.concatenate(seen), 0.12), x_ticks=PHASE_TICKS,
        title=f"{heading}\n{amplitude_words(row)}", title_colour=style.PALETTE[1] if primary else style.INK,
    )  # fmt: skip


def folded(phase: np.ndarray) -> np.ndarray:
    """Return phases in (−π, π]."""
    return np.asarray(np.pi - np.mod(np.pi - phase, 2 * np.pi))


def _harmonic(
    row: Mapping[str, Any], phase: np.ndarray, energy: np.ndarray, std: np.ndarray, colour: str
) -> Iterator[Mark]:
    good = np.isfinite(energy) & np.isfinite(phase)
    if not finite(row, "cos_mev", "sin_mev") or not good.any():
        return
    cos, sin = float(row["cos_mev"]), float(row["sin_mev"])
    known = good & np.isfinite(std) & (std > 0)
    weight = np.where(known, 1 / np.where(known, std, 1) ** 2, 0.0) if known.any() else good.astype(float)
    rest = np.where(good, energy - cos * np.cos(phase) - sin * np.sin(phase), 0.0)
    mean = float((weight * rest).sum() / weight.sum())
    dense = np.linspace(*PHASE_LIMITS, 200)
    curve = mean + cos * np.cos(dense) + sin * np.sin(dense)
    if finite(row, "cos_mev_std", "sin_mev_std"):
        width = np.hypot(float(row["cos_mev_std"]) * np.cos(dense), float(row["sin_mev_std"]) * np.sin(dense))
        yield Band(dense, curve - width, curve + width, colour)
    yield Rule(mean, "y", width_pt=0.4, dash=":")
    yield Line(dense, curve, colour)


def amplitude_words(row: Mapping[str, Any]) -> str:
    """Return amplitude and p-value of a row of the table of amplitudes as words."""
    words = []
    if finite(row, "amplitude_mev"):
        words.append(f"{float(row['amplitude_mev']):.3f}")
        if finite(row, "amplitude_mev_std"):
            words[0] += f" ± {float(row['amplitude_mev_std']):.3f}"
        words[0] = f"amplitude {words[0]} meV"
    if finite(row, "p_value"):
        words.append(p_text(float(row["p_value"])))
    return ", ".join(words) or "no amplitude"


def p_text(p_value: float) -> str:
    """Return a p-value as words."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def finite(row: Mapping[str, Any], *names: str) -> bool:
    """Say whether a row has finite numbers of these names."""
    try:
        return all(math.isfinite(float(row[name])) for name in names)
    except (KeyError, TypeError, ValueError):
        return False


def gap_panel(gap_curve: pd.DataFrame, gap: pd.DataFrame | None = None) -> Panel:
    """Describe the superconducting gap over the phase, and what the comparison found.

    Parameters
    ----------
    gap_curve
        kind ("harmonic" or "measured"), phase_rad, gap_mev, gap_std_mev.
    gap
        quantity, value, low, high; the phase difference stands in the title.
    """
    curve, points = (gap_curve[gap_curve["kind"] == kind].sort_values("phase_rad") for kind in ("harmonic", "measured"))
    phase, value, std = _gap_columns(curve)
    label = "harmonic of the measured gap" if len(points) else "template of the literature"
    marks: list[Mark] = [
        Band(phase, value - std, value + std, GAP_COLOUR, 0.25),
        Line(phase, value, GAP_COLOUR, label=label),
    ]
    seen = [value - std, value + std]
    if len(points):
        phase, value, std = _gap_columns(points)
        marks.append(Points(folded(phase), value, style.INK, 3.0, std, "measured"))
        seen += [value - np.nan_to_num(std), value + np.nan_to_num(std)]
    low, high = padded(np.concatenate(seen), 0.1)
    return Panel(
        tuple(marks), PHASE_LABEL, "Δ (meV)", PHASE_LIMITS, (low, high + 0.25 * (high - low)), x_ticks=PHASE_TICKS,
        title="" if gap is None else difference_words(gap),
    )  # fmt: skip


def _gap_columns(table: pd.DataFrame) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(table[name], dtype=float) for name in ("phase_rad", "gap_mev", "gap_std_mev"))


def difference_words(gap: pd.DataFrame) -> str:
    """Return the difference between the phases of energy and gap as words."""
    rows = gap[gap["quantity"] == "phase of energy less phase of gap"]
    if not len(rows):
        return "no phase difference"
    row = rows.iloc[0]
    if row["high"] - row["low"] >= 2 * np.pi:
        return "phase difference unknown"
    return f"phase of energy less phase of gap {row['value']:.2f} rad, interval {row['low']:.2f} … {row['high']:.2f}"


def period_panel(table: pd.DataFrame, *, period_nm: float | None = None, period_std_nm: float | None = None) -> Panel:
    """Describe the test statistic against an assumed period; the period of the HAADF is marked, not fitted here.

    Parameters
    ----------
    table
        period_nm, statistic (dimensionless).
    """
    ordered = table.sort_values("period_nm")
    period, statistic = (np.asarray(ordered[name], dtype=float) for name in ("period_nm", "statistic"))
    marks: list[Mark] = [
        Line(period, statistic, style.PALETTE[0]),
        Points(period, statistic, style.PALETTE[0], 2.0),
    ]
    if period_nm is not None and math.isfinite(period_nm):
        std = period_std_nm if period_std_nm is not None and math.isfinite(period_std_nm) else 0.0
        words = f"HAADF: {period_nm:.3f} ± {std:.3f} nm"
        marks.insert(0, Span(period_nm - std, period_nm + std, "x", style.PALETTE[1], 0.3))
        marks.append(Rule(period_nm, "x", style.PALETTE[1], 0.8, label=words))
    top = max(float(np.nanmax(statistic, initial=0.0)), 1e-12)
    heights = (min(0.0, float(np.nanmin(statistic, initial=0.0))), 1.25 * top)
    return Panel(tuple(marks), "assumed period (nm)", "statistic (1)", padded(period, 0.03), heights)
