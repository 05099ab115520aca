"""The steps, in order, and what each depends on. Known without importing any of them, because that costs seconds."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from phonon_eels.errors import ConfigError

if TYPE_CHECKING:
    from phonon_eels.steps.spec import Route, StepSpec

Shared = Literal["material", "route", "acquisition", "seed", "masks"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class StepEntry:
    """A line of the registry.

    Attributes
    ----------
    name
        Name of the step and of its module.
    makes_image
        True if it may write a new spectrum image, which later steps then read instead of an earlier one.
    needs
        Earlier steps whose maps, tables or summaries it reads; those outside the route are left out.
    shared
        Parts of the settings it uses beside its own section. The step is given only these (the others at their
        defaults), so that a step cannot depend on what would not make its result stale.
    classic_only
        True if the forward route leaves it out.
    reads_counts
        False if it looks at no spectra: then it need not load what reads them block by block.
    devices
        Where its kernels run: "cuda" only if there are kernels for the GPU; a step without them runs on the processor.
    off
        Setting of its section and the value that switches the step off. Then the pipeline need not even load it,
        which in the workflow saves a process most of its time.
    """

    name: str
    makes_image: bool = False
    needs: tuple[str, ...] = ()
    shared: tuple[Shared, ...] = ()
    classic_only: bool = False
    reads_counts: bool = True
    devices: tuple[Device, ...] = ("cpu",)
    off: tuple[str, str | bool] | None = None

    def idle_reason(self, settings: object) -> str | None:
        """Return why a step has nothing to do with these settings of its section, None if it has."""
        if self.off is None or getattr(settings, self.off[0]) != self.off[1]:
            return None
        value = str(self.off[1]).lower() if isinstance(self.off[1], bool) else self.off[1]
        return f"switched off ({self.name}.{self.off[0]}: {value})"

    def load(self) -> StepSpec:
        """Import the step's module and return what it declares."""
        spec: StepSpec = getattr(import_module(f"phonon_eels.steps.{self.name}"), self.name.upper())
        return spec


REGISTRY: tuple[StepEntry, ...] = (
    StepEntry("ingest", makes_image=True, shared=("acquisition", "masks"), devices=("cpu", "cuda")),
    StepEntry(
        "register_frames", off=("enabled", False), makes_image=True, shared=("acquisition",), devices=("cpu", "cuda"),
    ),
    StepEntry(
        "remove_spikes", off=("enabled", False), makes_image=True, shared=("acquisition",), devices=("cpu", "cuda"),
    ),
    StepEntry(
        "align_zlp", makes_image=True, needs=("ingest", "register_frames"), shared=("route",), devices=("cpu", "cuda"),
    ),
    StepEntry("calibrate", off=("method", "off"), makes_image=True, needs=("align_zlp",), shared=("material",)),
    StepEntry("normalise", off=("method", "none"), makes_image=True, needs=("align_zlp",), classic_only=True),
    StepEntry(
        "denoise", off=("method", "none"), makes_image=True, needs=("align_zlp",), shared=("material", "seed"),
        classic_only=True, devices=("cpu", "cuda"),
    ),
    StepEntry(
        "subtract_zlp", makes_image=True, needs=("align_zlp", "normalise"), shared=("material", "seed"), classic_only=True,
        devices=("cpu", "cuda"),
    ),
    StepEntry(
        "deconvolve", off=("method", "none"), makes_image=True, needs=("align_zlp", "normalise", "subtract_zlp"),
        shared=("material", "seed"), classic_only=True, devices=("cpu", "cuda"),
    ),
    StepEntry(
        "fit_peaks", needs=("register_frames", "align_zlp", "calibrate", "normalise", "subtract_zlp", "deconvolve"),
        shared=("material", "route"), devices=("cpu", "cuda"),
    ),
    StepEntry("assign_layers", off=("enabled", False), needs=("align_zlp", "calibrate"), shared=("material",)),
    StepEntry(
        "map_superstructure", off=("enabled", False), needs=("assign_layers",), shared=("material",), reads_counts=False
    ),
    StepEntry(
        "measure_modulation", off=("enabled", False),
        needs=("register_frames", "align_zlp", "calibrate", "fit_peaks", "assign_layers", "map_superstructure"),
        shared=("acquisition", "material", "route", "seed"), devices=("cpu", "cuda"),
    ),
    StepEntry(
        "report",
        needs=(
            "ingest", "register_frames", "remove_spikes", "align_zlp", "calibrate", "normalise", "denoise",
            "subtract_zlp", "deconvolve", "fit_peaks", "assign_layers", "map_superstructure", "measure_modulation",
        ),
        shared=("acquisition", "material", "route", "seed"),
        reads_counts=False,
    ),
)  # fmt: skip
"""Every step in the order in which they run."""


def find_step(name: str) -> StepEntry:
    """Return the line of a step.

    Raises
    ------
    ConfigError
        If there is no step of that name.
    """
    for entry in REGISTRY:
        if entry.name == name:
            return entry
    raise ConfigError(f"step = {name!r} is none of the steps; they are {', '.join(entry.name for entry in REGISTRY)}")


def steps_of_route(route: Route) -> tuple[StepEntry, ...]:
    """Return the steps that a route runs, in order."""
    return tuple(entry for entry in REGISTRY if route == "classic" or not entry.classic_only)


def upstream(name: str, route: Route) -> tuple[str, ...]:
    """Return the steps whose results a step reads on a route: the image it starts from, then what it needs.

    Examples
    --------
    >>> upstream("fit_peaks", "forward")
    ('calibrate', 'register_frames', 'align_zlp')
    >>> upstream("fit_peaks", "classic")
    ('deconvolve', 'register_frames', 'align_zlp', 'calibrate', 'normalise', 'subtract_zlp')
    """
    entry = find_step(name)
    route_steps = steps_of_route(route)
    if entry not in route_steps:
        raise ConfigError(f"step {name} does not belong to route = {route}; set route: classic, or leave the step out")
    before = route_steps[: route_steps.index(entry)]
    images = [earlier.name for earlier in before if earlier.makes_image]
    names = [*images[-1:], *(earlier.name for earlier in before if earlier.name in entry.needs)]
    return tuple(dict.fromkeys(names))
