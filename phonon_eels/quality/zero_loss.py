"""Is there a zero-loss peak, where is it and how wide is it: a look at one spectrum, before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.spectrum_image import EnergyAxis


@dataclass(frozen=True)
class ZeroLoss:
    """The zero-loss peak of a mean spectrum.

    Attributes
    ----------
    position_mev
        Energy loss at the middle of its half height.
    fwhm_mev
        Full width at half height above the baseline.
    height
        Highest channel above the baseline, in counts.
    baseline
        Level of the lowest channels, in counts.
    """

    position_mev: float
    fwhm_mev: float
    height: float
    baseline: float


def find_zero_loss(spectrum: np.ndarray, energy: EnergyAxis) -> ZeroLoss | str:
    """Look for the zero-loss peak in a mean spectrum.

    It is the highest peak, stands out of the noise, falls to half on both sides inside the axis, and lies near zero:
    within twenty of its widths, because energy axes are often off by some widths and never by many.

    Parameters
    ----------
    spectrum
        Counts, (channels,).
    energy
        Their energies.

    Returns
    -------
    ZeroLoss or str
        The peak, or one sentence that says why there is none.
    """
    axis = f"the axis runs from {energy.offset_mev:g} to {energy.last_mev:g} meV"
    spectrum = np.asarray(spectrum, dtype=np.float64)
    if spectrum.size < 5 or not np.all(np.isfinite(spectrum)):
        return f"no zero-loss peak in range: too few finite channels ({axis})"
    baseline = float(np.quantile(spectrum, 0.1))
    top = int(np.argmax(spectrum))
    height = float(spectrum[top]) - baseline
    second = np.diff(spectrum, 2)
    noise = 1.4826 * float(np.median(np.abs(second - np.median(second)))) / np.sqrt(6.0)
    margin = 0.1 * energy.dispersion_mev * energy.n_channels
    if energy.offset_mev > margin or energy.last_mev < -margin:
        return f"no zero-loss peak in range: {axis} and does not come near 0"
    if height <= 10.0 * noise:
        return f"no zero-loss peak in range: no channel stands out of the noise ({axis})"
    left = _crossing(spectrum[: top + 1][::-1], baseline + height / 2)
    right = _crossing(spectrum[top:], baseline + height / 2)
    if left is None or right is None:
        return f"no zero-loss peak in range: the highest channel does not fall to half on both sides ({axis})"
    position = energy.offset_mev + energy.dispersion_mev * (top + (right - left) / 2)
    fwhm = energy.dispersion_mev * (left + right)
    if fwhm > 0.25 * energy.dispersion_mev * energy.n_channels:
        return f"no zero-loss peak in range: the highest peak is {fwhm:.4g} meV wide, a quarter of the axis ({axis})"
    if abs(position) > 20.0 * fwhm:
        return (
            f"no zero-loss peak in range: the highest peak, at {position:.5g} meV and {fwhm:.4g} meV wide, "
            f"is too far from 0 ({axis})"
        )
    return ZeroLoss(position, fwhm, height, baseline)


def _crossing(falling: np.ndarray, level: float) -> float | None:
    """Return where a flank that begins at the top first falls below a level, in channels."""
    below = np.flatnonzero(falling < level)
    if below.size == 0:
        return None
    first = int(below[0])
    return first - 1 + float((falling[first - 1] - level) / (falling[first - 1] - falling[first]))
