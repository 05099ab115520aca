"""Exponential and logarithm in plain arithmetic, so that the loops run in all lanes of the processor.

The library's own are called one number at a time, which costs most of a zero-loss peak's evaluation. Both agree with it to
4e-16 relative (exp) and 2 units in the last place (log), but `exp_in_place` where values are large; a test holds them to that.
"""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import inlined, kernel

LOG2_E = 1.4426950408889634
LN2_HIGH = 0.6931471803691238  # the upper bits of ln 2, so that k · LN2_HIGH is exact
LN2_LOW = 1.9082149292705877e-10
LN2 = 0.6931471805599453
SQRT2 = 1.4142135623730951
LARGEST = 700.0
MANTISSA = 0x000FFFFFFFFFFFFF
ONE = 0x3FF0000000000000
ROUNDING = (
    6755399441055744.0  # 1.5 · 2^52: added and taken off again it rounds to an integer, which its lowest bits hold
)


GROUP = 8
"""Channels side by side that a multiplication along a grid is made for at once."""
GRID_LENGTH = 256
STEEPEST = 50.0
"""Of the exponent, over eight channels, that may be gone along by multiplications."""
LARGEST_ON_GRID = 300.0


@kernel
def exp_array(x: np.ndarray, out: np.ndarray, exponent: np.ndarray) -> int:
    """Write exp(x) for |x| ≤ 700 (clamped); `exponent` is scratch of 64-bit integers. All arrays have one length."""
    for i in range(x.shape[0]):
        value = min(max(x[i], -LARGEST), LARGEST)
        k = (value * LOG2_E + ROUNDING) - ROUNDING  # the nearest integer; no call, which a GPU would not know
        r = (value - k * LN2_HIGH) - k * LN2_LOW
        # Taylor's polynomial of degree 13: on |r| ≤ ln2/2 the rest is below 5e-18.
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        out[i] = 1.0 + (r + r * r * p)
        exponent[i] = (np.int64(k) + 1023) << 52
    scale = exponent.view(np.float64)
    for i in range(x.shape[0]):
        out[i] *= scale[i]
    return 0


@kernel
def log_array(x: np.ndarray, out: np.ndarray, mantissa: np.ndarray) -> int:
    """Write ln(x) of positive normal numbers; `mantissa` is scratch of 64-bit integers. All arrays are contiguous."""
    bits = x.view(np.int64)
    for i in range(x.shape[0]):
        mantissa[i] = (bits[i] & MANTISSA) | ONE
    fraction = mantissa.view(np.float64)
    for i in range(x.shape[0]):
        power = np.float64((bits[i] >> 52) - 1023)
        m = fraction[i]
        high = m > SQRT2
        m = 0.5 * m if high else m
        power = power + 1.0 if high else power
        f = (m - 1.0) / (m + 1.0)
        g = f * f
        # 2 artanh(f) with f ≤ 0.172: the series to f^21.
        p = 1.0 / 21.0
        p = p * g + 1.0 / 19.0
        p = p * g + 1.0 / 17.0
        p = p * g + 1.0 / 15.0
        p = p * g + 1.0 / 13.0
        p = p * g + 1.0 / 11.0
        p = p * g + 1.0 / 9.0
        p = p * g + 1.0 / 7.0
        p = p * g + 1.0 / 5.0
        p = p * g + 1.0 / 3.0
        out[i] = power * LN2_HIGH + (2.0 * f + (2.0 * f * g * p + power * LN2_LOW))
    return 0


@inlined(reducing=False)
def exp_in_place(values: np.ndarray) -> int:
    """Replace every value by its exponential, all lanes at once; beyond ±700 the result stays at that of ±700.

    Agrees to 4e-16 + 3.4e-17 |x| relative (what is missing of ln 2 in one number). The polynomial is the best one of degree 11 on |r| ≤ ln2/2 (equal ripple 1e-16), in
    Estrin's order: what limits the loop is how long one value takes, so nothing waits for the sum of two terms that could be
    added at the end.
    """
    for i in range(values.shape[0]):
        x = min(max(values[i], -LARGEST), LARGEST)
        shifted = x * LOG2_E + ROUNDING
        r = x - (shifted - ROUNDING) * LN2
        r2 = r * r
        r4 = r2 * r2
        low = (0.5000000000000001 + 0.16666666666666669 * r) + r2 * (0.04166666666662413 + 0.008333333333330062 * r)
        high = (0.0013888888917213717 + 0.00019841269863053618 * r) + r2 * (
            2.4801521295954376e-05 + 2.7557268459997064e-06 * r
        )
        p = low + r4 * (high + r4 * (2.7620088445409746e-07 + 2.510038549551032e-08 * r))
        scale = np.int64((np.float64(shifted).view(np.int64) << 52) + ONE).view(np.float64)
        values[i] = scale * (1.0 + r) + (scale * r2) * p
    return 0


@inlined(reducing=False)
def grid_step(even: float, first: float, last: float, curvature: float, slope: float) -> float:
    """Return eight steps of an even grid if the exponential of a parabola may go along it by multiplications, else 0."""
    stride = GROUP * even
    steepest = abs(curvature) * (2.0 * max(abs(first), abs(last)) + abs(stride)) + abs(slope)
    largest = max(abs((curvature * first + slope) * first), abs((curvature * last + slope) * last))
    return stride if steepest * abs(stride) <= STEEPEST and largest <= LARGEST_ON_GRID else 0.0


@kernel
def exp_of_parabola(
    x: np.ndarray, even: float, centre: float, curvature: float, slope: float, out: np.ndarray, scratch: np.ndarray
) -> int:
    """Write exp(curvature · d² + slope · d) with d = x - centre.

    On an even grid (step `even`; 0 if it is none) the quotient of a value and that eight channels before goes from one to
    the next by a constant factor: two multiplications a channel for what else are twenty. Their roundings add up to 1e-13
    over the 256 channels after which the exponential is taken anew. `curvature` is not positive; `scratch` (2 or more,
    channels of the whole axis).
    """
    n = x.shape[0]
    stride = grid_step(even, x[0] - centre, x[n - 1] - centre, curvature, slope) if n >= 2 * GROUP else 0.0
    if stride == 0.0 or scratch.shape[1] < 3 * GROUP:
        for i in range(n):
            d = x[i] - centre
            out[i] = (curvature * d + slope) * d
        exp_in_place(out)
        return 0
    seeds = scratch[0, : 3 * GROUP]
    for begin in range(0, n, GRID_LENGTH):
        here, target = x[begin : begin + GRID_LENGTH], out[begin : begin + GRID_LENGTH]
        quotient = scratch[1, : target.shape[0]]
        lanes = min(GROUP, target.shape[0])
        for i in range(lanes):
            d = here[i] - centre
            seeds[i] = (curvature * d + slope) * d
            seeds[GROUP + i] = (curvature * (2.0 * d + stride) + slope) * stride
            seeds[2 * GROUP + i] = 2.0 * curvature * stride * stride
        exp_in_place(seeds)
        for i in range(lanes):
            target[i] = seeds[i]
            quotient[i] = seeds[GROUP + i]
        change = seeds[2 * GROUP]
        for i in range(target.shape[0] - GROUP):
            target[i + GROUP] = target[i] * quotient[i]
            quotient[i + GROUP] = quotient[i] * change
    return 0


@kernel
def log_one(x: float) -> float:
    """Return ln(x) of a positive normal number, in a form that a loop over channels runs in all lanes."""
    bits = np.float64(x).view(np.int64)
    m = np.int64((bits & MANTISSA) | ONE).view(np.float64)
    power = np.float64((bits >> 52) - 1023)
    high = m > SQRT2
    m = 0.5 * m if high else m
    power = power + 1.0 if high else power
    f = (m - 1.0) / (m + 1.0)
    g = f * f
    g2 = g * g
    g4 = g2 * g2
    # Times the inverse, not over the number: a division takes as long as sixteen multiplications.
    low = (1.0 / 3.0 + g * (1.0 / 5.0)) + g2 * (1.0 / 7.0 + g * (1.0 / 9.0))
    middle = (1.0 / 11.0 + g * (1.0 / 13.0)) + g2 * (1.0 / 15.0 + g * (1.0 / 17.0))
    p = low + g4 * (middle + g4 * (1.0 / 19.0 + g * (1.0 / 21.0)))
    return float(power * LN2_HIGH + (2.0 * f + (2.0 * f * g * p + power * LN2_LOW)))


@kernel
def log_and_inverse(x: float) -> tuple[float, float]:
    """Return ln(x) and 1/x of a positive number, as `log_one`: one division for both, the dearest step of each."""
    bits = np.float64(x).view(np.int64)
    m = np.int64((bits & MANTISSA) | ONE).view(np.float64)
    power = np.float64((bits >> 52) - 1023)
    high = m > SQRT2
    m = 0.5 * m if high else m
    power = power + 1.0 if high else power
    both = 1.0 / (x * (m + 1.0))
    f = (m - 1.0) * (x * both)
    g = f * f
    g2 = g * g
    g4 = g2 * g2
    low = (1.0 / 3.0 + g * (1.0 / 5.0)) + g2 * (1.0 / 7.0 + g * (1.0 / 9.0))
    middle = (1.0 / 11.0 + g * (1.0 / 13.0)) + g2 * (1.0 / 15.0 + g * (1.0 / 17.0))
    p = low + g4 * (middle + g4 * (1.0 / 19.0 + g * (1.0 / 21.0)))
    return power * LN2_HIGH + (2.0 * f + (2.0 * f * g * p + power * LN2_LOW)), (m + 1.0) * both
