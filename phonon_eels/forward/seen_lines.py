"""The model's lines and mean spectrum as plain functions of energy, for calculations on noise-free spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.forward.model import ForwardModel
from phonon_eels.kernels.forward import LINEAR, N_LOCAL
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.response import PAD_CHANNELS


@dataclass(frozen=True)
class SeenLines:
    """Lines of a model seen through its reference zero-loss peak.

    Attributes
    ----------
    model
        The forward model.
    params
        (parameters,) of a mean spectrum, in the order of `kernels.forward`.
    """

    model: ForwardModel
    params: np.ndarray

    @property
    def energies_mev(self) -> np.ndarray:
        """Energies of the modes in the mean spectrum, (M,)."""
        first = N_LOCAL + self.model.n_modes
        return self.params[first : first + self.model.n_modes]

    @property
    def areas_e(self) -> np.ndarray:
        """Areas of the modes in the mean spectrum, (M,)."""
        return self.params[N_LOCAL : N_LOCAL + self.model.n_modes]

    def line(self, mode: int, energy_mev: float, table: int = 0) -> np.ndarray:
        """Return the line of unit area (or one of its derivatives) at an energy, (channels,), by the cubic through four nodes."""
        tables = self.model.tables
        channels = slice(PAD_CHANNELS, PAD_CHANNELS + self.model.energies_mev.size)
        nodes = tables.values[mode, table, :, 0, channels]
        place = (energy_mev - tables.first_node_mev[mode]) / tables.node_step_mev
        first = int(np.clip(np.floor(place), 1, len(nodes) - 3)) - 1
        a, b, c, d = place - first - np.arange(4)
        weights = np.array([-b * c * d / 6.0, a * c * d / 2.0, -a * b * d / 2.0, a * b * c / 6.0])
        return np.asarray(weights @ nodes[first : first + 4])

    def slope(self, mode: int, energy_mev: float) -> np.ndarray:
        """Return the derivative of the line of unit area to its energy, per meV, (channels,)."""
        step = 0.25 * self.model.tables.node_step_mev
        return (self.line(mode, energy_mev + step) - self.line(mode, energy_mev - step)) / (2.0 * step)

    def zero_loss(self) -> np.ndarray:
        """Return the zero-loss peak of the mean spectrum, (channels,); nothing where it has been removed."""
        energies = self.model.energies_mev
        shape = self.model.zero_loss
        if shape is None:
            return np.zeros_like(energies)
        width = shape.fwhm_mev * np.exp(self.params[2])
        tails = shape.tail_loss * np.exp(self.params[3]), shape.tail_gain * np.exp(self.params[4])
        peak = self.params[0] * split_pearson7(energies - self.params[1], width, *tails)
        measured = self.model.vacuum
        return np.asarray(peak if measured is None else peak * measured.factor(energies - self.params[1]))

    def background(self) -> np.ndarray:
        """Return the background of the mean spectrum, (channels,)."""
        background = self.model.background
        level, slope, bend = self.params[5:8]
        total = level * background.column(slope, bend)
        return np.asarray(total + slope * background.rows[0] if background.code == LINEAR else total)

    def expected(self) -> np.ndarray:
        """Return the mean spectrum, read noise's variance included, (channels,)."""
        total = self.zero_loss() + self.background()
        for m, area in enumerate(self.areas_e):
            total = total + area * self.line(m, float(self.energies_mev[m]))
        return np.asarray(total + self.model.shift_e)

    def nuisances(self, mode: int) -> np.ndarray:
        """Return what is free beside a mode: zero-loss peak, background, areas and energies of all other modes, (k, channels)."""
        others = [m for m in range(self.model.n_modes) if m != mode]
        shapes = [self.model.background.column(*self.params[6:8])]
        if self.model.zero_loss is not None:
            shapes.append(self.zero_loss() / max(self.params[0], 1e-300))
        for m in others:
            energy = float(self.energies_mev[m])
            shapes += [self.line(m, energy), self.slope(m, energy)]
        return np.stack(shapes)
