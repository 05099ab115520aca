"""One scan on many workers: the results of threads bit for bit, also when workers are killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phonon_eels.provenance import array_digest
from tests.workflow.batch_files import scan
from tests.workflow.large_counts import write_large_counts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
QUICK = ("--set", "report.figure_formats=[png]", "--set", "report.dpi=50")
FORWARD = ()
CLASSIC = ("--recipe", "pku2021", "--set", "denoise.method=pca")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan")
    scan(path / "one.hspy", 6)
    scan(path / "frames.hspy", 7, "scan.frames=2")
    return path


def run(repository: Path, folder: Path, file: str, output: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "phonon_eels", "run", str(folder / file), "--output", str(output), *QUICK, *words]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:]
    return said


@pytest.mark.parametrize(("file", "words"), [("frames", FORWARD), ("one", CLASSIC)], ids=["forward", "classic"])
def test_results_of_threads_bit_for_bit(
    repository: Path, folder: Path, tmp_path: Path, file: str, words: tuple[str, ...]
) -> None:
    finish(run(repository, folder, f"{file}.hspy", tmp_path / "threads", "--threads", "1", *words))
    finish(run(repository, folder, f"{file}.hspy", tmp_path / "workers", "--workers", "3", *words))
    assert array_digest(tmp_path / "workers" / file) == array_digest(tmp_path / "threads" / file)


def worker_processes(parent: int) -> list[int]:
    """Return the worker processes of a local cluster: grandchildren that Dask's nannies started."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            process, _, rest = place.read_text().partition(" ")
            if int(rest.rpartition(")")[2].split()[1]) == parent:
                line = (place.parent / "cmdline").read_bytes()
                if b"spawn_main" in line or b"forkserver" in line:
                    found.append(int(process))
    return found


def during(step: Path, process: subprocess.Popen[str], act: Callable[[], None]) -> threading.Thread:
    """Do something when a step has begun."""

    def wait() -> None:
        while not step.exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_killed_in_the_middle_of_a_fit_changes_nothing(
    repository: Path, folder: Path, tmp_path: Path, workers: int
) -> None:
    finish(run(repository, folder, "one.hspy", tmp_path / "threads", "--threads", "1"))
    process = run(repository, folder, "one.hspy", tmp_path / "workers", "--workers", str(workers))
    killed: list[int] = []

    def kill() -> None:
        victims = worker_processes(process.pid)
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        killed.append(victims[0])

    thread = during(tmp_path / "workers" / "one" / "logs" / "fit_peaks.json", process, kill)
    finish(process)
    thread.join()
    assert killed
    assert array_digest(tmp_path / "workers" / "one") == array_digest(tmp_path / "threads" / "one")


def test_an_unreachable_scheduler_is_said_within_half_a_minute(repository: Path, folder: Path, tmp_path: Path) -> None:
    # An address that swallows packets instead of refusing them (TEST-NET-1).
    process = run(repository, folder, "one.hspy", tmp_path, "--scheduler", "tcp://192.0.2.1:8786")
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "error: --scheduler tcp://192.0.2.1:8786: no dask scheduler with a worker answers" in said
    # The promise, with room for the start of Python on a busy machine.
    assert time.monotonic() - began < 60
    assert not (tmp_path / "one").exists()


def most_memory(process: subprocess.Popen[str]) -> dict[int, int]:
    """Return worker process → the most memory that it ever held, as Linux notes it, in bytes; waits for the end."""
    most: dict[int, int] = {}
    while process.poll() is None:
        for worker in worker_processes(process.pid):
            with contextlib.suppress(OSError, IndexError):
                mark = (Path("/proc") / str(worker) / "status").read_text().split("VmHWM:")[1].split()[0]
                most[worker] = 1024 * int(mark)
        time.sleep(0.05)
    return most


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is measured as Linux tells it")
def test_a_worker_of_one_gigabyte_never_exceeds_it_on_a_cube_of_four(repository: Path, tmp_path: Path) -> None:
    # Half a million positions of 4096 channels, 2 bytes each.
    file = write_large_counts(tmp_path / "large.ndata1", 512, 1024, 4096)
    assert file.stat().st_size > 4e9
    bounded = ["--workers", "2", "--worker-memory", "1GB"]
    for step in (["ingest", str(file), *bounded], ["register_frames"], ["remove_spikes"], ["align_zlp", *bounded]):
        command = [sys.executable, "-m", "phonon_eels", *step, "--dataset-folder", str(tmp_path / "large")]
        command += ["--set", "register_frames.enabled=false", "--set", "remove_spikes.enabled=false"]
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        log = tmp_path / "said.log"
        with log.open("w") as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
            most = most_memory(process)
        assert process.returncode == 0, log.read_text("utf-8")[-3000:]
        print(step, most)
        if "--workers" in step:
            # Two processes from the beginning to the end: none was ended for its memory and replaced.
            assert len(most) == 2
            assert max(most.values()) < 1e9
    shutil.rmtree(tmp_path)  # pytest would keep the gigabytes for three sessions
