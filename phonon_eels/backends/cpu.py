"""Kernels on the processor: blocks of rows in Dask's threads, plain loops that release the GIL inside.

Numba's own threading (`prange`) is not used: its workqueue layer is not thread-safe under Dask's threads,
and one level of parallelism is enough (docs/adr/0002).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from phonon_eels.backends.base import Progress, Take, WholeArray

BLOCK_BYTES = 16_000_000  # large enough to hide task overhead, small enough for many threads in 2 GB
BLOCKS_A_THREAD = 4
"""At least, of arrays in memory: a thread that is done early takes what another, which shares its core, has left."""


class CpuBackend:
    """Runs blocks of rows in `threads` threads."""

    name: Literal["cpu", "cuda"] = "cpu"
    shares_memory: bool = True

    at_once_bytes: float = 0.0
    """`map_cube` computes cubes up to this size at once if its arrays are in memory: a small step is done before Dask is loaded."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self.blocks_at_once = self.threads
        self.blocks_in_memory = BLOCKS_A_THREAD * self.threads if self.threads > 1 else 1
        self.block_bytes = BLOCK_BYTES

    def run(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``block(*args, **kwargs)``; see `Backend`."""
        return block(*args, **kwargs)

    @property
    def xp(self) -> Any:
        """The array module; see `Backend`."""
        return np

    @property
    def fft(self) -> Any:
        """Its Fourier transforms; see `Backend`."""
        from scipy import fft  # here and not above: a tenth of the start of a step that transforms nothing

        return fft

    def whole_array(
        self, function: WholeArray, *arrays: np.ndarray, shared: Sequence[Any] = (), row_bytes: float | None = None
    ) -> Any:
        """Call ``function(self, *arrays, *shared)``; see `Backend`."""
        return function(self, *arrays, *shared)

    def map_rows(
        self,
        function: Callable[..., Any],
        arrays: Sequence[Any],
        *,
        progress: Progress | None = None,
        take: Take | None = None,
    ) -> list[Any]:
        """Call ``function(first_row, *blocks)`` on consecutive blocks of rows; see `Backend`."""
        first = next(array for array in arrays if array is not None)
        lazy = any(hasattr(array, "dask") for array in arrays)
        spans = list(pairwise(self._row_edges(first, lazy)))
        results: list[Any] = []
        with closing((self._by_dask if lazy else self._by_threads)(function, arrays, spans)) as found:
            for (low, high), result in zip(spans, found, strict=True):
                if take is None:
                    results.append(result)
                else:
                    take(low, result)
                if progress is not None:
                    progress(high, first.shape[0])
        return results

    def _by_dask(
        self, function: Callable[..., Any], arrays: Sequence[Any], spans: list[tuple[int, int]]
    ) -> Generator[Any, None, None]:
        """Yield the blocks' results in order, a few at a time: never more blocks than that are in memory."""
        import dask

        for start in range(0, len(spans), self.blocks_at_once):
            tasks = [
                dask.delayed(_call)(function, low, *[_rows(array, low, high) for array in arrays])
                for low, high in spans[start : start + self.blocks_at_once]
            ]
            yield from dask.compute(*tasks, scheduler="threads", num_workers=self.blocks_at_once)

    def _by_threads(
        self, function: Callable[..., Any], arrays: Sequence[Any], spans: list[tuple[int, int]]
    ) -> Generator[Any, None, None]:
        """Yield the blocks' results in order; no thread waits for the others' blocks.

        Arrays whose rows are there to be taken are no work for Dask: loading it takes longer than many a step.
        """

        def call(span: tuple[int, int]) -> Any:
            return function(span[0], *[_rows(array, *span) for array in arrays])

        if min(len(spans), self.blocks_at_once) == 1:
            yield from map(call, spans)
            return
        pool = ThreadPoolExecutor(min(len(spans), self.blocks_at_once))
        ahead = 2 * self.blocks_at_once
        try:
            running = deque(pool.submit(call, span) for span in spans[:ahead])
            for coming in [*spans[ahead:], *[None] * len(running)]:
                yield running.popleft().result()
                if coming is not None:
                    running.append(pool.submit(call, coming))
        finally:
            pool.shutdown(cancel_futures=True)

    def map_cube(
        self,
        function: Callable[..., np.ndarray],
        arrays: Sequence[Any],
        *,
        dtype: Any,
        n_channels: int | None = None,
    ) -> Any:
        """Return a lazy cube made by ``function(*blocks)``, or the cube itself if it is small; see `Backend`."""
        first = next(array for array in arrays if array is not None)
        size = (
            int(np.prod(first.shape[:-1], dtype=np.int64)) * (n_channels or first.shape[-1]) * np.dtype(dtype).itemsize
        )
        if size <= self.at_once_bytes and all(array is None or isinstance(array, np.ndarray) for array in arrays):
            blocks = self.map_rows(lambda first_row, *blocks: function(*blocks), arrays)
            return np.concatenate(blocks).astype(dtype, copy=False)
        return self._lazy_cube(function, first, arrays, dtype, n_channels)

    def _lazy_cube(
        self, function: Callable[..., np.ndarray], first: Any, arrays: Sequence[Any], dtype: Any, n_channels: int | None
    ) -> Any:
        import dask.array as da

        edges = self._row_edges(first, lazy=True)
        chunks = (tuple(np.diff(edges).tolist()), *[(size,) for size in first.shape[1:]])
        given = [None if array is None else _rechunk(array, chunks) for array in arrays]
        present = [array for array in given if array is not None]

        def call(*blocks: np.ndarray) -> np.ndarray:
            supply = iter(blocks)
            return function(*[None if array is None else next(supply) for array in given])

        out_chunks = chunks if n_channels is None else (*chunks[:-1], (n_channels,))
        return da.map_blocks(
            call, *present, dtype=dtype, chunks=out_chunks, meta=np.empty((0,) * first.ndim, dtype=dtype)
        )

    def block_rows(self, array: Any, lazy: bool) -> int:
        """Return how many rows a block has: about `block_bytes` as float64, and enough blocks for all threads.

        Of a lazy array it is whole chunks where they are no larger than two blocks, so that none is read twice.
        """
        n_rows = array.shape[0]
        row_bytes = int(np.prod(array.shape[1:], dtype=np.int64)) * 8
        at_least = self.blocks_at_once if lazy else self.blocks_in_memory
        rows = max(1, min(self.block_bytes // max(row_bytes, 1), -(-n_rows // at_least)))
        chunk = int(array.chunks[0][0]) if hasattr(array, "dask") else 1
        if chunk * row_bytes <= 2 * self.block_bytes and -(-n_rows // chunk) >= at_least:
            rows = chunk * max(1, rows // chunk)
        return rows

    def _row_edges(self, array: Any, lazy: bool) -> list[int]:
        return [*range(0, array.shape[0], self.block_rows(array, lazy)), array.shape[0]]


def _call(function: Callable[..., Any], first_row: int, *blocks: Any) -> Any:
    return function(first_row, *blocks)


def _rows(array: Any, low: int, high: int) -> Any:
    return None if array is None else array[low:high]


def _rechunk(array: Any, chunks: tuple[tuple[int, ...], ...]) -> Any:
    import dask.array as da

    rows_only = (chunks[0], *[(size,) for size in array.shape[1:]])
    return array.rechunk(rows_only) if isinstance(array, da.Array) else da.from_array(array, chunks=rows_only)
