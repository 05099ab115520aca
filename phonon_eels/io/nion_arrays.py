"""Arrays in Nion Swift's files, left on the disk: an ``.npy`` stored in a zip, or a data set of an HDF5 file.

Files are not trusted. What a header declares is compared with the bytes that are there before anything is allocated,
pickles are refused, and links to other files are not followed.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.errors import InputFileError

_LOCAL_HEADER_BYTES = 30
_MAX_JSON_BYTES = 64_000_000
_CHECKSUM_LIMIT_BYTES = 256_000_000
_BLOCK_BYTES = 32_000_000
_MAX_CHUNK_BYTES = 1_000_000_000
# No counting detector's cube packs better than this; a file that claims more would unpack into the whole memory.
_MAX_COMPRESSION = 200
_HEAP_SEARCH_BYTES = 16_000_000
# Signature and version of a global heap, with the three zeros that follow.
_HEAP_BEGINS = b"GCOL\x01\0\0\0"
_COPY_AGAIN = "copy it again from the microscope, or export it from Nion Swift anew"


@dataclass(frozen=True)
class MappedArray:
    """An array at a place in a file. A part is mapped, copied and let go, so that the memory in use is that part.

    Attributes
    ----------
    offset
        Byte of the file at which the values begin.
    order
        "C" (last axis fastest) or "F".
    """

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    order: str = "C"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return a copy of a part.

        Raises
        ------
        InputFileError
            If the file has gone or become shorter since it was opened.
        """
        try:
            mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)  # type: ignore[call-overload]
        except (OSError, ValueError) as problem:
            raise InputFileError(f"{self.path} was changed while it was read ({problem}); read it again") from problem
        return np.array(mapped[key])


@dataclass(frozen=True)
class Hdf5Array:
    """A data set of an HDF5 file, opened anew for each part: nothing stays open, and it travels between processes."""

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    chunks: tuple[int, ...] | None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return a part.

        Raises
        ------
        InputFileError
            If the values cannot be decoded.
        """
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                return np.asarray(file[self.name][key])
        except (OSError, KeyError, ValueError, RuntimeError) as problem:
            raise InputFileError(f"{self.path}: /{self.name} cannot be read ({problem}); {_COPY_AGAIN}") from problem


def lazy_array(source: MappedArray | Hdf5Array, *, frames: bool) -> Any:
    """Return a dask array whose blocks are whole rows of one frame, about 32 MB each.

    Parameters
    ----------
    frames
        True if the first axis counts frames.
    """
    import dask.array
    from dask.base import tokenize

    wanted = [-1] * source.ndim
    first = 1 if frames and source.ndim > 1 else 0
    chunks: list[Any] = [1] * first + ["auto"] + wanted[first + 1 :]
    sizes = dask.array.core.normalize_chunks(chunks, source.shape, limit=_BLOCK_BYTES, dtype=source.dtype)
    state = source.path.stat()
    name = f"nion-{tokenize(source, state.st_mtime_ns, state.st_size)}"
    return dask.array.from_array(source, chunks=sizes, name=name)


# Zip --------------------------------------------------------------------------------------------


def open_zip(path: Path, *, verify: bool) -> tuple[bytes, MappedArray | None]:
    """Return the metadata (JSON text) and the array of an ``.ndata`` or ``.ndata1``.

    Parameters
    ----------
    verify
        Compare the values with their checksum, if they are not many.

    Raises
    ------
    InputFileError
        If the zip is damaged, packed, or not of Nion Swift.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            text = archive.read(members["metadata.json"])
    except InputFileError:
        raise
    # A damaged directory makes the zip reader fail in every way there is.
    except Exception as problem:
        raise InputFileError(f"{path} is damaged or no Nion Swift file ({problem}); {_COPY_AGAIN}") from problem
    if "data.npy" not in members:
        return text, None
    data = members["data.npy"]
    try:
        with path.open("rb") as file:
            start = _start_of(file, data, path)
            mapped = _npy(file, start, data.file_size, path)
            if verify and data.file_size <= _CHECKSUM_LIMIT_BYTES:
                _verify(file, start, data, path)
    except (OSError, ValueError, struct.error, OverflowError) as problem:
        raise InputFileError(f"{path}: data.npy in it is damaged ({problem}); {_COPY_AGAIN}") from problem
    return text, mapped


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Look the two members up by name: library files and exports have them in different order."""
    found: dict[str, zipfile.ZipInfo] = {}
    for item in archive.infolist():
        if item.filename not in ("data.npy", "metadata.json"):
            continue
        if item.filename in found:
            raise InputFileError(f"{path} holds {item.filename} twice; {_COPY_AGAIN}")
        if item.compress_type != zipfile.ZIP_STORED or item.file_size != item.compress_size or item.flag_bits & 1:
            raise InputFileError(
                f"{path}: {item.filename} in it is compressed or encrypted, which Nion Swift never does; "
                f"unpack the file and zip it anew without compression (zip -0), or export it from Nion Swift anew"
            )
        found[item.filename] = item
    if "metadata.json" not in found:
        raise InputFileError(
            f"{path} is a zip without metadata.json, so it is no Nion Swift file; "
            f"choose another, or export it from Nion Swift anew"
        )
    if found["metadata.json"].file_size > _MAX_JSON_BYTES:
        raise InputFileError(f"{path}: metadata.json in it is larger than 64 MB; {_COPY_AGAIN}")
    return found


def _start_of(file: Any, item: zipfile.ZipInfo, path: Path) -> int:
    """Return where the bytes of a stored member begin."""
    size = path.stat().st_size
    file.seek(item.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) != _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise InputFileError(f"{path}: data.npy is not where the zip says; {_COPY_AGAIN}")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    start = int(item.header_offset) + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    if start + item.file_size > size:
        raise InputFileError(
            f"{path} is truncated: data.npy ends at byte {start + item.file_size}, the file at {size}; {_COPY_AGAIN}"
        )
    return start


def _npy(file: Any, start: int, size: int, path: Path) -> MappedArray:
    """Read the header of an ``.npy``; nothing in it is evaluated but literals, and objects are refused."""
    file.seek(start)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise InputFileError(f"{path}: data.npy has the version {version}; read are 1.0 and 2.0: {_COPY_AGAIN}")
    if dtype.hasobject or dtype.kind not in "biufc" or dtype.itemsize == 0:
        raise InputFileError(
            f"{path}: data.npy holds values of type {dtype}, which is no number; nothing is unpickled: {_COPY_AGAIN}"
        )
    header = file.tell() - start
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or header + declared != size:
        raise InputFileError(
            f"{path}: data.npy declares the shape {shape} of {dtype} ({declared} bytes) but holds {size - header}; "
            f"{_COPY_AGAIN}"
        )
    return MappedArray(path, start + header, dtype, tuple(int(n) for n in shape), "F" if fortran else "C")


def _verify(file: Any, start: int, item: zipfile.ZipInfo, path: Path) -> None:
    file.seek(start)
    left, checksum = item.file_size, 0
    while left and (block := file.read(min(left, 4_000_000))):
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    if checksum != item.CRC:
        raise InputFileError(f"{path}: the values in data.npy do not agree with their checksum; {_COPY_AGAIN}")


# HDF5 -------------------------------------------------------------------------------------------


def open_hdf5(path: Path) -> list[tuple[str | bytes, Hdf5Array | None]]:
    """Return (properties as JSON text, array) of every data set in a library ``.h5`` or an exported ``.nhdf``.

    Raises
    ------
    InputFileError
        If the file is not of Nion Swift, or its values are damaged, incomplete or elsewhere.
    """
    import h5py

    if not h5py.is_hdf5(path):
        raise InputFileError(f"{path} is no HDF5 file, which a {path.suffix} must be; {_COPY_AGAIN}")
    check_heaps(path)
    try:
        file = h5py.File(path, "r")
    except OSError as problem:
        raise InputFileError(
            f"{path} cannot be opened ({problem}); it is truncated, or Nion Swift has it open: "
            f"close it there, or copy it again"
        ) from problem
    with file:
        place = file.get("data", getlink=True) if "data" in file else None
        top = file["data"] if isinstance(place, h5py.HardLink) else None
        if isinstance(top, h5py.Group):
            names = [f"data/{name}" for name in sorted(top, key=lambda name: (len(name), name))]
            linked = [top.get(name.removeprefix("data/"), getlink=True) for name in names]
        else:
            names, linked = (["data"], [place]) if isinstance(top, h5py.Dataset) else ([], [])
        for name, link in zip(names, linked, strict=True):
            if not isinstance(link, h5py.HardLink):
                raise InputFileError(f"{path}: /{name} points into another place, which is not followed; {_COPY_AGAIN}")
        items = {name: file[name] for name in names}
        if not items or not all(
            isinstance(item, h5py.Dataset) and "properties" in item.attrs for item in items.values()
        ):
            raise InputFileError(
                f"{path} is an HDF5 file, but not of Nion Swift (there is no /data with the attribute 'properties'); "
                f"load it in the program that wrote it, or in HyperSpy, and save it as .hspy"
            )
        return [(_text(item.attrs["properties"], path), _data_set(item, path)) for item in items.values()]


def check_heaps(path: Path, cure: str = _COPY_AGAIN) -> None:
    """Refuse damaged heaps of texts, of which the HDF5 library (2.0) never comes back: it steps on by a size of 0.

    Only the parts of a file are searched where writers put them, before and after the values.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_HEAP_SEARCH_BYTES)
        file.seek(max(len(first), size - _HEAP_SEARCH_BYTES))
        parts = [first, file.read()]
    for part in parts:
        place = part.find(_HEAP_BEGINS)
        while place >= 0:
            if not _heap_is_whole(part, place):
                raise InputFileError(f"{path} is damaged: its heap of texts is not consistent; {cure}")
            place = part.find(_HEAP_BEGINS, place + 1)


def _heap_is_whole(part: bytes, place: int) -> bool:
    """Walk through a heap as the library does; what lies behind the part cannot be judged."""
    (heap_size,) = struct.unpack_from("<Q", part.ljust(place + 16, b"\0"), place + 8)
    end, at = place + heap_size, place + 16
    while at + 16 <= min(end, len(part)):
        index, _, _, size = struct.unpack_from("<HHIQ", part, at)
        # Object 0 is the free rest, its size includes the header.
        step = size if index == 0 else 16 + (size + 7) // 8 * 8
        if step < 16 or at + step > end:
            return False
        at += step
    return True


def _text(value: Any, path: Path) -> str | bytes:
    if not isinstance(value, str | bytes) or len(value) > _MAX_JSON_BYTES:
        raise InputFileError(f"{path}: the attribute 'properties' is no text of at most 64 MB; {_COPY_AGAIN}")
    return value


def _data_set(item: Any, path: Path) -> Hdf5Array | None:
    """Check that the values are numbers, all there, and in this file; an item without values gives None."""
    name = item.name.lstrip("/")
    if item.shape is None or item.size == 0:
        return None
    if item.is_virtual or item.external:
        raise InputFileError(f"{path}: the values of /{name} are in another file, which is not followed; {_COPY_AGAIN}")
    if item.dtype.hasobject or item.dtype.kind not in "biufc":
        raise InputFileError(f"{path}: /{name} holds values of type {item.dtype}, which is no number; {_COPY_AGAIN}")
    packed, stored, declared = _filters(item, path), int(item.id.get_storage_size()), int(item.nbytes)
    if declared > stored * (_MAX_COMPRESSION if packed else 1):
        raise InputFileError(
            f"{path}: /{name} declares {item.shape} of {item.dtype} ({declared} bytes) but only {stored} bytes were "
            f"written; the acquisition or the copy was interrupted: copy it again, or crop it in Nion Swift to the "
            f"rows that were taken, and export that"
        )
    if item.chunks is not None and math.prod(item.chunks) * item.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise InputFileError(f"{path}: /{name} has blocks of more than 1 GB; export it from Nion Swift anew")
    return Hdf5Array(path, name, item.dtype, tuple(int(n) for n in item.shape), item.chunks)


def _filters(item: Any, path: Path) -> bool:
    """Say whether the values are compressed.

    Raises
    ------
    InputFileError
        If the decompressor is not installed.
    """
    import h5py

    properties = item.id.get_create_plist()
    codes: Mapping[int, str] = {
        int(code): bytes(name).decode("ascii", "replace")
        for code, _, _, name in (properties.get_filter(n) for n in range(properties.get_nfilters()))
    }
    if not all(h5py.h5z.filter_avail(code) for code in codes):
        # The package only tells HDF5 where its decompressors are.
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401
    for code, name in codes.items():
        if not h5py.h5z.filter_avail(code):
            raise InputFileError(
                f"{path} is compressed with {name or 'the filter'} ({code}), which is not installed; "
                f"export it from Nion Swift without compression, or run: pip install hdf5plugin"
            )
    return bool(codes)
