"""Bring the spectra of a line scan onto a common energy axis, to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from phonon_eels.spectrum_image import SpectrumImage


def along_line(
    image: SpectrumImage, center_mev: np.ndarray, window_mev: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spectra of a line scan from their own zero-loss peaks, linearly interpolated.

    Parameters
    ----------
    image
        A scan of one row or one column.
    center_mev
        Zero-loss centre of every position on the image's axis, (rows, columns); NaN where there is none. An image with
        a variance has been resampled, its peaks are at 0.
    window_mev
        Range of energy loss, cut at the axis.

    Returns
    -------
    energies_mev, spectra_e, positions_nm
        (channels,), (positions, channels) in electrons, (positions,); NaN where nothing was measured.
    """
    axis, resampled = image.energy, image.variance is not None
    positions = image.scan[1 if image.shape[1] > 1 else 0].positions_nm
    counts = np.asarray(image.counts, dtype=np.float64).reshape(-1, axis.n_channels)
    if not resampled:
        counts = (counts - image.noise.dark_level) / image.noise.gain
    if image.bad is not None:
        counts[np.asarray(image.bad).reshape(counts.shape)] = np.nan
    channels = np.arange(np.ceil(window_mev[0] / axis.dispersion_mev), window_mev[1] / axis.dispersion_mev)
    energies = axis.dispersion_mev * channels
    own = axis.offset_mev + axis.dispersion_mev * np.arange(axis.n_channels)
    centers = np.where(np.isfinite(center_mev), 0.0, np.nan) if resampled else center_mev
    spectra = np.full((counts.shape[0], energies.size), np.nan)
    for place, center in enumerate(np.asarray(centers, dtype=float).ravel()):
        if np.isfinite(center):
            spectra[place] = np.interp(energies + center, own, counts[place], left=np.nan, right=np.nan)
    kept = np.isfinite(spectra).any(axis=0)
    return energies[kept], spectra[:, kept], positions
