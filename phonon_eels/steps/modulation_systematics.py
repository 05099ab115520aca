"""The amplitude once more with another window, line shape or zero-loss prior: systematic parts, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config.settings import FitPeaks, MeasureModulation
from phonon_eels.forward.model import ForwardModel, build_forward_model
from phonon_eels.forward.scan import Alignment, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.lattice.modulation import Scores, fit_unit
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.joint_fit import PASSES, Geometry, JointFit, passes_of, progress_of_pass, unit_amplitudes
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

WINDOW_CUT = 0.25
"""Share of the losses beyond the modes, and of the gain side, that the narrower windows leave out."""
LOOSER_PRIOR = 3.0


def variants(model: ForwardModel, context: StepContext) -> list[tuple[str, str, Callable[[], ForwardModel]]]:
    """Return kind, words and model of every variant: two windows, another line shape, looser zero-loss tails."""
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
    if gain.size > 8:
        shorter = channels[int(WINDOW_CUT * gain.size) :]
        found.append(("window", "window begins later on the gain side", lambda: built(shorter)))
    if model.zero_loss is not None:
        loose = replace(model, log_tail_std=LOOSER_PRIOR * model.log_tail_std)
        found.append(("zero_loss", "zero-loss tails three times as free", lambda: loose))
    return found


def systematic_table(
    image: SpectrumImage,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    settings: MeasureModulation,
    primary: tuple[str, str],
) -> pd.DataFrame:
    """Return the primary amplitude with every variant of the fit, started where the joint fit ended, and its change."""
    import pandas as pd

    mode = joint.model.mode_names.index(primary[0])
    _, values, sign = unit_amplitudes(joint, geometry, mode, primary[1])
    base = antiphase_and_inphase(values, sign)[0]
    rows: list[dict[str, Any]] = []
    chosen = variants(joint.model, context) if settings.variants else []
    passes = passes_of(settings, image)
    for k, (kind, words, model) in enumerate(chosen):
        progress = partial(progress_of_pass, context, PASSES + k, passes)
        other = _amplitude(image, model(), joint, geometry, alignment, context, mode, primary[1], progress)
        change = float(np.hypot(*(other.value - base.value)))
        rows.append(
            {
                "kind": kind, "variant": words, "cos_mev": other.value[0], "sin_mev": other.value[1],
                "amplitude_mev": other.amplitude, "change_mev": change, "p_value": other.p_value,
            }
        )  # fmt: skip
    columns = ["kind", "variant", "cos_mev", "sin_mev", "amplitude_mev", "change_mev", "p_value"]
    return pd.DataFrame(rows, columns=columns)


def systematic_parts(table: pd.DataFrame) -> dict[str, float]:
    """Return the largest change of each kind, meV; NaN for a kind without a variant."""
    return {
        kind: float(table.loc[table["kind"] == kind, "change_mev"].max()) for kind in ("window", "model", "zero_loss")
    }


def _amplitude(
    image: SpectrumImage,
    model: ForwardModel,
    joint: JointFit,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    mode: int,
    layer: str,
    progress: Callable[[int, int], None],
) -> MeanAmplitude:
    held = fit_scan(
        image, model, alignment, joint.params, context.backend, free_energies=False, profile=True, max_iterations=15,
        progress=progress,
    )  # fmt: skip
    assert held.score is not None
    assert held.information is not None
    first = N_LOCAL + model.n_modes
    taken_at = joint.params[..., first : first + model.n_modes]
    scores = Scores(held.score, held.information, taken_at, np.isin(held.status, (CONVERGED, AT_BOUND)))
    units, _, sign = unit_amplitudes(joint, geometry, mode, layer)
    inside = np.isfinite(geometry.lateral_phase_rad)
    values = [
        fit_unit(
            scores, joint.reference_mev, joint.regressors, inside & (geometry.half_slab == unit), model.fwhm_mev
        ).value[mode, 1:3]
        for unit in units
    ]
    return antiphase_and_inphase(np.array(values).reshape(-1, 2), sign)[0]


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
