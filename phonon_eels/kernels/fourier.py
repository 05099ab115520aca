"""Deconvolution in Fourier space, and what linear filters do to noise. Sums are in channels: no unit of energy enters."""

from __future__ import annotations

from typing import Any

import numpy as np

from phonon_eels.kernels.device import kernel

QUOTIENT_DAMPING = 1e-3
"""Fourier-log: |H|² below which the quotient of losses and zero-loss peak is damped."""
SCATTERING_ARRAYS = 7.0
"""Fourier-log: complex transforms that are in memory at once, with the work area of the transform itself."""


@kernel
def apply_matrix_one(matrix: np.ndarray, values: np.ndarray, out: np.ndarray) -> int:
    """Write ``values @ matrix`` into `out`, the sum always in the same order; return 0."""
    for i in range(out.shape[0]):
        out[i] = 0.0
    for j in range(values.shape[0]):
        weight = values[j]
        for i in range(out.shape[0]):
            out[i] += weight * matrix[j, i]
    return 0


def transfer_function(response: np.ndarray, anchor: int, length: int) -> np.ndarray:
    """Return the discrete Fourier transform of a response of unit sum with its anchor at 0, (length // 2 + 1,)."""
    wrapped = np.zeros(length)
    np.add.at(wrapped, (np.arange(response.size) - anchor) % length, response / response.sum())
    from scipy import fft  # here and not above: a tenth of the start of a step that transforms nothing

    return np.asarray(fft.rfft(wrapped))


def gaussian_transfer(fwhm_channels: float, length: int) -> np.ndarray:
    """Return the transform of a Gaussian of unit sum, (length // 2 + 1,)."""
    sigma = fwhm_channels / (2.0 * np.sqrt(2.0 * np.log(2.0)))
    return np.asarray(np.exp(-0.5 * (2.0 * np.pi * np.fft.rfftfreq(length) * sigma) ** 2))


def ratio_filter(
    response: np.ndarray, anchor: int, length: int, modifier_fwhm_channels: float, noise_to_signal: float = 0.0
) -> np.ndarray:
    """Return the transfer function of the Fourier-ratio deconvolution, 1 at frequency 0, (length // 2 + 1,).

    Parameters
    ----------
    modifier_fwhm_channels
        Gaussian that takes the place of the response: G / H. 0: none.
    noise_to_signal
        Power of the noise over that of the signal, the same at all frequencies (Wiener): H* (1 + s) / (|H|² + s) in place of
        1 / H. 0: none.

    References
    ----------
    Egerton, Electron Energy-Loss Spectroscopy in the Electron Microscope, 3rd ed., section 4.1,
    doi:10.1007/978-1-4419-9583-4.
    """
    transfer = transfer_function(response, anchor, length)
    modifier = gaussian_transfer(modifier_fwhm_channels, length)
    if noise_to_signal > 0.0:
        power = np.abs(transfer) ** 2
        return np.asarray(modifier * np.conj(transfer) * (1.0 + noise_to_signal) / (power + noise_to_signal))
    passes = np.abs(transfer) > 1e-12
    return np.asarray(np.where(passes, modifier / np.where(passes, transfer, 1.0), 0.0))


def filter_matrix(on: Any, unit: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    """Return the matrix M of a filter of 2 · channels: result = spectrum @ M, (channels, channels).

    The spectrum is continued by its mirror image, so its ends do not meet across a jump. For `Backend.whole_array`.

    Parameters
    ----------
    on
        ``on.xp``: the arrays' module, ``on.fft``: its Fourier transforms.
    unit
        The unit matrix, (channels, channels).
    """
    n_channels = unit.shape[0]
    mirrored = on.xp.concatenate([unit, unit[:, ::-1]], axis=1)
    filtered = on.fft.irfft(on.fft.rfft(mirrored, axis=1) * transfer, 2 * n_channels, axis=1)
    return on.xp.ascontiguousarray(filtered[:, :n_channels])  # type: ignore[no-any-return]


def scattering_filters(
    response: np.ndarray, anchor: int, n_channels: int, first_channel: float
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return what `single_scattering` needs of the instrument, the same for all spectra.

    Parameters
    ----------
    response, anchor
        Zero-loss peak, of any length.
    n_channels
        Of the spectra.
    first_channel
        Energy of channel 0 over the dispersion, any number: a loss suffered twice lies at twice its energy.

    Returns
    -------
    tuple
        Length of the transforms; transform H of the peak, its damped inverse, and the phase of channel 0, (length // 2 + 1,).
    """
    from scipy import fft

    length = fft.next_fast_len(4 * int(np.ceil(abs(first_channel) + n_channels)) + response.size, real=True)
    transfer = transfer_function(response, anchor, length)
    power = np.abs(transfer) ** 2
    damped = (1.0 + QUOTIENT_DAMPING) * np.conj(transfer) / (power + QUOTIENT_DAMPING)
    return length, transfer, damped, np.exp(-2j * np.pi * np.fft.rfftfreq(length) * first_channel)


def scattering_bytes(length: int) -> float:
    """Return the working memory of one spectrum in `single_scattering`, in bytes."""
    return SCATTERING_ARRAYS * 16.0 * (length // 2 + 1)


def single_scattering(
    on: Any,
    losses: np.ndarray,
    zero_loss_counts: np.ndarray,
    length: int,
    transfer: np.ndarray,
    damped: np.ndarray,
    phase: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Remove plural scattering from loss spectra (Fourier-log); the instrument's resolution stays. For `Backend.whole_array`.

    With H the transform of the zero-loss peak of unit sum and P that of all losses, the single scattering is
    I₀ H ln(1 + q), q = P / (I₀ H). What is taken away, I₀ H (q - ln(1 + q)), is at least of second order in the losses and
    smooth, so q may be damped where H is small (|H|² / (|H|² + 0.001)) without touching the lines: no noise is amplified,
    and no logarithm is taken of noise.

    Parameters
    ----------
    on
        ``on.xp``: the arrays' module, ``on.fft``: its Fourier transforms.
    losses
        Loss spectra without the zero-loss peak, nothing outside their axis, (spectra, channels).
    zero_loss_counts
        Counts in the zero-loss peak, I₀, in units of the sum over channels of a spectrum, (spectra,).
    length, transfer, damped, phase
        From `scattering_filters`.

    Returns
    -------
    tuple
        Single scattering, (spectra, channels), and mean number of losses per electron, ln(1 + sum / I₀), (spectra,). Both NaN
        where that number does not exist.

    References
    ----------
    Johnson and Spence 1974, doi:10.1088/0022-3727/7/6/304; Egerton, section 4.1.1, doi:10.1007/978-1-4419-9583-4.
    """
    xp, fft, n = on.xp, on.fft, losses.shape[1]
    intensity = zero_loss_counts[:, None]
    quotient = fft.rfft(losses, length, axis=1) * phase * damped / intensity
    thickness = 1.0 + quotient[:, :1].real
    possible = (thickness > 0.0) & (intensity > 0.0)
    inside = xp.where(possible, 1.0 + quotient, 1.0)
    # The branch of the logarithm is followed from frequency 0, where it is real: thick specimens leave the principal one.
    log = xp.log(xp.abs(inside)) + 1j * xp.unwrap(xp.angle(inside), axis=1)
    plural = intensity * transfer * (quotient - log) * xp.conj(phase)
    single = losses - fft.irfft(plural, length, axis=1)[:, :n]
    found = xp.log(xp.where(possible, thickness, 1.0))[:, 0]
    return xp.where(possible, single, np.nan), xp.where(possible[:, 0], found, np.nan)
