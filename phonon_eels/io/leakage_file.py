"""Read a leakage matrix that a multislice calculation made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phonon_eels.errors import InputFileError

MAX_BYTES = 5_000_000
COLUMNS = ("probe", "source", "share", "share_std")


def read_leakage(path: Path, layers: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of each source layer in what is seen on each layer, and its deviation, both (layers, layers).

    Parameters
    ----------
    path
        CSV with the columns probe, source, share, share_std, one line for every pair of layers; or NetCDF with
        share and share_std over (probe, source), the coordinates naming the layers.
    layers
        Names of the material's layers.

    Raises
    ------
    InputFileError
        If the file cannot be read, lacks a pair, or holds what is no share.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise InputFileError(
            f"{path}: there is no such file of at most {MAX_BYTES // 1_000_000} MB; give a leakage matrix"
        )
    rows = _netcdf(path) if path.suffix.lower() == ".nc" else _csv(path)
    matrix, std = np.full((2, len(layers), len(layers)), np.nan)
    for probe, source, share, share_std in rows:
        if probe not in layers or source not in layers:
            raise InputFileError(f"{path}: {probe} and {source} must be layers of the material: {', '.join(layers)}")
        place = (layers.index(probe), layers.index(source))
        if np.isfinite(matrix[place]):
            raise InputFileError(f"{path}: the pair {probe}, {source} stands there twice")
        if not (0.0 <= share <= 1.0 and 0.0 <= share_std <= 1.0):
            raise InputFileError(
                f"{path}: share and share_std of {probe}, {source} must lie between 0 and 1, got {share}, {share_std}"
            )
        matrix[place], std[place] = share, share_std
    missing = [f"{layers[i]}, {layers[j]}" for i, j in np.argwhere(np.isnan(matrix))]
    if missing:
        raise InputFileError(
            f"{path}: lacks the pair {missing[0]} (probe, source){f' and {len(missing) - 1} more' if len(missing) > 1 else ''}"
        )
    sums = matrix.sum(axis=1)
    if np.abs(sums - 1.0).max() > 0.02:
        worst = int(np.argmax(np.abs(sums - 1.0)))
        raise InputFileError(
            f"{path}: the shares seen on {layers[worst]} add up to {sums[worst]:.3f}; they must add up to 1"
        )
    return matrix, std


def _csv(path: Path) -> list[tuple[str, str, float, float]]:
    import pandas as pd

    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise ValueError(f"lacks the column {missing[0]}; {', '.join(COLUMNS)} are needed")
        return [
            (str(row["probe"]), str(row["source"]), float(row["share"]), float(row["share_std"]))
            for row in table.to_dict("records")
        ]
    except (OSError, ValueError, TypeError) as problem:
        raise InputFileError(f"{path}: is no leakage matrix ({problem})") from problem


def _netcdf(path: Path) -> list[tuple[str, str, float, float]]:
    import xarray as xr

    try:
        with xr.open_dataset(path) as data:
            share, std = (data[name].transpose("probe", "source").load() for name in ("share", "share_std"))
            return [
                (str(p), str(s), float(share[i, j]), float(std[i, j]))
                for i, p in enumerate(data["probe"].values)
                for j, s in enumerate(data["source"].values)
            ]
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise InputFileError(f"{path}: is no leakage matrix ({problem})") from problem
