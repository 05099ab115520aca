"""Where a frame may lie on a reference: candidate shifts, the evidence for each, and its exact place.

A crystal looks almost the same after a shift by one of its periods, so the highest peak of a cross-correlation may be
the wrong one: every local maximum is a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft, ndimage

from phonon_eels.backends.base import Backend

MIN_OVERLAP = 0.3  # of the frame; correlations over less are not trusted
MAX_CANDIDATES = 12
NEAREST_CANDIDATES = 6


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
    backend: Backend,
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
    backend
        Where the correlations of whole frames are computed.
    """
    coefficient, overlap = backend.whole_array(correlation_map, reference, covered, frame)
    coefficient[overlap < MIN_OVERLAP * frame.size] = -1.0
    image = fft.fftshift(coefficient)
    peaks = np.argwhere((image == ndimage.maximum_filter(image, 3, mode="constant", cval=-1.0)) & (image > 0.0))
    if not len(peaks):
        guide = np.asarray(guide, dtype=float)
        return Candidates(guide[None], np.zeros(1), np.zeros(1), guide)
    places, heights = vertices(image, peaks)
    shifts = places - np.array(image.shape) // 2
    distance = np.hypot(*(shifts - guide).T) / step_scale
    rough = 20.0 * (heights.max() - heights) / max(1.0 - heights.max(), 0.05) + np.minimum(distance, 10.0)
    # Sampled halfway between positions a maximum looks lower than it is: those next to the guide are looked at anyhow.
    nearest = np.argsort(distance, kind="stable")[:NEAREST_CANDIDATES]
    kept = np.unique([*np.argsort(rough, kind="stable")[:MAX_CANDIDATES], *nearest, np.argmax(heights)])
    starts = [*shifts[kept], np.asarray(guide, dtype=float)]  # on a ridge there may be no maximum near the truth
    shifts = np.stack([refine_shift(reference, covered, frame, start, 10, rounds=1) for start in starts])
    correlations = np.array([correlation_at(reference, covered, frame, shift)[0] for shift in shifts])
    best = int(np.argmax(correlations))
    peak = float(np.clip(correlations[best], 1e-3, 1.0 - 1e-6))
    # Share of the variance that is structure, in the frame and in the mean of k frames; peak² is their product.
    k, r2 = n_reference, peak**2
    share = (r2 * (k - 1) + np.sqrt(r2**2 * (k - 1) ** 2 + 4.0 * k * r2)) / (2.0 * k)
    share_reference = r2 / share
    # What a shift by a wrong period leaves, seen on the reference itself.
    moved = shifts - shifts[best]
    same, common = np.array([correlation_at(reference, covered, reference, shift, covered) for shift in moved]).T
    same = np.clip(same / share_reference, 0.0, 1.0)
    mixed = 2.0 * (1.0 - same) * ((1.0 - share) * share_reference + (1.0 - share_reference) * share)
    variance = mixed + 2.0 * (1.0 - share) * (1.0 - share_reference)
    variance = variance * frame.size / np.maximum(common, 1.0) / noise[0] + noise[1] ** 2
    evidence = 2.0 * (peak - correlations) * peak * (1.0 - same) / variance
    return Candidates(shifts, correlations, np.maximum(evidence, 0.0), shifts[best])


def correlation_at(
    reference: np.ndarray, covered: np.ndarray, frame: np.ndarray, shift: np.ndarray, seen: np.ndarray | None = None
) -> tuple[float, float]:
    """Correlation over the common area at one shift, and the number of common positions."""
    moved = ndimage.shift(frame, -shift, order=3, mode="nearest")
    common = seen_positions(frame.shape, shift) & covered
    if seen is not None:
        common &= ndimage.shift(seen.astype(float), -shift, order=1, mode="constant") > 0.99
    if common.sum() < MIN_OVERLAP * 0.5 * frame.size:
        return 0.0, float(common.sum())
    a, b = reference[common] - reference[common].mean(), moved[common] - moved[common].mean()
    power = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return (float(np.sum(a * b)) / power if power > 0 else 0.0), float(common.sum())


def correlation_map(
    on: Any, reference: np.ndarray, covered: np.ndarray, frame: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation coefficient over the common area for every whole shift (doi:10.1109/TIP.2011.2181402).

    For `Backend.whole_array`: ``on.xp`` is the arrays' module, ``on.fft`` its Fourier transforms.

    Returns
    -------
    tuple
        (coefficient, number of common positions), both (2 rows, 2 columns), shift (i, j) at index [i, j], negative
        shifts wrapped.
    """
    xp = on.xp
    shape = (2 * frame.shape[0], 2 * frame.shape[1])
    masked = xp.where(covered, reference, 0.0)

    def transform(image: np.ndarray) -> Any:
        return on.fft.rfft2(image, shape)

    ones, mask = transform(xp.ones(frame.shape)), transform(covered.astype(float))
    ref, mov = transform(masked), transform(frame)

    def correlate(first: np.ndarray, second: np.ndarray) -> Any:
        return on.fft.irfft2(xp.conj(first) * second, shape)

    n = xp.maximum(correlate(mask, ones), 1e-9)
    ref_sum, mov_sum = correlate(ref, ones), correlate(mask, mov)
    covariance = correlate(ref, mov) - ref_sum * mov_sum / n
    ref_power = correlate(transform(masked**2), ones) - ref_sum**2 / n
    mov_power = correlate(mask, transform(frame**2)) - mov_sum**2 / n
    power = xp.sqrt(xp.maximum(ref_power, 0.0) * xp.maximum(mov_power, 0.0))
    enough = power > 1e-9 * xp.maximum(power.max(), 1e-30)
    coefficient = xp.where(enough, covariance / xp.maximum(power, 1e-30), -1.0)
    return xp.clip(coefficient, -1.0, 1.0), xp.round(n)


def refine_shift(
    reference: np.ndarray,
    covered: np.ndarray,
    frame: np.ndarray,
    start: np.ndarray,
    upsample_factor: int,
    rounds: int = 2,
) -> np.ndarray:
    """Return the shift to a fraction of a position, starting from one that is right to about one position."""
    from skimage.registration import phase_cross_correlation

    shift = np.asarray(start, dtype=float)
    for _ in range(rounds):  # the Hann window pulls a remaining shift towards zero; the second round has none left
        moved, rows, columns = _common_area(covered, frame, shift)
        weight = _window(rows, columns) * covered[rows, columns]
        if weight.sum() <= 0.0:
            return shift
        images = (reference[rows, columns], moved[rows, columns])
        pair = [weight * (image - np.average(image, weights=weight)) for image in images]
        step, _, _ = phase_cross_correlation(pair[0], pair[1], upsample_factor=upsample_factor, normalization=None)
        if not np.all(np.isfinite(step)) or np.abs(step).max() > 1.5:
            return shift  # another period: the guarded start stays
        shift = shift - step
    return shift


def shift_std(
    reference: np.ndarray, covered: np.ndarray, frame: np.ndarray, shift: np.ndarray, upsample_factor: int
) -> np.ndarray:
    """Standard deviation of a shift (row, column) from the residual noise and the gradients of the reference."""
    moved, rows, columns = _common_area(covered, frame, shift)
    weight = _window(rows, columns) * covered[rows, columns]
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


def _common_area(covered: np.ndarray, frame: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, slice, slice]:
    moved = ndimage.shift(frame, -np.asarray(shift), order=3, mode="nearest")
    inside = seen_positions(frame.shape, shift) & covered
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows) or not len(columns):
        return moved, slice(0, 1), slice(0, 1)
    return moved, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _window(rows: slice, columns: slice) -> np.ndarray:
    """Hann window without its zeros."""
    sizes = (rows.stop - rows.start, columns.stop - columns.start)
    return np.outer(*(np.hanning(size + 2)[1:-1] for size in sizes))


def seen_positions(shape: tuple[int, ...], shift: np.ndarray) -> np.ndarray:
    """Positions of the first frame whose content a frame with this shift has seen."""
    r, c = np.arange(shape[0]) + shift[0], np.arange(shape[1]) + shift[1]
    return np.outer((r >= 0) & (r <= shape[0] - 1), (c >= 0) & (c <= shape[1] - 1))


def vertices(image: np.ndarray, peaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
