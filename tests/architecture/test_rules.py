"""The package keeps the rules of its architecture, and each rule can be broken (so that keeping it means something)."""

import pytest

from tests.architecture import rules
from tests.architecture.modules import REPOSITORY, Module, read_modules

PACKAGE_MODULES = read_modules("phonon_eels")
TEST_MODULES = read_modules("tests")


@pytest.mark.parametrize("rule", rules.PACKAGE_RULES, ids=lambda rule: rule.__name__)
def test_package_keeps(rule: rules.Rule) -> None:
    assert len(PACKAGE_MODULES) > 1
    broken = list(rule(PACKAGE_MODULES))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("rule", rules.TEST_RULES, ids=lambda rule: rule.__name__)
def test_tests_keep(rule: rules.Rule) -> None:
    broken = list(rule(TEST_MODULES))
    assert not broken, "\n".join(broken)


def test_snakefile_is_short() -> None:
    snakefile = REPOSITORY / "Snakefile"
    assert snakefile.read_text(encoding="utf-8").count("\n") <= 40, "rules belong in pipelines/rules/*.smk"


def module(name: str, text: str) -> Module:
    return Module(f"phonon_eels.{name}", text)


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * rules.MAX_FUNCTION_LINES
LONG_DOCSTRING = 'def f():\n    """Says much.\n' + "\n" * 200 + '    """\n    return 1\n'

BREAKS = [
    (rules.layer_order, [module("kernels.zero_loss", "from phonon_eels.steps import align_zlp")]),
    (rules.layer_order, [module("steps.align_zlp", "from ..pipeline import run")]),
    (rules.layer_order, [module("spectrum_image", "def f():\n    import phonon_eels.io.read")]),
    (rules.layer_order, [module("gadgets", "x = 1")]),
    (rules.layer_order, [module("steps.align_zlp", "from phonon_eels import run")]),
    (rules.layer_order, [module("steps.align_zlp", "import phonon_eels")]),
    (rules.confined_packages, [module("steps.align_zlp", "def f():\n    import hyperspy.api as hs")]),
    (rules.confined_packages, [module("spectrum_image", "from pydantic import BaseModel")]),
    (rules.confined_packages, [module("steps.report", "import matplotlib.pyplot as plt")]),
    (rules.confined_packages, [module("kernels.device", "from numba import cuda")]),
    (rules.confined_packages, [module("kernels.device", "import numba\nx = numba.cuda.jit")]),
    (rules.confined_packages, [module("pipeline", "cp = importlib.import_module('cupy')")]),
    (rules.confined_packages, [module("backends.cpu", "import cupy")]),
    (rules.confined_packages, [module("cli", "import napari")]),
    (rules.numeric_core_is_lean, [module("backends.cpu", "import dask.array as da")]),
    (rules.numeric_core_is_lean, [module("kernels.resample", "def f():\n    import dask")]),
    (rules.numeric_core_is_lean, [module("kernels.zero_loss", "from phonon_eels.spectrum_image import EnergyAxis")]),
    (
        rules.no_import_cycles,
        [
            module("io.read", "import phonon_eels.quality"),
            module("quality", "def f():\n    from phonon_eels.io import read"),
        ],
    ),
    (rules.no_mutable_module_state, [module("quality", "seen = []")]),
    (rules.no_mutable_module_state, [module("quality", "seen: dict[str, int] = dict()")]),
    (rules.no_mutable_module_state, [module("quality", "SEEN = set()\ndef f(x):\n    SEEN.add(x)")]),
    (rules.no_mutable_module_state, [module("quality", "SEEN = {}\ndef f(x):\n    SEEN[x] = 1")]),
    (rules.no_mutable_module_state, [module("quality", "count = 0\ndef f():\n    global count\n    count += 1")]),
    (rules.nothing_happens_at_import, [module("quality", "TEXT = Path('a').read_text()")]),
    (rules.nothing_happens_at_import, [module("quality", "class A:\n    data = open('a')")]),
    (rules.nothing_happens_at_import, [module("quality", "def f(x=open('a')):\n    pass")]),
    (rules.nothing_happens_at_import, [module("quality", "os.environ['A'] = '1'")]),
    (rules.module_sizes, [module("quality", "x = 1\n" * (rules.MAX_MODULE_LINES + 1))]),
    (rules.function_sizes, [module("quality", LONG_FUNCTION)]),
    (rules.telling_names, [module("io.utils", "")]),
    (rules.telling_names, [module("_helpers", "")]),
    # Text of a module that is made up, which the rule must refuse: not a test of ours.
    (rules.raises_say_what, [module("x", "with pytest.raises(ValueError):\n    f()")]),
]

KEEPS = [
    (rules.layer_order, [module("io.write", "from phonon_eels import provenance")]),
    (rules.layer_order, [module("cli", "from . import pipeline")]),
    (rules.layer_order, [module("provenance", "from phonon_eels import __version__")]),
    (rules.confined_packages, [module("io.read", "def f():\n    import hyperspy.api")]),
    (rules.confined_packages, [module("backends.cuda", "import cupy\nfrom numba import cuda")]),
    (rules.confined_packages, [module("kernels.device", "import numba\nx = numba.config.ENABLE_CUDASIM")]),
    (rules.numeric_core_is_lean, [module("backends.cpu", "import math, numpy\nfrom phonon_eels.kernels import x")]),
    (rules.numeric_core_is_lean, [module("backends.cpu", "def f():\n    import dask.array as da")]),
    (
        rules.no_import_cycles,
        [
            module("io.read", "import phonon_eels.quality"),
            module("quality", "if TYPE_CHECKING:\n    from phonon_eels.io.read import Reader"),
        ],
    ),
    (
        rules.no_mutable_module_state,
        [module("quality", "UNITS = {'a': 1}\ndef f():\n    seen = []\n    seen.append(1)")],
    ),
    (rules.no_mutable_module_state, [module("quality", "__all__ = ['f']")]),
    (rules.nothing_happens_at_import, [module("quality", "def f():\n    return open('a')")]),
    (rules.function_sizes, [module("quality", LONG_DOCSTRING)]),
    (rules.raises_say_what, [module("x", "with pytest.raises(ValueError, match='a'):\n    f()")]),
]


@pytest.mark.parametrize(("rule", "modules"), BREAKS)
def test_rule_finds(rule: rules.Rule, modules: list[Module]) -> None:
    assert list(rule(modules))


@pytest.mark.parametrize(("rule", "modules"), KEEPS)
def test_rule_allows(rule: rules.Rule, modules: list[Module]) -> None:
    assert list(rule(modules)) == []
