"""Kernels of the simulator: lines of a position, loss spectrum before the instrument, instrument response.

They are written apart from the kernels that fit: the truth must not share their mistakes.
"""

from __future__ import annotations

import math

from phonon_eels.kernels.device import kernel

OSCILLATOR, SKEWED, TABLE = 0, 1, 2
SPLIT_PEARSON7, PSEUDO_VOIGT, GAUSSIAN_EXPONENTIAL, SPLIT_GAUSSIAN = 0, 1, 2, 3

REACH_SIGMA = 4.5
"""Planes further away than this many standard deviations of the localisation are left out (4e-5 of their weight)."""

_LN2 = math.log(2.0)
_LN16 = 4.0 * _LN2


@kernel
def collect_lines(c_nm, theta, thickness, planes, weights, modes, excitation, lines):
    """Write every line that a position sees and return how many there are.

    Parameters
    ----------
    c_nm, theta, thickness
        Coordinate along c, lateral phase, relative thickness of the position.
    planes
        (planes, 5): height in nm, displacement amplitude in nm, shift of the modulation phase in rad, layer, 1 if the
        modes follow the superstructure there and 0 in a turned slab.
    weights
        (layers, modes): electrons of each mode at a lone plane of each layer.
    modes
        (modes, 10): energy, width, then amplitude and phase of the modulation of energy, of its second harmonic,
        of the weight, of the width.
    excitation
        Localisation sigma in nm, dechannelled fraction, dipole fraction, then 1 if neighbouring planes are in
        antiphase, then for each mode its mean weight along c.
    lines
        (lines, 4), out: mode, energy, width, electrons on the loss side.
    """
    sigma, tail, dipole, antiphase = excitation[0], excitation[1], excitation[2], excitation[3]
    n = 0
    for p in range(planes.shape[0]):
        away = c_nm - planes[p, 0] - planes[p, 1] * math.cos(theta)
        if abs(away) > REACH_SIGMA * sigma:
            continue
        local = math.exp(-0.5 * (away / sigma) ** 2) * (1.0 - tail) * (1.0 - dipole) * thickness
        layer = int(planes[p, 3])
        for m in range(modes.shape[0]):
            if weights[layer, m] > 0.0:
                n = _put_line(lines, n, modes, m, theta + planes[p, 2], planes[p, 4], local * weights[layer, m])
    for m in range(modes.shape[0]):
        mean = excitation[4 + m] * thickness
        if mean * tail * (1.0 - dipole) > 0.0:
            # The tail comes from many planes, as many of one phase as of the other.
            n = _put_line(lines, n, modes, m, theta, 1.0, 0.5 * mean * tail * (1.0 - dipole))
            n = _put_line(lines, n, modes, m, theta + math.pi * antiphase, 1.0, 0.5 * mean * tail * (1.0 - dipole))
        if mean * dipole > 0.0:
            lines[n, 0], lines[n, 1], lines[n, 2], lines[n, 3] = m, modes[m, 0], modes[m, 1], mean * dipole
            n += 1
    return n


@kernel
def _put_line(lines, n, modes, m, phase, wave, electrons):
    """Add the line of one mode at one superstructure phase, modulated `wave` times; return the new number of lines."""
    lines[n, 0] = m
    shift = modes[m, 2] * math.cos(phase - modes[m, 3]) + modes[m, 4] * math.cos(2.0 * phase - modes[m, 5])
    lines[n, 1] = modes[m, 0] + wave * shift
    lines[n, 2] = modes[m, 1] * (1.0 + wave * modes[m, 8] * math.cos(phase - modes[m, 9]))
    lines[n, 3] = electrons * (1.0 + wave * modes[m, 6] * math.cos(phase - modes[m, 7]))
    return n + 1


@kernel
def summarise_lines(lines, n, area, energy, width):
    """Add up the lines of each mode: electrons, and mean energy and width weighted by them (NaN without electrons)."""
    for m in range(area.shape[0]):
        area[m] = 0.0
        energy[m] = 0.0
        width[m] = 0.0
    for j in range(n):
        m = int(lines[j, 0])
        area[m] += lines[j, 3]
        energy[m] += lines[j, 3] * lines[j, 1]
        width[m] += lines[j, 3] * lines[j, 2]
    for m in range(area.shape[0]):
        energy[m] /= area[m]
        width[m] /= area[m]
    return 0


@kernel
def add_line(
    energy_mev, width_mev, electrons, shape, skew, table, table_low, table_step, step_mev, zero, occupied, work, out
):
    """Add one line to the loss spectrum in electrons / meV, normalised to `electrons` on the loss side.

    The line is ``χ''(E) / (1 − exp(−E/kT))`` with χ'' odd: occupation and detailed balance enter once, here.

    Parameters
    ----------
    occupied
        ``E / (1 − exp(−E/kT))`` on the grid.
    table, table_low, table_step
        Density over (|E| − energy) / width on an even grid; used by that shape only.
    zero
        Index of E = 0 on the grid.
    work, out
        Scratch and result on the grid.
    """
    n = out.shape[0]
    loss_side = 0.0
    for i in range(n):
        e = abs(step_mev * (i - zero))
        if shape == TABLE:
            place = ((e - energy_mev) / width_mev - table_low) / table_step
            j = math.floor(place)
            even = 0.0
            if 0 <= j < table.shape[0] - 1:
                even = (table[j] + (place - j) * (table[j + 1] - table[j])) / energy_mev
        else:
            gamma = width_mev
            if shape == SKEWED:
                gamma = 2.0 * width_mev / (1.0 + math.exp(skew * (e - energy_mev) / width_mev))
            beyond = e * e - energy_mev * energy_mev
            even = energy_mev * gamma / (beyond * beyond + gamma * gamma * e * e)
        work[i] = even * occupied[i]
        if i > zero:
            loss_side += work[i] * step_mev
    loss_side += 0.5 * (work[zero] - work[n - 1]) * step_mev
    if shape == OSCILLATOR:
        # What lies above the grid, where the line is E0 Γ E / (E² − E0²)².
        top = step_mev * (n - 1 - zero)
        loss_side += 0.5 * energy_mev * width_mev / (top * top - energy_mev * energy_mev)
    scale = electrons / loss_side
    for i in range(n):
        out[i] += scale * work[i]
    return 0


@kernel
def pearson7_half_area(width_mev, exponent):
    """Area of one side of ``[1 + (2^{1/m} − 1)(2x/w)²]^{−m}``."""
    root = math.sqrt(2.0 ** (1.0 / exponent) - 1.0)
    gammas = math.exp(math.lgamma(exponent - 0.5) - math.lgamma(exponent))
    return 0.25 * width_mev / root * math.sqrt(math.pi) * gammas


@kernel
def response(x, shape, width_mev, first, second, third):
    """Instrument response at x meV from its mode, per unit height of its main part.

    `first`, `second`, `third` are, by shape: exponents of loss and gain side; share of the Lorentzian; share of the
    skirts and their lengths in widths on the loss and gain side; relative asymmetry.
    """
    if shape == SPLIT_PEARSON7:
        m = first if x > 0.0 else second
        u = 2.0 * x / width_mev
        return math.exp(-m * math.log1p((2.0 ** (1.0 / m) - 1.0) * u * u))
    if shape == PSEUDO_VOIGT:
        u = x / width_mev
        lorentzian = 2.0 / (math.pi * width_mev * (1.0 + 4.0 * u * u))
        gaussian = math.sqrt(_LN16 / math.pi) / width_mev * math.exp(-_LN16 * u * u)
        return first * lorentzian + (1.0 - first) * gaussian
    if shape == GAUSSIAN_EXPONENTIAL:
        u = x / width_mev
        gaussian = math.sqrt(_LN16 / math.pi) / width_mev * math.exp(-_LN16 * u * u)
        skirt = math.exp(-u / second) if u > 0.0 else math.exp(u / third)
        return (1.0 - first) * gaussian + first * skirt / ((second + third) * width_mev)
    u = x / (width_mev * (1.0 + first if x > 0.0 else 1.0 - first))
    return math.exp(-_LN16 * u * u)


@kernel
def response_area(shape, width_mev, first, second):
    """Area of `response` from −∞ to ∞."""
    if shape == SPLIT_PEARSON7:
        return pearson7_half_area(width_mev, first) + pearson7_half_area(width_mev, second)
    if shape == SPLIT_GAUSSIAN:
        return width_mev * math.sqrt(math.pi / _LN16)
    return 1.0


@kernel
def fill_response(shape, width_mev, first, second, third, start_mev, step_mev, n_before, n_after, out):
    """Write the response of unit area, in 1/meV, in the circular order of an FFT.

    Parameters
    ----------
    start_mev
        Distance from the mode at index 0; index d (also negative, wrapped around) lies at ``start + d · step``.
    n_before, n_after
        Numbers of points at negative d, and at d ≥ 0. Points between them are not needed and set to 0.
    """
    size = out.shape[0]
    scale = 1.0 / response_area(shape, width_mev, first, second)
    for i in range(size):
        out[i] = 0.0
    for d in range(-n_before, n_after):
        out[d % size] = scale * response(start_mev + d * step_mev, shape, width_mev, first, second, third)
    return 0
