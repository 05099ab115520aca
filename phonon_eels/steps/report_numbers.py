"""What the report says in words, numbers and tables; every number with its std, unit and status."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phonon_eels.rounding import number, plus_minus
from phonon_eels.units import electron_wavelength_nm

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.config import Material
    from phonon_eels.spectrum_image import Acquisition
    from phonon_eels.steps.spec import StepContext


@dataclass(frozen=True)
class ReportTable:
    """A table of the report: words only, ready to print."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """The primary result as a sentence with its verdict."""

    sentence: str
    verdict: str
    tone: str
    """"claim", "none" or "untested": how the template colours it."""


def p_value(value: Any) -> str:
    """Return a p-value as it is printed."""
    p = number(value)
    if not math.isfinite(p):
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return the rows of a table as mappings; none for no table."""
    return [] if table is None else [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def table_of(context: StepContext, step: str, name: str) -> pd.DataFrame | None:
    """Return a table of an earlier step if it is there and has rows."""
    table = context.tables.get(step, {}).get(name)
    return table if table is not None and len(table) else None


def primary_row(context: StepContext) -> dict[str, Any]:
    """Return the row of the pre-declared primary test, or an empty mapping."""
    rows = records(table_of(context, "measure_modulation", "amplitudes"))
    return next((row for row in rows if row.get("role") == "primary"), {})


def headline(context: StepContext) -> Headline:
    """Return the primary result: claimed, not claimed or not testable, with its numbers."""
    summary = context.summaries.get("measure_modulation", {})
    row = primary_row(context)
    reason = summary.get("skipped") or ("" if summary else "measure_modulation has no result")
    status = str(row.get("status", "ok")).replace("_", " ")
    if not reason and not row:
        reason = "the primary mode and layer were not measured"
    if not reason and status not in ("ok", "converged", "nan"):
        reason = status.removeprefix("not testable").strip(" :;,") or status
    if reason:
        return Headline("The modulation by the superstructure was not tested.", f"not testable: {reason}", "untested")
    interval = f"{number(row.get('amplitude_low_mev')):.2f} to {number(row.get('amplitude_high_mev')):.2f} meV"
    if math.isfinite(number(row.get("amplitude_mev_syst"))):
        interval += (
            f", of counts and planes alone; systematic part ± {_digits(number(row.get('amplitude_mev_syst')))} meV"
        )
    sentence = (
        f"{row.get('mode')} in {row.get('layer')}: its energy varies with the superstructure phase by an amplitude of "
        f"{plus_minus(row.get('amplitude_mev'), row.get('amplitude_mev_std'), 'meV')} ({confidence_of(context)} interval {interval}), "
        f"p = {p_value(row.get('p_value'))} over {_whole(row.get('n_units'))} half-slab planes."
    ).replace("p = <", "p <")
    primary = summary.get("primary")
    if isinstance(primary, Mapping) and primary.get("lower_bound"):
        sentence += " The amplitude is a lower bound: the share of dipole scattering is not known."
    if bool(summary.get("claim")):
        return Headline(sentence, "claim", "claim")
    why = summary.get("claim_reason") or summary.get("reason") or ""
    return Headline(sentence, "no modulation claimed" + (f": {why}" if why else ""), "none")


def confidence_of(context: StepContext) -> str:
    """Return the confidence of the wider intervals as words."""
    primary = context.summaries.get("measure_modulation", {}).get("primary")
    amplitude = primary.get("amplitude_mev") if isinstance(primary, Mapping) else None
    told = amplitude.get("confidence") if isinstance(amplitude, Mapping) else None
    return f"{100 * (0.95 if told is None else float(told)):g} %"


def _whole(value: Any) -> str:
    n = number(value)
    return f"{n:.0f}" if math.isfinite(n) else "–"


def acquisition_facts(acquisition: Acquisition) -> str:
    """Return beam energy, semi-angles, geometry, temperature and dwell time as one line; unknown is said."""
    facts = [
        ("beam energy", acquisition.beam_energy_kev, "keV"),
        ("convergence semi-angle", acquisition.convergence_semi_angle_mrad, "mrad"),
        ("collection semi-angle", acquisition.collection_semi_angle_mrad, "mrad"),
        ("temperature", acquisition.temperature_k, "K"),
        ("dwell time", acquisition.dwell_time_s, "s"),
    ]
    words = [f"{name} {value:g} {unit}" if value is not None else f"{name} unknown" for name, value, unit in facts]
    frames = f"{acquisition.n_frames} frame" + ("s" if acquisition.n_frames != 1 else "")
    return ", ".join([*words, acquisition.geometry or "on- or off-axis unknown", frames])


def short_facts(acquisition: Acquisition) -> str:
    """Return beam energy, semi-angles and geometry as they end a caption."""
    named = [
        ("beam energy", acquisition.beam_energy_kev, "keV"),
        ("α", acquisition.convergence_semi_angle_mrad, "mrad"),
        ("β", acquisition.collection_semi_angle_mrad, "mrad"),
    ]
    words = [f"{name} {value:g} {unit}" if value is not None else f"{name} unknown" for name, value, unit in named]
    words[0] = words[0].removeprefix("beam energy ") if acquisition.beam_energy_kev is not None else words[0]
    return ", ".join([*words, acquisition.geometry or "on- or off-axis unknown"])


def spanned_zones(acquisition: Acquisition, material: Material) -> float | None:
    """Return how many Brillouin zones the wider semi-angle covers along a, None where that is unknown.

    The boundary lies at λ/(2a); a probe or a detector much wider than that sees a projected density of phonons
    and no single mode.
    """
    angles = (acquisition.convergence_semi_angle_mrad, acquisition.collection_semi_angle_mrad)
    known = [angle for angle in angles if angle is not None]
    if not known or acquisition.beam_energy_kev is None or material.crystal is None:
        return None
    boundary_mrad = 1e3 * electron_wavelength_nm(acquisition.beam_energy_kev) / (2 * material.crystal.a_nm)
    return max(known) / boundary_mrad


def peak_word(acquisition: Acquisition, material: Material) -> str:
    """Return what a fitted peak may be called with these angles."""
    zones = spanned_zones(acquisition, material)
    return "peak of the projected phonon density" if zones is not None and zones > 2 else "peak"


def mode_table(context: StepContext, word: str) -> ReportTable | None:
    """Return energies, widths and areas of the modes over the whole scan."""
    rows = records(table_of(context, "fit_peaks", "modes"))
    if not rows:
        return None
    energy = "energy_mev" if "energy_mev" in rows[0] else "apparent_energy_mev"
    systematic = any(math.isfinite(number(row.get(f"{energy}_syst"))) for row in rows)
    header = ["mode", "assignment", "energy (meV)", *(["syst. (meV)"] if systematic else []), "FWHM (meV)"]
    lines = [
        [
            str(row.get("mode")),
            _text(row.get("label")),
            plus_minus(row.get(energy), row.get(f"{energy}_std", math.nan)),
            *([f"± {number(row.get(f'{energy}_syst')):.2g}"] if systematic else []),
            plus_minus(row.get("fwhm_mev"), row.get("fwhm_mev_std", math.nan)),
            plus_minus(row.get("area_e"), row.get("area_e_std", math.nan)),
            _whole(row.get("n_positions")),
            _text(row.get("identifiable")),
        ]
        for row in rows
    ]
    kind = "" if energy == "energy_mev" else " Apparent energies: occupation and resolution are not taken out."
    return ReportTable(
        f"Modes ({word} near each energy)",
        (*header, "area (e⁻)", "positions", "status"),
        _frozen(lines),
        "Mean over the scan ± statistical standard deviation." + kind,
    )


def pair_table(context: StepContext) -> ReportTable | None:
    """Return centroid, splitting and area ratio of the pairs closer than the resolution."""
    rows = records(table_of(context, "fit_peaks", "pairs"))
    lines = [
        [
            _text(row.get("pair")),
            *(
                plus_minus(row.get(name), row.get(f"{name}_std", math.nan))
                for name in ("centroid_mev", "splitting_mev", "area_ratio")
            ),
            _text(row.get("identifiable", row.get("status"))),
        ]
        for row in rows
    ]
    header = ("pair", "area-weighted centroid (meV)", "splitting (meV)", "area ratio", "status")
    note = "Modes closer than the resolution: these three are what the data say of them."
    return ReportTable("Pairs of neighbouring modes", header, _frozen(lines), note) if lines else None


def limit_table(context: StepContext) -> ReportTable | None:
    """Return what the data can tell of each mode, and how its energy depends on the shape of the zero-loss peak."""
    rows = records(table_of(context, "fit_peaks", "modes"))
    if not rows or "energy_mev_per_ln_fwhm" not in rows[0]:
        return None
    counts = context.summaries.get("fit_peaks", {}).get("identifiability_counts", {})
    lines = []
    for row in rows:
        of_mode = counts.get(row.get("mode"), {})
        told = sum(number for word, number in of_mode.items() if word != "failed")
        shares = [
            f"{100.0 * of_mode[word] / told:.0f} %" if told else "–" for word in ("identifiable", "centroid only")
        ]
        slopes = [
            number(row.get(f"energy_mev_per_ln_{name}", math.nan)) / 100.0
            for name in ("fwhm", "tail_loss", "tail_gain")
        ]
        energy = "energy_mev" if "energy_mev" in row else "apparent_energy_mev"
        lines.append(
            [
                str(row.get("mode")),
                _digits(number(row.get(f"{energy}_crb_position"))),
                *shares,
                _digits(number(row.get("posterior_prior_ratio"))),
                *(f"{slope:+.3f}" if math.isfinite(slope) else "–" for slope in slopes),
            ]
        )
    header = (
        "mode",
        "Cramér-Rao bound at a position (meV)",
        "identifiable",
        "centroid only",
        "posterior / prior width",
    )
    effects = tuple(f"shift for +1 % {name} (meV)" for name in ("FWHM", "loss tail", "gain tail"))
    note = (
        "The bound is that of the data alone, everything else marginalised. Shifts are what an error of the zero-loss "
        "peak's shape would do to the energies; width and tails are fitted at every position, so only what they miss counts."
    )
    return ReportTable("What the data can tell", (*header, *effects), _frozen(lines), note)


def _digits(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "–"


def amplitude_table(context: StepContext) -> ReportTable | None:
    """Return amplitude, interval, phase and p-values of every mode and layer."""
    rows = records(table_of(context, "measure_modulation", "amplitudes"))
    lines = [
        [
            _text(row.get("role")),
            _text(row.get("mode")),
            _text(row.get("layer")),
            plus_minus(row.get("amplitude_mev"), row.get("amplitude_mev_std", math.nan)),
            _digits(number(row.get("amplitude_mev_syst"))),
            interval_text(row.get("amplitude_low_68_mev"), row.get("amplitude_high_68_mev")),
            interval_text(row.get("amplitude_low_mev"), row.get("amplitude_high_mev")),
            plus_minus(row.get("phase_rad"), row.get("phase_rad_std", math.nan)),
            p_value(row.get("p_value")),
            p_value(row.get("p_value_holm")),
            _whole(row.get("n_units")),
            _text(row.get("status")),
        ]
        for row in rows
    ]
    header = (
        "role",
        "mode",
        "layer",
        "amplitude (meV)",
        "syst. (meV)",
        "68 % interval (meV)",
        f"{confidence_of(context)} interval (meV)",
        "phase (rad)",
        "p",
        "p (Holm)",
        "planes",
    )
    note = "Phase 0: highest energy at the outward crest. Only the primary test was declared before the data were seen."
    return ReportTable("Modulation by the superstructure", (*header, "status"), _frozen(lines), note) if lines else None


def interval_text(low: Any, high: Any) -> str:
    """Return an interval as words."""
    a, b = number(low), number(high)
    return f"{a:.3f} … {b:.3f}" if math.isfinite(a) and math.isfinite(b) else "–"


def quantity_table(context: StepContext) -> ReportTable | None:
    """Return every quantity that a step's summary states, wherever it stands in it."""
    lines = []
    for step, summary in context.summaries.items():
        for name, quantity in _quantities(summary):
            unit = str(quantity.get("unit") or "")
            status, std = quantity.get("status"), quantity.get("std")
            if std is None and status != "given":  # then the line says that there is none
                std = math.nan
            value = plus_minus(quantity.get("value"), std, "" if unit == "1" else unit)
            lines.append([step, name, value, _text(status)])
    return ReportTable("Further quantities", ("step", "quantity", "value", "status"), _frozen(lines)) if lines else None


def _quantities(summary: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Mapping[str, Any]]]:
    for name, value in summary.items():
        if isinstance(value, Mapping):
            if "value" in value and "unit" in value:
                if not isinstance(value["value"], Sequence) or isinstance(value["value"], str):
                    yield f"{prefix}{name}", value
            else:
                yield from _quantities(value, f"{prefix}{name}.")


def quality_table(context: StepContext) -> ReportTable | None:
    """Return the quality checks: tables with check and verdict, and what summaries hold under `quality` or `checks`."""
    lines = []
    tabled = set()
    for step, tables in context.tables.items():
        for table in tables.values():
            if {"check", "verdict"} <= set(map(str, table.columns)):
                tabled.add(step)
                lines += [_check_line(step, str(row["check"]), row) for row in records(table)]
    for step, summary in context.summaries.items():
        for key in ("quality", "checks", "defences"):
            found = [] if step in tabled else _checks(summary.get(key))
            lines += [_check_line(step, name, check) for name, check in found]
    header = ("step", "check", "verdict", "value", "what it says")
    return ReportTable("Quality checks", header, _frozen(lines)) if lines else None


def _check_line(step: str, name: str, check: Mapping[str, Any]) -> list[str]:
    verdict = check.get("verdict", check.get("status", check.get("result", "")))
    words = next((check[key] for key in ("sentence", "message", "detail", "reason") if key in check), "")
    return [step, _text(name), _text(verdict), _check_value(check), str(words)]


def _checks(found: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(found, Mapping):
        if isinstance(found.get("checks"), list | tuple | Mapping):
            return _checks(found["checks"])
        return [(str(k), v if isinstance(v, Mapping) else {"verdict": v}) for k, v in found.items()]
    if isinstance(found, list | tuple):
        return [(str(c.get("name", c.get("check", "check"))), c) for c in found if isinstance(c, Mapping)]
    return []


def _check_value(check: Mapping[str, Any]) -> str:
    value = check.get("value")
    if isinstance(value, Mapping):
        return plus_minus(value.get("value"), value.get("std", math.nan), str(value.get("unit") or ""))
    if isinstance(value, str):
        return value
    unit = _text(check.get("unit")).replace("1", "") if check.get("unit") == "1" else _text(check.get("unit"))
    return plus_minus(value, check.get("std"), unit) if math.isfinite(number(value)) else ""


def _text(value: Any) -> str:
    """Return a cell's words; nothing for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return "yes" if value is True else "no" if value is False else str(value).replace("_", " ")


def _frozen(lines: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(line) for line in lines)
