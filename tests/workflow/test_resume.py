"""A run that is killed with SIGKILL anywhere, and started again, ends with the same results as an undisturbed one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material, load_settings, load_simulation
from phonon_eels.pipeline import run
from phonon_eels.provenance import array_digest
from phonon_eels.simulate import simulate, write_simulation

# Kills its own process at a chosen moment of a chosen step: no handler, no `finally`, no flushing.
KILLED = """
import functools, os, signal, sys
import phonon_eels.io.atomic as atomic, phonon_eels.io.results as results, phonon_eels.pipeline.execute as execute
step, moment, *words = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "computing":
    load = execute.find_step
    def find_step(name):
        entry = load(name)
        if name == step:
            object.__setattr__(entry, "load", lambda: type("S", (), {"run": staticmethod(die)}))
        return entry
    execute.find_step = find_step
elif moment == "half written":
    summary = results.write_summary
    def half(result, path, name, made=None):
        return die() if name == step else summary(result, path, name, made)
    results.write_summary = half
elif moment == "old aside":
    rename = os.rename
    def aside(source, target):
        rename(source, target)
        if f".{step}.old-" in str(target):
            die()
    os.rename = aside
elif moment == "in place":
    swap = atomic._swap
    atomic._swap = lambda new, target: (swap(new, target), target.name == step and die())
from phonon_eels.cli import main
sys.exit(main(words))
"""


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated scan."""
    path = tmp_path_factory.mktemp("scan") / "scan.hspy"
    sizes = ["scan.rows=36", "scan.columns=10", "seed=3"]
    write_simulation(simulate(load_simulation(overrides=sizes), load_material("bi2212")), path)
    return path


@pytest.fixture(scope="module")
def undisturbed(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Names and array bytes of a run without trouble."""
    return results_of(scan, tmp_path_factory.mktemp("undisturbed"))


def results_of(scan: Path, output: Path, threads: int = 1, *overrides: str) -> dict[str, str]:
    """Run here; return names and array bytes of everything."""
    run(scan, output, load_settings(overrides=overrides), backend=CpuBackend(threads))
    return array_digest(output / "scan")


def kill(scan: Path, output: Path, step: str, moment: str, *words: str) -> None:
    """Run in a process that kills itself."""
    command = [sys.executable, "-c", KILLED, step, moment, "run", str(scan), "--output", str(output), "--threads", "1"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def finished(output: Path, step: str) -> bool:
    return (output / "scan" / step / "summary.json").is_file()


def test_killed_while_writing_a_cube(scan: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    kill(scan, tmp_path, "ingest", "half written")
    assert not finished(tmp_path, "ingest")
    assert results_of(scan, tmp_path) == undisturbed
    assert not list((tmp_path / "scan").glob(".*.tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        ("remove_spikes", "half written"),
        ("align_zlp", "computing"),
        ("fit_peaks", "half written"),
        ("map_superstructure", "in place"),
        ("report", "half written"),
    ],
)
def test_killed_in_a_step(scan: Path, undisturbed: dict[str, str], tmp_path: Path, step: str, moment: str) -> None:
    kill(scan, tmp_path, step, moment)
    assert finished(tmp_path, step) is (moment == "in place")
    assert not (tmp_path / "scan" / "summary.json").exists()
    assert results_of(scan, tmp_path) == undisturbed


@pytest.mark.slow
def test_killed_while_an_old_result_is_replaced(scan: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    results_of(scan, tmp_path, 1, "align_zlp.line_shape=gaussian")
    kill(scan, tmp_path, "align_zlp", "old aside")
    assert not (tmp_path / "scan" / "align_zlp").exists()
    assert results_of(scan, tmp_path) == undisturbed
    assert not list((tmp_path / "scan").glob(".*.old-*"))


@pytest.mark.slow
def test_killed_at_any_time_from_outside(scan: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """Three processes, each killed as soon as it has finished one more step than the last."""
    for step in ("ingest", "align_zlp", "assign_layers"):
        command = [sys.executable, "-m", "phonon_eels", "run", str(scan), "--output", str(tmp_path), "--threads", "1"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"{step}: done"):
                break
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert results_of(scan, tmp_path) == undisturbed


VARIANTS: list[tuple[str, Callable[[Path, Path], dict[str, str]]]] = [
    ("two threads", lambda scan, output: results_of(scan, output, 2)),
    ("small chunks", lambda scan, output: results_of(scan, output, 1, "ingest.chunk_megabytes=0.02")),
    ("small chunks, two threads", lambda scan, output: results_of(scan, output, 2, "ingest.chunk_megabytes=0.05")),
]


@pytest.mark.parametrize("variant", [function for _, function in VARIANTS], ids=[name for name, _ in VARIANTS])
def test_chunks_and_threads_change_nothing(
    scan: Path, undisturbed: dict[str, str], tmp_path: Path, variant: Callable[[Path, Path], dict[str, str]]
) -> None:
    assert variant(scan, tmp_path) == undisturbed


def test_something_was_compared(undisturbed: dict[str, str]) -> None:
    names = set(undisturbed)
    assert {"summary.json", "ingest/image.zspy:Experiments/scan/data"} <= {*names, *map(str, names)} or names
    assert any(name.startswith("fit_peaks/maps.nc:") for name in names)
    assert json.dumps(sorted(names))
