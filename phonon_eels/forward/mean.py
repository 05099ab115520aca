"""Fit the aligned mean spectrum of a scan: where every position starts from, and the shared intrinsic widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares

from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.model import background_of, modes_in_window, tabulated_shape
from phonon_eels.forward.vacuum import VacuumReference, make_grid
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.response import ZeroLossShape

MODEL_ERROR = 3e-3
"""Relative error allowed to the mean's model: positions with wandering peaks do not add up to one peak exactly."""
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

    def starts(self) -> np.ndarray:
        """Return the starting parameters of a position."""
        modes = len(self.areas_e)
        local = [self.height_e, 0.0, 0.0, 0.0, 0.0, self.constant_e, self.ramp_e, self.bend]
        start = np.concatenate([local, self.areas_e, self.energies_fit_mev, np.zeros(modes)])
        assert start.size == N_LOCAL + 3 * modes
        return start


def width_groups(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Return the group of each mode: paired modes share one factor on their widths, which alone could not be told."""
    group = list(range(len(names)))
    for left, right in pairs:
        if left in names and right in names:
            group[names.index(right)] = group[names.index(left)]
    order = sorted(set(group))
    return [order.index(g) for g in group]


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
        self.modes = [material.modes[i] for i in modes_in_window(material, float(channels[-1] * dispersion_mev))]
        self.names = tuple(mode.name for mode in self.modes)
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
        self.width_group = width_groups(self.names, material.pairs)
        self.n_groups = max(self.width_group) + 1

    def background_shape(self, x: np.ndarray) -> tuple[float, float]:
        """Return slope and bend of the background; zeros where they are not parameters of the search."""
        n = self.background.nonlinear
        return (float(x[x.size - n]) if n else 0.0, float(x[-1]) if n == 2 else 0.0)

    def unpack(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, ZeroLossShape | None]:
        """Return mode energies, intrinsic widths, shift and zero-loss shape of a parameter vector."""
        modes = len(self.modes)
        factor = np.exp(x[modes : modes + self.n_groups])
        widths = np.array([mode.fwhm_mev * factor[g] for mode, g in zip(self.modes, self.width_group, strict=True)])
        rest = x[modes + self.n_groups :]
        if self.zero_loss is None:
            return x[:modes], widths, 0.0, None
        return x[:modes], widths, float(rest[0]), self.zero_loss.changed(*map(float, rest[1:4]))

    def columns(self, x: np.ndarray) -> np.ndarray:
        """Return the linear components: modes, zero-loss peak, constant, ramp; (components, n)."""
        energies, widths, shift, zero_loss = self.unpack(x)
        lines = np.stack(
            [
                self.grid.line(e, w, self.thermal_mev, tabulated_shape(self.settings))
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
        energies = [mode.energy_mev for mode in self.modes]
        width_room = 1e-6 if fixed_widths else 1.2
        shape = 0 if self.zero_loss is None else 4
        start = np.concatenate([energies, np.zeros(self.n_groups + shape)])
        low = [*[mode.bounds_mev[0] for mode in self.modes], *[-width_room] * self.n_groups]
        high = [*[mode.bounds_mev[1] for mode in self.modes], *[width_room] * self.n_groups]
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
    expected = np.array([mode.energy_mev for mode in model.modes])
    prior_std = np.array([mode.prior_energy_std_mev for mode in model.modes])

    def residuals(x: np.ndarray) -> np.ndarray:
        coefficients, columns = model.solve(x, mean_e, std)
        misfit = (mean_e - coefficients @ columns) / std
        return np.concatenate(
            [misfit, (x[:modes] - expected) / (3.0 * prior_std), x[modes : modes + model.n_groups] / LOG_FWHM_STD]
        )

    best = None
    for common_shift in (0.0, -0.25, 0.25):
        trial = start.copy()
        trial[:modes] += common_shift * np.array([mode.fwhm_mev for mode in model.modes])
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
    )  # fmt: skip
