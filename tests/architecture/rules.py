"""The rules of the architecture. Each takes modules and returns one sentence for every place that breaks it."""

import ast
import sys
from collections.abc import Callable, Iterator, Sequence

from tests.architecture.modules import PACKAGE, Module, is_any, is_within

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 80

# A module may import from its own layer and from those before it.
LAYERS = (
    ("errors", "units", "rounding"),
    ("config", "materials", "kernels"),
    ("spectrum_image",),
    ("backends",),
    ("steps", "component_fit", "forward", "lattice", "io", "simulate", "figures", "quality", "plan"),
    ("pipeline", "provenance"),
    ("cli", "signals", "viewer", "__main__"),
)
# Writers put provenance into the files that they write.
LAYER_EXCEPTIONS = {("io", "provenance")}

# Third-party package -> where alone it may be imported, at the top of a file or inside a function.
CONFINED = {
    "pydantic": ("config",),
    "pydantic_core": ("config",),
    "cupy": ("backends.cuda",),
    "cupyx": ("backends.cuda",),
    "numba.cuda": ("backends.cuda",),
    "hyperspy": ("io", "signals"),
    "rsciio": ("io", "signals"),
    "exspy": ("io", "signals"),
    "matplotlib": ("figures",),
    "mpl_toolkits": ("figures",),
    "napari": ("viewer",),
    "qtpy": ("viewer",),
    "magicgui": ("viewer",),
    "PyQt6": ("viewer",),
    "pyqtgraph": ("viewer",),
    "distributed": ("backends.workers",),
    "dask_jobqueue": ("backends.workers",),
    "cloudpickle": ("backends.workers",),
    "snakemake": (),
}

# Kernels and backends also run on GPU machines that have nothing else.
NUMERIC_CORE = ("kernels", "backends")
NUMERIC_CORE_MAY_IMPORT = ("numpy", "scipy", "numba", "llvmlite", "cupy", "cupyx")  # llvmlite is Numba's own compiler
# Only when a function asks for it: a machine without Dask can still import and run the kernels.
BACKENDS_MAY_IMPORT_LATE = ("dask", "distributed", "dask_jobqueue", "cloudpickle", "h5py")
NUMERIC_CORE_MAY_IMPORT_INSIDE = ("errors", "units", *NUMERIC_CORE)

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "core"}

_MUTABLE_MAKERS = {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"}
_MUTABLE_NODES = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MUTATING_METHODS = {
    *("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"),
    *("update", "setdefault", "popitem", "add", "discard", "appendleft", "popleft"),
}
_IO_CALLS = {
    *("open", "print", "input", "read_text", "read_bytes", "write_text", "write_bytes"),
    *("mkdir", "touch", "unlink", "rmtree", "exists", "is_file", "is_dir", "iterdir", "glob", "rglob"),
    *("safe_load", "loadtxt", "genfromtxt", "read_csv", "urlopen"),
    *("Popen", "check_output", "check_call", "system", "putenv"),
    *("basicConfig", "set_loglevel", "simplefilter", "filterwarnings"),
}


def _layer(first_name: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if first_name in names:
            return number
    return None


def layer_order(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        here = module.inner_name.split(".")[0]
        if not here:
            continue
        layer = _layer(here)
        if layer is None:
            yield f"{module.path}: give `{here}` a layer in tests/architecture/rules.py (and in the architecture)"
            continue
        for item in module.imports:
            if not is_within(item.target, PACKAGE):
                continue
            there = item.target.removeprefix(PACKAGE).lstrip(".").split(".")[0]
            target_layer = _layer(there)
            if (here, there) in LAYER_EXCEPTIONS or there == "__version__":
                continue
            if target_layer is None:
                yield f"{module.path}:{item.line}: import from the module that defines it, not from the package"
            elif target_layer > layer:
                yield f"{module.path}:{item.line}: `{here}` must not import `{there}`, which is built on top of it"


def confined_packages(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for item in module.imports:
            for package, places in CONFINED.items():
                if is_within(item.target, package) and not is_any(module.inner_name, places):
                    allowed = ", ".join(places) or "no module"
                    yield f"{module.path}:{item.line}: {package} may be imported in {allowed} only"


def numeric_core_is_lean(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if not is_any(module.inner_name, NUMERIC_CORE):
            continue
        for item in module.imports:
            first = item.target.split(".")[0]
            if first == PACKAGE:
                inner = item.target.removeprefix(PACKAGE).lstrip(".")
                if not is_any(inner, NUMERIC_CORE_MAY_IMPORT_INSIDE):
                    yield f"{module.path}:{item.line}: kernels and backends must not import {item.target}"
            elif first not in sys.stdlib_module_names and first not in NUMERIC_CORE_MAY_IMPORT:
                late = item.in_function or item.only_for_types
                if late and first in BACKENDS_MAY_IMPORT_LATE and is_within(module.inner_name, "backends"):
                    continue
                yield f"{module.path}:{item.line}: kernels and backends run where {first} is not installed"


def no_import_cycles(modules: Sequence[Module]) -> Iterator[str]:
    """Imports inside functions count: they hide a cycle from Python, not from a reader."""
    names = {module.name for module in modules}
    edges = {module.name: sorted(_internal_targets(module, names)) for module in modules}
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> Iterator[str]:
        if name in trail:
            yield "import cycle: " + " -> ".join([*trail[trail.index(name) :], name])
            return
        if name in done:
            return
        for target in edges[name]:
            yield from visit(target, [*trail, name])
        done.add(name)

    for name in sorted(edges):
        yield from visit(name, [])


def _internal_targets(module: Module, names: set[str]) -> set[str]:
    targets = set()
    for item in module.imports:
        if item.only_for_types or not is_within(item.target, PACKAGE):
            continue
        # `from package import name`: the name is a module of the package, or something that the package defines.
        target = item.target if item.target in names else item.target.rpartition(".")[0]
        if target in names and target != module.name:
            targets.add(target)
    return targets


def no_mutable_module_state(modules: Sequence[Module]) -> Iterator[str]:
    """Module-level containers are constants: named in capitals and never changed. `global` is refused."""
    for module in modules:
        containers: set[str] = set()
        for name, value, line in _module_level_assignments(module.tree):
            if not _is_mutable(value) or (name.startswith("__") and name.endswith("__")):
                continue
            if name == name.upper():
                containers.add(name)
            else:
                yield f"{module.path}:{line}: module-level `{name}` is mutable; make it a tuple or a constant"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Global):
                yield f"{module.path}:{node.lineno}: `global` keeps state in a module"
            changed = _changed_name(node)
            if changed in containers:
                yield f"{module.path}:{node.lineno}: the constant `{changed}` is changed"  # type: ignore[attr-defined]


def _module_level_assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr, int]]:
    for node in _statements_run_at_import(tree.body):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value, node.lineno
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value, node.lineno


def _statements_run_at_import(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those inside if, try, for and with; not those of functions and classes."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from _statements_run_at_import(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements_run_at_import(handler.body)


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in _MUTABLE_MAKERS
    return isinstance(value, _MUTABLE_NODES)


def _changed_name(node: ast.AST) -> str | None:
    """The name whose object this node changes in place, if it does."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATING_METHODS:
        return ast.unparse(node.func.value)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return ast.unparse(node.value)
    if isinstance(node, ast.AugAssign):
        return ast.unparse(node.target)
    return None


def nothing_happens_at_import(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for call in _calls_at_import(module.tree):
            name = ast.unparse(call.func)
            last = call.func.attr if isinstance(call.func, ast.Attribute) else name
            if last in _IO_CALLS or name.startswith(("subprocess.", "os.environ.", "requests.")):
                if name == "os.environ.get":
                    continue
                yield f"{module.path}:{call.lineno}: `{name}` runs when the module is imported"
        for node in _statements_run_at_import(module.tree.body):
            if isinstance(node, ast.Assign) and any("os.environ" in ast.unparse(target) for target in node.targets):
                yield f"{module.path}:{node.lineno}: importing the module changes the environment"


def _calls_at_import(node: ast.AST) -> Iterator[ast.Call]:
    """Calls outside function bodies; class bodies, decorators and default arguments do run at import."""
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        children: list[ast.AST] = [*node.decorator_list, *node.args.defaults]
        children += [default for default in node.args.kw_defaults if default is not None]
    else:
        children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Call):
        yield node
    for child in children:
        yield from _calls_at_import(child)


def module_sizes(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        lines = module.text.count("\n")
        if lines > MAX_MODULE_LINES:
            yield f"{module.path}: {lines} lines; {MAX_MODULE_LINES} are allowed, split it by what it is about"


def function_sizes(modules: Sequence[Module]) -> Iterator[str]:
    """Lines from `def` to the end, without the docstring: explaining more is never punished."""
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.end_lineno is None:
                continue
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{module.path}:{node.lineno}: `{node.name}` has {lines} lines; {MAX_FUNCTION_LINES} are allowed"


def telling_names(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for part in module.name.split("."):
            if part.strip("_") in VAGUE_NAMES:
                yield f"{module.path}: `{part}` says nothing; name it by what it holds"


def raises_say_what(modules: Sequence[Module]) -> Iterator[str]:
    """`pytest.raises` without `match` passes on any mistake that happens to raise the same class."""
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in {"pytest.raises", "raises"}:
                continue
            if not any(keyword.arg in {"match", "check"} for keyword in node.keywords):
                yield f"{module.path}:{node.lineno}: pytest.raises without match="


Rule = Callable[[Sequence[Module]], Iterator[str]]

PACKAGE_RULES: tuple[Rule, ...] = (
    layer_order,
    confined_packages,
    numeric_core_is_lean,
    no_import_cycles,
    no_mutable_module_state,
    nothing_happens_at_import,
    module_sizes,
    function_sizes,
    telling_names,
)
TEST_RULES: tuple[Rule, ...] = (raises_say_what, module_sizes, telling_names)
