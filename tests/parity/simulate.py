"""Run as a program under NUMBA_ENABLE_CUDASIM=1: every driver of the GPU over its small batch.

Usage: python -m tests.parity.simulate OUT.npz NAME …   Writes the results, and the bytes that were allocated on the device.
"""

from __future__ import annotations

import math
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
from numba import cuda

from phonon_eels.backends import memory
from phonon_eels.backends.cuda import stream
from phonon_eels.backends.cuda.backend import CALLS, CudaBackend
from phonon_eels.backends.cuda.device_memory import PoolMemory
from phonon_eels.kernels import device
from tests.parity.cases import CASES

BATCH = 2
"""Several batches, the last not full, in two streams that are used again."""


class Pool:
    """What `PoolMemory` needs of CuPy: every array holds what somebody left in it, and the bytes are counted."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def empty(self, shape, dtype):
        """Return an array of the simulator full of values that no kernel can take for its own."""
        left = np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 77, dtype=dtype)
        made = cuda.to_device(left)
        self.n_bytes += left.nbytes
        return made

    def get_default_memory_pool(self):
        """Return what tells how much the pool keeps."""
        return SimpleNamespace(free_bytes=lambda: 0)


def machine_sqrt(x: float) -> float:
    """Return the root, NaN of a negative number: machine code does so, where Python raises."""
    return float(np.sqrt(x))


def main(out: str, names: list[str]) -> None:
    """Run the cases and write their results."""
    assert device.UNDER_SIMULATOR
    backend = CudaBackend(1, threads_per_block=2, largest_batch=BATCH)
    written: dict[str, np.ndarray] = {}
    np.seterr(all="ignore")
    math.sqrt = machine_sqrt
    for name in names:
        case = dict(CASES)[name]()
        arguments = case.fresh()
        pool = Pool()
        stream.device_memory = partial(PoolMemory, pool, np.empty, lambda array: array)
        backend.run(case.block, *arguments)
        call = dict(CALLS)[case.block.__name__](*arguments)
        batches = -(-call.n_spectra // BATCH)
        predicted = call.footprint().total_bytes(BATCH, min(memory.STREAMS, batches))
        written[f"{name}/bytes"] = np.array([pool.n_bytes, predicted])
        for place in case.results:
            written[f"{name}/{place}"] = arguments[place]
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
