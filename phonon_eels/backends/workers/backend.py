"""Blocks of rows on the workers of a dask.distributed cluster: storage to worker to storage, one task a block.

A task is given two row numbers. What it works on was sent once to every worker (`payload`): the function with its
constants, and arrays as their places on disk, of which the worker reads its rows itself. So the scheduler knows one task
per block whatever the number of chunks, and no cube passes through it or through the client.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from phonon_eels.backends.base import Progress, Take, WholeArray
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.workers.payload import pack, unpack
from phonon_eels.errors import DeviceError

LARGEST_BLOCK_BYTES = 128_000_000
"""Of values as float64: 64 MB of float32 on disk, 15,625 blocks for a terabyte."""
SMALLEST_BLOCK_BYTES = 16_000_000
_BLOCKS_IN_MEMORY = 24.0  # a worker's memory holds the program and about this many blocks: raw, float64, results, spare
_TRIES = 4


class WorkersBackend(CpuBackend):
    """Runs blocks of rows on the workers of a cluster; results are those of `CpuBackend`, bit for bit.

    Parameters
    ----------
    client
        Of dask.distributed.
    device
        "cuda": the kernels run on each worker's GPU, and on this machine's where a step calls one itself.
    """

    shares_memory = False

    def __init__(self, client: Any, device: Literal["cpu", "cuda"] = "cpu") -> None:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        super().__init__(max(1, sum(int(worker["nthreads"]) for worker in workers)))
        self._client = client
        self.name = device
        shares = [worker["memory_limit"] / worker["nthreads"] for worker in workers if worker["memory_limit"]]
        share = min(shares, default=math.inf)
        self.block_bytes = int(min(LARGEST_BLOCK_BYTES, max(SMALLEST_BLOCK_BYTES, share / _BLOCKS_IN_MEMORY)))
        self.n_tasks = 0

    def __reduce__(self) -> tuple[type[CpuBackend], tuple[int]]:
        """On a worker, work within a block is done by one thread, or by its GPU."""
        return self._kind(), (1,)

    def _kind(self) -> type[CpuBackend]:
        if self.name == "cpu":
            return CpuBackend
        from phonon_eels.backends.cuda.backend import CudaBackend

        return CudaBackend

    def run(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a kernel here and now; see `Backend`."""
        return self._kind()(1).run(block, *args, **kwargs)

    @property
    def xp(self) -> Any:
        """The array module; see `Backend`."""
        return self._kind()(1).xp

    @property
    def fft(self) -> Any:
        """Its Fourier transforms; see `Backend`."""
        return self._kind()(1).fft

    def whole_array(
        self, function: WholeArray, *arrays: np.ndarray, shared: Sequence[Any] = (), row_bytes: float | None = None
    ) -> Any:
        """Work on whole arrays here and now; see `Backend`."""
        return self._kind()(1).whole_array(function, *arrays, shared=shared, row_bytes=row_bytes)

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
        return self._run(_map_rows, pack(function, tuple(arrays)), self._row_edges(first), progress, take)

    def store(self, sources: Sequence[Any], targets: Sequence[Any], progress: Callable[[int], None]) -> None:
        """Let the workers compute lazy arrays and write them into arrays on disk, every chunk by one task.

        Parameters
        ----------
        sources
            Lazy or numpy, rows first; arrays made from one graph are computed together.
        targets
            Zarr arrays that every worker can open.
        progress
            Called with the rows written.
        """
        unit = math.lcm(*(int(target.chunks[0]) for target in targets))
        edges = self._row_edges(sources[0], unit=unit)
        self._run(_store_rows, pack(tuple(sources), tuple(targets)), edges, lambda done, total: progress(done))

    def block_rows(self, array: Any, lazy: bool = True, unit: int | None = None) -> int:
        """Return how many rows a task has: a multiple of those of a chunk, so that no chunk is read or written by two tasks."""
        if unit is None:
            rows = getattr(array, "chunks", None)
            unit = int(rows[0][0]) if rows and isinstance(rows[0], tuple) else 1
        row_bytes = int(np.prod(array.shape[1:], dtype=np.int64)) * 8
        # Rounded up: blocks of half the size would be twice as many tasks.
        wanted = max(1, min(-(-self.block_bytes // max(row_bytes, 1)), -(-int(array.shape[0]) // self.threads)))
        return unit * -(-wanted // unit)

    def _row_edges(self, array: Any, lazy: bool = True, unit: int | None = None) -> list[int]:
        return [*range(0, int(array.shape[0]), self.block_rows(array, lazy, unit)), int(array.shape[0])]

    def _run(
        self,
        task: Callable[..., Any],
        payload: bytes,
        edges: Sequence[int],
        progress: Progress | None,
        take: Take | None = None,
    ) -> list[Any]:
        from distributed import CancelledError, KilledWorker, as_completed

        spans = list(pairwise(edges))
        results: dict[int, Any] = {}
        self.n_tasks += len(spans)
        for _ in range(_TRIES):
            futures = {}
            try:
                self._client.wait_for_workers(1, timeout=120)
                shared = self._client.scatter(payload, broadcast=True, hash=False)
                futures = {
                    self._client.submit(task, shared, low, high, pure=False): number
                    for number, (low, high) in enumerate(spans)
                    if number not in results
                }
                for future in as_completed(list(futures), loop=self._client.loop):
                    number, result = futures[future], future.result()
                    if take is not None:
                        take(spans[number][0], result)
                    results[number] = result if take is None else None
                    if progress is not None:
                        progress(sum(spans[number][1] - spans[number][0] for number in results), edges[-1])
                    future.release()
                return [] if take is not None else [results[number] for number in range(len(spans))]
            except KilledWorker as problem:
                raise DeviceError(
                    f"workers died again and again at the same block of rows ({problem}); they have too little memory: "
                    f"give them more with --worker-memory, or fewer threads"
                ) from problem
            except TimeoutError as problem:
                raise DeviceError(
                    "no worker is left and none came within 120 s; start some and say it again"
                ) from problem
            except CancelledError:
                # The only worker that had the payload died: what is finished stays, the rest is sent again.
                continue
            finally:
                for future in futures:
                    future.release()
        raise DeviceError(f"all workers were lost {_TRIES} times; see their logs, and give them more memory")


def _map_rows(payload: bytes, low: int, high: int) -> Any:
    function, arrays = unpack(payload)
    return function(low, *_blocks(arrays, low, high))


def _store_rows(payload: bytes, low: int, high: int) -> None:
    sources, targets = unpack(payload)
    for block, target in zip(_blocks(sources, low, high), targets, strict=True):
        target[low:high] = block


def _blocks(arrays: Sequence[Any], low: int, high: int) -> list[Any]:
    """Return rows of arrays as numpy, lazy ones computed here and now, in this thread."""
    import dask

    rows = [None if array is None else array[low:high] for array in arrays]
    computed = dask.compute(*rows, scheduler="synchronous")
    return [None if block is None else np.asarray(block) for block in computed]
