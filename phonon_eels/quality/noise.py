"""What the data themselves tell about the detector: gain, dark level, read noise, and how channels share noise.

Neighbouring positions see nearly the same spectrum, so the difference of a position from the mean of its two
neighbours is noise (and what drifts or changes from position to position, which is modelled and taken off). For counts
y of a detector with gain g its variance is g·(mean − dark) + g²·read², a straight line in the mean. A detector that
spreads an electron over channels lowers the variance of single channels but not of wide bins: the gain is the plateau
over increasing bins. Variance and mean alone cannot tell a dark level from read noise; the third cumulant can, because
it belongs to the electrons alone: g³ times their number.

A value that the data do not determine stays unknown, with the reason: a wrong one is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from phonon_eels.quality.zero_loss import ZeroLoss
from phonon_eels.spectrum_image import SpectrumImage

_BINS = (1, 2, 4, 8, 16)
_MIN_BINS = 12
_MIN_DIFFERENCES = 30
_SAMPLE_VALUES = 3_000_000
# For the difference from the mean of two neighbours, weights (−1/2, 1, −1/2): sums of their squares and cubes. Such
# differences overlap, with correlations −2/3 and 1/6; their squares (cubes) are worth one in 1.944 (0.417) independent
# ones: 1 + 2 Σ ρ² (1 + 2 Σ ρ³).
_SQUARES, _CUBES, _OVERLAP, _OVERLAP_CUBES = 1.5, 0.75, 1.944, 0.417


@dataclass(frozen=True)
class Measured:
    """A value with its standard deviation."""

    value: float
    std: float


@dataclass(frozen=True)
class NoiseEstimate:
    """What could be measured; None with a reason where it could not.

    Attributes
    ----------
    gain
        Detector counts per electron.
    dark_level
        Detector counts per channel without electrons.
    read_noise_e
        Electrons per channel and position.
    noise_correlation
        Gain over variance/mean of single channels, 1 for independent channels.
    reasons
        Sentences on what could not be measured.
    """

    gain: Measured | None = None
    dark_level: Measured | None = None
    read_noise_e: Measured | None = None
    noise_correlation: float = 1.0
    reasons: tuple[str, ...] = ()


def estimate_noise(
    image: SpectrumImage, zero_loss: ZeroLoss | None = None, positions: np.ndarray | None = None
) -> NoiseEstimate:
    """Measure gain, dark level and read noise on a sample of whole rows of a scan.

    Parameters
    ----------
    image
        Raw counts; nothing resampled, subtracted or denoised, which correlates the noise.
    zero_loss
        The zero-loss peak; its steep core, where drift outweighs noise, is left out.
    positions
        True where a position may be used, (rows, columns); default all.

    Returns
    -------
    NoiseEstimate
        In the units of `image.counts`, for the sum of all frames.
    """
    if image.noise.denoised or image.variance is not None:
        return NoiseEstimate(reasons=("the counts are not raw any more, so their noise says nothing of the detector",))
    sample = _sample(image, positions)
    n_differences = np.zeros(image.energy.n_channels, dtype=np.int64)
    if sample.shape[1] >= 3:
        n_differences = np.sum(np.isfinite(_differences(sample)), axis=(0, 1))
    usable: np.ndarray = n_differences >= _MIN_DIFFERENCES
    if not np.any(usable):
        return NoiseEstimate(
            reasons=(f"{image.shape[0]} × {image.shape[1]} positions are too few to measure gain and dark level",)
        )
    sample[..., ~usable] = 0.0
    _blank_spikes(sample)
    if zero_loss is not None:
        usable &= np.abs(image.energy.energies_mev - zero_loss.position_mev) > 1.5 * zero_loss.fwhm_mev
    slopes = {size: _slope(sample, usable, size) for size in _BINS}
    plateau = _plateau({size: slope for size, slope in slopes.items() if slope is not None})
    if plateau is None:
        return NoiseEstimate(reasons=("the gain is not determined: variance does not grow clearly with the counts",))
    gain, size = plateau
    single = slopes[1]
    correlation = max(1.0, gain.value / single.value) if size > 1 and single is not None else 1.0
    dark, read, reasons = _dark_and_read(sample, usable, gain, correlation)
    return NoiseEstimate(gain, dark, read, correlation, reasons)


def _sample(image: SpectrumImage, positions: np.ndarray | None) -> np.ndarray:
    """Return whole rows spread evenly over the scan, (rows, columns, channels), NaN where a position may not be used.

    A scan of one or two columns is turned.
    """
    rows, columns, channels = image.shape
    if columns < 3:
        chosen, width = np.arange(min(rows, 3 + _SAMPLE_VALUES // (columns * channels))), columns
    else:
        wanted = max(1, min(rows, _SAMPLE_VALUES // (columns * channels)))
        chosen = np.unique(np.linspace(0, rows - 1, wanted).round().astype(int))
        width = min(columns, max(3, _SAMPLE_VALUES // channels))
    sample = np.stack([np.array(image.counts[int(row), :width], dtype=np.float64) for row in chosen])
    if positions is not None:
        sample[~positions[chosen, :width]] = np.nan
    return sample.transpose(1, 0, 2) if columns < 3 else sample


def _slope(sample: np.ndarray, usable: np.ndarray, size: int) -> Measured | None:
    """Fit variance = constant + gain·mean + (energy jitter)²·slope² + (intensity jitter)²·mean² over channel bins."""
    binned, keep = _binned(sample, usable, size)
    if np.count_nonzero(keep) < _MIN_BINS:
        return None
    residuals = _differences(binned)
    mean = np.nanmean(binned, axis=(0, 1))
    steepness = np.gradient(mean) if mean.size > 2 else np.zeros_like(mean)
    variance, n = _clipped_variance(residuals)
    mean, steepness, variance = mean[keep], steepness[keep], variance[keep]
    scale = max(float(np.max(np.abs(mean))), 1e-300)
    one = np.ones_like(mean)
    columns = np.stack([mean / scale, (steepness / scale) ** 2, (mean / scale) ** 2, one, -one], axis=1)
    good, expected = variance > 0, np.maximum(variance, np.median(variance) * 1e-3)
    fitted = np.zeros(5)
    for _ in range(6):
        if np.count_nonzero(good) < _MIN_BINS:
            return None
        std = expected * np.sqrt(2.0 * _OVERLAP / n)
        fitted, _ = nnls(columns[good] / std[good, None], variance[good] / std[good])
        model = columns @ fitted
        # Weights from the model, not from the noisy variances, which would pull the line down.
        expected = np.maximum(model, 0.05 * np.median(variance))
        pulls = (variance - model) / (expected * np.sqrt(2.0 * _OVERLAP / n))
        good = np.abs(pulls) < 5.0 * max(1.0, 1.4826 * float(np.median(np.abs(pulls))))
    active = fitted > 0
    active[4] &= not active[3]
    if not active[0]:
        return None
    std = expected * np.sqrt(2.0 * _OVERLAP / n)
    design = (columns / std[:, None])[good][:, active]
    pulls = ((variance - columns @ fitted) / std)[good]
    excess = max(1.0, float(np.sum(pulls**2)) / max(pulls.size - int(active.sum()), 1))
    covariance = np.linalg.pinv(design.T @ design) * excess
    value, std_value = fitted[0] / scale, float(np.sqrt(covariance[0, 0])) / scale
    return Measured(float(value), std_value) if value > 5.0 * std_value else None


def _plateau(slopes: dict[int, Measured]) -> tuple[Measured, int] | None:
    """Return the slope that bins of growing width settle at, and the width from which on they do.

    Where single channels already give it, their slope is the best known. Otherwise a spread of finite width loses
    a fixed number of electrons at the edges of each bin, so the slope approaches the gain as 1 − constant/width.
    """
    if not slopes:
        return None
    first = min(slopes)
    wider = [other for size, other in slopes.items() if size > first]
    if all(other.value <= 1.08 * slopes[first].value + 2.0 * other.std for other in wider):
        return slopes[first], first
    wide = {size: slope for size, slope in slopes.items() if size >= 4}
    if len(wide) < 2:
        return None
    inverse = np.array([1.0 / size for size in wide])
    values = np.array([slope.value for slope in wide.values()])
    std = np.array([slope.std for slope in wide.values()])
    design = np.stack([np.ones_like(inverse), inverse], axis=1) / std[:, None]
    covariance = np.linalg.inv(design.T @ design)
    gain = float((covariance @ design.T @ (values / std))[0])
    # The bins share their data and the law is an idealisation: what it adds is taken as uncertain.
    doubt = abs(gain - float(values[-1]))
    return Measured(gain, float(np.hypot(np.sqrt(covariance[0, 0]), doubt))), max(wide)


def _dark_and_read(
    sample: np.ndarray, usable: np.ndarray, gain: Measured, correlation: float
) -> tuple[Measured | None, Measured | None, tuple[str, ...]]:
    """Tell dark level and read noise apart by the third cumulant of the emptiest channels."""
    # Smoothed, because choosing channels for their low values would choose fluctuations.
    level = np.where(usable, _smooth(np.nanmean(sample, axis=(0, 1))), np.inf)
    scatter = _smooth(_clipped_variance(_differences(sample))[0])
    n_low = max(8, int(0.15 * np.count_nonzero(usable)))
    emptiest = np.argsort(level)[:n_low]
    # Channels hardly noisier than the emptiest tell as much: under read noise these are nearly all.
    low = np.union1d(emptiest, np.flatnonzero(usable & (scatter < 1.5 * np.median(scatter[emptiest]))))
    values = sample[:, :, low]
    residuals = _differences(values)
    residuals = residuals - np.nanmean(residuals, axis=(0, 1))
    residuals = _clip(residuals)
    n = np.count_nonzero(np.isfinite(residuals)) / _OVERLAP
    mean = float(np.nanmean(values))
    variance = float(np.nanmean(residuals**2)) / _SQUARES
    third = float(np.nanmean(residuals**3)) / _CUBES
    second, fourth, sixth = (float(np.nanmean(residuals**power)) for power in (2, 4, 6))
    spread_of_third = max(sixth - 6.0 * fourth * second + 9.0 * second**3 - (third * _CUBES) ** 2, second**3)
    third_std = float(np.sqrt(spread_of_third * _OVERLAP_CUBES / (n * _OVERLAP))) / _CUBES
    # An electron spread over channels leaves less skewness in each; factor for a bell-shaped spread.
    spread = correlation**2 / (1.155 if correlation > 1.3 else 1.0)
    electrons = max(third, 0.0) * spread / gain.value**2  # mean counts above the dark level
    electrons_std = np.hypot(third_std * spread / gain.value**2, 2.0 * electrons * gain.std / gain.value)
    mean_std = float(np.sqrt(variance / (n * _OVERLAP)))
    dark_std = float(np.hypot(electrons_std, mean_std))
    if dark_std > max(float(np.sqrt(variance)), 0.1 * abs(mean)):
        return None, None, ("dark level and read noise cannot be told apart: too few spectra",)
    dark = mean - electrons
    # A dark level that may as well be none is none: every dark-corrected or counting detector has none.
    dark = 0.0 if abs(dark) < 2.0 * dark_std else dark
    excess = (variance - gain.value * max(mean - dark, 0.0) / correlation) / gain.value**2
    variance_std = variance * float(np.sqrt((2.0 + 1.0 / max(variance, 1e-12) * gain.value) / n))
    excess_std = float(np.hypot(variance_std, gain.value * dark_std / correlation)) / gain.value**2
    excess_std = float(np.hypot(excess_std, max(mean - dark, 0.0) * gain.std / gain.value**2))
    if excess > 2.0 * excess_std:
        read = Measured(float(np.sqrt(excess)), excess_std / (2.0 * float(np.sqrt(excess))))
    else:
        read = Measured(0.0, float(np.sqrt(max(excess, 0.0) + excess_std)))
    return Measured(float(dark), dark_std), read, ()


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving median over about a sixteenth of the channels."""
    width = 2 * (values.size // 32) + 1
    padded = np.pad(values, width // 2, mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)


def _binned(sample: np.ndarray, usable: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    n_bins = sample.shape[-1] // size
    shape = (*sample.shape[:-1], n_bins, size)
    keep: np.ndarray = np.all(usable[: n_bins * size].reshape(n_bins, size), axis=-1)
    return sample[..., : n_bins * size].reshape(shape).sum(-1), keep


def _differences(values: np.ndarray) -> np.ndarray:
    return values[:, 1:-1] - 0.5 * (values[:, :-2] + values[:, 2:])


def _clipped_variance(residuals: np.ndarray) -> tuple[np.ndarray, float]:
    """Variance per channel with spikes left out, and the number of differences behind it."""
    clipped = _clip(residuals)
    n = float(np.min(np.sum(np.isfinite(clipped), axis=(0, 1))))
    return np.nanvar(clipped, axis=(0, 1)) / _SQUARES, max(n, 1.0)


def _clip(residuals: np.ndarray) -> np.ndarray:
    """Blank what no noise explains (cosmic rays) in each channel."""
    return np.where(np.abs(residuals) > _limit(residuals), np.nan, residuals)


def _limit(residuals: np.ndarray) -> np.ndarray:
    """Ten standard deviations per channel, told from the 95th percentile, which rare spikes do not move."""
    # Some hundred differences per channel are enough for a percentile.
    step = max(1, residuals.shape[0] * residuals.shape[1] // 400)
    few = np.abs(residuals).reshape(-1, residuals.shape[2])[::step]
    spread = np.nanquantile(few, 0.95, axis=0) / 1.96
    # Where hardly ever an electron arrives the percentile is 0 and the standard deviation has to do.
    return 10.0 * np.where(spread > 0, spread, np.maximum(np.nanstd(residuals, axis=(0, 1)), 1e-300))


def _blank_spikes(sample: np.ndarray) -> None:
    """Blank cosmic rays in place, so that they enter neither means nor bins."""
    residuals = np.full_like(sample, np.nan)
    residuals[:, 1:-1] = _differences(sample)
    residuals[:, 0] = sample[:, 0] - sample[:, 1]
    residuals[:, -1] = sample[:, -1] - sample[:, -2]
    sample[residuals > _limit(residuals)] = np.nan
