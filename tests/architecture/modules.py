"""Python files as syntax trees: what they import and what they do at module level. Nothing is executed."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "phonon_eels"


@dataclass(frozen=True)
class Import:
    """One imported name, dotted and absolute, as in `numba.cuda` for `from numba import cuda`."""

    target: str
    line: int
    only_for_types: bool = False
    in_function: bool = False


@dataclass(frozen=True)
class Module:
    """A module by its dotted name, with its source text."""

    name: str
    text: str
    is_package: bool = False
    path: Path = Path("made-up.py")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def inner_name(self) -> str:
        """The name without the package: `steps.align_zlp`; empty for the package itself."""
        return self.name.removeprefix(PACKAGE).lstrip(".")

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(self._imports(self.tree))

    def _imports(self, node: ast.AST, for_types: bool = False, in_function: bool = False) -> Iterator[Import]:
        for target in self._targets(node):
            yield Import(target, node.lineno, for_types, in_function)  # type: ignore[attr-defined]
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        type_branch = isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for child in ast.iter_child_nodes(node):
            only_for_types = for_types or (type_branch and child in node.body)  # type: ignore[attr-defined]
            yield from self._imports(child, only_for_types, in_function)

    def _targets(self, node: ast.AST) -> Iterator[str]:
        """What this one node imports, by statement, by call, or by reaching through a package."""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{self._absolute(node)}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {
            "import_module",
            "__import__",
        }:
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.args[0].value
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "numba.cuda":
            # `import numba` makes `numba.cuda` reachable without an import statement of its own.
            yield "numba.cuda"

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
        return ".".join([*parts, *([node.module] if node.module else [])])


def is_within(name: str, package: str) -> bool:
    """True if `name` is `package` or lies inside it."""
    return name == package or name.startswith(package + ".")


def is_any(name: str, packages: Iterable[str]) -> bool:
    return any(is_within(name, package) for package in packages)


def read_module(path: Path, root: Path = REPOSITORY) -> Module:
    parts = list(path.relative_to(root).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    if is_package:
        parts.pop()
    return Module(".".join(parts), path.read_text(encoding="utf-8"), is_package, path.relative_to(root))


def read_modules(folder: str) -> tuple[Module, ...]:
    """Every Python file below a folder of the repository."""
    return tuple(read_module(path) for path in sorted((REPOSITORY / folder).rglob("*.py")))
