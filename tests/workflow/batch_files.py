"""Files of a night: good scans, scans that are bad in ten ways, scans that are merely poor in four."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from phonon_eels.config import load_material, load_simulation
from phonon_eels.simulate import simulate, write_simulation

SIZES = ("scan.rows=32", "scan.columns=32", "energy.channels=512")


@dataclass(frozen=True)
class Row:
    """A line of the table of datasets, and a word of the cause that must be named; empty for a good one."""

    name: str
    path: str
    cause: str = ""
    poor: str = ""


def write_night(folder: Path, n_good: int) -> list[Row]:
    """Write the files and the table ``datasets.tsv``; return its rows."""
    scan(folder / "scan.hspy", 1)
    rows = []
    for number in range(n_good):
        shutil.copyfile(folder / "scan.hspy", folder / f"scan_{number:02d}.hspy")
        rows.append(Row(f"scan_{number:02d}", f"scan_{number:02d}.hspy"))
    rows += [*bad_ones(folder), *poor_ones(folder)]
    table = ["# schema_version: 1", "dataset\tpath", *(f"{row.name}\t{row.path}" for row in rows)]
    (folder / "datasets.tsv").write_text("\n".join(table) + "\n")
    return rows


def scan(path: Path, seed: int, *overrides: str) -> None:
    """Simulate a scan; without its truth, as a microscope would write it."""
    settings = load_simulation(overrides=[*SIZES, f"seed={seed}", *overrides])
    write_simulation(simulate(settings, load_material("bi2212")), path)
    for truth in path.parent.glob(f"{path.stem}.truth.*"):
        truth.unlink()


def bad_ones(folder: Path) -> list[Row]:
    """Ten that cannot be analysed."""
    good = folder / "scan.hspy"

    def spoilt(name: str, change: Callable[[h5py.Group], None]) -> str:
        shutil.copyfile(good, folder / f"{name}.hspy")
        with h5py.File(folder / f"{name}.hspy", "a") as file:
            change(next(iter(file["Experiments"].values())))
        return f"{name}.hspy"

    (folder / "truncated.hspy").write_bytes(good.read_bytes()[:200_000])
    (folder / "empty.hspy").touch()
    (folder / "unreadable.hspy").write_text("this was never a spectrum image\n" * 40)
    (folder / "night.hspy").mkdir()
    return [
        Row("truncated", "truncated.hspy", "may be truncated"),
        Row("no_zero_loss", spoilt("no_zero_loss", _attributes(offset=5.0)), "no zero-loss peak in range"),
        Row("wrong_axes", spoilt("wrong_axes", _as_picture), "holds no spectra"),
        Row("empty", "empty.hspy", "is empty (0 bytes)"),
        Row("all_nan", spoilt("all_nan", _counts(lambda y: np.full_like(y, np.nan))), "NaN"),
        Row("unreadable", "unreadable.hspy", "is no HDF5 file"),
        Row("scan_00", "scan.hspy", "dataset scan_00 occurs twice"),
        Row("all_saturated", spoilt("all_saturated", _counts(lambda y: np.full_like(y, 65535.0))), "are saturated"),
        Row("wrong_units", spoilt("wrong_units", _attributes(units="meV")), "meV"),
        Row("a_folder", "night.hspy", "is a folder"),
    ]


def poor_ones(folder: Path) -> list[Row]:
    """Four that can, with something to say."""
    good = folder / "scan.hspy"
    shutil.copyfile(good, folder / "no_haadf.hspy")
    with h5py.File(folder / "no_haadf.hspy", "a") as file:
        del next(iter(file["Experiments"].values()))["metadata/PhononEELS/haadf"]
    scan(folder / "no_wave.hspy", 2, "structure.corrugation=0", "modulation.energy_enabled=false")
    scan(folder / "lost_frame.hspy", 3, "scan.frames=3")
    with h5py.File(folder / "lost_frame.hspy", "a") as file:
        next(iter(file["Experiments"].values()))["data"][1] = 0.0
    shutil.copyfile(good, folder / "saturated.hspy")
    with h5py.File(folder / "saturated.hspy", "a") as file:
        data = next(iter(file["Experiments"].values()))["data"]
        data[:8] = np.minimum(data[:8], 0.6 * data[:8].max())
    return [
        Row("no_haadf", "no_haadf.hspy", poor="no HAADF"),
        Row("no_superstructure", "no_wave.hspy", poor="no superstructure"),
        Row("lost_frame", "lost_frame.hspy", poor="was left out"),
        Row("quarter_saturated", "saturated.hspy", poor="saturated"),
    ]


def _attributes(**values: object) -> Callable[[h5py.Group], None]:
    return lambda group: group["axis-2"].attrs.update(values)


def _counts(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.Group], None]:
    def write(group: h5py.Group) -> None:
        group["data"][...] = change(group["data"][...].astype(np.float32))

    return write


def _as_picture(group: h5py.Group) -> None:
    """The energy axis is missing: two axes of length, both marked as signal."""
    data = group["data"][:, :, 0]
    del group["data"], group["axis-2"]
    group["data"] = data
    for number in range(2):
        group[f"axis-{number}"].attrs["navigate"] = False
