"""Remove the instrument response from the loss spectra. For display: splits seen only here are no evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.kernels.deconvolve import (
    DONE,
    Response,
    apply_matrix_one,
    fourier_ratio_matrix,
    make_response,
    richardson_lucy_noise_gain,
    richardson_lucy_one,
)
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.injected_peak import injected_peaks
from phonon_eels.steps.instrument import ZeroLossPeak, mean_spectrum, zero_loss_peak
from phonon_eels.steps.maps import count_status, scan_dataset
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    from phonon_eels.config.settings import Deconvolve
    from phonon_eels.spectrum_image import SpectrumImage

MEANINGS = ("ok", "not_finite", "empty")
SMALLEST_RESPONSE = 1e-6
"""The response ends where it falls below this share of its maximum."""

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
    noise_gain: np.ndarray  # by number of iterations; one number for the Fourier ratio

    def spectrum(self, counts: np.ndarray, variance: np.ndarray, out: np.ndarray, report: np.ndarray) -> int:
        """Deconvolve one spectrum into `out`; `report` as `richardson_lucy_one` has it."""
        if self.settings.method == "fourier_ratio":
            apply_matrix_one(self.matrix, counts, out)
            report[:] = (0.0, 0.0, np.nan)
            return DONE if np.isfinite(counts).all() else 1
        r = self.response
        return richardson_lucy_one(
            counts,
            variance,
            r.values,
            r.anchor,
            r.inverse_cover,
            r.transpose_cover,
            self.settings.iterations,
            self.settings.stop == "discrepancy",
            out,
            np.empty((2, counts.size)),
            report,
        )


def deconvolve(image: SpectrumImage, settings: Deconvolve, context: StepContext) -> StepResult:
    """Deconvolve every loss spectrum by the scan's zero-loss peak; counts are conserved, negative values are data.

    The response is the fitted split Pearson VII with the scan's mean FWHM and tails, not a measured spectrum: a
    specimen spectrum holds phonons beside the peak.

    Returns
    -------
    StepResult
        Image, its noise marked as correlated; variance by first order: exact for the linear Fourier ratio, for
        Richardson-Lucy the growth on a flat spectrum (`richardson_lucy_noise_gain`). Table ``injected_peak``: what the
        method does to a known peak on this data. Maps ``iterations``, ``offset`` and ``chi2_per_channel`` where the
        stop is by discrepancy, else ``offset``; ``status``.

    Raises
    ------
    DataError
        If `align_zlp` has not measured the zero-loss peak.
    """
    if settings.method == "none":
        return StepResult(skipped="deconvolve.method is none: the spectra keep the instrument's resolution")
    peak = zero_loss_peak(context, "deconvolve")
    method = prepare(peak, image, settings)
    maps, offset, iterations = _maps(image, method, context)
    counts, variance = _cubes(image, method, context, iterations)
    result = image.with_(counts=counts, variance=variance, noise=replace(image.noise, denoised=True), frames=None)

    mean = mean_spectrum(image, context)
    usual = int(np.median(iterations))  # by discrepancy, the mean spectrum would stop elsewhere than the single ones
    fixed = replace(method, settings=settings.model_copy(update={"iterations": max(usual, 1), "stop": "fixed"}))
    table = injected_peaks(mean, image.energy, context.material, method.response, fixed.spectrum)
    messages = [
        NO_EVIDENCE,
        "the noise of neighbouring channels is now correlated; std maps made from it are approximate",
    ]
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
    summary: dict[str, Any] = {
        "method": settings.method,
        "response": {"shape": "split Pearson VII", **vars(peak), "channels": int(method.response.values.size)},
        "noise": "correlated between channels; variance to first order",
        "iterations": usual if settings.method == "richardson_lucy" else None,
        "noise_gain": float(method.noise_gain[usual]),
        "status_counts": count_status(maps["status"].values, MEANINGS),
    }
    tables = {"injected_peak": table}
    return StepResult(image=result, maps=maps, tables=tables, summary=summary, messages=tuple(messages))


def prepare(peak: ZeroLossPeak, image: SpectrumImage, settings: Deconvolve) -> _Method:
    """Put the response on the image's dispersion and prepare the method."""
    step, n = image.energy.dispersion_mev, image.energy.n_channels
    half = max(int(settings.psf_half_width_mev / step + 1e-9), 1)
    values = split_pearson7(step * np.arange(-half, half + 1), peak.fwhm_mev, peak.tail_loss, peak.tail_gain)
    kept = np.flatnonzero(values >= SMALLEST_RESPONSE)
    response = make_response(values[kept[0] : kept[-1] + 1], half - kept[0], n)
    if settings.method == "fourier_ratio":
        matrix = fourier_ratio_matrix(response.values, response.anchor, n, settings.regularisation_fwhm_mev / step)
        middle = slice(n // 4, max(n - n // 4, n // 4 + 1))
        return _Method(settings, response, matrix, np.array([float((matrix**2).sum(axis=0)[middle].mean())]))
    gain = richardson_lucy_noise_gain(response.values, response.anchor, settings.iterations)
    return _Method(settings, response, np.empty((0, 0)), gain)


def _maps(image: SpectrumImage, method: _Method, context: StepContext) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the maps, the offset and the iterations done, (rows, columns).

    With a fixed number of iterations nothing needs to be deconvolved for them.
    """
    settings, lucy = method.settings, method.settings.method == "richardson_lucy"
    by_discrepancy = lucy and settings.stop == "discrepancy"

    def block(_: int, counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        found = np.empty((4, *counts.shape[:2]))
        out, report = np.empty(counts.shape[2]), np.empty(3)
        unknown = np.full(counts.shape[2], np.nan)
        for at in np.ndindex(counts.shape[:2]):
            spectrum = np.ascontiguousarray(counts[at], dtype=np.float64)
            if by_discrepancy:
                spread = unknown if variance is None else np.ascontiguousarray(variance[at], dtype=np.float64)
                status = method.spectrum(spectrum, spread, out, report)
            else:
                finite = bool(np.isfinite(spectrum).all())
                lift = max(0.0, -float(spectrum.min())) if finite and lucy else 0.0
                flat = finite and lucy and not spectrum.sum() + lift * spectrum.size > 0.0
                status = 2 if flat else (0 if finite else 1)
                report[:] = (settings.iterations if lucy else 0, lift, np.nan)
            found[:, at[0], at[1]] = (status, *report)
        return found

    rows = context.backend.map_rows(block, [image.counts, image.variance], progress=context.progress)
    status, iterations, offset, chi_squared = np.concatenate(rows, axis=1)
    offset = np.where(status == 1, 0.0, offset)
    values = {"offset": (offset, "as the image, per channel")} if lucy else {}
    if by_discrepancy:
        values["iterations"] = (iterations, "1")
        values["chi2_per_channel"] = (chi_squared, "1")
    return scan_dataset(image, values, status, MEANINGS), offset, iterations


def _cubes(image: SpectrumImage, method: _Method, context: StepContext, iterations: np.ndarray) -> tuple[Any, Any]:
    """Return the lazy cubes of the result and of its variance (None without variances)."""

    def counts_block(counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        spectra = np.ascontiguousarray(counts, dtype=np.float64)
        out, report = np.empty_like(spectra), np.empty(3)
        unknown = np.full(spectra.shape[2], np.nan)
        for at in np.ndindex(spectra.shape[:2]):
            spread = unknown if variance is None else np.ascontiguousarray(variance[at], dtype=np.float64)
            if method.spectrum(spectra[at], spread, out[at], report) == 1:
                out[at] = np.nan
        return out.astype(np.float32)

    def variance_block(variance: np.ndarray, done: np.ndarray) -> np.ndarray:
        spread = np.ascontiguousarray(variance, dtype=np.float64)
        if method.matrix.size == 0:
            return np.asarray(spread * method.noise_gain[done.astype(int)], dtype=np.float32)
        out, squared = np.empty_like(spread), method.matrix**2
        for at in np.ndindex(spread.shape[:2]):
            apply_matrix_one(squared, spread[at], out[at])
        return out.astype(np.float32)

    map_cube = context.backend.map_cube
    used = image.variance if method.settings.stop == "discrepancy" else None
    counts = map_cube(counts_block, [image.counts, used], dtype=np.float32)
    if image.variance is None:
        return counts, None
    return counts, map_cube(variance_block, [image.variance, iterations[..., None]], dtype=np.float32)


DECONVOLVE = StepSpec(
    name="deconvolve",
    run=deconvolve,
    routes=("classic",),
    makes={"offset": "as the image, per channel"},
    needs=("align_zlp",),
    bytes_per_channel=48.0,
    reference="Richardson 1972, doi:10.1364/JOSA.62.000055; Lucy 1974, doi:10.1086/111605",
)
