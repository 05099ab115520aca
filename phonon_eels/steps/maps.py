"""Maps as xarray datasets: units, deviations and statuses where users expect them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from phonon_eels.spectrum_image import SpectrumImage


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


def count_status(status: np.ndarray, meanings: Sequence[str]) -> dict[str, int]:
    """Return how many positions have each status."""
    return {word: int(np.count_nonzero(status == number)) for number, word in enumerate(meanings)}


def quantity(value: float, std: float, unit: str, status: str = "ok") -> dict[str, Any]:
    """Return a number as summaries hold it."""
    return {"value": float(value), "std": float(std), "unit": unit, "status": status}
