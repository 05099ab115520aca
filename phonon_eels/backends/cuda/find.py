"""Look for a device, without importing any kernel."""

from __future__ import annotations


def why_no_cuda() -> str | None:
    """Return why no CUDA device can be used, None if one can."""
    try:
        from numba import cuda

        available = cuda.is_available()
    except ImportError as problem:
        return f"numba-cuda is not installed ({problem}); install phonon-eels[cuda]"
    return None if available else "no CUDA device with its driver was found"


def n_devices() -> int:
    """Return the number of CUDA devices of this machine that the program may see."""
    from numba import cuda

    return len(cuda.gpus)
