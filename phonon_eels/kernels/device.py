"""One decorator for all kernels, so that one source serves the processor and the GPU."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

UNDER_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def kernel(function: Function) -> Function:
    """Compile a routine that handles one spectrum: scalars and 1-D views in, status code out, no allocation.

    Under the CUDA simulator the routine stays plain Python, because a compiled one cannot take the simulator's arrays.
    """
    if UNDER_SIMULATOR:
        return function
    _cache_by_sources()
    return _compiled(function, {"contract"})


def reducing_kernel(function: Function) -> Function:
    """Compile a routine whose sums may be formed in any order: the machine's own, the same at every call."""
    if UNDER_SIMULATOR:
        return function
    _cache_by_sources()
    return _compiled(function, {"contract", "reassoc", "nsz"})


def _compiled(function: Function, fastmath: set[str]) -> Function:
    compiled: Any = numba.njit(error_model="numpy", nogil=True, cache=True, fastmath=fastmath)(function)
    return cast("Function", compiled)


@functools.cache
def _cache_by_sources() -> Path | None:
    """Keep compiled kernels in a folder named by the hash of all kernel sources.

    Numba looks only at the file of the outermost routine, so a change of a routine it calls would go on running the old
    machine code, silently. A folder the user has chosen (NUMBA_CACHE_DIR) is left alone.
    """
    settings: Any = numba.config
    if settings.CACHE_DIR:
        return None
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for source in sorted([*package.glob("kernels/*.py"), *package.glob("backends/*.py")]):
        digest.update(source.name.encode() + source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not os.access(base if base.exists() else base.parent, os.W_OK):
        base = Path(tempfile.gettempdir())
    folder = base / "phonon_eels" / f"kernels-{digest.hexdigest()[:16]}"
    settings.CACHE_DIR = str(folder)
    return folder
