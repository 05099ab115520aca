"""A quick start of processes that do one step each."""

from __future__ import annotations

import contextlib
import gc
import sys
import warnings
from collections.abc import Iterator

from phonon_eels.steps.registry import find_step

UNUSED = ("sparse", "pint", "distributed", "cffi", "fsspec", "charset_normalizer")
"""Dask, xarray and Numba load the first of these wherever they are installed (HyperSpy brings them), to know their arrays when they
meet them; zarr loads fsspec to ask whether a path is one of its stores, and NumPy's compiler of Fortran, of which SciPy takes hold
when it copies NumPy's names, the last one to guess in which letters a source is written."""


@contextlib.contextmanager
def without_unused_libraries(*, reads_counts: bool) -> Iterator[None]:
    """Let libraries that a step after `ingest` does not meet count as not installed: they cost a process up to a second.

    What is loaded already stays. Not for reading vendor files, nor for work on many workers.

    Parameters
    ----------
    reads_counts
        False where the step reads no spectra, so that Dask has nothing to do either.
    """
    unused = UNUSED if reads_counts else (*UNUSED, "dask")
    with _absent(*unused), warnings.catch_warnings():
        # Numba asks every library that is installed for its extensions, and wonders at one that is not there.
        warnings.filterwarnings("ignore", message="Numba extension module 'sparse")
        yield


@contextlib.contextmanager
def _absent(*names: str) -> Iterator[None]:
    left_out = [name for name in names if name not in sys.modules]
    # Python's own way to say that a module is not there.
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in left_out:
            if name in sys.modules and sys.modules[name] is None:
                del sys.modules[name]


def load_libraries(step: str) -> None:
    """Load what a step works with, and look for garbage neither meanwhile nor in that later.

    Libraries make objects by the hundred thousand while they load, and all of these stay: looking through them again and again
    is a tenth of the start of a step.
    """
    gc.disable()
    try:
        load_xarray_alone()
        find_step(step).load()
    finally:
        gc.freeze()
        gc.enable()


def load_xarray_alone() -> None:
    """Load xarray without Dask, which it would load to know its arrays when it meets them; maps are never such arrays.

    Whoever reads a large scan loads it when it is needed.
    """
    if "xarray" in sys.modules:
        return
    with without_dask():
        import xarray as xr

        xr.Variable("row", [0.0]).to_index_variable()  # it asks once, and remembers the answer


@contextlib.contextmanager
def without_dask() -> Iterator[None]:
    """Let Dask count as not installed if it is not loaded: xarray would load it to ask whether it is computing."""
    with _absent("dask"):
        yield
