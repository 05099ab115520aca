"""What importing costs: checked by what gets loaded, because times differ between machines and modules do not."""

import ast
import json
import subprocess
import sys

import pytest

import phonon_eels
from tests.architecture.modules import REPOSITORY, read_modules

HEAVY = ("dask", "exspy", "hyperspy", "matplotlib", "numba", "pandas", "pydantic", "scipy", "skimage", "xarray", "zarr")
STUB = REPOSITORY / "phonon_eels" / "__init__.pyi"

# Nothing third-party but these exists for the interpreter that runs with this in front.
ONLY_NUMERIC = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ModuleNotFoundError(f"{{name}} is not installed on this machine")
sys.meta_path.insert(0, Refuse())
"""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str, *packages: str) -> list[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps([p for p in {packages!r} if p in sys.modules]))"
    return json.loads(run_python(code).splitlines()[-1])


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import phonon_eels", "numpy", *HEAVY) == []


def test_the_check_sees_what_is_loaded() -> None:
    assert loaded_by("import numpy", "numpy", "scipy") == ["numpy"]


@pytest.mark.parametrize("module", ["cli", "pipeline", "spectrum_image", "steps.registry"])
def test_only_reading_and_drawing_load_hyperspy_and_matplotlib(module: str) -> None:
    assert loaded_by(f"import phonon_eels.{module}", "hyperspy", "exspy", "matplotlib", "napari", "cupy") == []


@pytest.mark.parametrize("name", phonon_eels.__all__)
def test_public_name_loads(name: str) -> None:
    assert getattr(phonon_eels, name) is not None
    assert name in dir(phonon_eels)


def test_simulate_is_the_module_whoever_imports_first() -> None:
    check = "assert phonon_eels.simulate is importlib.import_module('phonon_eels.simulate')"
    run_python(f"import importlib, phonon_eels\n{check}")
    run_python(f"import importlib, phonon_eels, phonon_eels.simulate\n{check}")


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"'SpectrumImages'.*public names: .*SpectrumImage"):
        phonon_eels.SpectrumImages  # noqa: B018


def test_stub_names_what_the_package_offers() -> None:
    typed: dict[str, str] = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names), "a stub re-exports with `as` only"
            typed |= {alias.name: node.module or "" for alias in node.names}
        elif isinstance(node, ast.AnnAssign):
            typed[ast.unparse(node.target)] = "phonon_eels"
    offered = {"__version__": "phonon_eels"} | dict.fromkeys(phonon_eels._SUBMODULES, "phonon_eels")
    assert typed == offered | phonon_eels._PUBLIC


def test_kernels_and_backends_need_only_the_numeric_packages() -> None:
    names = [
        module.name
        for folder in ("kernels", "backends")
        for module in read_modules(f"phonon_eels/{folder}")
        if not module.name.startswith("phonon_eels.backends.cuda")
    ]
    refused = {*HEAVY, "rich", "yaml", "h5py", "rsciio", "sparse", "jinja2"} - {"numba", "scipy"}
    imports = "\n".join(f"import {name}" for name in names)
    run_python(ONLY_NUMERIC.format(refused=refused) + imports)
