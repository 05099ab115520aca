"""Temperature of the specimen from the energy-gain and the energy-loss side of its modes.

Detailed balance ties both sides by exp(-E / k_B T), whatever the modes' strengths (principle of detailed balance in vibrational
EELS: doi:10.1103/PhysRevLett.120.095901). The whole mean spectrum is fitted with the temperature as one more parameter, so
that the zero-loss tails under both sides, energies and widths are marginalised.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from phonon_eels.forward.mean import MODEL_ERROR, MeanFit, MeanModel
from phonon_eels.forward.model import background_of
from phonon_eels.units import BOLTZMANN_MEV_PER_K

GAIN_SIDE_KT = 8.0
"""A mode further than this many k_B T has no gain side worth the name (a 3000th of its loss side)."""
KNOWN_SHARE = 0.3
"""A relative standard deviation above this is no measurement."""
LOG_ROOM = 1.5


@dataclass(frozen=True)
class Temperature:
    """An estimate with its standard deviation, kelvin; `status` is ok or says why there is none."""

    value_k: float
    std_k: float
    status: str


def has_gain_side(model: MeanModel) -> bool:
    """Return whether the window holds the gain side of a mode that is thermally excited."""
    if model.zero_loss is None or model.thermal_mev is None:
        return False
    lowest = model.modes[0].energy_mev
    return bool(model.energies_mev[0] < -lowest and lowest < GAIN_SIDE_KT * model.thermal_mev)


def estimate_temperature(model: MeanModel, fit: MeanFit, mean_e: np.ndarray, variance_e: np.ndarray) -> Temperature:
    """Estimate the temperature from a mean spectrum.

    Parameters
    ----------
    model, fit
        The model at the stage's temperature, and its fit to this or a like spectrum, from which the search starts.
    mean_e, variance_e
        (n,) mean electrons per channel and position, and the variance of that mean. As in `fit_mean`, 0.3 % of the mean are
        added, because a mean over wandering peaks is not quite one peak.
    """
    if not has_gain_side(model):
        return Temperature(float("nan"), float("nan"), "no gain side")
    assert model.thermal_mev is not None
    stage = model.thermal_mev
    std = np.sqrt(np.maximum(variance_e, 0.0) + (MODEL_ERROR * np.abs(mean_e)) ** 2)
    std = np.maximum(std, 1e-12 + 1e-9 * np.abs(mean_e).max())
    trial = copy.copy(model)

    def residuals(x: np.ndarray) -> np.ndarray:
        trial.thermal_mev = stage * float(np.exp(x[0]))
        # A background that detailed balance ties to its gain side has that side at this temperature too.
        trial.background = background_of(model.settings, model.energies_mev, model.zero_loss, trial.thermal_mev)
        coefficients, columns = trial.solve(x[1:], mean_e, std)
        misfit = (mean_e - coefficients @ columns) / std
        return np.concatenate([misfit, model.away_from_prior(x[1:])])

    _, low, high = model.start_and_bounds(model.settings.intrinsic_widths == "material")
    inside = np.clip(fit.search, low + 1e-6 * (high - low), high - 1e-6 * (high - low))
    found = least_squares(
        residuals, [0.0, *inside], bounds=([-LOG_ROOM, *low], [LOG_ROOM, *high]), x_scale="jac", xtol=1e-7, ftol=1e-7,
        max_nfev=30,
    )  # fmt: skip
    value = stage * float(np.exp(found.x[0])) / BOLTZMANN_MEV_PER_K
    held = np.flatnonzero(found.active_mask == 0)
    if 0 not in held:
        return Temperature(float("nan"), float("nan"), "not determined")
    covariance = np.linalg.pinv(found.jac[:, held].T @ found.jac[:, held], hermitian=True)
    relative = float(np.sqrt(covariance[0, 0]))
    status = "ok" if relative < KNOWN_SHARE else "not determined"
    return Temperature(value, value * relative, status)
