"""One writer at a time: advisory locks that the operating system lets go when a process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phonon_eels.errors import OutputError
from phonon_eels.io.atomic import output_error


@contextmanager
def lock_dataset(folder: Path) -> Iterator[None]:
    """Hold a dataset's folder for a whole run; neither a run nor a single step can write there meanwhile.

    Raises
    ------
    OutputError
        If somebody else holds it, or the folder cannot be made.
    """
    with _lock(folder, ".lock", fcntl.LOCK_EX):
        yield


@contextmanager
def lock_step(folder: Path, step: str) -> Iterator[None]:
    """Hold one step of a dataset; other steps of it may be written at the same time by other processes.

    Raises
    ------
    OutputError
        If somebody else holds the step or the whole dataset, or the folder cannot be made.
    """
    with _lock(folder, ".lock", fcntl.LOCK_SH), _lock(folder, f".{step}.lock", fcntl.LOCK_EX):
        yield


@contextmanager
def _lock(folder: Path, name: str, kind: int) -> Iterator[None]:
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
            raise OutputError(
                f"{folder}: another phonon-eels writes there ({holder}); wait until it ends, or give another "
                f"--dataset or --output"
            ) from problem
        if kind == fcntl.LOCK_EX:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        # The file stays: removing it would let a third process lock a new file of the same name beside a second one.
        os.close(descriptor)
