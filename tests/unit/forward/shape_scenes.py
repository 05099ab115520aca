"""Spectra of four line shapes through the response, integrated numerically and apart from the tables of the fit."""

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import wofz

from phonon_eels.config import Settings
from phonon_eels.forward.model import build_forward_model
from phonon_eels.forward.scan import Alignment
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, material_of

MATERIAL = material_of(*SEPARATED)
SHAPES = ("gaussian", "lorentzian", "pseudo_voigt", "voigt")
SHARE = 0.35
RESPONSE = ZeroLossShape(7.5, 2.2, 2.6)
THERMAL = thermal_energy_mev(293.0)
DISPERSION, FIRST, N = 0.5, -110, 341
FINE = 0.025
ENERGIES = np.array([38.4, 57.1, 78.6])
AREAS = np.array([9e3, 8e3, 7e3])
HEIGHT, LEVEL = 4e5, 20.0


def line(distance, fwhm, shape):
    """A line of unit area; the Voigt by the Faddeeva function, its width by bisection and not by the formula of the program."""
    sigma, half = fwhm / np.sqrt(8.0 * np.log(2.0)), 0.5 * fwhm
    gaussian = np.exp(-0.5 * (distance / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi))
    lorentzian = half / np.pi / (distance**2 + half**2)
    if shape == "voigt":
        return _voigt(distance, _gaussian_of(fwhm), SHARE * fwhm)
    share = {"gaussian": 0.0, "lorentzian": 1.0, "pseudo_voigt": SHARE}[shape]
    return share * lorentzian + (1.0 - share) * gaussian


def _voigt(distance, gauss, lorentz):
    sigma = gauss / np.sqrt(8.0 * np.log(2.0))
    return wofz((distance + 0.5j * lorentz) / (sigma * np.sqrt(2.0))).real / (sigma * np.sqrt(2.0 * np.pi))


def _gaussian_of(fwhm):
    """The FWHM of the Gaussian part, so that half the height is reached at half the FWHM."""
    low, high = 0.01 * fwhm, fwhm
    for _ in range(60):
        middle = 0.5 * (low + high)
        at = _voigt(np.array([0.0, 0.5 * fwhm]), middle, SHARE * fwhm)
        low, high = (low, middle) if at[1] > 0.5 * at[0] else (middle, high)
    return middle


def expected(shape):
    """Expected electrons of one spectrum, (N,): zero-loss peak at 0 meV, three modes with occupation, a constant."""
    fine = np.arange(-400.0, 400.0 + 0.5 * FINE, FINE)
    spectrum = np.zeros_like(fine)
    for mode, energy, area in zip(MATERIAL.modes, ENERGIES, AREAS, strict=True):
        odd = line(fine - energy, mode.fwhm_mev, shape) - line(fine + energy, mode.fwhm_mev, shape)
        near = np.abs(fine) < 1e-9
        seen = odd / -np.expm1(-np.where(near, 1.0, fine) / THERMAL)
        seen[near] = 0.5 * (seen[np.flatnonzero(near) - 1] + seen[np.flatnonzero(near) + 1])
        loss = fine > 0.0
        spectrum += area * seen / (FINE * (seen[loss].sum() + 0.5 * seen[near].sum()))
    peak = split_pearson7(fine, *vars(RESPONSE).values())
    blurred = fftconvolve(spectrum, peak / peak.sum(), mode="same") + HEIGHT / DISPERSION * peak
    whole = np.concatenate([[0.0], np.cumsum(0.5 * (blurred[1:] + blurred[:-1])) * FINE])
    edges = (FIRST + np.arange(N + 1) - 0.5) * DISPERSION
    return np.diff(np.interp(edges, fine, whole)) + LEVEL


def model_of(shape, **changes):
    share = {"lorentzian_share": SHARE} if shape in ("pseudo_voigt", "voigt") else {}
    settings = Settings().fit_peaks.model_copy(update={"line_shape": shape, **share, **changes})
    return build_forward_model(settings, MATERIAL, FIRST + np.arange(N), DISPERSION, RESPONSE, THERMAL)


def image_of(counts):
    """A scan, (rows, columns, N), whose zero-loss channel is the one of 0 meV."""
    scan = tuple(ScanAxis(name, 0.1, size) for name, size in zip(("row", "column"), counts.shape, strict=False))
    image = SpectrumImage(counts=counts, energy=EnergyAxis(FIRST * DISPERSION, DISPERSION, N), scan=scan)
    return image, Alignment.at_zero(image)


def starts(model):
    local = [HEIGHT, 0.0, 0.0, 0.0, 0.0, LEVEL, 0.0, 0.0]
    start = np.concatenate([local, AREAS, ENERGIES + np.array([0.8, -0.6, 0.5]), np.zeros(3)])
    assert start.size == model.n_params == N_LOCAL + 9
    return start
