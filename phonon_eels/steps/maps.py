"""Maps as xarray datasets: units, deviations and statuses where users expect them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from phonon_eels.spectrum_image import SpectrumImage, StepResult


def scan_dataset(
    image: SpectrumImage,
    values: Mapping[str, tuple[np.ndarray, str]],
    status: np.ndarray,
    meanings: Sequence[str],
    *,
    modes: Sequence[str] = (),
) -> xr.Dataset:
    """Return maps over the scan.

    Parameters
    ----------
    values
        Name → (array, unit); arrays are (rows, columns) or (modes, rows, columns).
    status
        (rows, columns) of small integers, `meanings` their words by number.
    """
    import xarray as xr

    row, column = image.scan
    coordinates: dict[str, Any] = {
        "row": ("row", row.positions_nm, {"units": "nm"}),
        "column": ("column", column.positions_nm, {"units": "nm"}),
    }
    if modes:
        coordinates["mode"] = ("mode", list(modes))
    variables = {
        name: (("mode", "row", "column")[3 - array.ndim :], array, {"units": unit})
        for name, (array, unit) in values.items()
    }
    flags = {"units": "1", "flag_values": np.arange(len(meanings), dtype=np.int16), "flag_meanings": " ".join(meanings)}
    return xr.Dataset({**variables, "status": (("row", "column"), status.astype(np.int16), flags)}, coordinates)


def add_flags(maps: xr.Dataset, flags: Mapping[str, tuple[np.ndarray, Sequence[str]]], first: str) -> None:
    """Write maps of flags, name → ((first, rows, columns) numbers, their words), into a dataset."""
    for name, (numbers, words) in flags.items():
        joined = " ".join(word.replace(" ", "_") for word in words)
        told = {"units": "1", "flag_values": np.arange(len(words), dtype=np.int16), "flag_meanings": joined}
        maps[name] = ((first, "row", "column"), numbers.astype(np.int16), told)


def flag_summary(
    flags: Mapping[str, tuple[np.ndarray, Sequence[str]]], names: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Return how many positions have each flag, for each of the names along the first axis."""
    return {
        f"{name}_counts": {own: count_status(plane, words) for own, plane in zip(names, numbers, strict=True)}
        for name, (numbers, words) in flags.items()
    }


def count_status(status: np.ndarray, meanings: Sequence[str]) -> dict[str, int]:
    """Return how many positions have each status."""
    return {word: int(np.count_nonzero(status == number)) for number, word in enumerate(meanings)}


def mark_masked(result: StepResult, image: SpectrumImage, *, estimates: bool = True) -> StepResult:
    """Return the result with the status "masked" at every position that is not of the sample.

    Parameters
    ----------
    image
        The image that the step was given.
    estimates
        The step's maps are estimates, which masked positions have none of (NaN); else they describe the data and stay.
    """
    image = image if result.image is None else result.image
    masked = image.masked
    if masked is None or result.maps is None or "status" not in result.maps:
        return result
    maps = result.maps.copy()
    if maps["status"].shape != masked.shape:
        return result
    summary = dict(result.summary)
    for name, variable in maps.data_vars.items():
        if variable.dims[-2:] != ("row", "column"):
            continue
        if name in ("status", "mode_status"):
            words = str(variable.attrs["flag_meanings"]).split()
            if "masked" not in words:
                words.append("masked")
            values = np.where(masked, words.index("masked"), variable.values).astype(np.int16)
            flags = {"flag_values": np.arange(len(words), dtype=np.int16), "flag_meanings": " ".join(words)}
            maps[name] = (variable.dims, values, {**variable.attrs, **flags})
            _recount(summary, str(name), values, words)
        elif estimates and variable.dtype.kind == "f":
            maps[name] = (variable.dims, np.where(masked, np.nan, variable.values), variable.attrs)
    return replace(result, maps=maps, summary=summary)


def _recount(summary: dict[str, Any], name: str, values: np.ndarray, words: Sequence[str]) -> None:
    key = f"{name}_counts"
    if name == "status":
        key = key if key in summary or "status" not in summary else "status"
        summary[key] = count_status(values, words)
    elif key in summary:
        modes = zip(summary[key], values, strict=True)
        summary[key] = {mode: count_status(own, words) for mode, own in modes}


def quantity(value: float, std: float, unit: str, status: str = "ok") -> dict[str, Any]:
    """Return a number as summaries hold it."""
    return {"value": float(value), "std": float(std), "unit": unit, "status": status}
