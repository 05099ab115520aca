"""Stand-ins for the real steps: instant, and they note that they ran. They live for one test only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage, StepResult
from phonon_eels.steps.registry import StepEntry
from phonon_eels.steps.spec import StepContext, StepSpec

Run = Callable[[SpectrumImage, Any, StepContext], StepResult]


def small_image(value: float = 1.0) -> SpectrumImage:
    """A scan of 3 × 2 positions and 5 channels."""
    counts = np.full((3, 2, 5), value, dtype=np.float32)
    return SpectrumImage(counts, EnergyAxis(-2.0, 1.0, 5), (ScanAxis("row", 0.1, 3), ScanAxis("column", 0.1, 2)))


def small_maps(value: float) -> xr.Dataset:
    """One map with its std and status."""
    coords = {"row": ("row", [0.0, 0.1, 0.2], {"units": "nm"}), "column": ("column", [0.0, 0.1], {"units": "nm"})}
    shape = ("row", "column")
    return xr.Dataset(
        {
            "height_nm": (shape, np.full((3, 2), value), {"units": "nm"}),
            "height_nm_std": (shape, np.full((3, 2), 0.1), {"units": "nm"}),
            "status": (shape, np.zeros((3, 2), np.int16), {"units": "1", "flag_values": [0], "flag_meanings": "ok"}),
        },
        coords=coords,
    )


@dataclass
class FakeSteps:
    """What the fakes saw and what they shall do.

    Attributes
    ----------
    ran
        Names of the steps that ran, in order.
    contexts, images, settings
        What each was given last.
    instead
        Step → function to run in its place.
    """

    ran: list[str] = field(default_factory=list)
    contexts: dict[str, StepContext] = field(default_factory=dict)
    images: dict[str, SpectrumImage] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    instead: dict[str, Run] = field(default_factory=dict)
    read: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)

    def run(self, name: str, image: SpectrumImage, settings: Any, context: StepContext) -> StepResult:
        """Note the call, then do what is asked, or the least that a step can do."""
        self.ran.append(name)
        self.contexts[name], self.images[name], self.settings[name] = context, image, settings
        if name in self.instead:
            return self.instead[name](image, settings, context)
        # One step that makes everything is enough; files cost most of the time of these tests.
        everything = name == "align_zlp"
        return StepResult(
            image=image if name in ("ingest", "remove_spikes") else None,
            maps=small_maps(len(name)) if everything else None,
            tables={"sizes": pd.DataFrame({"height_nm": [1.0 / 3.0]})} if everything else {},
            summary={"answer": {"value": 42.0, "std": 0.5, "unit": "meV", "status": "ok"}},
            messages=(f"{name} has something to say",),
        )

    def since(self) -> list[str]:
        """Return what ran since the last question."""
        ran, self.ran[:] = list(self.ran), []
        return ran


@pytest.fixture(name="fake_steps")
def replace_steps(monkeypatch: pytest.MonkeyPatch) -> FakeSteps:
    """Every step of the registry, and the reader, replaced for one test."""
    fakes = FakeSteps()

    def load(entry: StepEntry) -> StepSpec:
        return StepSpec(name=entry.name, run=lambda *given: fakes.run(entry.name, *given))

    def read(path: Path, **options: Any) -> SpectrumImage:
        fakes.read.append((path, options))
        return small_image()

    monkeypatch.setattr(StepEntry, "load", load)
    monkeypatch.setattr("phonon_eels.io.read.read", read)
    return fakes
