"""Unit factors and physical constants, each with its source."""

from __future__ import annotations

BOLTZMANN_MEV_PER_K = 0.08617333262
"""Boltzmann constant in meV/K (CODATA 2018, exact by the SI definition of 2019)."""

ELECTRON_REST_ENERGY_KEV = 510.99895
"""Electron rest energy in keV (CODATA 2018)."""

HC_KEV_NM = 1.239841984
"""Planck constant times speed of light in keV nm (CODATA 2018)."""

ELEMENTARY_CHARGE_C = 1.602176634e-19
"""Elementary charge in C (exact by the SI definition of 2019)."""

INVERSE_CM_PER_MEV = 8.065544
"""Wavenumbers in 1/cm per meV (CODATA 2018)."""

FWHM_PER_SIGMA = 2.3548200450309493
"""Full width at half maximum of a Gaussian over its standard deviation, 2 sqrt(2 ln 2)."""

MEV_PER_ENERGY_UNIT = {"meV": 1.0, "eV": 1e3, "keV": 1e6}
"""Factor from an energy unit, as files spell it, to meV."""

NM_PER_LENGTH_UNIT = {
    "nm": 1.0,
    "Å": 0.1,
    "A": 0.1,
    "angstrom": 0.1,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "pm": 1e-3,
    "m": 1e9,
}
"""Factor from a length unit, as files spell it, to nm."""


def thermal_energy_mev(temperature_k: float) -> float:
    """Return k_B T in meV for a temperature in kelvin."""
    return BOLTZMANN_MEV_PER_K * temperature_k


def electron_wavelength_nm(beam_energy_kev: float) -> float:
    """Return the relativistic de Broglie wavelength in nm of an electron of `beam_energy_kev`."""
    return float(HC_KEV_NM / (beam_energy_kev * (beam_energy_kev + 2.0 * ELECTRON_REST_ENERGY_KEV)) ** 0.5)
