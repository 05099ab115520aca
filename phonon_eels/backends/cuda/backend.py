"""The GPU as a backend: blocks of rows as on the processor, each block's spectra by a kernel on the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from phonon_eels.backends.base import WholeArray
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.cuda import classic, components, covariance, forward, zero_loss
from phonon_eels.backends.cuda.device_memory import call_whole, device_memory, out_of_memory
from phonon_eels.backends.cuda.find import why_no_cuda
from phonon_eels.backends.cuda.stream import Call, stream
from phonon_eels.backends.memory import LARGEST_BATCH
from phonon_eels.errors import DeviceError
from phonon_eels.kernels.device import UNDER_SIMULATOR

THREADS_PER_BLOCK = 64
"""The kernels take up to 255 registers a thread: 256 threads of such fill a multiprocessor, four blocks of this size."""
BLOCK_BYTES = 256_000_000
"""Of a block's values as float64: enough spectra for all multiprocessors."""
BLOCKS_AT_ONCE = 2
"""One block is on the device while the next is read and unpacked."""

CALLS: tuple[tuple[str, Callable[..., Call]], ...] = (
    ("fit_block", forward.fit_call),
    ("covariance_block", covariance.covariance_call),
    ("find_peaks_block", zero_loss.find_call),
    ("score_block", zero_loss.score_call),
    ("resample_block", classic.resample_call),
    ("fit_backgrounds_block", classic.background_call),
    ("filter_block", classic.filter_call),
    ("lucy_block", classic.lucy_call),
    ("fit_components_block", components.components_call),
)
"""The processor's functions by name, and what makes the same call on the device."""


class CudaBackend(CpuBackend):
    """Runs the kernels and whole-array work on one CUDA device; everything else in `threads` threads of the processor.

    Parameters
    ----------
    threads
        For what the processor does.
    threads_per_block, largest_batch
        Of the launches; no result depends on them.

    Raises
    ------
    DeviceError
        If there is no device.
    """

    name: Literal["cpu", "cuda"] = "cuda"

    _turn = threading.Lock()
    """One call of the process is on its device at a time, whoever makes it: the memory model counts on all that is free."""

    def __init__(
        self,
        threads: int | None = None,
        threads_per_block: int = THREADS_PER_BLOCK,
        largest_batch: int = LARGEST_BATCH,
    ) -> None:
        super().__init__(threads)
        reason = why_no_cuda()
        if reason is not None:
            raise DeviceError(f"device = cuda: {reason}; use --device cpu or auto")
        self.blocks_at_once = self.blocks_in_memory = BLOCKS_AT_ONCE
        self.block_bytes = BLOCK_BYTES
        self._launch = (threads_per_block, largest_batch)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a worker as what made it."""
        return CudaBackend, (self.threads, *self._launch)

    def run(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the device's twin of ``block(*args, **kwargs)``; see `Backend`."""
        name = block.__name__
        make_call = dict(CALLS).get(name)
        if make_call is None:
            raise DeviceError(f"device = cuda: {name} has no kernel for the GPU; use --device cpu")
        threads_per_block, largest_batch = self._launch
        with self._turn:
            stream(make_call(*args, **kwargs), threads_per_block=threads_per_block, largest_batch=largest_batch)
        return 0

    @property
    def xp(self) -> Any:
        """CuPy; under Numba's simulator, which has no device for it, numpy. See `Backend`."""
        if UNDER_SIMULATOR:
            return super().xp
        import cupy

        return cupy

    @property
    def fft(self) -> Any:
        """CuPy's Fourier transforms; see `Backend`."""
        if UNDER_SIMULATOR:
            return super().fft
        from cupyx.scipy import fft

        return fft

    def whole_array(
        self, function: WholeArray, *arrays: np.ndarray, shared: Sequence[Any] = (), row_bytes: float | None = None
    ) -> Any:
        """Work on whole arrays on the device; see `Backend`."""
        if UNDER_SIMULATOR:
            return super().whole_array(function, *arrays, shared=shared, row_bytes=row_bytes)
        import cupy

        with self._turn:
            try:
                return call_whole(self, function, arrays, tuple(shared), row_bytes, device_memory().free_bytes())
            except cupy.cuda.memory.OutOfMemoryError as problem:
                raise out_of_memory(problem) from problem
            finally:
                # Plans hold work memory: let go, it is the pool's, and counted as what can be had.
                cupy.fft.config.clear_plan_cache()
