"""Measured against truth, for simulated data: what was planted, what was found, and how far apart in std."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from phonon_eels.rounding import number
from phonon_eels.steps.report_numbers import primary_row, records, table_of

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.steps.spec import StepContext

COLUMNS = ("quantity", "measured", "std", "truth", "pull", "unit", "verdict")
MAX_PULL = 3.0
"""Further from the truth than this many std: disagrees."""

Row = dict[str, Any]


def compare_with_truth(context: StepContext) -> pd.DataFrame | None:
    """Return measured quantities beside their truth, None without truth.

    Only what the fit itself calls identifiable is held against the truth; the amplitude of the primary test has to
    have the truth inside its 95 % interval.

    Returns
    -------
    pandas.DataFrame or None
        quantity, measured, std, truth, pull = (measured − truth) / std, unit, verdict ("agrees" or "disagrees").
    """
    import pandas as pd

    if context.truth is None:
        return None
    modes = {str(mode.get("name")): mode for mode in context.truth.get("modes", []) if isinstance(mode, Mapping)}
    rows = [
        *_mode_rows(context, modes),
        *_pair_rows(context, modes),
        *_amplitude_rows(context, modes),
        *_period(context),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(quantity: str, measured: Any, std: Any, truth: Any, unit: str) -> Row | None:
    m, s, t = number(measured), number(std), number(truth)
    if not (math.isfinite(m) and math.isfinite(s) and s > 0 and math.isfinite(t)):
        return None
    pull = (m - t) / s
    verdict = "agrees" if abs(pull) <= MAX_PULL else "disagrees"
    return dict(zip(COLUMNS, (quantity, m, s, t, pull, unit, verdict), strict=True))


def _mode_rows(context: StepContext, modes: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    found = []
    # Of modes closer than the resolution the pair's numbers are compared: those of each alone are nearly one number.
    paired = {name for row in records(table_of(context, "fit_peaks", "pairs")) for name in _parts(row, modes)}
    for row in records(table_of(context, "fit_peaks", "modes")):
        true = modes.get(str(row.get("mode")))
        # Apparent energies of the classic route are not the intrinsic ones that were planted.
        if (
            true is None
            or row["mode"] in paired
            or row.get("identifiable") != "identifiable"
            or "energy_mev" not in row
        ):
            continue
        energy, std = row["energy_mev"], row.get("energy_mev_std")
        joint = next(
            (r for r in records(table_of(context, "measure_modulation", "modes")) if r["mode"] == row["mode"]), None
        )
        if joint is not None and math.isfinite(number(joint["energy_mev_std"])):
            # Part of a period of a modulated energy shifts the scan's mean; the joint fit takes the modulation out.
            energy, std = joint["energy_mev"], joint["energy_mev_std"]
        found.append(_row(f"energy of {row['mode']}", energy, std, _energy(true), "meV"))
        width, std = row.get("fwhm_mev"), row.get("fwhm_mev_std")
        found.append(_row(f"FWHM of {row['mode']}", width, std, true.get("fwhm_mev"), "meV"))
    return [row for row in found if row is not None]


def _pair_rows(context: StepContext, modes: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    found = []
    planted = {str(pair.get("pair")): pair for pair in context.truth.get("pairs", [])} if context.truth else {}
    for row in records(table_of(context, "fit_peaks", "pairs")):
        if str(row.get("identifiable", "identifiable")).startswith("not"):
            continue
        name = str(row.get("pair"))
        joint = next((r for r in records(table_of(context, "measure_modulation", "pairs")) if r["pair"] == name), {})
        true = planted.get(name) or _planted_pair(row, modes)
        for key, unit in (("centroid_mev", "meV"), ("splitting_mev", "meV"), ("area_ratio", "")):
            if key == "splitting_mev" and row.get("identifiable") == "centroid only":
                continue
            words = key.removesuffix("_mev").replace("_", " ")
            best = joint if math.isfinite(number(joint.get(f"{key}_std"))) else row
            found.append(_row(f"{words} of {name}", best.get(key), best.get(f"{key}_std"), true.get(key), unit))
    return [row for row in found if row is not None]


def _planted_pair(row: Mapping[str, Any], modes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the pair's true numbers from those of its two modes."""
    parts = _parts(row, modes)
    if len(parts) != 2:
        return {}
    low, high = (modes[part] for part in parts)
    energies = [_energy(mode) for mode in (low, high)]
    ratio = _area(low) / _area(high) if _area(high) > 0 else math.nan
    # The centroid weighs by area: by the true areas where they are told, else by the measured ratio (low over high).
    weight = ratio if math.isfinite(ratio) else number(row.get("area_ratio"))
    centroid = (weight * energies[0] + energies[1]) / (1 + weight)
    return {"centroid_mev": centroid, "splitting_mev": energies[1] - energies[0], "area_ratio": ratio}


def _parts(row: Mapping[str, Any], modes: Mapping[str, Any]) -> list[str]:
    """Return the two modes of a pair, low first, as its name (``low+high``) tells them."""
    return [part for part in str(row.get("pair")).split("+") if part in modes]


def _area(mode: Mapping[str, Any]) -> float:
    return number(mode.get("scan_mean_area_e"))


def _energy(mode: Mapping[str, Any]) -> float:
    """Return the planted energy as a scan sees it: the mean over the positions where that is told."""
    return number(mode.get("scan_mean_energy_mev", mode.get("energy_mev")))


def _amplitude_rows(context: StepContext, modes: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    row = primary_row(context)
    true = modes.get(str(row.get("mode")))
    if true is None:
        return []
    planted = number(true.get("modulation_amplitude_mev", 0.0))
    name = f"modulation amplitude of {row['mode']} in {row.get('layer')}"
    amplitude = _row(name, row.get("amplitude_mev"), row.get("amplitude_mev_std"), planted, "meV")
    found = []
    if amplitude is not None:
        low, high = number(row.get("amplitude_low_mev")), number(row.get("amplitude_high_mev"))
        if math.isfinite(low) and math.isfinite(high):
            # An amplitude is never negative, so its distance from a small truth is no pull: the interval decides.
            inside = low <= planted <= high
            amplitude["verdict"] = f"{'agrees' if inside else 'disagrees'} (95 % interval {low:.3f} … {high:.3f} meV)"
        found.append(amplitude)
    if planted > 0:
        turn = number(row.get("phase_rad")) - number(true.get("modulation_phase_rad", 0.0))
        planted_phase = (
            number(row.get("phase_rad")) - math.remainder(turn, 2 * math.pi) if math.isfinite(turn) else turn
        )
        phase = _row(
            f"modulation phase of {row['mode']}", row.get("phase_rad"), row.get("phase_rad_std"), planted_phase, "rad"
        )
        found += [phase] if phase is not None else []
    return found


def _period(context: StepContext) -> list[Row]:
    truth = (context.truth or {}).get("superstructure") or {}
    measured = context.summaries.get("map_superstructure", {}).get("period_nm")
    if not isinstance(measured, Mapping) or not isinstance(truth, Mapping):
        return []
    row = _row("period of the superstructure", measured.get("value"), measured.get("std"), truth.get("period_nm"), "nm")
    return [row] if row is not None else []
