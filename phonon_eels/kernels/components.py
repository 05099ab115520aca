"""Peaks and backgrounds as components: their sum over the channels and every derivative, in one pass.

A model is a table with one row per component: its kind, the number of its first parameter, how many it has. One compiled
routine serves every model; the loops over channels are inside, so the choice of the kind costs nothing.

====================  ==========================================  ===================================================
kind                  parameters                                  value per channel, L of unit area over the energy
====================  ==========================================  ===================================================
gaussian              area, centre, fwhm                          area · step · L(E)
lorentzian            area, centre, fwhm                          "
pseudo_voigt          area, centre, fwhm, fraction                share `fraction` Lorentzian, the rest Gaussian
voigt                 area, centre, fwhm_gauss, fwhm_lorentz      Gaussian ⊗ Lorentzian
oscillator            area, centre, fwhm                          E₀ΓE / ((E²-E₀²)² + Γ²E²), unit area over E > 0
polynomial            c₀ … c_d                                    Σ c_k u^k
power_law             amplitude, exponent                         A (E / E_ref)^(-r)
exponential           amplitude, rate                             A exp(-rate (E - E_ref))
exp_polynomial        c₀ … c_d                                    exp(Σ c_k u^k)
====================  ==========================================  ===================================================

`u` is the distance from the reference energy over a scale, so that the coefficients are of one size. The rows of `axis`
are: energy, distance from the reference, u, ln(E / E_ref).
"""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import apart, inlined, kernel, reducing_kernel
from phonon_eels.kernels.elementary import exp_in_place, exp_of_parabola

GAUSSIAN, LORENTZIAN, PSEUDO_VOIGT, VOIGT, OSCILLATOR = 0, 1, 2, 3, 4
POLYNOMIAL, POWER_LAW, EXPONENTIAL, EXP_POLYNOMIAL = 5, 6, 7, 8

GAUSS_RATE = 4.0 * math.log(2.0)
GAUSS_NORM = 2.0 * math.sqrt(math.log(2.0) / math.pi)
SIGMA_OF_FWHM = 0.5 / math.sqrt(2.0 * math.log(2.0))
FADDEEVA_TERMS = 32
VANISHED = 35.0
"""A Gaussian below exp(-35) = 6e-16 of its height is 0: half the channels of a scan's peak, and no more than rounding."""
FAR = math.sqrt(VANISHED / GAUSS_RATE)
EVEN = 1e-11
"""Of a channel, that an energy may lie beside an even axis: what rounding leaves of an axis that is even."""


def _faddeeva_coefficients() -> np.ndarray:
    """Return the coefficients of Weideman's rational series of w(z), lowest power first (doi:10.1137/0731077)."""
    n, m = FADDEEVA_TERMS, 2 * FADDEEVA_TERMS
    scale = math.sqrt(n / math.sqrt(2.0))
    t = scale * np.tan(np.arange(-m + 1, m) * math.pi / (2 * m))
    f = np.concatenate([[0.0], np.exp(-(t**2)) * (scale**2 + t**2)])
    return np.ascontiguousarray(np.fft.fft(np.fft.fftshift(f)).real[1 : n + 1] / (2 * m))


FADDEEVA = _faddeeva_coefficients()
FADDEEVA_SCALE = math.sqrt(FADDEEVA_TERMS / math.sqrt(2.0))


@reducing_kernel
def even_step(x: np.ndarray) -> float:
    """Return the step of an even axis, 0 if it is not even."""
    n = x.shape[0]
    step = (x[n - 1] - x[0]) / (n - 1)
    allowed = EVEN * abs(step)
    beside = 0.0
    for i in range(n):
        beside += 0.0 if abs(x[i] - (x[0] + i * step)) <= allowed else 1.0
    return step if beside == 0.0 else 0.0


@inlined(reducing=False)
def reach(x: np.ndarray, even_mev: float, centre: float, fwhm: float) -> tuple[int, int]:
    """Return the first channel and one past the last in which a Gaussian is not below `exp(-VANISHED)` of its height.

    In whole groups of eight, so that no loop over them has a remainder; all channels where the distance is no number.
    """
    n = x.shape[0]
    far = FAR * fwhm
    left, right = centre - far, centre + far
    if not left < right:
        return 0, n
    if even_mev > 0.0:
        per_mev = 1.0 / even_mev
        below, above = (left - x[0]) * per_mev, (right - x[0]) * per_mev
        return int(min(max(below, 0.0), n - 1.0)) & -8, min((int(min(max(above, 0.0), n - 1.0)) & -8) + 8, n)
    per_mev = (n - 1) / (x[n - 1] - x[0])
    # A guess that is right on an even axis, then widened until it is right on any; too wide costs time only.
    low = int(min(max((left - x[0]) * per_mev - 1.0, 0.0), n - 1.0)) // 8 * 8
    high = min(int(min(max((right - x[0]) * per_mev + 2.0, 0.0), n - 1.0)) // 8 * 8 + 8, n)
    while low > 0 and x[low - 1] >= left:
        low -= 8
    while high < n and x[high] <= right:
        high = min(high + 8, n)
    return low, high


@inlined(reducing=False)
def clear(rows: np.ndarray, first: int, last: int) -> int:
    """Set three rows to zero from one channel to another, in one loop: one for each row would become three calls."""
    one, two, three = rows[0, first:last], rows[1, first:last], rows[2, first:last]
    for i in range(one.shape[0]):
        one[i] = 0.0
        two[i] = 0.0
        three[i] = 0.0
    return 0


@inlined(reducing=False)
def gaussian(
    x: np.ndarray,
    p: np.ndarray,
    step: float,
    even_mev: float,
    rows: np.ndarray,
    span: np.ndarray,
    scratch: np.ndarray,
    model: np.ndarray,
) -> int:
    """Add a Gaussian and write its three derivatives, and between which channels they are not 0 (the call before's are cleared)."""
    area, centre, narrow = p[0], p[1], 1.0 / p[2]
    rate = -GAUSS_RATE * narrow * narrow
    norm = GAUSS_NORM * narrow * step
    by_centre, by_width = -2.0 * area * rate, -area * narrow
    low, high = reach(x, even_mev, centre, p[2])
    # Of all three: what is tied to one of them has been added to its derivative alone.
    before = int(min(min(span[0, 0], span[0, 1]), span[0, 2]))
    after = int(max(max(span[1, 0], span[1, 1]), span[1, 2]))
    if before < low:
        clear(rows, before, min(low, after))
    if after > high:
        clear(rows, max(high, before), after)
    span[0, 0] = span[0, 1] = span[0, 2] = low
    span[1, 0] = span[1, 1] = span[1, 2] = high
    near, total = x[low:high], model[low:high]
    unit, to_centre, to_width = rows[0, low:high], rows[1, low:high], rows[2, low:high]
    exp_of_parabola(near, even_mev, centre, rate, 0.0, unit, scratch)
    for i in range(near.shape[0]):
        d = near[i] - centre
        e = norm * unit[i]
        unit[i] = e
        to_centre[i] = by_centre * e * d
        to_width[i] = by_width * e * (1.0 + 2.0 * rate * d * d)
        total[i] += area * e
    return 0


@apart
def lorentzian(x: np.ndarray, p: np.ndarray, step: float, rows: np.ndarray, model: np.ndarray) -> int:
    """Add a Lorentzian and write its three derivatives."""
    area, centre, half = p[0], p[1], 0.5 * p[2]
    norm = step * half / math.pi
    per_half = 0.5 / half
    unit, to_centre, to_width = rows[0], rows[1], rows[2]
    for i in range(x.shape[0]):
        d = x[i] - centre
        q = 1.0 / (d * d + half * half)
        value = norm * q
        unit[i] = value
        to_centre[i] = 2.0 * area * value * d * q
        to_width[i] = area * value * (per_half - half * q)
        model[i] += area * value
    return 0


@apart
def pseudo_voigt(
    x: np.ndarray,
    p: np.ndarray,
    step: float,
    even_mev: float,
    rows: np.ndarray,
    scratch: np.ndarray,
    model: np.ndarray,
) -> int:
    """Add a pseudo-Voigt and write its four derivatives; both parts have the one FWHM."""
    area, centre, fwhm, share = p[0], p[1], p[2], p[3]
    narrow, half = 1.0 / fwhm, 0.5 * fwhm
    rate = -GAUSS_RATE * narrow * narrow
    gauss_norm, lorentz_norm = GAUSS_NORM * narrow * step, step * half / math.pi
    rest = 1.0 - share
    by_centre = -2.0 * rate * rest
    unit, to_centre, to_width, to_share = rows[0], rows[1], rows[2], rows[3]
    low, high = reach(x, even_mev, centre, p[2])
    clear(rows, 0, low)
    clear(rows, high, x.shape[0])
    near, own, wide = x[low:high], unit[low:high], to_width[low:high]
    exp_of_parabola(near, even_mev, centre, rate, 0.0, own, scratch)
    for i in range(near.shape[0]):
        d = near[i] - centre
        e = gauss_norm * own[i]
        own[i] = e
        wide[i] = rest * narrow * (2.0 * rate * d * d + 1.0) * e
    for i in range(x.shape[0]):
        d = x[i] - centre
        e = unit[i]
        q = 1.0 / (d * d + half * half)
        line = lorentz_norm * q
        value = share * line + rest * e
        unit[i] = value
        to_centre[i] = area * d * (by_centre * e + 2.0 * share * line * q)
        to_width[i] = area * (share * line * (narrow - half * q) - to_width[i])
        to_share[i] = area * (line - e)
        model[i] += area * value
    return 0


@apart
def voigt(
    x: np.ndarray, p: np.ndarray, step: float, rows: np.ndarray, model: np.ndarray, complex_parts: np.ndarray
) -> int:
    """Add a Voigt line and write its four derivatives; w(z) by Weideman's rational series, to 1e-12."""
    area, centre, fwhm_gauss, half = p[0], p[1], p[2], 0.5 * p[3]
    sigma = SIGMA_OF_FWHM * fwhm_gauss
    inverse = 1.0 / (math.sqrt(2.0) * sigma)
    norm = step * inverse / math.sqrt(math.pi)
    y = half * inverse
    zr, zi, pr, pi = complex_parts[0], complex_parts[1], complex_parts[2], complex_parts[3]
    below = FADDEEVA_SCALE + y
    for i in range(x.shape[0]):
        xi = (x[i] - centre) * inverse
        size = 1.0 / (below * below + xi * xi)  # Z = (L + iz)/(L - iz), with iz = -y + i xi
        zr[i] = ((FADDEEVA_SCALE - y) * below - xi * xi) * size
        zi[i] = 2.0 * FADDEEVA_SCALE * xi * size
        pr[i] = 0.0
        pi[i] = 0.0
    for k in range(FADDEEVA_TERMS - 4, -4, -4):
        a0, a1, a2, a3 = FADDEEVA[k], FADDEEVA[k + 1], FADDEEVA[k + 2], FADDEEVA[k + 3]
        for i in range(x.shape[0]):
            u, v = zr[i], zi[i]
            r0, i0 = pr[i] * u - pi[i] * v + a3, pr[i] * v + pi[i] * u
            r1, i1 = r0 * u - i0 * v + a2, r0 * v + i0 * u
            r2, i2 = r1 * u - i1 * v + a1, r1 * v + i1 * u
            pr[i], pi[i] = r2 * u - i2 * v + a0, r2 * v + i2 * u
    unit, to_centre, to_gauss, to_lorentz = rows[0], rows[1], rows[2], rows[3]
    root = 1.0 / math.sqrt(math.pi)
    for i in range(x.shape[0]):
        xi = (x[i] - centre) * inverse
        size = 1.0 / (below * below + xi * xi)
        br, bi = below * size, xi * size  # 1/(L - iz)
        cr, ci = br * br - bi * bi, 2.0 * br * bi
        wr = 2.0 * (pr[i] * cr - pi[i] * ci) + root * br
        wi = 2.0 * (pr[i] * ci + pi[i] * cr) + root * bi
        dr, di = -2.0 * (xi * wr - y * wi), 2.0 * root - 2.0 * (xi * wi + y * wr)  # w' = -2zw + 2i/√π
        value = norm * wr
        unit[i] = value
        to_centre[i] = -area * norm * inverse * dr
        to_gauss[i] = -area * (value + norm * (dr * xi - di * y)) / fwhm_gauss
        to_lorentz[i] = -0.5 * area * norm * inverse * di
        model[i] += area * value
    return 0


@apart
def oscillator(x: np.ndarray, p: np.ndarray, step: float, rows: np.ndarray, model: np.ndarray) -> int:
    """Add a damped oscillator and write its three derivatives; return 1 where it is overdamped (no peak)."""
    area, energy, damping = p[0], p[1], p[2]
    inside = energy * energy - 0.25 * damping * damping
    if inside <= 0.0:
        for i in range(x.shape[0]):
            model[i] = math.nan
        return 1
    s = math.sqrt(inside)
    a, b = energy * energy - 0.5 * damping * damping, damping * s
    angle = 0.5 * math.pi + math.atan(a / b)
    fourth = energy**4
    norm = step * 2.0 * s / (energy * angle)  # of E₀ΓE/(…): ∫₀^∞ = E₀/(2s) (π/2 + atan(a/b))
    s_energy, s_damping = energy / s, -0.25 * damping / s
    angle_energy = (b * 2.0 * energy - a * damping * s_energy) / fourth
    angle_damping = (-b * damping - a * (s + damping * s_damping)) / fourth
    log_energy = s_energy / s - angle_energy / angle  # the numerator's E₀ cancels the norm's 1/E₀
    log_damping = s_damping / s - angle_damping / angle + 1.0 / damping
    unit, to_energy, to_damping = rows[0], rows[1], rows[2]
    for i in range(x.shape[0]):
        e = x[i]
        gap = e * e - energy * energy
        q = 1.0 / (gap * gap + damping * damping * e * e)
        value = norm * energy * damping * e * q
        unit[i] = value
        to_energy[i] = area * value * (log_energy + 4.0 * energy * gap * q)
        to_damping[i] = area * value * (log_damping - 2.0 * damping * e * e * q)
        model[i] += area * value
    return 0


@apart
def polynomial(u: np.ndarray, p: np.ndarray, rows: np.ndarray, model: np.ndarray) -> int:
    """Add a polynomial and write its derivatives, the powers."""
    first = rows[0]
    for i in range(u.shape[0]):
        first[i] = 1.0
        model[i] += p[0]
    for k in range(1, p.shape[0]):
        before, here, c = rows[k - 1], rows[k], p[k]
        for i in range(u.shape[0]):
            here[i] = before[i] * u[i]
            model[i] += c * here[i]
    return 0


@apart
def decay(
    distance: np.ndarray, p: np.ndarray, even_mev: float, rows: np.ndarray, scratch: np.ndarray, model: np.ndarray
) -> int:
    """Add A exp(-rate · distance) and write both derivatives; the distance is an energy, or its logarithm (power law)."""
    amplitude, rate = p[0], p[1]
    unit, to_rate = rows[0], rows[1]
    exp_of_parabola(distance, even_mev, 0.0, 0.0, -rate, unit, scratch)
    for i in range(distance.shape[0]):
        e = unit[i]
        to_rate[i] = -amplitude * e * distance[i]
        model[i] += amplitude * e
    return 0


@apart
def exp_polynomial(u: np.ndarray, p: np.ndarray, rows: np.ndarray, model: np.ndarray) -> int:
    """Add the exponential of a polynomial and write its derivatives."""
    first = rows[0]
    last = p.shape[0] - 1
    for i in range(u.shape[0]):
        total = p[last]
        for k in range(last - 1, -1, -1):
            total = total * u[i] + p[k]
        first[i] = total
    exp_in_place(first)
    for i in range(u.shape[0]):
        model[i] += first[i]
    for k in range(1, p.shape[0]):
        before, here = rows[k - 1], rows[k]
        for i in range(u.shape[0]):
            here[i] = before[i] * u[i]
    return 0


@inlined(reducing=False)
def whole_spans(n: int, spans: np.ndarray) -> int:
    """Write that every derivative may differ from 0 in all n channels: the first channel, and one past the last."""
    for p in range(spans.shape[1]):
        spans[0, p] = 0.0
        spans[1, p] = n
    return 0


@kernel
def evaluate_components(
    table: np.ndarray,  # (components, 3): kind, first parameter, number of parameters
    owner: np.ndarray,  # (parameters,): itself where free, the one it is tied to, or -1 where fixed
    affine: np.ndarray,  # (parameters, 2): tied value = factor · owner + offset
    params: np.ndarray,  # (parameters,); tied ones are set here
    axis: np.ndarray,  # (4, channels)
    step: float,
    even_mev: float,  # `even_step` of the energies
    rows: np.ndarray,  # out (parameters, channels)
    spans: np.ndarray,  # (2, parameters or more), as `whole_spans` or the call before left it: see there
    scratch: np.ndarray,  # (4, channels)
    model: np.ndarray,  # out (channels,)
) -> int:
    """Write the model and its derivatives to the free parameters; rows of fixed and of tied parameters are left-overs."""
    n_params = params.shape[0]
    for p in range(n_params):
        if owner[p] >= 0 and owner[p] != p:
            params[p] = affine[p, 0] * params[owner[p]] + affine[p, 1]
    for i in range(model.shape[0]):
        model[i] = 0.0
    status = 0
    for c in range(table.shape[0]):
        kind, first, count = table[c, 0], table[c, 1], table[c, 2]
        own, here = params[first : first + count], rows[first : first + count]
        if kind == GAUSSIAN:
            gaussian(axis[0], own, step, even_mev, here, spans[:, first:], scratch, model)
        elif kind == LORENTZIAN:
            lorentzian(axis[0], own, step, here, model)
        elif kind == PSEUDO_VOIGT:
            pseudo_voigt(axis[0], own, step, even_mev, here, scratch, model)
        elif kind == VOIGT:
            voigt(axis[0], own, step, here, model, scratch)
        elif kind == OSCILLATOR:
            status += oscillator(axis[0], own, step, here, model)
        elif kind == POLYNOMIAL:
            polynomial(axis[2], own, here, model)
        elif kind == POWER_LAW:
            decay(axis[3], own, 0.0, here, scratch, model)
        elif kind == EXPONENTIAL:
            decay(axis[1], own, even_mev, here, scratch, model)
        else:
            exp_polynomial(axis[2], own, here, model)
    for p in range(n_params):
        if owner[p] >= 0 and owner[p] != p:
            target, source, factor = rows[owner[p]], rows[p], affine[p, 0]
            for i in range(model.shape[0]):
                target[i] += factor * source[i]
            spans[0, owner[p]] = min(spans[0, owner[p]], spans[0, p])
            spans[1, owner[p]] = max(spans[1, owner[p]], spans[1, p])
    return status
