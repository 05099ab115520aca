"""What the data themselves tell about the detector: gain, dark level, read noise, and how channels share noise.

Neighbouring positions see nearly the same spectrum. What differs beside noise (drift, the wander of the zero-loss
peak's width and tails, contrast of layers) is smooth over neighbouring channels; the noise of electrons is not. So a
second difference along the scan *and* along the energy leaves noise alone, without a model of what wanders. (A model
of it was tried: its terms resemble the mean spectrum and took up to a fifth of the gain.) For counts y of a detector
with gain g the variance is g·(mean − dark) + g²·read², a straight line in the mean. A detector that spreads an electron
over channels lowers the variance of single channels but not of wide bins: the gain is the plateau over increasing
bins. Variance and mean alone cannot tell a dark level from read noise; the third cumulant can, because it belongs to
the electrons alone: g³ times their number.

A value that the data do not determine stays unknown, with the reason: a wrong one is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.quality.zero_loss import ZeroLoss
from phonon_eels.spectrum_image import SpectrumImage

_BINS = (1, 2, 4, 8, 16)
_MIN_BINS = 12
_MIN_DIFFERENCES = 30
_EXCLUDED_FWHM = (1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0)
_MAX_MISFIT_SIGMA = 3.0  # of the reduced χ², which scatters by √(2/dof)
_SAMPLE_VALUES = 3_000_000
# For the difference from the mean of two neighbours, weights (−1/2, 1, −1/2): sums of their squares and cubes. Such
# differences overlap, with correlations −2/3 and 1/6; their squares (cubes) are worth one in 1.944 (0.417) independent
# ones: 1 + 2 Σ ρ² (1 + 2 Σ ρ³).
_SQUARES, _CUBES, _OVERLAP, _OVERLAP_CUBES = 1.5, 0.75, 1.944, 0.417
_BOTH_SQUARES = _SQUARES**2  # the same weights along the energy as well
_BOTH_OVERLAP = _OVERLAP


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
    by_bin
        Slope of variance over mean for channel bins of growing width: (channels per bin, slope, standard deviation).
    """

    gain: Measured | None = None
    dark_level: Measured | None = None
    read_noise_e: Measured | None = None
    noise_correlation: float = 1.0
    reasons: tuple[str, ...] = ()
    by_bin: tuple[tuple[int, float, float], ...] = ()


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
    regions = [usable]
    if zero_loss is not None:
        away = np.abs(image.energy.energies_mev - zero_loss.position_mev) / zero_loss.fwhm_mev
        regions = [usable & (away > cut) for cut in _EXCLUDED_FWHM]
    found = _gain(sample, regions)
    if found is None:
        return NoiseEstimate(
            reasons=("the gain is not determined: variance does not follow the counts as it does for electrons",)
        )
    gain, single, slopes = found
    by_bin = tuple((size, slope.value, slope.std) for size, slope in sorted(slopes.items()))
    correlation = _channel_spread(single) if single < 1.0 else 1.0
    dark, read, reasons = _dark_and_read(sample, regions[0], gain, single, correlation)
    return NoiseEstimate(gain, dark, read, correlation, reasons, by_bin)


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


def _gain(sample: np.ndarray, regions: list[np.ndarray]) -> tuple[Measured, float, dict[int, Measured]] | None:
    """Return the gain, what single channels show of it, and the slopes of all bin widths, from the largest region where variance is linear in mean.

    Where something else than electrons makes noise is seen in the fit: regions begin wide, and the first one that is
    fitted within its noise is taken. What the next narrower one says otherwise goes into the standard deviation.
    """
    fits = []
    for usable in regions:
        fit = _slope(sample, usable, 1)
        fits.append((usable, fit))
        if fit is not None and fit[1] <= 1.0 + _MAX_MISFIT_SIGMA * np.sqrt(2.0 / np.count_nonzero(usable)):
            break
    else:
        return None
    usable, chosen = fits[-1]
    assert chosen is not None
    narrower = regions[len(fits)] if len(fits) < len(regions) else None
    slopes = {size: fit[0] for size in _BINS if (fit := _slope(sample, usable, size)) is not None}
    plateau = _plateau(slopes)
    if plateau is None:
        return None
    gain, size = plateau
    doubt = 0.0
    if narrower is not None and (fit := _slope(sample, narrower, 1)) is not None:
        # What changes by more than the noise of the narrower region says is the model's fault.
        doubt = max(0.0, abs(fit[0].value - chosen[0].value) - fit[0].std) * gain.value / chosen[0].value
    single = chosen[0].value / gain.value if size > 1 else 1.0
    return Measured(gain.value, float(np.hypot(gain.std, doubt))), single, slopes


def _slope(sample: np.ndarray, usable: np.ndarray, size: int) -> tuple[Measured, float] | None:
    """Fit variance = constant + gain·mean over channel bins.

    Returns
    -------
    tuple
        The gain and the reduced χ² of the fit, or None where the gain is not determined to a fifth.
    """
    binned, keep = _binned(sample, usable, size)
    keep = keep[1:-1] & keep[:-2] & keep[2:] if keep.size > 2 else keep[:0]
    if np.count_nonzero(keep) < _MIN_BINS:
        return None
    level = np.nanmean(binned, axis=(0, 1))
    mean = (level[1:-1] + 0.25 * (level[:-2] + level[2:]))[keep] / _SQUARES
    variance, relative_std = (each[keep] for each in _variance_and_std(_both_ways(binned), _BOTH_SQUARES))
    design = np.stack([mean, np.ones_like(mean)], axis=1)
    expected = np.full_like(variance, np.mean(variance))
    for _ in range(6):
        # Weights from the model, not from the noisy variances, which would pull the line down.
        std = np.maximum(expected * relative_std, 1e-300)
        line, *_ = np.linalg.lstsq(design / std[:, None], variance / std, rcond=None)
        expected = np.maximum(design @ line, 0.05 * np.median(variance))
    weighted = design / std[:, None]
    # Differences overlap along the energy too, so that not all channels count.
    dof = max(mean.size - 2, 1)
    misfit = float(np.sum(((variance - design @ line) / std) ** 2)) / dof
    covariance = np.linalg.pinv(weighted.T @ weighted) * max(1.0, misfit) * _BOTH_OVERLAP
    value, std_value = float(line[0]), float(np.sqrt(covariance[0, 0]))
    return (Measured(value, std_value), misfit) if value > 5.0 * std_value else None


def _channel_spread(single: float) -> float:
    """Return gain over variance/mean of single channels, from what differences of single channels show of the gain.

    The spread of an electron is taken as a bell; its width follows from the share `single` of the gain.
    """
    lags = np.arange(-40, 41)
    widths = np.linspace(0.05, 6.0, 600)
    shape = np.exp(-0.5 * (lags[None, :] / widths[:, None]) ** 2)
    shape /= shape.sum(axis=1, keepdims=True)
    same, next_one, next_but_one = (np.sum(shape * np.roll(shape, lag, axis=1), axis=1) for lag in (0, 1, 2))
    shown = (1.5 * same - 2.0 * next_one + 0.5 * next_but_one) / _SQUARES
    return float(1.0 / same[np.argmin(np.abs(shown - single))])


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
    sample: np.ndarray, usable: np.ndarray, gain: Measured, single: float, correlation: float
) -> tuple[Measured | None, Measured | None, tuple[str, ...]]:
    """Tell dark level and read noise apart by the third cumulant of the emptiest channels."""
    # Smoothed, because choosing channels for their low values would choose fluctuations.
    level = np.where(usable, _smooth(np.nanmean(sample, axis=(0, 1))), np.inf)
    scatter = _smooth(_variance_and_std(_differences(sample), _SQUARES)[0])
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
    both = np.full(sample.shape[2], np.nan)
    both[1:-1] = _variance_and_std(_both_ways(sample), _BOTH_SQUARES)[0]
    variance = float(np.nanmean(both[low]))
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
    excess = (variance - gain.value * single * max(mean - dark, 0.0)) / gain.value**2
    variance_std = variance * float(np.sqrt((2.0 + 1.0 / max(variance, 1e-12) * gain.value) / n))
    excess_std = float(np.hypot(variance_std, gain.value * single * dark_std)) / gain.value**2
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


def _both_ways(values: np.ndarray) -> np.ndarray:
    """Second differences along the columns and along the channels; two channels shorter."""
    along = _differences(values)
    return along[..., 1:-1] - 0.5 * (along[..., :-2] + along[..., 2:])


def _variance_and_std(residuals: np.ndarray, squares: float) -> tuple[np.ndarray, np.ndarray]:
    """Variance per channel with spikes left out, and its relative standard deviation from the fourth moment."""
    clipped = _clip(residuals)
    n = np.maximum(np.sum(np.isfinite(clipped), axis=(0, 1)), 1)
    second = np.nanmean(clipped**2, axis=(0, 1))
    fourth = np.nanmean(clipped**4, axis=(0, 1))
    kurtosis = np.divide(fourth, second**2, out=np.full_like(second, 3.0), where=second > 0)
    return second / squares, np.sqrt(np.maximum(_smooth(kurtosis) - 1.0, 1.0) * _OVERLAP / n)


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
