"""Lines that are steeper on one side: how asymmetric the mean spectrum asks them to be, and a model that has them so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.mean import MODEL_ERROR, MeanModel
from phonon_eels.forward.model import ForwardModel, rebuilt
from phonon_eels.kernels.lineshapes import EVEN_SHARE, LineShape
from phonon_eels.kernels.response import FineGrid, build_mode_tables

LARGEST = 0.9
"""Asymmetries beyond this leave nothing of a line's one side."""
ASYMMETRY_STD = 0.5
"""Prior standard deviation of the asymmetry around none."""


class AsymmetricGrid(FineGrid):
    """A fine grid whose lines are multiplied by ``1 + a tanh((|E| - E_m) / Γ_m)``: even in E, so detailed balance stays.

    The energy of a mode is where a Lorentzian so multiplied has its maximum: that is what symmetric lines are compared with.

    Parameters
    ----------
    grid
        Grid that is taken over, its response to the zero-loss peak included.
    asymmetry
        a: positive lines reach further to higher energies.
    """

    def __init__(self, grid: FineGrid, asymmetry: float) -> None:
        self.__dict__.update(vars(grid))
        self._grid = grid
        self.asymmetry = asymmetry
        self._maximum = _maximum(asymmetry)
        self.response = grid.response  # type: ignore[method-assign]

    def line(
        self,
        mode_mev: float,
        fwhm_mev: float,
        thermal_mev: float | None,
        shape: LineShape,
        lorentzian_share: float = EVEN_SHARE,
    ) -> np.ndarray:
        """Return a mode's line on the fine grid, with unit area on the loss side; see `FineGrid.line`."""
        centre = mode_mev - self._maximum * fwhm_mev
        line = self._grid.line(centre, fwhm_mev, thermal_mev, shape, lorentzian_share)
        line = line * (1.0 + self.asymmetry * np.tanh((np.abs(self.energies_mev) - centre) / fwhm_mev))
        loss = float(line[self.energies_mev > 0.0].sum() + 0.5 * line[self.energies_mev == 0.0].sum())
        return np.asarray(line / (loss * self.step_mev))


def _maximum(asymmetry: float) -> float:
    """Return where ``(1 + a tanh x) / (1 + 4x²)`` is largest."""
    from scipy.optimize import brentq

    def slope(x: float) -> float:
        t = float(np.tanh(x))
        return asymmetry * (1.0 - t * t) / (1.0 + asymmetry * t) - 8.0 * x / (1.0 + 4.0 * x * x)

    return float(brentq(slope, -0.5, 0.5))


@dataclass(frozen=True)
class AsymmetricModel:
    """The model of a scan with asymmetric lines.

    Attributes
    ----------
    asymmetry
        Of all modes alike, as the mean spectrum has it.
    moved_mev
        (modes,) by how much the energies of its lines differ from those of the symmetric ones.
    """

    model: ForwardModel
    asymmetry: float
    moved_mev: np.ndarray


def asymmetric_model(
    model: ForwardModel,
    settings: FitPeaks,
    material: Material,
    thermal_mev: float | None,
    mean_e: np.ndarray,
    variance_e: np.ndarray,
) -> AsymmetricModel:
    """Fit the mean spectrum with one asymmetry for all lines, starting from the model's, and return the model with it.

    Energies, intrinsic widths, zero-loss shape and background are fitted beside it. The mean of a scan whose energies follow a
    wave is wider than each of its spectra, so only what changes between a fit without and one with asymmetry is taken over.

    Parameters
    ----------
    mean_e, variance_e
        (n,) aligned mean spectrum in the model's window, electrons per channel and position, and its variance.
    """
    first = model.first_channel
    channels = np.arange(first, first + model.energies_mev.size)
    own = MeanModel(
        settings, material, channels, model.dispersion_mev, model.zero_loss, thermal_mev, vacuum=model.vacuum
    )
    plain = own.grid
    x, low, high = own.start_and_bounds(False)
    x[: own.n_energies] = model.mode_energies_mev[own.free_modes]
    for m, group in enumerate(own.width_group):
        if group >= 0:
            x[own.n_energies + group] = np.log(model.fwhm_mev[m] / own.modes[m].fwhm_mev)
    if own.shares:
        x[own.n_energies + own.n_groups] = model.lorentzian_share
    if own.background.nonlinear:
        x[x.size - own.background.nonlinear :] = model.background_shape[: own.background.nonlinear]
    std = np.sqrt(variance_e + (MODEL_ERROR * np.abs(mean_e)) ** 2)
    std = np.maximum(std, 1e-12 + 1e-9 * np.abs(mean_e).max())

    def residuals(y: np.ndarray) -> np.ndarray:
        own.grid = AsymmetricGrid(plain, float(y[-1])) if y.size > x.size else plain
        coefficients, columns = own.solve(y[: x.size], mean_e, std)
        priors = own.away_from_prior(y[: x.size]), y[x.size :] / ASYMMETRY_STD
        return np.concatenate([(mean_e - coefficients @ columns) / std, *priors])

    inside = np.clip(x, low + 1e-3 * (high - low), high - 1e-3 * (high - low))
    without = _least_squares(residuals, inside, low, high)
    found = _least_squares(residuals, np.append(without, 0.0), np.append(low, -LARGEST), np.append(high, LARGEST))
    energies, widths, _, _ = own.unpack(found[:-1])
    before = own.unpack(without)
    moved, factor, asymmetry = energies - before[0], widths / before[1], float(found[-1])
    other = rebuilt(
        model, settings, material, thermal_mev, model.inside(model.mode_energies_mev + moved),
        model.fwhm_mev * factor,
    )  # fmt: skip
    tables = build_mode_tables(
        AsymmetricGrid(plain, asymmetry), other.zero_loss, other.bounds_mev, other.fwhm_mev, thermal_mev,
        settings.line_shape, model.lorentzian_share,
    )  # fmt: skip
    return AsymmetricModel(replace(other, tables=tables), asymmetry, other.mode_energies_mev - model.mode_energies_mev)


def _least_squares(residuals, start, low, high) -> np.ndarray:  # type: ignore[no-untyped-def]
    from scipy.optimize import least_squares

    return np.asarray(least_squares(residuals, start, bounds=(low, high), x_scale="jac", xtol=1e-6, ftol=1e-6).x)
