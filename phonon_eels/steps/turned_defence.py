"""Slabs turned by 90° as negative control: their planes see the same scan, drift and wander, but no superstructure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.lattice.inference import MeanAmplitude
from phonon_eels.lattice.modulation import basis, fit_unit
from phonon_eels.steps.joint_fit import MIN_UNIT_INFORMATION, Geometry, JointFit, sources_of

if TYPE_CHECKING:
    from phonon_eels.steps.spec import StepContext

FAILED_P = 0.01


def turned_row(
    joint: JointFit, geometry: Geometry, context: StepContext, antiphase: MeanAmplitude, primary: tuple[str, str]
) -> dict[str, Any]:
    """Return the line on turned slabs: what their planes show at the phase that their neighbours' wave would have there."""
    row: dict[str, Any] = {"defence": "90° twin without the superstructure", "unit": "meV"}
    nothing = {"value": np.nan, "std": np.nan, "p_value": np.nan, "verdict": "no power"}
    if not geometry.turned:
        return {**row, **nothing, "sentence": "no turned slab is in view"}
    mode = joint.model.mode_names.index(primary[0])
    mean, n = control_amplitude(joint, geometry, context, mode, antiphase)
    if mean is None:
        return {**row, **nothing, "sentence": "the planes of turned slabs are cut by the edge of the scan"}
    verdict, words = turned_verdict(mean, antiphase.amplitude)
    return {
        **row, "value": mean.amplitude, "std": mean.amplitude_std, "p_value": mean.p_value, "verdict": verdict,
        "sentence": f"{n} plane{'s' if n > 1 else ''} of turned slabs: {words}",
    }  # fmt: skip


def control_amplitude(
    joint: JointFit, geometry: Geometry, context: StepContext, mode: int, antiphase: MeanAmplitude
) -> tuple[MeanAmplitude | None, int]:
    """Return the outward amplitude of a mode in the planes of turned slabs, and their number.

    Turned slabs are few, so the deviation is that of counting, or of the scatter of the other planes where that is larger.
    """
    assert geometry.turned_phase_rad is not None
    by_name = {entry.name: entry for entry in context.material.modes}
    shares = np.zeros((len(joint.model.mode_names), *geometry.half_slab.shape))
    for m, name in enumerate(joint.model.mode_names):
        found = joint.localisation[m]
        if found is None:
            continue
        profile, signed = sources_of(by_name[name], geometry, nominal=True).at(found.fwhm_nm)
        relative = np.divide(signed, profile, out=np.zeros_like(profile), where=profile > 0.0)
        shares[m] = relative * (1.0 - found.constant_share)
    regressors = basis(geometry.turned_phase_rad, shares)
    usual = float(np.median([fit.information[mode] for fit in joint.units.values()]))
    values, covariances = [], []
    for unit in geometry.turned:
        inside = np.isfinite(geometry.turned_phase_rad) & (geometry.half_slab == unit)
        fit = fit_unit(joint.scores, joint.reference_mev, regressors, inside, joint.model.fwhm_mev)
        if fit.information[mode] > MIN_UNIT_INFORMATION * usual:
            values.append(fit.value[mode, 1:3])
            covariances.append(fit.covariance[mode, 1:3, 1:3] * joint.noise_factor[mode] ** 2)
    n = len(values)
    if not n:
        return None, 0
    value, covariance = np.mean(values, axis=0), np.sum(covariances, axis=0) / n**2
    if np.isfinite(antiphase.covariance).all():
        scatter = float(np.trace(antiphase.covariance)) / 2.0 * len(joint.units) / n
        covariance = covariance * max(1.0, scatter / (float(np.trace(covariance)) / 2.0))
    p_value = float(np.exp(-0.5 * value @ np.linalg.solve(covariance, value)))
    return MeanAmplitude(value, covariance, float("inf"), p_value), n


def turned_verdict(control: MeanAmplitude, amplitude: float) -> tuple[str, str]:
    """Judge what planes without a superstructure show against the amplitude of the others."""
    if not np.isfinite(control.p_value + amplitude) or control.amplitude_std > 0.5 * amplitude:
        return "no power", "half of the amplitude would not be seen there"
    if control.p_value <= FAILED_P and control.amplitude >= amplitude / 3.0:
        return "fail", "they show it too, so it is not the superstructure"
    return "pass", "they do not show it"
