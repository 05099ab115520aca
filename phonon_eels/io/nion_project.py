"""A Nion Swift project, ``.nsproj``: a JSON file, and beside it the folder "<name> Data" with a file per data item.

The name of a data file is ``data_`` and the item's UUID in base 36, lowest digit first. Items stay on the disk
whatever is asked for: a session's project holds far more than the one scan that is wanted.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from phonon_eels.errors import InputFileError
from phonon_eels.io.axes import axis_unit, mev_per_unit
from phonon_eels.io.nion import items, json_object, record

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ1234567890"
_PREFIX = "data_"
_MAX_FILES = 100_000


def encoded(item: uuid.UUID) -> str:
    """Return the name, without ending, of the file that holds a data item."""
    number, digits = item.int, []
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return _PREFIX + "".join(digits)


def decoded(name: str) -> uuid.UUID | None:
    """Return the data item that a file's name (without ending) stands for, None if it stands for none."""
    digits = name.removeprefix(_PREFIX)
    # 26 digits are more than 128 bits.
    if not name.startswith(_PREFIX) or not 0 < len(digits) < 26 or set(digits) - set(_DIGITS):
        return None
    number = sum(_DIGITS.index(digit) * len(_DIGITS) ** place for place, digit in enumerate(digits))
    return uuid.UUID(int=number) if number < 1 << 128 else None


def project_files(path: Path) -> list[Path]:
    """Return the data files of a project.

    Raises
    ------
    InputFileError
        If the project cannot be read or its data folder is not beside it.
    """
    return _data_files(_folders(_project(path), path), path)


def read_project(path: Path, lazy: bool) -> Iterator[dict[str, Any]]:
    """Read every data item of a project, those on display first and in their order.

    Parameters
    ----------
    path
        ``.nsproj``.
    lazy
        Taken for the sake of the other readers; a project's items are always left on the disk.

    Yields
    ------
    dict
        As `phonon_eels.io.nion.read_nion`. An item that is damaged or missing is marked ``PhononEELS.unreadable``
        in its metadata, with the reason: one bad file does not cost the session.

    Raises
    ------
    InputFileError
        If the project is no project, has no data, or none of its spectra can be read.
    """
    project = _project(path)
    files = _data_files(_folders(project, path), path)
    deleted = {item for item in map(_uuid, _list(project, "data_item_deletions", path)) if item is not None}
    shown = _shown(project, path)
    found: dict[uuid.UUID | None, list[dict[str, Any]]] = {}
    for file in files:
        for item, entry in _entries(file):
            found.setdefault(item, []).append(entry)
    missing = [item for item in shown if item not in found and item not in deleted]
    order = [*(item for item in shown if item in found), *(item for item in found if item not in shown)]
    entries = [entry for item in order if item not in deleted or item is None for entry in found[item]]
    entries += [_unreadable(_is_missing(item, path)) for item in missing]
    reasons = [entry["metadata"]["PhononEELS"]["unreadable"] for entry in entries if entry["axes"] == _NO_AXES]
    if reasons and not any(_has_energy(entry) for entry in entries):
        raise InputFileError(f"{path}: no spectra can be read, because {reasons[0]}")
    if not entries:
        raise InputFileError(
            f"{path} holds no data items; copy the folder “{path.stem} Data” beside it, with all in it"
        )
    yield from entries


_NO_AXES: tuple[Any, ...] = ()


def _project(path: Path) -> dict[str, Any]:
    found = json_object(path.read_bytes(), path, "the project")
    if "display_items" not in found and "project_data_folders" not in found:
        raise InputFileError(
            f"{path} is no Nion Swift project (it has no display_items); choose the .nsproj, or give a data file"
        )
    return found


def _list(tree: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    found = tree.get(key, [])
    if not isinstance(found, list):
        raise InputFileError(f"{path}: {key} must be a list, not {type(found).__name__}; copy the project again")
    return found


def _folders(project: Mapping[str, Any], path: Path) -> list[Path]:
    """Return the data folders, which must be beside the project: a file from elsewhere cannot have the disk searched."""
    home = path.parent.resolve()
    named = _list(project, "project_data_folders", path) or [f"{path.stem} Data"]
    folders = []
    for name in named:
        if not isinstance(name, str) or "\0" in name:
            raise InputFileError(f"{path}: project_data_folders must hold names, not {name!r}; copy the project again")
        # A project that was moved keeps the old place; its folder usually came along.
        tried = [home / name, home / PureWindowsPath(name).name, home / f"{path.stem} Data"]
        inside = [place for place in tried if place.resolve().is_relative_to(home) and place.resolve() != home]
        folder = next((place for place in inside if place.is_dir()), None)
        if folder is None:
            raise InputFileError(
                f"{path}: its data folder “{name}” is not beside it; copy the folder there, with all that is in it, "
                f"or give the data file (.ndata or .h5) instead of the project"
            )
        if folder not in folders:
            folders.append(folder)
    return folders


def _data_files(folders: list[Path], path: Path) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        for place, below, names in os.walk(folder):
            # What was deleted in Nion Swift waits there.
            below[:] = sorted(name for name in below if name != "trash")
            found += [Path(place) / name for name in sorted(names) if name.lower().endswith((".ndata", ".h5"))]
            if len(found) > _MAX_FILES:
                raise InputFileError(f"{path} has more than {_MAX_FILES} data items; give the data file itself")
    return found


def _shown(project: Mapping[str, Any], path: Path) -> list[uuid.UUID]:
    """Return the items on display, in order."""
    found: dict[uuid.UUID, None] = {}
    for display in _list(project, "display_items", path):
        channels = display.get("display_data_channels") if isinstance(display, Mapping) else None
        for channel in channels if isinstance(channels, list) else []:
            item = _uuid(channel.get("data_item_reference")) if isinstance(channel, Mapping) else None
            if item is not None:
                found[item] = None
    return list(found)


def _uuid(value: Any) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _entries(file: Path) -> Iterator[tuple[uuid.UUID | None, dict[str, Any]]]:
    """Read one data file; items without values are passed over, as Nion Swift shows none."""
    try:
        for properties, source in items(file, verify=False):
            item = _uuid(properties.get("uuid")) or decoded(file.stem)
            # Fourier transforms are nothing wrong, only nothing for us.
            if source is not None and source.dtype.kind != "c":
                yield item, record(file, properties, source, lazy=True)
    except InputFileError as problem:
        yield decoded(file.stem), _unreadable(str(problem))
    except Exception as problem:  # a damaged HDF5 file fails in every way there is
        yield decoded(file.stem), _unreadable(f"{file} cannot be read ({problem}); copy it again")


def _unreadable(reason: str) -> dict[str, Any]:
    metadata = {"General": {"title": f"unreadable: {reason}"}, "PhononEELS": {"unreadable": reason}}
    return {"data": np.zeros(()), "axes": _NO_AXES, "metadata": metadata, "original_metadata": {}}


def _is_missing(item: uuid.UUID, path: Path) -> str:
    return f"{encoded(item)}.ndata or .h5 is not in the data folder; copy the whole folder “{path.stem} Data” again"


def _has_energy(entry: Mapping[str, Any]) -> bool:
    return any(mev_per_unit(axis_unit(axis)) is not None for axis in entry["axes"])
