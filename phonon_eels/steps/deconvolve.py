"""Remove the instrument response from the loss spectra. For display; splits seen only here are no evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.backends.deconvolve import filter_block, richardson_lucy_block
from phonon_eels.errors import DataError
from phonon_eels.kernels.deconvolve import SMALLEST_RESPONSE, Response, make_response
from phonon_eels.kernels.fourier import (
    filter_matrix,
    ratio_filter,
    scattering_bytes,
    scattering_filters,
    single_scattering,
)
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.carried_noise import enough_draws, known_draws, moved_fractions, resampled_noise, with_draws
from phonon_eels.steps.deconvolved_noise import maxima_table, noise_response, std_factors
from phonon_eels.steps.injected_peak import injected_peaks
from phonon_eels.steps.instrument import (
    ZeroLossPeak,
    mean_spectrum,
    mean_variance,
    zero_loss_peak,
)
from phonon_eels.steps.maps import count_status, scan_dataset
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend
    from phonon_eels.config.settings import Deconvolve
    from phonon_eels.spectrum_image import SpectrumImage

MEANINGS = ("ok", "not_finite", "empty")
DONE, NOT_FINITE, EMPTY = range(3)
HELD_OUT_POSITIONS = 128
HELD_OUT_SHARE = 0.5
"""Noise of this many standard deviations is added to what is deconvolved; what it is judged by then is independent."""

NO_EVIDENCE = (
    "splits and shoulders seen only after deconvolution are no evidence: at 2000 counts Richardson-Lucy shows two or "
    "more maxima for a true single peak in about 70 % of trials; judge modes on the spectra before deconvolution"
)


@dataclass(frozen=True)
class _Method:
    """A deconvolution ready for the spectra of an image."""

    settings: Deconvolve
    response: Response
    matrix: np.ndarray  # Fourier ratio, else empty
    first_channel: float  # energy of channel 0 over the dispersion

    def block(
        self, counts: np.ndarray, variance: np.ndarray | None, intensity: np.ndarray, backend: Backend
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Deconvolve spectra (n, channels) with zero-loss counts (n,); return them, statuses (n,) and reports (n, 3).

        Reports as `richardson_lucy_one` has them; for the Fourier-log the first number is that of losses per electron.
        """
        spectra = np.ascontiguousarray(counts, dtype=np.float64)
        n = spectra.shape[0]
        finite = np.asarray(np.isfinite(spectra).all(axis=1))
        report = np.zeros((n, 3))
        report[:, 2] = np.nan
        if self.settings.method == "richardson_lucy":
            by_noise = self.settings.stop == "discrepancy"
            out, _, report, status = richardson_lucy_block(
                spectra, self.response, self.settings.iterations, variance=variance if by_noise else None,
                stop_at_noise=by_noise, accelerate=self.settings.accelerate, backend=backend,
            )  # fmt: skip
            return out, status, report
        status = np.where(finite, DONE, NOT_FINITE)
        if self.settings.method == "fourier_log":
            filters = scattering_filters(
                self.response.values, self.response.anchor, spectra.shape[1], self.first_channel
            )
            out, report[:, 0] = backend.whole_array(
                single_scattering, np.where(finite[:, None], spectra, 0.0), intensity, shared=filters,
                row_bytes=scattering_bytes(filters[0]),
            )  # fmt: skip
            out[~finite] = np.nan
            return out, np.where(np.isfinite(out).all(axis=1), DONE, NOT_FINITE), report
        out = np.empty_like(spectra)
        backend.run(filter_block, spectra, self.matrix, out)
        out[~finite] = np.nan
        return out, status, report


def deconvolve(image: SpectrumImage, settings: Deconvolve, context: StepContext) -> StepResult:
    """Deconvolve every loss spectrum by the scan's zero-loss peak; counts are conserved, negative values are data.

    The response is the fitted split Pearson VII with the scan's mean FWHM and tails, not a measured spectrum: a
    specimen spectrum holds phonons beside the peak.

    Returns
    -------
    StepResult
        Image, its noise marked as correlated; variance exact for the linear Fourier ratio, else grown as noise on the mean
        spectrum grows (`noise_response`). Tables: ``injected_peak``, what the method does to a known peak on this data;
        ``std_factors``, by how much fits that ignore the correlation understate their deviations; ``maxima``, which maxima
        were there before. Draws of the noise that comes out, for the fits. Maps ``iterations``, ``offset`` and ``chi2_per_channel`` where the stop is by discrepancy,
        else ``offset``; ``losses_per_electron`` for the Fourier-log; ``status``.

    Raises
    ------
    DataError
        If `align_zlp` has not measured the zero-loss peak, or a method lacks the variance or the zero-loss counts.
    """
    if settings.method == "none":
        return StepResult(skipped="deconvolve.method is none: the spectra keep the instrument's resolution")
    peak = zero_loss_peak(context, "deconvolve")
    mean = mean_spectrum(image, context)
    spread = mean_variance(image, peak.fwhm_mev)
    intensity = _zero_loss_counts(image, settings, context)
    method = prepare(peak, image, settings, mean, spread, context.backend)
    messages = [NO_EVIDENCE]
    if settings.method == "richardson_lucy" and settings.stop == "held_out":
        number = _held_out_iterations(image, method, context.seed)
        method = replace(method, settings=settings.model_copy(update={"iterations": number, "stop": "fixed"}))
        messages.append(f"{number} iterations predict noise kept apart best (at most {settings.iterations} were tried)")
    maps, offset, iterations = _maps(image, method, context, intensity)

    usual = int(np.median(iterations)) if settings.method == "richardson_lucy" else 0
    # By discrepancy, the mean spectrum would stop elsewhere than the single ones: it takes their usual number.
    fixed = replace(method, settings=method.settings.model_copy(update={"iterations": max(usual, 1), "stop": "fixed"}))
    typical = float(np.nanmedian(intensity)) if np.isfinite(intensity).any() else np.nan

    def many(spectra: np.ndarray) -> np.ndarray:
        return fixed.block(spectra, None, np.full(spectra.shape[0], typical), context.backend)[0]

    noise = noise_response(mean, spread, _noise_before(image, spread, context), many)
    counts, variance = _cubes(image, method, context, intensity, noise.gain)
    result = image.with_(counts=counts, variance=variance, noise=replace(image.noise, denoised=True), frames=None)
    table = injected_peaks(mean, image.energy, context.material, method.response, many)
    own_variance = (method.matrix**2).T @ spread if method.matrix.size else noise.gain * spread
    factors = std_factors(noise, own_variance, image.energy.energies_mev, table, image.energy.dispersion_mev)
    used = max(int((maps["status"].values == DONE).sum()), 1)
    after = many(mean[None])[0]
    if not image.noise.denoised:
        maps = with_draws(maps, noise.after, own_variance)
    maxima = maxima_table(
        image.energy.energies_mev, mean, after, np.sqrt(np.maximum(own_variance, 0.0) / used), 0.5 * peak.fwhm_mev
    )
    messages += _messages(settings, table, factors, maxima, offset)
    summary: dict[str, Any] = {
        "method": settings.method,
        "response": {"shape": "split Pearson VII", **vars(peak), "channels": int(method.response.values.size)},
        "noise": "correlated between channels; see the table std_factors",
        "iterations": usual if settings.method == "richardson_lucy" else None,
        "stop": settings.stop if settings.method == "richardson_lucy" else None,
        "noise_gain": float(np.median(noise.gain)),
        "noise_correlation": [round(float(value), 4) for value in noise.correlation[:20]],
        "status_counts": count_status(maps["status"].values, MEANINGS),
    }
    tables = {"injected_peak": table, "std_factors": factors, "maxima": maxima}
    return StepResult(image=result, maps=maps, tables=tables, summary=summary, messages=tuple(messages))


def _messages(settings: Deconvolve, table: Any, factors: Any, maxima: Any, offset: np.ndarray) -> list[str]:
    messages = []
    if len(factors):
        messages.append(
            f"the noise of neighbouring channels is correlated over {factors['correlation_length_mev'].iloc[0]:.1f} meV: fits that "
            f"take channels as independent quote deviations of energies {factors['energy_std_factor'].min():.2f} to "
            f"{factors['energy_std_factor'].max():.2f} times too small (table std_factors); fit_peaks carries this into its own"
        )
    new = maxima[~maxima["seen_before"].astype(bool)] if len(maxima) else maxima
    if len(new):
        places = ", ".join(f"{energy:.1f}" for energy in new["energy_mev"])
        messages.append(f"maxima of the mean spectrum at {places} meV are seen only after deconvolution: no evidence")
    if len(table):
        worst = max(table.to_dict("records"), key=lambda row: abs(row["position_bias_mev"]))
        messages.append(
            f"a peak injected at {worst['energy_mev']:g} meV comes out {worst['position_bias_mev']:+.2f} meV off and "
            f"{worst['measured_fwhm_mev']:.1f} meV wide (put in with {worst['intrinsic_fwhm_mev']:.1f}, seen by the "
            f"instrument with {worst['blurred_fwhm_mev']:.1f}); see the table injected_peak"
        )
    lifted = int((offset > 0.0).sum())
    if lifted:
        messages.append(
            f"{lifted} of {offset.size} spectra hold negative values (background was subtracted): each was deconvolved "
            f"on a constant that makes its lowest channel 0, and the constant was taken off again (map offset)"
        )
    if settings.method == "fourier_log":
        messages.append("fourier_log removes plural scattering only: lines keep the instrument's width")
    return messages


def prepare(
    peak: ZeroLossPeak,
    image: SpectrumImage,
    settings: Deconvolve,
    mean: np.ndarray,
    variance: np.ndarray,
    backend: Backend,
) -> _Method:
    """Put the response on the image's dispersion and prepare the method.

    Wiener's filter takes the noise's power from the variance, the signal's from the spread of the mean spectrum.
    """
    step, n = image.energy.dispersion_mev, image.energy.n_channels
    half = max(int(settings.psf_half_width_mev / step + 1e-9), 1)
    values = split_pearson7(step * np.arange(-half, half + 1), peak.fwhm_mev, peak.tail_loss, peak.tail_gain)
    kept = np.flatnonzero(values >= SMALLEST_RESPONSE)
    response = make_response(values[kept[0] : kept[-1] + 1], half - kept[0], n)
    first = image.energy.offset_mev / step
    if settings.method != "fourier_ratio":
        return _Method(settings, response, np.empty((0, 0)), first)
    wiener = settings.regulariser == "wiener"
    noise_to_signal = 0.0
    if wiener:
        signal = float(np.mean((mean - mean.mean()) ** 2))
        noise = float(np.nanmean(variance)) if np.isfinite(variance).any() else np.nan
        if not (signal > 0.0 and np.isfinite(noise)):
            raise DataError(
                "deconvolve.regulariser = wiener needs a mean spectrum with signal and a known variance; use gaussian"
            )
        noise_to_signal = max(noise / signal, 1e-9)
    fwhm = 0.0 if wiener else settings.regularisation_fwhm_mev / step
    transfer = ratio_filter(response.values, response.anchor, 2 * n, fwhm, noise_to_signal)
    return _Method(settings, response, backend.whole_array(filter_matrix, np.eye(n), shared=(transfer,)), first)


def _noise_before(image: SpectrumImage, variance: np.ndarray, context: StepContext) -> np.ndarray:
    """Return draws of the noise of one position as it arrives here, (draws, channels)."""
    known = known_draws(context.maps, ("subtract_zlp",))
    if known is not None and known.shape[1] == variance.size:
        return np.asarray(known * np.sqrt(variance))
    rng, number = np.random.default_rng([context.seed, 20]), enough_draws(variance.size)
    moved, shared = moved_fractions(context, image), image.noise.noise_correlation
    return resampled_noise(rng, variance, moved, number, shared, backend=context.backend)


def _zero_loss_counts(image: SpectrumImage, settings: Deconvolve, context: StepContext) -> np.ndarray:
    """Return the zero-loss counts of every position in units of the image times channels; NaN where not needed."""
    if settings.method != "fourier_log":
        return np.full(image.shape[:2], np.nan)
    maps = context.maps.get("align_zlp")
    if maps is None or "zlp_counts" not in maps:
        raise DataError("deconvolve.method = fourier_log needs zlp_counts of align_zlp; run align_zlp first")
    counts = np.asarray(maps["zlp_counts"].values, dtype=np.float64)
    divided = context.maps.get("normalise")
    if divided is not None and "normaliser_e" in divided:
        return np.asarray(counts / divided["normaliser_e"].values)
    return np.asarray(counts * image.noise.gain)


def _held_out_iterations(image: SpectrumImage, method: _Method, seed: int) -> int:
    """Return the number of iterations whose model best predicts noise kept apart.

    y + s e and y - e / s, e drawn with the variance of y, are independent of each other: the first is deconvolved, the second
    judges every iteration. One number for the scan: a number per position would make contrasts of its own.

    References
    ----------
    Leiner, Duan, Wasserman and Ramdas 2023 (data fission), doi:10.1080/01621459.2023.2270748.
    """
    if image.variance is None:
        raise DataError(
            "deconvolve.stop = held_out needs spectra with a variance; run align_zlp with alignment resample"
        )
    rows, columns = image.shape[:2]
    places = np.unique(np.linspace(0, rows * columns - 1, min(HELD_OUT_POSITIONS, rows * columns)).astype(int))
    counts, variance = [], []
    for row in np.unique(places // columns):
        inside = places[places // columns == row] % columns
        counts.append(np.asarray(image.counts[row], dtype=np.float64)[inside])
        variance.append(np.asarray(image.variance[row], dtype=np.float64)[inside])
    spectra, spread = np.concatenate(counts), np.concatenate(variance)
    known = np.isfinite(spectra).all(axis=1)
    spectra, spread = spectra[known], np.where(np.isfinite(spread[known]), spread[known], 0.0)
    drawn = np.sqrt(spread) * np.random.default_rng([seed, 21]).standard_normal(spectra.shape)
    _, misfit, _, status = richardson_lucy_block(
        spectra + HELD_OUT_SHARE * drawn, method.response, method.settings.iterations,
        check=spectra - drawn / HELD_OUT_SHARE, variance=(1.0 + HELD_OUT_SHARE**-2) * spread,
        accelerate=method.settings.accelerate,
    )  # fmt: skip
    usable = misfit[status == DONE]
    if not usable.size:
        raise DataError("deconvolve.stop = held_out found no finite spectrum with a variance; use stop: fixed")
    return max(int(np.argmin(usable.mean(axis=0))), 1)


def _maps(
    image: SpectrumImage, method: _Method, context: StepContext, intensity: np.ndarray
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the maps, the offset and the iterations done, (rows, columns).

    With a fixed number of iterations nothing needs to be deconvolved for them.
    """
    settings, lucy = method.settings, method.settings.method == "richardson_lucy"
    log = settings.method == "fourier_log"
    by_discrepancy = lucy and settings.stop == "discrepancy"

    def block(first: int, counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        spectra = np.ascontiguousarray(counts, dtype=np.float64).reshape(-1, counts.shape[2])
        own = intensity[first : first + counts.shape[0]].ravel()
        if by_discrepancy or log:
            spread = None if variance is None else np.asarray(variance).reshape(spectra.shape)
            _, status, report = method.block(spectra, spread, own, context.backend)
        else:
            finite = np.isfinite(spectra).all(axis=1)
            lift = np.where(finite & lucy, np.maximum(0.0, -spectra.min(axis=1)), 0.0)
            flat = finite & lucy & ~(spectra.sum(axis=1) + lift * spectra.shape[1] > 0.0)
            status = np.where(flat, EMPTY, np.where(finite, DONE, NOT_FINITE))
            report = np.stack(
                [np.full(lift.size, settings.iterations if lucy else 0), lift, np.full(lift.size, np.nan)], 1
            )
        return np.concatenate([status[:, None], report], axis=1).T.reshape(4, *counts.shape[:2])

    rows = context.backend.map_rows(block, [image.counts, image.variance], progress=context.progress)
    status, iterations, offset, chi_squared = np.concatenate(rows, axis=1)
    offset = np.where(status == NOT_FINITE, 0.0, offset)
    values = {"offset": (offset, "as the image, per channel")} if lucy else {}
    if log:
        values["losses_per_electron"] = (iterations, "1")
    if by_discrepancy:
        values["iterations"] = (iterations, "1")
        values["chi2_per_channel"] = (chi_squared, "1")
    return scan_dataset(image, values, status, MEANINGS), offset, iterations


def _cubes(
    image: SpectrumImage, method: _Method, context: StepContext, intensity: np.ndarray, gain: np.ndarray
) -> tuple[Any, Any]:
    """Return the lazy cubes of the result and of its variance (None without variances)."""

    def counts_block(counts: np.ndarray, variance: np.ndarray | None, own: np.ndarray) -> np.ndarray:
        spectra = np.ascontiguousarray(counts, dtype=np.float64).reshape(-1, counts.shape[2])
        spread = None if variance is None else np.asarray(variance).reshape(spectra.shape)
        out = method.block(spectra, spread, own.ravel(), context.backend)[0]
        return out.reshape(counts.shape).astype(np.float32)

    def variance_block(variance: np.ndarray) -> np.ndarray:
        spread = np.ascontiguousarray(variance, dtype=np.float64)
        if method.matrix.size == 0:
            return np.asarray(spread * gain, dtype=np.float32)
        flat = spread.reshape(-1, spread.shape[2])
        out = np.empty_like(flat)
        context.backend.run(filter_block, flat, method.matrix**2, out)
        return out.reshape(spread.shape).astype(np.float32)

    map_cube = context.backend.map_cube
    used = image.variance if method.settings.stop == "discrepancy" else None
    counts = map_cube(counts_block, [image.counts, used, intensity[..., None]], dtype=np.float32)
    if image.variance is None:
        return counts, None
    return counts, map_cube(variance_block, [image.variance], dtype=np.float32)


DECONVOLVE = StepSpec(
    name="deconvolve",
    run=deconvolve,
    routes=("classic",),
    makes={"offset": "as the image, per channel"},
    needs=("align_zlp", "normalise", "subtract_zlp"),
    bytes_per_channel=64.0,
    reference="Richardson 1972, doi:10.1364/JOSA.62.000055; Lucy 1974, doi:10.1086/111605",
)
