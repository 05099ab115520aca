"""The report's table on the superconducting gap."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from phonon_eels.steps.report_numbers import ReportTable, interval_text, number, plus_minus, records, table_of

if TYPE_CHECKING:
    from phonon_eels.steps.spec import StepContext


def gap_table(context: StepContext) -> ReportTable | None:
    """Return the comparison of the modulation's phase with the gap's; None where none was made."""
    lines = []
    for row in records(table_of(context, "measure_modulation", "gap")):
        unit = "" if row["unit"] == "1" else str(row["unit"])
        value = plus_minus(row["value"], row["std"] if math.isfinite(number(row["std"])) else None, unit)
        circle = number(row["high"]) - number(row["low"]) >= 2 * math.pi
        interval = "whole circle" if circle else interval_text(row["low"], row["high"])
        lines.append(
            (str(row["quantity"]), value, interval, str(row["sentence"]) if row["sentence"] == row["sentence"] else "")
        )
    header = ("quantity", "value", "interval", "what it says")
    note = "A comparison of phases, no evidence of a coupling."
    return ReportTable("Superconducting gap", header, tuple(lines), note) if lines else None
