"""What a step leaves on disk: `results/{dataset}/{step}/` with cubes, maps, tables and a summary.

A step folder is written with `staged` under a temporary name and renamed when whole. `summary.json` is written last
and read first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import InputFileError, OutputError
from phonon_eels.io.atomic import output_error, recover, staged, staged_file
from phonon_eels.io.cubes import CHUNK_BYTES, Progress, Store, read_image, write_image
from phonon_eels.spectrum_image import SpectrumImage, StepResult

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = [
    "read_image",
    "read_maps",
    "read_result",
    "read_results",
    "read_summary",
    "read_tables",
    "recover",
    "result_folder",
    "staged",
    "staged_file",
    "to_json",
    "write_image",
    "write_maps",
    "write_result",
    "write_summary",
    "write_table",
]

SCHEMA_VERSION = 1
"""Version of the layout of a step folder; `read_result` refuses newer ones."""


def result_folder(results: Path, dataset: str, step: str | None = None) -> Path:
    """Return the folder of a dataset, or of one of its steps.

    Raises
    ------
    OutputError
        If the name would leave the results folder or cannot be a folder name everywhere.
    """
    for what, name in (("dataset", dataset), ("step", step)):
        if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
            raise OutputError(
                f"the {what} name {name!r} cannot be a folder name: letters, digits, '_', '-', '+' and '.' are "
                f"allowed, no spaces or slashes, and it begins with a letter or digit; choose another name"
            )
    return Path(results) / dataset / step if step else Path(results) / dataset


def write_result(
    result: StepResult,
    folder: Path,
    *,
    step: str,
    provenance: Mapping[str, Any] | None = None,
    chunk_bytes: float = CHUNK_BYTES,
    threads: int | None = None,
    progress: Progress | None = None,
    store: Store | None = None,
) -> None:
    """Write everything of a step into an existing folder (of `staged`); the summary comes last.

    Parameters
    ----------
    result
        What the step returned; a lazy image is computed now, a few blocks at a time.
    folder
        Gets ``image.zspy`` …, ``maps.nc``, ``tables/<name>.csv`` and ``summary.json``.
    step
        Name of the step.
    provenance
        JSON-ready record of what made the result; goes into every file.
    chunk_bytes, threads, progress, store
        As for `write_image`.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    folder = Path(folder)
    try:
        if result.image is not None:
            write_image(
                result.image,
                folder,
                chunk_bytes=chunk_bytes,
                threads=threads,
                progress=progress,
                provenance=provenance,
                store=store,
            )
        if result.maps is not None:
            write_maps(result.maps, folder / "maps.nc", provenance)
        for name, table in result.tables.items():
            write_table(table, folder / "tables" / f"{name}.csv", step, provenance)
        write_summary(result, folder / "summary.json", step, provenance)
    except OSError as problem:
        raise output_error(folder, problem) from problem


def read_result(folder: Path) -> StepResult:
    """Read what `write_result` wrote; the image is lazy.

    Raises
    ------
    InputFileError
        If the folder holds no whole result, or one of a newer version.
    """
    folder = Path(folder)
    record = read_summary(folder)
    return StepResult(
        image=read_image(folder) if (folder / "image.zspy").is_dir() else None,
        maps=read_maps(folder / "maps.nc") if (folder / "maps.nc").is_file() else None,
        tables=read_tables(folder),
        summary=record["summary"],
        messages=tuple(record["messages"]),
        skipped=record["skipped"],
    )


def read_results(folder: str | Path) -> dict[str, StepResult]:
    """Read the results of all steps of a dataset, in the order in which they ran; images are lazy.

    Parameters
    ----------
    folder
        Folder of the dataset, as ``results/scan1``.

    Returns
    -------
    dict
        Step name → its maps, tables, summary and messages.

    Raises
    ------
    InputFileError
        If the folder holds no results, or one of them is damaged or of a newer version.
    """
    from phonon_eels.steps.registry import REGISTRY

    folder = Path(folder)
    steps = [entry.name for entry in REGISTRY if (folder / entry.name / "summary.json").is_file()]
    if not steps:
        raise InputFileError(f"{folder} holds no results of a dataset; run `phonon-eels run FILE` first")
    return {step: read_result(folder / step) for step in steps}


def write_maps(maps: xr.Dataset, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write maps as compressed NetCDF (HDF5 inside), every variable with its attributes, provenance as JSON."""
    import xarray as xr

    plain = xr.Dataset(
        {name: variable.copy(deep=False) for name, variable in maps.data_vars.items()}, coords=maps.coords
    )
    plain.attrs = _netcdf_attributes(maps.attrs)
    if provenance:
        plain.attrs["provenance"] = json.dumps(to_json(provenance), sort_keys=True)
    for name in plain.variables:
        plain[name].attrs = _netcdf_attributes(maps[name].attrs)
    numeric = [name for name, variable in plain.variables.items() if variable.dtype.kind in "biuf" and variable.ndim]
    compressed = {name: {"zlib": True, "complevel": 4, "shuffle": True} for name in numeric}
    plain.to_netcdf(path, engine="h5netcdf", encoding=compressed)


def read_maps(path: Path) -> xr.Dataset:
    """Read maps into memory.

    Raises
    ------
    InputFileError
        If the file is missing or damaged.
    """
    import xarray as xr

    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as problem:
        raise InputFileError(f"{path} cannot be read ({problem}): run the step that makes it again") from problem


def write_table(table: pd.DataFrame, path: Path, step: str = "", provenance: Mapping[str, Any] | None = None) -> None:
    """Write a table as CSV; a first line that begins with # says what made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = provenance or {}
    made = f"phonon_eels {record.get('versions', {}).get('phonon_eels', '')}".strip()
    line = f"# {made}, step {step}, fingerprint {record.get('fingerprint', 'none')}; the record is in summary.json\n"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(line)
        table.to_csv(file, index=False, lineterminator="\n")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote, every number as it was."""
    import pandas as pd

    with path.open(encoding="utf-8") as file:
        skip = 1 if file.read(1) == "#" else 0
    # Before version 3 pandas rounded the last bit unless told not to; since then it deprecates being told.
    exact: Any = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}
    try:
        return pd.read_csv(path, skiprows=skip, **exact)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read all tables of a step folder, by name."""
    return {path.stem: read_table(path) for path in sorted((Path(folder) / "tables").glob("*.csv"))}


def write_summary(result: StepResult, path: Path, step: str, provenance: Mapping[str, Any] | None = None) -> None:
    """Write numbers, sentences and provenance of a step as JSON; NaN becomes null."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "summary": to_json(result.summary),
        "messages": list(result.messages),
        "skipped": result.skipped,
        "provenance": to_json(provenance or {}),
    }
    path.write_text(json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the record of a step folder: summary, messages, skipped, provenance.

    Raises
    ------
    InputFileError
        If there is none, or it is damaged or of a newer version.
    """
    path = Path(folder) / "summary.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputFileError(f"{folder} holds no result: run the step first") from None
    except (OSError, ValueError) as problem:
        raise InputFileError(
            f"{path} cannot be read ({problem}): delete the folder and run the step again"
        ) from problem
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        writer = record.get("provenance", {}).get("versions", {}).get("phonon_eels", "of unknown version")
        raise InputFileError(
            f"{path} has layout version {version}, this program reads {SCHEMA_VERSION}; "
            f"use the program that wrote it (phonon_eels {writer}) or run the step again"
        )
    return dict(record)


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it: numpy numbers and arrays become plain ones, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        entries = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [to_json(entry) for entry in entries]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a summary cannot hold a {type(value).__name__}: {value!r}")


def _netcdf_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """NetCDF attributes are texts, numbers and arrays of numbers: the rest becomes JSON, only None is dropped."""
    plain: dict[str, Any] = {}
    for name, value in attributes.items():
        if value is None:
            continue
        array = np.asarray(value) if isinstance(value, list | tuple | np.ndarray) else None
        if isinstance(value, bool | np.bool_):
            plain[str(name)] = int(value)
        elif isinstance(value, str | int | float | np.generic):
            plain[str(name)] = value
        elif array is not None and array.dtype.kind in "iuf" and array.ndim <= 1:
            plain[str(name)] = array
        else:
            plain[str(name)] = json.dumps(to_json(value), sort_keys=True)
    return plain


def image_of(folder: Path) -> SpectrumImage | None:
    """Return the image of a step folder, None where the step made none."""
    return read_image(folder) if (Path(folder) / "image.zspy").is_dir() else None
