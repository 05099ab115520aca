"""What is sent to workers and how a scan is cut for them; without any worker. tests/workflow/test_workers.py has them."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
import zarr

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.workers.backend import WorkersBackend, _map_rows, _store_rows
from phonon_eels.backends.workers.connect import _slurm_cluster, workers_backend
from phonon_eels.backends.workers.one_gpu import choose_device, one_gpu_each
from phonon_eels.backends.workers.payload import pack, unpack
from phonon_eels.cli.options import computing
from phonon_eels.errors import ConfigError, DeviceError
from phonon_eels.kernels.elementary import exp_array


def backend(workers: int = 8, memory_limit: int = 8_000_000_000) -> WorkersBackend:
    entry = {"nthreads": 1, "memory_limit": memory_limit}
    client: Any = SimpleNamespace(scheduler_info=lambda **_: {"workers": {str(n): entry for n in range(workers)}})
    return WorkersBackend(client)


class TestPayload:
    def test_kernels_travel_by_name(self) -> None:
        factor = np.arange(3.0)

        def scaled(x: np.ndarray) -> np.ndarray:
            found = np.empty_like(x)
            exp_array(x, found, np.empty(x.size, np.int64))
            return found * factor

        payload = pack(scaled)
        (function,) = unpack(payload)
        assert function.__globals__["exp_array"] is exp_array
        assert np.allclose(function(np.zeros(3)), factor)
        assert len(payload) < 5_000

    def test_arrays_on_disk_travel_as_their_place(self, tmp_path: Path) -> None:
        values = np.arange(600_000.0).reshape(100, 60, 100)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("counts", data=values, chunks=(10, 60, 100))
        stored = zarr.open(str(tmp_path / "b.zarr"), mode="w", shape=values.shape, chunks=(10, 60, 100))
        stored[:] = values
        values.astype("<f8").tofile(tmp_path / "c.raw")
        mapped = np.memmap(tmp_path / "c.raw", dtype="<f8", mode="r", shape=values.shape)
        with h5py.File(tmp_path / "a.h5", "r") as file:
            sources = [da.from_array(x, chunks=(10, 60, 100)) for x in (file["counts"], stored)] + [mapped]
            payload = pack(*sources)
        assert len(payload) < 20_000
        for source in unpack(payload):
            assert np.array_equal(np.asarray(source[33:47]), values[33:47])

    def test_same_payload_is_unpacked_once(self) -> None:
        payload = pack([1, 2])
        assert unpack(payload)[0] is unpack(bytes(bytearray(payload)))[0]


class TestBlocks:
    @pytest.mark.parametrize(
        "shape", [(4_096, 61_035, 1_024), (65_536, 3_815, 1_024), (977, 1_000_000, 256), (500_000, 500, 1_000)]
    )
    def test_a_terabyte_has_less_than_20_000_tasks(self, shape: tuple[int, ...]) -> None:
        assert 0.95e12 < 4.0 * np.prod([float(size) for size in shape]) < 1.05e12
        array = SimpleNamespace(shape=shape, chunks=((2,) * (shape[0] // 2),))
        assert len(backend(64)._row_edges(array)) - 1 < 20_000

    def test_blocks_end_where_chunks_end(self) -> None:
        array = SimpleNamespace(shape=(1_000, 64, 512), chunks=((7,) * 142 + (6,),))
        edges = backend(8)._row_edges(array)
        assert edges[0] == 0
        assert edges[-1] == 1_000
        assert all(edge % 7 == 0 for edge in edges[:-1])
        assert len(edges) - 1 >= 8

    def test_little_memory_makes_small_blocks(self) -> None:
        assert backend(8, 1_000_000_000).block_bytes == pytest.approx(1e9 / 24, rel=1e-6)
        assert backend(8, 1_000_000).block_bytes == 16_000_000

    def test_tasks_give_what_threads_give(self, tmp_path: Path) -> None:
        """The task functions in this process, block by block, against the threads."""
        counts = da.from_array(np.random.default_rng(5).random((23, 4, 6)).astype(np.float32), chunks=(5, 4, 6))
        weight = np.arange(23.0 * 4).reshape(23, 4)

        def sums(first: int, block: np.ndarray, part: np.ndarray, nothing: None) -> tuple[int, np.ndarray]:
            assert nothing is None
            return first, block.sum(axis=2) * part

        many = backend(3)
        edges = many._row_edges(counts)
        payload = pack(sums, (counts, weight, None))
        found = [_map_rows(payload, low, high) for low, high in pairwise(edges)]
        wanted = CpuBackend(2).map_rows(sums, [counts, weight, None])
        assert np.array_equal(np.concatenate([x for _, x in found]), np.concatenate([x for _, x in wanted]))

        lazy = many.map_cube(lambda block: 2 * block, [counts], dtype=np.float32)
        target = zarr.open(str(tmp_path / "t.zarr"), mode="w", shape=(23, 4, 6), chunks=(2, 4, 6), dtype="f4")
        edges = many._row_edges(lazy, unit=2)
        payload = pack((lazy,), (target,))
        for low, high in pairwise(edges):
            _store_rows(payload, low, high)
        assert np.array_equal(target[:], 2 * counts.compute())

    def test_on_a_worker_the_backend_is_one_thread(self) -> None:
        (found,) = unpack(pack(backend(5)))
        assert type(found) is CpuBackend
        assert found.threads == 1


def options(**given: Any) -> argparse.Namespace:
    unset = dict.fromkeys(("scheduler", "workers", "cluster", "worker_memory"))
    return argparse.Namespace(**{**unset, "device": "cpu", "threads": 1, **given})


class TestOptions:
    def test_none_of_them_is_this_process(self) -> None:
        with computing(options()) as found:
            assert type(found) is CpuBackend

    def test_a_scheduler_has_its_workers(self) -> None:
        with (
            pytest.raises(ConfigError, match="its workers are there already"),
            computing(options(scheduler="tcp://a:1", workers=2)),
        ):
            pass

    def test_scheduler_that_is_not_there(self) -> None:
        address = "tcp://127.0.0.1:9"
        with (
            pytest.raises(DeviceError, match=r"--scheduler tcp://127\.0\.0\.1:9: no dask scheduler"),
            workers_backend(scheduler=address),
        ):
            pass
        with pytest.raises(DeviceError, match="--scheduler nonsense"), workers_backend(scheduler="nonsense"):
            pass


class TestGpus:
    """One for each worker; without any device only what is asked for can be seen."""

    def test_no_device_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("phonon_eels.backends.cuda.find.why_no_cuda", lambda: "no CUDA device was found")
        with (
            pytest.raises(DeviceError, match="device = cuda: no CUDA device was found"),
            computing(options(workers=2, device="cuda")),
        ):
            pass

    def test_kernels_go_to_the_device_or_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("phonon_eels.backends.cuda.backend.why_no_cuda", lambda: "no CUDA device was found")
        client: Any = SimpleNamespace(scheduler_info=lambda **_: {"workers": {}})
        many = WorkersBackend(client, "cuda")
        assert many.name == "cuda"
        kind, words = many.__reduce__()
        assert (kind.__name__, words) == ("CudaBackend", (1,))
        with pytest.raises(DeviceError, match="device = cuda: no CUDA device was found"):
            many.run(exp_array, np.zeros(3), np.zeros(3), np.zeros(3, np.int64))

    @pytest.mark.parametrize(
        ("given", "seen"), [(None, ["0", "1", "2", "0"]), ("5", ["5"] * 4), ("4,6", ["4", "6", "4", "6"])]
    )
    def test_they_are_dealt_out_in_turn(
        self, monkeypatch: pytest.MonkeyPatch, given: str | None, seen: list[str]
    ) -> None:
        found = []
        for number in range(4):
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            if given is not None:
                monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
            choose_device(number, 3)
            found.append(os.environ["CUDA_VISIBLE_DEVICES"])
        assert found == seen

    def test_workers_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        one_gpu_each(2).setup(SimpleNamespace(name=3))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"

    @pytest.mark.slow
    def test_a_scan_on_workers_with_simulated_devices(self, repository: Path, tmp_path: Path) -> None:
        """The whole way of ``--device cuda --workers 3`` on a machine with two devices, which are Numba's simulator."""
        out = tmp_path / "told.json"
        environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(repository)}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        command = [sys.executable, "-W", "ignore", "-m", "tests.unit.backends.simulated_gpus", str(out)]
        done = subprocess.run(command, check=False, env=environment, cwd=repository, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads(out.read_text())
        assert told["first"] == {"0": "0", "1": "1", "2": "0"}
        assert told["again"] == told["first"], "a worker that is started again has its device again"
        assert told["kinds"] == ["CudaBackend"]
        assert set(told["seen"]) <= {"0", "1"}
        assert told["n_blocks"] >= 3
        assert told["off"] < 1e-12
        assert [words for words in told["said"] if "3 workers share 2 CUDA devices" in words]

    @pytest.mark.parametrize(("device", "asked"), [("cpu", False), ("cuda", True)])
    def test_a_job_of_slurm_asks_for_one(self, device: str, asked: bool) -> None:
        pytest.importorskip("dask_jobqueue")
        with _slurm_cluster(0, "4GB", 2, device) as cluster:
            script = cluster.job_script()
        assert ("#SBATCH --gres=gpu:1" in script) is asked
        assert "#SBATCH --cpus-per-task=2" in script
