"""Every setting, once: frozen pydantic models, unknown keys refused, the unit in the name."""

from typing import TYPE_CHECKING, Any

from phonon_eels.config.load import apply_overrides, json_schema, load_material, load_settings
from phonon_eels.config.material import Layer, Material, Mode
from phonon_eels.config.settings import STEP_NAMES, Settings

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Load the settings of simulations when they are asked for: no step needs them."""
    if name not in ("SimulationSettings", "load_simulation"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from phonon_eels.config import simulation

    return getattr(simulation, name)
