"""Amplitudes and energies once more with another window, line shape or zero-loss prior: systematic parts, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config.settings import FitPeaks, MeasureModulation
from phonon_eels.forward.asymmetric import AsymmetricModel, asymmetric_model
from phonon_eels.forward.model import ForwardModel, build_forward_model
from phonon_eels.forward.scan import Alignment, fit_scan, without_slopes
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.lattice.modulation import Scores, UnitFit, fit_unit
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.joint_fit import PASSES, Geometry, JointFit, passes_of, progress_of_pass, unit_amplitudes
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

WINDOW_CUT = 0.25
"""Share of the losses beyond the modes, and of the gain side, that the narrower windows leave out."""
LOOSER_PRIOR = 3.0


def variants(
    model: ForwardModel, context: StepContext, image: SpectrumImage, alignment: Alignment
) -> list[tuple[str, str, Callable[[], ForwardModel]]]:
    """Return kind, words and model of every variant: two windows, two other line shapes, looser zero-loss tails.

    Lorentzian lines are another symmetric shape; the asymmetric ones are as asymmetric as the mean spectrum asks for.
    """
    description = context.summaries["fit_peaks"]["model"]
    settings = FitPeaks.model_validate(description["settings"])

    def built(channels: np.ndarray, changed: FitPeaks = settings) -> ForwardModel:
        shape = description["zero_loss"]
        made = build_forward_model(
            changed, context.material, channels, model.dispersion_mev,
            None if shape is None else ZeroLossShape(*shape), description["thermal_mev"], shift_e=model.shift_e,
        )  # fmt: skip
        # A window that ends lower may lose a mode; such a variant would be another model.
        if made.mode_names != model.mode_names:
            return model
        return build_forward_model(
            changed, context.material, channels, model.dispersion_mev,
            None if shape is None else ZeroLossShape(*shape), description["thermal_mev"], shift_e=model.shift_e,
            energies_mev=model.mode_energies_mev, fwhm_mev=model.fwhm_mev,
        )  # fmt: skip

    channels = np.arange(model.first_channel, model.first_channel + model.energies_mev.size)
    top = float(model.mode_energies_mev.max())
    beyond = channels[channels * model.dispersion_mev > top]
    gain = channels[channels < 0]
    lower = channels[: channels.size - int(WINDOW_CUT * beyond.size)]
    other = "lorentzian" if settings.line_shape == "oscillator" else "oscillator"
    found: list[tuple[str, str, Callable[[], ForwardModel]]] = [
        ("window", "window ends lower", lambda: built(lower)),
        ("model", f"{other} lines", lambda: built(channels, settings.model_copy(update={"line_shape": other}))),
    ]
    skewed = _asymmetric(model, settings, context, image, alignment)
    found.append(("model", f"asymmetric lines ({skewed.asymmetry:+.2f})", lambda: skewed.model))
    if gain.size > 8:
        shorter = channels[int(WINDOW_CUT * gain.size) :]
        found.append(("window", "window begins later on the gain side", lambda: built(shorter)))
    if model.zero_loss is not None:
        loose = replace(model, log_tail_std=LOOSER_PRIOR * model.log_tail_std)
        found.append(("zero_loss", "zero-loss tails three times as free", lambda: loose))
    return found


def _asymmetric(
    model: ForwardModel, settings: FitPeaks, context: StepContext, image: SpectrumImage, alignment: Alignment
) -> AsymmetricModel:
    weights = alignment.found.astype(float)[None]
    total, squares = aligned_sums(
        image, alignment, model.first_channel, model.energies_mev.size, weights, context.backend
    )
    n = max(float(weights.sum()), 1.0)
    thermal_mev = context.summaries["fit_peaks"]["model"]["thermal_mev"]
    variance = np.maximum(squares[0], 1e-12) / n**2
    return asymmetric_model(model, settings, context.material, thermal_mev, total[0] / n, variance)


def systematic_table(
    image: SpectrumImage,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    settings: MeasureModulation,
    layers: dict[str, str],
) -> pd.DataFrame:
    """Return amplitude and mean energy of every mode with every variant of the fit, started where the joint fit ended.

    Parameters
    ----------
    layers
        Layer that each mode is measured in.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    chosen = variants(joint.model, context, image, alignment) if settings.variants else []
    passes = passes_of(settings, image)
    for k, (kind, words, model) in enumerate(chosen):
        progress = partial(progress_of_pass, context, PASSES + k, passes)
        units, energies_mev = _fitted(image, model(), joint, geometry, alignment, context, progress)
        for mode, layer in layers.items():
            m = joint.model.mode_names.index(mode)
            if joint.localisation[m] is None:
                continue
            of_mode, values, sign = unit_amplitudes(joint, geometry, m, layer)
            base = antiphase_and_inphase(values, sign)[0]
            changed = np.array([units[unit].value[m, 1:3] for unit in of_mode]).reshape(-1, 2)
            other = antiphase_and_inphase(changed, sign)[0]
            rows.append(
                {
                    "kind": kind, "variant": words, "mode": mode, "layer": layer, "cos_mev": other.value[0],
                    "sin_mev": other.value[1], "amplitude_mev": other.amplitude,
                    "change_mev": float(np.hypot(*(other.value - base.value))), "p_value": other.p_value,
                    "energy_change_mev": energies_mev[m] - joint.reference_mev[m] - joint.common.value[m, 0],
                }
            )  # fmt: skip
    columns = ["kind", "variant", "mode", "layer", "cos_mev", "sin_mev", "amplitude_mev", "change_mev", "p_value"]
    return pd.DataFrame(rows, columns=[*columns, "energy_change_mev"])


KINDS = ("window", "model", "zero_loss")


def systematic_parts(table: pd.DataFrame, column: str = "change_mev") -> dict[str, float]:
    """Return the largest change of each kind, meV; NaN for a kind without a variant."""
    return {kind: float(table.loc[table["kind"] == kind, column].abs().max()) for kind in KINDS}


def with_systematics(amplitudes: pd.DataFrame, systematics: pd.DataFrame) -> pd.DataFrame:
    """Return amplitudes of the joint fit and mean energies with their systematic parts, each by itself and in quadrature."""
    table = amplitudes.copy()
    columns = ["syst_leakage_mev", *(f"syst_{kind}_mev" for kind in KINDS)]
    energies = [f"energy_syst_{kind}_mev" for kind in KINDS]
    for name in energies:
        table[name] = np.nan
    for row in table.index[table["method"] == "joint"]:
        of_mode = systematics[systematics["mode"] == table.loc[row, "mode"]]
        table.loc[row, columns[1:]] = list(systematic_parts(of_mode).values())
        table.loc[row, energies] = list(systematic_parts(of_mode, "energy_change_mev").values())
        for total, parts in (("amplitude_mev_syst", columns), ("mean_energy_mev_syst", energies)):
            known = table.loc[row, parts].astype(float)
            table.loc[row, total] = np.sqrt((known**2).sum()) if known.notna().any() else np.nan
    return table


def _fitted(
    image: SpectrumImage,
    model: ForwardModel,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    progress: Callable[[int, int], None],
) -> tuple[dict[int, UnitFit], np.ndarray]:
    """Return the planes' fits by a variant, and the mean energies of all of them together, (M,) meV."""
    first = N_LOCAL + model.n_modes
    starts = joint.params.copy()
    # Lines of another shape may peak elsewhere at the same mean.
    reference = joint.reference_mev + model.mode_energies_mev - joint.model.mode_energies_mev
    taken_at = starts[..., first : first + model.n_modes]
    taken_at[...] = np.clip(taken_at + reference - joint.reference_mev, model.bounds_mev[:, 0], model.bounds_mev[:, 1])
    held = fit_scan(
        image, model, alignment, starts, context.backend, free_energies=False, profile=True, max_iterations=15,
        progress=progress, reduce=without_slopes,
    )  # fmt: skip
    assert held.score is not None
    assert held.information is not None
    scores = Scores(held.score, held.information, taken_at, np.isin(held.status, (CONVERGED, AT_BOUND)))
    inside = np.isfinite(geometry.lateral_phase_rad)
    units = {
        unit: fit_unit(scores, reference, joint.regressors, inside & (geometry.half_slab == unit), model.fwhm_mev)
        for unit in joint.units
    }
    common = fit_unit(scores, reference, joint.regressors, inside, model.fwhm_mev)
    return units, reference + common.value[: model.n_modes, 0]


def window_row(table: pd.DataFrame, antiphase: MeanAmplitude) -> dict[str, Any]:
    """Return the line of the defences on the variants of the fit."""
    row: dict[str, Any] = {"defence": "other windows, line shape, zero-loss tails", "unit": "meV", "std": np.nan}
    if not len(table) or not np.isfinite(antiphase.amplitude):
        words = "switched off (measure_modulation.variants)" if not len(table) else "there is no amplitude"
        return {**row, "value": np.nan, "p_value": np.nan, "verdict": "no power", "sentence": words}
    worst = table.iloc[int(table["change_mev"].to_numpy(dtype=float).argmax())]
    change, p_value = float(worst["change_mev"]), float(table["p_value"].max())
    if change < 0.5 * antiphase.amplitude:
        verdict = "pass"
    else:
        verdict = "fail" if change > 2.0 * antiphase.amplitude_std else "no power"
    words = f"largest change of {len(table)} variants: {worst['variant']}; p-value: the largest of them"
    return {**row, "value": change, "p_value": p_value, "verdict": verdict, "sentence": words}
