"""Windows that backgrounds are fitted in, and the range of the loss spectrum that is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import EnergyAxis, SpectrumImage

if TYPE_CHECKING:
    from phonon_eels.config import Material
    from phonon_eels.config.settings import SubtractZlp

MIN_WINDOW_CHANNELS = 5
END_FRACTION = 0.1
"""Share of the loss side of the axis that stands in for a window beyond its end."""


def fit_windows(axis: EnergyAxis, settings: SubtractZlp) -> tuple[list[slice], list[str]]:
    """Return the channels of the windows, cut at the axis where that is allowed, and what was cut.

    Raises
    ------
    DataError
        If a window leaves the axis and must not be cut, or none of at least 5 channels remains.
    """
    positive_only = settings.method in ("log_quadratic", "power_law")
    lowest = max(axis.offset_mev, 0.5 * axis.dispersion_mev) if positive_only else axis.offset_mev
    windows, messages = [], []
    for low, high in settings.windows_mev:
        given = f"subtract_zlp.windows_mev: {low:g} … {high:g} meV"
        if not settings.clip_windows:
            windows.append(axis.window(low, high, "subtract_zlp.windows_mev"))
            continue
        cut_low, cut_high = max(low, lowest), min(high, axis.last_mev)
        first, last = int(np.ceil(axis.channel(cut_low) - 1e-9)), int(np.floor(axis.channel(cut_high) + 1e-9))
        if low > axis.last_mev:
            # Without a window above the modes the background would be an extrapolation across all of them.
            first, last = (
                axis.n_channels - max(round(END_FRACTION * axis.last_mev / axis.dispersion_mev), 8),
                axis.n_channels - 1,
            )
            messages.append(
                f"{given} lies beyond the energy axis, which ends at {axis.last_mev:g} meV: its last channels are used "
                f"instead, from {axis.energies_mev[max(first, 0)]:g} meV on"
            )
            windows.append(slice(max(first, 0), last + 1))
            continue
        if last - first + 1 < MIN_WINDOW_CHANNELS:
            messages.append(
                f"{given} holds fewer than {MIN_WINDOW_CHANNELS} channels of the axis "
                f"({axis.offset_mev:g} … {axis.last_mev:g} meV) and is left out"
            )
            continue
        if cut_low > low or cut_high < high:
            messages.append(f"{given} leaves the energy axis and was cut to {cut_low:g} … {cut_high:g} meV")
        windows.append(slice(first, last + 1))
    usable = [window for window in windows if window.stop - window.start >= MIN_WINDOW_CHANNELS]
    if not usable or (positive_only and min(axis.energies_mev[window.start] for window in usable) <= 0.0):
        raise DataError(
            f"subtract_zlp.windows_mev = {[list(window) for window in settings.windows_mev]} meV leaves no window of "
            f"at least {MIN_WINDOW_CHANNELS} channels{' above 0 meV' if positive_only else ''} on the energy axis "
            f"({axis.offset_mev:g} … {axis.last_mev:g} meV in steps of {axis.dispersion_mev:g} meV); "
            f"choose windows inside it"
        )
    if len(usable) == 1:
        messages.append("only one background window is left: the background under the phonons is an extrapolation")
    return usable, messages


def overlap_messages(windows: list[slice], axis: EnergyAxis, material: Material) -> list[str]:
    """Return one sentence per window that sits on modes of the material, and what that does."""
    messages = []
    for window in windows:
        low = axis.offset_mev + axis.dispersion_mev * window.start
        high = axis.offset_mev + axis.dispersion_mev * (window.stop - 1)
        hit = [mode for mode in material.modes if low - mode.fwhm_mev < mode.energy_mev < high + mode.fwhm_mev]
        if hit:
            names = ", ".join(f"{mode.name} ({mode.energy_mev:g} meV)" for mode in hit)
            messages.append(
                f"the background window {low:g} … {high:g} meV sits on the mode(s) {names}: the background takes part "
                f"of their signal. On simulated Bi2212 spectra the published windows lose 31 to 42 % of the area "
                f"between 30 and 50 meV and move its centroid by up to +0.5 meV; choose subtract_zlp.windows_mev free "
                f"of modes, or route: forward, which fits background and modes together"
            )
    return messages


def output_channels(axis: EnergyAxis, settings: SubtractZlp) -> slice:
    """Return the channels of ``output_window_mev``, cut at the axis.

    Raises
    ------
    DataError
        If fewer than 5 channels remain.
    """
    low, high = settings.output_window_mev
    first = max(int(np.ceil(axis.channel(low) - 1e-9)), 0)
    last = min(int(np.floor(axis.channel(high) + 1e-9)), axis.n_channels - 1)
    if last - first + 1 < MIN_WINDOW_CHANNELS:
        raise DataError(
            f"subtract_zlp.output_window_mev = {low:g} … {high:g} meV keeps fewer than {MIN_WINDOW_CHANNELS} channels; "
            f"the energy axis runs from {axis.offset_mev:g} to {axis.last_mev:g} meV: choose a window inside it"
        )
    return slice(first, last + 1)


def loss_image(image: SpectrumImage, counts: Any, variance: Any, out: slice) -> SpectrumImage:
    """Return the image of the loss spectrum on the kept channels; its dark level is gone with the background."""
    axis = image.energy
    energy = EnergyAxis(axis.offset_mev + axis.dispersion_mev * out.start, axis.dispersion_mev, out.stop - out.start)
    return image.with_(
        counts=counts,
        variance=variance,
        bad=None if image.bad is None else image.bad[..., out],
        energy=energy,
        noise=replace(image.noise, dark_level=0.0),
        frames=None,
    )
