"""Every setting, once: frozen pydantic models, unknown keys refused, the unit in the name."""

from phonon_eels.config.load import apply_overrides, json_schema, load_material, load_settings
from phonon_eels.config.material import Layer, Material, Mode
from phonon_eels.config.settings import STEP_NAMES, Settings

__all__ = [
    "STEP_NAMES",
    "Layer",
    "Material",
    "Mode",
    "Settings",
    "apply_overrides",
    "json_schema",
    "load_material",
    "load_settings",
]
