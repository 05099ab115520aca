"""Scratch of the drivers on the processor."""

from __future__ import annotations

import numpy as np

from phonon_eels.kernels.device import kernel


@kernel
def aligned(rows: int, columns: int) -> np.ndarray:
    """Return zeros of which every row starts on a cache line if `columns` is a multiple of 8: wide loads never cross one."""
    flat = np.zeros(rows * columns + 8)
    first = (-flat.ctypes.data % 64) // 8
    return flat[first : first + rows * columns].reshape((rows, columns))
