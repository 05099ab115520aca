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

from phonon_eels.kernels.compiling import APART, CompiledKernel

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


def inlined(*, reducing: bool) -> Callable[[Function], Function]:
    """Compile a routine into its callers, as `kernel` or `reducing_kernel` else: for those that are called from one place.

    A call hands over seven numbers for every view, which takes as long as a tile of a normal matrix.
    """

    def decorate(function: Function) -> Function:
        if UNDER_SIMULATOR:
            return function
        _cache_by_sources()
        return _compiled(function, {"contract", "reassoc", "nsz"} if reducing else {"contract"}, forceinline=True)

    return decorate


def apart(function: Function) -> Function:
    """Compile a routine that stays one by itself within its callers, as `kernel` else: for what few of them come to.

    What a loop of the routine needs would be made ready at the start of the caller, at every call, for all such routines.
    """
    if not UNDER_SIMULATOR:
        vars(function)[APART] = True
    return kernel(function)


def _compiled(function: Function, fastmath: set[str], *, forceinline: bool = False) -> Function:
    # Kernels never allocate. Numba would all the same count references to every view handed to a routine, by locked
    # instructions that cost more than the routine's work; drivers (backends) allocate and keep the counting.
    counted = ".kernels." not in function.__module__
    options = {
        "nopython": True, "boundscheck": None, "error_model": "numpy", "nogil": True, "fastmath": fastmath,
        "forceinline": forceinline, "_nrt": counted, "no_cfunc_wrapper": True,  # for callers in C, of which there are none
    }  # fmt: skip
    return cast("Function", CompiledKernel(function, {}, options))


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
