"""Interpolation of tabulated lines: between the energies of their nodes, and between channels.

Loops write one array each from few others, because a compiler gives up on lanes where too many arrays might overlap.
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.response import PAD_CHANNELS


@kernel
def cubic_weights(f: float) -> tuple[float, float, float, float]:
    """Return the weights of the four points -1, 0, 1, 2 for the cubic through them at a fraction `f`."""
    return (
        -f * (f - 1.0) * (f - 2.0) / 6.0,
        (f + 1.0) * (f - 1.0) * (f - 2.0) / 2.0,
        -(f + 1.0) * f * (f - 2.0) / 2.0,
        (f + 1.0) * f * (f - 1.0) / 6.0,
    )


@kernel
def cubic_slopes(f: float) -> tuple[float, float, float, float]:
    """Return the derivatives of `cubic_weights`."""
    return (
        -(3.0 * f * f - 6.0 * f + 2.0) / 6.0,
        (3.0 * f * f - 4.0 * f - 1.0) / 2.0,
        -(3.0 * f * f - 2.0 * f - 2.0) / 2.0,
        (3.0 * f * f - 1.0) / 6.0,
    )


@kernel
def mode_cell(energy_mev: float, first_mev: float, step_mev: float, n_nodes: int) -> int:
    """Return the node below an energy, such that the four nodes around it exist."""
    return min(max(int(math.floor((energy_mev - first_mev) / step_mev)), 1), n_nodes - 3)


@kernel
def mix_nodes(
    table: np.ndarray,  # (nodes, phases, channels) of one mode
    node: int,
    phase: int,
    low: int,
    w0: float,
    w1: float,
    w2: float,
    w3: float,
    out: np.ndarray,
) -> int:
    """Write a row interpolated between nodes, from channel `low` of the table on."""
    n = out.shape[0]
    row0 = table[node - 1, phase, low : low + n]
    row1 = table[node, phase, low : low + n]
    row2 = table[node + 1, phase, low : low + n]
    row3 = table[node + 2, phase, low : low + n]
    for i in range(n):
        out[i] = w0 * row0[i] + w1 * row1[i] + w2 * row2[i] + w3 * row3[i]
    return 0


@kernel
def mix_neighbours(row: np.ndarray, w0: float, w1: float, w2: float, w3: float, out: np.ndarray) -> int:
    """Write a row (three longer than `out`) interpolated between its channels."""
    n = out.shape[0]
    next1, next2, next3 = row[1 : n + 1], row[2 : n + 2], row[3 : n + 3]
    for i in range(n):
        out[i] = w0 * row[i] + w1 * next1[i] + w2 * next2[i] + w3 * next3[i]
    return 0


@kernel
def add_scaled(factor: float, row: np.ndarray, out: np.ndarray) -> int:
    """Add a multiple of a row to another."""
    for i in range(out.shape[0]):
        out[i] += factor * row[i]
    return 0


@kernel
def moved_line(
    table: np.ndarray,  # (nodes, phases, channels) of one mode and table
    energy_mev: float,
    first_node_mev: float,
    node_step_mev: float,
    shift_mev: float,
    dispersion_mev: float,
    work: np.ndarray,
    value: np.ndarray,  # out (n,): the line
    by_energy: np.ndarray,  # out (n,), or (0,) if no derivatives are wanted: its derivative to the mode's energy
    by_shift: np.ndarray,  # out (n,), or (0,): to the shift
) -> int:
    """Interpolate a tabulated line: cubic between the nodes around its energy, cubic between channels by the shift."""
    n = value.shape[0]
    phases = table.shape[1]
    node = mode_cell(energy_mev, first_node_mev, node_step_mev, table.shape[0])
    fraction = (energy_mev - first_node_mev) / node_step_mev - node
    a0, a1, a2, a3 = cubic_weights(fraction)
    d0, d1, d2, d3 = cubic_slopes(fraction)
    d0, d1, d2, d3 = d0 / node_step_mev, d1 / node_step_mev, d2 / node_step_mev, d3 / node_step_mev
    position = -shift_mev * phases / dispersion_mev
    cell = int(math.floor(position))
    b0, b1, b2, b3 = cubic_weights(position - cell)
    s0, s1, s2, s3 = cubic_slopes(position - cell)
    scale = -phases / dispersion_mev
    s0, s1, s2, s3 = s0 * scale, s1 * scale, s2 * scale, s3 * scale
    slopes = by_energy.shape[0] > 0
    if phases == 1:  # the four rows are one row, a channel apart
        row = work[: n + 3]
        low = PAD_CHANNELS + cell - 1
        mix_nodes(table, node, 0, low, a0, a1, a2, a3, row)
        mix_neighbours(row, b0, b1, b2, b3, value)
        if slopes:
            mix_neighbours(row, s0, s1, s2, s3, by_shift)
            mix_nodes(table, node, 0, low, d0, d1, d2, d3, row)
            mix_neighbours(row, b0, b1, b2, b3, by_energy)
        return 0
    row = work[:n]
    for i in range(n):
        value[i] = 0.0
    if slopes:
        for i in range(n):
            by_shift[i] = 0.0
        for i in range(n):
            by_energy[i] = 0.0
    for k in range(4):
        fine = cell - 1 + k
        channel = fine // phases
        phase = fine - channel * phases
        weight = b0 if k == 0 else (b1 if k == 1 else (b2 if k == 2 else b3))
        slope = s0 if k == 0 else (s1 if k == 1 else (s2 if k == 2 else s3))
        mix_nodes(table, node, phase, PAD_CHANNELS + channel, a0, a1, a2, a3, row)
        add_scaled(weight, row, value)
        if slopes:
            add_scaled(slope, row, by_shift)
            mix_nodes(table, node, phase, PAD_CHANNELS + channel, d0, d1, d2, d3, row)
            add_scaled(weight, row, by_energy)
    return 0
