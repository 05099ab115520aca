"""Denoise spectra: weighted PCA, NMF, BM3D energy by energy, BM4D. Off by default: it correlates noise and hides bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.bm3d_slices import affordable, denoise_slices, denoise_volume
from phonon_eels.steps.denoise_check import check_denoiser
from phonon_eels.steps.instrument import block_variance, half_width_channels, zero_loss_fwhm_mev
from phonon_eels.steps.maps import quantity
from phonon_eels.steps.nonnegative import components, nonnegative_shares
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    from phonon_eels.config.settings import Denoise
    from phonon_eels.spectrum_image import SpectrumImage

GRAM_BYTES = 200_000_000
"""Memory for the products of single rows that are waiting to be added in order."""

TRACY_WIDOM_99 = 2.02
"""99 % quantile of the Tracy-Widom law for real matrices: pure noise puts an eigenvalue above the edge once in 100."""

RESAMPLED_EXCESS = 1.0 / 0.640625
"""Largest excess of slow noise over the single-channel variance after resampling, at a shift of half a channel."""

PRESENT_SHARE = 0.99
"""Share of the spectra that must reach an end of the span of channels that is used; the few others stay as they are."""

NOT_POISSON = (
    "denoised spectra are marked: their noise is correlated between channels and positions, their apparent precision "
    "can lie below the Cramér-Rao bound by bias, and likelihood fits of raw counts refuse them"
)


@dataclass(frozen=True)
class _Scaling:
    """Noise scale: std of position × std of channel makes the noise of the scaled data (nearly) one everywhere."""

    position: np.ndarray  # (rows, columns), NaN where the spectrum is not used
    channel: np.ndarray  # (channels,), 0 where the channel is not used
    n_positions: int
    n_channels: int
    span: slice  # channels that (nearly) every spectrum has; the others stay as they are


def denoise(image: SpectrumImage, settings: Denoise, context: StepContext) -> StepResult:
    """Replace the spectra by their low-rank part (pca, nmf) or the cube by a smoothed one (bm3d by energy, bm4d whole).

    Returns
    -------
    StepResult
        Image with ``noise.denoised`` set, which forbids likelihood fits of raw counts downstream. Summary: rank, explained
        share and effective degrees of freedom (pca, nmf), correlation lengths of what noise becomes. Table
        ``injected_peak``: what the method does to a known peak in the middle of the scan (`check_denoiser`).

    Raises
    ------
    ConfigError
        If bm3d or bm4d is asked for and its package is not installed, or it would take longer than `longest_min`.
    DataError
        If no spectrum is finite.

    Notes
    -----
    The principal components are those of the counts scaled by the square roots of the mean variance of their row and
    column of the (positions × channels) matrix (Keenan and Kotula, doi:10.1002/sia.1657); their number is that of the
    eigenvalues above the Marchenko-Pastur edge of pure noise. The channel × channel products are formed row by row of
    the scan and added in that order, so memory does not grow with the scan and bits do not depend on blocks.
    """
    if settings.method == "none":
        return StepResult(skipped="denoise.method is none: the spectra keep their noise")
    if settings.method in ("bm3d", "bm4d"):
        minutes = affordable(image, settings.method, settings.longest_min)
        smooth = denoise_slices if settings.method == "bm3d" else denoise_volume
        counts, variance = smooth(image, settings.strength, context)
        result = image.with_(counts=counts, variance=variance, noise=replace(image.noise, denoised=True), frames=None)
        carried = "the variance is that before denoising: an upper bound that leaves out the bias of the smoothing"
        made = StepResult(
            image=result,
            summary={
                "method": settings.method,
                "strength": settings.strength,
                "noise": "correlated between positions",
                "expected_minutes": minutes,
            },
            messages=(NOT_POISSON, carried),
        )
    else:
        made = _low_rank(image, settings, context)
        settings = settings.model_copy(update={"components": int(made.summary["rank"])})
    tried = check_denoiser(image, partial(_again, settings=settings, context=context), context)
    return replace(
        made,
        tables={**made.tables, "injected_peak": tried.table},
        summary={**made.summary, **tried.summary},
        messages=(*made.messages, tried.message),
    )


def _again(part: SpectrumImage, settings: Denoise, context: StepContext) -> np.ndarray:
    """Denoise a small image in the same way, in memory."""
    quiet = replace(context, progress=lambda done, total: None)
    if settings.method in ("bm3d", "bm4d"):
        smooth = denoise_slices if settings.method == "bm3d" else denoise_volume
        counts = smooth(part, settings.strength, quiet)[0]
    else:
        found = _low_rank(part, settings, quiet).image
        assert found is not None
        counts = found.counts
    return np.asarray(counts, dtype=np.float64)


def _low_rank(image: SpectrumImage, settings: Denoise, context: StepContext) -> StepResult:
    half_width = half_width_channels(zero_loss_fwhm_mev(image, context), image)
    scaling = _noise_scaling(image, context, half_width)
    values, vectors = context.backend.whole_array(_eigen, _gram(image, context, scaling))
    edge = _noise_edge(scaling.n_positions, scaling.n_channels)
    if image.variance is not None:
        edge *= RESAMPLED_EXCESS
    rank = settings.components or max(int((values > edge).sum()), 1)
    rank = min(rank, scaling.n_channels, scaling.n_positions)
    basis, strength = np.ascontiguousarray(vectors[:, :rank]), values[:rank]
    passes = None
    spectra = basis.T
    if settings.method == "nmf":
        spectra, passes = components(_scaled_rows(image, context, scaling), basis)
        basis = np.linalg.qr(spectra.T)[0]
        strength = np.maximum(np.einsum("ck,cd,dk->k", basis, vectors * values, vectors.T @ basis), 1e-300)
    counts, variance = _projected(
        image, context, scaling, basis, strength, half_width, None if passes is None else spectra
    )
    degrees = rank * (scaling.n_positions + scaling.n_channels - rank)
    chosen = "given" if settings.components else "eigenvalues above the Marchenko-Pastur edge"
    explained = float(strength.sum() / max(values.sum(), 1e-300))
    shown = min(rank + 5, values.size)
    messages = [
        NOT_POISSON,
        f"kept {rank} {'principal' if passes is None else 'non-negative'} components ({chosen}), "
        f"{100 * explained:.4g} % of the scaled variance",
    ]
    if not settings.components and not (values > edge).any():
        messages.append("no component stands out of the noise: only the first one was kept")
    skipped = int(np.isnan(scaling.position).sum())
    if skipped:
        messages.append(f"{skipped} spectra are not finite; they take no part and stay as they are")
    unused = image.energy.n_channels - (scaling.span.stop - scaling.span.start)
    if unused:
        first, last = (image.energy.energies_mev[k] for k in (scaling.span.start, scaling.span.stop - 1))
        messages.append(
            f"{unused} channels at the ends of the axis are missing in some spectra (alignment moved them out) and stay as "
            f"they are; denoised is {first:g} to {last:g} meV"
        )
    summary: dict[str, Any] = {
        "method": settings.method,
        **({} if passes is None else {"passes": passes}),
        "rank": rank,
        "rank_chosen_by": chosen,
        "explained": quantity(explained, float("nan"), "1"),
        "effective_degrees_of_freedom": degrees,
        "degrees_of_freedom_of_the_data": scaling.n_positions * scaling.n_channels,
        "noise_edge": edge,
        "largest_eigenvalues": [float(value) for value in values[:shown]],
        "noise": "correlated between channels and positions",
    }
    result = image.with_(counts=counts, variance=variance, noise=replace(image.noise, denoised=True), frames=None)
    return StepResult(image=result, summary=summary, messages=tuple(messages))


def _noise_scaling(image: SpectrumImage, context: StepContext, half_width: int) -> _Scaling:
    """Return the mean noise of each position and of each channel; NaN variances (not measured) are left out."""
    span = _common_span(image, context)

    def block(_: int, counts: np.ndarray, variance: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = []
        for number in range(counts.shape[0]):
            row = np.ascontiguousarray(counts[number], dtype=np.float64)
            given = None if variance is None else variance[number : number + 1]
            spread = block_variance(row[None], given, image.noise, half_width)[0]
            outside = np.ones(spread.shape[-1], bool)
            outside[span] = False
            spread = np.where(np.isfinite(spread) & ~outside, spread, 0.0)
            used = np.isfinite(row[:, span]).all(axis=1)
            rows.append((np.where(used, spread[:, span].mean(axis=1), np.nan), spread[used].sum(axis=0)))
        return rows

    per_position, per_channel = [], np.zeros(image.energy.n_channels)
    for rows in context.backend.map_rows(block, [image.counts, image.variance], progress=context.progress):
        for position, channel in rows:
            per_position.append(position)
            per_channel += channel
    position = np.array(per_position)
    n_positions = int((position > 0.0).sum())
    if n_positions < 2 or not per_channel.sum() > 0.0:
        raise DataError(
            "denoise.method = pca needs at least two finite spectra with counts; set denoise.method to none"
        )
    overall = float(np.nanmean(np.where(position > 0.0, position, np.nan)))
    channel = np.sqrt(per_channel / n_positions / overall)
    return _Scaling(
        np.where(position > 0.0, np.sqrt(position), np.nan), channel, n_positions, int((channel > 0.0).sum()), span
    )


def _common_span(image: SpectrumImage, context: StepContext) -> slice:
    """Return the run of channels that the spectra have in common.

    Resampling to a common energy origin leaves channels at the ends of the axis that a spectrum does not have. A spectrum
    that is missing altogether, or for the most part, has no say; nor has the last hundredth of the others.
    """

    def block(_: int, counts: np.ndarray) -> list[np.ndarray]:
        ends = []
        for row in counts:
            finite = np.isfinite(row)
            ends.append(
                np.column_stack(
                    [finite.argmax(axis=1), n - finite[:, ::-1].argmax(axis=1), finite.sum(axis=1)],
                )
            )
        return ends

    n = image.energy.n_channels
    parts = context.backend.map_rows(block, [image.counts])
    first, after, present = np.concatenate([row for rows in parts for row in rows]).T
    some = present > n // 2
    if not some.any():
        return slice(0, n)
    low = int(np.quantile(first[some], PRESENT_SHARE, method="higher"))
    high = int(np.quantile(after[some], 1.0 - PRESENT_SHARE, method="lower"))
    return slice(low, high) if high - low > 1 else slice(0, n)


def _scaled_row(image: SpectrumImage, row: np.ndarray, position: np.ndarray, channel: np.ndarray) -> np.ndarray:
    """Return a row of the scan in units of its noise, (columns, channels); unused spectra and channels are 0."""
    values = np.ascontiguousarray(row, dtype=np.float64) - image.noise.dark_level
    scale = position[:, None] * channel
    usable = (scale > 0.0) & np.isfinite(values)
    return np.asarray(np.where(usable, values / np.where(usable, scale, 1.0), 0.0))


def _gram(image: SpectrumImage, context: StepContext, scaling: _Scaling) -> np.ndarray:
    """Return the channel × channel products of the scaled spectra, added row by row."""
    n, n_rows = image.energy.n_channels, image.scan[0].n
    at_once = max(1, GRAM_BYTES // (8 * n * n))

    def block(_: int, counts: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
        scaled = [_scaled_row(image, row, at, scaling.channel) for row, at in zip(counts, position, strict=True)]
        return [row.T @ row for row in scaled]

    total = np.zeros((n, n))
    for first in range(0, n_rows, at_once):
        part = slice(first, first + at_once)
        for products in context.backend.map_rows(block, [image.counts[part], scaling.position[part]]):
            for product in products:
                total += product
        context.progress(min(first + at_once, n_rows), n_rows)
    return total


def _scaled_rows(image: SpectrumImage, context: StepContext, scaling: _Scaling) -> Any:
    """Return what calls a function on every scaled row of the scan, in order."""

    def each(function: Any) -> Any:
        def block(_: int, counts: np.ndarray, position: np.ndarray) -> list[Any]:
            pairs = zip(counts, position, strict=True)
            return [function(_scaled_row(image, row, at, scaling.channel)) for row, at in pairs]

        blocks = context.backend.map_rows(block, [image.counts, scaling.position])
        return (result for results in blocks for result in results)

    return each


def _eigen(on: Any, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues, largest first, and eigenvectors in columns, each with its largest element positive.

    For `Backend.whole_array`. They are the squared singular values and the right singular vectors of the scaled data.
    """
    xp = on.xp
    values, vectors = xp.linalg.eigh(gram)
    values, vectors = xp.maximum(values[::-1], 0.0), vectors[:, ::-1]
    largest = xp.take_along_axis(vectors, xp.abs(vectors).argmax(axis=0)[None], axis=0)
    return values, vectors * xp.where(largest < 0.0, -1.0, 1.0)


def _noise_edge(n_positions: int, n_channels: int) -> float:
    """Return the 99 % quantile of the largest eigenvalue of XᵀX for unit noise (doi:10.1214/aos/1009210544)."""
    a, b = np.sqrt(n_positions - 1.0), np.sqrt(n_channels)
    return float((a + b) ** 2 + TRACY_WIDOM_99 * (a + b) * (1.0 / a + 1.0 / b) ** (1.0 / 3.0))


def _projected(
    image: SpectrumImage,
    context: StepContext,
    scaling: _Scaling,
    basis: np.ndarray,
    strength: np.ndarray,
    half_width: int,
    nonnegative: np.ndarray | None = None,
) -> tuple[Any, Any]:
    """Return the lazy cubes of the low-rank spectra and of their variance.

    `nonnegative` are components with non-negative shares; without them the spectra are projected on the basis.

    The variance is that before, times h + g - h g: h is the share of a channel in the kept components, g that of a
    position, the first-order noise of a low-rank approximation. Bias is not in it.
    """
    share = (basis**2).sum(axis=1)
    gram = np.empty((0, 0)) if nonnegative is None else nonnegative @ nonnegative.T

    def counts_block(counts: np.ndarray, position: np.ndarray) -> np.ndarray:
        out = np.empty(counts.shape, dtype=np.float32)
        for number in range(counts.shape[0]):
            at = position[number, :, 0]
            row = _scaled_row(image, counts[number], at, scaling.channel)
            if nonnegative is None:
                low_rank = (row @ basis) @ basis.T
            else:
                low_rank = nonnegative_shares(row @ nonnegative.T, gram) @ nonnegative
            restored = low_rank * (at[:, None] * scaling.channel) + image.noise.dark_level
            out[number] = np.where(np.isfinite(restored) & (scaling.channel > 0.0), restored, counts[number])
        return out

    def variance_block(counts: np.ndarray, variance: np.ndarray | None, position: np.ndarray) -> np.ndarray:
        own = block_variance(counts, variance, image.noise, half_width)
        out = np.empty(counts.shape, dtype=np.float32)
        for number in range(counts.shape[0]):
            scores = _scaled_row(image, counts[number], position[number, :, 0], scaling.channel) @ basis
            leverage = np.minimum((scores**2 / strength).sum(axis=1), 1.0)[:, None]
            kept = share + leverage - share * leverage
            used = np.isfinite(position[number]) & (scaling.channel > 0.0)
            out[number] = own[number] * np.where(used, kept, 1.0)
        return out

    position = scaling.position[..., None]
    counts = context.backend.map_cube(counts_block, [image.counts, position], dtype=np.float32)
    arrays = [image.counts, image.variance, position]
    return counts, context.backend.map_cube(variance_block, arrays, dtype=np.float32)


DENOISE = StepSpec(
    name="denoise",
    run=denoise,
    routes=("classic",),
    bytes_per_channel=48.0,
    reference="Keenan and Kotula 2004, doi:10.1002/sia.1657; Cichocki and Phan 2009; Dabov 2007, doi:10.1109/TIP.2007.901238; Maggioni 2013, doi:10.1109/TIP.2012.2210725",
)
