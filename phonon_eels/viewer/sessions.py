"""What one opened scan is to the viewer: image, results of its steps, settings, and the fit of single spectra. No Qt."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config import Material, Settings, load_material
from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import SpectrumImage, StepResult

if TYPE_CHECKING:
    import xarray as xr

    from phonon_eels.backends.base import Backend
    from phonon_eels.forward.scan import Alignment
    from phonon_eels.steps.spectrum_fit import SpectrumFit, SpectrumFitter

CACHE_BYTES = 320_000_000
"""So that 256 × 256 positions × 1024 channels are read once."""
LARGEST_BLOCK_BYTES = 32_000_000


@dataclass(frozen=True, eq=False)
class Session:
    """One opened scan.

    Attributes
    ----------
    name
        Name of the dataset.
    image
        The spectra that `fit_peaks` reads (spikes repaired), or the file's own where nothing was run; lazy.
    source
        The file that was measured, None where it is no longer known.
    folder
        Folder of the dataset's results, None for a file alone.
    settings, material
        What the results were made with, or the defaults.
    results
        Results of the steps that were run, by name; images left out.
    notes
        What the user should know of how it was opened.
    to_come
        Names of the maps that are still to become layers of the image, the next one first.
    """

    name: str
    image: SpectrumImage
    source: Path | None = None
    folder: Path | None = None
    settings: Settings = field(default_factory=Settings)
    material: Material = field(default_factory=lambda: load_material("bi2212"))
    results: Mapping[str, StepResult] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    to_come: list[str] = field(default_factory=list)

    def maps(self, step: str) -> xr.Dataset | None:
        """Return the maps of a step, None where it made none."""
        result = self.results.get(step)
        return None if result is None else result.maps

    def table(self, step: str, name: str) -> Any:
        """Return a table of a step, None where it made none."""
        result = self.results.get(step)
        return None if result is None else result.tables.get(name)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.image.shape[:2]

    @property
    def scale_nm(self) -> tuple[float, float]:
        """Steps of rows and columns; a scan of one row or column is drawn with square positions."""
        row, column = self.image.scan
        steps = (row.step_nm if row.n > 1 else 0.0, column.step_nm if column.n > 1 else 0.0)
        largest = max(steps) or 1.0
        return (steps[0] or largest, steps[1] or largest)

    def position_at(self, row_nm: float, column_nm: float) -> tuple[int, int] | None:
        """Return (row, column) of the position at a place in nm, None outside of the scan."""
        place = []
        for value, axis, step in zip((row_nm, column_nm), self.image.scan, self.scale_nm, strict=True):
            index = int(np.floor((value - axis.offset_nm) / step + 0.5))
            if not 0 <= index < axis.n:
                return None
            place.append(index)
        return place[0], place[1]

    @cached_property
    def spectra(self) -> SpectrumSource:
        """Single spectra, in electrons, quickly."""
        return SpectrumSource(self.image)

    @cached_property
    def alignment(self) -> Alignment | None:
        """Where the zero-loss peaks are, None before `align_zlp` was run."""
        from phonon_eels.steps.align_zlp import alignment_of

        if self.maps("align_zlp") is None:
            return None
        maps = {
            step: maps
            for step in ("register_frames", "align_zlp", "calibrate")
            if (maps := self.maps(step)) is not None
        }
        return alignment_of(self.image, _MapsOnly(maps))  # type: ignore[arg-type]

    @cached_property
    def fitter(self) -> SpectrumFitter | None:
        """The model of `fit_peaks` for single spectra, None before it was run."""
        from phonon_eels.forward.model import model_from_description
        from phonon_eels.steps.position_fits import prior_stds
        from phonon_eels.steps.spectrum_fit import SpectrumFitter

        result, modes = self.results.get("fit_peaks"), self.table("fit_peaks", "modes")
        mean = self.table("fit_peaks", "mean_spectrum")
        if result is None or modes is None or mean is None or "model" not in result.summary or self.alignment is None:
            return None
        description = result.summary["model"]
        model = model_from_description(description, self.material)
        return SpectrumFitter(
            model,
            prior_stds(model, self.material),
            height_e=float(mean["zlp_e"].max()),
            constant_e=float(mean["background_e"].median()),
            area_e=np.asarray(modes["area_e"], dtype=float),
            max_iterations=int(description["settings"]["max_iterations"]),
        )

    def energy_loss_mev(self, row: int, column: int) -> np.ndarray:
        """Return the energy losses of the channels at a position, from its zero-loss peak where that is known."""
        energies = self.image.energy.energies_mev
        alignment = self.alignment
        if alignment is None or not alignment.found[row, column]:
            return energies
        return np.asarray(
            energies - energies[0] - self.image.energy.dispersion_mev * alignment.channel[row, column]
            - alignment.shift_mev[row, column]
        )  # fmt: skip

    def fit_position(self, row: int, column: int) -> SpectrumFit | None:
        """Fit the spectrum of one position with the model of the scan; None without a model or a zero-loss peak."""
        fitter, alignment = self.fitter, self.alignment
        if fitter is None or alignment is None or not alignment.found[row, column]:
            return None
        counts, variance = self.spectra.at(row, column)
        first = int(alignment.channel[row, column]) + fitter.model.first_channel
        n = fitter.model.energies_mev.size
        stored = self.stored(row, column)
        return fitter.fit(
            _window(counts, first, n),
            float(alignment.shift_mev[row, column]),
            None if variance is None else _window(variance, first, n),
            energies_mev=np.array([stored.get(name, {}).get("energy_mev", np.nan) for name in fitter.model.mode_names]),
            frames=None if alignment.frames is None else alignment.frames[row, column],
        )

    @cached_property
    def _stored(self) -> dict[str, np.ndarray]:
        """Values by mode, row and column; taking them out of the maps for every move of the mouse would take as long as the fit."""
        maps = self.maps("fit_peaks")
        if maps is None:
            return {}
        energy = energy_name(maps)
        names = {
            "energy_mev": energy, "energy_mev_std": f"{energy}_std", "area_e": "area_e", "area_e_std": "area_e_std",
        }  # fmt: skip
        words = np.array(str(maps["mode_status"].attrs["flag_meanings"]).split())
        values = {key: np.asarray(maps[name].values, dtype=float) for key, name in names.items()}
        return values | {"status": words[maps["mode_status"].values.astype(int)], "mode": maps["mode"].values}

    def stored(self, row: int, column: int) -> dict[str, dict[str, float | str]]:
        """Return what the results say of every mode at a position: mode → energy, area, their deviations, status."""
        found = dict(self._stored)
        modes = found.pop("mode", np.zeros(0))
        return {
            str(mode): {key: values[m, row, column].item() for key, values in found.items()}
            for m, mode in enumerate(modes)
        }

    def region_spectrum(self, inside: np.ndarray, backend: Backend) -> SpectrumFit:
        """Sum the spectra of a region, aligned by whole channels, and fit the sum.

        Where no model of the scan was fitted yet, one is made of the region itself.

        Parameters
        ----------
        inside
            (rows, columns) of bool.

        Raises
        ------
        DataError
            If the region holds no position, or no zero-loss peak.
        """
        from phonon_eels.forward.scan import Alignment
        from phonon_eels.steps.spectrum_fit import fit_sum, quick_fit

        chosen = np.asarray(inside, bool)
        if self.alignment is not None:
            chosen = chosen & self.alignment.found
        if not chosen.any():
            raise DataError("the region holds no position of the scan; draw it over the image, or choose another layer")
        fitter, alignment = self.fitter, self.alignment
        if fitter is None or alignment is None:
            return quick_fit(self.image, chosen, self.settings, self.material, backend)
        rows = np.flatnonzero(chosen.any(axis=1))
        cut = slice(int(rows[0]), int(rows[-1]) + 1)
        image = crop(self.image, (cut.start, cut.stop), (0, self.shape[1]))  # the other rows need not be read
        here = Alignment(alignment.channel[cut], alignment.shift_mev[cut])
        return fit_sum(fitter, image, here, chosen[cut], backend)

    def window_map(self, low_mev: float, high_mev: float, backend: Backend) -> np.ndarray:
        """Return the electrons of an energy window at every position, (rows, columns).

        Where zero-loss peaks are known the window counts from each position's own, to whole channels.
        """
        from phonon_eels.forward.scan import electrons

        gain, dark = electrons(self.image)
        axis = self.image.energy
        zero = np.full(self.shape, axis.channel(0.0))
        if self.alignment is not None:
            found = self.alignment.found
            zero = np.where(found, self.alignment.channel + self.alignment.shift_mev / axis.dispersion_mev, zero)
        first = np.clip(np.ceil(zero + low_mev / axis.dispersion_mev).astype(int), 0, axis.n_channels)
        last = np.clip(np.floor(zero + high_mev / axis.dispersion_mev).astype(int) + 1, first, axis.n_channels)

        def rows(first_row: int, counts: np.ndarray) -> np.ndarray:
            here = slice(first_row, first_row + counts.shape[0])
            low, high = first[here], last[here]
            left = int(low.min())
            running = np.zeros((*counts.shape[:2], int(high.max()) - left + 1))
            np.cumsum(counts[..., left : int(high.max())], axis=2, out=running[..., 1:])
            ends = [np.take_along_axis(running, (edge - left)[..., None], 2)[..., 0] for edge in (low, high)]
            return np.asarray((ends[1] - ends[0] - dark * (high - low)) / gain)

        return np.concatenate(backend.map_rows(rows, [self.image.counts]))


@dataclass(frozen=True)
class _MapsOnly:
    """All that `alignment_of` looks at of a step's context."""

    maps: Mapping[str, xr.Dataset]


class SpectrumSource:
    """Single spectra out of a lazy image; blocks that were read last are kept, so that a moving mouse reads few."""

    def __init__(self, image: SpectrumImage) -> None:
        from phonon_eels.forward.scan import electrons

        self._image = image
        self._gain, self._dark = electrons(image)
        self._blocks: OrderedDict[tuple[str, int, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, row: int, column: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return (electrons, variance or None) of a position, (channels,); channels not to be used are NaN."""
        counts = (self._read("counts", row, column).astype(float) - self._dark) / self._gain
        if self._image.bad is not None:
            counts[self._read("bad", row, column).astype(bool)] = np.nan
        variance = None if self._image.variance is None else self._read("variance", row, column).astype(float)
        return counts, variance

    def _read(self, name: str, row: int, column: int) -> np.ndarray:
        array = getattr(self._image, name)
        if isinstance(array, np.ndarray):
            return np.asarray(array[row, column])
        (r, r0, r1), (c, c0, c1) = (_chunk(array.chunks[k], place) for k, place in enumerate((row, column)))
        if (r1 - r0) * (c1 - c0) * array.shape[2] * array.dtype.itemsize > LARGEST_BLOCK_BYTES:
            return np.asarray(array[row, column].compute(scheduler="synchronous"))
        key = (name, r, c)
        with self._lock:
            block = self._blocks.pop(key, None)
            if block is None:
                block = _block(array, r, c)
            self._blocks[key] = block
            while len(self._blocks) > 1 and sum(b.nbytes for b in self._blocks.values()) > CACHE_BYTES:
                self._blocks.popitem(last=False)
        return np.asarray(block[row - r0, column - c0])


def _chunk(sizes: tuple[int, ...], place: int) -> tuple[int, int, int]:
    """Return (number, first, end) of the chunk that a place lies in."""
    ends = np.cumsum(sizes)
    number = int(np.searchsorted(ends, place, side="right"))
    return number, int(ends[number] - sizes[number]), int(ends[number])


def _block(array: Any, r: int, c: int) -> np.ndarray:
    """Return the chunks of some rows and columns; a single one as it is read, where `compute` would slice and copy it."""
    if array.numblocks[2] > 1:
        return np.asarray(array.blocks[r, c].compute(scheduler="synchronous"))
    from dask.local import get_sync

    key = (array.name, r, c, 0)
    return np.asarray(get_sync(array.dask.cull({key}), key))


def _window(values: np.ndarray, first: int, n: int) -> np.ndarray:
    """Return n channels from `first` on; those beyond the axis are NaN."""
    out = np.full(n, np.nan)
    low, high = max(first, 0), min(first + n, values.size)
    if high > low:
        out[low - first : high - first] = values[low:high]
    return out


def crop(image: SpectrumImage, rows: tuple[int, int], columns: tuple[int, int]) -> SpectrumImage:
    """Return a rectangle of an image, half open in rows and columns; its place in nm stays what it was."""
    cut = (slice(*rows), slice(*columns))
    scan = tuple(
        replace(axis, n=part.stop - part.start, offset_nm=axis.offset_nm + part.start * axis.step_nm)
        for axis, part in zip(image.scan, cut, strict=True)
    )
    parts = {
        name: None if (array := getattr(image, name)) is None else array[cut]
        for name in ("counts", "variance", "bad", "haadf")
    }
    frames = {
        name: None if (array := getattr(image, name)) is None else array[(slice(None), *cut)]
        for name in ("frames", "haadf_frames")
    }
    return image.with_(scan=scan, **parts, **frames)


def energy_name(maps: xr.Dataset) -> str:
    """Return the name of the energies: the classic route's are apparent."""
    return "energy_mev" if "energy_mev" in maps else "apparent_energy_mev"
