"""The dark-field image of the scan: in the same file or project, or in a file of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.errors import DataError, InputFileError
from phonon_eels.io.vendor import SUFFIXES, FileSignal, entry, load_array_image, load_signals
from phonon_eels.spectrum_image import SpectrumImage

OWN_KEY = "PhononEELS.haadf"
"""Where this package's files hold the image, in the metadata of the spectra."""
_DARK_FIELD = re.compile(r"(?<![a-z])(haadf|maadf|adf|df|dark.?field|annular)(?![a-z])", re.IGNORECASE)


def find_haadf(signals: list[FileSignal], chosen: FileSignal, image: SpectrumImage, path: Path) -> dict[str, Any]:
    """Return `haadf` and `haadf_frames` as found in the file: under our own key, else an image of the scan's shape.

    Raises
    ------
    DataError
        If our own key holds an image of another shape.
    """
    scan = image.shape[:2]
    ours = entry(chosen.metadata, OWN_KEY)
    if ours is not None:
        found = {"haadf": _checked_haadf(np.asarray(ours), scan, f"{path} ({OWN_KEY})")}
        per_frame = entry(chosen.metadata, f"{OWN_KEY}_frames")
        if per_frame is not None and image.frames is not None:
            found["haadf_frames"] = _checked_frames(np.asarray(per_frame), image, path)
        return found
    source = haadf_signal(signals, chosen, image)
    if source is None:
        return {}
    values = np.asarray(source.data, dtype=native_type(source.data.dtype))
    return {"haadf": values.mean(axis=0), "haadf_frames": values} if values.ndim == 3 else {"haadf": values}


def haadf_signal(signals: list[FileSignal], chosen: FileSignal, image: SpectrumImage) -> FileSignal | None:
    """Return the one signal of a file that can be the scan's dark field, a stack of frames first; None if not just one."""
    stacks = dark_field_images(signals, image.frames.shape[:3]) if image.frames is not None else []
    for candidates in (_of_one_scan(stacks, chosen), _of_one_scan(dark_field_images(signals, image.shape[:2]), chosen)):
        if len(candidates) == 1:
            return candidates[0]
    return None


def dark_field_images(signals: list[FileSignal], scan: tuple[int, ...]) -> list[FileSignal]:
    """Return the images that can be the scan's dark field: of its shape and named so; those named HAADF first.

    Parameters
    ----------
    scan
        (rows, columns), or (frames, rows, columns) to find a stack of images.
    """
    kind = "image" if len(scan) == 2 else "other"
    fitting = [
        item
        for item in signals
        if item.kind == kind and tuple(item.data.shape) == tuple(scan) and _DARK_FIELD.search(item.title)
    ]
    haadf = [item for item in fitting if "haadf" in item.title.lower()]
    return haadf or fitting


def _of_one_scan(images: list[FileSignal], chosen: FileSignal) -> list[FileSignal]:
    """Keep the images that the microscope marked as taken in the same scan as the spectra, if it marked any."""
    places = ("metadata.scan.scan_id", "metadata.hardware_source.scan_id")
    marks = {mark for place in places if isinstance(mark := entry(chosen.original, place), str) and mark}
    same = [item for item in images if marks & {str(entry(item.original, place)) for place in places}]
    return same or images


def given_haadf(path: Path, image: SpectrumImage) -> np.ndarray:
    """Read the dark-field image of a scan from a file of its own."""
    if path.suffix.lower() in SUFFIXES:
        signals = load_signals(path, lazy=False)
        images = dark_field_images(signals, image.shape[:2]) or [item for item in signals if item.kind == "image"]
        if len(images) != 1:
            raise InputFileError(f"{path} holds {len(images)} images; give a file with the HAADF image alone")
        found = np.asarray(images[0].data)
    else:
        found = load_array_image(path)
    return _checked_haadf(found, image.shape[:2], str(path))


def _checked_haadf(found: np.ndarray, scan: tuple[int, ...], where: str) -> np.ndarray:
    if tuple(found.shape) != tuple(scan):
        raise DataError(
            f"the HAADF in {where} has shape {tuple(found.shape)}, the scan {tuple(scan)} (rows, columns); "
            f"give the image that was taken with the spectra, or none"
        )
    if found.dtype.kind not in "biuf" or not np.all(np.isfinite(found)):
        raise DataError(f"the HAADF in {where} holds values that are no finite numbers; export it again")
    return found.astype(native_type(found.dtype), copy=False)


def _checked_frames(found: np.ndarray, image: SpectrumImage, path: Path) -> np.ndarray:
    want = tuple(image.frames.shape[:3])  # type: ignore[union-attr]
    if tuple(found.shape) != want:
        raise DataError(
            f"the HAADF frames in {path} have shape {tuple(found.shape)}, the scan {want} (frames, rows, columns); "
            f"write the file again with one image per frame, or without"
        )
    return found


def native_type(dtype: Any) -> np.dtype:
    """Return a type in this machine's byte order; True and False become 1 and 0."""
    return np.dtype(np.uint8) if np.dtype(dtype).kind == "b" else np.dtype(dtype).newbyteorder("=")
