"""The whole chain in memory: simulate a scan and run the steps up to `measure_modulation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, load_material
from phonon_eels.config.load import settings_from_tree
from phonon_eels.config.simulation import SimulationSettings
from phonon_eels.simulate import simulate
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.registry import find_step, steps_of_route
from phonon_eels.steps.spec import StepContext

BEFORE = ("ingest", "register_frames")
"""Steps that a simulated single frame in memory does not need."""


def simulated_scan(seed: int, rows: int = 112, columns: int = 56, **sections: Mapping[str, Any]) -> SimulationSettings:
    """Return the settings of one scan: eight half-slab planes, 2.2 periods, all artefacts at their default sizes."""
    tree: dict[str, Any] = {
        "seed": seed,
        "scan": {"rows": rows, "columns": columns, "row_step_nm": 0.055, "column_step_nm": 0.1},
        "detector": {"fixed_pattern": 0.0},
        "modulation": {"primary_energy_mev": 0.0},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return SimulationSettings.model_validate(tree)


def prepare(
    settings: SimulationSettings, chosen: Settings | None = None, until: str = "measure_modulation"
) -> tuple[SpectrumImage, StepContext]:
    """Simulate a scan and run all steps before `until`; return the image and the context that this step is given."""
    chosen = Settings() if chosen is None else chosen
    material, backend = load_material(chosen.material), CpuBackend()
    image = simulate(settings, material).image
    maps: dict[str, Any] = {}
    summaries: dict[str, Any] = {}
    tables: dict[str, Any] = {}

    def context() -> StepContext:
        return StepContext(
            material=material, backend=backend, route=chosen.route, maps=maps, summaries=summaries, tables=tables
        )

    for spec in steps_of_route(chosen.route):
        if spec.name == until:
            break
        if spec.name in BEFORE:
            continue
        result = find_step(spec.name).load().run(image, getattr(chosen, spec.name), context())
        image = image if result.image is None else result.image
        maps |= {} if result.maps is None else {spec.name: result.maps}
        summaries[spec.name] = dict(result.summary) | ({"skipped": result.skipped} if result.skipped else {})
        tables[spec.name] = dict(result.tables)
    return image, context()


def measure(settings: SimulationSettings, chosen: Settings | None = None) -> StepResult:
    """Return the result of `measure_modulation` on a simulated scan."""
    chosen = Settings() if chosen is None else chosen
    image, context = prepare(settings, chosen)
    return find_step("measure_modulation").load().run(image, chosen.measure_modulation, context)


def recipe(tree: Mapping[str, Any]) -> Settings:
    """Return settings from a tree of plain values."""
    return settings_from_tree(dict(tree), "validation")
