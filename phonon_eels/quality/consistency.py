"""Is the energy axis the last one, do channels have a pattern of their own, do frames drift; and what pictures show of each check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter

from phonon_eels.quality.statistics import ScanStatistics
from phonon_eels.quality.zero_loss import ZeroLoss, find_zero_loss
from phonon_eels.spectrum_image import SpectrumImage

SPECTRA = 400
"""Spectra along the middle row that are looked at, at most."""
NEAR_FWHM = 3.0
SMOOTH = 7
"""Channels of the running parabola that a pattern stands out of; it leaves 2/3 of the pattern's variance."""


@dataclass(frozen=True)
class Consistency:
    """What a few spectra and the mean spectrum say.

    Attributes
    ----------
    peak_channel
        Highest channel of spectra along the middle row, (spectra,).
    pattern_counts
        Mean spectrum less a running parabola, (channels,); NaN near the zero-loss peak.
    pattern_sigma
        Its rms beyond what counting leaves, in noise deviations of a single spectrum; NaN if it cannot be told.
    frame_zero_mev
        Zero-loss position of the middle row of each frame, (frames,); empty for one frame.
    spectra
        The middle row, (spectra, channels).
    """

    peak_channel: np.ndarray
    pattern_counts: np.ndarray
    pattern_sigma: float
    frame_zero_mev: np.ndarray
    spectra: np.ndarray


def look_at_consistency(image: SpectrumImage, statistics: ScanStatistics, zero_loss: ZeroLoss | str) -> Consistency:
    """Read the middle row of the scan, and of every frame."""
    middle = image.shape[0] // 2
    row = np.asarray(image.counts[middle, :SPECTRA], dtype=np.float64)
    finite = np.isfinite(row).all(axis=1)
    row = row[finite]
    frames = np.empty(0)
    if image.frames is not None and image.frames.shape[0] > 1:
        found = []
        for number in range(image.frames.shape[0]):
            spectra = np.asarray(image.frames[number, middle, :SPECTRA], dtype=np.float64)
            one = find_zero_loss(np.nan_to_num(spectra).mean(axis=0), image.energy)
            found.append(one.position_mev if isinstance(one, ZeroLoss) else np.nan)
        frames = np.array(found)
    pattern, sigma = _pattern(image, statistics.mean_spectrum, row, zero_loss)
    smooth = savgol_filter(row, 5, 1, axis=1) if row.size and row.shape[1] > 5 else row
    return Consistency(smooth.argmax(axis=1) if row.size else np.empty(0), pattern, sigma, frames, row)


def _pattern(
    image: SpectrumImage, mean: np.ndarray, row: np.ndarray, zero_loss: ZeroLoss | str
) -> tuple[np.ndarray, float]:
    n = mean.size
    if n < 4 * SMOOTH or len(row) < 4 or not np.isfinite(mean).all():
        return np.full(n, np.nan), float("nan")
    rest = mean - savgol_filter(mean, SMOOTH, 2)
    used = np.ones(n, bool)
    used[: SMOOTH // 2] = used[-(SMOOTH // 2) :] = False
    if isinstance(zero_loss, ZeroLoss):
        used &= np.abs(image.energy.energies_mev - zero_loss.position_mev) > NEAR_FWHM * zero_loss.fwhm_mev
    if used.sum() < SMOOTH:
        return np.full(n, np.nan), float("nan")
    # Noise of single channels: differences of neighbouring positions, where the specimen hardly changes.
    variance = 0.5 * np.mean(np.diff(row, axis=0) ** 2, axis=0)
    noise = float(np.median(variance[used]))
    if not noise > 0.0:
        noise = float(np.mean(variance[used]))
    left = float(np.mean(rest[used] ** 2)) - 2.0 / 3.0 * float(np.mean(variance[used])) / (
        image.shape[0] * image.shape[1]
    )
    shown = np.where(used, rest, np.nan)
    return shown, float(np.sqrt(max(left, 0.0) * 1.5 / noise)) if noise > 0.0 else float("nan")


def picture_points(image: SpectrumImage, seen: Consistency) -> list[tuple[str, float, float]]:
    """Return (check, x, y) of every check that no map and no mean spectrum shows, for `figures.plot_checks`."""
    row = seen.spectra
    points: list[tuple[str, float, float]] = []

    def add(check: str, x: np.ndarray, y: np.ndarray) -> None:
        points.extend((check, float(a), float(b)) for a, b in zip(x, y, strict=True))

    if row.size:
        low, high = np.quantile(row, [0.001, 0.6])
        number, edges = np.histogram(row, bins=40, range=(min(low, 0.0), max(high, low + 1.0)))
        add("negative", 0.5 * (edges[1:] + edges[:-1]), number)
        number, edges = np.histogram(np.mod(row + 1e-9, 1.0), bins=20, range=(0.0, 1.0))
        add("whole_numbers", 0.5 * (edges[1:] + edges[:-1]), number)
        top = np.sort(row, axis=1)[:, ::-1].mean(axis=0)[:12]
        add("clipping", np.arange(1, top.size + 1), top)
        add("constant", np.arange(1, top.size + 1), top)
        add(
            "axis_order",
            np.arange(seen.peak_channel.size),
            image.energy.offset_mev + image.energy.dispersion_mev * seen.peak_channel,
        )
    if len(row) > 3:
        mean, variance = row.mean(axis=0), 0.5 * np.mean(np.diff(row, axis=0) ** 2, axis=0)
        quiet = np.flatnonzero(mean <= np.quantile(mean, 0.5))
        add("read_noise_e", mean[quiet], variance[quiet])
    if np.isfinite(seen.pattern_counts).any():
        add("fixed_pattern", image.energy.energies_mev, seen.pattern_counts)
    add("frame_drift", np.arange(seen.frame_zero_mev.size), seen.frame_zero_mev)
    return points
