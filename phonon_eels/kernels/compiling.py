"""How Numba compiles and stores kernels: each with the kernels that it calls as one piece, once, for the widest registers."""

# mypy: disable-error-code="no-untyped-call, no-any-return, misc, attr-defined, method-assign"

from __future__ import annotations

import functools
import gc
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba.core import errors, lowering, typed_passes, types, untyped_passes
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder, compile_result
from numba.core.compiler_machinery import register_pass
from numba.core.dispatcher import _FunctionCompiler
from numba.core.registry import CPUDispatcher
from numba.core.runtime import rtsys


class _Stored(CompileResultCacheImpl):
    """Kernels as Numba stores them, but for two things that every start would wait for.

    LLVM's language, half a megabyte for a fit, is there for callers in compiled code, who take the kernel's part instead
    (`_StoredPart`). And the names that routines of Numba's own saw, of which machine code knows nothing, would load the modules
    that compile NumPy's arrays.
    """

    def reduce(self, result: Any) -> Any:
        """Return what is stored."""
        (name, kind, (machine_code, _)), *rest, surroundings = super().reduce(result)
        # Numba asks for one thing only, whether the routine that Python calls is in the machine code.
        entry = f"define void @{result.fndesc.llvm_cpython_wrapper_name}() {{ ret void }}"
        kept = tuple(seen for seen in surroundings if seen.consts or not seen.globals["__name__"].startswith("numba."))
        return (name, kind, (machine_code, llvm.parse_assembly(entry).as_bitcode())), *rest, kept


class _Cache(FunctionCache):
    """Numba's cache, without loading the compiler's knowledge of Python and NumPy for a kernel that is compiled already.

    That knowledge is 0.2 s of the start of a process; the compiler itself loads it when a kernel is not in the cache.
    """

    _impl_class: Any = _Stored

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled kernel for the types of its arguments, None if there is none."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


_OPERATORS = frozenset(function for name, function in vars(operator).items() if not name.startswith("_"))
_PLAIN = (types.Number, types.Boolean, types.Array, types.SliceType, types.UniTuple)
_resolve = types.Function.get_call_type


def _resolve_once(self: Any, context: Any, args: Any, kws: Any) -> Any:
    """Return the signature of a call; of operators on numbers and elements of arrays, as they were resolved before.

    Numba would try all others first, at every place where two numbers are added, and write down why they do not match.
    """
    if kws or self.typing_key not in _OPERATORS or not all(isinstance(arg, _PLAIN) for arg in args):
        return _resolve(self, context, args, kws)
    known = self.__dict__.setdefault("_resolved", {})
    if args not in known:
        known[args] = _resolve(self, context, args, kws)
    return known[args]


class _NoColours:
    def __getattr__(self, name: str) -> type[str]:
        return str


@contextmanager
def _compiling() -> Iterator[None]:
    """Take from Numba while a kernel is compiled what is done for nothing.

    That is to look for what Python can forget (1 to 5 s of 25), to resolve every operator anew, and to colour the words of
    errors that nobody will see.
    """
    on = gc.isenabled()
    gc.disable()
    types.Function.get_call_type = _resolve_once
    errors._termcolor_inst = _NoColours()
    try:
        yield
    finally:
        types.Function.get_call_type = _resolve
        errors._termcolor_inst = None  # Numba makes its own when it needs one
        if on:
            gc.enable()


class CompiledKernel(CPUDispatcher):
    """A kernel that Python calls as a whole, and that other kernels take over as a part of themselves.

    Numba would optimise every routine, translate it to machine code with a way in for Python, and do so again within each of
    its callers: half the time of a first call.
    """

    def __init__(self, py_func: Any, locals: Any = None, targetoptions: Any = None, pipeline_class: Any = None) -> None:
        super().__init__(py_func, locals, targetoptions, _WideCompiler)
        self._cache = _Cache(py_func)

    def compile(self, sig: Any) -> Any:
        """Compile for the types of the arguments, or load what was."""
        with _compiling():
            return super().compile(sig)

    @functools.cached_property
    def _part(self) -> Any:
        return _Part(self.py_func, self.locals, self.targetoptions)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return the signature for a caller's types."""
        return self._part.get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        """Return by what the caller's code knows the part."""
        return self._part.get_overload(sig)


class _Part(CPUDispatcher):
    """A kernel within others: neither optimised nor translated by itself."""

    def __init__(self, py_func: Any, locals: Any = None, targetoptions: Any = None, pipeline_class: Any = None) -> None:
        super().__init__(py_func, locals, targetoptions, _WideCompiler)
        self._cache = _PartCache(py_func)
        self._compiler = _PartCompiler(py_func, self.targetdescr, targetoptions, self.locals, _WideCompiler)

    def add_overload(self, result: Any) -> None:
        """Keep a result; Python cannot call it."""
        self.overloads[tuple(result.signature.args)] = result


class _PartCompiler(_FunctionCompiler):
    def _compile_core(self, args: Any, return_type: Any) -> Any:
        result = super()._compile_core(args, return_type)._replace(entry_point=object())
        result.target_context.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result

    def _customize_flags(self, flags: Any) -> Any:
        flags.no_compile = flags.no_cpython_wrapper = True
        return flags


class _WholeLibrary(JITCodeLibrary):
    """A kernel that Python calls, with its parts."""

    def _optimize_final_module(self) -> None:
        """Optimise once, and let LLVM know that nobody else calls the parts: it then changes what is handed to them.

        A view is seven numbers, most of which no routine looks at. Numba would run a short round of passes before, for counters
        of references, of which kernels have none; what it leaves is slower in the end. And it would leave out what puts
        neighbours of straight-line code into one register.
        """
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.linkonce_odr:
                function.linkage = "internal"
        passes, builder = self._codegen._module_pass_manager(slp_vectorize=True)
        passes.run(self._final_module, builder)


class _PartLibrary(JITCodeLibrary):
    """What a part and the parts within it say in LLVM's language."""

    def finalize(self) -> None:
        """Take in what is called; the kernel that Python calls is optimised with all its parts, once."""
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalize_dynamic_globals()
        self._finalized = True


class _StoredPart(CompileResultCacheImpl):
    def get_filename_base(self, fullname: str, abiflags: str) -> Any:
        """Return the name of the file, beside that of the kernel as a whole."""
        return super().get_filename_base(fullname, abiflags) + ".part"

    def reduce(self, result: Any) -> Any:
        """Return what is stored."""
        described = result.fndesc
        described.typemap = described.calltypes = None
        code = result.library._get_module_for_linking().as_bitcode()
        return result.library.name, code, described, result.environment, result.signature, result.reload_init

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """Return the part from what was stored."""
        name, code, described, environment, signature, reload_init = payload
        library = _PartLibrary(target_context.codegen(), name)
        library._shared_module = library._final_module = llvm.parse_bitcode(code)
        library._finalized = True
        return compile_result(
            typing_context=target_context.typing_context, target_context=target_context, entry_point=object(),
            signature=signature, objectmode=False, lifted=(), fndesc=described, library=library, environment=environment,
            reload_init=reload_init,
        )  # fmt: skip


class _PartCache(_Cache):
    _impl_class = _StoredPart


APART = "never_inlined"
"""Attribute of the Python function of a kernel that LLVM is not to move into its callers."""


class _WideLower(lowering.Lower):
    """Lets loops use the widest registers that the processor has; LLVM stops at 256 bits on those with 512."""

    def setup_function(self, fndesc: Any) -> None:
        """Start the function and note the width; llvmlite's own `add` knows no attributes with a value."""
        super().setup_function(fndesc)
        set.add(self.function.attributes, '"prefer-vector-width"="512"')
        if hasattr(self.func_ir.func_id.func, APART):
            self.function.attributes.add("noinline")


@register_pass(mutates_CFG=True, analysis_only=False)
class _WideLowering(typed_passes.NativeLowering):
    _name = "phonon_eels_wide_lowering"

    def run_pass(self, state: Any) -> Any:
        """Lower a kernel, or a part of one."""
        codegen, name = state.targetctx.codegen(), state.func_id.func_qualname
        if state.flags.no_compile:
            state.library = _PartLibrary(codegen, name)
        else:
            state.library = _WholeLibrary(codegen, name)
            state.library.enable_object_caching()
        return super().run_pass(state)

    @property
    def lowering_class(self) -> type[lowering.Lower]:
        return _WideLower


FOR_OTHERS = (
    untyped_passes.WithLifting, untyped_passes.InlineClosureLikes, untyped_passes.RewriteDynamicRaises,
    untyped_passes.MakeFunctionToJitFunction, untyped_passes.InlineInlinables, untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll, untyped_passes.LiteralPropagationSubPipelinePass, typed_passes.AnnotateTypes,
    typed_passes.NopythonRewrites, typed_passes.DumpParforDiagnostics,
)  # fmt: skip
"""Passes over Python that no kernel is written in (closures, `with`, `raise`, loops over types, sums of whole arrays), and over
what nobody prints."""


class _WideCompiler(CompilerBase):
    """Numba's own compiler, with the wide lowering in place of the plain one."""

    def define_pipelines(self) -> list[Any]:
        """Return the passes."""
        passes: Any = DefaultPassBuilder.define_nopython_pipeline(self.state, name="phonon_eels_nopython")
        passes.passes = [
            (_WideLowering if p is typed_passes.NativeLowering else p, why)
            for p, why in passes.passes
            if p not in FOR_OTHERS
        ]
        passes.finalize()
        return [passes]
