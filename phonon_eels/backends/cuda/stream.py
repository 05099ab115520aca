"""Batches of spectra through a kernel: page-locked memory, two streams, one thread per spectrum.

A driver says what each argument of its kernel is, and what it says decides how much memory a spectrum takes, how many
spectra go into a batch, what is copied in, and what comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import cuda

from phonon_eels.backends.cuda.device_memory import NumbaMemory, device_memory
from phonon_eels.backends.memory import STREAMS, Footprint, batch_size


@dataclass(frozen=True)
class Given:
    """Data of every spectrum, (spectra, …), read by the kernel."""

    array: np.ndarray


@dataclass(frozen=True)
class Changed:
    """Data of every spectrum, (spectra, …), read and changed."""

    array: np.ndarray


@dataclass(frozen=True)
class Made:
    """Results of every spectrum, (spectra, …), written by the kernel whole."""

    array: np.ndarray


@dataclass(frozen=True)
class Shared:
    """Data that all spectra share."""

    array: np.ndarray


@dataclass(frozen=True)
class Scratch:
    """Working memory of every spectrum.

    On the device the spectra are the *last* axis: threads beside each other then read addresses beside each other, and
    32 of them are served by one access.
    """

    shape: tuple[int, ...]
    dtype: Any = np.float64


Argument = Given | Changed | Made | Shared | Scratch | int | float | bool


@dataclass(frozen=True)
class Call:
    """A kernel and its arguments."""

    kernel: Any
    n_spectra: int
    arguments: tuple[Argument, ...]

    def footprint(self) -> Footprint:
        """Return the device memory that the arguments need."""
        shared = [(_shape(a.array), a.array.itemsize) for a in self.arguments if isinstance(a, Shared)]
        spectra = [
            (_shape(a.array)[1:], a.array.itemsize)
            for a in self.arguments
            if isinstance(a, (Given, Changed, Made)) and a.array.shape[0] > 0
        ]
        scratch = [(a.shape, np.dtype(a.dtype).itemsize) for a in self.arguments if isinstance(a, Scratch)]
        return Footprint.of(shared, spectra + scratch)

    def signature(self) -> tuple[Any, ...]:
        """Return the types that the kernel is compiled for."""
        return tuple(_numba_type(argument) for argument in self.arguments)


def _shape(array: np.ndarray) -> tuple[int, ...]:
    # An axis of length 0 would give a stride of 0, which Numba takes for another type of array and compiles for anew.
    return (array.shape[0], *(max(size, 1) for size in array.shape[1:]))


def _numba_type(argument: Argument) -> Any:
    if isinstance(argument, Scratch):
        return numba.types.Array(numba.from_dtype(np.dtype(argument.dtype)), len(argument.shape) + 1, "C")
    if isinstance(argument, (Given, Changed, Made, Shared)):
        return numba.types.Array(numba.from_dtype(argument.array.dtype), argument.array.ndim, "C")
    if isinstance(argument, bool):
        return numba.types.boolean
    return numba.types.int64 if isinstance(argument, int) else numba.types.float64


class _Lane:
    """One stream with the buffers of one batch."""

    def __init__(self, call: Call, shared: dict[int, Any], batch: int, memory: NumbaMemory) -> None:
        self._call = call
        self._stream = cuda.stream()
        self._span = (0, 0)
        self._device: list[Any] = []
        self._pinned: dict[int, np.ndarray] = {}
        for number, argument in enumerate(call.arguments):
            if isinstance(argument, Scratch):
                self._device.append(memory.empty((*argument.shape, batch), argument.dtype))
            elif isinstance(argument, (Given, Changed, Made)):
                n = batch if argument.array.shape[0] > 0 else 0
                shape = (n, *_shape(argument.array)[1:])
                self._device.append(memory.empty(shape, argument.array.dtype))
                if argument.array.size > 0:
                    self._pinned[number] = memory.pinned(shape, argument.array.dtype)
            else:
                self._device.append(shared.get(number, argument))

    def start(self, low: int, high: int, threads_per_block: int) -> None:
        """Send one batch in and launch the kernel; nothing waits."""
        n = high - low
        self._span = (low, high)
        arguments = []
        for number, argument in enumerate(self._call.arguments):
            on_device = self._device[number]
            if isinstance(argument, (Given, Changed, Made)) and number in self._pinned:
                on_device = on_device[:n]
                if not isinstance(argument, Made):
                    staged = self._pinned[number][:n]
                    staged[...] = argument.array[low:high]
                    on_device.copy_to_device(staged, stream=self._stream)
            arguments.append(on_device)
        blocks = -(-n // threads_per_block)
        self._call.kernel[blocks, threads_per_block, self._stream](*arguments)
        for number, argument in enumerate(self._call.arguments):
            if isinstance(argument, (Changed, Made)) and number in self._pinned:
                self._device[number][:n].copy_to_host(self._pinned[number][:n], stream=self._stream)

    def finish(self) -> None:
        """Wait for the batch and put its results where they belong."""
        self._stream.synchronize()
        low, high = self._span
        for number, staged in self._pinned.items():
            argument = self._call.arguments[number]
            if isinstance(argument, (Changed, Made)):
                argument.array[low:high] = staged[: high - low]
        self._span = (low, low)


def stream(call: Call, *, threads_per_block: int, largest_batch: int) -> None:
    """Run a kernel over all spectra in batches; results are in the arrays of the call when this returns.

    Results do not depend on the batches nor on the threads: each spectrum is worked on by one thread, which sees nothing
    of the others.

    Raises
    ------
    DeviceError
        If the device has no room for a single spectrum.
    """
    if call.n_spectra == 0:
        return
    memory = device_memory()
    batch = batch_size(call.footprint(), memory.free_bytes(), call.n_spectra, largest=largest_batch)
    starts = range(0, call.n_spectra, batch)
    shared = {
        number: _to_device(argument.array, memory)
        for number, argument in enumerate(call.arguments)
        if isinstance(argument, Shared)
    }
    cuda.synchronize()  # what all share was sent by another stream than those that work with it
    lanes: Sequence[_Lane] = [_Lane(call, shared, batch, memory) for _ in range(min(STREAMS, len(starts)))]
    try:
        for turn, low in enumerate(starts):
            lane = lanes[turn % len(lanes)]
            lane.finish()
            lane.start(low, min(low + batch, call.n_spectra), threads_per_block)
        for lane in lanes:
            lane.finish()
    finally:
        # What the lanes let go may be given to another at once: nothing may work on it any more, also after an interrupt.
        cuda.synchronize()


def _to_device(array: np.ndarray, memory: NumbaMemory) -> Any:
    made = memory.empty(_shape(array), array.dtype)
    if array.size > 0:
        made.copy_to_device(np.ascontiguousarray(array))
    return made
