"""One decorator for all kernels, so that one source serves the processor and the GPU."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
from numba.core import lowering
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.runtime import rtsys
from numba.core.typed_passes import NativeLowering

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


def _compiled(function: Function, fastmath: set[str], *, forceinline: bool = False) -> Function:
    # Kernels never allocate. Numba would all the same count references to every view handed to a routine, by locked
    # instructions that cost more than the routine's work; drivers (backends) allocate and keep the counting.
    counted = ".kernels." not in function.__module__
    njit: Any = numba.njit  # its types know no `_nrt`
    compiled: Any = njit(
        error_model="numpy", nogil=True, fastmath=fastmath, forceinline=forceinline, _nrt=counted,
        pipeline_class=_WideCompiler, no_cfunc_wrapper=True,  # for callers in C, of which there are none
    )(function)  # fmt: skip
    compiled._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast("Function", compiled)


class _Stored(CompileResultCacheImpl):
    """Kernels as Numba stores them; what a caller would be linked with is not parsed before one is compiled.

    Beside its machine code, Numba stores a kernel in LLVM's language with all that it consists of: half a megabyte for a fit.
    """

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """Return the compiled kernel from what was stored."""
        (name, kind, (machine_code, for_callers)), described, *rest = payload
        # Numba asks this part for one thing only, whether the routine that Python calls is in the machine code.
        entry = llvm.parse_assembly(f"define void @{described.llvm_cpython_wrapper_name}() {{ ret void }}").as_bitcode()
        result = super().rebuild(target_context, ((name, kind, (machine_code, entry)), described, *rest))  # type: ignore[no-untyped-call]
        result.library._get_module_for_linking = functools.cache(lambda: llvm.parse_bitcode(for_callers))
        return result


class _Cache(FunctionCache):
    """Numba's cache, without loading the compiler's knowledge of Python and NumPy for a kernel that is compiled already.

    That knowledge is 0.2 s of the start of a process; the compiler itself loads it when a kernel is not in the cache.
    """

    _impl_class = _Stored

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled kernel for the types of its arguments, None if there is none."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]


class _WideLower(lowering.Lower):
    """Lets loops use the widest registers that the processor has; LLVM stops at 256 bits on those with 512."""

    def setup_function(self, fndesc: Any) -> None:
        """Start the function and note the width; llvmlite's own `add` knows no attributes with a value."""
        super().setup_function(fndesc)  # type: ignore[no-untyped-call]
        set.add(self.function.attributes, '"prefer-vector-width"="512"')


@register_pass(mutates_CFG=True, analysis_only=False)  # type: ignore[no-untyped-call]
class _WideLowering(NativeLowering):
    _name = "phonon_eels_wide_lowering"

    @property
    def lowering_class(self) -> type[lowering.Lower]:
        return _WideLower


class _WideCompiler(CompilerBase):
    """Numba's own compiler, with the wide lowering in place of the plain one."""

    def define_pipelines(self) -> list[Any]:
        """Return the passes."""
        passes: Any = DefaultPassBuilder.define_nopython_pipeline(  # type: ignore[no-untyped-call]
            self.state, name="phonon_eels_nopython"
        )
        passes.passes = [(_WideLowering if p is NativeLowering else p, why) for p, why in passes.passes]
        passes.finalize()
        return [passes]


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
