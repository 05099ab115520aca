"""Read a user's own gap: a table against superstructure phase, or a map on the grid of the scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.errors import InputFileError

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 50_000_000
MAX_GAP_MEV = 1000.0


def read_gap_curve(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return phase (rad), gap and its standard deviation (meV) from a CSV file with the columns phase_rad, gap_mev, gap_std_mev.

    Raises
    ------
    InputFileError
        If the file cannot be read, lacks a column, or holds what is no gap.
    """
    table = _table(path, ("phase_rad", "gap_mev", "gap_std_mev"))
    phase, gap, std = (_numbers(path, table, name) for name in ("phase_rad", "gap_mev", "gap_std_mev"))
    if np.abs(phase).max() > 100.0:
        raise InputFileError(f"{path}: phase_rad reaches {np.abs(phase).max():g}; give radians, 2π a period")
    _check_gap(path, gap, std)
    return phase, gap, std


def read_gap_map(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return gap and standard deviation (meV), both of the shape of the scan, NaN where there is none.

    Parameters
    ----------
    path
        CSV with the columns row, column, gap_mev, gap_std_mev (counted from 0), or NetCDF with the variables gap_mev and
        gap_mev_std over (row, column).

    Raises
    ------
    InputFileError
        If the file cannot be read, does not fit the scan, or holds what is no gap.
    """
    if path.suffix.lower() == ".nc":
        return _from_netcdf(path, shape)
    table = _table(path, ("row", "column", "gap_mev", "gap_std_mev"))
    row, column, gap, std = (_numbers(path, table, name) for name in ("row", "column", "gap_mev", "gap_std_mev"))
    places = np.stack([row, column])
    if (places != np.rint(places)).any() or (places < 0).any() or (row >= shape[0]).any() or (column >= shape[1]).any():
        raise InputFileError(
            f"{path}: row and column must be whole numbers from 0 to {shape[0] - 1} and {shape[1] - 1}, the scan's"
        )
    _check_gap(path, gap, std)
    index = (row.astype(np.intp), column.astype(np.intp))
    if len(set(zip(*index, strict=True))) < len(row):
        raise InputFileError(f"{path}: some positions stand there twice; give one gap for each")
    values = np.full((2, *shape), np.nan)
    values[0][index], values[1][index] = gap, std
    return values[0], values[1]


def _table(path: Path, wanted: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    _check_file(path)
    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
    except (OSError, ValueError, UnicodeDecodeError) as problem:
        raise InputFileError(
            f"{path}: is no CSV table ({problem}); the first line names {', '.join(wanted)}"
        ) from problem
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise InputFileError(
            f"{path}: lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns[:10]))}, and {', '.join(wanted)} are needed"
        )
    if len(table) == 0:
        raise InputFileError(f"{path}: holds no line of numbers under its header")
    return table


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputFileError(f"{path}: there is no such file; give the path of the gap's table or map")
    if path.stat().st_size > MAX_BYTES:
        raise InputFileError(f"{path}: larger than {MAX_BYTES // 1_000_000} MB, which no gap of a scan is")


def _numbers(path: Path, table: pd.DataFrame, name: str) -> np.ndarray:
    import pandas as pd

    values = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise InputFileError(
            f"{path}: {name} is {str(table[name].iloc[bad[0]])[:40]!r} in line {bad[0] + 1} of the numbers; all must be finite"
        )
    return values


def _check_gap(path: Path, gap: np.ndarray, std: np.ndarray) -> None:
    known = np.isfinite(gap)
    if not known.any() or (gap[known] <= 0.0).any() or (gap[known] > MAX_GAP_MEV).any():
        raise InputFileError(f"{path}: a gap must lie between 0 and {MAX_GAP_MEV:g} meV; check the unit of gap_mev")
    if not (std[known] > 0.0).all():
        raise InputFileError(f"{path}: every standard deviation must be positive, in meV")


def _from_netcdf(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    import xarray as xr

    _check_file(path)
    try:
        with xr.open_dataset(path) as data:
            found = {
                name: np.asarray(data[name].values, dtype=float) for name in ("gap_mev", "gap_mev_std") if name in data
            }
    except (OSError, ValueError, TypeError) as problem:
        raise InputFileError(f"{path}: cannot be read as NetCDF ({problem})") from problem
    if set(found) != {"gap_mev", "gap_mev_std"}:
        raise InputFileError(f"{path}: needs the variables gap_mev and gap_mev_std over (row, column)")
    if any(values.shape != shape for values in found.values()):
        raise InputFileError(
            f"{path}: gap_mev is {found['gap_mev'].shape}, the scan {shape} (rows, columns); both must agree"
        )
    _check_gap(path, found["gap_mev"], found["gap_mev_std"])
    return found["gap_mev"], found["gap_mev_std"]
