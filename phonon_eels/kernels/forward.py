"""The forward model of one spectrum: zero-loss peak + modes seen through it + background, on raw counts.

Parameters of one spectrum, in this order (M modes):

    0 height   expected electrons per channel at the zero-loss mode
    1 shift    zero-loss mode from the centre of the zero-loss channel, meV
    2 width    ln(FWHM / reference FWHM)
    3 tail+    ln(loss exponent / reference)
    4 tail-    ln(gain exponent / reference)
    5 level    of the background, electrons per channel
    6 slope    of the background, see `background_rows`
    7 bend     of the background, see `background_rows`
    8 …        M areas, electrons on the loss side
    8+M …      M energies, meV
    8+2M …     M widths, meV from the tabulated width

Nothing is allocated: scratch comes from the caller, at least `work_size` numbers and twice as many integers as channels.
Loops write one array each from few others, because a compiler gives up on lanes where too many arrays might overlap.
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.elementary import exp_array, log_array
from phonon_eels.kernels.interpolation import add_scaled, cubic_slopes, cubic_weights, moved_line
from phonon_eels.kernels.response import PAD_CHANNELS

N_LOCAL = 8
N_SHAPE = 3
"""Numbers of the reference that tell the zero-loss peak's shape."""
LINEAR, EXPONENTIAL = 0, 1
"""Kinds of background: level + slope · x, or level · exp(slope · x + bend · x₂)."""


def work_size(n_channels: int) -> int:
    """Return how many numbers of scratch the model of a spectrum needs."""
    return 8 * n_channels + 16


@kernel
def correction_lines(
    params: np.ndarray,
    tables: np.ndarray,  # (modes, 5, nodes, phases, channels)
    first_node_mev: np.ndarray,
    node_step_mev: float,
    dispersion_mev: float,
    corrections: np.ndarray,  # out (modes, 4, channels)
    work: np.ndarray,
) -> int:
    """Tabulate the derivative lines at the starting energies and shift; they stay fixed during a fit.

    A mode's line changes by a few per cent with width and tails, so their dependence on the last tenths of
    a meV is of second order (< 1e-4 of the line).
    """
    n_modes = tables.shape[0]
    none = work[:0]
    for m in range(n_modes):
        for t in range(4):
            moved_line(
                tables[m, t + 1], params[N_LOCAL + n_modes + m], first_node_mev[m], node_step_mev, params[1],
                dispersion_mev, work, corrections[m, t], none, none,
            )  # fmt: skip
    return 0


@kernel
def zero_loss_rows(
    params: np.ndarray,
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,  # FWHM, loss exponent, gain exponent
    jacobian: np.ndarray,
    model: np.ndarray,
    work: np.ndarray,
    bits: np.ndarray,
) -> int:
    """Write the zero-loss peak into `model` and its derivatives into rows 0 to 4.

    A channel is averaged by two Gauss-Legendre points, exact to third order, so that peaks two channels wide come out right.
    """
    height = params[0]
    width = reference[0] * math.exp(params[2])
    offset = dispersion_mev / (2.0 * math.sqrt(3.0))
    ln2 = math.log(2.0)
    tail_loss = reference[1] * math.exp(params[3])
    tail_gain = reference[2] * math.exp(params[4])
    root_loss = math.exp(ln2 / tail_loss)
    root_gain = math.exp(ln2 / tail_gain)
    n = energies_mev.shape[0]
    squares, base, logs, values = work[: 2 * n], work[2 * n : 4 * n], work[4 * n : 6 * n], work[6 * n : 8 * n]
    for k in range(2):
        away = params[1] - (offset if k else -offset)
        for i in range(n):
            x = energies_mev[i] - away
            q = (2.0 * x / width) * (2.0 * x / width)
            squares[k * n + i] = q
            base[k * n + i] = 1.0 + ((root_loss if x > 0.0 else root_gain) - 1.0) * q
    log_array(base, logs, bits[: 2 * n])
    for k in range(2):
        away = params[1] - (offset if k else -offset)
        for i in range(n):
            values[k * n + i] = -(tail_loss if energies_mev[i] > away else tail_gain) * logs[k * n + i]
    exp_array(values, logs, bits[: 2 * n])
    for i in range(n):
        total, by_shift, by_width, by_loss, by_gain = 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(2):
            x = energies_mev[i] - params[1] + (offset if k else -offset)
            loss = x > 0.0
            tail = tail_loss if loss else tail_gain
            root = root_loss if loss else root_gain
            q, s, power = squares[k * n + i], base[k * n + i], values[k * n + i]
            value = 0.5 * logs[k * n + i]
            inner = 2.0 * value * tail * (root - 1.0) / s
            total += value
            by_width += inner * q
            by_shift += inner * 4.0 * x / (width * width)
            change = value * (power + q * ln2 * root / s)
            by_loss += change if loss else 0.0
            by_gain += 0.0 if loss else change
        model[i] = height * total
        jacobian[0, i] = total
        jacobian[1, i] = height * by_shift
        jacobian[2, i] = height * by_width
        jacobian[3, i] = height * by_loss
        jacobian[4, i] = height * by_gain
    return 0


@kernel
def measured_factor(
    params: np.ndarray,
    dispersion_mev: float,
    factor: np.ndarray,  # (phases, channels + 2 PAD), or (0, 0): none was measured
    jacobian: np.ndarray,
    model: np.ndarray,
    work: np.ndarray,
) -> int:
    """Multiply the zero-loss peak by what a vacuum measurement says of its shape beyond the split Pearson VII."""
    if factor.shape[0] == 0:
        return 0
    n = model.shape[0]
    phases = factor.shape[0]
    position = -params[1] * phases / dispersion_mev
    cell = int(math.floor(position))
    b0, b1, b2, b3 = cubic_weights(position - cell)
    s0, s1, s2, s3 = cubic_slopes(position - cell)
    scale = -phases / dispersion_mev
    value, slope = work[:n], work[n : 2 * n]
    for i in range(n):
        value[i] = 0.0
    for i in range(n):
        slope[i] = 0.0
    for k in range(4):
        fine = cell - 1 + k
        channel = fine // phases
        row = factor[fine - channel * phases, PAD_CHANNELS + channel : PAD_CHANNELS + channel + n]
        add_scaled(b0 if k == 0 else (b1 if k == 1 else (b2 if k == 2 else b3)), row, value)
        add_scaled(scale * (s0 if k == 0 else (s1 if k == 1 else (s2 if k == 2 else s3))), row, slope)
    for r in range(5):
        row = jacobian[r]
        for i in range(n):
            row[i] *= value[i]
    by_shift = jacobian[1]
    for i in range(n):
        by_shift[i] += model[i] * slope[i]
    for i in range(n):
        model[i] *= value[i]
    return 0


@kernel
def background_rows(
    params: np.ndarray,
    background: np.ndarray,  # (3, n): x, x₂, tie
    kind: int,
    jacobian: np.ndarray,
    model: np.ndarray,
    work: np.ndarray,
    bits: np.ndarray,
) -> int:
    """Add the background to `model` and write rows 5 to 7.

    LINEAR: level + slope · x. EXPONENTIAL: tie · level · exp(slope · x + bend · x₂), which with x = -ln E is a power law, with
    x = -E an exponential, with x = E and x₂ = E² the exponential of a polynomial; `tie` holds what links gain to loss side.
    """
    n = model.shape[0]
    level, slope, bend = params[5], params[6], params[7]
    x, x2, tie = background[0], background[1], background[2]
    row5, row6, row7 = jacobian[5], jacobian[6], jacobian[7]
    if kind == LINEAR:
        for i in range(n):
            row5[i] = 1.0
        for i in range(n):
            row6[i] = x[i]
        for i in range(n):
            row7[i] = 0.0
        for i in range(n):
            model[i] += level + slope * x[i]
        return 0
    power, value = work[:n], work[n : 2 * n]
    for i in range(n):
        power[i] = slope * x[i] + bend * x2[i]
    exp_array(power, value, bits[:n])
    for i in range(n):
        row5[i] = tie[i] * value[i]
    for i in range(n):
        row6[i] = level * row5[i] * x[i]
    for i in range(n):
        row7[i] = level * row5[i] * x2[i]
    for i in range(n):
        model[i] += level * row5[i]
    return 0


@kernel
def mode_rows(
    params: np.ndarray,
    dispersion_mev: float,
    tables: np.ndarray,
    first_node_mev: np.ndarray,
    node_step_mev: float,
    corrections: np.ndarray,
    jacobian: np.ndarray,
    model: np.ndarray,
    work: np.ndarray,
) -> int:
    """Add the modes to `model` and to the zero-loss rows; write their own rows."""
    n = model.shape[0]
    n_modes = tables.shape[0]
    scratch, moved, tilted = work[: n + 3], work[n + 3 : 2 * n + 3], work[2 * n + 3 : 3 * n + 3]
    p2, p3, p4 = params[2], params[3], params[4]
    for m in range(n_modes):
        area = params[N_LOCAL + m]
        energy = params[N_LOCAL + n_modes + m]
        extra = params[N_LOCAL + 2 * n_modes + m]
        row_area = jacobian[N_LOCAL + m]
        row_energy = jacobian[N_LOCAL + n_modes + m]
        row_width = jacobian[N_LOCAL + 2 * n_modes + m]
        c0, c1, c2, c3 = corrections[m, 0], corrections[m, 1], corrections[m, 2], corrections[m, 3]
        moved_line(
            tables[m, 0], energy, first_node_mev[m], node_step_mev, params[1], dispersion_mev, scratch, row_area, tilted,
            moved,
        )  # fmt: skip
        for i in range(n):
            row_area[i] += p2 * c0[i] + p3 * c1[i] + p4 * c2[i] + extra * c3[i]
        for i in range(n):
            row_energy[i] = area * tilted[i]
        for i in range(n):
            row_width[i] = area * c3[i]
        add_scaled(area, row_area, model)
        add_scaled(area, moved, jacobian[1])
        add_scaled(area, c0, jacobian[2])
        add_scaled(area, c1, jacobian[3])
        add_scaled(area, c2, jacobian[4])
    return 0


@kernel
def add_frames(weight: float, first: bool, last: bool, n_params: int, jacobian: np.ndarray, model: np.ndarray) -> int:
    """Add model and Jacobian of some frames to the sums in the rows after the Jacobian; the last brings the sums back."""
    for p in range(n_params + 1):
        one = jacobian[p] if p < n_params else model
        total = jacobian[n_params + p]
        if first:
            for i in range(one.shape[0]):
                total[i] = 0.0
        add_scaled(weight, one, total)
        if last:
            for i in range(one.shape[0]):
                one[i] = total[i]
    return 0


@kernel
def evaluate(
    params: np.ndarray,
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,  # FWHM and tail exponents; of added frames also (offset, weight) pairs, see `forward.frames`
    background: np.ndarray,
    kind: int,
    factor: np.ndarray,
    tables: np.ndarray,
    first_node_mev: np.ndarray,
    node_step_mev: float,
    corrections: np.ndarray,
    jacobian: np.ndarray,  # (parameters, n), or for added frames (2 · parameters + 1, n): the rest is scratch
    model: np.ndarray,
    work: np.ndarray,
    bits: np.ndarray,
) -> int:
    """Write model (n,) and all rows of the Jacobian (parameters, n).

    Of frames that were added it is the sum of the models at each frame's own zero-loss origin.
    """
    n_params, center = params.shape[0], params[1]
    pairs = (reference.shape[0] - N_SHAPE) // 2
    for g in range(max(pairs, 1)):
        if pairs > 0:
            params[1] = center + reference[N_SHAPE + 2 * g]
        zero_loss_rows(params, energies_mev, dispersion_mev, reference, jacobian, model, work, bits)
        measured_factor(params, dispersion_mev, factor, jacobian, model, work)
        background_rows(params, background, kind, jacobian, model, work, bits)
        mode_rows(
            params, dispersion_mev, tables, first_node_mev, node_step_mev, corrections, jacobian, model, work
        )  # fmt: skip
        if pairs > 0:
            add_frames(reference[N_SHAPE + 2 * g + 1], g == 0, g == pairs - 1, n_params, jacobian, model)
    params[1] = center
    return 0
