"""Drift between frames of a crystal scan, proof against jumps by a lattice period.

A crystal looks almost the same after a shift by one of its periods, so the highest peak of a cross-correlation may be
the wrong one. Every local maximum that cannot be told from the highest one by its correlation is therefore a
candidate, and the one nearest to the neighbouring frame wins. What breaks the periodicity (superstructure, edges,
defects) lowers the correlation of wrong candidates and so takes part by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

SMOOTHING = 0.7  # positions; keeps single-position noise from making peaks of its own
SMOOTHING_COARSE = 1.3  # takes out most of what coarse sampling folds back
MIN_OVERLAP = 0.3  # of the frame; correlations over less are not trusted
DISTORTION = 0.01  # standard deviation of a correlation from what is no noise: scan distortion, changes of the specimen
DISTORTION_COARSE = 0.2  # the same where columns of atoms are sampled too coarsely and pretend other shifts
COARSE_STEP_NM = 0.12  # half of the smallest usual distance of atomic columns
MAX_CANDIDATES = 12
MAX_SURPRISE = 12.0  # of a step between frames, in log likelihood
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
    """

    shifts: np.ndarray
    std: np.ndarray
    correlation: np.ndarray
    jump_corrected: np.ndarray
    periods: np.ndarray


def estimate_drift(
    frames: np.ndarray, upsample_factor: int = 20, max_step_fraction: float = 0.5, step_nm: float | None = None
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
    """
    coarse = step_nm is not None and step_nm > COARSE_STEP_NM
    smoothing, distortion = (SMOOTHING_COARSE, DISTORTION_COARSE) if coarse else (SMOOTHING, DISTORTION)
    whitened = np.stack([_standardised(frame) for frame in np.asarray(frames, dtype=np.float64)])
    smooth = np.stack([_standardised(ndimage.gaussian_filter(frame, smoothing, mode="nearest")) for frame in whitened])
    periods = lattice_periods(mean_autocorrelation(smooth))
    shortest = float(np.hypot(*periods.T).min()) if len(periods) else min(frames.shape[1:]) / 2.0
    noise = (smooth[0].size / (4.0 * np.pi * smoothing**2), distortion)
    step_scale = max(max_step_fraction * shortest, 1.0)
    n = len(frames)
    shifts, raw = np.zeros((n, 2)), np.zeros((n, 2))
    correlation = np.ones(n)
    stack = _Mean(smooth.shape[1:])
    stack.add(smooth[0], shifts[0])
    for f in range(1, n):
        found = find_candidates(*stack.mean(), smooth[f], shifts[f - 1], step_scale, noise, stack.n_frames)
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
            others = _Mean(smooth.shape[1:])
            for g in np.flatnonzero(usable):
                if g != f:
                    others.add(smooth[g], before[g])
            choices.append(find_candidates(*others.mean(), smooth[f], before[f], scale, noise, others.n_frames))
            if usable[f]:
                std[f] = shift_std(*others.mean(), smooth[f], before[f], upsample_factor)
        for f, index in enumerate(_least_surprising_path(choices, scale)):
            shifts[f], correlation[f], raw[f] = choices[f].shifts[index], choices[f].correlations[index], choices[f].highest
    others = _Mean(smooth.shape[1:])
    for f in np.flatnonzero(usable):
        others.add(smooth[f], shifts[f])
    for f in range(n):
        shifts[f] = refine_shift(*others.mean(), smooth[f], shifts[f], upsample_factor)
    jumped = np.hypot(*(raw - shifts).T) > max(0.5 * shortest, 1.5)
    return Drift(shifts - shifts[0], std, correlation, jumped, periods)


def mean_autocorrelation(frames: np.ndarray) -> np.ndarray:
    """Autocorrelation per common position, averaged over frames, which drift between frames cannot blur.

    Returns
    -------
    numpy.ndarray
        (2 rows, 2 columns), lag 0 at [rows, columns], 1 there.
    """
    rows, columns = frames.shape[1:]
    shape = (2 * rows, 2 * columns)
    centred = frames - frames.mean(axis=(1, 2), keepdims=True)
    power = np.mean(np.abs(fft.rfft2(centred, shape)) ** 2, axis=0)
    overlap = fft.irfft2(np.abs(fft.rfft2(np.ones((rows, columns)), shape)) ** 2, shape)
    auto = fft.fftshift(fft.irfft2(power, shape) / np.maximum(overlap, 1.0))
    return np.asarray(auto / max(auto[rows, columns], 1e-30))


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
        vector = _vertices(auto, peaks[index : index + 1])[0][0] - centre
        if not found:
            found.append(vector)
        elif abs(found[0][0] * vector[1] - found[0][1] * vector[0]) > 0.3 * np.hypot(*found[0]) * np.hypot(*vector):
            found.append(vector)
            break
    return np.array(found).reshape(-1, 2)


@dataclass(frozen=True)
class Candidates:
    """Shifts that a frame may have.

    Attributes
    ----------
    shifts, correlations
        (n, 2) in positions, and the correlation with the reference there, (n,).
    evidence
        Log likelihood by which each is worse than the one with the highest correlation, (n,).
    highest
        Where the correlation is highest.
    """

    shifts: np.ndarray
    correlations: np.ndarray
    evidence: np.ndarray
    highest: np.ndarray


def find_candidates(
    reference: np.ndarray,
    covered: np.ndarray,
    frame: np.ndarray,
    guide: np.ndarray,
    step_scale: float,
    noise: tuple[float, float],
    n_reference: int,
) -> Candidates:
    """Find the shifts that a frame may have, and how much speaks against each.

    That a candidate lies d below the highest correlation is evidence against it only as far as a wrong period would
    lower the correlation at all: with an expected loss l and a standard deviation s of d the log likelihood ratio is
    2 d l / s². A crystal without superstructure, defect or edge in view has l = 0, and the step from the
    neighbouring frame alone decides.

    Parameters
    ----------
    covered
        True where the reference holds data.
    guide
        Where the frame is expected; of many candidates the nearest are looked at.
    step_scale
        Usual distance from `guide`, in positions.
    noise
        (number of independent values in a frame, standard deviation of a correlation from other causes).
    n_reference
        Number of frames in the reference, which tells its noise.
    """
    coefficient, overlap = correlation_map(reference, covered, frame)
    coefficient[overlap < MIN_OVERLAP * frame.size] = -1.0
    image = fft.fftshift(coefficient)
    peaks = np.argwhere((image == ndimage.maximum_filter(image, 3, mode="constant", cval=-1.0)) & (image > 0.0))
    if not len(peaks):
        guide = np.asarray(guide, dtype=float)
        return Candidates(guide[None], np.zeros(1), np.zeros(1), guide)
    places, heights = _vertices(image, peaks)
    shifts = places - np.array(image.shape) // 2
    distance = np.hypot(*(shifts - guide).T) / step_scale
    rough = 20.0 * (heights.max() - heights) / max(1.0 - heights.max(), 0.05) + np.minimum(distance, 10.0)
    kept = np.union1d(np.argsort(rough, kind="stable")[:MAX_CANDIDATES], [np.argmax(heights)])
    starts = [*shifts[kept], np.asarray(guide, dtype=float)]  # on a ridge there may be no maximum near the truth
    shifts = np.stack([refine_shift(reference, covered, frame, start, 10, rounds=1) for start in starts])
    correlations = np.array([_correlation(reference, covered, frame, shift)[0] for shift in shifts])
    best = int(np.argmax(correlations))
    peak = float(np.clip(correlations[best], 1e-3, 1.0 - 1e-6))
    # Share of the variance that is structure, in the frame and in the mean of k frames; peak² is their product.
    k, r2 = n_reference, peak**2
    share = (r2 * (k - 1) + np.sqrt(r2**2 * (k - 1) ** 2 + 4.0 * k * r2)) / (2.0 * k)
    share_reference = r2 / share
    # What a shift by a wrong period leaves, seen on the reference itself.
    same, common = np.array([_correlation(reference, covered, reference, shift - shifts[best], covered) for shift in shifts]).T
    same = np.clip(same / share_reference, 0.0, 1.0)
    mixed = 2.0 * (1.0 - same) * ((1.0 - share) * share_reference + (1.0 - share_reference) * share)
    variance = mixed + 2.0 * (1.0 - share) * (1.0 - share_reference)
    variance = variance * frame.size / np.maximum(common, 1.0) / noise[0] + noise[1] ** 2
    evidence = 2.0 * (peak - correlations) * peak * (1.0 - same) / variance
    return Candidates(shifts, correlations, np.maximum(evidence, 0.0), shifts[best])


def _surprise(steps: np.ndarray, scale: float) -> np.ndarray:
    """Log likelihood lost by steps (…, 2); bounded, because a stage can jump."""
    return np.asarray(np.minimum(0.5 * np.sum(steps**2, axis=-1) / scale**2, MAX_SURPRISE))


def _least_surprising_path(choices: list[Candidates], scale: float) -> list[int]:
    """Candidate of each frame so that evidence and steps between neighbours together lose least (Viterbi)."""
    cost = choices[0].evidence
    origins = []
    for earlier, later in zip(choices[:-1], choices[1:], strict=True):
        total = cost[:, None] + _surprise(later.shifts[None] - earlier.shifts[:, None], scale)
        origins.append(np.argmin(total, axis=0))
        cost = total.min(axis=0) + later.evidence
    path = [int(np.argmin(cost))]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1]


def _correlation(
    reference: np.ndarray, covered: np.ndarray, frame: np.ndarray, shift: np.ndarray, seen: np.ndarray | None = None
) -> tuple[float, float]:
    """Correlation over the common area at one shift, and the number of common positions."""
    moved = ndimage.shift(frame, -shift, order=3, mode="nearest")
    common = _inside(frame.shape, shift) & covered
    if seen is not None:
        common &= ndimage.shift(seen.astype(float), -shift, order=1, mode="constant") > 0.99
    if common.sum() < MIN_OVERLAP * 0.5 * frame.size:
        return 0.0, float(common.sum())
    a, b = reference[common] - reference[common].mean(), moved[common] - moved[common].mean()
    power = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return (float(np.sum(a * b)) / power if power > 0 else 0.0), float(common.sum())


def correlation_map(reference: np.ndarray, covered: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation coefficient over the common area for every whole shift (doi:10.1109/TIP.2011.2181402).

    Returns
    -------
    tuple
        (coefficient, number of common positions), both (2 rows, 2 columns), shift (i, j) at index [i, j], negative
        shifts wrapped.
    """
    shape = (2 * frame.shape[0], 2 * frame.shape[1])
    masked = np.where(covered, reference, 0.0)

    def transform(image: np.ndarray) -> np.ndarray:
        return np.asarray(fft.rfft2(image, shape))

    ones, mask, ref, mov = transform(np.ones(frame.shape)), transform(covered.astype(float)), transform(masked), transform(frame)

    def correlate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.asarray(fft.irfft2(np.conj(first) * second, shape))

    n = np.maximum(correlate(mask, ones), 1e-9)
    ref_sum, mov_sum = correlate(ref, ones), correlate(mask, mov)
    covariance = correlate(ref, mov) - ref_sum * mov_sum / n
    ref_power = correlate(transform(masked**2), ones) - ref_sum**2 / n
    mov_power = correlate(mask, transform(frame**2)) - mov_sum**2 / n
    power = np.sqrt(np.maximum(ref_power, 0.0) * np.maximum(mov_power, 0.0))
    coefficient = np.where(power > 1e-9 * max(power.max(), 1e-30), covariance / np.maximum(power, 1e-30), -1.0)
    return np.clip(coefficient, -1.0, 1.0), np.round(n)


def refine_shift(
    reference: np.ndarray, covered: np.ndarray, frame: np.ndarray, start: np.ndarray, upsample_factor: int, rounds: int = 2
) -> np.ndarray:
    """Return the shift to a fraction of a position, starting from one that is right to about one position."""
    from skimage.registration import phase_cross_correlation

    shift = np.asarray(start, dtype=float)
    for _ in range(rounds):  # the Hann window pulls a remaining shift towards zero; the second round has none left
        moved, rows, columns = _common_area(covered, frame, shift)
        window = np.outer(np.hanning(rows.stop - rows.start + 2)[1:-1], np.hanning(columns.stop - columns.start + 2)[1:-1])
        weight = window * covered[rows, columns]
        if weight.sum() <= 0.0:
            return shift
        pair = [weight * (image - np.average(image, weights=weight)) for image in (reference[rows, columns], moved[rows, columns])]
        step, _, _ = phase_cross_correlation(pair[0], pair[1], upsample_factor=upsample_factor, normalization=None)
        if not np.all(np.isfinite(step)) or np.abs(step).max() > 1.5:
            return shift  # another period: the guarded start stays
        shift = shift - step
    return shift


def shift_std(reference: np.ndarray, covered: np.ndarray, frame: np.ndarray, shift: np.ndarray, upsample_factor: int) -> np.ndarray:
    """Standard deviation of a shift (row, column) from the residual noise and the gradients of the reference."""
    moved, rows, columns = _common_area(covered, frame, shift)
    window = np.outer(np.hanning(rows.stop - rows.start + 2)[1:-1], np.hanning(columns.stop - columns.start + 2)[1:-1])
    weight = window * covered[rows, columns]
    model, data = reference[rows, columns], moved[rows, columns]
    if weight.sum() <= 0.0 or min(model.shape) < 3:
        return np.full(2, np.nan)
    gradients = np.gradient(model)
    # Scale and offset of the frame are free as in a correlation.
    slope, offset = np.polyfit(model.ravel(), data.ravel(), 1)
    noise = np.average((data - slope * model - offset) ** 2, weights=weight)
    normal = slope**2 * np.array([[np.sum(weight * a * b) for b in gradients] for a in gradients])
    spread = slope**2 * np.array([[np.sum(weight**2 * a * b) for b in gradients] for a in gradients])
    if np.linalg.cond(normal) > 1e6:
        return np.full(2, np.nan)  # stripes only: the shift along them is not measured
    inverse = np.linalg.inv(normal)
    rounding = 1.0 / upsample_factor**2 / 12.0
    return np.asarray(np.sqrt(np.diag(inverse @ (noise * spread) @ inverse) + rounding))


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


class _Mean:
    """Mean of frames moved onto the first one, with the area each covers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total = np.zeros(shape)
        self.n = np.zeros(shape)
        self.n_frames = 0

    def add(self, frame: np.ndarray, shift: np.ndarray) -> None:
        inside = _inside(frame.shape, shift)
        self.total += np.where(inside, ndimage.shift(frame, -shift, order=3, mode="nearest"), 0.0)
        self.n += inside
        self.n_frames += 1

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        return self.total / np.maximum(self.n, 1.0), self.n > 0


def _inside(shape: tuple[int, ...], shift: np.ndarray) -> np.ndarray:
    """Positions of the first frame whose content a frame with this shift has seen."""
    r, c = np.arange(shape[0]) + shift[0], np.arange(shape[1]) + shift[1]
    return np.outer((r >= 0) & (r <= shape[0] - 1), (c >= 0) & (c <= shape[1] - 1))


def _common_area(covered: np.ndarray, frame: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, slice, slice]:
    moved = ndimage.shift(frame, -np.asarray(shift), order=3, mode="nearest")
    inside = _inside(frame.shape, shift) & covered
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows) or not len(columns):
        return moved, slice(0, 1), slice(0, 1)
    return moved, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _standardised(frame: np.ndarray) -> np.ndarray:
    spread = frame.std()
    return np.asarray((frame - frame.mean()) / (spread if spread > 0 else 1.0))


def _vertices(image: np.ndarray, peaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and heights of maxima between positions, by a parabola along each direction; peaks are (n, 2)."""
    places = peaks.astype(float)
    middle = image[tuple(peaks.T)]
    heights = middle.copy()
    for axis in (0, 1):
        step = np.zeros(2, dtype=int)
        step[axis] = 1
        # Shifts without enough overlap are -1: a maximum beside them stays where it is.
        inside = (peaks[:, axis] > 0) & (peaks[:, axis] < image.shape[axis] - 1)
        low = image[tuple(np.maximum(peaks - step, 0).T)]
        high = image[tuple(np.minimum(peaks + step, np.array(image.shape) - 1).T)]
        bend = np.minimum(low - 2.0 * middle + high, -1e-12)
        offset = np.where(inside & (low > -1.0) & (high > -1.0), 0.5 * (low - high) / bend, 0.0)
        offset = np.clip(offset, -0.5, 0.5)
        places[:, axis] += offset
        heights -= 0.5 * bend * offset**2
    return places, heights
