"""Table `gap` of `measure_modulation`: the modulation's phase against that of the superconducting gap, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.settings import GapComparison, MeasureModulation
from phonon_eels.errors import InputFileError
from phonon_eels.io.gap_files import read_gap_curve, read_gap_map
from phonon_eels.lattice.gap import (
    Harmonic,
    MapComparison,
    PhaseDifference,
    compare_maps,
    curve_harmonic,
    map_harmonics,
    phase_difference,
    template_harmonic,
)
from phonon_eels.lattice.inference import MeanAmplitude

if TYPE_CHECKING:
    import pandas as pd

ONE_BIT = (
    "By the mirror of the average structure everything that is locked to it has the phase 0 or π, so the agreement of two such "
    "phases is one bit, shared by every such quantity: it is no evidence that energy and gap are coupled, and no p-value is given."
)
NO_OWN_GAP = "The gap is a template of the literature, measured on cleaved surfaces of other crystals; a lamella has none of its own."
CURVE_POINTS = 73


@dataclass(frozen=True)
class Reference:
    """The gap that is compared with: its harmonic, where it comes from, and measured points if there are any."""

    harmonic: Harmonic
    source: str
    points: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


def gap_tables(
    mean: MeanAmplitude,
    primary: tuple[str, str],
    mean_energy_mev: float,
    units: pd.DataFrame,
    phase_rad: np.ndarray,
    half_slab: np.ndarray,
    settings: MeasureModulation,
    material: Material,
) -> dict[str, pd.DataFrame]:
    """Return the tables `gap` and `gap_curve`; none for a material without a gap and no file of the user's.

    Parameters
    ----------
    mean
        Outward mean amplitude of the primary mode.
    primary
        Its mode and layer.
    units
        Table of planes, for a map of the gap.
    phase_rad, half_slab
        (rows, columns) phase along the outward normal, number of the half slab.

    Raises
    ------
    InputFileError
        If a file of the settings cannot be used.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    tables: dict[str, pd.DataFrame] = {}
    reference = reference_of(settings.gap, material)
    detected = bool(np.isfinite(mean.p_value) and mean.p_value < 1.0 - settings.confidence)
    if reference is not None:
        rows += _reference_rows(reference)
        if np.isfinite(mean.value).all() and np.isfinite(mean.covariance).all() and mean.dof >= 1:
            found = phase_difference(mean.value, mean.covariance, mean.dof, reference.harmonic, settings.confidence)
            rows += _difference_rows(found, detected, primary, reference, material)
            rows.append(_relative_row(mean, mean_energy_mev, reference))
        tables["gap_curve"] = _curve_table(reference)
    if settings.gap.map_file is not None:
        rows += _map_rows(settings, primary[0], units, phase_rad, half_slab)
    if not rows:
        return {}
    return {"gap": pd.DataFrame(rows), **tables}


def reference_of(settings: GapComparison, material: Material) -> Reference | None:
    """Return the gap against phase: the user's curve, else the material's template with the settings' changes, else None."""
    if settings.curve_file is not None:
        path = Path(settings.curve_file).expanduser()
        points = read_gap_curve(path)
        try:
            return Reference(curve_harmonic(*points), path.name, points)
        except ValueError as problem:
            raise InputFileError(f"{path}: {problem}") from problem
    if material.gap is None:
        return None
    known = material.gap.template
    changed = (settings.template_modulation, settings.template_is_peak_to_peak, settings.template_phase_rad)
    modulation, peak_to_peak, phase = (
        given if given is not None else default
        for given, default in zip(changed, (known.modulation, known.is_peak_to_peak, known.phase_rad), strict=True)
    )
    harmonic = template_harmonic(
        known.mean_mev, float(modulation), known.modulation_std, bool(peak_to_peak), float(phase)
    )
    words = "" if changed == (None, None, None) else " (conventions changed by the settings)"
    return Reference(harmonic, material.gap.source + words)


def _row(quantity: str, value: float, std: float, low: float, high: float, unit: str, says: str) -> dict[str, Any]:
    return {
        "quantity": quantity, "value": value, "std": std, "low": low, "high": high, "unit": unit, "sentence": says,
    }  # fmt: skip


def _reference_rows(reference: Reference) -> list[dict[str, Any]]:
    harmonic = reference.harmonic
    nothing = float("nan")
    amplitude, phase = harmonic.amplitude_std, harmonic.phase_std_rad
    kind = "template" if reference.points is None else "curve"
    return [
        _row(f"mean gap of the {kind}", harmonic.mean, harmonic.mean_std, nothing, nothing, "meV", reference.source),
        _row(f"amplitude of the {kind}", harmonic.amplitude, amplitude, nothing, nothing, "meV", ""),
        _row(
            f"phase of the {kind}", harmonic.phase_rad, nothing if phase == 0.0 else phase, nothing, nothing, "rad",
            "0: largest gap at the outward crest of the BiO layer",
        ),
    ]  # fmt: skip


def _difference_rows(
    found: PhaseDifference, detected: bool, primary: tuple[str, str], reference: Reference, material: Material
) -> list[dict[str, Any]]:
    low, high = found.value_rad - found.half_width_rad, found.value_rad + found.half_width_rad
    symmetric = material.superstructure is not None and material.superstructure.phases_0_or_pi
    sentence = verdict_sentence(found, detected, primary, symmetric)
    if reference.points is None:
        sentence += " " + NO_OWN_GAP
    return [_row("phase of energy less phase of gap", found.value_rad, found.std_rad, low, high, "rad", sentence)]


def verdict_sentence(found: PhaseDifference, detected: bool, primary: tuple[str, str], symmetric: bool) -> str:
    """Return in plain words what a phase difference says."""
    what = f"the energy of {primary[0]} in {primary[1]}"
    if not detected:
        return f"No modulation of {what} was detected, so its phase says nothing about the gap."
    if found.half_width_rad >= np.pi:
        return f"The phase of {what} is not known well enough to compare it with the gap's."
    words = {
        "in phase": f"{what[:1].upper()}{what[1:]} is highest where the gap is largest (in phase).",
        "in antiphase": f"{what[:1].upper()}{what[1:]} is lowest where the gap is largest (in antiphase).",
        "between": f"{what[:1].upper()}{what[1:]} is neither in phase nor in antiphase with the gap within the interval.",
        "undecided": f"The interval holds both phases, 0 and π: {what} and the gap cannot be set against each other.",
    }
    sentence = words[found.verdict]
    if symmetric and found.verdict == "between":
        return (
            sentence
            + " The average structure allows 0 and π only: a broken mirror, or a systematic error of the phase."
        )
    return f"{sentence} {ONE_BIT}" if symmetric and found.verdict.startswith("in ") else sentence


def _relative_row(mean: MeanAmplitude, mean_energy_mev: float, reference: Reference) -> dict[str, Any]:
    """Relative modulation of the energy over that of the gap: descriptive, no mechanism is implied."""
    gap = reference.harmonic
    ratio = (mean.amplitude / mean_energy_mev) / (gap.amplitude / gap.mean)
    std = ratio * float(
        np.hypot(mean.amplitude_std / max(mean.amplitude, 1e-300), gap.amplitude_std / max(gap.amplitude, 1e-300))
    )
    says = "relative modulation of the energy over that of the gap; descriptive"
    return _row("relative modulation, energy over gap", ratio, std, float("nan"), float("nan"), "1", says)


def _map_rows(
    settings: MeasureModulation, mode: str, units: pd.DataFrame, phase_rad: np.ndarray, half_slab: np.ndarray
) -> list[dict[str, Any]]:
    assert settings.gap.map_file is not None
    shape = (int(phase_rad.shape[0]), int(phase_rad.shape[1]))
    gap, std = read_gap_map(Path(settings.gap.map_file).expanduser(), shape)
    chosen = units[(units["mode"] == mode) & units["used"]]
    energy = chosen[["cos_mev", "sin_mev"]].to_numpy(dtype=float)
    harmonics = map_harmonics(gap, std, phase_rad, half_slab, [int(u) for u in chosen["half_slab"]])
    found = compare_maps(energy, harmonics, settings.confidence)
    if found is None:
        says = "fewer than 4 half-slab planes have both an energy and a gap: nothing is compared"
        nothing = float("nan")
        return [_row("lag of the map", nothing, nothing, nothing, nothing, "rad", says)]
    return _comparison_rows(found)


def _comparison_rows(found: MapComparison) -> list[dict[str, Any]]:
    lag, reach = found.lag, found.lag.half_width_rad
    says = f"phase of energy less phase of the measured gap over {found.n_units} planes: {lag.verdict}"
    return [
        _row("lag of the map", lag.value_rad, lag.std_rad, lag.value_rad - reach, lag.value_rad + reach, "rad", says),
        _row(
            "correlation with the map", found.correlation, float("nan"), found.correlation_low, found.correlation_high, "1",
            f"of the harmonics of {found.n_units} planes at no lag; noise of either brings it closer to 0",
        ),
    ]  # fmt: skip


def _curve_table(reference: Reference) -> pd.DataFrame:
    """Harmonic with its band over one period, then the measured points."""
    import pandas as pd

    harmonic = reference.harmonic
    phase = np.linspace(-np.pi, np.pi, CURVE_POINTS)
    wave = np.column_stack([np.cos(phase), np.sin(phase)])
    gap = harmonic.mean + wave @ harmonic.value
    spread = np.sqrt(np.einsum("pi,ij,pj->p", wave, harmonic.covariance, wave))
    kinds = ["harmonic"] * CURVE_POINTS
    if reference.points is not None:
        phase, gap, spread = (
            np.concatenate([ours, theirs]) for ours, theirs in zip((phase, gap, spread), reference.points, strict=True)
        )
        kinds += ["measured"] * len(reference.points[0])
    return pd.DataFrame({"kind": kinds, "phase_rad": phase, "gap_mev": gap, "gap_std_mev": spread})
