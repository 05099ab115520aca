"""Tables of phonon lines seen through the instrument, for the forward kernel.

A mode's line, convolved with the reference zero-loss peak and the width of a channel, is tabulated over energy
loss and over the mode's energy. The kernel interpolates: cubic in both, so a line can move by any fraction of a channel.
Beside each line lie its derivatives to the logarithm of the zero-loss width, of the two tail exponents, and to the
intrinsic width, which carry the small differences between positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.kernels.lineshapes import EVEN_SHARE, LineShape, loss_spectrum, split_pearson7, susceptibility

PAD_CHANNELS = 6
"""Channels beyond the fitted window that a shift may reach."""

N_TABLES = 5
"""Line, and derivatives to ln(FWHM), ln(tail_loss), ln(tail_gain), intrinsic width."""


@dataclass(frozen=True)
class ZeroLossShape:
    """Scan-wide shape of the zero-loss peak, a split Pearson VII."""

    fwhm_mev: float
    tail_loss: float
    tail_gain: float

    def changed(self, log_width: float = 0.0, log_tail_loss: float = 0.0, log_tail_gain: float = 0.0) -> ZeroLossShape:
        """Return the shape with its parameters multiplied by exponentials."""
        return ZeroLossShape(
            self.fwhm_mev * float(np.exp(log_width)),
            self.tail_loss * float(np.exp(log_tail_loss)),
            self.tail_gain * float(np.exp(log_tail_gain)),
        )


@dataclass(frozen=True)
class ModeTables:
    """Lines of all modes on a common grid.

    Attributes
    ----------
    values
        (modes, tables, nodes, phases, channels): see the module's text; node = energy of the mode,
        phase = sub-channel offset, channel = window channel plus `PAD_CHANNELS` on either side.
        Unit: per electron of the mode's loss-side area and per channel.
    first_node_mev, node_step_mev
        Energy of each mode's node 0, (modes,), and the spacing of the nodes.
    """

    values: np.ndarray
    first_node_mev: np.ndarray
    node_step_mev: float

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return int(self.values.shape[0])


class FineGrid:
    """A fine energy grid on which lines and the zero-loss peak are convolved by FFT.

    Parameters
    ----------
    channels
        Window channels relative to the zero-loss channel, (n,), consecutive integers.
    dispersion_mev
        Width of a channel.
    narrowest_mev
        Narrowest structure that must be resolved (intrinsic width or zero-loss width).
    reach_mev
        How far beyond the window the tails are followed.
    """

    def __init__(self, channels: np.ndarray, dispersion_mev: float, narrowest_mev: float, reach_mev: float) -> None:
        # Even, so that the edge of a channel falls on the grid.
        self.per_channel = 2 * int(np.clip(np.ceil(4.0 * dispersion_mev / narrowest_mev), 2, 16))
        self.step_mev = dispersion_mev / self.per_channel
        self.dispersion_mev = dispersion_mev
        reach = int(np.ceil(reach_mev / dispersion_mev))
        self.first = (int(channels[0]) - PAD_CHANNELS - reach) * self.per_channel
        last = (int(channels[-1]) + PAD_CHANNELS + reach + 1) * self.per_channel
        self.energies_mev = self.step_mev * np.arange(self.first, last + 1)
        from scipy import fft  # here and not above: a tenth of the start of a step that transforms nothing

        self.size = fft.next_fast_len(2 * self.energies_mev.size)
        self.window_start = (int(channels[0]) - PAD_CHANNELS) * self.per_channel - self.first
        self.n_window = channels.size + 2 * PAD_CHANNELS

    def response(self, zero_loss: ZeroLossShape | None) -> np.ndarray:
        """Return the transform of the unit-area zero-loss peak averaged over a channel; None: of the channel alone."""
        frequency = np.fft.rfftfreq(self.size, d=self.step_mev)
        if zero_loss is None:
            return np.asarray(np.sinc(frequency * self.dispersion_mev) / self.step_mev)
        half = (self.size - 1) // 2
        offsets = self.step_mev * np.arange(-half, half + 1)
        peak = split_pearson7(offsets, zero_loss.fwhm_mev, zero_loss.tail_loss, zero_loss.tail_gain)
        kernel = np.zeros(self.size)
        kernel[: half + 1] = peak[half:]
        kernel[-half:] = peak[:half]
        # The channel average is a box: its transform is a sinc, exact for any sub-channel position.
        from scipy import fft

        transform = fft.rfft(kernel / (kernel.sum() * self.step_mev))
        return np.asarray(transform * np.sinc(frequency * self.dispersion_mev))

    def seen(self, spectra: np.ndarray, response: np.ndarray) -> np.ndarray:
        """Return spectra (…, fine) convolved with a response, in electrons per channel."""
        from scipy import fft

        transform = fft.rfft(spectra, n=self.size, axis=-1)
        blurred = fft.irfft(transform * response, n=self.size, axis=-1)[..., : self.energies_mev.size]
        return np.asarray(blurred * self.step_mev * self.dispersion_mev)

    def sampled(self, fine: np.ndarray, phases: int) -> np.ndarray:
        """Return fine-grid spectra at window channels and `phases` sub-channel offsets: (…, phases, channels)."""
        stride = self.per_channel // phases
        parts = [
            fine[..., self.window_start + phase * stride :: self.per_channel][..., : self.n_window]
            for phase in range(phases)
        ]
        return np.stack(parts, axis=-2)

    def line(
        self,
        mode_mev: float,
        fwhm_mev: float,
        thermal_mev: float | None,
        shape: LineShape,
        lorentzian_share: float = EVEN_SHARE,
    ) -> np.ndarray:
        """Return a mode's line on the fine grid, with unit area on the loss side.

        With `thermal_mev` (k_B T) loss and gain are tied by detailed balance; None: the loss line alone, no occupation.
        """
        energies = self.energies_mev
        if thermal_mev is None:
            response = susceptibility(energies, mode_mev, fwhm_mev, shape, lorentzian_share)
            spectrum = np.where(energies > 0.0, response, 0.0)
        else:
            spectrum = loss_spectrum(energies, mode_mev, fwhm_mev, thermal_mev, shape, lorentzian_share)
        weight = np.where(self.energies_mev > 0.0, 1.0, 0.0)
        weight[self.energies_mev == 0.0] = 0.5
        return np.asarray(spectrum / float((spectrum * weight).sum() * self.step_mev))


def build_mode_tables(
    grid: FineGrid,
    zero_loss: ZeroLossShape | None,
    bounds_mev: np.ndarray,
    fwhm_mev: np.ndarray,
    thermal_mev: float | None,
    shape: LineShape,
    lorentzian_share: float = EVEN_SHARE,
) -> ModeTables:
    """Tabulate the lines of all modes.

    Parameters
    ----------
    zero_loss
        Response; None if it has been removed already (classic route).
    bounds_mev
        (modes, 2), the range each mode's energy may take.
    fwhm_mev
        (modes,), intrinsic widths.
    thermal_mev
        k_B T.
    lorentzian_share
        Of all modes alike; of pseudo-Voigt and Voigt lines, see `lineshapes.susceptibility`.
    """
    kind = (thermal_mev, shape, lorentzian_share)
    narrowest = float(np.min(fwhm_mev)) if zero_loss is None else max(zero_loss.fwhm_mev, 1.0)
    step = 0.1 * narrowest
    n_nodes = int(np.ceil((bounds_mev[:, 1] - bounds_mev[:, 0]).max() / step)) + 4
    phases = 1
    while grid.dispersion_mev / phases > narrowest / 12.0 and phases < grid.per_channel // 2:
        phases *= 2
    while grid.per_channel % phases:
        phases //= 2
    # One node before the range: the cubic needs a neighbour on either side.
    first = np.maximum(bounds_mev[:, 0] - 1.5 * step, 0.02 * bounds_mev[:, 0])
    small = 0.01
    reference = grid.response(zero_loss)
    keys = ("log_width", "log_tail_loss", "log_tail_gain")
    slopes = (
        [np.zeros_like(reference)] * 3
        if zero_loss is None
        else [
            (grid.response(zero_loss.changed(**{key: small})) - grid.response(zero_loss.changed(**{key: -small})))
            / (2 * small)
            for key in keys
        ]
    )
    values = np.empty((len(fwhm_mev), N_TABLES, n_nodes, phases, grid.n_window))
    for mode, width in enumerate(fwhm_mev):
        nodes = first[mode] + step * np.arange(n_nodes)
        lines = np.stack([grid.line(node, width, *kind) for node in nodes])
        change = 0.02 * width
        wider = np.stack([grid.line(node, width + change, *kind) for node in nodes])
        narrower = np.stack([grid.line(node, width - change, *kind) for node in nodes])
        for table, response in enumerate([reference, *slopes]):
            values[mode, table] = grid.sampled(grid.seen(lines, response), phases)
        values[mode, 4] = grid.sampled(grid.seen((wider - narrower) / (2 * change), reference), phases)
    return ModeTables(values, first, step)
