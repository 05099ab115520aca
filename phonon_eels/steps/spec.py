"""What a step declares about itself, and what it is given besides the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phonon_eels.config import Material

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.backends.base import Backend
    from phonon_eels.spectrum_image import SpectrumImage, StepResult

Route = Literal["forward", "classic"]


def _silent(done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class StepContext:
    """What a step is given besides the image and its own settings.

    Attributes
    ----------
    material
        Modes, layers and superstructure of the crystal.
    backend
        Where per-spectrum kernels run.
    route
        "forward" or "classic".
    maps
        Maps of the earlier steps, by step name.
    summaries
        Summaries of the earlier steps, by step name.
    tables
        Tables of the earlier steps, by step name and table name.
    acquisition_settings
        The `acquisition` section of the settings, as a plain mapping.
    seed
        Seed of everything random in the step.
    progress
        Called with (done, total) while long work goes on.
    vacuum
        Scan of vacuum alone (`masks.vacuum_file`), else None; only `ingest` looks at it.
    truth
        What is known of simulated data (the JSON file beside the input), else None; only `report` looks at it.
    folder
        Folder that the step may write extra files into (figures of `report`); None in memory.
    """

    material: Material
    backend: Backend
    route: Route = "forward"
    maps: Mapping[str, xr.Dataset] = field(default_factory=dict)
    summaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    acquisition_settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    progress: Callable[[int, int], None] = _silent
    vacuum: SpectrumImage | None = None
    truth: Mapping[str, Any] | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class StepSpec:
    """One step of the pipeline.

    Attributes
    ----------
    name
        Also the settings section, the module, the CLI word, the Snakemake rule and the output folder.
    run
        ``(image, settings, context) -> StepResult``.
    routes
        Routes the step belongs to.
    makes
        Output map → unit.
    needs
        Steps whose maps, tables or summaries it reads; they are part of what makes a result stale.
    bytes_per_spectrum
        Working memory per spectrum of n channels, beyond the block itself, in bytes per channel.
    reference
        Where the method comes from.
    """

    name: str
    run: Callable[[SpectrumImage, Any, StepContext], StepResult]
    routes: tuple[Route, ...] = ("forward", "classic")
    makes: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    bytes_per_channel: float = 16.0
    reference: str = ""
