"""Read positions of atomic columns, as Atomap finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phonon_eels.errors import InputFileError

MAX_BYTES = 50_000_000
MIN_COLUMNS = 20


def read_columns(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return places of columns in positions of the scan, (n, 2) row and column, and their intensities, (n,), or None.

    Parameters
    ----------
    path
        CSV with the columns row, column and perhaps intensity; or NPZ with arrays of these names, or with `x_position`
        and `y_position` (column and row), as the attributes of Atomap's sublattices are called.
    shape
        (rows, columns) of the scan.

    Raises
    ------
    InputFileError
        If the file cannot be read, holds too few columns, or they do not lie in the scan.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise InputFileError(
            f"{path}: there is no such file of at most {MAX_BYTES // 1_000_000} MB; give positions of atomic columns"
        )
    table = _npz(path) if path.suffix.lower() == ".npz" else _csv(path)
    places = np.stack([table["row"], table["column"]], axis=1)
    intensity = table.get("intensity")
    if len(places) < MIN_COLUMNS:
        raise InputFileError(f"{path}: holds {len(places)} columns of atoms; at least {MIN_COLUMNS} are needed")
    if not np.isfinite(places).all() or (intensity is not None and not np.isfinite(intensity).all()):
        raise InputFileError(f"{path}: holds values that are no numbers")
    inside = ((places >= -1.0) & (places <= np.array(shape))).all(axis=1)
    if inside.mean() < 0.5:
        raise InputFileError(
            f"{path}: {100 * inside.mean():.0f} % of the columns of atoms lie in the scan of {shape[0]} × {shape[1]} "
            "positions; row and column count positions of this scan, from 0"
        )
    return places[inside], None if intensity is None else intensity[inside]


def _csv(path: Path) -> dict[str, np.ndarray]:
    import pandas as pd

    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
        missing = [name for name in ("row", "column") if name not in table.columns]
        if missing:
            raise ValueError(f"lacks the column {missing[0]}; row, column and perhaps intensity are needed")
        names = [name for name in ("row", "column", "intensity") if name in table.columns]
        return {name: table[name].to_numpy(dtype=float) for name in names}
    except (OSError, ValueError, TypeError) as problem:
        raise InputFileError(f"{path}: holds no positions of columns of atoms ({problem})") from problem


def _npz(path: Path) -> dict[str, np.ndarray]:
    import zipfile

    names = {"row": ("row", "y_position"), "column": ("column", "x_position"), "intensity": ("intensity",)}
    try:
        with np.load(path, allow_pickle=False) as data:
            found = {
                name: np.asarray(data[key], dtype=float).ravel()
                for name, keys in names.items()
                for key in keys
                if key in data.files
            }
        if not {"row", "column"} <= set(found) or len({len(values) for values in found.values()}) != 1:
            raise ValueError("needs row and column (or y_position and x_position), all of one length")
        return found
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as problem:
        raise InputFileError(f"{path}: holds no positions of columns of atoms ({problem})") from problem
