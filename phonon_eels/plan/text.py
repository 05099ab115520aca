"""A forecast as a page of text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from phonon_eels.plan.forecast import Forecast

MARKS = {"ok": "", "prior dominated": "*", "vanished": "!"}
NOTES = {
    "*": "mostly the prior: a neighbour is closer than the resolution",
    "!": "below 3 standard deviations of its area: single positions do not show this mode, a plane or a scan may",
}


def as_text(found: Forecast) -> str:
    """Return the forecast in words and tables that fit 100 columns."""
    summary = found.summary
    lines = [*_beam(summary), "", *_answer(summary), "", *_modes(found)]
    if len(found.pairs):
        lines += ["", *_pairs(found)]
    lines += ["", *_choices(found)]
    for title, sentences in (("Look at this:", summary["warnings"]), ("Assumed:", summary["assumptions"])):
        lines += ["", title, *(f"  - {sentence}" for sentence in sentences)] if sentences else []
    return "\n".join(lines) + "\n"


def _beam(summary: dict[str, Any]) -> list[str]:
    return [
        f"{summary['zero_loss_electrons_e']:.3g} electrons in the zero-loss peak per position, "
        f"{summary['dose_e_per_square_angstrom']:.2g} e/Å² on the specimen in a scan,",
        f"{summary['positions_per_scan']} positions and {summary['minutes_per_scan']:.0f} min of dwell time per scan, "
        f"{summary['periods']:.1f} periods of the superstructure, {summary['n_planes']} half-slab planes in all scans.",
    ]


def _answer(summary: dict[str, Any]) -> list[str]:
    what = f"the energy of {summary['mode']} in {summary['layer']}"
    if not summary["testable"]:
        needed = summary["scans_needed"]
        return [
            f"A modulation of {what} cannot be tested: too few planes. "
            + (f"{needed} such scans would do for {summary['amplitude_mev']:g} meV." if needed else "")
        ]
    sentences = [
        f"A modulation of {what} of {summary['detectable_mev']:.3g} meV is detected with {100 * summary['power_wanted']:.0f} % "
        f"chance at p < {1 - summary['confidence']:.2g}",
        f"(a component of one plane's amplitude has a standard deviation of {summary['amplitude_plane_std_mev']:.3g} meV).",
    ]
    asked = f"{summary['amplitude_mev']:g} meV is detected with {100 * summary['chance']:.0f} % chance"
    needed = summary["scans_needed"]
    if summary["chance"] >= summary["power_wanted"]:
        return [*sentences, f"{asked}."]
    more = f"{needed} such scans are needed" if needed else "no number of such scans up to 1,000 is enough"
    return [*sentences, f"{asked}; for {100 * summary['power_wanted']:.0f} % {more}."]


def _modes(found: Forecast) -> list[str]:
    header = ("mode", "layer", "E (meV)", "electrons", "σ(E) position", "σ(E) plane", "σ(E) scans", "detectable A")
    rows = [
        (
            row["mode"], row["layer"] or "-", f"{row['energy_mev']:.1f}",
            f"{row['electrons_on_plane_e']:.0f} ± {row['area_position_std_e']:.0f}",
            _number(row["energy_position_std_mev"]) + MARKS[row["position"]],
            _number(row["energy_plane_std_mev"]), _number(row["energy_scan_std_mev"]), _number(row["detectable_mev"]),
        )
        for row in found.modes.to_dict("records")
    ]  # fmt: skip
    marks = {MARKS[word] for word in found.modes["position"]}
    note = [f"  {mark} {text}" for mark, text in NOTES.items() if mark in marks]
    title = "Standard deviations in meV: at one position on top of the plane, of one half-slab plane, of all scans"
    return [title, *_table(header, rows), *note]


def _pairs(found: Forecast) -> list[str]:
    header = ("pair", "splitting (meV)", "σ(splitting)", "σ(centroid)")
    rows = [
        (
            row["pair"],
            f"{row['splitting_mev']:.1f}",
            _number(row["splitting_scan_std_mev"]),
            _number(row["centroid_scan_std_mev"]),
        )
        for row in found.pairs.to_dict("records")
    ]
    return ["Modes closer than the resolution, all scans", *_table(header, rows)]


def _choices(found: Forecast) -> list[str]:
    header = ("what more would buy", "planes", "σ(A) plane", "detectable A (meV)", "e/Å² per scan")
    rows = [
        (
            row["choice"], str(row["n_planes"]), _number(row["amplitude_plane_std_mev"]), _number(row["detectable_mev"]),
            f"{row['dose_e_per_square_angstrom']:.2g}",
        )
        for row in found.choices.to_dict("records")
    ]  # fmt: skip
    return _table(header, rows)


def _number(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.3g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    lines = [
        "  "
        + "  ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
    return [lines[0], "  " + "-" * (len(lines[0]) - 2), *lines[1:]]
