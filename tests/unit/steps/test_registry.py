"""The registry says about each step what the step itself says and does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from phonon_eels.config import Settings
from phonon_eels.steps import registry
from phonon_eels.steps.registry import REGISTRY, StepEntry, find_step

STEPS = Path(registry.__file__).parent
# Attribute of the context -> the part of the settings it stands for. The backend is a fact of the machine.
SHARED = {
    "material": "material", "route": "route", "seed": "seed", "acquisition_settings": "acquisition", "vacuum": "masks",
}  # fmt: skip


def context_attributes(name: str, seen: set[str] | None = None) -> set[str]:
    """Attributes of `context` that a step's module uses, and the modules of `steps` that it imports."""
    seen = seen if seen is not None else set()
    if name in seen or name in ("spec", "registry"):
        return set()
    seen.add(name)
    tree = ast.parse((STEPS / f"{name}.py").read_text(encoding="utf-8"))
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "context"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phonon_eels.steps."):
            found |= context_attributes((node.module or "").rpartition(".")[2], seen)
        elif isinstance(node, ast.ImportFrom) and node.module == "phonon_eels.steps":
            found |= {used for alias in node.names for used in context_attributes(alias.name, seen)}
    return found


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
class TestEntry:
    def test_step_declares_no_more_than_the_registry(self, entry: StepEntry) -> None:
        spec = entry.load()
        assert spec.name == entry.name
        assert set(spec.needs) <= set(entry.needs), (
            "results that a step reads must make it stale: name them in REGISTRY"
        )
        assert spec.routes == (("classic",) if entry.classic_only else ("forward", "classic"))

    def test_step_uses_only_what_makes_it_stale(self, entry: StepEntry) -> None:
        """More in the registry would run the step again for nothing; less would keep a result that is out of date."""
        used = {SHARED[name] for name in context_attributes(entry.name) if name in SHARED}
        assert used == set(entry.shared)


def test_the_check_sees_attributes() -> None:
    assert {"material", "route", "backend"} <= context_attributes("fit_peaks")


def test_switches_are_settings() -> None:
    for entry in REGISTRY:
        section = getattr(Settings(), entry.name)
        if entry.off is None:
            assert not hasattr(section, "enabled"), f"{entry.name} can be switched off: say so in REGISTRY"
            assert entry.idle_reason(section) is None
        else:
            off = type(section).model_validate({entry.off[0]: entry.off[1]})
            assert entry.idle_reason(off) is not None, f"{entry.name}.{entry.off[0]} does not exist or does not switch"
    assert find_step("calibrate").idle_reason(Settings().calibrate) == "switched off (calibrate.method: off)"


def imported_names(name: str, seen: set[str]) -> set[str]:
    """Names that a step's module imports, and the modules of `steps` that it imports."""
    if name in seen or name in ("spec", "registry"):
        return set()
    seen.add(name)
    found: set[str] = set()
    for node in ast.walk(ast.parse((STEPS / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
            if (node.module or "").startswith("phonon_eels.steps."):
                found |= imported_names((node.module or "").rpartition(".")[2], seen)
        elif isinstance(node, ast.Attribute) and node.attr == "whole_array":
            found.add(node.attr)
    return found


ON_GPU = {
    "fit_scan",
    "fit_zero_loss",
    "score_zero_loss",
    "fit_problem",
    "fit_backgrounds_block",
    "resample_block",
    "richardson_lucy_block",
    "filter_block",
    "estimate_drift",
    "whole_array",
}
"""What runs kernels through `Backend.run`, and whole-array work through `Backend.whole_array`."""


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_devices_are_those_that_have_kernels(entry: StepEntry) -> None:
    assert ("cuda" in entry.devices) == bool(imported_names(entry.name, set()) & ON_GPU)
