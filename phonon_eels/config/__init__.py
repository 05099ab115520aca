"""Every setting, once: frozen pydantic models, unknown keys refused, the unit in the name."""

from phonon_eels.config.load import apply_overrides, json_schema, load_material, load_settings
from phonon_eels.config.material import Layer, Material, Mode
from phonon_eels.config.settings import STEP_NAMES, Settings
from phonon_eels.config.simulation import SimulationSettings, load_simulation

__all__ = [
    "STEP_NAMES",
    "Layer",
    "Material",
    "Mode",
    "Settings",
    "SimulationSettings",
    "apply_overrides",
    "json_schema",
    "load_material",
    "load_settings",
    "load_simulation",
]
