"""Watch a folder: whatever is acquired into it joins the table of datasets once it is whole, and the workflow runs.

The table is the memory: a file that stands in it is never added again, so a watcher that was stopped or killed goes on
where it was. A file is whole when its size and time have stayed the same for a while and it can be read to its end.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phonon_eels.errors import ConfigError, InputFileError, OutputError, PhononEELSError
from phonon_eels.pipeline.datasets import MAX_NAME_LENGTH, Dataset, append_dataset, read_rows

log = logging.getLogger(__name__)


@dataclass
class _Seen:
    """What was seen of a file: its size and time, since when, and why it could not be read at that size."""

    state: tuple[int, int]
    since: float
    problem: str | None = None


@dataclass
class Watcher:
    """Adds whole files of a folder to a table of datasets.

    Attributes
    ----------
    folder
        Where acquisitions arrive; its folders are searched too.
    table
        Table of datasets, made where it is missing.
    settle_s
        Seconds for which size and time must stay the same.
    """

    folder: Path
    table: Path
    settle_s: float = 20.0
    clock: Callable[[], float] = time.monotonic
    _seen: dict[Path, _Seen] = field(default_factory=dict)

    def step(self) -> list[Dataset]:
        """Look once; add what is whole to the table and return it.

        Raises
        ------
        InputFileError
            If the table cannot be read, or the folder is gone.
        """
        known = read_rows(self.table) if self.table.exists() else ()
        paths = {row.path.absolute() for row in known} | {row.haadf.absolute() for row in known if row.haadf}
        names = {row.name.lower() for row in known}
        added = []
        for path in acquisitions(self.folder):
            if path.absolute() in paths or not self._is_whole(path):
                continue
            dataset = Dataset(free_name(path, self.folder, names), path, note="added by phonon-eels watch")
            append_dataset(self.table, dataset)
            names.add(dataset.name.lower())
            del self._seen[path]
            added.append(dataset)
        return added

    def _is_whole(self, path: Path) -> bool:
        try:
            state = _state(path)
        except OSError:
            self._seen.pop(path, None)  # it was moved away while we looked
            return False
        seen = self._seen.get(path)
        if seen is None or seen.state != state:
            self._seen[path] = _Seen(state, self.clock())
            return False
        if self.clock() - seen.since < self.settle_s or seen.problem is not None:
            return False
        seen.problem = why_unreadable(path)
        if seen.problem is not None:
            log.warning("%s: not taken while it stays as it is: %s", path, seen.problem)
        return seen.problem is None and _state(path) == state


def acquisitions(folder: Path) -> list[Path]:
    """Return the files (and `.zspy` folders) that may be spectrum images, by name; hidden and temporary ones are not.

    Raises
    ------
    InputFileError
        If the folder is not there.
    """
    from phonon_eels.io.vendor import SUFFIXES

    if not folder.is_dir():
        raise InputFileError(f"{folder}: is no folder; give the one that acquisitions are written into")
    found = []
    for place, folders, names in os.walk(folder):
        cubes = [name for name in folders if name.endswith(".zspy")]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in cubes)
        found += [Path(place) / name for name in [*names, *cubes] if Path(name).suffix.lower() in SUFFIXES]
    return sorted(path for path in found if not path.name.startswith((".", "~")))


def why_unreadable(path: Path) -> str | None:
    """Read a file to its end; return why that does not work, None if it does."""
    from phonon_eels.backends.cpu import CpuBackend
    from phonon_eels.io.vendor import load_signals

    try:
        for signal_ in load_signals(path):
            # A truncated file often opens: only its last blocks are missing.
            CpuBackend(1).map_rows(_touch, [signal_.data])
    except PhononEELSError as problem:
        return " ".join(str(problem).split())
    except (OSError, ValueError, EOFError) as problem:
        return f"it cannot be read to the end ({problem})"
    return None


def free_name(path: Path, folder: Path, taken: set[str]) -> str:
    """Return a name for a file's results that no other dataset has."""
    words = [part for part in (*path.relative_to(folder).parent.parts, path.stem) if part not in (".", "")]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", "_".join(words)).strip("_")[: MAX_NAME_LENGTH - 5] or "scan"
    found, number = name, 2
    while found.lower() in taken:
        found, number = f"{name}-{number}", number + 1
    return found


def watch(
    watcher: Watcher,
    run_workflow: Callable[[], int],
    *,
    every_s: float = 10.0,
    stop: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Look, run the workflow when something was added, and go on until told to stop.

    Parameters
    ----------
    run_workflow
        Runs what is in the table and returns the exit code; also called once at the start, for what an earlier watcher
        left undone.
    every_s
        Seconds between looks.
    stop
        Asked between looks.
    """
    if watcher.table.exists():
        _told(run_workflow())
    while not stop():
        added = watcher.step()
        for dataset in added:
            log.info("%s: is whole, added as %s", dataset.path, dataset.name)
        if added and not stop():
            _told(run_workflow())
        if not stop():
            sleep(every_s)


@contextmanager
def only_watcher(table: Path) -> Iterator[None]:
    """Hold a table, so that no second watcher adds to it.

    Raises
    ------
    OutputError
        If another one does, or the folder cannot be written.
    """
    path = table.with_name(f".{table.name}.watch")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        raise OutputError(f"{path}: cannot be written ({problem.strerror}); choose another --config") from problem
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise OutputError(f"{table}: another `phonon-eels watch` adds to it; stop that one first") from problem
        yield
    finally:
        os.close(descriptor)


class Snakemake:
    """Runs the workflow as a process of its own, which a signal ends too.

    Parameters
    ----------
    snakefile, config
        Of the workflow.
    words
        More words for Snakemake, as ``--profile …``.
    """

    def __init__(self, snakefile: Path, config: Path, words: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--configfile", str(config)]
        # Locks of Snakemake outlive a kill; the watcher holds the table, and results have locks of their own.
        self._command += ["--nolock", "--rerun-incomplete", "--keep-going", *words]
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run it and return its exit code."""
        # In a session of its own: Ctrl-C reaches the watcher, which then ends Snakemake in order.
        self._process = subprocess.Popen(self._command, start_new_session=True)
        try:
            return self._process.wait()
        finally:
            self._process = None

    @property
    def running(self) -> bool:
        """True while it runs."""
        return self._process is not None

    def stop(self) -> None:
        """End it: running steps are broken off and run again next time."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGINT)


def table_of(config: Mapping[str, Any], file: Path) -> Path:
    """Return the table of datasets that a workflow's configuration names.

    Raises
    ------
    ConfigError
        If it names none.
    """
    if not isinstance(config.get("datasets"), str):
        raise ConfigError(f"{file}: names no table of datasets; add the line  datasets: datasets.tsv")
    return Path(config["datasets"])


def find_snakefile(given: Path | None) -> Path:
    """Return the Snakefile: the given one, that of the working folder, or that of the repository.

    Raises
    ------
    ConfigError
        If there is none.
    """
    places = [given] if given is not None else [Path("Snakefile"), Path(__file__).parents[2] / "Snakefile"]
    for place in places:
        if place.is_file():
            return place.absolute()
    raise ConfigError(f"{places[0]}: there is no Snakefile; give the one of the repository with --snakefile")


def _told(code: int) -> None:
    if code:
        log.warning("not every dataset went through (exit code %d): see `phonon-eels status`; watching goes on", code)


def _touch(first_row: int, block: Any) -> None:
    """Do nothing: to be given the block it had to be read."""


def _state(path: Path) -> tuple[int, int]:
    """Return bytes and time of the last change; of a folder those of all its files."""
    files = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)
