"""One writer at a time: advisory locks that the operating system lets go when a process dies, however it dies.

Locks say nothing across some network disks, and a job that its scheduler believes dead may still be running. So every
writer also leaves a token, the *attempt*; the newest token wins, and a writer whose token was replaced may not put a
result in place any more (`Fence`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from phonon_eels.errors import OutputError
from phonon_eels.io.atomic import output_error

log = logging.getLogger(__name__)


class Fence:
    """Says whether this process may still put results of a dataset in place.

    Parameters
    ----------
    folder
        Folder of the dataset.
    expected
        Name of a token file → what it must hold ("" where it must not be there); others must be as they are now.
    """

    def __init__(self, folder: Path, expected: Mapping[str, str]) -> None:
        self._folder = folder
        now = {path.name: _text(path) for path in folder.glob(".*attempt")}
        self._expected = {**now, **expected}

    def check(self, step: str) -> None:
        """Refuse to go on if a newer attempt writes this step.

        Raises
        ------
        OutputError
            If one does; what this process made is given up, the newer attempt makes the same.
        """
        for name in (".attempt", f".{step}.attempt"):
            found = _text(self._folder / name)
            if found != self._expected.get(name, ""):
                raise OutputError(
                    f"{self._folder / step}: a newer attempt has taken over ({found or 'unknown'}); this one stops and "
                    f"leaves its result out: nothing is to be done"
                )


@contextmanager
def lock_dataset(folder: Path, take_over: bool = False) -> Iterator[Fence]:
    """Hold a dataset's folder for a whole run; neither a run nor a single step can write there meanwhile.

    Parameters
    ----------
    take_over
        Go on although somebody else holds it, who then can put no more results in place. For schedulers, whose lost
        jobs may go on writing.

    Raises
    ------
    OutputError
        If somebody else holds it, or the folder cannot be made.
    """
    with _lock(folder, ".lock", fcntl.LOCK_EX, take_over):
        yield _attempt(folder, ".attempt")


@contextmanager
def lock_step(folder: Path, step: str, take_over: bool = False) -> Iterator[Fence]:
    """Hold one step of a dataset; other steps of it may be written at the same time by other processes.

    Parameters
    ----------
    take_over
        As for `lock_dataset`.

    Raises
    ------
    OutputError
        If somebody else holds the step or the whole dataset, or the folder cannot be made.
    """
    shared = _lock(folder, ".lock", fcntl.LOCK_SH, take_over)
    with shared, _lock(folder, f".{step}.lock", fcntl.LOCK_EX, take_over):
        yield _attempt(folder, f".{step}.attempt")


def _attempt(folder: Path, name: str) -> Fence:
    """Leave a new token and return the fence that watches it."""
    job = os.environ.get("SLURM_JOB_ID")
    token = f"{uuid.uuid4().hex} process {os.getpid()} on {socket.gethostname()}{f', SLURM job {job}' if job else ''}"
    fresh = folder / f"{name}-{token[:32]}"
    try:
        fresh.write_text(token, encoding="utf-8")
        os.replace(fresh, folder / name)
    except OSError as problem:
        raise output_error(folder, problem) from problem
    return Fence(folder, {name: token})


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


@contextmanager
def _lock(folder: Path, name: str, kind: int, take_over: bool) -> Iterator[None]:
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        raise output_error(folder, problem) from problem
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            holder = path.read_text("utf-8", errors="replace").strip() or "unknown"
            if not take_over:
                raise OutputError(
                    f"{folder}: another phonon-eels writes there ({holder}); wait until it ends, give another "
                    f"--dataset or --output, or --take-over if it is a lost job that still runs"
                ) from problem
            log.warning("%s: taken over from %s, which can put no more results in place", folder, holder)
        if kind == fcntl.LOCK_EX:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        # The file stays: removing it would let a third process lock a new file of the same name beside a second one.
        os.close(descriptor)
