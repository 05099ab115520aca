"""Does the modulation stand in each half of the frames: odd against even, first against last half of the dose?

Each half is fitted with the shares and phases of the whole. Odd against even frames shows noise that is not what it was
taken for, but is blind to damage; first against last half of the dose sees damage and slow drift. What changes from half to
half at the same positions also tells how the energies follow zero-loss width, thickness and dark field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.scan import Alignment, ScanFit, fit_scan, without_slopes
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.lattice.modulation import Scores, fit_unit
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.joint_fit import Geometry, JointFit, progress_of_pass, unit_amplitudes
from phonon_eels.steps.reproducibility import ZERO_LOSS_HEIGHT, counted_parameters

if TYPE_CHECKING:
    from phonon_eels.backends.base import Progress
    from phonon_eels.steps.spec import StepContext

KINDS = {"odd_even": "odd against even frames", "first_last": "first against last half of the dose"}
NAMES = {"odd_even": ("odd", "even"), "first_last": ("first", "last")}
ONE_FRAME = "one frame: there are no halves to compare"
FAILED_P = 0.01
SMALL_SHARE = 0.1
MIN_RELIABILITY = 0.1
"""Covariates whose change between halves is noise to more than 90 % tell nothing."""
LOG_WIDTH = 2


@dataclass(frozen=True)
class Change:
    """What a covariate changes by from the second to the first half, (rows, columns), and its noise."""

    value: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class HalfPair:
    """Two halves of the frames, fitted alike.

    Attributes
    ----------
    kind
        Key of `KINDS`.
    scores
        Of either half.
    changes
        Name of a covariate → its change.
    """

    kind: str
    scores: tuple[Scores, Scores]
    changes: dict[str, Change]


def fit_halves(
    image: SpectrumImage, joint: JointFit, alignment: Alignment, context: StepContext, passes: int
) -> tuple[HalfPair, ...]:
    """Fit every half of the frames that `register_frames` kept, energies held at those of the joint fit.

    Parameters
    ----------
    passes
        Fits of the whole scan that the progress counts; these are the last.
    """
    if image.halves is None or joint.model.zero_loss is None:
        return ()
    summary = context.summaries.get("register_frames", {})
    told = [summary[name] for name in ("halves", "other_halves") if summary.get(name)]
    pairs = []
    for k, entry in enumerate(told[: image.halves.shape[0] // 2]):
        fits = []
        for number in range(2):
            share = entry["n_frames"][number] / entry["n_frames"][-1]
            half = image.with_(counts=image.halves[2 * k + number], halves=None, noise=image.noise.of_share(share))
            number_of_pass = passes - image.halves.shape[0] + 2 * k + number
            progress = partial(progress_of_pass, context, number_of_pass, passes)
            fits.append((share, _fit(half, share, joint, alignment, context, progress)))
        pairs.append(_pair(str(entry["kind"]), fits, joint, context))
    return tuple(pairs)


def _fit(
    half: SpectrumImage, share: float, joint: JointFit, alignment: Alignment, context: StepContext, progress: Progress
) -> ScanFit:
    starts = joint.params.copy()
    starts[..., counted_parameters(joint.model)] *= share
    return fit_scan(
        half, joint.model, alignment, starts, context.backend, free_energies=False, profile=True, max_iterations=15,
        progress=progress, reduce=without_slopes,
    )  # fmt: skip


def _pair(kind: str, fits: list[tuple[float, ScanFit]], joint: JointFit, context: StepContext) -> HalfPair:
    first = N_LOCAL + joint.model.n_modes
    taken_at = joint.params[..., first : first + joint.model.n_modes]
    scores = []
    for _, fit in fits:
        assert fit.score is not None
        assert fit.information is not None
        usable = np.isin(fit.status, (CONVERGED, AT_BOUND)) & joint.scores.usable
        scores.append(Scores(fit.score, fit.information, taken_at, usable))
    return HalfPair(kind, (scores[0], scores[1]), _changes(kind, fits, joint, context))


def _changes(kind: str, fits: list[tuple[float, ScanFit]], joint: JointFit, context: StepContext) -> dict[str, Change]:
    """Return the changes of the covariates under the names of `artefact_defences.covariates`."""
    (_, one), (_, two) = fits
    zero_loss = joint.model.zero_loss
    assert zero_loss is not None
    found: dict[str, Change] = {}
    width = zero_loss.fwhm_mev
    found["zero-loss width"] = Change(
        width * (one.params[..., LOG_WIDTH] - two.params[..., LOG_WIDTH]),
        width * np.hypot(one.std[..., LOG_WIDTH], two.std[..., LOG_WIDTH]),
    )
    # Height times width stands for the electrons; both halves are brought to the dose of the whole.
    counts = np.asarray(context.maps["align_zlp"]["zlp_counts"].values, dtype=float)
    whole = joint.params[..., ZERO_LOSS_HEIGHT]
    log = [
        fit.params[..., ZERO_LOSS_HEIGHT] / (part * whole) * np.exp(fit.params[..., LOG_WIDTH]) for part, fit in fits
    ]
    noise = [np.hypot(fit.std[..., ZERO_LOSS_HEIGHT] / (part * whole), fit.std[..., LOG_WIDTH]) for part, fit in fits]
    found["zero-loss counts (thickness)"] = Change(counts * (log[0] - log[1]), counts * np.hypot(*noise))
    maps: Any = context.maps.get("register_frames", {})
    names = [f"haadf_{name}" for name in NAMES[kind]]
    if all(name in maps for name in names):
        change = np.asarray(maps[names[0]].values, dtype=float) - np.asarray(maps[names[1]].values, dtype=float)
        # Shot noise, from neighbours: what the beam current or the specimen does is smooth along the scan.
        noise_std = float(np.nanstd(np.diff(change, axis=1))) / np.sqrt(2.0) if change.shape[1] > 1 else np.nan
        found["HAADF"] = Change(change, np.full(change.shape, noise_std))
    return found


def frame_sensitivity(
    halves: Sequence[HalfPair], name: str, spread: float, units: list[int], half_slab: np.ndarray, mode: int
) -> tuple[float, float]:
    """Return how a mode's energy follows a covariate from half to half at the same positions, and its standard deviation.

    A modulation of the specimen is the same in both halves and falls out. The noise of the covariate, which would
    pull the slope to zero, is taken off its variance. The deviation is that of the scatter between planes.

    Parameters
    ----------
    spread
        The covariate is counted in units of this.
    """
    slopes, weights = [], []
    for number in units:
        top, bottom, raw = 0.0, 0.0, 0.0
        for pair in halves:
            change = pair.changes.get(name)
            if change is None:
                continue
            one, two = pair.scores
            chosen = (half_slab == number) & one.usable & two.usable & np.isfinite(change.value)
            f1, f2 = (s.information[chosen][:, mode, mode] for s in (one, two))
            shown = (f1 > 0.0) & (f2 > 0.0)
            if shown.sum() < 8:
                continue
            f1, f2 = f1[shown], f2[shown]
            energy = one.score[chosen][shown, mode] / f1 - two.score[chosen][shown, mode] / f2
            weight = 1.0 / (1.0 / f1 + 1.0 / f2)
            value, noise = change.value[chosen][shown] / spread, change.std[chosen][shown] / spread
            value = value - (weight * value).sum() / weight.sum()
            energy = energy - (weight * energy).sum() / weight.sum()
            top += float((weight * value * energy).sum())
            raw += float((weight * value**2).sum())
            bottom += float((weight * (value**2 - noise**2)).sum())
        if raw > 0.0 and bottom > MIN_RELIABILITY * raw:
            slopes.append(top / bottom)
            weights.append(bottom)
    if len(slopes) < 3:
        return float("nan"), float("nan")
    slope, share = np.array(slopes), np.array(weights) / np.sum(weights)
    mean, n = float(share @ slope), len(slopes)
    return mean, float(np.sqrt((share**2 @ (slope - mean) ** 2) * n / (n - 1)))


def halves_rows(
    halves: Sequence[HalfPair], image: SpectrumImage, joint: JointFit, geometry: Geometry, context: StepContext,
    antiphase: MeanAmplitude, primary: tuple[str, str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the lines on odd against even frames and on the first against the last half of the dose."""
    mode = joint.model.mode_names.index(primary[0])
    units, _, sign = unit_amplitudes(joint, geometry, mode, primary[1])
    by_kind = {pair.kind: pair for pair in halves}
    rows = []
    for kind, words in KINDS.items():
        row: dict[str, Any] = {"defence": words, "unit": "meV"}
        if kind not in by_kind:
            why = {"verdict": "no power", "sentence": _why_not(kind, image, context)}
            rows.append({**row, "value": np.nan, "std": np.nan, "p_value": np.nan, **why})
            continue
        difference = _half_units(by_kind[kind], joint, geometry, mode, units)
        mean = antiphase_and_inphase(difference, sign)[0]
        verdict, sentence = halves_verdict(mean, antiphase.amplitude)
        rows.append(
            {
                **row, "value": mean.amplitude, "std": mean.amplitude_std, "p_value": mean.p_value, "verdict": verdict,
                "sentence": sentence,
            }
        )  # fmt: skip
    return rows


def _half_units(pair: HalfPair, joint: JointFit, geometry: Geometry, mode: int, units: list[int]) -> np.ndarray:
    """Amplitudes of the planes in the first half less those in the second, (units, 2)."""
    inside = np.isfinite(geometry.lateral_phase_rad)
    parts = [
        [
            fit_unit(
                scores, joint.reference_mev, joint.regressors, inside & (geometry.half_slab == unit),
                joint.model.fwhm_mev,
            ).value[mode, 1:3]
            for unit in units
        ]
        for scores in pair.scores
    ]  # fmt: skip
    difference: np.ndarray = np.array(parts[0]) - np.array(parts[1])
    return difference.reshape(-1, 2)


def _why_not(kind: str, image: SpectrumImage, context: StepContext) -> str:
    summary = context.summaries.get("register_frames", {})
    if image.acquisition.n_frames < 2:
        return ONE_FRAME
    if "halves" not in summary:
        return (
            f"{image.acquisition.n_frames} frames, but no halves of them were kept: four registered frames are needed, "
            "on the forward route, and register_frames.halves = both"
        )
    return f"these halves were not kept: register_frames.halves is not both and not {kind}"


def halves_verdict(difference: MeanAmplitude, amplitude: float) -> tuple[str, str]:
    """Judge the difference of the amplitudes of both halves against the amplitude of the whole."""
    if not np.isfinite(difference.p_value + amplitude):
        return "no power", "too few planes to know the scatter of the difference"
    if difference.p_value <= FAILED_P and difference.amplitude >= amplitude / 3.0:
        return "fail", "the halves differ by a third of the amplitude or more"
    if difference.amplitude_std > 0.5 * amplitude:
        return "no power", "a difference of half of the amplitude would not be seen"
    if difference.p_value <= FAILED_P and difference.amplitude >= SMALL_SHARE * amplitude:
        return "not distinguished", "the halves differ, by less than a third of the amplitude"
    if difference.p_value <= FAILED_P:
        return "pass", "the halves differ, but by less than a tenth of the amplitude"
    return "pass", "both halves show the same within their errors"
