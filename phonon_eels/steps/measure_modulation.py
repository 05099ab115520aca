"""Do the modes' energies follow the superstructure? Amplitude, phase, interval and p-value per layer and mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from phonon_eels.config.settings import MeasureModulation
from phonon_eels.errors import ConfigError
from phonon_eels.forward.model import model_from_description
from phonon_eels.lattice.inference import MeanAmplitude
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps import modulation_tables as tables
from phonon_eels.steps.align_zlp import alignment_of
from phonon_eels.steps.gap_comparison import gap_tables
from phonon_eels.steps.joint_fit import JointFit, fit_joint, passes_of, read_geometry
from phonon_eels.steps.maps import quantity
from phonon_eels.steps.mode_layers import layer_tables
from phonon_eels.steps.modulation_defences import defence_table
from phonon_eels.steps.modulation_estimators import estimator_table, other_quantities
from phonon_eels.steps.modulation_systematics import systematic_table, with_systematics
from phonon_eels.steps.peak_tables import from_true_zero, true_zero
from phonon_eels.steps.spec import StepContext, StepSpec


def measure_modulation(image: SpectrumImage, settings: MeasureModulation, context: StepContext) -> StepResult:
    """Measure how mode energies follow the superstructure.

    One likelihood of all counts: areas, zero-loss shape and background are free at every position, energies and widths
    of a plane follow the phase counted along its outward normal, damped by leakage from other planes. Each half-slab
    plane gives one complex amplitude, and only the scatter between planes enters intervals and p-values.

    Returns
    -------
    StepResult
        Tables `modes`, `pairs` (modulation taken out), `amplitudes`, `units`, `phase_bins`, `modulation_spectrum`, `period_scan`, `defences`, `localisation`, `systematics`,
        `estimators`, `other_quantities`, `gap`, `gap_curve`,
        `mode_layers`, `profiles`;
        summary `primary` and `claim`. Skipped, with the reason, without layers or superstructure.

    Raises
    ------
    ConfigError
        If the primary test names a mode or layer that the material does not have.
    """
    reason = _why_not(settings, context)
    if reason is not None:
        return StepResult(skipped=reason)
    primary_mode, primary_layer = _primary(settings, context)
    model = model_from_description(context.summaries["fit_peaks"]["model"], context.material)
    if primary_mode not in model.mode_names:
        return StepResult(skipped=f"mode {primary_mode} of the primary test lies beyond the end of the energy axis")
    geometry = read_geometry(context)
    alignment = alignment_of(image, context)
    passes = passes_of(settings, image)
    joint = fit_joint(image, model, geometry, alignment, context, settings.harmonics, passes)
    amplitudes, antiphase, inphase = tables.amplitude_table(
        joint, geometry, settings, context, primary_mode, primary_layer
    )
    # The regression of the maps takes energies that count from the calibrated zero already.
    own = amplitudes["method"] != "regression"
    amplitudes = amplitudes.assign(
        mean_energy_mev=amplitudes["mean_energy_mev"].where(~own, amplitudes["mean_energy_mev"] - true_zero(context)[0])
    )
    pair = (primary_mode, primary_layer)
    layers = tables.layers_of_modes(joint, context, pair)
    systematics = systematic_table(image, joint, geometry, alignment, context, settings, layers)
    amplitudes = with_systematics(amplitudes, systematics)
    spectrum = tables.modulation_spectrum(image, joint, geometry, alignment, context, primary_mode, primary_layer)
    shown = {"amplitudes": amplitudes, "modulation_spectrum": spectrum, "systematics": systematics}
    defences = defence_table(image, joint, geometry, alignment, context, antiphase, inphase, pair, shown, passes)
    primary = amplitudes[amplitudes["role"] == "primary"].iloc[0]
    testable = bool(np.isfinite(primary["p_value"]))
    claim = testable and primary["p_value"] < 1.0 - settings.confidence and not (defences["verdict"] == "fail").any()
    modes, pairs = tables.joint_mode_tables(joint, geometry, context)
    result = {
        "modes": from_true_zero(modes, context),
        "pairs": from_true_zero(pairs, context),
        "amplitudes": amplitudes,
        "units": from_true_zero(tables.unit_table(joint, geometry, context), context),
        "phase_bins": from_true_zero(tables.phase_bin_table(joint, geometry, settings.phase_bins, context), context),
        "modulation_spectrum": spectrum,
        "period_scan": tables.period_table(joint, geometry, context, primary_mode),
        "defences": defences,
        "localisation": tables.localisation_table(joint),
        "systematics": systematics,
        "estimators": estimator_table(
            image, joint, geometry, alignment, context, pair, settings.phase_bins, settings.confidence
        ),
        "other_quantities": other_quantities(joint, geometry, layers, settings.min_units, settings.confidence),
    }
    result |= layer_tables(joint.localisation, model.mode_names, joint.areas, geometry.source_fwhm_nm, context)
    result |= gap_tables(
        antiphase, (primary_mode, primary_layer), float(primary["mean_energy_mev"]), result["units"],
        geometry.phase_rad, geometry.half_slab, settings, context.material,
    )  # fmt: skip
    summary = _summary(primary, claim, testable, antiphase, settings, image, joint, context)
    return StepResult(
        tables=result, summary=summary, messages=_messages(primary, testable, image, joint, settings.min_units, context)
    )


def _why_not(settings: MeasureModulation, context: StepContext) -> str | None:
    if not settings.enabled:
        return "switched off (measure_modulation.enabled: false)"
    if "model" not in context.summaries.get("fit_peaks", {}):
        return "no peaks were fitted: there are no energies to follow"
    if "assign_layers" not in context.maps:
        return "no layers were assigned: " + str(context.summaries.get("assign_layers", {}).get("skipped", "no HAADF"))
    if "map_superstructure" not in context.maps:
        reason = context.summaries.get("map_superstructure", {}).get("skipped", "none was found")
        return f"no superstructure was mapped: {reason}"
    if context.material.primary_test is None and (settings.mode is None or settings.layer is None):
        return "the material declares no primary test; set measure_modulation.mode and .layer"
    return None


def _primary(settings: MeasureModulation, context: StepContext) -> tuple[str, str]:
    declared = context.material.primary_test
    mode = settings.mode or (declared.mode if declared else "")
    layer = settings.layer or (declared.layer if declared else "")
    names = [m.name for m in context.material.modes]
    layers = [entry.name for entry in context.material.layers]
    if mode not in names:
        raise ConfigError(
            f"measure_modulation.mode = {mode!r} is no mode of {context.material.name}; it has {', '.join(names)}"
        )
    if layer not in layers:
        raise ConfigError(
            f"measure_modulation.layer = {layer!r} is no layer of {context.material.name}; it has {', '.join(layers)}"
        )
    return mode, layer


def _summary(
    primary: Any,
    claim: bool,
    testable: bool,
    antiphase: MeanAmplitude,
    settings: MeasureModulation,
    image: SpectrumImage,
    joint: JointFit,
    context: StepContext,
) -> dict[str, Any]:
    verdict = "claim" if claim else ("no modulation claimed" if testable else "not testable")
    mode = joint.model.mode_names.index(str(primary["mode"]))
    localisation = joint.localisation[mode]
    bound = _lower_bound(image, context)
    return {
        "claim": bool(claim),
        "verdict": verdict,
        "primary": {
            "mode": str(primary["mode"]),
            "layer": str(primary["layer"]),
            "amplitude_mev": {
                **quantity(
                    primary["amplitude_mev"], primary["amplitude_mev_std"], "meV", "lower bound" if bound else "ok"
                ),
                "syst": float(primary["amplitude_mev_syst"]),
                "low": float(primary["amplitude_low_mev"]),
                "high": float(primary["amplitude_high_mev"]),
                "confidence": settings.confidence,
                "low_68": float(primary["amplitude_low_68_mev"]),
                "high_68": float(primary["amplitude_high_68_mev"]),
            },
            "phase_rad": quantity(primary["phase_rad"], primary["phase_rad_std"], "rad"),
            "p_value": float(primary["p_value"]),
            "p_value_rotation": float(primary["p_value_rotation"]),
            "n_units": int(primary["n_units"]),
            "units_needed": settings.min_units,
            "mean_energy_mev": {
                **quantity(primary["mean_energy_mev"], primary["mean_energy_mev_std"], "meV"),
                "syst": float(primary["mean_energy_mev_syst"]),
            },
            "lower_bound": bound,
            "constant_share": None if localisation is None else localisation.constant_share,
        },
    }


def _lower_bound(image: SpectrumImage, context: StepContext) -> bool:
    """An unknown dipole share on axis may hide part of the amplitude."""
    known = context.acquisition_settings.get("dipole_fraction") is not None
    return not known and image.acquisition.geometry != "off-axis"


def _messages(
    primary: Any, testable: bool, image: SpectrumImage, joint: JointFit, min_units: int, context: StepContext
) -> tuple[str, ...]:
    messages = []
    if not testable:
        messages.append(
            f"not testable: {int(primary['n_units'])} half-slab planes show {primary['mode']}, {min_units} are asked for "
            f"(measure_modulation.min_units): {_scans_needed(int(primary['n_units']), min_units)}; a longer field of view along c "
            "shows more of them"
        )
    if _lower_bound(image, context):
        messages.append(
            "acquisition.dipole_fraction is not known and the geometry is not off-axis: amplitudes are lower bounds"
        )
    if context.route == "classic":
        factor = float(joint.noise_factor[joint.model.mode_names.index(str(primary["mode"]))])
        told = "take channels as independent: no step has told what they share"
        if factor != 1.0:
            told = f"hold the noise that channels share, {factor:.2f} times that of independent ones"
        messages.append(
            "classic route: intervals and p-values rest on the scatter between planes; counting deviations of single planes and "
            f"phase bins {told}"
        )
    return tuple(messages)


def _scans_needed(n_units: int, min_units: int) -> str:
    """Return how many scans like this one, pooled, would show as many planes as a test asks for."""
    if n_units < 1:
        return "no number of scans like this one is enough"
    return f"pool {-(-min_units // n_units)} scans like this one"


MEASURE_MODULATION = StepSpec(
    name="measure_modulation",
    run=measure_modulation,
    makes={},
    needs=("align_zlp", "fit_peaks", "assign_layers", "map_superstructure"),
    reference="profile likelihood per position; Hotelling's F over half-slab planes",
)
