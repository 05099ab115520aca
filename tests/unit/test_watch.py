"""What a watched folder adds to the table of datasets, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
import yaml

from phonon_eels.config import load_material, load_simulation
from phonon_eels.errors import ConfigError, InputFileError, OutputError
from phonon_eels.pipeline import read_datasets
from phonon_eels.pipeline.watch import Watcher, find_snakefile, free_name, only_watcher, table_of, watch, why_unreadable
from phonon_eels.simulate import simulate, write_simulation


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "scan.hspy"
    sizes = ["scan.rows=8", "scan.columns=6", "energy.channels=200"]
    write_simulation(simulate(load_simulation(overrides=sizes), load_material("bi2212")), path)
    return path


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(tmp_path: Path, clock: Clock) -> Watcher:
    (tmp_path / "in").mkdir()
    return Watcher(tmp_path / "in", tmp_path / "datasets.tsv", settle_s=5.0, clock=clock)


def looks(watcher: Watcher, clock: Clock, times: int = 3) -> list[str]:
    """Look several times, three seconds apart; return the names that were added."""
    added = []
    for _ in range(times):
        added += [dataset.name for dataset in watcher.step()]
        clock.now += 3.0
    return added


def test_a_whole_file_is_added_once(watcher: Watcher, clock: Clock, whole: Path) -> None:
    shutil.copyfile(whole, watcher.folder / "my scan.hspy")
    assert looks(watcher, clock, 2) == []
    assert looks(watcher, clock) == ["my_scan"]
    assert looks(watcher, clock, 5) == []
    (row,) = read_datasets(watcher.table)
    assert row.path == watcher.folder / "my scan.hspy"


def test_after_a_restart_nothing_is_added_again(watcher: Watcher, clock: Clock, whole: Path) -> None:
    shutil.copyfile(whole, watcher.folder / "one.hspy")
    assert looks(watcher, clock) == ["one"]
    again = Watcher(watcher.folder, watcher.table, settle_s=5.0, clock=clock)
    shutil.copyfile(whole, watcher.folder / "two.hspy")
    assert looks(again, clock, 4) == ["two"]
    # A file that is written anew is the same dataset: what runs again is the workflow's to decide.
    os.utime(watcher.folder / "one.hspy")
    assert looks(again, clock, 4) == []


def test_half_written_ones_wait(watcher: Watcher, clock: Clock, whole: Path) -> None:
    content, path = whole.read_bytes(), watcher.folder / "slow.hspy"
    for part in range(1, 5):
        path.write_bytes(content[: part * len(content) // 5])
        assert looks(watcher, clock, 1) == []
    # It pauses, long enough to look finished: it cannot be read to the end.
    assert looks(watcher, clock, 6) == []
    path.write_bytes(content)
    assert looks(watcher, clock, 4) == ["slow"]


def test_damage_in_the_last_chunk_is_seen(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "scan.hspy"
    shutil.copyfile(whole, path)
    assert why_unreadable(path) is None
    with h5py.File(path, "r") as file:
        data = next(iter(file["Experiments"].values()))["data"]
        chunk = data.id.get_chunk_info(data.id.get_num_chunks() - 1)
        offset, size = chunk.byte_offset, chunk.size
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    assert "cannot be read to the end" in str(why_unreadable(path))


def test_what_is_no_acquisition_is_left_alone(watcher: Watcher, clock: Clock, whole: Path) -> None:
    for name in ("notes.txt", ".hidden.hspy", "~scan.hspy", "scan.hspy.part"):
        shutil.copyfile(whole, watcher.folder / name)
    (watcher.folder / ".cache").mkdir()
    shutil.copyfile(whole, watcher.folder / ".cache" / "scan.hspy")
    assert looks(watcher, clock, 4) == []
    assert not watcher.table.exists()


def test_files_of_one_name_in_two_folders_get_two(watcher: Watcher, clock: Clock, whole: Path) -> None:
    for folder in ("mon", "tue"):
        (watcher.folder / folder).mkdir()
        shutil.copyfile(whole, watcher.folder / folder / "scan.hspy")
    shutil.copyfile(whole, watcher.folder / "mon_scan.hspy")
    assert sorted(looks(watcher, clock, 4)) == ["mon_scan", "mon_scan-2", "tue_scan"]
    assert free_name(Path("in/ü.hspy"), Path("in"), set()) == "scan"


def test_loop_runs_what_was_left_then_what_is_new(watcher: Watcher, clock: Clock, whole: Path) -> None:
    shutil.copyfile(whole, watcher.folder / "one.hspy")
    runs: list[int] = []

    def run() -> int:
        runs.append(len(read_datasets(watcher.table)))
        return 1  # a failed dataset does not end the watch

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now == 20.0:
            shutil.copyfile(whole, watcher.folder / "two.hspy")

    watch(watcher, run, every_s=10.0, stop=lambda: clock.now > 60.0, sleep=sleep)
    assert runs == [1, 2]
    watch(watcher, run, every_s=10.0, stop=lambda: True, sleep=sleep)
    assert runs == [1, 2, 2]


def test_only_one_watcher(watcher: Watcher) -> None:
    with (
        only_watcher(watcher.table),
        pytest.raises(OutputError, match="another `phonon-eels watch`"),
        only_watcher(watcher.table),
    ):
        pass


def test_wrong_words(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="give the one that acquisitions are written into"):
        Watcher(tmp_path / "gone", tmp_path / "t.tsv").step()
    with pytest.raises(ConfigError, match="names no table of datasets"):
        table_of({}, Path("config.yaml"))
    with pytest.raises(ConfigError, match="there is no Snakefile"):
        find_snakefile(tmp_path / "Snakefile")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_cleanly(tmp_path: Path, repository: Path, number: signal.Signals) -> None:
    (tmp_path / "in").mkdir()
    config = {"datasets": "datasets.tsv", "results": "results"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["watch", "in", "--config", "config.yaml", "--settle", "0.2", "--every", "0.2", "--debug"]
    process = subprocess.Popen(
        [sys.executable, "-m", "phonon_eels", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / ".datasets.tsv.watch").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert not (tmp_path / "datasets.tsv").exists()
