"""Spectrum images as `.hspy` files, as HyperSpy users have them: energies in eV, the scan in nm, HAADF inside."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.io import axes
from phonon_eels.io.atomic import staged_file
from phonon_eels.io.metadata import metadata_tree
from phonon_eels.spectrum_image import SpectrumImage

HDF5_CHUNK_BYTES = 1_000_000
"""HDF5's own chunk cache is 1 MB: larger chunks are read from disk again and again."""


def write_hspy(
    image: SpectrumImage,
    path: str | Path,
    *,
    compress: bool = True,
    haadf: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a spectrum image as one `.hspy` file that HyperSpy opens as an EELS signal.

    Several frames become a signal with the frame as first axis. The HAADF image stands in the metadata as
    `PhononEELS.haadf` (and `PhononEELS.haadf_frames`), where HyperSpy keeps it through load and save.

    Parameters
    ----------
    image
        Spectrum image, (rows, columns, channels); its `frames` are written instead of `counts` where it has any.
    path
        File to write; replaced only when the new one is whole.
    compress
        Compress losslessly with gzip, which every HDF5 library reads.
    haadf
        Whether the HAADF image goes into the file.
    extra
        More entries of the metadata node `PhononEELS`, plain values only.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from rsciio.hspy import file_writer

    data = image.counts if image.frames is None else image.frames
    inside: dict[str, Any] = dict(extra or {})
    if haadf and image.haadf is not None:
        inside["haadf"] = np.ascontiguousarray(image.haadf)
    if haadf and image.haadf_frames is not None:
        inside["haadf_frames"] = np.ascontiguousarray(image.haadf_frames)
    with staged_file(Path(path)) as temporary:
        file_writer(
            str(temporary),
            signal_dictionary(image, data, inside),
            chunks=spectrum_chunks(data.shape, data.dtype, HDF5_CHUNK_BYTES),
            compression="gzip" if compress else None,
            show_progressbar=False,
        )
    return Path(path)


def signal_dictionary(image: SpectrumImage, data: Any, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the dictionary that RosettaSciIO's writers take.

    Parameters
    ----------
    data
        (rows, columns, channels) or (frames, rows, columns, channels).
    extra
        More entries of the metadata node `PhononEELS`.
    """
    scan = [axes.scan_axis_dict(axis) for axis in image.scan]
    frame = [axes.frame_axis_dict(int(data.shape[0]))] if data.ndim == 4 else []
    return {
        "data": data if hasattr(data, "dask") else np.ascontiguousarray(data),
        "axes": [*frame, *scan, axes.energy_axis_dict(image.energy)],
        "metadata": metadata_tree(image, extra),
        "original_metadata": {},
        "learning_results": {},
        "attributes": {"_lazy": False, "ragged": False},
        "models": {},
        "tmp_parameters": {},
        "package_info": {"package": "hyperspy", "package_version": importlib.metadata.version("hyperspy")},
    }


def spectrum_chunks(shape: tuple[int, ...], dtype: Any, chunk_bytes: float) -> tuple[int, ...]:
    """Return the shape of a chunk: whole spectra, whole rows where they fit, several rows where they fit too.

    Parameters
    ----------
    shape
        (rows, columns, channels) or (frames, rows, columns, channels).
    chunk_bytes
        Size not to be exceeded, except by a single spectrum.
    """
    spectrum = shape[-1] * np.dtype(dtype).itemsize
    columns = int(min(max(chunk_bytes // spectrum, 1), shape[-2]))
    columns = -(-shape[-2] // -(-shape[-2] // columns))  # pieces of one size, no sliver at the end
    rows = int(min(max(chunk_bytes // (spectrum * shape[-2]), 1), shape[-3]))
    return (*[1] * (len(shape) - 3), rows, columns, shape[-1])
