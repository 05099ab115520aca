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
