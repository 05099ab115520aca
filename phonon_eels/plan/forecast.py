"""From the information in the planned spectra to what can be said of every mode, and of the one in question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.planning import PlanSettings
from phonon_eels.errors import ConfigError
from phonon_eels.plan.expectation import Expectation, electrons_per_position, expect, incident_electrons, stack_of_plan
from phonon_eels.plan.modes import mode_table, pair_table
from phonon_eels.plan.planes import unit_of, unit_std_mev, units_per_scan
from phonon_eels.plan.power import detectable_amplitude, power

if TYPE_CHECKING:
    import pandas as pd

DOSE_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SCAN_COUNTS = (1, 2, 3, 4, 6)


@dataclass(frozen=True)
class Forecast:
    """What a plan can show.

    Attributes
    ----------
    modes
        One row per mode: deviations per position, per plane and of the scan, and the amplitude that is detectable.
    pairs
        One row per close pair: deviations of centroid and splitting.
    choices
        What the detectable amplitude becomes if something is doubled.
    curves
        Detectable amplitude against dose for several numbers of scans.
    chances
        Chance of detection against amplitude.
    spectrum
        Expected spectrum of one position on top of the plane in question.
    summary
        Numbers and sentences, ready for JSON.
    """

    modes: pd.DataFrame
    pairs: pd.DataFrame
    choices: pd.DataFrame
    curves: pd.DataFrame
    chances: pd.DataFrame
    spectrum: pd.DataFrame
    summary: dict[str, Any]


def forecast(plan: PlanSettings, material: Material) -> Forecast:
    """Tell what a plan can show.

    Raises
    ------
    ConfigError
        If the question names a mode or layer that the material does not have, or the axis does not reach the mode.
    DataError
        If the energy axis reaches none of the modes.
    """
    name, layer = question_of(plan, material)
    expectation = expect(plan, material)
    names = expectation.model.mode_names
    if name not in names:
        raise ConfigError(
            f"question.mode = {name}: lies beyond the end of the energy axis at {plan.spectrum.range_mev[1]:g} meV; "
            f"record more (spectrum.range_mev), or ask for one of {', '.join(names)}"
        )
    unit = unit_of(plan, material, expectation)
    modes = mode_table(plan, material, expectation, unit)
    mode = names.index(name)
    std = unit_std_mev(plan, unit, mode)
    curves = _dose_curves(plan, material, expectation, mode)
    return Forecast(
        modes=modes,
        pairs=pair_table(plan, material, expectation),
        choices=_choice_table(plan, material, expectation, mode),
        curves=curves,
        chances=_chance_table(plan, material, expectation, mode, std),
        spectrum=_spectrum_table(expectation, mode),
        summary=_summary(plan, material, expectation, (name, layer), std),
    )


def question_of(plan: PlanSettings, material: Material) -> tuple[str, str]:
    """Return mode and layer in question."""
    declared = material.primary_test
    name = plan.question.mode or (declared.mode if declared else None)
    by_name = {mode.name: mode for mode in material.modes}
    if name not in by_name:
        given = "is not given, and the material declares no primary test" if name is None else f"= {name}: is no mode"
        raise ConfigError(f"question.mode {given} of {material.name}; it has {', '.join(by_name)}")
    weights = by_name[name].layers
    main = max(weights, key=lambda entry: weights[entry]) if weights else ""
    layer = plan.question.layer or (declared.layer if declared and declared.mode == name else main)
    if not weights.get(layer, 0.0) > 0.0:
        raise ConfigError(
            f"question.layer = {layer!r}: mode {name} is not carried by that layer; it is carried by "
            f"{', '.join(weights) or 'none (it has no layers in the material file)'}"
        )
    return name, layer


def _at(plan: PlanSettings, material: Material, expectation: Expectation, mode: int, n_scans: int) -> float:
    """Detectable amplitude with the planned units, or NaN where there are too few."""
    n_units = units_per_scan(plan, material) * n_scans
    if n_units < plan.question.min_units:
        return float("nan")
    std = unit_std_mev(plan, unit_of(plan, material, expectation), mode)
    return detectable_amplitude(std, n_units, plan.question.confidence, plan.question.power)


def dosed(plan: PlanSettings, factor: float) -> PlanSettings:
    """Return the plan with more electrons per position and frame."""
    beam = plan.beam
    changed = {"current_pa": beam.current_pa * factor}
    if beam.zero_loss_electrons is not None:
        changed = {"zero_loss_electrons": beam.zero_loss_electrons * factor}
    return plan.model_copy(update={"beam": beam.model_copy(update=changed)})


def _dose_curves(plan: PlanSettings, material: Material, expectation: Expectation, mode: int) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for factor in DOSE_FACTORS:
        other = dosed(plan, factor)
        seen = expect(other, material, expectation.model)
        for n_scans in SCAN_COUNTS:
            rows.append({
                "dose_factor": factor, "zero_loss_electrons_e": electrons_per_position(other), "scans": n_scans,
                "n_planes": units_per_scan(plan, material) * n_scans,
                "detectable_mev": _at(other, material, seen, mode, n_scans),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _choice_table(plan: PlanSettings, material: Material, expectation: Expectation, mode: int) -> pd.DataFrame:
    """Detectable amplitude if dose, scans or one side of the field is doubled; the time each of them takes."""
    import pandas as pd

    scan = plan.scan
    wider = {"b_length_nm": 2.0 * scan.b_length_nm}
    taller = {"c_length_nm": 2.0 * scan.c_length_nm}
    coarser = {"c_step_nm": 2.0 * scan.c_step_nm, "b_step_nm": 2.0 * scan.b_step_nm}
    cases = {
        "as planned": (plan, expectation),
        "twice the dose": (dosed(plan, 2.0), None),
        "twice the scans": (_with_scan(plan, {"scans": 2 * scan.scans}), expectation),
        "twice the length along c": (_with_scan(plan, taller), expectation),
        "twice the length along b": (_with_scan(plan, wider), expectation),
        "four times the dose, twice the step": (_with_scan(dosed(plan, 4.0), coarser), None),
    }
    rows = []
    for what, (other, known) in cases.items():
        seen = known if known is not None else expect(other, material, expectation.model)
        rows.append({
            "choice": what,
            "n_planes": units_per_scan(other, material) * other.scan.scans,
            "amplitude_plane_std_mev": unit_std_mev(other, unit_of(other, material, seen), mode),
            "detectable_mev": _at(other, material, seen, mode, other.scan.scans),
            "dose_e_per_square_angstrom": dose_per_square_angstrom(other),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _with_scan(plan: PlanSettings, changes: dict[str, Any]) -> PlanSettings:
    return plan.model_copy(update={"scan": plan.scan.model_copy(update=changes)})


def dose_per_square_angstrom(plan: PlanSettings) -> float:
    """Return the electrons that hit a square ångström in one scan."""
    return incident_electrons(plan) / (plan.scan.c_step_nm * plan.scan.b_step_nm * 100.0)


def _chance_table(
    plan: PlanSettings, material: Material, expectation: Expectation, mode: int, std: float
) -> pd.DataFrame:
    import pandas as pd

    n_units = units_per_scan(plan, material) * plan.scan.scans
    more = dosed(plan, 2.0)
    doubled = unit_std_mev(more, unit_of(more, material, expect(more, material, expectation.model)), mode)
    cases = {"as planned": (std, n_units), "twice the dose": (doubled, n_units), "twice the scans": (std, 2 * n_units)}
    reach = [detectable_amplitude(s, n, plan.question.confidence, 0.95) for s, n in cases.values()]
    top = max([value for value in reach if np.isfinite(value)] or [10.0 * std])
    amplitudes = np.linspace(0.0, 1.3 * top, 66)
    columns = {"amplitude_mev": amplitudes}
    for what, (s, n) in cases.items():
        enough = n >= plan.question.min_units
        columns[what.replace(" ", "_")] = (
            power(amplitudes, s, n, plan.question.confidence) if enough else np.full(amplitudes.size, np.nan)
        )
    return pd.DataFrame(columns)


def _spectrum_table(expectation: Expectation, mode: int) -> pd.DataFrame:
    import pandas as pd

    place = int(np.argmax(expectation.half_slab.areas_e[:, mode]))
    counts = expectation.counts_e[place]
    return pd.DataFrame({
        "energy_loss_mev": expectation.model.energies_mev, "expected_e": counts,
        "std_e": np.sqrt(counts + expectation.model.shift_e),
    })  # fmt: skip


def _summary(
    plan: PlanSettings, material: Material, expectation: Expectation, question: tuple[str, str], std: float
) -> dict[str, Any]:
    n_units, asked = units_per_scan(plan, material) * plan.scan.scans, plan.question
    enough = n_units >= asked.min_units
    detectable = detectable_amplitude(std, n_units, asked.confidence, asked.power) if enough else float("nan")
    chance = float(power(asked.amplitude_mev, std, n_units, asked.confidence)) if enough else float("nan")
    scan = plan.scan
    n_positions = round(scan.c_length_nm / scan.c_step_nm) * round(scan.b_length_nm / scan.b_step_nm)
    assert material.superstructure is not None
    return {
        "material": material.name,
        "mode": question[0],
        "layer": question[1],
        "n_planes": n_units,
        "testable": enough,
        "scans_needed": scans_needed(plan, material, expectation, std),
        "amplitude_plane_std_mev": std,
        "detectable_mev": detectable,
        "power_wanted": asked.power,
        "confidence": asked.confidence,
        "amplitude_mev": asked.amplitude_mev,
        "chance": chance,
        "zero_loss_electrons_e": electrons_per_position(plan),
        "incident_electrons_e": incident_electrons(plan),
        "dose_e_per_square_angstrom": dose_per_square_angstrom(plan),
        "positions_per_scan": n_positions,
        "minutes_per_scan": n_positions * plan.beam.dwell_time_s * plan.beam.frames / 60.0,
        "periods": scan.b_length_nm / material.superstructure.period_nm,
        "warnings": warnings_of(plan, material),
        "assumptions": list(ASSUMPTIONS),
    }


def scans_needed(plan: PlanSettings, material: Material, expectation: Expectation, std: float) -> int | None:
    """Return the least number of such scans that detects the amplitude with the wanted chance; None: more than 1,000."""
    per_scan, asked = units_per_scan(plan, material), plan.question
    for n_scans in range(1, 1001):
        n_units = per_scan * n_scans
        if n_units >= asked.min_units and power(asked.amplitude_mev, std, n_units, asked.confidence) >= asked.power:
            return n_scans
    return None


ASSUMPTIONS = (
    "Cramér-Rao bound: the fit reaches it only where the zero-loss shape and the list of modes are right",
    "counting and read noise only, and the scatter between planes that was given; damage and drift are not foreseen",
    "the share of scattered electrons (specimen.mode_share) is a guess until it has been measured on a first scan",
    "the layers and the superstructure are seen in the HAADF as well as they are in practice at this step",
)


def warnings_of(plan: PlanSettings, material: Material) -> list[str]:
    """Return what stands against the plan, in sentences."""
    found = []
    per_scan, scan = units_per_scan(plan, material), plan.scan
    assert material.superstructure is not None
    period, stack = material.superstructure.period_nm, stack_of_plan(material)
    if per_scan * scan.scans < plan.question.min_units:
        found.append(
            f"not testable: {per_scan * scan.scans} half-slab planes, at least {plan.question.min_units} are needed; one comes "
            f"with every {0.5 * stack.repeat_nm:.2f} nm along c and scan (scan.c_length_nm, scan.scans)"
        )
    if scan.b_length_nm < period:
        found.append(
            f"less than one period of the superstructure ({period:.2f} nm) along b: a slope of the energy cannot be told from a wave"
        )
    if scan.c_step_nm > 0.1:
        found.append("steps above 0.1 nm along c: layers are told apart less well than this bound assumes")
    if scan.scans < 3:
        found.append("fewer than three scans: what differs from region to region is not seen; pool at least three")
    if plan.specimen.plane_scatter_mev == 0.0:
        found.append(
            "no scatter between planes was given (specimen.plane_scatter_mev): this is the best case of counting noise alone"
        )
    if plan.specimen.dipole_fraction > 0.0:
        found.append(
            "with a dipole part the amplitude is right only if specimen.dipole_fraction is known in the analysis too"
        )
    return found
