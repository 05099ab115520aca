"""The zero-loss peak as a vacuum measurement shows it, beyond the split Pearson VII, with the noise of that measurement.

The peak is written as a split Pearson VII times exp(Σ β_k B_k(E)), with cubic B-splines B_k whose knots lie half a width apart in
the core and further and further out. The β are fitted to the vacuum spectrum, with a prior around 0. Each position still has its
own height, shift, width and tails; only the factor is shared. What the noise of the β does to the energies is common to all
positions and is kept apart as a systematic part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.response import FineGrid, ZeroLossShape

FACTOR_STD = 2.0
"""Prior standard deviation of a spline coefficient: tails that fall off exponentially are e^2 below those of a Pearson VII."""
CORE_KNOTS_FWHM = (0.35, 0.7, 1.05, 1.4, 1.9, 2.6, 3.6, 5.0, 7.0, 10.0, 15.0)


@dataclass(frozen=True)
class VacuumSpectrum:
    """The spectrum that a reference was made from, and what it says of the coefficients.

    Attributes
    ----------
    electrons, std
        (n,) sum of vacuum spectra and the deviation of its noise.
    base
        (n,) the split Pearson VII that the factor multiplies, at its own height and place.
    basis
        (splines, n).
    """

    electrons: np.ndarray
    std: np.ndarray
    base: np.ndarray
    basis: np.ndarray

    def _misfit(self, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        peak = self.base * np.exp(beta @ self.basis)
        weight = self.std**-2.0
        level = ((self.electrons - peak) * weight).sum() / weight.sum()
        return peak, (self.electrons - peak - level) / self.std

    def objective(self, beta: np.ndarray) -> float:
        """Return chi-squared and prior at coefficients, the constant background at its best."""
        return float((self._misfit(beta)[1] ** 2).sum() + ((beta / FACTOR_STD) ** 2).sum())

    def evidence(self, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return score and information of the coefficients, prior included, the constant background marginalised."""
        peak, misfit = self._misfit(beta)
        rows, flat = peak * self.basis / self.std, 1.0 / self.std
        flat = flat / np.sqrt((flat**2).sum())
        rows = rows - np.outer(rows @ flat, flat)
        return rows @ misfit - beta / FACTOR_STD**2, rows @ rows.T + np.eye(beta.size) / FACTOR_STD**2


@dataclass(frozen=True)
class VacuumReference:
    """Shape of the zero-loss peak and its uncertainty.

    Attributes
    ----------
    shape
        Its split Pearson VII.
    knots_mev
        Knots of the cubic splines, with the repeated ends.
    beta, covariance
        (splines,), (splines, splines) coefficients of the logarithm of the factor, everything else marginalised.
    electrons
        Electrons in the measured spectrum.
    chi2_per_dof
        Of the fit to it.
    joint
        Whether the spectra of the scan have a part in the coefficients.
    tension_p
        Of a joint fit: probability of so large a disagreement of vacuum and scan, or a larger one, where they have the same peak.
    settled
        Of a joint fit: whether its last step was small enough.
    positions
        Of a joint fit: how many spectra of the scan had a part.
    spectrum
        What it was made from; None for a reference that was read.
    """

    shape: ZeroLossShape
    knots_mev: np.ndarray
    beta: np.ndarray
    covariance: np.ndarray
    electrons: float
    chi2_per_dof: float
    joint: bool = False
    tension_p: float = 1.0
    settled: bool = True
    positions: int = 0
    spectrum: VacuumSpectrum | None = None

    def basis(self, energies_mev: np.ndarray) -> np.ndarray:
        """Return the splines at distances from the peak's mode, (splines, …); beyond the last knots those of the ends."""
        # Here and below: few scans have a vacuum, and loading these takes every step a fifth of a second.
        from scipy.interpolate import BSpline

        inside = np.clip(energies_mev, self.knots_mev[0], self.knots_mev[-1])
        splines = BSpline(self.knots_mev, np.eye(self.knots_mev.size - 4), 3)
        return np.ascontiguousarray(np.moveaxis(splines(inside), -1, 0))

    def factor(self, energies_mev: np.ndarray) -> np.ndarray:
        """Return the peak over its split Pearson VII."""
        return np.asarray(np.exp(np.tensordot(self.beta, self.basis(energies_mev), axes=1)))

    def describe(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {
            "zero_loss": list(vars(self.shape).values()), "knots_mev": self.knots_mev.tolist(), "beta": self.beta.tolist(),
            "covariance": self.covariance.tolist(), "electrons": self.electrons, "chi2_per_dof": self.chi2_per_dof,
            "joint": self.joint, "tension_p": self.tension_p, "settled": self.settled, "positions": self.positions,
        }  # fmt: skip


def reference_from_description(description: Mapping[str, Any]) -> VacuumReference:
    """Return the reference that `VacuumReference.describe` wrote."""
    return VacuumReference(
        ZeroLossShape(*description["zero_loss"]), np.array(description["knots_mev"]), np.array(description["beta"]),
        np.array(description["covariance"]), float(description["electrons"]), float(description["chi2_per_dof"]),
        bool(description.get("joint", False)), float(description.get("tension_p", 1.0)),
        bool(description.get("settled", True)), int(description.get("positions", 0)),
    )  # fmt: skip


class VacuumGrid(FineGrid):
    """A fine grid whose response is the measured peak."""

    def __init__(
        self,
        channels: np.ndarray,
        dispersion_mev: float,
        narrowest_mev: float,
        reach_mev: float,
        reference: VacuumReference,
    ) -> None:
        super().__init__(channels, dispersion_mev, narrowest_mev, reach_mev)
        self.reference = reference

    def response(self, zero_loss: ZeroLossShape | None) -> np.ndarray:
        """Return the transform of the unit-area peak averaged over a channel; see `FineGrid.response`."""
        if zero_loss is None:
            return super().response(None)
        from scipy import fft

        half = (self.size - 1) // 2
        offsets = self.step_mev * np.arange(-half, half + 1)
        peak = split_pearson7(offsets, *vars(zero_loss).values()) * self.reference.factor(offsets)
        kernel = np.zeros(self.size)
        kernel[: half + 1] = peak[half:]
        kernel[-half:] = peak[:half]
        box = np.sinc(fft.rfftfreq(self.size, d=self.step_mev) * self.dispersion_mev)
        return np.asarray(fft.rfft(kernel / (kernel.sum() * self.step_mev)) * box)


def make_grid(
    channels: np.ndarray,
    dispersion_mev: float,
    narrowest_mev: float,
    reach_mev: float,
    reference: VacuumReference | None,
) -> FineGrid:
    """Return the grid that lines are convolved on, with the measured peak where there is one."""
    if reference is None:
        return FineGrid(channels, dispersion_mev, narrowest_mev, reach_mev)
    return VacuumGrid(channels, dispersion_mev, narrowest_mev, reach_mev, reference)


def factor_table(grid: FineGrid, reference: VacuumReference | None, phases: int) -> np.ndarray:
    """Return the factor as the kernel takes it, (phases, channels + 2 PAD), or (0, 0) without a measurement."""
    if reference is None:
        return np.zeros((0, 0))
    return np.ascontiguousarray(grid.sampled(reference.factor(grid.energies_mev), phases))


def _knots(low_mev: float, high_mev: float, fwhm_mev: float) -> np.ndarray:
    steps = fwhm_mev * np.array(CORE_KNOTS_FWHM)
    inner = np.concatenate([-steps[::-1], [0.0], steps])
    inner = inner[(inner > low_mev) & (inner < high_mev)]
    return np.concatenate([[low_mev] * 4, inner, [high_mev] * 4])


def fit_vacuum(
    energies_mev: np.ndarray, electrons: np.ndarray, variance: np.ndarray, start: ZeroLossShape
) -> VacuumReference:
    """Fit a vacuum spectrum.

    Parameters
    ----------
    energies_mev
        Energy loss of the channels counted from the channel of the peak, (n,).
    electrons, variance
        Sum of vacuum spectra, each moved by whole channels, and the variance of its noise, (n,).
    start
        A guess of the shape.
    """
    from scipy.optimize import least_squares

    dispersion = float(energies_mev[1] - energies_mev[0])
    offset = dispersion / (2.0 * np.sqrt(3.0))
    smooth = np.convolve(electrons, np.ones(5) / 5.0, mode="same")  # weights that hardly follow a channel's own noise
    std = np.sqrt(np.maximum(np.where(electrons > 400.0, variance, variance - electrons + smooth), 1.0))

    def peak(x: np.ndarray) -> np.ndarray:
        shape = np.exp(x[2:5])
        points = [split_pearson7(energies_mev - x[1] + side * offset, *shape) for side in (-1.0, 1.0)]
        return np.asarray(np.exp(x[0]) * 0.5 * (points[0] + points[1]))

    top, level = float(electrons.max()), max(float(smooth.min()), 0.0)
    first = np.array([np.log(top), 0.0, *np.log(list(vars(start).values())), level])
    room = np.array([1.0, 2.0 * dispersion, 0.5, 1.2, 1.2, np.inf])
    rough = least_squares(
        lambda x: (electrons - peak(x) - x[5]) / std,
        first,
        bounds=(first - room, first + room),
        x_scale="jac",
        max_nfev=100,
    ).x
    base, mode = peak(rough), float(rough[1])
    knots = _knots(float(energies_mev[0]) - mode, float(energies_mev[-1]) - mode, start.fwhm_mev)
    shape = ZeroLossShape(*map(float, np.exp(rough[2:5])))
    trial = VacuumReference(shape, knots, np.zeros(0), np.zeros((0, 0)), float(electrons.sum()), 0.0)
    basis = trial.basis(energies_mev - mode)

    # With the split Pearson VII held, the factor is a regression with a logarithmic link: one minimum.
    def residuals(x: np.ndarray) -> np.ndarray:
        model = base * np.exp(x[1:] @ basis) + x[0]
        return np.concatenate([(electrons - model) / std, x[1:] / FACTOR_STD])

    def slopes(x: np.ndarray) -> np.ndarray:
        by_beta = -(base * np.exp(x[1:] @ basis) * basis / std).T
        return np.block(
            [[-(1.0 / std)[:, None], by_beta], [np.zeros((len(basis), 1)), np.eye(len(basis)) / FACTOR_STD]]
        )

    found = least_squares(residuals, [rough[5], *np.zeros(len(basis))], slopes, x_scale="jac", max_nfev=200)
    covariance = np.linalg.pinv(found.jac.T @ found.jac, hermitian=True)
    misfit = residuals(found.x)[: electrons.size]
    chi2_per_dof = float((misfit**2).sum() / max(electrons.size - found.x.size, 1))
    return replace(
        trial, beta=found.x[1:], covariance=covariance[1:, 1:], chi2_per_dof=chi2_per_dof,
        spectrum=VacuumSpectrum(electrons, std, base, basis),
    )  # fmt: skip
