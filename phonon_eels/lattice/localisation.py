"""How sharply a mode's signal is tied to its planes, from the mode's own area map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FWHM_RANGE_NM = (0.10, 0.80)


@dataclass(frozen=True)
class Localisation:
    """Gaussian localisation of a mode about its planes, and a part that is the same everywhere.

    Attributes
    ----------
    fwhm_nm, fwhm_std_nm
        Full width at half maximum, probe included.
    signed_share
        (rows, columns): share of the signal that comes from planes, each with the sign of its phase; what an amplitude at
        the position is multiplied with. Leakage between antiphase planes and the constant part both lower it.
    constant_share
        Mean share of the constant part (dipole scattering, dechannelling), and its standard deviation.
    expected
        (rows, columns) area that profile and constant part give: what a mode without modulation shows at the position.
    leakage_std
        Relative standard deviation of an amplitude from a leakage matrix's own; None: the width's deviation says it.
    """

    fwhm_nm: float
    fwhm_std_nm: float
    signed_share: np.ndarray
    constant_share: float
    constant_share_std: float
    expected: np.ndarray
    leakage_std: float | None = None


@dataclass(frozen=True)
class Sources:
    """Planes seen at every position: number, weight at a reference width, and strength and sign per plane.

    Attributes
    ----------
    plane, weight
        (sources, rows, columns); -1 for none; weight exp(-d²/2σ²) at FWHM `reference_fwhm_nm`.
    strength, sign
        (planes,) relative strength of the mode there, and +1/-1 for phase offsets 0/π, 0 for planes without a wave.
    """

    plane: np.ndarray
    weight: np.ndarray
    strength: np.ndarray
    sign: np.ndarray
    reference_fwhm_nm: float

    def at(self, fwhm_nm: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the summed and the signed profile for another width, both (rows, columns)."""
        present = self.plane >= 0
        index = np.where(present, self.plane, 0)
        with np.errstate(divide="ignore"):
            log_weight = np.where(present, np.log(self.weight), -np.inf)
        weight = np.exp(log_weight * (self.reference_fwhm_nm / fwhm_nm) ** 2) * self.strength[index]
        weight = np.where(present, weight, 0.0)
        return weight.sum(axis=0), (weight * self.sign[index]).sum(axis=0)


def fit_localisation(
    sources: Sources, area: np.ndarray, area_std: np.ndarray, prior_fwhm_nm: float, prior_std_nm: float
) -> Localisation:
    """Fit width and constant part of a mode's profile to its area map.

    Strength and constant part may both change linearly over the scan (thickness). The width's prior is the material's.

    Parameters
    ----------
    area, area_std
        (rows, columns) areas, which must not have been clipped at zero, and their standard deviations.
    """
    from scipy.optimize import minimize_scalar

    usable = np.isfinite(area) & np.isfinite(area_std) & (area_std > 0.0)
    rows, columns = np.mgrid[-1 : 1 : area.shape[0] * 1j, -1 : 1 : area.shape[1] * 1j]
    slopes = np.stack([np.ones_like(rows), rows, columns])
    y, weight = area[usable], 1.0 / area_std[usable]

    def solve(fwhm: float) -> tuple[float, np.ndarray, np.ndarray]:
        profile = sources.at(fwhm)[0]
        design = np.concatenate([slopes * profile, slopes])[:, usable]
        coefficients, *_ = np.linalg.lstsq((design * weight).T, y * weight, rcond=None)
        misfit = float((((y - coefficients @ design) * weight) ** 2).sum())
        return misfit, coefficients, design

    def cost(fwhm: float) -> float:
        prior = ((fwhm - prior_fwhm_nm) / prior_std_nm) ** 2 if prior_std_nm > 0.0 else 0.0
        return solve(fwhm)[0] + prior

    best = float(minimize_scalar(cost, bounds=FWHM_RANGE_NM, method="bounded", options={"xatol": 1e-5}).x)
    misfit, coefficients, design = solve(best)
    inflation = max(misfit / max(y.size - 7, 1), 1.0)
    step = 0.01 * best
    bend = (cost(best + step) - 2.0 * cost(best) + cost(best - step)) / step**2
    fwhm_std = float(np.sqrt(2.0 * inflation / bend)) if bend > 0.0 else prior_std_nm
    constant = np.maximum(np.tensordot(coefficients[3:], slopes, 1), 0.0)
    profile, signed = sources.at(best)
    strength = np.maximum(np.tensordot(coefficients[:3], slopes, 1), 0.0)
    total = strength * profile + constant
    share = np.divide(strength * signed, total, out=np.zeros_like(total), where=total > 0.0)
    covariance = np.linalg.pinv((design * weight) @ (design * weight).T) * inflation
    mean_total = float(total[usable].mean()) or 1.0
    return Localisation(
        best,
        fwhm_std,
        share,
        float(constant[usable].mean()) / mean_total,
        float(np.sqrt(covariance[3, 3])) / mean_total,
        total,
    )


def total_fwhm_nm(localisation_nm: float, probe_nm: float) -> float:
    """Return the width of localisation and probe together."""
    return float(np.hypot(localisation_nm, probe_nm))
