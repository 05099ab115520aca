"""How frames lie on each other and which of them are worth adding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from phonon_eels.backends.base import Backend
from phonon_eels.config.frames import RegisterFrames
from phonon_eels.lattice.frame_match import seen_positions
from phonon_eels.lattice.line_drift import LineDrift, measure_line_drift
from phonon_eels.lattice.registration import Drift, estimate_drift
from phonon_eels.spectrum_image import SpectrumImage

LEAST_POSITIONS = 8
NOT_TESTABLE = "not testable at this sampling"
COUNTS_FLOOR, CORRELATION_FLOOR, SHARPNESS_FLOOR = 0.03, 0.02, 0.05
"""Smallest standard deviations of shares of the median, so that few and equal frames are not told apart by nothing."""
LINE_DRIFT_FLOOR = 0.5
"""The same for the drift within a frame, in positions."""


@dataclass(frozen=True)
class FramePlaces:
    """What the dark-field images of the frames tell.

    Attributes
    ----------
    drift, lines
        Of whole frames, and within frames.
    sharpness
        Contrast of each frame at its place against the mean of the others, (frames,); NaN where it was not measured.
    why_not
        Reason why nothing was measured, or an empty string.
    """

    drift: Drift
    lines: LineDrift
    sharpness: np.ndarray
    why_not: str


def largest_step_nm(image: SpectrumImage) -> float:
    """Return the larger distance of neighbouring positions, 0 for a single one."""
    return max((axis.step_nm for axis in image.scan if axis.n > 1), default=0.0)


def place_frames(image: SpectrumImage, settings: RegisterFrames, backend: Backend) -> FramePlaces:
    """Register the dark-field images of the frames; masked positions are not looked at.

    The mask is that of the first frame: what lies under it is taken out of every frame at the same place, and out of the mean
    that frames are compared with.
    """
    n = int(image.frames.shape[0])  # type: ignore[union-attr]
    why_not = ""
    if image.haadf_frames is None:
        why_not = "no HAADF image of each frame"
    elif min(image.shape[:2]) < LEAST_POSITIONS:
        why_not = f"fewer than {LEAST_POSITIONS} rows or columns"
    elif largest_step_nm(image) > settings.largest_step_nm:
        why_not = NOT_TESTABLE
    if why_not:
        unknown = np.full(n, np.nan)
        drift = Drift(
            np.zeros((n, 2)), np.full((n, 2), np.nan), unknown, np.zeros(n, bool), np.empty((0, 2)), unknown.copy()
        )
        return FramePlaces(drift, LineDrift(*np.full((2, n, 2), np.nan)), unknown.copy(), why_not)
    frames = unmasked(np.asarray(image.haadf_frames, dtype=np.float64), image.masked)
    drift = estimate_drift(
        frames, settings.upsample_factor, settings.max_step_fraction, image.scan[0].step_nm, image.masked, backend
    )
    known = bool(np.isfinite(drift.std).any())
    lines = measure_line_drift(frames, drift.shifts) if known else LineDrift(*np.full((2, n, 2), np.nan))
    return FramePlaces(drift, lines, sharpness(frames, drift.shifts, image.masked), "")


def unmasked(frames: np.ndarray, masked: np.ndarray | None) -> np.ndarray:
    """Return the images with the mean of the rest at masked positions, (frames, rows, columns)."""
    if masked is None or not masked.any() or masked.all():
        return frames
    return np.where(masked, frames[:, ~masked].mean(axis=1)[:, None, None], frames)


def sharpness(frames: np.ndarray, shifts: np.ndarray, masked: np.ndarray | None = None) -> np.ndarray:
    """Return the contrast of every frame over that of the mean of the others, at the same places and brightness, (frames,).

    It is the slope of the frame's image over the others' mean, which noise of the frame does not change: a blurred frame
    has less of the contrast that the others share.
    """
    bright = frames / np.maximum(np.abs(frames.mean(axis=(1, 2), keepdims=True)), 1e-30)
    inside = np.stack([seen_positions(frame.shape, shift) for frame, shift in zip(frames, shifts, strict=True)])
    if masked is not None:
        inside &= ~masked
    placed = np.stack([
        ndimage.shift(frame, -shift, order=3, mode="nearest") for frame, shift in zip(bright, shifts, strict=True)
    ])  # fmt: skip
    total, number = np.where(inside, placed, 0.0).sum(axis=0), inside.sum(axis=0)
    found = np.full(len(frames), np.nan)
    for f, (own, here) in enumerate(zip(placed, inside, strict=True)):
        common = here & (number > 1)
        if common.sum() < LEAST_POSITIONS**2:
            continue
        others = (total - own)[common] / (number[common] - 1)
        away = others - others.mean()
        found[f] = float(away @ own[common]) / max(float(away @ away), 1e-30)
    return found


def rejections(places: FramePlaces, counts: np.ndarray, settings: RegisterFrames) -> list[str]:
    """Return the reason why each frame is left out, or an empty string.

    Parameters
    ----------
    counts
        Typical electrons per position, (frames,).
    """
    if not settings.reject_poor_frames:
        return [""] * counts.size
    middle = max(float(np.median(counts)), 1e-12)
    within = np.nan_to_num(np.abs(places.lines.change)).max(axis=1)
    reasons = [""] * counts.size
    correlation = places.drift.correlation

    def judge(poor: np.ndarray, words: list[str]) -> None:
        for f in np.flatnonzero(poor):
            reasons[f] = reasons[f] or words[f]

    limit = settings.rejection_sigma
    judge(
        np.abs(_deviation(counts / middle, COUNTS_FLOOR)) > limit,
        [f"counts {value / middle:.2f} of the median frame's" for value in counts],
    )
    if np.isfinite(correlation).all():
        judge(
            _deviation(correlation, CORRELATION_FLOOR) < -limit,
            [f"correlation {value:.2f}, median {np.median(correlation):.2f}" for value in correlation],
        )
    if np.isfinite(places.sharpness).all():
        judge(
            _deviation(places.sharpness, SHARPNESS_FLOOR) < -limit,
            [
                f"blurred: contrast {value:.2f} of the others', median {np.median(places.sharpness):.2f}"
                for value in places.sharpness
            ],
        )
    judge(
        _deviation(within, LINE_DRIFT_FLOOR) > limit,
        [f"drift of {value:.2g} positions while it was scanned" for value in within],
    )
    return reasons


def _deviation(values: np.ndarray, floor: float) -> np.ndarray:
    """Return the distance of each value from the median, in robust standard deviations of at least `floor`."""
    middle = np.median(values)
    return np.asarray((values - middle) / max(1.4826 * float(np.median(np.abs(values - middle))), floor))
