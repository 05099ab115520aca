"""``.h5`` is many formats: Nion Swift's library files, NeXus, and others that are told apart by what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phonon_eels.io.nion import read_nion
from phonon_eels.io.nion_arrays import check_heaps


def read_h5(path: Path, lazy: bool) -> Iterator[Mapping[str, Any]]:
    """Read a Nion Swift library file, or the data groups (NXdata) of a NeXus file through RosettaSciIO.

    Links to other files are not followed. USID files need another package (pyUSID) and are refused like every HDF5 file
    of unknown kind, with the way out: HyperSpy, and ``.hspy``.

    Raises
    ------
    InputFileError
        If it is neither.
    """
    if not _is_nexus(path):
        yield from read_nion(path, lazy)
        return
    from rsciio.nexus import file_reader

    check_heaps(path, "copy it again, or write it anew with the program that made it")
    yield from file_reader(str(path), lazy=lazy, nxdata_only=True, hardlinks_only=True)


def _is_nexus(path: Path) -> bool:
    """Say whether a group at the top says that it is an entry of a NeXus file."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            found = [
                file[name].attrs.get("NX_class")
                for name in file
                if isinstance(file.get(name, getlink=True), h5py.HardLink)
            ]
    except (OSError, KeyError, RuntimeError, ValueError):
        return False  # damaged: the Nion reader says what is wrong
    return any(item in ("NXentry", b"NXentry") for item in found if isinstance(item, str | bytes))
