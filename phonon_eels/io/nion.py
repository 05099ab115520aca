"""Nion Swift's files without Nion Swift: ``.ndata .ndata1`` (zip), ``.h5`` (library) and ``.nhdf`` (export).

Each data item becomes a dictionary as RosettaSciIO's readers give it. Two conventions differ from HyperSpy's:

- the order of the axes is not marked but follows from three numbers: first the frames (`is_sequence`), then the
  scan (`collection_dimension_count`), then what was taken at each position (`datum_dimension_count`);
- a calibration's offset belongs to the *left edge* of channel 0, ours and HyperSpy's to its centre, so half a step is
  added. Frames are counted, not binned: nothing is added to theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phonon_eels.errors import InputFileError
from phonon_eels.io.axes import axis_unit, mev_per_unit
from phonon_eels.io.nion_arrays import Hdf5Array, MappedArray, lazy_array, open_hdf5, open_zip

SUFFIXES = (".ndata", ".ndata1", ".h5", ".nhdf")

_ANEW = "export it from Nion Swift anew"
_MAX_DIMENSIONS = 5
# Where Nion's programs have put the state of the microscope, by version and instrument.
_STATE_PLACES = (
    *("instrument", "instrument.ImageScanned", "instrument.ImageRonchigram"),
    *("hardware_source", "hardware_source.autostem", "hardware_source.ImageScanned", "hardware_source.ImageRonchigram"),
    *("hardware_source.autostem.ImageScanned", "hardware_source.autostem.ImageRonchigram"),
)
_PLAUSIBLE_VOLTS = (1e3, 3e6)
_PLAUSIBLE_RADIANS = (1e-5, 0.5)

Item = tuple[dict[str, Any], MappedArray | Hdf5Array | None]


def read_nion(path: Path, lazy: bool) -> Iterator[dict[str, Any]]:
    """Read every data item of one file.

    Parameters
    ----------
    path
        ``.ndata .ndata1 .h5 .nhdf``.
    lazy
        Leave the values on the disk (dask).

    Yields
    ------
    dict
        ``data axes metadata original_metadata``, axes in the order of the array.

    Raises
    ------
    InputFileError
        If the file is not of Nion Swift, damaged, or describes its data wrongly.
    """
    # Checksums cost a pass over the file: always paid by who reads it all anyway.
    for properties, source in items(path, verify=True):
        if source is None:
            raise InputFileError(f"{path} holds a data item without values; choose another, or {_ANEW}")
        yield record(path, properties, source, lazy=lazy)


def items(path: Path, *, verify: bool) -> list[Item]:
    """Return properties and values of every data item of a file; values are still on the disk.

    Raises
    ------
    InputFileError
        See `read_nion`.
    """
    if path.suffix.lower() in (".ndata", ".ndata1"):
        text, source = open_zip(path, verify=verify)
        return [(json_object(text, path, "metadata.json"), source)]
    return [(json_object(text, path, "'properties'"), found) for text, found in open_hdf5(path)]


def json_object(text: str | bytes, path: Path, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises
    ------
    InputFileError
        If it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InputFileError(f"{path}: {what} is no JSON ({problem}); copy it again, or {_ANEW}") from problem
    if not isinstance(found, dict):
        raise InputFileError(f"{path}: {what} must be a JSON object, not {type(found).__name__}; {_ANEW}")
    return found


def record(path: Path, properties: dict[str, Any], source: MappedArray | Hdf5Array, *, lazy: bool) -> dict[str, Any]:
    """Return a data item as RosettaSciIO's readers do.

    Raises
    ------
    InputFileError
        If the description does not fit the array, or the values are no counts.
    """
    if source.dtype.kind == "c":
        raise InputFileError(f"{path} holds complex values (a Fourier transform?); give the spectrum image itself")
    if 0 in source.shape or not 0 < source.ndim <= _MAX_DIMENSIONS:
        raise InputFileError(f"{path} holds an array of shape {source.shape}, which is no spectrum image; {_ANEW}")
    axes = _axes(path, properties, source)
    title = properties.get("title")
    return {
        "data": lazy_array(source, frames=axes[0]["name"] == "frame") if lazy else source[...],
        "axes": axes,
        "metadata": _metadata(properties, axes, title if isinstance(title, str) and title else path.stem),
        "original_metadata": properties,
    }


# Axes -------------------------------------------------------------------------------------------


def _axes(path: Path, properties: Mapping[str, Any], source: MappedArray | Hdf5Array) -> list[dict[str, Any]]:
    shape = source.shape
    sequence = properties.get("is_sequence", False)
    if not isinstance(sequence, bool):
        raise InputFileError(f"{path}: is_sequence must be true or false, not {sequence!r}; {_ANEW}")
    # A picture's three or four colours are no dimension to Nion Swift.
    colours = 1 if source.dtype.itemsize == 1 and shape[-1] in (3, 4) else 0
    rest = len(shape) - sequence
    # Files from before these numbers were written: a scan if there are dimensions enough.
    collection = _count(path, properties, "collection_dimension_count", 2 if rest in (3, 4) else 0)
    datum = _count(path, properties, "datum_dimension_count", rest - collection)
    if collection + datum != rest:
        if not colours or collection + datum != rest - 1:
            raise InputFileError(
                f"{path}: an array of shape {shape} cannot be {'a sequence of ' * sequence}{collection} scan and "
                f"{datum} data dimensions, as the file says; {_ANEW}"
            )
    else:
        colours = 0
    roles = ["frame"] * sequence + ["scan"] * collection + ["datum"] * datum
    calibrations = _calibrations(path, properties, len(roles))
    names = _names(roles, calibrations)
    found = [
        {
            "name": name,
            "size": size,
            "offset": offset if role == "frame" else offset + 0.5 * scale,
            "scale": scale,
            "units": units,
            "navigate": role != "datum",
        }
        for role, name, size, (offset, scale, units) in zip(roles, names, shape, calibrations, strict=False)
    ]
    colour = {"name": "colour", "size": shape[-1], "offset": 0.0, "scale": 1.0, "units": "", "navigate": False}
    return found + [colour] * colours


def _count(path: Path, properties: Mapping[str, Any], key: str, default: int) -> int:
    value = properties.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_DIMENSIONS:
        raise InputFileError(f"{path}: {key} must be a whole number from 0, not {value!r}; {_ANEW}")
    return value


def _calibrations(path: Path, properties: Mapping[str, Any], n: int) -> list[tuple[float, float, str]]:
    """Return (offset, scale, unit) per dimension; library files and exports have them under different names."""
    key = "dimensional_calibrations" if "dimensional_calibrations" in properties else "spatial_calibrations"
    found = properties.get(key)
    if found is None:
        return [(0.0, 1.0, "")] * n
    if not isinstance(found, list) or len(found) != n or not all(isinstance(entry, dict) for entry in found):
        raise InputFileError(f"{path}: {key} must be a list of {n} calibrations, one per dimension; {_ANEW}")
    return [_calibration(path, entry, f"{key}[{number}]") for number, entry in enumerate(found)]


def _calibration(path: Path, entry: Mapping[str, Any], what: str) -> tuple[float, float, str]:
    given: list[Any] = [entry.get("offset"), entry.get("scale")]
    values: list[Any] = [default if value is None else value for value, default in zip(given, (0.0, 1.0), strict=True)]
    units = entry.get("units")
    if (
        any(isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 for value in values)
        or any(math.isnan(value) for value in values)
        or not isinstance(units, str | None)
    ):
        raise InputFileError(
            f"{path}: {what} must have a finite offset and scale and a unit, not {dict(entry)}; "
            f"calibrate it in Nion Swift, and export it anew"
        )
    offset, scale = (float(value) for value in values)
    if scale == 0.0 and mev_per_unit(axis_unit({"units": units})) is None:
        # Nion Swift takes a step of 0 for "not calibrated".
        return 0.0, 1.0, ""
    return offset, scale, units or ""


def _names(roles: list[str], calibrations: list[tuple[float, float, str]]) -> list[str]:
    """Name the axes as HyperSpy users know them."""
    left = {role: roles.count(role) for role in ("scan", "datum")}
    names = []
    for role, (_, _, units) in zip(roles, calibrations, strict=True):
        if role == "frame":
            names.append("frame")
            continue
        if mev_per_unit(axis_unit({"units": units})) is not None:
            names.append("Energy loss")
        elif role == "datum" and "scan" in roles:
            names.append(f"detector {left[role]}")
        else:
            names.append({1: "x", 2: "y"}.get(left[role], f"{role} {left[role]}"))
        left[role] -= 1
    return names


# Metadata ---------------------------------------------------------------------------------------


def _metadata(properties: Mapping[str, Any], axes: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """Return what is known of the acquisition where HyperSpy users look for it; what is not known is left out."""
    tree = _branch(properties, "metadata")
    camera = {**_branch(tree, "hardware_source"), **_branch(properties, "properties")}
    spectra = any(mev_per_unit(axis_unit(axis)) is not None for axis in axes)
    volts = _agreed(tree, ("high_tension_v", "high_tension", "EHT"), _PLAUSIBLE_VOLTS)
    convergence = _agreed(tree, ("convergence_angle_rad", "probe_ha"), _PLAUSIBLE_RADIANS)
    collection = _agreed(tree, ("collection_angle_rad",), _PLAUSIBLE_RADIANS)
    eels = _present(collection_angle=_milli(collection), dwell_time=_dwell_time_s(tree, camera) if spectra else None)
    instrument = _branch(properties, "session").get("instrument")
    tem = _present(
        beam_energy=None if volts is None else volts / 1e3,
        convergence_angle=_milli(convergence),
        microscope=instrument if isinstance(instrument, str) and instrument else None,
        Detector={"EELS": eels} if eels else None,
    )
    gain = _positive(camera.get("counts_per_electron")) if spectra else None
    return {
        "General": {"title": title},
        "Signal": {"signal_type": "EELS" if spectra else ""},
        "Acquisition_instrument": {"TEM": tem},
        **({"PhononEELS": {"noise": {"gain": gain}}} if gain is not None else {}),
    }


def _agreed(tree: Mapping[str, Any], keys: tuple[str, ...], plausible: tuple[float, float]) -> float | None:
    """Return a number that stands in several places, if those that are plausible agree; None asks the user."""
    found = [_positive(_branch(tree, place).get(key)) for place in _STATE_PLACES for key in keys]
    values = [value for value in found if value is not None and plausible[0] <= value <= plausible[1]]
    return values[0] if values and max(values) <= 1.001 * min(values) else None


def _dwell_time_s(tree: Mapping[str, Any], camera: Mapping[str, Any]) -> float | None:
    """Return the time per position: the camera's exposure; a scan device's own exposure is that of the whole frame."""
    pixel_time_us = _positive(camera.get("pixel_time_us"))
    exposure_s = _positive(camera.get("exposure")) if pixel_time_us is None else None
    pixel_time_us = pixel_time_us or _positive(_branch(tree, "scan").get("pixel_time_us"))
    return exposure_s or (pixel_time_us and pixel_time_us * 1e-6)


def _branch(tree: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    found: Any = tree
    for name in place.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < 1e300:
        return None
    return float(value)


def _milli(value: float | None) -> float | None:
    return None if value is None else float(f"{value * 1e3:.12g}")


def _present(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}
