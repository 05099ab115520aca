"""Backgrounds of the forward fit: what the kernel is given for each kind, and how its parameters are held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from phonon_eels.errors import ConfigError
from phonon_eels.kernels.forward import EXPONENTIAL, LINEAR

BackgroundKind = Literal[
    "none", "constant", "linear", "exponential", "power_law", "double_exponential", "exp_polynomial"
]
SHAPE_STD = 0.3
"""Prior standard deviation of slope and bend at a position around those of the scan's mean spectrum: where the background of
a position holds few electrons they could not be told, and a background without level has none."""


@dataclass(frozen=True)
class Background:
    """A background as `kernels.forward.background_rows` takes it.

    Attributes
    ----------
    rows
        x, x₂ and tie, (3, n).
    code
        LINEAR or EXPONENTIAL.
    free
        (3,) which of level, slope and bend are fitted.
    lower, upper, start
        (2,) of slope and bend.
    """

    rows: np.ndarray
    code: int
    free: tuple[bool, bool, bool]
    lower: tuple[float, float]
    upper: tuple[float, float]
    start: tuple[float, float]

    @property
    def nonlinear(self) -> int:
        """Number of parameters that the model is not linear in: slope, or slope and bend."""
        return sum(self.free[1:]) if self.code == EXPONENTIAL else 0

    def column(self, slope: float, bend: float) -> np.ndarray:
        """Return the background of unit level, (n,)."""
        x, x2, tie = self.rows
        return np.asarray(tie * np.exp(slope * x + bend * x2)) if self.code == EXPONENTIAL else np.ones_like(x)


def make_background(
    kind: BackgroundKind, energies_mev: np.ndarray, zero_loss_fwhm_mev: float, thermal_mev: float | None
) -> Background:
    """Return the background of a kind on a window.

    Parameters
    ----------
    energies_mev
        Energy loss of the channels, (n,).
    zero_loss_fwhm_mev
        Below this energy loss a power law bends over, or it would diverge at 0.
    thermal_mev
        k_B T: the gain side is exp(-E / k_B T) of the loss side (detailed balance); None: there is nothing on the gain side.

    Raises
    ------
    ConfigError
        If the kind is one of the classic route's.

    Notes
    -----
    With E the energy loss, e² = E² + FWHM² and e₀ half the highest energy loss: power law (e/e₀)^-slope,
    exponential exp(-slope (|E|/e₀ - 1)), exponential of a polynomial exp(slope (|E|/e₀ - 1) + bend (|E|/e₀ - 1)²). The level is
    that at e₀ on the loss side, in electrons per channel.
    """
    n = energies_mev.size
    if kind == "double_exponential":
        raise ConfigError(
            "fit_peaks.background = double_exponential belongs to route = classic; on the forward route choose exponential, "
            "power_law or exp_polynomial"
        )
    if kind in ("none", "constant", "linear"):
        rows = np.stack([0.01 * np.maximum(energies_mev, 0.0), np.zeros(n), np.ones(n)])
        free = (kind != "none", kind == "linear", False)
        return Background(rows, LINEAR, free, (-np.inf, 0.0), (np.inf, 0.0), (0.0, 0.0))
    middle = 0.5 * max(float(energies_mev[-1]), float(energies_mev[-1] - energies_mev[0]) / n)
    width = 0.25 * zero_loss_fwhm_mev if thermal_mev is None else thermal_mev
    tie = 1.0 / (1.0 + np.exp(-np.clip(energies_mev / width, -500.0, 500.0)))
    away = np.abs(energies_mev) / middle - 1.0
    if kind == "power_law":
        soft = np.hypot(energies_mev, zero_loss_fwhm_mev) / middle
        rows = np.stack([-np.log(soft), np.zeros(n), tie])
        return Background(rows, EXPONENTIAL, (True, True, False), (0.0, 0.0), (8.0, 0.0), (1.5, 0.0))
    if kind == "exponential":
        return Background(
            np.stack([-away, np.zeros(n), tie]), EXPONENTIAL, (True, True, False), (0.0, 0.0), (12.0, 0.0), (1.0, 0.0)
        )
    rows = np.stack([away, away * away, tie])
    return Background(rows, EXPONENTIAL, (True, True, True), (-12.0, -6.0), (12.0, 6.0), (-1.0, 0.0))
