"""Nion Swift's file layouts, written by hand for the tests; the real ones are among the measured files."""

import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

UUIDS = tuple(uuid.UUID(int=number) for number in (0x870E9A0F_E68D_4EB6_A611_9F9836D27730, 12345, (1 << 128) - 1))


def calibration(offset: float = 0.0, scale: float = 1.0, units: str = "") -> dict[str, Any]:
    return {"offset": offset, "scale": scale, "units": units}


ROW, COLUMN, ENERGY = calibration(-1.0, 0.5, "nm"), calibration(2.0, 0.25, "nm"), calibration(-0.0205, 0.001, "eV")


def counts(*shape: int, dtype: str = "uint16") -> np.ndarray:
    """Every value differs, so that no order of axes passes for another."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def properties(data: np.ndarray, **changes: Any) -> dict[str, Any]:
    """What a library file says about frames × rows × columns × channels, or less."""
    n = data.ndim
    calibrations = [*([calibration()] if n == 4 else []), *[ROW, COLUMN][max(0, 3 - n) :], ENERGY]
    return {
        "uuid": str(UUIDS[0]),
        "title": "a scan",
        "is_sequence": n == 4,
        "collection_dimension_count": min(n - 1, 2),
        "datum_dimension_count": 1,
        "dimensional_calibrations": calibrations[-n:],
        "metadata": {"hardware_source": {"autostem": {"EHT": 60000.0}, "exposure": 0.02}},
        **changes,
    }


def haadf_properties(data: np.ndarray, **changes: Any) -> dict[str, Any]:
    calibrations = [calibration(), ROW, COLUMN][-data.ndim :]
    plain = {"uuid": str(UUIDS[1]), "title": "Superscan (HAADF)", "dimensional_calibrations": calibrations}
    return {
        **plain,
        "is_sequence": data.ndim == 3,
        "collection_dimension_count": 0,
        "datum_dimension_count": 2,
        "metadata": {},
        **changes,
    }


def npy(data: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, data, allow_pickle=True)
    return buffer.getvalue()


def write_zip(path: Path, *members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_ndata(path: Path, data: np.ndarray, about: Any = None, *, data_first: bool = True) -> Path:
    """Write as the library does; `data_first=False` as the export does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(properties(data) if about is None else about).encode()
    members = [("data.npy", npy(data)), ("metadata.json", text)]
    return write_zip(path, *(members if data_first else members[::-1]))


def write_h5(path: Path, data: np.ndarray, about: Any = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        item = file.create_dataset("data", data=data, **options)
        item.attrs["properties"] = json.dumps(properties(data) if about is None else about)
    return path


def write_nhdf(path: Path, *arrays: tuple[np.ndarray, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for number, (data, about) in enumerate(arrays):
            item = file.create_dataset(f"data/{number}", data=data, chunks=True)
            item.attrs["properties"] = json.dumps(about)
        file.create_group("index").attrs["1"] = "{}"
    return path


def write_project(path: Path, *items: uuid.UUID, **changes: Any) -> Path:
    displays = [{"display_data_channels": [{"data_item_reference": str(item)}]} for item in items]
    project = {"version": 3, "project_data_folders": [f"{path.stem} Data"], "display_items": displays, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(project), encoding="utf-8")
    return path
