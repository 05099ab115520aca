"""What the report's figures are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.steps.report_numbers import table_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.spectrum_image import SpectrumImage
    from phonon_eels.steps.spec import StepContext


class NotDrawn(Exception):
    """The results for a figure are not there; the message is the reader's sentence."""


@dataclass(frozen=True)
class Sources:
    """What figures are made of."""

    image: SpectrumImage
    context: StepContext
    truth_table: pd.DataFrame | None = None

    def table(self, step: str, name: str) -> pd.DataFrame:
        """Return a table of an earlier step, or say why there is none."""
        table = table_of(self.context, step, name)
        if table is None:
            raise NotDrawn(self.reason(step, f"it made no table `{name}`"))
        return table

    def maps(self, step: str, *names: str) -> xr.Dataset:
        """Return the maps of an earlier step that hold one of `names` at least, or say why there are none."""
        maps = self.context.maps.get(step)
        if maps is None or (names and not any(name in maps for name in names)):
            raise NotDrawn(self.reason(step, "it made no such maps"))
        return maps

    def maps_or_none(self, step: str) -> xr.Dataset | None:
        """Return the maps of an earlier step, or None."""
        return self.context.maps.get(step)

    def reason(self, step: str, otherwise: str) -> str:
        """Return why a step left nothing: its own words where it was skipped."""
        summary = self.context.summaries.get(step)
        if summary is None and step not in self.context.maps and step not in self.context.tables:
            return f"{step} did not run."
        skipped = (summary or {}).get("skipped")
        return f"{step} was skipped: {skipped}" if skipped else f"{step} ran, but {otherwise}."


@dataclass(frozen=True)
class Recipe:
    """A figure of the report: its name (also of the file), title, caption and how to draw it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Sources], Any]


@dataclass(frozen=True)
class Shown:
    """A figure as the template prints it; without `data` the sentence stands in its place."""

    name: str
    title: str
    caption: str
    data: str = ""
    width_px: int = 0
    sentence: str = ""
    failed: bool = False


def haadf_of(sources: Sources) -> np.ndarray:
    """Return the dark-field image, or say why there is none to show."""
    haadf = sources.image.haadf
    if haadf is None:
        raise NotDrawn("The file holds no HAADF image, so layers and superstructure cannot be found.")
    if min(np.asarray(haadf).shape) < 2:
        raise NotDrawn("The scan is a line: there is no image to show.")
    return np.asarray(haadf)


def scan_edges(image: SpectrumImage) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of the scan in nm, as `imshow` takes them."""
    rows, columns = image.scan
    return (
        columns.offset_nm - columns.step_nm / 2,
        columns.offset_nm + columns.step_nm * (columns.n - 0.5),
        rows.offset_nm + rows.step_nm * (rows.n - 0.5),
        rows.offset_nm - rows.step_nm / 2,
    )


def mode_energies(context: StepContext) -> dict[str, float]:
    """Return the fitted energies of the modes, those of the material where none were fitted."""
    table = table_of(context, "fit_peaks", "modes")
    if table is not None and "energy_mev" in table and "mode" in table:
        return {str(m): float(e) for m, e in zip(table["mode"], table["energy_mev"], strict=True) if np.isfinite(e)}
    return {mode.name: mode.energy_mev for mode in context.material.modes}


def mode_window(sources: Sources) -> tuple[float, float]:
    """Return the range of the material's modes with a margin, inside the energy axis."""
    energies = [mode.energy_mev for mode in sources.context.material.modes]
    axis = sources.image.energy
    low, high = max(0.7 * min(energies), axis.offset_mev), min(1.25 * max(energies), axis.last_mev)
    return (low, high) if low < high else (axis.offset_mev, axis.last_mev)
