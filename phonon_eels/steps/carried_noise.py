"""Noise of the classic route's spectra as draws: what resampling, subtraction and deconvolution make of it, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.forward.noise import shared_noise
from phonon_eels.kernels.resample import resample_one
from phonon_eels.spectrum_image import SpectrumImage

if TYPE_CHECKING:
    import xarray as xr

    from phonon_eels.backends.base import Backend
    from phonon_eels.steps.spec import StepContext

LEAST_DRAWS = 400
"""Any deviation from them is known to 1/sqrt(2 · 400) = 3.5 %."""
DRAWS_PER_CHANNEL = 4
"""A covariance of channels can be inverted only if there are several draws for each channel."""
VARIABLE = "noise_draws"
CARRIERS = ("deconvolve", "subtract_zlp")


def moved_fractions(context: StepContext, image: SpectrumImage) -> np.ndarray:
    """Return by which fractions of a channel the positions were moved; empty if they were not."""
    maps = context.maps.get("align_zlp")
    if (
        context.summaries.get("align_zlp", {}).get("alignment") != "resample"
        or maps is None
        or "zlp_center_mev" not in maps
    ):
        return np.empty(0)
    channel = np.asarray(maps["zlp_center_mev"].values) / image.energy.dispersion_mev
    return np.asarray(np.modf(channel[np.isfinite(channel)])[0])


def enough_draws(n_channels: int) -> int:
    """Return how many draws tell the noise of spectra of so many channels."""
    return max(LEAST_DRAWS, DRAWS_PER_CHANNEL * n_channels)


def resampled_noise(
    rng: np.random.Generator,
    variance: np.ndarray,
    fractions: np.ndarray,
    n_draws: int,
    noise_correlation: float = 1.0,
    *,
    backend: Backend,
) -> np.ndarray:
    """Return draws of noise of a given variance, correlated as positions moved by `fractions` have it, (draws, channels).

    Parameters
    ----------
    variance
        Of one position as the image carries it, (channels,).
    fractions
        Fractions of a channel; empty: positions were not moved.
    noise_correlation
        See `NoiseModel`: what the detector makes channels share. The variance is that of sums over many channels, so single
        ones have the less the more they share. Read noise is taken to be shared alike.
    backend
        Where what is shared is put in.
    """
    n, lags = variance.size, shared_noise(noise_correlation)
    spread = np.sqrt(np.where(np.isfinite(variance) & (variance > 0.0), variance, 0.0))
    white = rng.standard_normal((n_draws, n + 2 * lags.size))
    if not fractions.size:
        return np.asarray(_shared(white, n, lags, backend) * spread)
    noise, padded = np.empty((n_draws, n)), np.empty((n_draws, n + 6 + 2 * lags.size))
    fraction = np.empty(n_draws)
    for draw in range(n_draws):
        padded[draw], fraction[draw] = rng.standard_normal(padded.shape[1]), rng.choice(fractions)
    moved, unused, moved_variance = np.empty(n + 6), np.ones(n + 6), np.empty(n + 6)
    for draw, own in enumerate(_shared(padded, n + 6, lags, backend)):
        resample_one(np.ascontiguousarray(own), unused, float(fraction[draw]), moved, moved_variance)
        noise[draw] = moved[3:-3] / np.sqrt(moved_variance[3:-3])
    return np.asarray(noise * spread)


def _shared(white: np.ndarray, n_channels: int, lags: np.ndarray, backend: Backend) -> np.ndarray:
    """Return noise with the covariances `lags` between channels, (draws, channels), from white noise a little longer."""
    if not lags.size:
        return white
    size = white.shape[1]
    around = np.zeros(size)
    around[: lags.size] = lags
    around[size - lags.size + 1 :] = lags[:0:-1]
    power = np.maximum(np.fft.rfft(around).real, 0.0)
    return np.asarray(backend.whole_array(_coloured, white, shared=(np.sqrt(power),))[:, :n_channels])


def _coloured(on: Any, white: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
    """Return noise with a spectrum, (draws, channels). For `Backend.whole_array`."""
    fft = on.xp.fft  # numpy's own, which is loaded already
    return fft.irfft(fft.rfft(white, axis=1) * amplitude, white.shape[1], axis=1)  # type: ignore[no-any-return]


def with_draws(maps: xr.Dataset, draws: np.ndarray, carried: np.ndarray) -> xr.Dataset:
    """Return the maps with draws of noise beside them, in units of the deviation that the image carries.

    Parameters
    ----------
    draws
        Noise of one position of mean strength, (draws, channels).
    carried
        The variance that the image carries for such a position, (channels,).
    """
    spread = np.sqrt(np.where(carried > 0.0, carried, np.inf))
    about = "noise of a typical position over the standard deviation that its channels carry; correlated as in the data"
    result = maps.copy()
    result[VARIABLE] = (("draw", "energy_loss"), (draws / spread).astype(np.float32), {"units": "1", "comment": about})
    return result


def known_draws(maps: Mapping[str, xr.Dataset], steps: tuple[str, ...] = CARRIERS) -> np.ndarray | None:
    """Return the draws of the last step that has left some, (draws, channels), or None."""
    for step in steps:
        if step in maps and VARIABLE in maps[step]:
            return np.asarray(maps[step][VARIABLE].values, dtype=float)
    return None
