"""What changes while the scan goes on: energy of the zero-loss peak, its width and its tails."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from phonon_eels.config import SimulationSettings
from phonon_eels.simulate.seeds import Stream, generator


def energy_shift_mev(settings: SimulationSettings) -> np.ndarray:
    """Place of the zero-loss peak's mode on the energy axis in meV, (frames, rows, columns).

    A random walk through all frames, in the order of the scan, and white jitter on top.
    """
    scan, energy = settings.scan, settings.energy
    n = scan.rows * scan.columns
    shift = np.empty((scan.frames, n))
    start = energy.zero_mev
    for frame in range(scan.frames):
        rng = generator(settings.seed, Stream.ENERGY, frame)
        walk = np.cumsum(rng.standard_normal(n)) / np.sqrt(n) * energy.drift_mev
        shift[frame] = start + walk + energy.jitter_mev * rng.standard_normal(n)
        start += walk[-1]
    return shift.reshape(scan.frames, scan.rows, scan.columns)


def relative_wander(settings: SimulationSettings, stream: Stream, std: float) -> np.ndarray:
    """Factor near 1 that wanders slowly and from position to position, (frames, rows, columns).

    Parameters
    ----------
    std
        Standard deviation of the factor.
    """
    scan, zero_loss = settings.scan, settings.zero_loss
    n = scan.frames * scan.rows * scan.columns
    if std == 0.0:
        return np.ones((scan.frames, scan.rows, scan.columns))
    rng = generator(settings.seed, stream)
    sigma = zero_loss.wander_positions
    # White noise through a Gaussian of this width keeps 1/(2 √π sigma) of its variance; ends are long enough to count.
    margin = int(np.ceil(4.0 * sigma))
    smooth = gaussian_filter1d(rng.standard_normal(n + 2 * margin), sigma, mode="wrap")[margin : margin + n]
    smooth = smooth * np.sqrt(2.0 * np.sqrt(np.pi) * sigma)
    share = zero_loss.wander_smooth_share
    mixed = np.sqrt(share) * smooth + np.sqrt(1.0 - share) * rng.standard_normal(n)
    # Never further than a few standard deviations, so that no width or exponent can turn up wild or negative.
    factor = 1.0 + std * np.clip(mixed, -4.0, 4.0)
    return np.maximum(factor, 0.2).reshape(scan.frames, scan.rows, scan.columns)
