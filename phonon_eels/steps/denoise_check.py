"""What a denoiser does to a known peak and to known noise on these very data: put them in, see what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.spectrum_image import EnergyAxis
from phonon_eels.steps.injected_peak import INJECTED_SHIFT_MEV, RELATIVE_HEIGHT, place_and_width
from phonon_eels.steps.instrument import block_variance, half_width_channels, zero_loss_fwhm_mev
from phonon_eels.steps.maps import quantity
from phonon_eels.units import FWHM_PER_SIGMA

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.config.material import Mode
    from phonon_eels.spectrum_image import SpectrumImage
    from phonon_eels.steps.spec import StepContext

CROP = 24
"""Positions along each side of the part in the middle of the scan that is tried."""
CHECK_RUNS = 4
"""So often is that part denoised."""
PERTURBATION = 0.3
"""Size of the added noise, in standard deviations of the noise that is there: small, so that the response is linear."""
COLUMNS = (
    "mode", "energy_mev", "position_bias_mev", "injected_shift_mev", "measured_shift_mev", "fwhm_before_mev",
    "fwhm_after_mev", "area_ratio",
)  # fmt: skip

Denoiser = Callable[["SpectrumImage"], np.ndarray]
"""Image in memory -> denoised counts."""


@dataclass(frozen=True)
class DenoiserCheck:
    """Table of the injected peak, and the correlation lengths of what noise becomes."""

    table: pd.DataFrame
    summary: dict[str, Any]
    message: str


def check_denoiser(image: SpectrumImage, denoiser: Denoiser, context: StepContext) -> DenoiserCheck:
    """Try a denoiser on the middle of the scan.

    A peak at the energy of the primary mode is added everywhere (20 % of the mean spectrum there), and in half of the
    part 1 meV higher: how much of that shift is left tells how far the denoiser pulls places towards their mean. White
    noise of 0.3 standard deviations is added beside it: its autocorrelation afterwards gives the correlation lengths
    (where it has fallen to 1/e), in meV and in positions.

    Returns
    -------
    DenoiserCheck
        Empty table and a reason where the scan is too small or no mode lies on the axis.
    """
    import pandas as pd

    part = _middle(image)
    mode = _mode(image, context)
    counts = np.asarray(part.counts, dtype=np.float64)
    if mode is None or min(counts.shape[:2]) < 4 or not np.isfinite(counts).all():
        reason = "no mode of the material lies on the axis" if mode is None else "the scan is too small, or has gaps"
        return DenoiserCheck(
            pd.DataFrame(columns=list(COLUMNS)), {}, f"no peak was injected to try the denoiser: {reason}"
        )
    width = half_width_channels(zero_loss_fwhm_mev(image, context), image)
    given = None if part.variance is None else np.asarray(part.variance)
    noise_std = np.sqrt(np.maximum(block_variance(counts, given, image.noise, width), 1e-30))
    plain = denoiser(part)
    row = _injected(part, counts, plain, mode, denoiser, zero_loss_fwhm_mev(image, context))
    delta = PERTURBATION * noise_std * np.random.default_rng(context.seed).standard_normal(counts.shape)
    response = (denoiser(part.with_(counts=counts + delta)) - plain) / noise_std
    lengths = {
        "correlation_length_mev": quantity(
            correlation_length(response, 2) * image.energy.dispersion_mev, float("nan"), "meV"
        ),
        "correlation_length_positions": quantity(correlation_length(response, 1), float("nan"), "positions"),
        "noise_left": quantity(float(np.sqrt(np.mean(response**2))) / PERTURBATION, float("nan"), "1"),
    }
    message = (
        f"a peak injected at {mode.energy_mev:g} meV comes out {row['position_bias_mev']:+.2f} meV off, "
        f"{row['fwhm_after_mev'] / row['fwhm_before_mev']:.2f} times as wide, and of a shift of 1 meV in half of the "
        f"positions {row['measured_shift_mev']:.2f} meV are left; noise is correlated over "
        f"{lengths['correlation_length_mev']['value']:.3g} meV and "
        f"{lengths['correlation_length_positions']['value']:.2g} positions"
    )
    return DenoiserCheck(pd.DataFrame([row], columns=list(COLUMNS)), lengths, message)


def _middle(image: SpectrumImage) -> SpectrumImage:
    """The middle of the scan, in memory."""
    spans = []
    for axis in image.scan:
        first = max((axis.n - CROP) // 2, 0)
        spans.append(slice(first, min(first + CROP, axis.n)))
    rows, columns = spans
    # What alignment has moved out at the ends of the axis is missing: the channels that all spectra have are tried.
    finite = np.flatnonzero(np.isfinite(np.asarray(image.counts[rows, columns])).all(axis=(0, 1)))
    channels = slice(int(finite[0]), int(finite[-1]) + 1) if finite.size else slice(0, image.energy.n_channels)
    energy = EnergyAxis(
        float(image.energy.energies_mev[channels.start]), image.energy.dispersion_mev, channels.stop - channels.start
    )
    scan = tuple(replace(axis, n=span.stop - span.start) for axis, span in zip(image.scan, spans, strict=True))

    def part(array: Any) -> Any:
        return None if array is None else np.asarray(array[rows, columns, channels])

    return image.with_(
        energy=energy, counts=np.asarray(image.counts[rows, columns, channels], dtype=np.float64), variance=part(image.variance), bad=None,
        haadf=None, frames=None, haadf_frames=None, halves=None, regions=None, scan=(scan[0], scan[1]),
    )  # fmt: skip


def _mode(image: SpectrumImage, context: StepContext) -> Mode | None:
    """The mode of the primary test, else the one nearest to the middle of the axis; None where none is on it."""
    declared = context.material.primary_test
    inside = [
        mode
        for mode in context.material.modes
        if image.energy.offset_mev + 2 * mode.fwhm_mev < mode.energy_mev < image.energy.last_mev - 2 * mode.fwhm_mev
    ]
    named = [mode for mode in inside if declared is not None and mode.name == declared.mode]
    middle = 0.5 * (image.energy.offset_mev + image.energy.last_mev)
    ordered = named or sorted(inside, key=lambda mode: abs(mode.energy_mev - middle))
    return ordered[0] if ordered else None


def _injected(
    part: SpectrumImage, counts: np.ndarray, plain: np.ndarray, mode: Mode, denoiser: Denoiser, zero_loss_mev: float
) -> dict[str, Any]:
    energies = part.energy.energies_mev
    sigma = float(np.hypot(mode.fwhm_mev, zero_loss_mev)) / FWHM_PER_SIGMA
    here = int(np.argmin(np.abs(energies - mode.energy_mev)))
    dark = part.noise.dark_level if part.variance is None else 0.0
    height = RELATIVE_HEIGHT * max(float(counts[:, :, here].mean()) - dark, 1e-12)
    lines = [height * np.exp(-0.5 * ((energies - mode.energy_mev - s) / sigma) ** 2) for s in (0.0, INJECTED_SHIFT_MEV)]
    near = np.abs(energies - mode.energy_mev) <= 2.0 * FWHM_PER_SIGMA * sigma
    half = counts.shape[1] // 2
    everywhere = np.broadcast_to(lines[0], counts.shape)
    moved = np.array(everywhere)
    moved[:, :half] = lines[1]
    found, truth = [], []
    for added in (everywhere, moved):
        seen = (denoiser(part.with_(counts=counts + added)) - plain)[:, :half].mean(axis=(0, 1))
        found.append((*place_and_width(energies[near], seen[near]), float(seen[near].sum())))
        wanted = added[:, :half].mean(axis=(0, 1))
        truth.append((*place_and_width(energies[near], wanted[near]), float(wanted[near].sum())))
    return {
        "mode": mode.name,
        "energy_mev": mode.energy_mev,
        "position_bias_mev": found[0][0] - truth[0][0],
        "injected_shift_mev": INJECTED_SHIFT_MEV,
        "measured_shift_mev": found[1][0] - found[0][0],
        "fwhm_before_mev": truth[0][1],
        "fwhm_after_mev": found[0][1],
        "area_ratio": found[0][2] / truth[0][2],
    }


def correlation_length(values: np.ndarray, axis: int) -> float:
    """Return the lag at which the autocorrelation along an axis has fallen to 1/e, interpolated; the axis' length if never."""
    moved = np.moveaxis(values, axis, -1)
    centred = moved - moved.mean(axis=-1, keepdims=True)
    n = centred.shape[-1]
    total = float(np.mean(centred**2))
    if not total > 0.0:
        return float("nan")
    before = 1.0
    for lag in range(1, n):
        now = float(np.mean(centred[..., lag:] * centred[..., :-lag])) / total
        if now < np.exp(-1.0):
            return lag - 1 + (before - float(np.exp(-1.0))) / (before - now)
        before = now
    return float(n)
