"""The forward fit of one spectrum: zero-loss peak + modes seen through it + background, on raw counts.

Parameters of one spectrum, in this order (M modes):

    0 height   expected electrons per channel at the zero-loss mode
    1 shift    zero-loss mode from the centre of the zero-loss channel, meV
    2 width    ln(FWHM / reference FWHM)
    3 tail+    ln(loss exponent / reference)
    4 tail-    ln(gain exponent / reference)
    5 constant electrons per channel
    6 ramp     electrons per channel and 100 meV, on the loss side
    7 …        M areas, electrons on the loss side
    7+M …      M energies, meV
    7+2M …     M widths, meV from the tabulated width
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.elementary import exp_array, log_array
from phonon_eels.kernels.response import PAD_CHANNELS

N_LOCAL = 7


@kernel
def cubic_weights(fraction: float, value: np.ndarray, slope: np.ndarray) -> int:
    """Write the weights of the four points -1, 0, 1, 2 for the cubic through them at `fraction`, and their derivatives."""
    f = fraction
    value[0] = -f * (f - 1.0) * (f - 2.0) / 6.0
    value[1] = (f + 1.0) * (f - 1.0) * (f - 2.0) / 2.0
    value[2] = -(f + 1.0) * f * (f - 2.0) / 2.0
    value[3] = (f + 1.0) * f * (f - 1.0) / 6.0
    slope[0] = -(3.0 * f * f - 6.0 * f + 2.0) / 6.0
    slope[1] = (3.0 * f * f - 4.0 * f - 1.0) / 2.0
    slope[2] = -(3.0 * f * f - 2.0 * f - 2.0) / 2.0
    slope[3] = (3.0 * f * f - 1.0) / 6.0
    return 0


@kernel
def mode_cell(energy_mev: float, first_mev: float, step_mev: float, n_nodes: int) -> int:
    """Return the node below an energy, such that the four nodes around it exist."""
    return min(max(int(math.floor((energy_mev - first_mev) / step_mev)), 1), n_nodes - 3)


@kernel
def interpolate_lines(
    tables: np.ndarray,  # (nodes, phases, channels) of one mode and table
    node: int,
    node_weights: np.ndarray,
    shift_cell: int,
    shift_weights: np.ndarray,
    out: np.ndarray,
) -> int:
    """Add the interpolated line to `out`."""
    phases = tables.shape[1]
    n = out.shape[0]
    for a in range(4):
        for b in range(4):
            weight = node_weights[a] * shift_weights[b]
            fine = shift_cell - 1 + b
            channel = fine // phases
            row = tables[node - 1 + a, fine - channel * phases, PAD_CHANNELS + channel : PAD_CHANNELS + channel + n]
            for i in range(n):
                out[i] += weight * row[i]
    return 0


@kernel
def correction_lines(
    params: np.ndarray,
    tables: np.ndarray,  # (modes, 5, nodes, phases, channels)
    first_node_mev: np.ndarray,
    node_step_mev: float,
    dispersion_mev: float,
    corrections: np.ndarray,  # out (modes, 4, channels)
) -> int:
    """Tabulate the derivative lines at the starting energies and shift; they stay fixed during a fit.

    A mode's line changes by a few per cent with width and tails, so their dependence on the last tenths of
    a meV is of second order (< 1e-4 of the line).
    """
    wa = np.empty(4)
    wb = np.empty(4)
    da = np.empty(4)
    db = np.empty(4)
    n_modes = tables.shape[0]
    position = -params[1] * tables.shape[3] / dispersion_mev
    cell = int(math.floor(position))
    cubic_weights(position - cell, wb, db)
    corrections[:, :, :] = 0.0
    for m in range(n_modes):
        energy = params[N_LOCAL + n_modes + m]
        node = mode_cell(energy, first_node_mev[m], node_step_mev, tables.shape[2])
        cubic_weights((energy - first_node_mev[m]) / node_step_mev - node, wa, da)
        for t in range(4):
            interpolate_lines(tables[m, t + 1], node, wa, cell, wb, corrections[m, t])
    return 0


@kernel
def zero_loss_rows(
    params: np.ndarray,
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,  # FWHM, loss exponent, gain exponent
    jacobian: np.ndarray,
    model: np.ndarray,
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
    points = np.empty((4, 2 * n))
    bits = np.empty(2 * n, np.int64)
    squares, base, logs, values = points[0], points[1], points[2], points[3]
    for k in range(2):
        away = params[1] - (offset if k else -offset)
        for i in range(n):
            x = energies_mev[i] - away
            q = (2.0 * x / width) * (2.0 * x / width)
            squares[k * n + i] = q
            base[k * n + i] = 1.0 + ((root_loss if x > 0.0 else root_gain) - 1.0) * q
    log_array(base, logs, bits)
    for k in range(2):
        away = params[1] - (offset if k else -offset)
        for i in range(n):
            values[k * n + i] = -(tail_loss if energies_mev[i] > away else tail_gain) * logs[k * n + i]
    exp_array(values, logs, bits)
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
def evaluate(
    params: np.ndarray,
    energies_mev: np.ndarray,
    dispersion_mev: float,
    reference: np.ndarray,
    tables: np.ndarray,
    first_node_mev: np.ndarray,
    node_step_mev: float,
    corrections: np.ndarray,
    jacobian: np.ndarray,
    model: np.ndarray,
) -> int:
    """Write model (n,) and all rows of the Jacobian (parameters, n)."""
    n = energies_mev.shape[0]
    n_modes = tables.shape[0]
    zero_loss_rows(params, energies_mev, dispersion_mev, reference, jacobian, model)
    for i in range(n):
        ramp = max(energies_mev[i], 0.0) * 0.01
        jacobian[5, i] = 1.0
        jacobian[6, i] = ramp
        model[i] += params[5] + params[6] * ramp
    wa = np.empty(4)
    wb = np.empty(4)
    da = np.empty(4)
    db = np.empty(4)
    phases = tables.shape[3]
    position = -params[1] * phases / dispersion_mev
    cell = int(math.floor(position))
    cubic_weights(position - cell, wb, db)
    by_shift = -phases / dispersion_mev
    for m in range(n_modes):
        area = params[N_LOCAL + m]
        energy = params[N_LOCAL + n_modes + m]
        extra = params[N_LOCAL + 2 * n_modes + m]
        row_area = jacobian[N_LOCAL + m]
        row_energy = jacobian[N_LOCAL + n_modes + m]
        row_width = jacobian[N_LOCAL + 2 * n_modes + m]
        correction = corrections[m]
        node = mode_cell(energy, first_node_mev[m], node_step_mev, tables.shape[2])
        cubic_weights((energy - first_node_mev[m]) / node_step_mev - node, wa, da)
        for i in range(n):
            row_area[i] = (
                params[2] * correction[0, i]
                + params[3] * correction[1, i]
                + params[4] * correction[2, i]
                + extra * correction[3, i]
            )
            row_energy[i] = 0.0
            row_width[i] = area * correction[3, i]
        for b in range(4):
            fine = cell - 1 + b
            channel = fine // phases
            phase = fine - channel * phases
            low = PAD_CHANNELS + channel
            row0 = tables[m, 0, node - 1, phase, low : low + n]
            row1 = tables[m, 0, node, phase, low : low + n]
            row2 = tables[m, 0, node + 1, phase, low : low + n]
            row3 = tables[m, 0, node + 2, phase, low : low + n]
            for_value = wb[b]
            for_energy = area * wb[b] / node_step_mev
            for_shift = area * db[b] * by_shift
            # Nodes first: the line at this energy serves value and shift alike.
            for i in range(n):
                line = wa[0] * row0[i] + wa[1] * row1[i] + wa[2] * row2[i] + wa[3] * row3[i]
                slope = da[0] * row0[i] + da[1] * row1[i] + da[2] * row2[i] + da[3] * row3[i]
                row_area[i] += for_value * line
                row_energy[i] += for_energy * slope
                jacobian[1, i] += for_shift * line
        for i in range(n):
            model[i] += area * row_area[i]
            jacobian[2, i] += area * correction[0, i]
            jacobian[3, i] += area * correction[1, i]
            jacobian[4, i] += area * correction[2, i]
    return 0
