"""Mean spectrum of each layer, in electrons, the same bytes whatever the block size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend, Progress
    from phonon_eels.spectrum_image import SpectrumImage


STRIP_ROWS = 64


@dataclass(frozen=True)
class LayerSpectra:
    """Mean spectra of the layers.

    Attributes
    ----------
    energy_loss_mev
        Energy of the channels, (channels,).
    mean_e, std_e
        Electrons per position and standard deviation of that mean, (layers, channels); NaN where nothing was counted.
    n_positions
        Positions of each layer.
    """

    energy_loss_mev: np.ndarray
    mean_e: np.ndarray
    std_e: np.ndarray
    n_positions: np.ndarray


def average_layers(
    image: SpectrumImage,
    labels: np.ndarray,
    n_layers: int,
    center_mev: np.ndarray | None,
    backend: Backend,
    progress: Progress | None = None,
) -> LayerSpectra:
    """Average the spectra of the positions of each layer.

    Parameters
    ----------
    labels
        Layer of each position, (rows, columns); others than 0 … n_layers - 1 are left out.
    center_mev
        Energy of the zero-loss peak at each position, to shift the spectra by whole channels so that it lies at 0;
        None if it does already.
    backend
        Runs the sums.
    """
    axis, noise = image.energy, image.noise
    n = axis.n_channels
    chosen = np.where((labels >= 0) & (labels < n_layers), labels, -1)
    if center_mev is None:
        shift, zero = np.zeros(labels.shape, dtype=np.intp), 0
    else:
        origin = np.rint((center_mev - axis.offset_mev) / axis.dispersion_mev)
        chosen = np.where(np.isfinite(origin), chosen, -1)
        zero = int(np.nanmedian(origin)) if np.isfinite(origin).any() else 0
        shift = np.where(np.isfinite(origin), zero - origin, 0).astype(np.intp)
        chosen = np.where(np.abs(shift) < n, chosen, -1)

    def rows(first: int, counts: Any, variance: Any, bad: Any, layer: Any, move: Any) -> list[np.ndarray]:
        return [
            _sum_row(
                counts[r],
                None if variance is None else variance[r],
                None if bad is None else bad[r],
                layer[r],
                move[r],
                n_layers,
                noise.gain,
                noise.dark_level,
                noise.read_noise_e,
                noise.noise_correlation,
            )
            for r in range(len(layer))
        ]

    total = np.zeros((3, n_layers, n))
    n_rows = image.shape[0]
    # Every row has sums of its own until they are added, in the order of the rows: not of all rows at once.
    for low in range(0, n_rows, STRIP_ROWS):
        here = slice(low, low + STRIP_ROWS)
        arrays = [None if cube is None else cube[here] for cube in (image.counts, image.variance, image.bad)]
        told = None if progress is None else partial(_told, progress, low, n_rows)
        for block in backend.map_rows(rows, [*arrays, chosen[here], shift[here]], progress=told):
            for row in block:
                total += row
    number = total[2]
    seen = number > 0
    mean = np.divide(total[0], number, out=np.full_like(number, np.nan), where=seen)
    variance = total[1]
    if image.variance is None:
        # A few dark-corrected spectra may add up to less than nothing: what is read adds noise nevertheless, and a sum of no
        # electrons is not known to better than one.
        variance = np.maximum(variance, np.maximum(number * noise.read_noise_e**2, 1.0))
    std = np.sqrt(np.divide(variance, number**2, out=np.full_like(number, np.nan), where=seen))
    energies = axis.energies_mev if center_mev is None else (np.arange(n) - zero) * axis.dispersion_mev
    counted = np.array([int(np.count_nonzero(chosen == layer)) for layer in range(n_layers)])
    return LayerSpectra(energies, mean, std, counted)


def _told(progress: Progress, low: int, n_rows: int, done: int, _: int) -> None:
    progress(low + done, n_rows)


def _sum_row(
    counts: np.ndarray,
    variance: np.ndarray | None,
    bad: np.ndarray | None,
    layer: np.ndarray,
    move: np.ndarray,
    n_layers: int,
    gain: float,
    dark: float,
    read_noise_e: float,
    noise_correlation: float,
) -> np.ndarray:
    """Sum of electrons, of their variance and of usable positions in a row, (3, layers, channels)."""
    n = counts.shape[1]
    total = np.zeros((3, n_layers, n))
    for kind, shift in sorted({(int(k), int(m)) for k, m in zip(layer, move, strict=True) if k >= 0}):
        which = (layer == kind) & (move == shift)
        z = (np.asarray(counts[which], dtype=np.float64) - dark) / gain
        usable = np.isfinite(z) if bad is None else np.isfinite(z) & ~bad[which]
        z = np.where(usable, z, 0.0)
        if variance is None:
            # Electrons (a single channel has the less of their noise the more channels share it) and read noise;
            # dark-corrected negatives are kept in the sum.
            spread = np.where(usable, z / noise_correlation + read_noise_e**2, 0.0)
        else:
            spread = np.where(usable, np.asarray(variance[which], dtype=np.float64) / gain**2, 0.0)
        source = slice(max(0, -shift), n - max(0, shift))
        target = slice(max(0, shift), n - max(0, -shift))
        total[0, kind, target] += z.sum(axis=0)[source]
        total[1, kind, target] += spread.sum(axis=0)[source]
        total[2, kind, target] += usable.sum(axis=0)[source]
    return total
