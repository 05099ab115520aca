"""What is in a file: every signal that a reader finds, with axes and metadata, nothing interpreted yet.

Files come from elsewhere and are not trusted: nothing in them is unpickled or evaluated, and whatever goes wrong in a
reader ends as `InputFileError` with the name of the file.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phonon_eels.errors import InputFileError
from phonon_eels.io.axes import axis_unit, mev_per_unit
from phonon_eels.io.digital_micrograph import read_digital_micrograph
from phonon_eels.io.hdf5_kinds import read_h5
from phonon_eels.io.nion import SUFFIXES as NION_SUFFIXES
from phonon_eels.io.nion import read_nion
from phonon_eels.io.nion_arrays import check_heaps
from phonon_eels.io.nion_project import read_project
from phonon_eels.io.zarr_codecs import refuse_unsafe_codecs

Kind = Literal["spectrum", "image", "other"]

HYPERSPY_SUFFIXES = (".hspy", ".zspy", ".hdf5")
SUFFIXES = (*HYPERSPY_SUFFIXES, ".dm3", ".dm4", ".emd", ".msa", *NION_SUFFIXES, ".nsproj", ".zip")
_ZIP_LIMIT_BYTES = 4_000_000_000
_LOADED_LIMIT_BYTES = 2_000_000_000
_EXPANSION = 1000  # deflate packs no better than 1,032 to 1, and a detector's noise far worse
_ALLOWANCE_BYTES = 300_000_000  # what a reader may need whatever the size of the file
_HDF5_BEGINS = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class FileSignal:
    """One signal of a file.

    Attributes
    ----------
    number
        Place in the file, from 0; what `ingest.signal` selects.
    data
        Numpy or dask array, in the order of `axes`.
    axes
        HyperSpy's axis dictionaries, in the order of the array.
    metadata
        HyperSpy's metadata tree.
    original
        What the vendor wrote, as a tree.
    flags_meant
        True where the marks "navigation"/"signal" of the axes are the user's own (HyperSpy's formats), so that
        they must agree with the units.
    """

    number: int
    data: Any
    axes: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, Any]
    original: Mapping[str, Any] = field(default_factory=dict)
    flags_meant: bool = False

    @property
    def title(self) -> str:
        """Title, or an empty text."""
        return str(entry(self.metadata, "General.title") or "")

    @property
    def signal_type(self) -> str:
        """HyperSpy's signal type: "EELS", "EDS_TEM", empty …"""
        return str(entry(self.metadata, "Signal.signal_type") or "")

    @property
    def kind(self) -> Kind:
        """What the signal can be used as."""
        if self.signal_type.startswith("EDS") or self.data.ndim == 0:
            return "other"
        if any(mev_per_unit(axis_unit(axis)) is not None for axis in self.axes):
            return "spectrum"
        n_signal = sum(not axis.get("navigate", False) for axis in self.axes)
        if self.data.ndim == 2 and n_signal in (0, 2):
            return "image"
        return "spectrum" if n_signal == 1 else "other"


def entry(tree: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a dotted path of a metadata tree, None where nothing does."""
    found: Any = tree
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def memory_bound(path: str | Path) -> int:
    """Return how many bytes a file of this size may become in memory; a file that claims more is refused.

    1,000 times its size, and 300 MB in any case.
    """
    path = Path(path)
    parts = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    return _ALLOWANCE_BYTES + _EXPANSION * sum(part.stat().st_size for part in parts)


def load_signals(path: str | Path, *, lazy: bool = True) -> list[FileSignal]:
    """Read all signals of a file.

    Parameters
    ----------
    path
        ``.hspy .zspy .hdf5 .dm3 .dm4 .emd .msa``, Nion Swift's ``.ndata .ndata1 .h5 .nhdf .nsproj``, or a ``.zip``
        with one such file in it (which is read eagerly).
    lazy
        Leave arrays on the disk where the format can.

    Raises
    ------
    InputFileError
        If the file is missing, of another format, damaged, or not safe to open.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    _check_path(path, suffix)
    if suffix == ".zip":
        return _load_zipped(path)
    try:
        found = list(_READERS[suffix](path, lazy))
    except InputFileError:
        raise
    except MemoryError as problem:
        raise InputFileError(f"{path} needs more memory than there is; use a computer with more") from problem
    # Readers of foreign formats fail in every way there is; what users need is the file's name and a cure.
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
        raise InputFileError(
            f"{path} cannot be read as {suffix} ({reason}); it may be truncated or of another format: "
            f"copy it again from the microscope, or open it in the program that wrote it and save it anew"
        ) from problem
    bound = memory_bound(path)
    # A project names files that hold the values; its reader compares each with what it declares.
    claimed = 0 if suffix == ".nsproj" else sum(int(record["data"].nbytes) for record in found)
    if claimed > bound:
        raise InputFileError(
            f"{path} claims {claimed / 1e9:.3g} GB of values, which a file of its size cannot hold (at most "
            f"{bound / 1e9:.3g} GB); it is damaged, copy it again"
        )
    signals = [_signal(number, record, suffix, path) for number, record in enumerate(found)]
    if not signals:
        raise InputFileError(f"{path} holds no signal at all; choose another file")
    return signals


def _check_path(path: Path, suffix: str) -> None:
    if not path.exists():
        near = [other.name for other in path.parent.glob(f"*{suffix}")][:3] if path.parent.is_dir() else []
        hint = f"; the folder holds {', '.join(sorted(near))}" if near else "; check the name and the folder"
        raise InputFileError(f"{path} does not exist{hint}")
    if suffix not in SUFFIXES:
        raise InputFileError(
            f"{path} has the ending {suffix or '(none)'!r}; read are {' '.join(SUFFIXES)}: "
            f"convert it with HyperSpy, hs.load(...).save('name.hspy')"
        )
    if path.is_dir() != (suffix == ".zspy") and not (suffix == ".zspy" and zipfile.is_zipfile(path)):
        what = "a folder" if path.is_dir() else "no folder of arrays"
        raise InputFileError(f"{path} is {what}, which a {suffix} is not; give the file that holds the data")
    if path.is_file() and path.stat().st_size == 0:
        raise InputFileError(f"{path} is empty (0 bytes); copy it again from the microscope")


def _signal(number: int, record: Mapping[str, Any], suffix: str, path: Path) -> FileSignal:
    data, axes = record["data"], list(record["axes"])
    if data.dtype.kind not in "biuf":
        # Object arrays can only come from pickles or ragged data, complex ones from Fourier space.
        raise InputFileError(
            f"{path}: signal {number} has values of type {data.dtype}; counts must be whole or decimal numbers"
        )
    metadata: dict[str, Any] = dict(record.get("metadata") or {})
    original = record.get("original_metadata") or {}
    _apply_mapping(metadata, original, record.get("mapping") or {})
    return FileSignal(
        number=number,
        data=data,
        axes=tuple(_in_array_order(axes, tuple(data.shape), number, path)),
        metadata=metadata,
        original=original,
        flags_meant=suffix in HYPERSPY_SUFFIXES,
    )


def _in_array_order(
    axes: list[Mapping[str, Any]], shape: tuple[int, ...], number: int, path: Path
) -> list[Mapping[str, Any]]:
    """Order axes as the array: sizes decide, because the Velox reader numbers rows and columns the wrong way round."""
    by_index = sorted(axes, key=lambda axis: int(axis.get("index_in_array", 0)))
    for order in (axes, by_index):
        if len(order) == len(shape) and all(
            int(axis.get("size", size)) == size for axis, size in zip(order, shape, strict=True)
        ):
            return order
    sizes = [axis.get("size") for axis in axes]
    raise InputFileError(
        f"{path}: signal {number} has an array of shape {shape} but axes of sizes {sizes}; "
        f"the file is damaged or was changed by hand: open it in HyperSpy and save it anew"
    )


def _apply_mapping(metadata: dict[str, Any], original: Mapping[str, Any], mapping: Mapping[str, Any]) -> None:
    """Do what HyperSpy does on loading: copy vendor entries to their place in the metadata."""
    for source, (target, convert) in mapping.items():
        value = entry(original, source)
        if value is None:
            continue
        try:
            value = convert(value) if convert is not None else value
        except Exception:  # a converter that stumbles over one tag must not cost the whole file
            continue
        if value is None:
            continue
        *parents, last = target.split(".")
        place = metadata
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value


def _load_zipped(path: Path) -> list[FileSignal]:
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            members = [
                item
                for item in archive.infolist()
                if not item.is_dir() and Path(item.filename).suffix.lower() in SUFFIXES and item.filename[-4:] != ".zip"
            ]
            if len(members) != 1:
                names = ", ".join(item.filename for item in members) or "none"
                raise InputFileError(f"{path} must hold one readable file, it holds {names}; unpack it and give one")
            if members[0].file_size > _ZIP_LIMIT_BYTES:
                raise InputFileError(f"{path} holds {members[0].file_size} bytes; unpack it and give the file in it")
            return load_signals(archive.extract(members[0], folder), lazy=False)
    # zipfile says RuntimeError of an encrypted file and, as a kind of it, of a compression it does not know.
    except (zipfile.BadZipFile, EOFError, RuntimeError) as problem:
        raise InputFileError(f"{path} cannot be unpacked ({problem}); copy it again") from problem


def _read_hspy(path: Path, lazy: bool) -> Iterator[Mapping[str, Any]]:
    from rsciio.hspy import file_reader

    with path.open("rb") as file:
        begins = file.read(len(_HDF5_BEGINS))
    if begins != _HDF5_BEGINS:
        raise InputFileError(
            f"{path} is no HDF5 file, which a {path.suffix} must be (it begins with {begins!r}); "
            f"it was renamed, or the copy failed: export it again from the program that wrote it"
        )
    check_heaps(path, "copy it again, or open it in the program that wrote it and save it anew")
    yield from _signals_only(file_reader(str(path), lazy=lazy and not _stored_in_one_piece(path)))


def _stored_in_one_piece(path: Path) -> bool:
    """Say whether an array of a HDF5 file has no chunks, which RosettaSciIO cannot leave on the disk.

    Raises
    ------
    InputFileError
        If loading it instead would take too much memory.
    """
    import h5py

    found: list[int] = []
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda _, item: (
                found.append(item.nbytes) if isinstance(item, h5py.Dataset) and item.chunks is None else None
            )
        )
    if sum(found) > _LOADED_LIMIT_BYTES:
        raise InputFileError(
            f"{path} holds {sum(found) / 1e9:.3g} GB in one piece, which cannot be read bit by bit; "
            f"load it in HyperSpy and save it anew, which divides it into chunks"
        )
    return bool(found)


def _read_zspy(path: Path, lazy: bool) -> Iterator[Mapping[str, Any]]:
    from rsciio.zspy import file_reader

    refuse_unsafe_codecs(path)
    yield from _signals_only(file_reader(str(path), lazy=lazy, mode="r"))


def _signals_only(records: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Models without a signal stand in the same list."""
    return (record for record in records if "data" in record and "axes" in record)


def _read_emd(path: Path, lazy: bool) -> Iterator[Mapping[str, Any]]:
    from rsciio.emd import file_reader

    check_heaps(path, "copy it again, or open it in the program that wrote it and save it anew")
    yield from file_reader(str(path), lazy=lazy)


def _read_msa(path: Path, lazy: bool) -> Iterator[Mapping[str, Any]]:
    from rsciio.msa import file_reader

    with path.open("rb") as file:
        begins = file.read(200).lstrip().lower()
    if not begins.startswith(b"#format"):
        # The reader takes any two columns of numbers for a spectrum.
        raise InputFileError(
            f"{path} cannot be read as .msa: its first line must be #FORMAT : EMSA/MAS Spectral Data File; "
            f"it was renamed, or the copy failed: export it again"
        )
    # A text file of one spectrum: there is nothing to be lazy about.
    yield from file_reader(str(path), lazy=False)


_READERS: Mapping[str, Callable[[Path, bool], Iterator[Mapping[str, Any]]]] = {
    ".hspy": _read_hspy,
    ".hdf5": _read_hspy,
    ".zspy": _read_zspy,
    ".dm3": read_digital_micrograph,
    ".dm4": read_digital_micrograph,
    ".emd": _read_emd,
    ".msa": _read_msa,
    **dict.fromkeys(NION_SUFFIXES, read_nion),
    ".h5": read_h5,
    ".nsproj": read_project,
}


def load_array_image(path: Path) -> np.ndarray:
    """Read a single image from ``.npy`` or an image format; pickles are refused.

    Returns
    -------
    numpy.ndarray
        (rows, columns), or (frames, rows, columns) where the file has several pages.

    Raises
    ------
    InputFileError
        If it cannot be read.
    """
    if not path.is_file():
        raise InputFileError(f"{path} does not exist; check the name of the HAADF image")
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix.lower() in (".tif", ".tiff"):
            from rsciio.tiff import file_reader as read_tiff

            return np.asarray(read_tiff(str(path))[0]["data"])
        from rsciio.image import file_reader as read_picture

        return np.asarray(read_picture(str(path))[0]["data"])
    except Exception as problem:  # readers of foreign formats fail in every way there is
        raise InputFileError(f"{path} cannot be read as an image ({problem}); save it as .tif or .npy") from problem
