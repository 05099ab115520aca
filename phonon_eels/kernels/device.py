"""One decorator for all kernels, so that one source serves the processor and the GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

UNDER_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def kernel(function: Function) -> Function:
    """Compile a routine that handles one spectrum: scalars and 1-D views in, status code out, no allocation.

    Under the CUDA simulator the routine stays plain Python, because a compiled one cannot take the simulator's arrays.
    """
    if UNDER_SIMULATOR:
        return function
    compiled: Function = numba.njit(error_model="numpy", nogil=True, cache=True, fastmath={"contract"})(function)
    return compiled
