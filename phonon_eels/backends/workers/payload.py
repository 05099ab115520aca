"""What travels to a worker: a function with its constants, and arrays that say where on the disk they are.

Arrays on disk travel as their place, so that every worker reads its own blocks; compiled kernels travel by name, because
a kernel sent by value would be compiled again by every worker.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import mmap
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np


def pack(*parts: Any) -> bytes:
    """Return objects as bytes for `unpack`."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, item: Any) -> Any:
            reduced = _by_reference(item)
            return super().reducer_override(item) if reduced is None else reduced

    buffer = io.BytesIO()
    Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(parts)
    return buffer.getvalue()


def unpack(payload: bytes) -> Any:
    """Return what `pack` was given; the last ones are kept, because every block of a task list has the same payload."""
    return _unpack(_Bytes(payload))


class _Bytes:
    """Bytes that compare by digest."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._digest = hashlib.sha256(content).digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bytes) and self._digest == other._digest


@functools.lru_cache(maxsize=2)
def _unpack(payload: _Bytes) -> Any:
    return pickle.loads(payload.content)


def _by_reference(item: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Return how an object is found again where it is, None if it has to travel as it is."""
    kernel = getattr(item, "py_func", None)
    if kernel is not None and _attribute(kernel.__module__, kernel.__qualname__) is item:
        return _attribute, (kernel.__module__, kernel.__qualname__)
    kind = type(item)
    if kind.__module__.startswith("h5py.") and kind.__name__ == "Dataset":
        return _hdf5_dataset, (item.file.filename, item.name)
    if isinstance(item, np.memmap) and isinstance(item.base, mmap.mmap) and item.filename is not None:
        order = "C" if item.flags.c_contiguous else "F"
        return _memory_map, (str(item.filename), item.dtype, item.offset, item.shape, order)
    return None


def _attribute(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _hdf5_dataset(file: str, name: str) -> Any:
    return _hdf5_file(file)[name]


@functools.lru_cache(maxsize=8)
def _hdf5_file(path: str) -> Any:
    import h5py

    return h5py.File(path, "r")


def _memory_map(file: str, dtype: Any, offset: int, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
