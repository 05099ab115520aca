"""How much memory a fit of components holds on the processor, beside the program itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit.model import ComponentModel
from phonon_eels.kernels.component_fit import OUTCOMES

FITTED_AGAIN = 0.05
"""Share of the positions that are fitted again, at most; where more end badly, each holds two results more."""
SUMMARY_NUMBERS = 6
"""Of every position while the maps are made, beside a copy of values and deviations."""
OTHER_BYTES = 3e6
"""Task graphs of the file, the start that all share, scratch of the threads."""


def position_bytes(model: ComponentModel, covariance: bool) -> int:
    """Return how much a position's results take."""
    n_params, n_free = len(model.names), model.free.size
    return 8 * (2 * n_params + OUTCOMES + 1 + (n_free**2 if covariance else 0))


def expected_bytes(counts: Any, model: ComponentModel, covariance: bool, backend: CpuBackend) -> float:
    """Return how much memory arrays take at most while every position of a cube is fitted.

    Results of all positions are held once. Of a file read by Dask, every thread holds the chunk that it reads from and its
    block of rows; arrays that are there already, in memory or mapped from a file, are not counted. When all results are there,
    the maps are made from them.

    Parameters
    ----------
    counts
        (rows, columns, channels), numpy or dask.
    covariance
        Whether the matrices are kept too.
    """
    lazy, at_once = hasattr(counts, "dask"), backend.blocks_at_once
    n_rows, n_columns, n_channels = counts.shape
    rows = backend.block_rows(counts, lazy)
    result = position_bytes(model, covariance)
    stored_row = n_columns * n_channels * np.dtype(counts.dtype).itemsize
    chunk = counts.chunks[0][0] if lazy else 0
    # A block of one chunk is that chunk; any other is put together from what was read.
    read = stored_row * (rows if rows == chunk else rows + chunk * -(-rows // chunk)) if lazy else 0
    n_blocks = -(-n_rows // rows)
    n = n_rows * n_columns
    working = min(n_blocks, at_once) * read
    summary = n * 8 * (2 * len(model.names) + SUMMARY_NUMBERS)
    return OTHER_BYTES + n * result + max(working + 2.0 * FITTED_AGAIN * n * result, summary)
