"""DigitalMicrograph's ``.dm3 .dm4`` through RosettaSciIO, with spectrum images left on the disk in blocks of scan rows.

DigitalMicrograph stores energy slowest. RosettaSciIO's own blocks are cut along the energy, so a single spectrum would
touch the whole file; what it says of where the values begin is enough to cut them along the rows instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.errors import InputFileError
from phonon_eels.io.nion_arrays import MappedArray

BLOCK_BYTES = 32_000_000


def read_digital_micrograph(path: Path, lazy: bool) -> Iterator[dict[str, Any]]:
    """Read every image of a file as RosettaSciIO's dictionaries.

    Raises
    ------
    InputFileError
        If the values that an image declares are not all in the file.
    """
    from rsciio.digitalmicrograph import file_reader

    for record in file_reader(str(path), lazy=lazy):
        if lazy and hasattr(record["data"], "dask") and record["data"].ndim > 2:
            yield {**record, "data": _by_rows(path, record)}
        else:
            yield record


def _by_rows(path: Path, record: Mapping[str, Any]) -> Any:
    """The same values as dask array whose blocks hold all energies of a few rows."""
    import dask.array
    from dask.base import tokenize

    data = record["data"]
    place = record["original_metadata"]["ImageList"]["TagGroup0"]["ImageData"]["Data"]
    source = MappedArray(path, int(place["offset"]), np.dtype(data.dtype), tuple(int(n) for n in data.shape))
    size = int(np.prod(source.shape, dtype=np.int64)) * source.dtype.itemsize
    state = path.stat()
    if source.offset < 0 or source.offset + size > state.st_size:
        raise InputFileError(
            f"{path} declares {size} bytes of values, of which only {max(state.st_size - source.offset, 0)} are there; "
            f"it is truncated, copy it again from the microscope"
        )
    sizes = dask.array.core.normalize_chunks(
        [-1, "auto", *[-1] * (data.ndim - 2)], source.shape, limit=BLOCK_BYTES, dtype=source.dtype
    )
    name = f"dm-{tokenize(source, state.st_mtime_ns, state.st_size)}"
    return dask.array.from_array(source, chunks=sizes, name=name)
