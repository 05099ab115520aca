"""Defences with numbers of their own: what an artefact would have given, and whether it could be what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.seen_lines import SeenLines
from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.half_defences import ONE_FRAME, HalfPair, frame_sensitivity
from phonon_eels.steps.joint_fit import Geometry, JointFit, whole_units
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd

SURE = 2.0
"""Standard deviations that count as sure in a verdict."""
GAIN_WINDOW_WIDTHS = 1.5
UNKNOWN_OFF_Q = "its influence on the energy cannot be measured in this scan"


def unit_lock_in(joint: JointFit, geometry: Geometry, values: np.ndarray, mode: int) -> np.ndarray:
    """Lock a map in at the phase of a mode's planes, unit by unit, (units, 2), per unit of the plane's own signal."""
    regressors = joint.regressors[:, :, mode, :3]
    weight = joint.scores.information[..., mode, mode] * joint.scores.usable
    amplitudes = []
    for number in whole_units(joint, mode):
        chosen = (
            (geometry.half_slab == number) & np.isfinite(values) & np.isfinite(regressors).all(axis=2) & (weight > 0.0)
        )
        design = regressors[chosen] * np.sqrt(weight[chosen])[:, None]
        amplitudes.append(np.linalg.lstsq(design, values[chosen] * np.sqrt(weight[chosen]), rcond=None)[0][1:])
    return np.array(amplitudes).reshape(-1, 2)


def sensitivity(joint: JointFit, geometry: Geometry, values: np.ndarray, mode: int) -> tuple[float, float]:
    """Return how a mode's energy follows a map apart from the superstructure's wave, and its standard deviation.

    Each plane has a mean and a wave of its own beside the map; what is left of the map is off-q variation. The standard
    deviation is that of the planes' scatter.
    """
    regressors = joint.regressors[:, :, mode, :3]
    scores = joint.scores
    slopes, weights = [], []
    for number in whole_units(joint, mode):
        chosen = (geometry.half_slab == number) & scores.usable & np.isfinite(values)
        chosen &= np.isfinite(regressors).all(axis=2)
        centred = values[chosen] - values[chosen].mean() if chosen.any() else values[chosen]
        design = np.column_stack([regressors[chosen], centred])
        information = scores.information[chosen][:, mode, mode]
        normal = (design * information[:, None]).T @ design
        if len(design) < 8 or np.linalg.matrix_rank(normal) < 4:
            continue
        inverse = np.linalg.inv(normal)
        slopes.append((inverse @ (design.T @ scores.score[chosen][:, mode]))[3])
        weights.append(1.0 / inverse[3, 3])
    if len(slopes) < 3:
        return float("nan"), float("nan")
    slope, weight = np.array(slopes), np.array(weights) / np.sum(weights)
    mean = float(weight @ slope)
    n = len(slope)
    return mean, float(np.sqrt((weight**2 @ (slope - mean) ** 2) * n / (n - 1)))


def covariates(image: SpectrumImage, context: StepContext) -> dict[str, np.ndarray]:
    """Return maps that are no energies but could make some: zero-loss width, thickness, HAADF."""
    found: dict[str, np.ndarray] = {}
    maps: Any = context.maps.get("align_zlp", {})
    for name, text in (("zlp_fwhm_mev", "zero-loss width"), ("zlp_counts", "zero-loss counts (thickness)")):
        if name in maps:
            found[text] = np.asarray(maps[name].values, dtype=float)
    if image.haadf is not None:
        found["HAADF"] = np.asarray(image.haadf, dtype=float)
    return found


def predicted_rows(
    image: SpectrumImage,
    joint: JointFit,
    geometry: Geometry,
    context: StepContext,
    antiphase: MeanAmplitude,
    primary_mode: str,
    halves: Sequence[HalfPair],
) -> list[dict[str, Any]]:
    """Predict the artefact β · C(q) of every covariate, C(q) its own modulation in the planes.

    β is measured twice: from the covariate's variation over the scan apart from the wave, and from what changes at the same
    positions between halves of the frames, where no structure of the specimen can enter.

    Regressing a covariate out would remove a real modulation that it follows (SCIENCE §9); the prediction stands beside it.
    """
    mode = joint.model.mode_names.index(primary_mode)
    rows = []
    for text, values in covariates(image, context).items():
        spread = float(np.nanstd(values))
        if not spread > 0.0:
            continue
        scaled = values / spread
        units = unit_lock_in(joint, geometry, scaled, mode)
        wave, _ = antiphase_and_inphase(units, np.ones(len(units)))
        off_q = sensitivity(joint, geometry, scaled, mode)
        rows.append(_predicted_row(f"predicted artefact of {text}", *off_q, wave, antiphase, UNKNOWN_OFF_Q))
        frames = frame_sensitivity(halves, text, spread, whole_units(joint, mode), geometry.half_slab, mode)
        unknown = "it does not change between halves of the frames beyond its noise" if halves else ONE_FRAME
        rows.append(_predicted_row(f"predicted artefact of {text}, frame to frame", *frames, wave, antiphase, unknown))
    return rows


def _predicted_row(
    defence: str, beta: float, beta_std: float, wave: MeanAmplitude, antiphase: MeanAmplitude, unknown: str
) -> dict[str, Any]:
    size = float(np.hypot(*(beta * wave.value)))
    std = float(np.hypot(beta * wave.amplitude_std, beta_std * wave.amplitude))
    verdict, words = predicted_verdict(size, std, antiphase.amplitude)
    words = f"{words} (amplitude {antiphase.amplitude:.3g} meV)" if np.isfinite(beta) else unknown
    return {
        "defence": defence, "value": size, "std": std, "unit": "meV", "p_value": np.nan, "verdict": verdict,
        "sentence": words,
    }  # fmt: skip


def predicted_verdict(size: float, std: float, amplitude: float) -> tuple[str, str]:
    """Judge a predicted artefact against half of the amplitude."""
    if not np.isfinite(size + std + amplitude):
        return "no power", "its influence on the energy cannot be measured in this scan"
    if size + SURE * std < 0.5 * amplitude:
        return "pass", "it would give less than half of the amplitude"
    if size - SURE * std > 0.5 * amplitude:
        return "fail", "it would give half of the amplitude or more"
    if SURE * std > 0.5 * amplitude:
        return "no power", "its influence is not known well enough to exclude half of the amplitude"
    return "not distinguished", "it would give about half of the amplitude"


def common_mode_row(
    amplitudes: pd.DataFrame, antiphase: MeanAmplitude, centre: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Do all modes move together as on a moving energy axis? Bounded by the zero-loss centre at the same phase."""
    others = amplitudes[(amplitudes["method"] == "joint") & (amplitudes["role"] == "secondary")]
    direction = antiphase.value / max(antiphase.amplitude, 1e-300)
    along = others["cos_mev"].to_numpy(float) * direction[0] + others["sin_mev"].to_numpy(float) * direction[1]
    std = np.hypot(
        others["cos_mev_std"].to_numpy(float) * direction[0], others["sin_mev_std"].to_numpy(float) * direction[1]
    )
    known = np.isfinite(along) & np.isfinite(std) & (std > 0.0)
    row: dict[str, Any] = {
        "defence": "common mode: other modes along the primary's phase",
        "unit": "meV",
        "p_value": np.nan,
    }
    if not known.any() or not np.isfinite(antiphase.amplitude):
        return {**row, "value": np.nan, "std": np.nan, "verdict": "no power", "sentence": "no other mode is measured"}
    weight = std[known] ** -2.0
    common, common_std = float((weight * along[known]).sum() / weight.sum()), float(weight.sum() ** -0.5)
    bound = np.nan if centre is None else float(centre["value"]) + SURE * float(centre["std"])
    still = f"the zero-loss centre stands still at q within {bound:.2g} meV"
    if common + SURE * common_std < 0.5 * antiphase.amplitude:
        verdict, words = "pass", "the other modes do not move with it by as much"
    elif bound < antiphase.amplitude / 3.0:
        verdict, words = "pass", f"the other modes may follow, but {still}; a dispersion that changes is not excluded"
    else:
        verdict, words = (
            "not distinguished",
            "the other modes may move with it and no bound on the energy axis excludes that",
        )
    return {**row, "value": common, "std": common_std, "verdict": verdict, "sentence": words}


def gain_mirror_row(
    spectrum: pd.DataFrame, lines: SeenLines, antiphase: MeanAmplitude, mode: int, mean_share: float, area_e: float
) -> dict[str, Any]:
    """Fit the lock-in of the gain side: a real shift moves gain and loss apart, an axis that drifts moves them alike.

    Parameters
    ----------
    spectrum
        Table `modulation_spectrum`.
    mean_share, area_e
        Of the positions it was made of.
    """
    row: dict[str, Any] = {"defence": "gain-side mirror of the primary mode", "unit": "meV", "p_value": np.nan}
    model = lines.model
    energy, energies = float(lines.energies_mev[mode]), model.energies_mev
    zero_loss_mev = 0.0 if model.zero_loss is None else model.zero_loss.fwhm_mev
    reach = GAIN_WINDOW_WIDTHS * (zero_loss_mev + float(model.fwhm_mev[mode]))
    window = np.abs(energies + energy) < reach
    if model.zero_loss is None or window.sum() < 8 or energies[0] > -energy - 0.3 * reach:
        words = f"the energy axis or the window ends at {energies[0]:.3g} meV, before the gain side of {energy:.3g} meV"
        return {**row, "value": np.nan, "std": np.nan, "verdict": "no power", "sentence": words}
    direction = antiphase.value / max(antiphase.amplitude, 1e-300)
    seen = spectrum["cos_e"].to_numpy(float) * direction[0] + spectrum["sin_e"].to_numpy(float) * direction[1]
    weight = 1.0 / np.maximum(spectrum["std_e"].to_numpy(float)[window], 1e-12)
    shift = area_e * mean_share * lines.slope(mode, energy)[window]
    design = np.vstack([shift, lines.line(mode, energy)[window], np.ones(window.sum()), energies[window] + energy])
    scale = np.abs(design).max(axis=1)
    covariance = np.linalg.pinv((design / scale[:, None] * weight) @ (design / scale[:, None] * weight).T)
    found = covariance @ ((design / scale[:, None] * weight) @ (seen[window] * weight))
    value, std = float(found[0] / scale[0]), float(np.sqrt(covariance[0, 0]) / scale[0])
    verdict, words = mirror_verdict(value, std, antiphase.amplitude)
    return {**row, "value": value, "std": std, "verdict": verdict, "sentence": f"expected std {std:.2g} meV: {words}"}


def mirror_verdict(value: float, std: float, amplitude: float) -> tuple[str, str]:
    """Judge the gain side: +amplitude is a real shift, -amplitude an axis that drifts."""
    if not np.isfinite(value + amplitude) or std > 0.5 * amplitude:
        return "no power", "more than half of the amplitude, the gain side cannot tell"
    real, drift = abs(value - amplitude) < SURE * std, abs(value + amplitude) < SURE * std
    if real and not drift:
        return "pass", "gain and loss move apart, as a real shift"
    if drift and not real:
        return "fail", "gain and loss move alike, as an axis that drifts"
    return "not distinguished", "the gain side agrees with neither or both"
