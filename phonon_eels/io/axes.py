"""Axes of files and of the package: HyperSpy's axis dictionaries to and from `EnergyAxis` and `ScanAxis`.

RosettaSciIO hands out axes in the order of the array, so row comes before column; HyperSpy's own navigation order is
the reverse and never enters the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from phonon_eels.errors import InputFileError
from phonon_eels.spectrum_image import EnergyAxis, ScanAxis
from phonon_eels.units import MEV_PER_ENERGY_UNIT, NM_PER_LENGTH_UNIT

Axis = Mapping[str, Any]

# What files write for "no unit".
_NO_UNIT = frozenset({"", "none", "<undefined>", "undefined", "_none_", "t.undefined"})


def axis_unit(axis: Axis) -> str | None:
    """Return the unit of an axis as the file spells it, None where it has none."""
    unit = str(axis.get("units") or "").strip()
    return None if unit.lower() in _NO_UNIT else unit


def mev_per_unit(unit: str | None) -> float | None:
    """Return the factor from an energy unit to meV; upper and lower case count, apart from ev, mev and kev."""
    return _factor(unit, MEV_PER_ENERGY_UNIT)


def nm_per_unit(unit: str | None) -> float | None:
    """Return the factor from a length unit to nm, None where it is no length."""
    return _factor(unit, NM_PER_LENGTH_UNIT)


def _factor(unit: str | None, table: Mapping[str, float]) -> float | None:
    if unit is None:
        return None
    if unit in table:
        return table[unit]
    # "EV" and "ev" are the same thing; "MeV" (mega) is not "meV" (milli), so it must not match by lower case.
    spelt_small = {name.lower(): factor for name, factor in table.items()}
    if unit[:1] == "M" and len(unit) > 1:
        return None
    return spelt_small.get(unit.lower())


def axis_size(axis: Axis, shape: tuple[int, ...], number: int) -> int:
    """Return the length of an axis, from the axis or else from the array."""
    return int(axis.get("size", shape[number]))


def uniform(axis: Axis, what: str) -> tuple[float, float]:
    """Return (offset, scale) of an axis in its own unit.

    Raises
    ------
    InputFileError
        If the axis is a list of unequal steps or its step is zero or not finite.
    """
    values = axis.get("axis")
    if values is not None and axis.get("scale") is None:
        points = np.asarray(values, dtype=np.float64)
        steps = np.diff(points)
        if points.size < 2 or not np.allclose(steps, steps[0], rtol=1e-6, atol=0.0):
            raise InputFileError(
                f"{what}: the axis {name_of(axis)} has unequal steps; resample it to equal steps first"
            )
        return float(points[0]), float(np.mean(steps))
    if axis.get("expression") is not None:
        raise InputFileError(
            f"{what}: the axis {name_of(axis)} is given as a formula, which is not evaluated; "
            f"convert it in HyperSpy with axis.convert_to_uniform_axis()"
        )
    offset, scale = float(axis.get("offset", 0.0) or 0.0), float(axis.get("scale", 1.0))
    if not np.isfinite(offset) or not np.isfinite(scale) or scale == 0.0:
        raise InputFileError(
            f"{what}: the axis {name_of(axis)} has step {scale:g} and offset {offset:g}; "
            f"both must be finite and the step not 0"
        )
    return offset, scale


def name_of(axis: Axis) -> str:
    """Return a name for messages."""
    name = str(axis.get("name") or "").strip()
    return f"“{name}”" if name and name.lower() not in _NO_UNIT else "without a name"


def energy_axis_dict(axis: EnergyAxis) -> dict[str, Any]:
    """Return HyperSpy's dictionary of the energy axis, in eV as HyperSpy users have it."""
    return {
        "_type": "UniformDataAxis",
        "name": "Energy loss",
        "units": "eV",
        "offset": axis.offset_mev / MEV_PER_ENERGY_UNIT["eV"],
        "scale": axis.dispersion_mev / MEV_PER_ENERGY_UNIT["eV"],
        "size": axis.n_channels,
        "navigate": False,
        "is_binned": True,
    }


def scan_axis_dict(axis: ScanAxis) -> dict[str, Any]:
    """Return HyperSpy's dictionary of a scan axis in nm."""
    return {
        "_type": "UniformDataAxis",
        "name": {"row": "y", "column": "x"}.get(axis.name, axis.name),
        "units": "nm",
        "offset": axis.offset_nm,
        "scale": axis.step_nm,
        "size": axis.n,
        "navigate": True,
        "is_binned": False,
    }


def frame_axis_dict(n_frames: int) -> dict[str, Any]:
    """Return HyperSpy's dictionary of the frame axis."""
    return {
        "_type": "UniformDataAxis",
        "name": "frame",
        "units": "",
        "offset": 0.0,
        "scale": 1.0,
        "size": n_frames,
        "navigate": True,
        "is_binned": False,
    }
