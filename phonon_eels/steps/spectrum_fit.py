"""The fit of `fit_peaks` for one spectrum at a time, or for the sum of a region: what somebody who points at the image asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.backends.spectra import fit_block
from phonon_eels.forward.information import model_at
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import SHOWN_SIGMA, STATUS_MEANINGS, Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.kernels.forward import LINEAR, N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.align_zlp import align_zlp, alignment_of
from phonon_eels.steps.fit_peaks import prepare
from phonon_eels.steps.peak_maps import MODE_STATUS
from phonon_eels.steps.position_fits import SEEN_SIGMA, prior_stds
from phonon_eels.steps.remove_spikes import remove_spikes
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend
    from phonon_eels.config import Material, Settings


@dataclass(frozen=True)
class SpectrumFit:
    """One fitted spectrum.

    Attributes
    ----------
    energy_loss_mev
        (n,) energy loss of the window's channels, from the fitted zero-loss peak.
    counts_e, model_e, std_e
        (n,) electrons per channel, their model, and the standard deviation that the model expects; NaN where a channel was left out.
    components_e
        "zlp", "background" and every mode → (n,) electrons.
    energy_mev, energy_std_mev, area_e, area_std_e, fwhm_mev
        (modes,); intrinsic widths are those of the scan, held. Energies of modes that are not seen are NaN.
    mode_status
        (modes,) words of `fit_peaks.MODE_STATUS`.
    background_e, background_std_e
        Constant part of the background, electrons per channel.
    status
        Word of `forward.scan.STATUS_MEANINGS`.
    chi2_per_dof
        Pearson's chi-squared per degree of freedom.
    n_positions
        Spectra that were added.
    """

    energy_loss_mev: np.ndarray
    counts_e: np.ndarray
    model_e: np.ndarray
    std_e: np.ndarray
    components_e: dict[str, np.ndarray]
    mode_names: tuple[str, ...]
    energy_mev: np.ndarray
    energy_std_mev: np.ndarray
    area_e: np.ndarray
    area_std_e: np.ndarray
    fwhm_mev: np.ndarray
    mode_status: tuple[str, ...]
    background_e: float
    background_std_e: float
    status: str
    chi2_per_dof: float
    n_positions: int = 1

    @property
    def residual_sigma(self) -> np.ndarray:
        """Counts less model, in standard deviations of what the model expects, (n,)."""
        return np.asarray((self.counts_e - self.model_e) / np.maximum(self.std_e, 1e-300))

    @property
    def good(self) -> bool:
        """Whether the fit ended where it should."""
        return self.status in (STATUS_MEANINGS[CONVERGED], STATUS_MEANINGS[AT_BOUND])


@dataclass(frozen=True)
class SpectrumFitter:
    """Fits single spectra with the model of a scan.

    Attributes
    ----------
    model
        What `fit_peaks` fitted to the scan.
    prior_std_mev
        (modes,) prior on the energies, infinite for none, as `fit_peaks.prior_stds` gives it.
    height_e, constant_e, area_e
        Where a spectrum of average strength starts: zero-loss height, background and (modes,) areas, electrons.
    max_iterations
        As `fit_peaks` had it.
    """

    model: ForwardModel
    prior_std_mev: np.ndarray
    height_e: float
    constant_e: float
    area_e: np.ndarray
    max_iterations: int = 40

    def fit(
        self,
        counts_e: np.ndarray,
        shift_mev: float = 0.0,
        variance_e2: np.ndarray | None = None,
        n_positions: int = 1,
        energies_mev: np.ndarray | None = None,
        frames: np.ndarray | None = None,
    ) -> SpectrumFit:
        """Fit one spectrum, or a sum of `n_positions` spectra that were aligned by whole channels.

        As in `fit_peaks`: first with the energies held, then with those free that are seen, then once more from the
        shared ones if that ended badly.

        Parameters
        ----------
        counts_e
            (n,) electrons in the channels of the model's window; NaN leaves a channel out.
        shift_mev
            Zero-loss peak from the centre of its channel.
        variance_e2
            (n,) variance of the counts on the classic route, else None.
        energies_mev
            (modes,) energies that are known to be seen, which start there and are free; default, and where NaN: those
            shared by the scan.
        frames
            Of one position of a scan of several frames, (4,) as `Alignment` has them.
        """
        model = replace(self.model, shift_e=self.model.shift_e * n_positions)
        if frames is not None and model.zero_loss is not None:
            model = replace(model, frames=frames)
        start = self._start(counts_e, shift_mev, n_positions)
        if energies_mev is not None:
            first = N_LOCAL + model.n_modes
            start[first : first + model.n_modes] = np.where(
                np.isfinite(energies_mev), energies_mev, model.mode_energies_mev
            )
            if model.recipe is not None:
                start[first : first + model.n_modes] = model.recipe.held(start[first : first + model.n_modes])
        held = self._run(model, counts_e, variance_e2, start, np.zeros(model.n_modes, bool), 15)
        areas = slice(N_LOCAL, N_LOCAL + model.n_modes)
        seen = held.params[areas] > SEEN_SIGMA * held.std[areas]
        if energies_mev is not None:
            seen |= np.isfinite(energies_mev)
        best = self._run(model, counts_e, variance_e2, _finite_or(held.params, start), seen, self.max_iterations)
        if best.status not in (CONVERGED, AT_BOUND):
            again = self._run(model, counts_e, variance_e2, start, seen, 3 * self.max_iterations)
            best = again if again.status in (CONVERGED, AT_BOUND) else best
        return self._result(model, counts_e, variance_e2, best, n_positions)

    def _start(self, counts_e: np.ndarray, shift_mev: float, n_positions: int) -> np.ndarray:
        modes = self.model.n_modes
        scale = float(n_positions)
        height = 0.0
        if self.model.zero_loss is not None:
            finite = counts_e[np.isfinite(counts_e)]
            height = max(float(finite.max(initial=0.0)), 1.0)
            scale = height / max(self.height_e, 1e-300)
        local = [height, shift_mev, 0.0, 0.0, 0.0, self.constant_e * n_positions, *self.model.background_shape]
        return np.concatenate([local, self.area_e * scale, self.model.mode_energies_mev, np.zeros(modes)])

    def _run(
        self,
        model: ForwardModel,
        counts_e: np.ndarray,
        variance_e2: np.ndarray | None,
        start: np.ndarray,
        free_energies: np.ndarray,
        max_iterations: int,
    ) -> _Outcome:
        modes, n_params = model.n_modes, model.n_params
        lower, upper = model.bounds()
        mean = model.prior_mean()
        free = model.free_where(free_energies)
        params, std = start[None].copy(), np.full((1, n_params), np.nan)
        outcome, status = np.full((1, 7), np.nan), np.zeros(1, np.int64)
        variance = np.empty((0, 0)) if variance_e2 is None else np.ascontiguousarray(variance_e2, float)[None]
        fit_block(
            np.ascontiguousarray(counts_e, float)[None], np.empty((0, 0), bool), variance,
            np.array([-model.first_channel]), 1.0, 0.0, model.shift_e, model.lags, model.likelihood, model.first_channel,
            model.energies_mev, model.dispersion_mev, model.reference, model.background.rows, model.background.code,
            model.factor, model.tables.values, model.tables.first_node_mev, model.tables.node_step_mev, free[None], lower, upper, mean[None],
            model.prior_precision(self.prior_std_mev), max_iterations, params, std, outcome, status,
            np.empty((0, 2 * modes)), np.empty((0, 2 * modes, 2 * modes)), np.empty((0, modes, 2 * modes)),
            0.0, SHOWN_SIGMA, np.empty((0, modes, 4)), np.empty((0, modes), np.int64),
        )  # fmt: skip
        # What the noise alone lets chi-squared be, shared between channels or not, less what the fit takes of it.
        expected = float(outcome[0, 4] - outcome[0, 6])
        return _Outcome(params[0], std[0], float(outcome[0, 1]), expected, int(status[0]))

    def _result(
        self,
        model: ForwardModel,
        counts_e: np.ndarray,
        variance_e2: np.ndarray | None,
        fit: _Outcome,
        n_positions: int,
    ) -> SpectrumFit:
        modes = model.n_modes
        total, components = components_of(model, fit.params)
        std = np.sqrt(np.maximum(total, 0.0) + model.shift_e) if variance_e2 is None else np.sqrt(variance_e2)
        area, area_std = (v[N_LOCAL : N_LOCAL + modes] for v in (fit.params, fit.std))
        energy, energy_std = (v[N_LOCAL + modes : N_LOCAL + 2 * modes] for v in (fit.params, fit.std))
        good = fit.status in (CONVERGED, AT_BOUND)
        with np.errstate(invalid="ignore"):
            significant = (area > SHOWN_SIGMA * area_std) & np.isfinite(energy_std)
            prior = self.prior_std_mev if model.recipe is None else model.recipe.prior_std(self.prior_std_mev)
            code = np.where(significant, np.where(energy_std > 0.5 * prior, 1, 0), 2)
            if model.recipe is not None:
                code[(area > SHOWN_SIGMA * area_std) & model.recipe.fixed] = 4
        code = np.where(good & np.isfinite(area), code, 3)
        shown = (code <= 1) | (code == 4)
        dof = max(fit.chi2_expected, 1.0)
        shift = fit.params[1] if np.isfinite(fit.params[1]) else 0.0
        return SpectrumFit(
            energy_loss_mev=model.energies_mev - shift,
            counts_e=counts_e,
            model_e=total,
            std_e=np.where(np.isfinite(counts_e), std, np.nan),
            components_e=components,
            mode_names=model.mode_names,
            energy_mev=np.where(shown, energy, np.nan),
            energy_std_mev=np.where(shown, energy_std, np.nan),
            area_e=np.where(good, area, np.nan),
            area_std_e=np.where(good, area_std, np.nan),
            fwhm_mev=np.asarray(model.fwhm_mev),
            mode_status=tuple(MODE_STATUS[int(k)] for k in code),
            background_e=float(fit.params[5]),
            background_std_e=float(fit.std[5]),
            status=STATUS_MEANINGS[fit.status],
            chi2_per_dof=fit.chi2 / dof,
            n_positions=n_positions,
        )


@dataclass(frozen=True)
class _Outcome:
    params: np.ndarray
    std: np.ndarray
    chi2: float
    chi2_expected: float
    status: int


def components_of(model: ForwardModel, params: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the model of one spectrum and its parts: "zlp", "background" and every mode, (n,) electrons each.

    Parameters
    ----------
    params
        As `kernels.forward` orders them; a NaN among them gives NaN throughout.
    """
    n = model.energies_mev.size
    total = np.full(n, np.nan)
    names = ("zlp", "background", *model.mode_names)
    if not np.isfinite(params).all():
        return total, {name: total.copy() for name in names}
    total, jacobian = model_at(model, params)
    background = params[5] * jacobian[5]
    if model.background.code == LINEAR:
        background = background + params[6] * jacobian[6]
    lines = {name: params[N_LOCAL + m] * jacobian[N_LOCAL + m] for m, name in enumerate(model.mode_names)}
    zero_loss = total - background - sum(lines.values(), np.zeros(n))
    return total, {"zlp": zero_loss, "background": background, **lines}


def _finite_or(params: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(params), params, start)


def fit_sum(
    fitter: SpectrumFitter, image: SpectrumImage, alignment: Alignment, inside: np.ndarray, backend: Backend
) -> SpectrumFit:
    """Add the spectra of a region, each moved by whole channels to its zero-loss channel, and fit the sum.

    Deviations are those of counting alone: energies that differ between the positions of the region are not in them.

    Parameters
    ----------
    inside
        (rows, columns) of bool, with at least one position that has a zero-loss peak.
    """
    model, weights = fitter.model, (inside & alignment.found).astype(float)[None]
    total, squares = aligned_sums(image, alignment, model.first_channel, model.energies_mev.size, weights, backend)
    shift = float(alignment.shift_mev[weights[0] > 0.0].mean())
    if model.poisson:
        return fitter.fit(total[0], shift, n_positions=int(weights.sum()))
    known = squares[0] > 0.0
    return fitter.fit(
        np.where(known, total[0], np.nan), shift, np.where(known, squares[0], 1.0), n_positions=int(weights.sum())
    )


def quick_fit(
    image: SpectrumImage, inside: np.ndarray, settings: Settings, material: Material, backend: Backend
) -> SpectrumFit:
    """Fit the sum of a region of a scan that nothing was run on: zero-loss peaks, model and fit of the region alone.

    Raises
    ------
    DataError
        If there is no zero-loss peak, or the energy axis does not reach the modes.
    """
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    cut = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    scan = tuple(replace(axis, n=part.stop - part.start) for axis, part in zip(image.scan, cut, strict=True))
    parts = {
        name: None if getattr(image, name) is None else getattr(image, name)[cut]
        for name in ("counts", "variance", "bad", "regions")
    }
    region = image.with_(scan=scan, haadf=None, haadf_frames=None, frames=None, halves=None, **parts)
    context = StepContext(material=material, backend=backend)
    if settings.remove_spikes.enabled:
        region = remove_spikes(region, settings.remove_spikes, context).image or region
    peaks = align_zlp(region, settings.align_zlp.model_copy(update={"alignment": "coordinate"}), context)
    assert peaks.maps is not None
    peaks.maps["zlp_center_mev"] = peaks.maps["zlp_center_mev"].where(inside[cut])
    context = replace(context, maps={"align_zlp": peaks.maps}, summaries={"align_zlp": dict(peaks.summary)})
    prepared = prepare(region, settings.fit_peaks, context)
    mean = prepared.mean
    fitter = SpectrumFitter(
        prepared.model, prior_stds(prepared.model, material), mean.height_e, mean.constant_e, mean.areas_e,
        settings.fit_peaks.max_iterations,
    )  # fmt: skip
    return fit_sum(fitter, region, alignment_of(region, context), inside[cut], backend)
