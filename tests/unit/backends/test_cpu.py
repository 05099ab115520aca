"""Blocks of rows on threads."""

import threading
import time

import dask.array as da
import numpy as np
import pytest

from phonon_eels.backends import cpu
from phonon_eels.backends.cpu import CpuBackend


def _cube(rows=7, columns=3, channels=5):
    return np.arange(rows * columns * channels, dtype=float).reshape(rows, columns, channels)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("chunks", [None, (2, 3, 5), (3, 1, 2)])
def test_rows_come_once_in_order_and_whole(threads, chunks):
    cube = _cube()
    given = cube if chunks is None else da.from_array(cube, chunks=chunks)
    parts = CpuBackend(threads).map_rows(lambda first, block: [(first, np.asarray(block))], [given])
    seen = [item for part in parts for item in part]
    np.testing.assert_array_equal(np.concatenate([block for _, block in seen]), cube)
    assert [first for first, _ in seen] == np.cumsum([0, *[len(block) for _, block in seen]])[:-1].tolist()


def test_missing_arrays_stay_none():
    def function(first, counts, bad, variance):
        assert bad is None
        return variance.sum() - counts.sum()

    cube = _cube()
    assert sum(CpuBackend(2).map_rows(function, [cube, None, 2.0 * cube])) == cube.sum()
    first_missing = CpuBackend(2).map_rows(lambda first, none, block: len(block), [None, cube])
    assert sum(first_missing) == 7


def test_progress_ends_with_all_rows():
    seen = []
    CpuBackend(2).map_rows(lambda first, block: 0, [_cube()], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7, 7)
    assert seen == sorted(seen)


def test_results_may_be_taken_as_they_come():
    backend = CpuBackend(2)
    backend.block_bytes = 1
    taken = {}
    kept = backend.map_rows(lambda first, block: block.sum(), [_cube()], take=taken.__setitem__)
    assert kept == []
    assert taken == {row: block.sum() for row, block in enumerate(_cube())}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_cube_is_lazy_and_the_same_for_every_number_of_threads(threads):
    calls = []

    def function(block, other):
        calls.append(len(block))
        assert other is None
        return block[..., ::2] * 2.0

    cube = CpuBackend(threads).map_cube(function, [_cube(), None], dtype=float, n_channels=3)
    assert isinstance(cube, da.Array)
    assert cube.shape == (7, 3, 3)
    assert not calls
    np.testing.assert_array_equal(cube.compute(scheduler="threads"), 2.0 * _cube()[..., ::2])
    assert sum(calls) == 7


@pytest.mark.parametrize("threads", [1, 3])
def test_a_small_cube_in_memory_is_computed_at_once(threads):
    backend = CpuBackend(threads)
    backend.at_once_bytes = 7 * 3 * 3 * 4
    function = lambda block, other: (block[..., ::2] * 2.0).astype(np.float32)  # noqa: E731
    cube = backend.map_cube(function, [_cube(), None], dtype=np.float32, n_channels=3)
    assert type(cube) is np.ndarray
    assert cube.dtype == np.float32
    np.testing.assert_array_equal(cube, 2.0 * _cube()[..., ::2])
    lazy = da.from_array(_cube(), chunks=(3, 3, 5))
    assert isinstance(backend.map_cube(function, [lazy, None], dtype=np.float32, n_channels=3), da.Array)
    backend.at_once_bytes -= 1
    assert isinstance(backend.map_cube(function, [_cube(), None], dtype=np.float32, n_channels=3), da.Array)


def test_blocks_hold_whole_rows_of_dask_input():
    shapes = set()

    def function(block):
        shapes.add(block.shape[1:])
        return block

    given = da.from_array(_cube(), chunks=(3, 2, 2))
    result = CpuBackend(2).map_cube(function, [given], dtype=float).compute(scheduler="threads")
    np.testing.assert_array_equal(result, _cube())
    assert shapes == {(3, 5)}


def test_blocks_stay_small(monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_BYTES", 2 * 3 * 5 * 8)
    sizes = CpuBackend(1).map_rows(lambda first, block: len(block), [_cube()])
    assert sizes == [2, 2, 2, 1]


def test_no_chunk_of_a_file_is_read_twice():
    read = []

    def chunk(block_info=None):
        (low, high), *_ = block_info[None]["array-location"]
        read.append(low)
        return _cube(rows=61)[low:high]

    lazy = da.map_blocks(chunk, chunks=((7,) * 8 + (5,), (3,), (5,)), dtype=float, meta=np.empty((0, 0, 0)))
    backend = CpuBackend(2)
    backend.block_bytes = 4 * 3 * 5 * 8  # a chunk is almost two blocks
    sizes = backend.map_rows(lambda first, block: len(block), [lazy])
    assert sizes == [7] * 8 + [5]
    assert sorted(read) == list(range(0, 61, 7))
    backend.block_bytes = 3 * 3 * 5 * 8  # and now more: memory goes before reading once
    assert max(backend.map_rows(lambda first, block: len(block), [lazy])) == 3
    backend.block_bytes = 20 * 3 * 5 * 8
    assert backend.map_rows(lambda first, block: len(block), [lazy]) == [14] * 4 + [5]


def test_few_chunks_leave_no_thread_without_work():
    given = da.from_array(_cube(rows=61), chunks=(61, 3, 5))
    assert len(CpuBackend(4).map_rows(lambda first, block: len(block), [given])) == 4


def test_error_of_a_block_is_not_swallowed():
    def fail(first, block):
        raise ValueError("no such spectrum")

    with pytest.raises(ValueError, match="no such spectrum"):
        CpuBackend(2).map_rows(fail, [_cube()])


def test_after_an_error_no_block_is_begun_that_waits():
    begun = []

    def fail(first, block):
        begun.append(first)
        time.sleep(0.01)
        raise ValueError("no such spectrum")

    backend = CpuBackend(2)
    backend.block_bytes = 1
    with pytest.raises(ValueError, match="no such spectrum"):
        backend.map_rows(fail, [_cube(rows=100)])
    assert len(begun) <= 2 * backend.blocks_at_once


def test_a_slow_block_holds_up_no_other():
    """While the first of two threads works on the first block, the second does all others that may wait for it."""
    others = threading.Event()
    done = []

    def function(first, block):
        if first == 0:
            assert others.wait(timeout=30.0)
        else:
            done.append(first)
            if len(done) == 3:
                others.set()
        return first

    backend = CpuBackend(2)
    backend.block_bytes = 1
    assert backend.map_rows(function, [_cube()]) == list(range(7))
