"""Null channels that are built into every scan, each with its own number and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.scan import Alignment
from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.artefact_defences import common_mode_row, gain_mirror_row, predicted_rows, unit_lock_in
from phonon_eels.steps.half_defences import fit_halves, halves_rows
from phonon_eels.steps.joint_fit import Geometry, JointFit
from phonon_eels.steps.modulation_systematics import window_row
from phonon_eels.steps.spec import StepContext
from phonon_eels.steps.turned_defence import turned_row

if TYPE_CHECKING:
    import pandas as pd


OWN_SHARE = 0.5


def defence_table(
    image: SpectrumImage,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    antiphase: MeanAmplitude,
    inphase: MeanAmplitude,
    primary: tuple[str, str],
    tables: Mapping[str, pd.DataFrame],
    passes: int,
) -> pd.DataFrame:
    """Return the defences, each with a number, a verdict and a sentence.

    In-phase: what is equal in both planes of a slab at equal lateral place (drift of energy, current, thickness) would
    show here. Zero-loss width and centre: locked in at the same phase, plane by plane.

    Parameters
    ----------
    tables
        `amplitudes`, `modulation_spectrum`, `systematics` of the step.
    passes
        Fits of the whole scan that the progress counts.
    """
    import pandas as pd

    primary_mode, primary_layer = primary
    rows = [_inphase_row(antiphase, inphase)]
    for name, text in (("zlp_fwhm_mev", "zero-loss width at q"), ("zlp_center_mev", "zero-loss centre at q")):
        if name in context.maps.get("align_zlp", {}):
            rows.append(
                _null_row(joint, geometry, np.asarray(context.maps["align_zlp"][name].values), text, primary_mode)
            )
    centre = next((row for row in rows if row["defence"].startswith("zero-loss centre")), None)
    m = joint.model.mode_names.index(primary_mode)
    rows.append(_weight_row(joint, geometry, joint.relative_area(m), primary_mode))
    rows.append(common_mode_row(tables["amplitudes"], antiphase, centre))
    share = np.abs(joint.signed_share[m])
    own = joint.scores.usable & np.isfinite(geometry.lateral_phase_rad) & (share > OWN_SHARE)
    rows.append(
        gain_mirror_row(
            tables["modulation_spectrum"], joint.lines, antiphase, m,
            float(share[own].mean()) if own.any() else np.nan, float((joint.areas[..., m] * share)[own].mean() / share[own].mean()) if own.any() else np.nan,
        )
    )  # fmt: skip
    halves = fit_halves(image, joint, alignment, context, passes)
    rows += predicted_rows(image, joint, geometry, context, antiphase, primary_mode, halves)
    rows += halves_rows(halves, image, joint, geometry, context, antiphase, (primary_mode, primary_layer))
    rows.append(turned_row(joint, geometry, context, antiphase, (primary_mode, primary_layer)))
    systematics = tables["systematics"]
    rows.append(window_row(systematics[systematics["mode"] == primary_mode], antiphase))
    return pd.DataFrame(rows)


def inphase_verdict(antiphase: MeanAmplitude, inphase: MeanAmplitude) -> tuple[str, str]:
    """Return verdict and sentence of the null channel that is equal in both planes of a slab."""
    if not np.isfinite(inphase.p_value):
        return "no power", "only planes of one orientation are in view"
    if inphase.p_value > 0.01 or inphase.amplitude < antiphase.amplitude / 3.0:
        return "pass", "the in-phase amplitude is compatible with zero or small beside the antiphase one"
    return "fail", "the in-phase amplitude is significant: something common to all planes follows the wave"


def _inphase_row(antiphase: MeanAmplitude, inphase: MeanAmplitude) -> dict[str, Any]:
    verdict, sentence = inphase_verdict(antiphase, inphase)
    return {
        "defence": "in-phase sum of the planes", "value": inphase.amplitude, "std": inphase.amplitude_std, "unit": "meV",
        "p_value": inphase.p_value, "verdict": verdict, "sentence": sentence,
    }  # fmt: skip


def _weight_row(joint: JointFit, geometry: Geometry, values: np.ndarray, primary_mode: str) -> dict[str, Any]:
    """Energies against weights: both are free, so this row says how much of a weight modulation there was to withstand."""
    row = _null_row(joint, geometry, values, f"weights: relative area of {primary_mode} at q", primary_mode, unit="1")
    if row["verdict"] == "not distinguished":
        # Areas are free at every position, so a modulated weight cannot pass for an energy in this fit.
        row |= {
            "verdict": "pass",
            "sentence": "weights follow the wave too; areas are free at every position of this fit",
        }
    return row


def _null_row(
    joint: JointFit, geometry: Geometry, values: np.ndarray, text: str, primary_mode: str, unit: str = "meV"
) -> dict[str, Any]:
    """Lock a map in at the phase of the primary mode's planes, unit by unit."""
    amplitudes = unit_lock_in(joint, geometry, values, joint.model.mode_names.index(primary_mode))
    mean, _ = antiphase_and_inphase(amplitudes, np.ones(len(amplitudes)))
    quiet = not np.isfinite(mean.p_value) or mean.p_value > 0.01
    sentence = (
        "nothing follows the wave there"
        if quiet
        else "it follows the wave too; the fit lets it vary freely at each position"
    )
    verdict = "no power" if not np.isfinite(mean.p_value) else ("pass" if quiet else "not distinguished")
    return {
        "defence": text, "value": mean.amplitude, "std": mean.amplitude_std, "unit": unit, "p_value": mean.p_value,
        "verdict": verdict, "sentence": sentence,
    }  # fmt: skip
