"""What made a result: input hashes, settings, versions, device, seed, command.

The *fingerprint* covers what determines the result (inputs, the settings a step depends on, the package's version,
the results it was made from) and nothing that merely happened (time, machine, threads): two results with the same
fingerprint are the same, so one of them need not be made again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels import __version__

SCHEMA_VERSION = 1

_LIBRARIES = ("numpy", "scipy", "numba", "dask", "hyperspy", "rosettasciio", "xarray")
_BLOCK_BYTES = 4_000_000


@dataclass(frozen=True)
class Provenance:
    """The record that goes into every file of a result.

    Attributes
    ----------
    step
        Step that made the result.
    inputs
        File name → SHA-256 of its content.
    settings
        Only the settings that the step depends on, JSON-ready.
    parents
        Earlier step → its fingerprint.
    material
        SHA-256 of the material the step used, or None.
    seed
        Seed of everything random.
    device, threads
        Where it ran; no part of the fingerprint, because results do not depend on them.
    command
        Command line.
    time
        When it was made, UTC, ISO 8601.
    versions
        Package → version.
    """

    step: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    material: str | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    command: str = ""
    time: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Return the hash of what determines the result, 64 hexadecimal digits.

        Inputs count by content, not by name or place: a copied file gives the same result.
        """
        determines = {
            "schema": SCHEMA_VERSION,
            "step": self.step,
            "inputs": sorted(self.inputs.values()),
            "settings": self.settings,
            "parents": self.parents,
            "material": self.material,
            "seed": self.seed,
            "phonon_eels": self.versions.get("phonon_eels", __version__),
        }
        return json_digest(determines)

    def to_dict(self) -> dict[str, Any]:
        """Return the record JSON-ready, with its fingerprint."""
        return {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint(),
            **{name: _plain(getattr(self, name)) for name in self.__dataclass_fields__},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Provenance:
        """Return the record that `to_dict` gave."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})


def collect(
    step: str,
    *,
    inputs: Sequence[Path] | Mapping[str, str] = (),
    settings: Mapping[str, Any] | None = None,
    parents: Mapping[str, str] | None = None,
    material: Any = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    command: Sequence[str] | None = None,
) -> Provenance:
    """Make the record of a step that is about to run, or has run, here and now.

    Parameters
    ----------
    inputs
        Files to hash, or file name → hash where they have been hashed before.
    material
        Anything JSON-ready that says what the material is; only its hash is kept.
    command
        Command line; default: that of this process.
    """
    known = dict(inputs) if isinstance(inputs, Mapping) else {Path(path).name: file_digest(path) for path in inputs}
    return Provenance(
        step=step,
        inputs=known,
        settings=_plain(settings or {}),
        parents=dict(parents or {}),
        material=None if material is None else json_digest(material),
        seed=seed,
        device=device,
        threads=threads,
        command=shlex.join(command if command is not None else sys.argv),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of the package, of Python and of what it computes with, without importing any of them."""
    found = {"phonon_eels": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-ready value; the order of keys does not count."""
    text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | Path, *parts: Path) -> str:
    """Return the SHA-256 of a file's content, read in blocks; of a folder (`.zspy`): of its files and their names.

    Parameters
    ----------
    parts
        More files without which the first means nothing, in their order.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if parts:
        return hashlib.sha256("\n".join(file_digest(part) for part in (path, *parts)).encode()).hexdigest()
    if path.is_dir():
        for part in sorted(place for place in path.rglob("*") if place.is_file()):
            digest.update(f"{part.relative_to(path).as_posix()}\0{file_digest(part)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def data_digest(array: Any) -> str:
    """Return the SHA-256 of an array's type, shape and values; how it is chunked or stored does not count."""
    digest = hashlib.sha256()
    shape = tuple(int(size) for size in array.shape)
    # The last axes in full, the first in blocks: a cube larger than memory is read once, in order.
    digest.update(f"{np.dtype(array.dtype).str} {shape}\0".encode())
    if not shape:
        digest.update(_bytes(np.asarray(array)))
        return digest.hexdigest()
    row_bytes = math.prod(shape[1:]) * np.dtype(array.dtype).itemsize
    step = max(1, _BLOCK_BYTES // max(row_bytes, 1))
    for start in range(0, shape[0], step):
        digest.update(_bytes(np.asarray(array[start : start + step])))
    return digest.hexdigest()


def array_digest(folder: str | Path) -> dict[str, str]:
    """Return name → hash of every array and table below a results folder.

    Two results are the same if these are equal: the same names and the same array bytes. Times, provenance,
    compression, chunks and the bytes of container files do not count.

    Parameters
    ----------
    folder
        A step's folder, a dataset's or all results.

    Returns
    -------
    dict
        ``"step/maps.nc:energy_mev"`` → SHA-256; of a summary its numbers and words, of a table its text.
    """
    folder = Path(folder)
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") or part.endswith(".zspy") for part in Path(name).parts[:-1]):
            continue
        if path.name.endswith(".zspy") and path.is_dir():
            found |= {f"{name}:{key}": value for key, value in _zspy_arrays(path).items()}
        elif path.suffix in (".nc", ".hspy", ".hdf5", ".h5") and path.is_file():
            found |= {f"{name}:{key}": value for key, value in _hdf5_arrays(path).items()}
        elif path.suffix == ".csv":
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
            found[name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        elif path.name == "summary.json":
            record = json.loads(path.read_text(encoding="utf-8"))
            found[name] = json_digest(record.get("summary", {}))
    return found


def _zspy_arrays(path: Path) -> dict[str, str]:
    import zarr

    found: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, zarr.Array):
            found[name] = data_digest(item)
        elif "state" in item.attrs:  # axes, noise and acquisition of an image
            found[f"{name}/state"] = json_digest(json.loads(item.attrs["state"]))

    zarr.open_group(str(path), mode="r").visititems(visit)
    return found


def _hdf5_arrays(path: Path) -> dict[str, str]:
    import h5py

    found: dict[str, str] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: found.update({name: data_digest(item)}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def _bytes(block: np.ndarray) -> bytes:
    if block.dtype.kind == "O":  # variable-length text
        return "\0".join(str(entry) for entry in block.ravel()).encode()
    return np.ascontiguousarray(block).tobytes()


def _plain(value: Any) -> Any:
    """Return a value as JSON keeps it: tuples as lists, numpy numbers as numbers, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
