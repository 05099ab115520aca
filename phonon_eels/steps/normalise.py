"""Divide every spectrum by its zero-loss or its total number of electrons, variance carried."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.spectrum_image import NoiseModel, StepResult
from phonon_eels.steps.instrument import (
    block_variance,
    half_width_channels,
    zero_loss_fwhm_mev,
)
from phonon_eels.steps.maps import count_status, quantity, scan_dataset
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    from phonon_eels.config.settings import Normalise
    from phonon_eels.spectrum_image import SpectrumImage

MEANINGS = ("ok", "normaliser_not_positive", "normaliser_not_known")
Block = Callable[..., np.ndarray]


def normalise(image: SpectrumImage, settings: Normalise, context: StepContext) -> StepResult:
    """Turn detector counts into electrons per channel over electrons of the zero-loss peak (or of the whole spectrum).

    Returns
    -------
    StepResult
        Image in 1/channel with its variance; maps ``normaliser_e`` (electrons) with std and ``status``.

    Notes
    -----
    The variance of z/N is var z/N² + z̄² var N/N⁴ - 2 z̄ cov(z, N)/N³, to first order in the noise; z̄ is a local mean
    where the noise model gives the variance. The covariance is var z for channels that N was counted from (all of
    them for ``total``, those within one FWHM of zero for ``zero_loss``) and 0 elsewhere. What is neglected: N is common
    to all channels of a position and so correlates them, by 1/N relative to their means; it scales a spectrum
    as a whole and moves no peak.
    """
    if settings.method == "none":
        return StepResult(skipped="normalise.method is none: the spectra keep their detector counts")
    fwhm = zero_loss_fwhm_mev(image, context)
    half_width = half_width_channels(fwhm, image)
    inside = np.ones(image.energy.n_channels, dtype=bool)
    if settings.method == "zero_loss":
        inside = np.abs(image.energy.energies_mev) <= fwhm
    electrons, std, origin = _normaliser(image, settings, context, inside, half_width)
    status = np.where(~np.isfinite(electrons) | ~np.isfinite(std), 2, np.where(electrons > 0.0, 0, 1))
    used, used_std = np.where(status == 0, electrons, np.nan), np.where(status == 0, std, np.nan)

    value, variance = _blocks(image.noise, inside, half_width)
    factors = (used[..., None], used_std[..., None])
    cubes = [image.counts, image.variance, *factors]
    noise = NoiseModel(
        noise_correlation=image.noise.noise_correlation, source=image.noise.source, denoised=image.noise.denoised
    )
    result = image.with_(
        counts=context.backend.map_cube(value, cubes, dtype=np.float32),
        variance=context.backend.map_cube(variance, cubes, dtype=np.float32),
        noise=noise,
        frames=None,
    )
    maps = scan_dataset(
        image, {"normaliser_e": (used, "electrons"), "normaliser_e_std": (used_std, "electrons")}, status, MEANINGS
    )
    counts = count_status(status, MEANINGS)
    failed = status.size - counts["ok"]
    messages = [f"normalised by {origin}; the spectra are now in 1/channel"]
    if failed:
        messages.append(
            f"{failed} of {status.size} positions have no positive normaliser; "
            f"their spectra are NaN and stay in the maps as failed"
        )
    typical = float(np.nanmedian(used)) if counts["ok"] else float("nan")
    summary: dict[str, Any] = {
        "unit": "1/channel",
        "area_unit": "1",
        "normaliser": origin,
        "normaliser_median": quantity(typical, float("nan"), "electrons", "ok" if counts["ok"] else "failed"),
        "status_counts": counts,
    }
    return StepResult(image=result, maps=maps, summary=summary, messages=tuple(messages))


def _normaliser(
    image: SpectrumImage, settings: Normalise, context: StepContext, inside: np.ndarray, half_width: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return electrons and their std per position, (rows, columns), and in words what they are."""
    maps = context.maps.get("align_zlp")
    if settings.method == "zero_loss" and maps is not None and "zlp_counts" in maps:
        electrons = np.asarray(maps["zlp_counts"].values, dtype=np.float64)
        known = maps.get("zlp_counts_std")
        std = np.sqrt(np.maximum(electrons, 0.0)) if known is None else np.asarray(known.values, dtype=np.float64)
        return electrons, std, "the electrons of the fitted zero-loss peak (zlp_counts of align_zlp)"
    noise = image.noise

    def sums(_: int, counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        in_electrons = (np.ascontiguousarray(counts, dtype=np.float64)[..., inside] - noise.dark_level) / noise.gain
        variances = block_variance(counts, variance, noise, half_width)[..., inside] / noise.gain**2
        # Channels that a resampling has left unmeasured (NaN variance) hold no counts and take no part.
        return np.stack([np.ascontiguousarray(in_electrons).sum(-1), np.nansum(np.ascontiguousarray(variances), -1)])

    rows = context.backend.map_rows(sums, [image.counts, image.variance], progress=context.progress)
    electrons, variance = np.concatenate(rows, axis=1)
    where = "all channels" if settings.method == "total" else "the channels within one FWHM of the zero-loss peak"
    return electrons, np.sqrt(variance), f"the electrons of {where}"


def _blocks(noise: NoiseModel, inside: np.ndarray, half_width: int) -> tuple[Block, Block]:
    """Return the functions that make a block of values and of variances."""

    def value(counts: np.ndarray, _: np.ndarray | None, electrons: np.ndarray, __: np.ndarray) -> np.ndarray:
        scaled = (np.asarray(counts, dtype=np.float64) - noise.dark_level) / noise.gain / electrons
        return np.asarray(scaled, dtype=np.float32)

    def variance(counts: np.ndarray, given: np.ndarray | None, electrons: np.ndarray, std: np.ndarray) -> np.ndarray:
        own = block_variance(counts, given, noise, half_width) / noise.gain**2
        if given is None:
            mean = own - noise.read_noise_e**2  # the local mean that the variance was made of
        else:
            mean = (np.asarray(counts, dtype=np.float64) - noise.dark_level) / noise.gain
        common = mean**2 * std**2 / electrons**4 - np.where(inside, 2.0 * mean * own / electrons**3, 0.0)
        # First order can fall below 0 only where one channel holds nearly all electrons; the rest is then noise of N.
        return np.asarray(np.maximum(own / electrons**2 + common, 0.0), dtype=np.float32)

    return value, variance


NORMALISE = StepSpec(
    name="normalise",
    run=normalise,
    routes=("classic",),
    makes={"normaliser_e": "electrons"},
    needs=("align_zlp",),
    bytes_per_channel=32.0,
    reference="first-order propagation of a quotient",
)
