"""From expected electrons to detector numbers: counting, spread, gain, dark level, read noise, spikes, saturation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from phonon_eels.config import SimulationSettings
from phonon_eels.simulate.seeds import Stream, generator
from phonon_eels.units import FWHM_PER_SIGMA

UINT16_TOP = 65535
NEIGHBOUR_SHARE = 0.3
"""Share of a cosmic ray that the next channel gets."""


@dataclass(frozen=True)
class Spikes:
    """Cosmic rays of one row: `column` and `channel` (n,), and the detector counts they add there."""

    column: np.ndarray
    channel: np.ndarray
    counts: np.ndarray


def channel_gains(settings: SimulationSettings) -> np.ndarray:
    """Detector counts per electron of every channel, (channels,): the gain and its fixed pattern."""
    rng = generator(settings.seed, Stream.FIXED_PATTERN)
    pattern = 1.0 + settings.detector.fixed_pattern * rng.standard_normal(settings.energy.channels)
    return settings.detector.gain * pattern


def spread_kernel(settings: SimulationSettings) -> np.ndarray:
    """Share of an electron's signal in its own and the neighbouring channels (odd length, sum 1)."""
    fwhm = settings.detector.psf_fwhm_channels
    if fwhm == 0.0:
        return np.ones(1)
    sigma = fwhm / FWHM_PER_SIGMA
    half = int(np.ceil(4.0 * sigma + 0.5))
    edges = (np.arange(-half, half + 2) - 0.5) / sigma
    kernel = np.diff(ndtr(edges))
    return kernel / kernel.sum()


def noise_correlation(settings: SimulationSettings) -> float:
    """True gain over the single-channel variance / mean that the spread leaves; 1 without spread."""
    return float(1.0 / np.sum(spread_kernel(settings) ** 2))


def spikes_of_row(settings: SimulationSettings, frame: int, row: int) -> Spikes:
    """Draw the cosmic rays of one row of one frame; a ray also hits the channel after its own."""
    detector = settings.detector
    n_columns, n_channels = settings.scan.columns, settings.energy.channels
    rng = generator(settings.seed, Stream.SPIKES, frame, row)
    n = rng.poisson(detector.spike_rate * n_columns * n_channels)
    column, channel = rng.integers(0, n_columns, n), rng.integers(0, n_channels, n)
    counts = detector.spike_minimum_counts * (1.0 + rng.pareto(detector.spike_exponent, n))
    inside = channel + 1 < n_channels
    return Spikes(
        np.concatenate([column, column[inside]]),
        np.concatenate([channel, channel[inside] + 1]),
        np.concatenate([counts, NEIGHBOUR_SHARE * counts[inside]]),
    )


def detect_row(
    settings: SimulationSettings, electrons: np.ndarray, gains: np.ndarray, frame: int, row: int
) -> np.ndarray:
    """Turn expected electrons of one row into detector numbers.

    Parameters
    ----------
    electrons
        Expected electrons, (columns, channels).
    gains
        Counts per electron of every channel; see `channel_gains`.

    Returns
    -------
    ndarray
        (columns, channels) in the detector's type.
    """
    detector = settings.detector
    rng = generator(settings.seed, Stream.DETECTOR, frame, row)
    seen = rng.poisson(electrons).astype(float) if detector.poisson else np.array(electrons, dtype=float)
    kernel = spread_kernel(settings)
    if len(kernel) > 1:
        # What the spread carries beyond the first and last channel is lost, as on a real detector.
        seen = np.apply_along_axis(np.convolve, 1, seen, kernel, mode="same")
    if detector.read_noise_e:
        seen += detector.read_noise_e * rng.standard_normal(seen.shape)
    counts = seen * gains + detector.dark_level
    spikes = spikes_of_row(settings, frame, row)
    np.add.at(counts, (spikes.column, spikes.channel), spikes.counts)
    if detector.saturation_counts is not None:
        counts = np.minimum(counts, detector.saturation_counts)
    if detector.dtype == "uint16":
        return np.clip(np.rint(counts), 0, UINT16_TOP).astype(np.uint16)
    return counts.astype(np.float32)
