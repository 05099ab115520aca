"""Energies that follow a wave: unit by unit from the per-position scores.

Per position the forward fit gives score g and information F of all mode energies and widths with everything else
(areas, zero-loss shape, background) marginalised. A plane's modes follow E = E0 + share · (c cos φ + s sin φ), their widths
the same with coefficients of their own, so that a modulated width cannot pass for an energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.lattice.localisation import Sources

HARMONIC_PRIOR_MEV = 10.0
"""Loose prior on an energy's harmonic: it only rules for modes that a unit does not show."""
WIDTH_PRIOR_FRACTION = 0.2
"""Prior on a width's mean and harmonic within a unit, as a fraction of the intrinsic width."""


@dataclass(frozen=True)
class Scores:
    """Scores of a whole scan.

    Attributes
    ----------
    score, information
        (rows, columns, 2M), (rows, columns, 2M, 2M): energies, then widths.
    energies_mev
        (rows, columns, M) at which they were taken.
    usable
        (rows, columns).
    """

    score: np.ndarray
    information: np.ndarray
    energies_mev: np.ndarray
    usable: np.ndarray

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return int(self.energies_mev.shape[2])

    def absolute(self, reference_mev: np.ndarray) -> np.ndarray:
        """Return scores moved to reference energies, (rows, columns, 2M)."""
        away = self.energies_mev - reference_mev
        return np.asarray(self.score + np.einsum("rcij,rcj->rci", self.information[..., : self.n_modes], away))


@dataclass(frozen=True)
class UnitFit:
    """Energies and harmonics of one unit: values, covariance, and weight.

    Attributes
    ----------
    value
        (2M, K): mean, cos and sin coefficient of each energy (relative to the reference) and each width; with the
        second harmonic K is 5, without it 3.
    covariance
        (2M, K, K) of each of them, everything else marginalised.
    information
        (M,) of each energy's mean, nothing marginalised; tells how much of the mode the unit shows.
    """

    value: np.ndarray
    covariance: np.ndarray
    information: np.ndarray
    n_positions: int


def basis(lateral_phase_rad: np.ndarray, signed_share: np.ndarray, harmonics: int = 1) -> np.ndarray:
    """Return the regressors 1, share · cos φ, share · sin φ (and cos 2φ, sin 2φ) of each mode: (rows, columns, M, K).

    Even harmonics are the same in planes of opposite phase at the same lateral place, so leakage does not dilute them.

    Parameters
    ----------
    lateral_phase_rad
        (rows, columns).
    signed_share
        (M, rows, columns), see `localisation.Localisation.signed_share`.
    """
    share = np.moveaxis(signed_share, 0, 2)
    wave = np.stack([np.cos(lateral_phase_rad), np.sin(lateral_phase_rad)], axis=-1)
    first = share[..., None] * wave[:, :, None, :]
    parts = [np.ones((*share.shape, 1)), first]
    if harmonics == 2:
        double = np.stack([np.cos(2 * lateral_phase_rad), np.sin(2 * lateral_phase_rad)], axis=-1)
        parts.append(np.broadcast_to(double[:, :, None, :], (*share.shape, 2)))
    return np.concatenate(parts, axis=-1)


def fit_unit(
    scores: Scores, reference_mev: np.ndarray, regressors: np.ndarray, inside: np.ndarray, fwhm_mev: np.ndarray
) -> UnitFit:
    """Solve the score equations of one unit (or of all positions together).

    Parameters
    ----------
    reference_mev
        (M,) energies that the means are relative to.
    regressors
        (rows, columns, M, K).
    inside
        (rows, columns) positions that belong to the unit.
    fwhm_mev
        (M,) intrinsic widths.
    """
    modes, terms = scores.n_modes, regressors.shape[3]
    chosen = inside & scores.usable & np.isfinite(regressors).all(axis=(2, 3))
    information = scores.information[chosen]
    score = scores.absolute(reference_mev)[chosen]
    both = np.concatenate([regressors[chosen], regressors[chosen]], axis=1)  # (positions, 2M, K)
    matrix = np.einsum("pmi,pmn,pnj->minj", both, information, both, optimize=True)
    right = np.einsum("pmi,pm->mi", both, score)
    precision = np.zeros((2 * modes, terms))
    precision[:modes, 1:] = HARMONIC_PRIOR_MEV**-2.0
    precision[:modes, 0] = HARMONIC_PRIOR_MEV**-2.0
    precision[modes:] = (WIDTH_PRIOR_FRACTION * fwhm_mev[:, None]) ** -2.0
    flat = matrix.reshape(2 * modes * terms, 2 * modes * terms) + np.diag(precision.ravel())
    inverse = np.linalg.inv(flat)
    value = (inverse @ right.ravel()).reshape(2 * modes, terms)
    blocks = inverse.reshape(2 * modes, terms, 2 * modes, terms)
    covariance = np.stack([blocks[m, :, m, :] for m in range(2 * modes)])
    own = np.array([information[:, m, m].sum() for m in range(modes)])
    return UnitFit(value, covariance, own, int(chosen.sum()))


def modelled_energies(reference_mev: np.ndarray, fit: UnitFit, regressors: np.ndarray) -> np.ndarray:
    """Return the energies of a fitted wave at every position, (rows, columns, M)."""
    modes = len(reference_mev)
    return np.asarray(reference_mev + np.einsum("rcmi,mi->rcm", np.nan_to_num(regressors), fit.value[:modes]))


def binned_energies(
    scores: Scores,
    mode: int,
    mean_mev: float,
    phase_rad: np.ndarray,
    share: np.ndarray,
    inside: np.ndarray,
    n_bins: int,
    fwhm_mev: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return mean phase, energy, its standard deviation and number of positions of each bin of phase.

    Each bin is one likelihood: the energies of all modes and (with a prior) their widths are free in it. What the bin's
    energy differs from the mode's mean is damped at each position by the share of the signal that comes from its own
    plane, so that the energies are those of the plane and no line shape over phase is assumed.

    Parameters
    ----------
    mean_mev
        Mean energy of the mode over phase.
    share
        (rows, columns) share of the mode's signal from planes at this phase, positive.
    """
    modes = scores.n_modes
    bins = np.floor(np.mod(phase_rad, 2 * np.pi) / (2 * np.pi) * n_bins).astype(float)
    result = np.full((4, n_bins), np.nan)
    for b in range(n_bins):
        chosen = inside & scores.usable & (bins == b)
        result[3, b] = chosen.sum()
        if not chosen.any():
            continue
        information = scores.information[chosen]
        weight = information[:, mode, mode]
        reference = (weight[:, None] * scores.energies_mev[chosen]).sum(axis=0) / max(weight.sum(), 1e-300)
        reference[mode] = mean_mev
        damping = np.ones((int(chosen.sum()), 2 * modes))
        damping[:, mode] = share[chosen]
        away = scores.energies_mev[chosen] - reference
        score = scores.score[chosen] + np.einsum("pij,pj->pi", information[..., :modes], away)
        matrix = np.einsum("pi,pij,pj->ij", damping, information, damping, optimize=True)
        matrix[np.arange(modes), np.arange(modes)] += HARMONIC_PRIOR_MEV**-2.0
        matrix[np.arange(modes, 2 * modes), np.arange(modes, 2 * modes)] += (WIDTH_PRIOR_FRACTION * fwhm_mev) ** -2.0
        inverse = np.linalg.inv(matrix)
        result[1, b] = mean_mev + (inverse @ (damping * score).sum(axis=0))[mode]
        result[2, b] = np.sqrt(inverse[mode, mode])
        result[0, b] = np.mod(np.angle((weight * np.exp(1j * phase_rad[chosen])).sum()), 2 * np.pi)
    return result[0], result[1], result[2], result[3]


def mode_sources(
    source_plane: np.ndarray, source_weight: np.ndarray, layer_of_plane: np.ndarray, offset_rad: np.ndarray,
    weights: dict[str, float], reference_fwhm_nm: float,
) -> Sources:  # fmt: skip
    """Return the planes that carry a mode, with their strength and the sign of their phase (NaN: no wave there, sign 0)."""
    strength = np.array([weights.get(str(layer), 0.0) for layer in layer_of_plane])
    sign = np.where(np.isnan(offset_rad), 0.0, np.where(np.cos(offset_rad) >= 0.0, 1.0, -1.0))
    return Sources(source_plane, source_weight, strength, sign, reference_fwhm_nm)


def period_scan(
    scores: Scores,
    mode: int,
    residual_mev: np.ndarray,
    b_nm: np.ndarray,
    share: np.ndarray,
    unit: np.ndarray,
    periods_nm: np.ndarray,
) -> np.ndarray:
    """Return the gain in log likelihood (chi-squared, 2 degrees of freedom) of a wave of each period.

    Descriptive only: neighbouring periods are not independent, and a p-value from it would not hold (SCIENCE §9).
    Every unit keeps a mean of its own; the other modes are held.

    Parameters
    ----------
    residual_mev
        (rows, columns) energies of the mode at the linearisation, without the wave.
    """
    chosen = scores.usable & np.isfinite(share) & (np.abs(share) > 0.0) & np.isfinite(b_nm)
    weight = scores.information[chosen][:, mode, mode]
    value = scores.score[chosen][:, mode] + weight * (scores.energies_mev[chosen][:, mode] - residual_mev[chosen])
    groups = unit[chosen]
    result = np.zeros(len(periods_nm))

    def centred(x: np.ndarray) -> np.ndarray:
        out = x.copy()
        for g in np.unique(groups):
            here = groups == g
            out[here] -= (weight[here] * x[here]).sum() / max(weight[here].sum(), 1e-300)
        return out

    for k, period in enumerate(periods_nm):
        angle = 2 * np.pi * b_nm[chosen] / period
        columns = np.stack([centred(share[chosen] * np.cos(angle)), centred(share[chosen] * np.sin(angle))])
        right = columns @ (value - weight * _unit_mean(value, weight, groups))
        result[k] = right @ np.linalg.pinv((columns * weight) @ columns.T) @ right
    return result


def _unit_mean(value: np.ndarray, weight: np.ndarray, groups: np.ndarray) -> np.ndarray:
    mean = np.zeros_like(value)
    for g in np.unique(groups):
        here = groups == g
        mean[here] = value[here].sum() / max(weight[here].sum(), 1e-300)
    return mean
