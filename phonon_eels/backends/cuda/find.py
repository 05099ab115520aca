"""Look for a device, without importing any kernel."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec

_NO_DEVICE = "no CUDA device with its driver was found"


def why_no_cuda() -> str | None:
    """Return why no CUDA device can be used, None if one can."""
    if _driver_is_missing():
        return _NO_DEVICE
    try:
        from numba import cuda

        available = cuda.is_available()
    except ImportError as problem:
        return f"numba-cuda is not installed ({problem}); install phonon-eels[cuda]"
    if not available:
        return _NO_DEVICE
    # The simulator has no device that CuPy could use, and does without.
    if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1" and find_spec("cupy") is None:
        return "CuPy is not installed, which whole-array work and the device's memory need; install phonon-eels[cuda]"
    return None


def _driver_is_missing() -> bool:
    """Return True where a look at the system's libraries tells so: Numba's own answer costs every process half a second."""
    if sys.platform != "linux" or "NUMBA_CUDA_DRIVER" in os.environ or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def n_devices() -> int:
    """Return the number of CUDA devices of this machine that the program may see."""
    from numba import cuda

    return len(cuda.gpus)
