"""Memory of the device and page-locked memory: from CuPy's pools, so that kernels and whole-array work share one account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda

from phonon_eels.backends.memory import Footprint, batch_size
from phonon_eels.errors import DeviceError
from phonon_eels.kernels.device import UNDER_SIMULATOR

Array = np.ndarray


class NumbaMemory:
    """numba.cuda's own arrays, new at every call: what its simulator has."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array on the device, its values undefined."""
        return cuda.device_array(shape, dtype=dtype)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a page-locked array of the host."""
        return np.asarray(cuda.pinned_array(shape, dtype=dtype))

    def free_bytes(self) -> float:
        """Return how much can be had."""
        return float(cuda.current_context().get_memory_info().free)


class PoolMemory(NumbaMemory):
    """CuPy's arrays as numba.cuda takes them (``__cuda_array_interface__``); what is let go stays in CuPy's pools.

    Parameters
    ----------
    cupy, empty_pinned
        The package, and ``cupyx.empty_pinned``.
    as_cuda_array
        Makes numba.cuda's view of an array, ``cuda.as_cuda_array``.
    """

    def __init__(self, cupy: Any, empty_pinned: Callable[..., Array], as_cuda_array: Callable[..., Any]) -> None:
        self._cupy, self._empty_pinned, self._as_cuda_array = cupy, empty_pinned, as_cuda_array

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array on the device, its values undefined; it holds CuPy's array, and so the memory."""
        if 0 in shape:  # no memory, so no address that numba.cuda could take
            return super().empty(shape, dtype)
        return self._as_cuda_array(self._cupy.empty(shape, dtype))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a page-locked array of the host."""
        return self._empty_pinned(shape, dtype)

    def free_bytes(self) -> float:
        """Return how much can be had: what the driver has free, and what the pool holds and nobody uses."""
        return super().free_bytes() + float(self._cupy.get_default_memory_pool().free_bytes())


def device_memory() -> NumbaMemory:
    """Return where the device's memory comes from."""
    if UNDER_SIMULATOR:
        return NumbaMemory()
    import cupy
    import cupyx

    return PoolMemory(cupy, cupyx.empty_pinned, cuda.as_cuda_array)


def call_whole(
    on: Any,
    function: Callable[..., Any],
    arrays: tuple[Array, ...],
    shared: tuple[Any, ...],
    row_bytes: float | None,
    free_bytes: float,
) -> Any:
    """Bring arrays to the device, call a function on them, and bring back what it returns; see `Backend.whole_array`.

    Parameters
    ----------
    on
        ``on.xp`` with ``asarray`` and ``asnumpy`` as CuPy has them.
    free_bytes
        Memory that can be had on the device.

    Raises
    ------
    DeviceError
        If not even one row fits.
    """
    xp = on.xp
    there = [xp.asarray(value) if isinstance(value, np.ndarray) else value for value in shared]
    n_rows = arrays[0].shape[0]
    if row_bytes is None or n_rows == 0:
        return _on_host(xp, function(on, *[xp.asarray(array) for array in arrays], *there))
    given = sum(array[:1].nbytes for array in arrays)
    needs = Footprint(sum(value.nbytes for value in shared if isinstance(value, np.ndarray)), int(row_bytes) + given)
    rows = batch_size(needs, free_bytes, n_rows, streams=1, largest=n_rows)
    parts = []
    for low in range(0, n_rows, rows):
        taken = [xp.asarray(array[low : low + rows]) for array in arrays]
        parts.append(_on_host(xp, function(on, *taken, *there)))
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return np.concatenate(parts)


def _on_host(xp: Any, found: Any) -> Any:
    return tuple(xp.asnumpy(part) for part in found) if isinstance(found, tuple) else xp.asnumpy(found)


def out_of_memory(problem: BaseException) -> DeviceError:
    """Return what to say where CuPy has no room for an array."""
    return DeviceError(
        f"device = cuda: the device has no room for this array as a whole ({problem}); end what else uses it, or use "
        f"--device cpu"
    )
