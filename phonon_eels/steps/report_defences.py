"""Tables of the report on what the modulation's claim rests on: defences, estimators, systematic parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from phonon_eels.rounding import number, plus_minus
from phonon_eels.steps.report_numbers import ReportTable, confidence_of, interval_text, p_value, records, table_of

if TYPE_CHECKING:
    from phonon_eels.steps.spec import StepContext

STEP = "measure_modulation"


def defence_tables(context: StepContext) -> list[ReportTable]:
    """Return the tables that there are."""
    found = (_defences(context), _estimators(context), _systematics(context), _energies(context), _others(context))
    return [table for table in found if table is not None]


def _sized(value: object, std: object, unit: object) -> str:
    words = plus_minus(value, std if math.isfinite(number(std)) else None)
    return words if str(unit) == "1" or words == "–" else f"{words} {unit}"


def _defences(context: StepContext) -> ReportTable | None:
    rows = tuple(
        (
            str(row["defence"]), str(row["verdict"]), _sized(row["value"], row["std"], row["unit"]),
            p_value(row["p_value"]), str(row["sentence"]),
        )
        for row in records(table_of(context, STEP, "defences"))
    )  # fmt: skip
    note = "pass, fail, no power (this scan cannot tell) or not distinguished (it could be either). One fail forbids the claim."
    header = ("defence", "verdict", "number", "p", "what it says")
    return ReportTable("Defences of the modulation", header, rows, note) if rows else None


def _estimators(context: StepContext) -> ReportTable | None:
    rows = tuple(
        (
            str(row["estimator"]).replace("_", " "), plus_minus(row["cos_mev"], row["cos_mev_std"], "meV"),
            plus_minus(row["sin_mev"], row["sin_mev_std"], "meV"),
            interval_text(row.get("amplitude_low_68_mev"), row.get("amplitude_high_68_mev")),
            interval_text(row.get("amplitude_low_mev"), row.get("amplitude_high_mev")),
            plus_minus(row.get("phase_rad"), row.get("phase_rad_std", math.nan)),
            plus_minus(row["difference_cos_mev"], row["difference_cos_mev_std"]) if row["estimator"] != "joint" else "",
            plus_minus(row["difference_sin_mev"], row["difference_sin_mev_std"]) if row["estimator"] != "joint" else "",
            p_value(row["difference_p_value"]), str(row["verdict"]),
        )
        for row in records(table_of(context, STEP, "estimators"))
    )  # fmt: skip
    header = (
        "estimator",
        "cosine part",
        "sine part",
        "68 % interval (meV)",
        f"{confidence_of(context)} interval (meV)",
        "phase (rad)",
        "difference (cos)",
        "difference (sin)",
        "p of the difference",
        "",
    )
    note = (
        "All read the same counts; differences from the joint fit are formed plane by plane, with errors of their own."
    )
    return ReportTable("The primary amplitude by every estimator", header, rows, note) if rows else None


SYSTEMATIC_KINDS = (("window", "window"), ("model", "line shape"), ("zero_loss", "zero-loss tails"))


def _systematics(context: StepContext) -> ReportTable | None:
    """Return the parts of every amplitude's uncertainty; below it what each variant makes of the primary one."""
    rows = [r for r in records(table_of(context, STEP, "amplitudes")) if r.get("method") == "joint"]
    if not rows or "syst_leakage_mev" not in rows[0]:
        return None
    parts = ("amplitude_mev_std", "syst_leakage_mev", *(f"syst_{kind}_mev" for kind, _ in SYSTEMATIC_KINDS))
    lines = tuple(
        (str(r["mode"]), str(r["layer"]), *(_size(r.get(key)) for key in (*parts, "amplitude_mev_syst"))) for r in rows
    )
    kinds = tuple(words for _, words in SYSTEMATIC_KINDS)
    header = ("mode", "layer", "statistical", "leakage, second order", *kinds, "all systematic")
    primary = next((r["mode"] for r in rows if r.get("role") == "primary"), None)
    variants = [r for r in records(table_of(context, STEP, "systematics")) if r.get("mode") == primary]
    told = "; ".join(f"{r['variant']} {number(r['amplitude_mev']):.4g}" for r in variants)
    note = "meV. Statistical: scatter of the planes. Systematic: the largest change that a variant of the fit makes."
    if told:
        note += f" {primary} with each variant: {told} meV."
    return ReportTable("Parts of every amplitude's uncertainty", header, lines, note)


def _energies(context: StepContext) -> ReportTable | None:
    """Return the parts of every mean energy's uncertainty."""
    rows = [r for r in records(table_of(context, STEP, "amplitudes")) if r.get("method") == "joint"]
    if not rows or not any(math.isfinite(number(r.get("mean_energy_mev_syst"))) for r in rows):
        return None
    keys = (*(f"energy_syst_{kind}_mev" for kind, _ in SYSTEMATIC_KINDS), "mean_energy_mev_syst")
    lines = tuple(
        (
            str(r["mode"]), plus_minus(r["mean_energy_mev"], r["mean_energy_mev_std"], "meV"),
            *(_size(r.get(key)) for key in keys),
        )
        for r in rows
    )  # fmt: skip
    header = ("mode", "energy ± statistical", *(words for _, words in SYSTEMATIC_KINDS), "all systematic")
    note = "meV, modulation taken out. The calibration's part, the same for all modes, stands with the modes."
    return ReportTable("Parts of every mean energy's uncertainty", header, lines, note)


def _size(value: object) -> str:
    return f"{number(value):.2g}" if math.isfinite(number(value)) else "–"


def _others(context: StepContext) -> ReportTable | None:
    rows = tuple(
        (
            str(row["quantity"]), str(row["mode"]), str(row["layer"]),
            _sized(row["amplitude"], row["amplitude_std"], row["unit"]),
            interval_text(row.get("amplitude_low_68"), row.get("amplitude_high_68")),
            interval_text(row.get("amplitude_low"), row.get("amplitude_high")),
            plus_minus(row.get("phase_rad"), row.get("phase_rad_std", math.nan)), p_value(row["p_value"]), str(row["role"]),
        )
        for row in records(table_of(context, STEP, "other_quantities"))
    )  # fmt: skip
    wider = f"{confidence_of(context)} interval"
    header = ("quantity", "mode", "layer", "amplitude", "68 % interval", wider, "phase (rad)", "p", "role")
    return ReportTable("What else follows the wave", header, rows, "Not corrected for their number.") if rows else None
