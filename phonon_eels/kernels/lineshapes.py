"""Shapes of the zero-loss peak and of phonon lines, on arrays; the per-spectrum kernel is in `forward`."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

LineShape = Literal["oscillator", "lorentzian", "gaussian", "pseudo_voigt", "voigt"]
EVEN_SHARE = 0.5
"""Lorentzian share of a pseudo-Voigt or Voigt line of which nothing is known."""


def split_pearson7(energy_mev: np.ndarray, fwhm_mev: float, tail_loss: float, tail_gain: float) -> np.ndarray:
    """Return the split Pearson VII of unit height whose mode lies at 0.

    R(x) = [1 + (2^(1/m) - 1)(2x/w)²]^(-m), with its own exponent m on the loss (x > 0) and the gain side.

    Parameters
    ----------
    energy_mev
        Distance from the mode, any shape.
    fwhm_mev
        Full width at half maximum, w.
    tail_loss, tail_gain
        Exponents m; the smaller, the heavier the tail. Above 0.5 the area is finite.
    """
    tail = np.where(energy_mev > 0.0, tail_loss, tail_gain)
    curvature = np.exp2(1.0 / tail) - 1.0
    return np.asarray((1.0 + curvature * (2.0 * energy_mev / fwhm_mev) ** 2) ** -tail)


def split_pearson7_slopes(energy_mev: np.ndarray, fwhm_mev: float, tail_loss: float, tail_gain: float) -> np.ndarray:
    """Return the derivatives of `split_pearson7` to place, ln w, ln m₊ and ln m₋, and itself: (5, points).

    Parameters
    ----------
    energy_mev
        Distance from the mode, (points,), in the unit of the width; the first derivative is per that unit.
    """
    loss = energy_mev > 0.0
    tail = np.where(loss, tail_loss, tail_gain)
    root = np.where(loss, 2.0 ** (1.0 / tail_loss), 2.0 ** (1.0 / tail_gain))
    square = (2.0 * energy_mev / fwhm_mev) ** 2
    base = 1.0 + (root - 1.0) * square
    log_base = np.log(base)
    peak = np.exp(-tail * log_base)
    wider = 2.0 * tail * peak * (root - 1.0) * square / base
    moved = np.divide(wider, energy_mev, out=np.zeros_like(wider), where=energy_mev != 0.0)
    stronger = peak * (math.log(2.0) * root * square / base - tail * log_base)
    return np.stack([moved, wider, np.where(loss, stronger, 0.0), np.where(loss, 0.0, stronger), peak])


def split_pearson7_area(fwhm_mev: float, tail_loss: float, tail_gain: float) -> float:
    """Return the integral over all energies of `split_pearson7`, in meV; both exponents must exceed 0.5."""
    area = 0.0
    for tail in (tail_loss, tail_gain):
        curvature = 2.0 ** (1.0 / tail) - 1.0
        beta = math.sqrt(math.pi) * math.exp(math.lgamma(tail - 0.5) - math.lgamma(tail))
        area += 0.25 * fwhm_mev / math.sqrt(curvature) * beta
    return area


def voigt_widths(fwhm_mev: float, lorentzian_share: float) -> tuple[float, float]:
    """Return the FWHM of the Lorentzian and of the Gaussian whose convolution is a Voigt line of a FWHM.

    Parameters
    ----------
    lorentzian_share
        FWHM of the Lorentzian over that of the line, 0 to 1.

    Notes
    -----
    f = 0.5346 L + √(0.2166 L² + G²), right to 0.02 % of f (Olivero and Longbothum 1977, doi:10.1016/0022-4073(77)90161-3).
    """
    rest = (1.0 - 0.5346 * lorentzian_share) ** 2 - 0.2166 * lorentzian_share**2
    return lorentzian_share * fwhm_mev, math.sqrt(max(rest, 0.0)) * fwhm_mev


def _line(distance_mev: np.ndarray, fwhm_mev: float, shape: LineShape, lorentzian_share: float) -> np.ndarray:
    """Return a symmetric line around 0; that of a pseudo-Voigt or Voigt has unit area."""
    if shape == "voigt":
        from scipy.special import voigt_profile  # here and not above: no other shape needs it

        lorentz, gauss = voigt_widths(fwhm_mev, lorentzian_share)
        return np.asarray(voigt_profile(distance_mev, gauss / math.sqrt(8.0 * math.log(2.0)), 0.5 * lorentz))
    half, rate = 0.5 * fwhm_mev, 4.0 * math.log(2.0) / fwhm_mev**2
    lorentzian, gaussian = half / (distance_mev**2 + half**2), np.exp(-rate * distance_mev**2)
    if shape == "lorentzian":
        return np.asarray(lorentzian)
    if shape == "gaussian":
        return np.asarray(gaussian)
    parts = (lorentzian_share / math.pi) * lorentzian, (1.0 - lorentzian_share) * math.sqrt(rate / math.pi) * gaussian
    return np.asarray(parts[0] + parts[1])


def susceptibility(
    energy_mev: np.ndarray, mode_mev: float, fwhm_mev: float, shape: LineShape, lorentzian_share: float = EVEN_SHARE
) -> np.ndarray:
    """Return the odd dissipative response χ″(E) of one mode, arbitrary scale.

    Parameters
    ----------
    energy_mev
        Energies, any sign.
    mode_mev
        Energy of the mode: the undamped energy of the oscillator, or the centre of the other shapes.
    fwhm_mev
        Full width at half maximum; the damping of the oscillator.
    lorentzian_share
        Pseudo-Voigt: share of the area that is Lorentzian, both parts of one FWHM. Voigt: see `voigt_widths`.
    """
    if shape == "oscillator":
        energy = np.asarray(energy_mev, dtype=float)
        return np.asarray(mode_mev * fwhm_mev * energy / ((energy**2 - mode_mev**2) ** 2 + (fwhm_mev * energy) ** 2))
    loss, gain = (_line(energy_mev - side, fwhm_mev, shape, lorentzian_share) for side in (mode_mev, -mode_mev))
    return np.asarray(loss - gain)


def loss_spectrum(
    energy_mev: np.ndarray,
    mode_mev: float,
    fwhm_mev: float,
    thermal_mev: float,
    shape: LineShape,
    lorentzian_share: float = EVEN_SHARE,
) -> np.ndarray:
    """Return χ″(E)/(1 - e^(-E/kT)): the occupation once, loss and gain tied by detailed balance.

    The value at E = 0 is the limit kT dχ″/dE; dividing a blurred spectrum instead biases the energy (SCIENCE §7).
    """
    energy = np.asarray(energy_mev, dtype=float)
    response = susceptibility(energy, mode_mev, fwhm_mev, shape, lorentzian_share)
    near_zero = np.abs(energy) < 1e-6 * thermal_mev
    safe = np.where(near_zero, thermal_mev, energy)
    # Far on the gain side of a 500 meV channel the exponential would overflow; the occupation is zero there anyway.
    spectrum = response / -np.expm1(np.minimum(-safe / thermal_mev, 700.0))
    if near_zero.any():
        step = 1e-4 * thermal_mev
        slope = float(susceptibility(np.array([step]), mode_mev, fwhm_mev, shape, lorentzian_share)[0]) / step
        spectrum = np.where(near_zero, thermal_mev * slope, spectrum)
    return np.asarray(spectrum)
