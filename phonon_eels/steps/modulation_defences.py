"""Null channels that are built into every scan, each with its own number and verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.steps.joint_fit import Geometry, JointFit, whole_units
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd


def defence_table(
    joint: JointFit,
    geometry: Geometry,
    context: StepContext,
    antiphase: MeanAmplitude,
    inphase: MeanAmplitude,
    primary_mode: str,
) -> pd.DataFrame:
    """Return the built-in null channels, each with a number and a verdict.

    In-phase: what is equal in both planes of a slab at equal lateral place (drift of energy, current, thickness) would
    show here. Zero-loss width and centre: locked in at the same phase, plane by plane.
    """
    import pandas as pd

    rows = [_inphase_row(antiphase, inphase)]
    for name, text in (("zlp_fwhm_mev", "zero-loss width at q"), ("zlp_center_mev", "zero-loss centre at q")):
        if name in context.maps.get("align_zlp", {}):
            rows.append(
                _null_row(joint, geometry, np.asarray(context.maps["align_zlp"][name].values), text, primary_mode)
            )
    m = joint.model.mode_names.index(primary_mode)
    rows.append(
        _null_row(
            joint,
            geometry,
            joint.areas[..., m],
            f"area of {primary_mode} at q (information)",
            primary_mode,
            unit="electrons",
        )
    )
    return pd.DataFrame(rows)


def _inphase_row(antiphase: MeanAmplitude, inphase: MeanAmplitude) -> dict[str, Any]:
    if not np.isfinite(inphase.p_value):
        verdict, sentence = "no power", "only planes of one orientation are in view"
    elif inphase.p_value > 0.01 or inphase.amplitude < antiphase.amplitude / 3.0:
        verdict, sentence = "pass", "the in-phase amplitude is compatible with zero or small beside the antiphase one"
    else:
        verdict, sentence = (
            "fail",
            "the in-phase amplitude is significant: something common to all planes follows the wave",
        )
    return {
        "defence": "in-phase sum of the planes", "value": inphase.amplitude, "std": inphase.amplitude_std, "unit": "meV",
        "p_value": inphase.p_value, "verdict": verdict, "sentence": sentence,
    }  # fmt: skip


def _null_row(
    joint: JointFit, geometry: Geometry, values: np.ndarray, text: str, primary_mode: str, unit: str = "meV"
) -> dict[str, Any]:
    """Lock a map in at the phase of the primary mode's planes, unit by unit."""

    m = joint.model.mode_names.index(primary_mode)
    units = whole_units(joint, m)
    regressors = joint.regressors[:, :, m, :]
    weight = joint.scores.information[..., m, m] * joint.scores.usable
    amplitudes = []
    for number in units:
        chosen = (
            (geometry.half_slab == number) & np.isfinite(values) & np.isfinite(regressors).all(axis=2) & (weight > 0.0)
        )
        design = regressors[chosen] * np.sqrt(weight[chosen])[:, None]
        amplitudes.append(np.linalg.lstsq(design, values[chosen] * np.sqrt(weight[chosen]), rcond=None)[0][1:])
    mean, _ = antiphase_and_inphase(np.array(amplitudes).reshape(-1, 2), np.ones(len(amplitudes)))
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
