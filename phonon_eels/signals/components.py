"""Components of a HyperSpy model that are exactly what the forward fit fits: peak, modes seen through it, background.

Numbers are detector counts per channel (or per unit of a binned axis, as HyperSpy wants it), energies meV. The five
parameters of the zero-loss peak appear in every component; `fitted_model` ties them together with HyperSpy's twins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from hyperspy.component import Component

from phonon_eels.kernels.forward import LINEAR, N_LOCAL, correction_lines, evaluate, work_size, zero_loss_rows
from phonon_eels.kernels.response import FineGrid, ModeTables, ZeroLossShape, build_mode_tables

SHAPE_PARAMETERS = ("center_mev", "log_width", "log_tail_loss", "log_tail_gain")


class _PhononComponent(Component):
    """What the three have in common: units of the axis, and parameters by name."""

    def __init__(self, names: Sequence[str], linear: Sequence[str], mev_per_unit: float, per_value: float) -> None:
        super().__init__(list(names), linear_parameter_list=list(linear))
        self.mev_per_unit, self.per_value = float(mev_per_unit), float(per_value)
        self._whitelist["mev_per_unit"] = ("init", self.mev_per_unit)
        self._whitelist["per_value"] = ("init", self.per_value)
        self.convolved = False

    def _energies(self, x: np.ndarray) -> np.ndarray:
        return np.atleast_1d(np.asarray(x, dtype=np.float64)) * self.mev_per_unit


class PhononZeroLoss(_PhononComponent):
    """Zero-loss peak: split Pearson VII averaged over the width of a channel.

    Parameters
    ----------
    fwhm_mev, tail_loss, tail_gain
        Reference shape, which `log_width`, `log_tail_loss`, `log_tail_gain` multiply by their exponentials.
    dispersion_mev
        Width of a channel.
    mev_per_unit
        1000 for an axis in eV, 1 for meV.
    per_value
        What counts per channel are divided by: the step of a binned axis, else 1.

    Notes
    -----
    Parameters: ``height`` (counts per channel at the mode), ``center_mev``, ``log_width``, ``log_tail_loss``,
    ``log_tail_gain``.
    """

    def __init__(
        self,
        fwhm_mev: float = 8.0,
        tail_loss: float = 1.5,
        tail_gain: float = 1.5,
        dispersion_mev: float = 1.0,
        mev_per_unit: float = 1000.0,
        per_value: float = 1.0,
    ) -> None:
        super().__init__(("height", *SHAPE_PARAMETERS), ("height",), mev_per_unit, per_value)
        self.reference = np.array([fwhm_mev, tail_loss, tail_gain], dtype=float)
        self.dispersion_mev = float(dispersion_mev)
        given = {"fwhm_mev": fwhm_mev, "tail_loss": tail_loss, "tail_gain": tail_gain, "dispersion_mev": dispersion_mev}
        for name, value in given.items():
            self._whitelist[name] = ("init", float(value))
        self.height.value = 1.0

    def function(self, x: np.ndarray) -> np.ndarray:
        """Return the peak at energies `x` in the unit of the axis."""
        energies = self._energies(x)
        values = np.array([self.height.value, *(getattr(self, name).value for name in SHAPE_PARAMETERS)], dtype=float)
        jacobian, model = np.empty((N_LOCAL, energies.size)), np.empty(energies.size)
        work, bits = np.empty(work_size(energies.size)), np.empty(2 * energies.size, np.int64)
        zero_loss_rows(values, energies, self.dispersion_mev, self.reference, jacobian, model, work, bits)
        return model / self.per_value


class PhononBackground(_PhononComponent):
    """Constant, and a ramp on the loss side of the zero-loss peak.

    Notes
    -----
    Parameters: ``constant`` (counts per channel, dark level included), ``ramp`` (counts per channel and 100 meV),
    ``center_mev``.
    """

    def __init__(self, mev_per_unit: float = 1000.0, per_value: float = 1.0) -> None:
        super().__init__(("constant", "ramp", "center_mev"), ("constant", "ramp"), mev_per_unit, per_value)
        self.isbackground = True
        self.ramp.value = 0.0

    def function(self, x: np.ndarray) -> np.ndarray:
        """Return the background at energies `x` in the unit of the axis."""
        loss = np.maximum(self._energies(x) - self.center_mev.value, 0.0)
        return (self.constant.value + self.ramp.value * 0.01 * loss) / self.per_value


class PhononMode(_PhononComponent):
    """A mode seen through the zero-loss peak, with its thermal occupation and its gain side.

    Parameters
    ----------
    description
        ``first_channel n_channels dispersion_mev zero_loss thermal_mev bounds_mev fwhm_mev line_shape``: what the
        table of the line is made from, plain values only, so that HyperSpy can store it.

    Notes
    -----
    Parameters: ``area`` (counts on the loss side), ``energy_mev``, and the four of the zero-loss peak's shape.
    """

    def __init__(
        self, description: Mapping[str, Any] | None = None, mev_per_unit: float = 1000.0, per_value: float = 1.0
    ) -> None:
        super().__init__(("area", "energy_mev", *SHAPE_PARAMETERS), ("area",), mev_per_unit, per_value)
        self.description = dict(description) if description is not None else _example()
        self._whitelist["description"] = ("init", self.description)
        low, high = self.description["bounds_mev"]
        self.energy_mev.bmin, self.energy_mev.bmax = float(low), float(high)
        self.energy_mev.value = 0.5 * (float(low) + float(high))

    @cached_property
    def _tables(self) -> ModeTables:
        told = self.description
        shape = ZeroLossShape(*(float(value) for value in told["zero_loss"]))
        width = float(told["fwhm_mev"])
        channels = int(told["first_channel"]) + np.arange(int(told["n_channels"]))
        dispersion = float(told["dispersion_mev"])
        grid = FineGrid(channels, dispersion, min(width, shape.fwhm_mev), 30.0 * shape.fwhm_mev)
        bounds = np.array([told["bounds_mev"]], dtype=float)
        return build_mode_tables(grid, shape, bounds, np.array([width]), float(told["thermal_mev"]), told["line_shape"])

    def function(self, x: np.ndarray) -> np.ndarray:
        """Return the line at channel centres `x` in the unit of the axis; they must be channels of the scan."""
        energies = self._energies(x)
        dispersion = float(self.description["dispersion_mev"])
        first, n = int(self.description["first_channel"]), int(self.description["n_channels"])
        # The table is laid on channels: the one nearest to the zero-loss peak is its zero.
        place = (self.center_mev.value - energies[0]) / dispersion
        nearest = int(np.floor(place + 0.5))
        shape = (getattr(self, name).value for name in SHAPE_PARAMETERS[1:])
        params = np.array(
            [0.0, (place - nearest) * dispersion, *shape, 0.0, 0.0, 0.0, self.area.value, self.energy_mev.value, 0.0]
        )
        tables = self._tables
        corrections, jacobian, model = np.zeros((1, 4, n)), np.zeros((params.size, n)), np.zeros(n)
        args = (tables.values, tables.first_node_mev, tables.node_step_mev)
        work, bits = np.empty(work_size(n)), np.empty(2 * n, np.int64)
        correction_lines(params, *args, dispersion, corrections, work)
        window = (first + np.arange(n)) * dispersion
        reference = np.array([float(value) for value in self.description["zero_loss"]])
        nothing = (np.zeros((3, n)), LINEAR, np.zeros((0, 0)))
        evaluate(params, window, dispersion, reference, *nothing, *args, corrections, jacobian, model, work, bits)
        channel = np.round((energies - energies[0]) / dispersion).astype(int) - nearest - first
        inside = (channel >= 0) & (channel < n)
        return np.where(inside, model[np.clip(channel, 0, n - 1)], 0.0) / self.per_value


def _example() -> dict[str, Any]:
    """A mode at 80 meV: HyperSpy lists components by making one without arguments."""
    return {
        "first_channel": -40,
        "n_channels": 160,
        "dispersion_mev": 1.0,
        "zero_loss": [8.0, 1.5, 1.5],
        "thermal_mev": 25.0,
        "bounds_mev": [70.0, 90.0],
        "fwhm_mev": 4.0,
        "line_shape": "oscillator",
    }
