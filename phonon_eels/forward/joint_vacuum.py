"""A vacuum reference and the spectra of a scan in one minimisation.

What all of them share is the factor exp(Σ β_k B_k) on the zero-loss peak and the intrinsic widths; what a position has for itself
(zero-loss peak, background, areas and energies) is eliminated from its normal equations (Schur complement), so that one step
solves for everything: β ← β + (V + Σ S_p)⁻¹ (v + Σ s_p) with v, V the score and information of the vacuum spectrum and s_p, S_p
those of the positions. The positions are fitted anew after each step. The inverse is the covariance of β, all else marginalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.backends.base import Backend
from phonon_eels.backends.spectra import NO_CHANNEL, read_spectrum
from phonon_eels.forward.information import energies_by_shared, model_at
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit, electrons, fit_scan
from phonon_eels.forward.vacuum import VacuumReference, VacuumSpectrum
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.least_squares import add_followers
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, FLOOR_E
from phonon_eels.spectrum_image import SpectrumImage

SEEN_SIGMA = 2.0
ROUNDS = 20
OBJECTIVE_NOISE = 1e-4
"""What the objective of a fitted position may be above its minimum."""
DONE_SIGMA, DONE_MEV = 0.03, 1e-3
"""A step that moves no energy by more than this share of what the scan's mean of it is uncertain by, or by more than a tenth of what
the shape of the zero-loss peak leaves (0.01 meV), is taken and is the last. Of thousands of positions the tails' coefficients creep
on for dozens of steps, against the tails of every position, without moving any energy by half of its mean's deviation."""
LOG_ROOM = 0.7
"""No coefficient moves further than this in one step."""
WIDTH_ROOM = (0.7, 1.4)


@dataclass(frozen=True)
class JointVacuum:
    """What the joint fit found.

    Attributes
    ----------
    reference
        With the coefficients of the joint fit and their covariance.
    model
        Of the scan with that reference and the widths that belong to it.
    fit
        The last fit of the positions.
    """

    reference: VacuumReference
    model: ForwardModel
    fit: ScanFit


def fit_jointly(
    image: SpectrumImage,
    model: ForwardModel,
    alignment: Alignment,
    starts: np.ndarray,
    backend: Backend,
    rebuild: Callable[[VacuumReference, np.ndarray], ForwardModel],
    *,
    energy_prior_std_mev: np.ndarray,
    log_width_std: float,
    width_design: np.ndarray | None = None,
) -> JointVacuum:
    """Fit the reference of `model` and the positions of a scan together.

    Parameters
    ----------
    model
        With the reference as the vacuum spectrum alone has it (`fit_vacuum`).
    alignment
        Of the positions that take part; those of the vacuum itself must not.
    starts
        Starting parameters, (rows, columns, parameters).
    rebuild
        Returns the model with a reference and intrinsic widths, (modes,).
    energy_prior_std_mev
        (modes,), infinite for none.
    log_width_std
        Prior deviation of the logarithms of the widths around those of `model`; 0 holds them.
    width_design
        (modes, free) derivatives of the widths to those that are free, where a recipe fixes or ties some; default: all are.
    """
    from scipy.special import chdtrc  # survival of chi-squared; scipy.stats takes long to load

    reference = model.vacuum
    assert reference is not None
    assert reference.spectrum is not None
    splines, widths = reference.beta.size, np.eye(model.n_modes) if width_design is None else width_design
    if log_width_std == 0.0:
        widths = widths[:, :0]
    design = np.zeros((splines + model.n_modes, splines + widths.shape[1]))
    design[:splines, :splines], design[splines:, splines:] = np.eye(splines), widths
    place = _Place(image, alignment, backend, energy_prior_std_mev, reference.spectrum, log_width_std, model.fwhm_mev)
    held = fit_scan(image, model, alignment, starts, backend, free_energies=False, max_iterations=15)
    place.seen = held.areas() > SEEN_SIGMA * held.areas(held.std)
    best = place.at(model, np.where(np.isfinite(held.params), held.params, starts))
    damping, settled = 0.0, False
    for _ in range(ROUNDS):
        step, covariance = best.step(damping, design)
        settled = damping < 1.0 and _moves_little(best.model, best.fit, step, covariance)
        trial = place.at(*best.moved(step, covariance, rebuild, model.fwhm_mev))
        if trial.objective < best.objective + OBJECTIVE_NOISE * alignment.found.sum():
            best, damping = trial, 0.2 * damping if damping > 1e-2 else 0.0
        else:
            damping = max(5.0 * damping, 0.1)
        if settled:
            break
    assert best.model.vacuum is not None
    covariance = best.step(0.0, design)[1]
    tension = _tension(reference, best, design)
    found = replace(
        best.model.vacuum, covariance=covariance, joint=True, settled=settled,
        tension_p=float(chdtrc(reference.beta.size, tension)),
    )  # fmt: skip
    return JointVacuum(found, replace(best.model, vacuum=found), best.fit)


@dataclass(frozen=True)
class _State:
    """The positions fitted at one factor and one set of widths, and what both are told there."""

    model: ForwardModel
    fit: ScanFit
    start: np.ndarray
    objective: float
    score: np.ndarray
    information: np.ndarray

    def step(self, damping: float, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the step of coefficients and widths, and the covariance of the coefficients that belongs to the damping.

        `design` are the derivatives of all of them to those that are free.
        """
        assert self.model.vacuum is not None
        matrix = design.T @ self.information @ design
        covariance = np.linalg.inv(matrix + damping * np.diag(np.diag(matrix)))
        step = design @ (covariance @ (design.T @ self.score))
        splines = self.model.vacuum.beta.size
        step *= min(1.0, LOG_ROOM / max(float(np.abs(step[:splines]).max()), 1e-12))
        return step, covariance[:splines, :splines]

    def moved(
        self,
        step: np.ndarray,
        covariance: np.ndarray,
        rebuild: Callable[[VacuumReference, np.ndarray], ForwardModel],
        first_fwhm_mev: np.ndarray,
    ) -> tuple[ForwardModel, np.ndarray]:
        """Return model and starts after a step."""
        reference = self.model.vacuum
        assert reference is not None
        splines = reference.beta.size
        reference = replace(reference, beta=reference.beta + step[:splines], covariance=covariance)
        low, high = (factor * first_fwhm_mev for factor in WIDTH_ROOM)
        start = np.where(np.isfinite(self.fit.params), self.fit.params, self.start)
        return rebuild(reference, np.clip(self.model.fwhm_mev + step[splines:], low, high)), start


@dataclass
class _Place:
    """What stays the same from step to step."""

    image: SpectrumImage
    alignment: Alignment
    backend: Backend
    energy_prior_std_mev: np.ndarray
    vacuum: VacuumSpectrum
    log_width_std: float
    first_fwhm_mev: np.ndarray
    seen: np.ndarray | None = None

    def at(self, model: ForwardModel, start: np.ndarray) -> _State:
        """Fit the positions with a model and sum up what they and the vacuum say."""
        assert model.vacuum is not None
        assert self.seen is not None
        prior, beta = self.energy_prior_std_mev, model.vacuum.beta
        fit = fit_scan(
            self.image, model, self.alignment, start, self.backend, free_energies=self.seen, energy_prior_std_mev=prior
        )
        score, information = _sums(self.image, model, self.alignment, fit, self.seen, prior, self.backend)
        objective = float(np.nansum(fit.objective)) + self.vacuum.objective(beta)
        gradient, own = self.vacuum.evidence(beta)
        score[: beta.size] += gradient
        information[: beta.size, : beta.size] += own
        if self.log_width_std > 0.0:
            precision = (self.log_width_std * self.first_fwhm_mev) ** -2.0
            away = model.fwhm_mev - self.first_fwhm_mev
            score[beta.size :] -= precision * away
            information[beta.size :, beta.size :] += np.diag(precision)
            objective += float((precision * away**2).sum())
        return _State(model, fit, start, objective, score, information)


def _tension(alone: VacuumReference, joint: _State, design: np.ndarray) -> float:
    """Return by how much vacuum and scan are worse off together than each alone; chi-squared where both have the same peak.

    The vacuum's share is what its objective has risen by. The scan's is s S⁻¹ s with s and S its own score and information there.
    """
    assert alone.spectrum is not None
    assert joint.model.vacuum is not None
    beta, n = joint.model.vacuum.beta, alone.beta.size
    rise = alone.spectrum.objective(beta) - alone.spectrum.objective(alone.beta)
    told, information = design.T @ joint.score, design.T @ joint.information @ design
    score, scan = told[:n], information[:n, :n]
    if told.size > n:
        follow = np.linalg.solve(information[n:, n:], information[n:, :n]).T
        score, scan = score - follow @ told[n:], scan - follow @ information[n:, :n]
    gradient, own = alone.spectrum.evidence(beta)
    score, scan = score - gradient, scan - own
    scale = 1.0 / np.sqrt(np.maximum(np.diag(scan), 1e-300))
    values, vectors = np.linalg.eigh(scan * np.outer(scale, scale))
    told = values > 1e-6  # a common factor is the height of every position: the scan says nothing of it
    along = (vectors.T @ (scale * score))[told]
    return max(float(rise), 0.0) + float((along**2 / values[told]).sum())


def _moves_little(model: ForwardModel, fit: ScanFit, step: np.ndarray, covariance: np.ndarray) -> bool:
    """Return whether a step matters to no energy; coefficients far out in the tails creep on, and the widths with them."""
    good = np.isin(fit.status, (CONVERGED, AT_BOUND))
    if not good.any():
        return True
    follows, own = energies_by_shared(model, np.nanmedian(fit.params[good], axis=0))
    by_factor = follows[:, : covariance.shape[0]]
    common = np.einsum("mi,ij,mj->m", by_factor, covariance, by_factor)
    allowed = np.maximum(DONE_SIGMA * np.sqrt(common + own**2 / good.sum()), DONE_MEV)
    return bool((np.abs(follows @ step) <= allowed).all())


def _sums(
    image: SpectrumImage,
    model: ForwardModel,
    alignment: Alignment,
    fit: ScanFit,
    seen: np.ndarray,
    energy_prior_std_mev: np.ndarray,
    backend: Backend,
) -> tuple[np.ndarray, np.ndarray]:
    """Return score and information of coefficients and widths over all positions, their own parameters eliminated."""
    assert model.vacuum is not None
    shared = model.vacuum.beta.size + model.n_modes
    gain, dark = electrons(image)
    precision, mean = model.prior_precision(energy_prior_std_mev), model.prior_mean()
    usable = np.isin(fit.status, (CONVERGED, AT_BOUND))

    def sum_rows(first_row: int, counts: np.ndarray, bad: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        rows, z, no_bad = [], np.empty(model.energies_mev.size), np.empty(0, bool)
        for r in range(counts.shape[0]):
            row = first_row + r
            score, information = np.zeros(shared), np.zeros((shared, shared))
            for c in np.flatnonzero(usable[row] & (alignment.channel[row] != NO_CHANNEL)):
                own_bad = no_bad if bad is None else np.ascontiguousarray(bad[r, c], dtype=bool)
                spectrum = np.ascontiguousarray(counts[r, c], dtype=float)
                read_spectrum(spectrum, own_bad, int(alignment.channel[row, c]) + model.first_channel, gain, dark, z)
                free = model.free_where(seen[row, c])
                here = model if alignment.frames is None else replace(model, frames=alignment.frames[row, c])
                part = _eliminated(here, fit.params[row, c], z, free, precision, mean)
                score += part[0]
                information += part[1]
            rows.append((score, information))
        return rows

    score, information = np.zeros(shared), np.zeros((shared, shared))
    for block in backend.map_rows(sum_rows, [image.counts, image.bad]):
        for part in block:  # row by row: blocks leave no trace
            score += part[0]
            information += part[1]
    return score, information


def _eliminated(
    model: ForwardModel, params: np.ndarray, z: np.ndarray, free: np.ndarray, precision: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return score and information of coefficients and widths from one spectrum, whose `free` is that of `least_squares.fit_one`.

    How the lines change with the factor is left out of the derivatives, a hundredth of them: equations stay unbiased without.
    """
    assert model.vacuum is not None
    values, jacobian = model_at(model, np.array(params))
    add_followers(free, jacobian)
    free = free > 0
    used = np.isfinite(z)
    expected = np.maximum(values + model.shift_e, FLOOR_E)
    root = np.where(used, expected**-0.5, 0.0)
    misfit = np.where(used, z + model.shift_e - expected, 0.0) * root
    factor = params[0] * jacobian[0] * model.vacuum.basis(model.energies_mev - params[1])
    shared = np.concatenate([factor, jacobian[N_LOCAL + 2 * model.n_modes :]]) * root
    local = jacobian[free] * root
    normal = local @ local.T + np.diag(precision[free])
    cross = local @ shared.T
    gradient = local @ misfit - precision[free] * (params - mean)[free]
    scale = 1.0 / np.sqrt(np.maximum(np.diag(normal), 1e-300))
    unit = normal * np.outer(scale, scale) + 1e-12 * np.eye(
        scale.size
    )  # an area of 0 leaves no information on its energy
    solved = scale[:, None] * np.linalg.solve(unit, scale[:, None] * np.column_stack([cross, gradient]))
    return shared @ misfit - cross.T @ solved[:, -1], shared @ shared.T - cross.T @ solved[:, :-1]
