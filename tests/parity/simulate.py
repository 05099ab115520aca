"""Run as a program under NUMBA_ENABLE_CUDASIM=1: every driver of the GPU over its small batch.

Usage: python -m tests.parity.simulate OUT.npz NAME …   Writes the results, and the bytes that were allocated on the device.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numba import cuda

from phonon_eels.backends import memory
from phonon_eels.backends.cuda import stream
from phonon_eels.backends.cuda.backend import CALLS, CudaBackend
from phonon_eels.kernels import device
from tests.parity.cases import CASES

BATCH = 2
"""Several batches, the last not full, in two streams that are used again."""


class Counted:
    """numba.cuda, with what is allocated on the device counted."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def __getattr__(self, name):
        return getattr(cuda, name)

    def device_array(self, *args, **kwargs):
        made = cuda.device_array(*args, **kwargs)
        self.n_bytes += made.nbytes
        return made

    def to_device(self, array):
        made = cuda.to_device(array)
        self.n_bytes += made.nbytes
        return made


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
        stream.cuda = counted = Counted()
        backend.run(case.block, *arguments)
        stream.cuda = cuda
        call = dict(CALLS)[case.block.__name__](*arguments)
        batches = -(-call.n_spectra // BATCH)
        predicted = call.footprint().total_bytes(BATCH, min(memory.STREAMS, batches))
        written[f"{name}/bytes"] = np.array([counted.n_bytes, predicted])
        for place in case.results:
            written[f"{name}/{place}"] = arguments[place]
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
