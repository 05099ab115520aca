"""The report's tables on layers and on the superconducting gap, and what angles and geometry allow to say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from phonon_eels.lattice.unmix import EVERYWHERE
from phonon_eels.rounding import number, plus_minus
from phonon_eels.steps.report_numbers import ReportTable, interval_text, records, table_of

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


def layer_table(context: StepContext) -> ReportTable | None:
    """Return how much of each mode's area comes from each layer."""
    rows = records(table_of(context, "measure_modulation", "mode_layers"))
    if not rows:
        return None
    layers = [name for name in dict.fromkeys(str(row["layer"]) for row in rows) if name != EVERYWHERE]
    lines = []
    for mode in dict.fromkeys(str(row["mode"]) for row in rows):
        of_mode = {str(row["layer"]): row for row in rows if str(row["mode"]) == mode}
        shares = [plus_minus(of_mode[layer]["share"], of_mode[layer]["share_std"]) for layer in layers]
        lines.append((mode, *shares, plus_minus(of_mode[EVERYWHERE]["area_e"], of_mode[EVERYWHERE]["area_e_std"])))
    header = ("mode", *(f"share of {layer}" for layer in layers), "everywhere (e⁻)")
    note = (
        "Share of each layer in the part of the mode's area that is tied to planes; positions are taken as sums over the planes near "
        "them. Energy alone assigns no peak: near 78 meV lie an in-plane mode of CuO2 and one of the apical oxygen in SrO, "
        "0.172 nm away; the shares say which."
    )
    return ReportTable("Layers of the modes", header, tuple(lines), note)


def leakage_table(context: StepContext) -> ReportTable | None:
    """Return which layers are seen on each layer."""
    rows = records(table_of(context, "assign_layers", "leakage"))
    if not rows:
        return None
    sources = list(dict.fromkeys(str(row["source"]) for row in rows))
    lines = []
    for probe in dict.fromkeys(str(row["probe"]) for row in rows):
        seen = {str(row["source"]): row for row in rows if str(row["probe"]) == probe}
        lines.append((probe, *(plus_minus(seen[name]["share"], seen[name]["share_std"]) for name in sources)))
    origin = str(rows[0]["origin"])
    how = "from the distances to the planes in the HAADF" if origin == "haadf" else f"from the file {origin}"
    note = (
        f"Share of the signal tied to planes, {how}; deviations are those of the width of localisation or of the file."
    )
    return ReportTable("Leakage between layers", ("seen on", *(f"from {name}" for name in sources)), tuple(lines), note)
