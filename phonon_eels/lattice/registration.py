"""Drift between frames of a crystal scan, proof against jumps by a lattice period.

A crystal looks almost the same after a shift by one of its periods, so the highest peak of a cross-correlation may be
the wrong one. Every local maximum that cannot be told from the highest one by its correlation is therefore a
candidate, and the one nearest to the neighbouring frame wins. What breaks the periodicity (superstructure, edges,
defects) lowers the correlation of wrong candidates and so takes part by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import ndimage

from phonon_eels.backends.base import Backend
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.lattice.frame_match import (
    Candidates,
    find_candidates,
    refine_shift,
    seen_positions,
    shift_std,
    vertices,
)

SMOOTHING = 0.7  # positions; keeps single-position noise from making peaks of its own
SMOOTHING_COARSE = 1.3  # takes out most of what coarse sampling folds back
DISTORTION = (
    0.005  # standard deviation of a correlation from what is no noise: scan distortion, changes of the specimen
)
DISTORTION_COARSE = 0.2  # the same where columns of atoms are sampled too coarsely and pretend other shifts
COARSE_STEP_NM = 0.12  # half of the smallest usual distance of atomic columns
MAX_SURPRISE = 25.0  # of a step between frames, in log likelihood
SURE_MARGIN = 3.0  # log likelihood: odds of twenty to one
LOST_CORRELATION = 0.6  # of the median so far: a frame below it must not move the reference


@dataclass(frozen=True)
class Drift:
    """Offsets of frames: what lies at (row, column) of the first frame lies at (row, column) + shifts[f] of frame f.

    Attributes
    ----------
    shifts, std
        In positions, (frames, 2) as (row, column).
    correlation
        With the mean of the other frames over the common area, (frames,).
    jump_corrected
        True where the highest correlation peak was a wrong lattice period, (frames,).
    periods
        The lattice period vectors seen, (n, 2) with n = 0, 1 or 2, in positions.
    margin
        Log likelihood by which the best registration with this frame elsewhere (half a period away or more) is worse,
        (frames,); infinite where nothing else was a candidate. Below `SURE_MARGIN` the data cannot tell.
    """

    shifts: np.ndarray
    std: np.ndarray
    correlation: np.ndarray
    jump_corrected: np.ndarray
    periods: np.ndarray
    margin: np.ndarray

    @property
    def unsure(self) -> np.ndarray:
        """True where another place is about as likely, (frames,)."""
        return np.asarray(self.margin < SURE_MARGIN)


def estimate_drift(
    frames: np.ndarray,
    upsample_factor: int = 20,
    max_step_fraction: float = 0.5,
    step_nm: float | None = None,
    masked: np.ndarray | None = None,
    backend: Backend | None = None,
) -> Drift:
    """Measure the drift of each frame against the mean of the others.

    Two passes: first against the running mean of the frames before, then against the mean of all the others with
    both neighbours as guide. Sub-position offsets by upsampled cross-correlation (doi:10.1364/OL.33.000156) of
    Hann-windowed common areas.

    Parameters
    ----------
    frames
        (frames, rows, columns).
    upsample_factor
        Drift is measured to 1/upsample_factor of a position.
    max_step_fraction
        Steps between frames above this fraction of the shortest lattice period need evidence.
    step_nm
        Distance of neighbouring positions, if known: coarse scans are seen through a wider Gaussian.
    masked
        True where the mean of the frames is not to be looked at, (rows, columns) of the first frame.
    backend
        Where whole frames are correlated; default: the processor.
    """
    backend = CpuBackend(1) if backend is None else backend
    coarse = step_nm is not None and step_nm > COARSE_STEP_NM
    smoothing, distortion = (SMOOTHING_COARSE, DISTORTION_COARSE) if coarse else (SMOOTHING, DISTORTION)
    whitened = np.stack([standardised(frame) for frame in np.asarray(frames, dtype=np.float64)])
    smooth = np.stack([standardised(ndimage.gaussian_filter(frame, smoothing, mode="nearest")) for frame in whitened])
    periods = lattice_periods(backend.whole_array(mean_autocorrelation, smooth))
    shortest = float(np.hypot(*periods.T).min()) if len(periods) else min(frames.shape[1:]) / 2.0
    noise = (smooth[0].size / (4.0 * np.pi * smoothing**2), distortion)
    step_scale = max(max_step_fraction * shortest, 1.0)
    n = len(frames)
    shifts, raw = np.zeros((n, 2)), np.zeros((n, 2))
    correlation = np.ones(n)
    stack = MeanFrame(smooth.shape[1:], masked)
    stack.add(smooth[0], shifts[0])
    for f in range(1, n):
        found = find_candidates(*stack.mean(), smooth[f], shifts[f - 1], step_scale, noise, stack.n_frames, backend)
        best = int(np.argmin(found.evidence + _surprise(found.shifts - shifts[f - 1], step_scale)))
        shifts[f], correlation[f] = found.shifts[best], found.correlations[best]
        if f > 1 and correlation[f] < LOST_CORRELATION * np.median(correlation[1:f]):
            shifts[f] = shifts[f - 1]  # a lost frame moves neither the guide nor the reference
        else:
            stack.add(smooth[f], shifts[f])
    usable = correlation >= LOST_CORRELATION * np.median(correlation[1:])
    usable[0] = True
    std = np.full((n, 2), np.nan)
    for _ in range(2):
        # Steps as large as those seen are no surprise, larger ones are; the lattice sets the upper limit.
        seen = float(np.median(np.hypot(*np.diff(shifts, axis=0).T)))
        scale = float(np.clip(seen, 0.5, step_scale))
        before, choices = shifts.copy(), []
        for f in range(n):
            others = MeanFrame(smooth.shape[1:], masked)
            for g in np.flatnonzero(usable):
                if g != f:
                    others.add(smooth[g], before[g])
            choices.append(
                find_candidates(*others.mean(), smooth[f], before[f], scale, noise, others.n_frames, backend)
            )
            if usable[f]:
                std[f] = shift_std(*others.mean(), smooth[f], before[f], upsample_factor)
        for place, index in enumerate(_least_surprising_path(choices, scale)):
            found = choices[place]
            shifts[place], correlation[place], raw[place] = (
                found.shifts[index],
                found.correlations[index],
                found.highest,
            )
        if np.abs(shifts - before).max() < 0.5:
            break
    others = MeanFrame(smooth.shape[1:], masked)
    for g in np.flatnonzero(usable):
        others.add(smooth[g], shifts[g])
    for f in range(n):
        shifts[f] = refine_shift(*others.mean(), smooth[f], shifts[f], upsample_factor)
    elsewhere = max(0.5 * shortest, 1.5)
    jumped = np.hypot(*(raw - shifts).T) > elsewhere
    return Drift(shifts - shifts[0], std, correlation, jumped, periods, _margins(choices, scale, shifts, elsewhere))


def mean_autocorrelation(on: Any, frames: np.ndarray) -> np.ndarray:
    """Autocorrelation per common position, averaged over frames, which drift between frames cannot blur.

    For `Backend.whole_array`: ``on.xp`` is the arrays' module, ``on.fft`` its Fourier transforms.

    Returns
    -------
    numpy.ndarray
        (2 rows, 2 columns), lag 0 at [rows, columns], 1 there.
    """
    xp, fft = on.xp, on.fft
    rows, columns = frames.shape[1:]
    shape = (2 * rows, 2 * columns)
    centred = frames - frames.mean(axis=(1, 2), keepdims=True)
    power = xp.mean(xp.abs(fft.rfft2(centred, shape)) ** 2, axis=0)
    overlap = fft.irfft2(xp.abs(fft.rfft2(xp.ones((rows, columns)), shape)) ** 2, shape)
    auto = fft.fftshift(fft.irfft2(power, shape) / xp.maximum(overlap, 1.0))
    unit: np.ndarray = auto / xp.maximum(auto[rows, columns], 1e-30)
    return unit


def lattice_periods(autocorrelation: np.ndarray) -> np.ndarray:
    """Find up to two lattice period vectors in a `mean_autocorrelation`.

    Returns
    -------
    numpy.ndarray
        (n, 2), n = 0, 1 or 2, the shortest first, in positions.
    """
    rows, columns = autocorrelation.shape[0] // 2, autocorrelation.shape[1] // 2
    if min(rows, columns) < 8:
        return np.empty((0, 2))
    # Lags up to half the scan: beyond, too little is common.
    auto = autocorrelation[rows - rows // 2 : rows + rows // 2 + 1, columns - columns // 2 : columns + columns // 2 + 1]
    centre = np.array([rows // 2, columns // 2])
    peaks = np.argwhere((auto == ndimage.maximum_filter(auto, 3, mode="nearest")) & (auto > 0.1))
    peaks = peaks[np.all((peaks > 0) & (peaks < np.array(auto.shape) - 1), axis=1)]
    lags = peaks - centre
    away = np.hypot(*lags.T) >= 2.0
    if not away.any():
        return np.empty((0, 2))
    heights = auto[tuple(peaks.T)]
    strong = away & (heights > 0.5 * heights[away].max())
    found: list[np.ndarray] = []
    for index in np.flatnonzero(strong)[np.argsort(np.hypot(*lags[strong].T), kind="stable")]:
        vector = vertices(auto, peaks[index : index + 1])[0][0] - centre
        if not found:
            found.append(vector)
        elif abs(found[0][0] * vector[1] - found[0][1] * vector[0]) > 0.3 * np.hypot(*found[0]) * np.hypot(*vector):
            found.append(vector)
            break
    return np.array(found).reshape(-1, 2)


def _surprise(steps: np.ndarray, scale: float) -> np.ndarray:
    """Log likelihood lost by steps (…, 2); bounded, because a stage can jump."""
    return np.asarray(np.minimum(0.5 * np.sum(steps**2, axis=-1) / scale**2, MAX_SURPRISE))


def _least_surprising_path(choices: list[Candidates], scale: float) -> list[int]:
    """Candidate of each frame so that evidence and steps between neighbours together lose least (Viterbi)."""
    cost = choices[0].evidence
    origins = []
    for earlier, later in pairwise(choices):
        total = cost[:, None] + _surprise(later.shifts[None] - earlier.shifts[:, None], scale)
        origins.append(np.argmin(total, axis=0))
        cost = total.min(axis=0) + later.evidence
    path = [int(np.argmin(cost))]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1]


def _margins(choices: list[Candidates], scale: float, shifts: np.ndarray, elsewhere: float) -> np.ndarray:
    """Return how much more the best path loses that has a frame farther than `elsewhere` from its shift (min-sum)."""

    def losses(order: list[Candidates]) -> list[np.ndarray]:
        found = [np.asarray(order[0].evidence)]
        for earlier, later in pairwise(order):
            steps = later.shifts[None] - earlier.shifts[:, None]
            found.append((found[-1][:, None] + _surprise(steps, scale)).min(axis=0) + later.evidence)
        return found

    forth, back = losses(choices), losses(choices[::-1])[::-1]
    margins = np.full(len(choices), np.inf)
    for f, found in enumerate(choices):
        total = forth[f] + back[f] - found.evidence
        other = np.hypot(*(found.shifts - shifts[f]).T) > elsewhere
        if other.any() and not other.all():
            margins[f] = float(total[other].min() - total[~other].min())
        elif other.all():
            margins[f] = 0.0
    return margins


def common_area(shifts: np.ndarray, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Return (first row, last row + 1, first column, last column + 1) of the first frame that all frames cover.

    Parameters
    ----------
    shifts
        Whole positions, (frames, 2).
    """
    low = np.maximum(0, -shifts.min(axis=0))
    high = np.array([rows, columns]) - np.maximum(0, shifts.max(axis=0))
    return int(low[0]), int(high[0]), int(low[1]), int(high[1])


class MeanFrame:
    """Mean of frames moved onto the first one, with the area each covers."""

    def __init__(self, shape: tuple[int, ...], masked: np.ndarray | None = None) -> None:
        self.shown = np.ones(shape, dtype=bool) if masked is None else ~masked
        self.total = np.zeros(shape)
        self.n = np.zeros(shape)
        self.n_frames = 0

    def add(self, frame: np.ndarray, shift: np.ndarray) -> None:
        """Add a frame with its shift."""
        inside = seen_positions(frame.shape, shift)
        self.total += np.where(inside, ndimage.shift(frame, -shift, order=3, mode="nearest"), 0.0)
        self.n += inside
        self.n_frames += 1

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and where there is any, both (rows, columns)."""
        return self.total / np.maximum(self.n, 1.0), (self.n > 0) & self.shown


def standardised(frame: np.ndarray) -> np.ndarray:
    """Return the image with mean 0 and standard deviation 1."""
    spread = frame.std()
    return np.asarray((frame - frame.mean()) / (spread if spread > 0 else 1.0))
