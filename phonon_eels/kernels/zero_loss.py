"""Find the zero-loss peak of one spectrum: by its height, and by moments and tabulated scores of its shape."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel, reducing_kernel


@kernel
def find_peak(
    counts: np.ndarray, bad: np.ndarray, low: int, high: int, half_smooth: int, dark_level: float, out: np.ndarray
) -> int:
    """Find the highest peak of a spectrum between two channels.

    A median of three removes single-channel spikes, a running mean of 2 · half_smooth + 1 channels the noise.

    Parameters
    ----------
    out
        Receives the fractional channel of the peak (parabola through the smoothed top), the half-height width in
        channels and the smoothed height above the dark level.

    Returns
    -------
    0, or 1 if there are no usable counts, 2 if the peak lies at the end of the range.
    """
    best = -math.inf
    place = -1
    for i in range(low, high):
        value = _smooth(counts, bad, i, half_smooth, low, high)
        if value > best:
            best = value
            place = i
    if place < 0 or not best > dark_level:
        return 1
    if place <= low or place >= high - 1:
        return 2
    left = _smooth(counts, bad, place - 1, half_smooth, low, high)
    right = _smooth(counts, bad, place + 1, half_smooth, low, high)
    bend = left - 2.0 * best + right
    out[0] = place + (0.5 * (left - right) / bend if bend < 0.0 else 0.0)
    out[2] = best - dark_level
    half = dark_level + 0.5 * out[2]
    width = 0.0
    for direction in (-1, 1):
        i = place
        before = best
        while low <= i + direction < high:
            i += direction
            value = _smooth(counts, bad, i, half_smooth, low, high)
            if value <= half:
                width += abs(i - out[0]) - (half - value) / max(before - value, 1e-300)
                break
            before = value
    out[1] = width
    return 0


@kernel
def _smooth(counts: np.ndarray, bad: np.ndarray, center: int, half: int, low: int, high: int) -> float:
    total = 0.0
    used = 0
    for i in range(max(center - half, low), min(center + half + 1, high)):
        value = _median3(counts, i, low, high)
        if math.isfinite(value) and not (bad.shape[0] > 0 and bad[i]):
            total += value
            used += 1
    return total / used if used else -math.inf


@kernel
def _median3(counts: np.ndarray, i: int, low: int, high: int) -> float:
    b = float(counts[i])
    if i - 1 < low or i + 1 >= high:
        return b
    a, c = float(counts[i - 1]), float(counts[i + 1])
    return max(min(a, b), min(max(a, b), c))


FOUND, NOTHING, AT_EDGE = 0, 1, 2
N_SHAPE = 4
"""Parameters of the peak besides its height: centre (channels), logarithms of FWHM, loss and gain exponent."""
MAX_PASSES = 12
SINGULAR = 1e-14
"""Least share of a diagonal that must be left when the parameters before it are taken out."""
BLOCK = 8


@reducing_kernel
def _moments(y: np.ndarray, dark_level: float, out: np.ndarray) -> int:
    """Write sum and first moment about the first channel."""
    total, first = 0.0, 0.0
    for i in range(y.shape[0]):
        value = y[i] - dark_level
        total += value
        first += i * value
    out[0], out[1] = total, first
    return 0


@reducing_kernel
def _projections(y: np.ndarray, scores: np.ndarray, out: np.ndarray) -> int:
    """Write the sums of y times the height's weight and times each score."""
    total, a, b, c, d = 0.0, 0.0, 0.0, 0.0, 0.0
    s0, s1, s2, s3, weight = scores[0], scores[1], scores[2], scores[3], scores[4]
    for i in range(y.shape[0]):
        value = float(y[i])
        total += value * weight[i]
        a += value * s0[i]
        b += value * s1[i]
        c += value * s2[i]
        d += value * s3[i]
    out[0], out[1], out[2], out[3], out[4] = total, a, b, c, d
    return 0


@reducing_kernel
def _block_sum(y: np.ndarray) -> float:
    total = 0.0
    for i in range(8):
        total += y[i]
    return total


@kernel
def _brightest_block(counts: np.ndarray, bad: np.ndarray, low: int, high: int) -> int:
    """Return the middle of the brightest eight channels; a spike of one channel is none. -1 if nothing is finite."""
    best, place = -math.inf, -1
    if bad.shape[0] == 0:
        for start in range(low, high - BLOCK + 1, BLOCK):
            total = _block_sum(counts[start : start + BLOCK])
            if total > best:
                best = total
                place = start
        # The last block reaches back: all channels are seen.
        total = _block_sum(counts[high - BLOCK : high]) if high - BLOCK >= low else math.nan
        if total > best:
            best = total
            place = high - BLOCK
        if place >= 0 and _clean_mean(counts, bad, place, low, high) * BLOCK > 0.5 * best:
            return place + BLOCK // 2
    best, place = -math.inf, -1
    for start in range(low, high, BLOCK):
        mean = _clean_mean(counts, bad, start, low, high)
        if mean > best:
            best = mean
            place = min(start + BLOCK // 2, high - 1)
    return place


@kernel
def _clean_mean(counts: np.ndarray, bad: np.ndarray, start: int, low: int, high: int) -> float:
    """Return the mean of eight channels after a median of three; NaN if none can be used."""
    total, used = 0.0, 0.0
    for i in range(start, min(start + BLOCK, high)):
        value = _median3(counts, i, low, high)
        if math.isfinite(value) and not (bad.shape[0] > 0 and bad[i]):
            total += value
            used += 1.0
    return total / used


@kernel
def _centroid(
    counts: np.ndarray, bad: np.ndarray, place: int, low: int, high: int, half: int, dark_level: float, sums: np.ndarray
) -> float:
    """Move a window of 2 · half + 1 channels to its own centre of mass until it stands still; return that, or -1."""
    centre = float(place)
    for _ in range(MAX_PASSES):
        middle = int(math.floor(centre + 0.5))
        first, last = max(middle - half, low), min(middle + half + 1, high)
        if last - first < 3:
            return -1.0
        _moments(counts[first:last], dark_level, sums)
        if sums[0] != sums[0] or bad.shape[0] > 0:
            sums[0], sums[1] = 0.0, 0.0
            for i in range(first, last):
                if counts[i] == counts[i] and not (bad.shape[0] > 0 and bad[i]):
                    sums[0] += counts[i] - dark_level
                    sums[1] += (i - first) * (counts[i] - dark_level)
        if not sums[0] > 0.0:
            return -1.0
        found = min(max(first + sums[1] / sums[0], float(first)), float(last - 1))
        still = abs(found - middle) <= 1.0
        centre = found
        if still:
            break
    return centre


@kernel
def _score_step(
    counts: np.ndarray,
    bad: np.ndarray,
    first: int,
    gain: float,
    dark_level: float,
    model: np.ndarray,
    scores: np.ndarray,
    constants: np.ndarray,
    shift: float,
    precision: np.ndarray,
    whole: bool,
    sums: np.ndarray,
    step: np.ndarray,
) -> float:
    """One step of Fisher scoring with the height profiled out; returns the height, or -1 if there is none.

    `step` receives the changes of the four shape parameters and their standard deviations. `constants` holds, for whole
    windows, the sums that do not depend on the data (see `zero_loss_tables`); `sums`, (30,), those of others after the data's five.
    """
    n = model.shape[0]
    complete = whole
    if whole:
        _projections(counts[first : first + n], scores, sums)
        complete = sums[0] == sums[0]
    if not complete:
        for a in range(30):
            sums[a] = 0.0
        for i in range(n):
            channel = first + i
            if channel < 0 or channel >= counts.shape[0] or (bad.shape[0] > 0 and bad[channel]):
                continue
            value = float(counts[channel])
            if value != value:
                continue
            sums[0] += value * scores[4, i]
            sums[5] += model[i] * scores[4, i]
            sums[24] += scores[4, i]
            sums[29] += 1.0
            for a in range(N_SHAPE):
                sums[1 + a] += value * scores[a, i]
                sums[6 + a] += scores[a, i]
                sums[10 + a] += model[i] * scores[a, i]
                for b in range(a + 1):
                    sums[14 + a * (a + 1) // 2 + b] += (model[i] + shift) * scores[a, i] * scores[b, i]
    return _solve_shape(sums[:5], constants if complete else sums[5:30], gain, dark_level, precision, step)


@kernel
def _solve_shape(
    sums: np.ndarray, constants: np.ndarray, gain: float, dark_level: float, precision: np.ndarray, step: np.ndarray
) -> float:
    """Solve the normal equations of the four shape parameters as LDLᵀ in registers; see `_score_step`."""
    if not constants[0] > 0.0 or constants[24] <= N_SHAPE:
        return -1.0
    height = float((sums[0] - dark_level * constants[19]) / gain / constants[0])
    if not height > 0.0:
        return -1.0
    c0, c1, c2, c3 = constants[5], constants[6], constants[7], constants[8]
    share = 1.0 / constants[0]
    d0 = height * (constants[9] - c0 * c0 * share) + precision[0]
    m10 = height * (constants[10] - c1 * c0 * share)
    m11 = height * (constants[11] - c1 * c1 * share) + precision[1]
    m20 = height * (constants[12] - c2 * c0 * share)
    m21 = height * (constants[13] - c2 * c1 * share)
    m22 = height * (constants[14] - c2 * c2 * share) + precision[2]
    m30 = height * (constants[15] - c3 * c0 * share)
    m31 = height * (constants[16] - c3 * c1 * share)
    m32 = height * (constants[17] - c3 * c2 * share)
    m33 = height * (constants[18] - c3 * c3 * share) + precision[3]
    i0 = 1.0 / d0
    l10, l20, l30 = m10 * i0, m20 * i0, m30 * i0
    d1 = m11 - l10 * m10
    i1 = 1.0 / d1
    t21, t31 = m21 - l20 * m10, m31 - l30 * m10
    l21, l31 = t21 * i1, t31 * i1
    d2 = m22 - l20 * m20 - l21 * t21
    i2 = 1.0 / d2
    t32 = m32 - l30 * m20 - l31 * t21
    l32 = t32 * i2
    d3 = m33 - l30 * m30 - l31 * t31 - l32 * t32
    i3 = 1.0 / d3
    if not (d0 > 0.0 and d1 > SINGULAR * m11 and d2 > SINGULAR * m22 and d3 > SINGULAR * m33):
        return -1.0
    r0 = (sums[1] - dark_level * constants[1]) / gain - height * c0
    r1 = (sums[2] - dark_level * constants[2]) / gain - height * c1 - l10 * r0
    r2 = (sums[3] - dark_level * constants[3]) / gain - height * c2 - l20 * r0 - l21 * r1
    r3 = (sums[4] - dark_level * constants[4]) / gain - height * c3 - l30 * r0 - l31 * r1 - l32 * r2
    step[3] = r3 * i3
    step[2] = r2 * i2 - l32 * step[3]
    step[1] = r1 * i1 - l21 * step[2] - l31 * step[3]
    step[0] = r0 * i0 - l10 * step[1] - l20 * step[2] - l30 * step[3]
    k20, k31 = l21 * l10 - l20, l32 * l21 - l31
    k30 = l31 * l10 + l32 * l20 - l32 * l21 * l10 - l30
    step[4] = math.sqrt(i0 + l10 * l10 * i1 + k20 * k20 * i2 + k30 * k30 * i3)
    step[5] = math.sqrt(i1 + l21 * l21 * i2 + k31 * k31 * i3)
    step[6] = math.sqrt(i2 + l32 * l32 * i3)
    step[7] = math.sqrt(i3)
    return height


@kernel
def score_peak(
    counts: np.ndarray,
    bad: np.ndarray,
    low: int,
    high: int,
    gain: float,
    dark_level: float,
    models: np.ndarray,
    scores: np.ndarray,
    constants: np.ndarray,
    shift: float,
    precision: np.ndarray,
    small: np.ndarray,
    out: np.ndarray,
) -> int:
    """Estimate height, centre and shape of the zero-loss peak from moments and from tabulated scores of its shape.

    The brightest eight channels, then the centre of mass of a window that follows it, then Fisher scoring: the derivatives of
    the logarithm of the known shape are tabulated at sub-channel offsets, so a step is five sums over the window. It is repeated
    at the nearest tabulated offset until the centre stands there. One step from a point closer than the noise is as
    efficient as maximum likelihood; shapes far from the tabulated one are answered to first order only.

    Parameters
    ----------
    counts, bad
        Detector counts of any type and bad channels (or an empty array), (channels,).
    low, high
        Channels to search.
    models, scores, constants, shift
        From `zero_loss_tables.score_tables`; `shift` as it was given there.
    precision
        Prior precisions of the shape parameters about the tabulated shape, (4,); 0 for none.
    small
        Scratch, (3, 32).
    out
        (9,): height in electrons, then centre (channels) and logarithmic changes of FWHM and of both exponents; their standard
        deviations in the last four places.

    Returns
    -------
    int
        ``FOUND``; ``NOTHING``; ``AT_EDGE`` (the centre lies outside the range).
    """
    n_phases, n = models.shape
    half = n // 2
    for a in range(9):
        out[a] = math.nan
    place = _brightest_block(counts, bad, low, high)
    if place < 0:
        return NOTHING
    centre = _centroid(counts, bad, place, low, high, half, dark_level, small[0])
    if centre < 0.0:
        return NOTHING
    sums, step = small[1], small[2]
    for _ in range(MAX_PASSES):
        nearest = int(math.floor(centre + 0.5))
        phase = min(int((centre - nearest + 0.5) * n_phases), n_phases - 1)
        at = nearest - 0.5 + (phase + 0.5) / n_phases
        whole = bad.shape[0] == 0 and nearest - half >= 0 and nearest + half < counts.shape[0]
        height = _score_step(
            counts, bad, nearest - half, gain, dark_level, models[phase], scores[phase], constants[phase], shift,
            precision, whole, sums, step,
        )  # fmt: skip
        if height <= 0.0:
            return NOTHING
        move = min(max(step[0], -0.5 * half), 0.5 * half)
        centre = at + move
        if not low <= centre <= high - 1:
            return AT_EDGE
        if abs(move) <= 1.0 / n_phases:
            break
    out[0], out[1] = height, centre
    for a in range(1, N_SHAPE):
        out[1 + a] = min(max(step[a], -1.0), 1.0)
    for a in range(N_SHAPE):
        out[5 + a] = step[N_SHAPE + a]
    return FOUND
