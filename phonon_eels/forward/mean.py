"""Fit the aligned mean spectrum of a scan: where every position starts from, and the shared intrinsic widths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import OptimizeResult, least_squares

from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.model import background_of, modes_in_window
from phonon_eels.forward.recipe import read_recipe, recipe_modes, width_groups
from phonon_eels.forward.vacuum import VacuumReference, make_grid
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.lineshapes import EVEN_SHARE, split_pearson7
from phonon_eels.kernels.response import ZeroLossShape

MODEL_ERROR = 3e-3
"""Relative error allowed to the mean's model: positions with wandering peaks do not add up to one peak exactly."""
SHARE_ROOM = 1e-3
"""A Lorentzian share this near to 0 or 1 lies at that bound: the search stays inside of it."""
LOG_FWHM_STD = 0.4
"""Prior standard deviation of the logarithm of an intrinsic width around the material's."""


@dataclass(frozen=True)
class MeanFit:
    """The mean spectrum and its model.

    Attributes
    ----------
    energies_mev, mean_e, std_e, model_e
        (n,), electrons per channel and position.
    components_e
        Name → (n,): "zlp", "background" and every mode.
    zero_loss
        Shape of the zero-loss peak, None on the classic route.
    height_e, constant_e, ramp_e
        Zero-loss height, constant (or level) and ramp (or slope) of the background.
    bend
        Of the background, where it is the exponential of a polynomial.
    energies_fit_mev, fwhm_mev, areas_e
        (modes,).
    chi2_per_dof
        With the model error of `MODEL_ERROR` added to the noise.
    search
        The non-linear parameters, as `MeanModel.unpack` takes them.
    lorentzian_share, lorentzian_share_std
        Of pseudo-Voigt and Voigt lines; the deviation is NaN where the share was not fitted or lies at 0 or 1.
    zlp_fwhm_std_mev
        Of the zero-loss peak's width, with the model error of `MODEL_ERROR` in it; NaN without a zero-loss peak.
    """

    energies_mev: np.ndarray
    mean_e: np.ndarray
    std_e: np.ndarray
    model_e: np.ndarray
    components_e: dict[str, np.ndarray]
    zero_loss: ZeroLossShape | None
    height_e: float
    constant_e: float
    ramp_e: float
    bend: float
    energies_fit_mev: np.ndarray
    fwhm_mev: np.ndarray
    areas_e: np.ndarray
    chi2_per_dof: float
    search: np.ndarray
    lorentzian_share: float = EVEN_SHARE
    lorentzian_share_std: float = float("nan")
    zlp_fwhm_std_mev: float = float("nan")

    def starts(self) -> np.ndarray:
        """Return the starting parameters of a position."""
        modes = len(self.areas_e)
        local = [self.height_e, 0.0, 0.0, 0.0, 0.0, self.constant_e, self.ramp_e, self.bend]
        start = np.concatenate([local, self.areas_e, self.energies_fit_mev, np.zeros(modes)])
        assert start.size == N_LOCAL + 3 * modes
        return start


def _smear(subchannel_mev: np.ndarray | None, dispersion_mev: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where peaks lie within their channels, and the share of each place."""
    if subchannel_mev is None:
        return np.zeros(1), np.ones(1)
    edges = dispersion_mev * np.linspace(-0.5, 0.5, 11)
    counts, _ = np.histogram(subchannel_mev, edges)
    centres = 0.5 * (edges[1:] + edges[:-1])
    return centres[counts > 0], counts[counts > 0] / counts.sum()


class MeanModel:
    """The model of the mean spectrum: linear in heights and areas, not in energies, widths and the zero-loss shape.

    The linear parameters are solved for inside (variable projection), so the search runs over few parameters.
    """

    def __init__(
        self,
        settings: FitPeaks,
        material: Material,
        channels: np.ndarray,
        dispersion_mev: float,
        zero_loss: ZeroLossShape | None,
        thermal_mev: float | None,
        subchannel_mev: np.ndarray | None = None,
        vacuum: VacuumReference | None = None,
    ) -> None:
        """Set up the model; `subchannel_mev` are the zero-loss centres from their channels' centres of the spectra that
        were added, to be given where the peak is so narrow that adding by whole channels broadens it."""
        self.smear_mev, self.smear_weights = _smear(subchannel_mev, dispersion_mev)
        every = recipe_modes(settings, material)
        self.modes = [every[i] for i in modes_in_window(material, float(channels[-1] * dispersion_mev))]
        self.names = tuple(mode.name for mode in self.modes)
        self.recipe = read_recipe(settings, material, self.names)
        bounds = np.array([mode.bounds_mev for mode in self.modes], dtype=float)
        self.bounds_mev = bounds if self.recipe is None else self.recipe.bounds(bounds, self.names)
        # Energies of the search: those of all modes, or of the ones that a recipe leaves free.
        self.free_modes = np.arange(len(self.modes)) if self.recipe is None else self.recipe.free_modes
        self.shares = int(settings.line_shape in ("pseudo_voigt", "voigt") and settings.lorentzian_share is None)
        self.settings = settings
        self.energies_mev = channels * dispersion_mev
        self.dispersion_mev = dispersion_mev
        self.zero_loss = zero_loss
        self.thermal_mev = thermal_mev
        widths = np.array([mode.fwhm_mev for mode in self.modes])
        narrow = float(widths.min()) if zero_loss is None else min(float(widths.min()), zero_loss.fwhm_mev)
        reach = 30.0 * (float(widths.max()) if zero_loss is None else zero_loss.fwhm_mev)
        self.vacuum = vacuum if zero_loss is not None else None
        self.grid = make_grid(channels, dispersion_mev, narrow, reach, self.vacuum)
        self.background = background_of(settings, self.energies_mev, zero_loss, thermal_mev)
        self.width_group = width_groups(self.names, material.pairs, settings)
        self.n_groups = max(self.width_group) + 1
        self.n_energies = self.free_modes.size

    def background_shape(self, x: np.ndarray) -> tuple[float, float]:
        """Return slope and bend of the background; zeros where they are not parameters of the search."""
        n = self.background.nonlinear
        return (float(x[x.size - n]) if n else 0.0, float(x[-1]) if n == 2 else 0.0)

    def unpack(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, ZeroLossShape | None]:
        """Return mode energies, intrinsic widths, shift and zero-loss shape of a parameter vector."""
        shapes = self.n_energies + self.n_groups
        factor = np.append(np.exp(x[self.n_energies : shapes]), 1.0)  # the last for widths that are fixed, group -1
        widths = np.array([mode.fwhm_mev * factor[g] for mode, g in zip(self.modes, self.width_group, strict=True)])
        energies = x[: self.n_energies] if self.recipe is None else self.recipe.of_free(x[: self.n_energies])
        rest = x[shapes + self.shares :]
        if self.zero_loss is None:
            return energies, widths, 0.0, None
        return energies, widths, float(rest[0]), self.zero_loss.changed(*map(float, rest[1:4]))

    def lorentzian_share(self, x: np.ndarray) -> float:
        """Return the Lorentzian share of pseudo-Voigt and Voigt lines of a parameter vector."""
        return (
            float(x[self.n_energies + self.n_groups]) if self.shares else self.settings.lorentzian_share or EVEN_SHARE
        )

    def away_from_prior(self, x: np.ndarray) -> np.ndarray:
        """Return distances from what the material says of energies and widths, in deviations."""
        energies = self.unpack(x)[0][self.free_modes if self.recipe is None else self.recipe.owner >= 0]
        own = [mode for m, mode in enumerate(self.modes) if self.recipe is None or self.recipe.owner[m] >= 0]
        expected, std = (
            np.array([getattr(mode, key) for mode in own]) for key in ("energy_mev", "prior_energy_std_mev")
        )
        widths = x[self.n_energies : self.n_energies + self.n_groups]
        return np.concatenate([(energies - expected) / (3.0 * std), widths / LOG_FWHM_STD])

    def columns(self, x: np.ndarray) -> np.ndarray:
        """Return the linear components: modes, zero-loss peak, constant, ramp; (components, n)."""
        energies, widths, shift, zero_loss = self.unpack(x)
        share = self.lorentzian_share(x)
        lines = np.stack(
            [
                self.grid.line(e, w, self.thermal_mev, self.settings.line_shape, share)
                for e, w in zip(energies, widths, strict=True)
            ]
        )
        fine = self.grid.seen(lines, self.grid.response(zero_loss))
        columns = [*CubicSpline(self.grid.energies_mev, fine, axis=1)(self.energies_mev - shift)]
        if zero_loss is not None:
            offset = self.dispersion_mev / (2.0 * np.sqrt(3.0))
            peak = np.asarray(
                sum(
                    0.5
                    * weight
                    * split_pearson7(self.energies_mev - shift - place + sign * offset, *vars(zero_loss).values())
                    for place, weight in zip(self.smear_mev, self.smear_weights, strict=True)
                    for sign in (-1.0, 1.0)
                )
            )
            if self.vacuum is not None:
                peak = peak * self.vacuum.factor(self.energies_mev - shift)
            columns.append(peak)
        if self.background.free[0]:
            columns.append(self.background.column(*self.background_shape(x)))
        if self.settings.background == "linear":
            columns.append(0.01 * np.maximum(self.energies_mev, 0.0))
        return np.asarray(columns)

    def solve(self, x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the best linear coefficients and the columns."""
        columns = self.columns(x)
        coefficients = np.linalg.lstsq((columns / std).T, mean / std, rcond=None)[0]
        # A negative area is not a line; such a mode is left out of this trial.
        negative = np.flatnonzero(coefficients[: len(self.modes)] < 0.0)
        if negative.size:
            kept = np.setdiff1d(np.arange(len(columns)), negative)
            coefficients = np.zeros(len(columns))
            coefficients[kept] = np.linalg.lstsq((columns[kept] / std).T, mean / std, rcond=None)[0]
            coefficients[: len(self.modes)] = np.maximum(coefficients[: len(self.modes)], 0.0)
        return coefficients, columns

    def start_and_bounds(self, fixed_widths: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return start, lower and upper bounds of the non-linear parameters."""
        bounds = self.bounds_mev[self.free_modes]
        energies = np.clip([self.modes[m].energy_mev for m in self.free_modes], *bounds.T)
        width_room = 1e-6 if fixed_widths else 1.2
        shape = 0 if self.zero_loss is None else 4
        start = np.concatenate([energies, np.zeros(self.n_groups), [EVEN_SHARE] * self.shares, np.zeros(shape)])
        low = [*bounds[:, 0], *[-width_room] * self.n_groups, *[0.0] * self.shares]
        high = [*bounds[:, 1], *[width_room] * self.n_groups, *[1.0] * self.shares]
        if shape:
            low += [-self.dispersion_mev, -0.5, -0.7, -0.7]
            high += [self.dispersion_mev, 0.5, 0.7, 0.7]
        n = self.background.nonlinear
        start = np.concatenate([start, self.background.start[:n]])
        return start, np.array([*low, *self.background.lower[:n]]), np.array([*high, *self.background.upper[:n]])


def fit_mean(model: MeanModel, mean_e: np.ndarray, variance_e: np.ndarray) -> MeanFit:
    """Fit the aligned mean spectrum from several starts and keep the best.

    Parameters
    ----------
    mean_e, variance_e
        (n,) mean electrons per channel and position, and the variance of that mean.
    """
    std = np.sqrt(variance_e + (MODEL_ERROR * np.abs(mean_e)) ** 2)
    std = np.maximum(std, 1e-12 + 1e-9 * np.abs(mean_e).max())
    start, low, high = model.start_and_bounds(model.settings.intrinsic_widths == "material")
    modes = len(model.modes)
    own_widths = np.array([model.modes[m].fwhm_mev for m in model.free_modes])

    def residuals(x: np.ndarray) -> np.ndarray:
        coefficients, columns = model.solve(x, mean_e, std)
        misfit = (mean_e - coefficients @ columns) / std
        return np.concatenate([misfit, model.away_from_prior(x)])

    best = None
    for common_shift in (0.0, -0.25, 0.25):
        trial = start.copy()
        trial[: model.n_energies] += common_shift * own_widths
        inside = np.clip(trial, low + 1e-3 * (high - low), high - 1e-3 * (high - low))
        result = least_squares(residuals, inside, bounds=(low, high), x_scale="jac", xtol=1e-8, ftol=1e-8, max_nfev=60)
        if best is None or result.cost < best.cost:
            best = result
    assert best is not None
    coefficients, columns = model.solve(best.x, mean_e, std)
    energies, widths, _, zero_loss = model.unpack(best.x)
    names = [*model.names, *(["zlp"] if zero_loss is not None else []), "constant", "ramp"][: len(columns)]
    parts = {name: c * column for name, c, column in zip(names, coefficients, columns, strict=True)}
    value = dict(zip(names, coefficients, strict=True))
    slope, bend = model.background_shape(best.x)
    background = parts.pop("constant", 0.0) + parts.pop("ramp", 0.0) + np.zeros_like(mean_e)
    total = coefficients @ columns
    dof = max(mean_e.size - best.x.size - len(columns), 1)
    return MeanFit(
        model.energies_mev, mean_e, np.sqrt(variance_e), total, {"background": background, **parts}, zero_loss,
        float(value.get("zlp", 0.0)), float(value.get("constant", 0.0)), float(value.get("ramp", slope)), bend,
        energies, widths, coefficients[:modes], float((((mean_e - total) / std) ** 2).sum() / dof), best.x,
        model.lorentzian_share(best.x), _share_std(model, best), _zlp_fwhm_std_mev(model, best),
    )  # fmt: skip


def _share_std(model: MeanModel, found: OptimizeResult) -> float:
    """Return the deviation of the Lorentzian share; NaN where it is not fitted or at a bound."""
    place = model.n_energies + model.n_groups
    if not model.shares or not SHARE_ROOM < found.x[place] < 1.0 - SHARE_ROOM:
        return float("nan")
    return _marginal_std(found, place)


def _zlp_fwhm_std_mev(model: MeanModel, found: OptimizeResult) -> float:
    """Return the deviation of the zero-loss peak's width, whose logarithm is what is fitted; NaN where there is none."""
    zero_loss = model.unpack(found.x)[3]
    if zero_loss is None:
        return float("nan")
    return zero_loss.fwhm_mev * _marginal_std(found, model.n_energies + model.n_groups + model.shares + 1)


def _marginal_std(found: OptimizeResult, place: int) -> float:
    """Return the deviation of one parameter, all else marginalised; NaN at a bound."""
    inside = np.flatnonzero(found.active_mask == 0)
    if place not in inside:
        return float("nan")
    covariance = np.linalg.pinv(found.jac[:, inside].T @ found.jac[:, inside], hermitian=True)
    own = int(np.searchsorted(inside, place))
    return float(np.sqrt(covariance[own, own]))
