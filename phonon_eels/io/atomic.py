"""Results that are either whole or not there: written under a temporary name, flushed to disk, then renamed.

A folder cannot be exchanged in one system call everywhere, so it goes old aside, new in place, old away; `recover`
mends the one gap in between. A killed run may leave no result, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from phonon_eels.errors import InputFileError, OutputError

_FOREIGN_LEFTOVER_AGE_S = 86_400.0
_EXCHANGE_TRIES = 100


@contextlib.contextmanager
def staged(target: Path, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Give a temporary sibling folder to write into; it becomes `target` when the block ends without an error.

    Parameters
    ----------
    target
        Folder that the result shall have; an older one is replaced.
    check
        Called last before the exchange; raises if it must not take place.

    Raises
    ------
    OutputError
        If the folder cannot be written (no permission, disk full). Nothing of the new result is left then.
    """
    target = Path(target)
    with said_plainly(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target.parent)
        temporary = target.parent / f".{target.name}.tmp-{_owner()}"
        temporary.mkdir()
    try:
        yield temporary
        with said_plainly(target):
            flush_tree(temporary)
            if check is not None:
                check()
            _swap(temporary, target)
    except OSError as problem:
        raise output_error(target, problem) from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Give a temporary sibling path for one file; it becomes `target` when the block ends without an error.

    Raises
    ------
    OutputError
        As `staged`.
    """
    target = Path(target)
    temporary = target.parent / f".{target.stem}.tmp-{_owner()}{target.suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as problem:
        raise output_error(target, problem) from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def recover(folder: Path) -> list[str]:
    """Mend what an interrupted run left in a folder; returns a sentence for each thing done.

    A result set aside comes back where its successor never arrived; temporary folders of processes that
    are gone are removed. Those of living processes, and young ones of other machines, are left alone.
    """
    folder = Path(folder)
    done: list[str] = []
    if not folder.is_dir():
        return done
    for path in sorted(folder.glob(".*.old-*")):
        target = folder / _leftover(path)[0]
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        elif _abandoned(path):
            os.rename(path, target)
            done.append(f"{target}: an interrupted exchange was undone, the earlier result is back")
    for path in sorted(folder.glob(".*.tmp-*")):
        if path.is_dir() and _abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
            done.append(f"{path}: left by a run that was stopped, removed")
    return done


def output_error(target: Path, problem: OSError) -> OutputError | InputFileError:
    """Return what to tell the user about a file-system error.

    Results are computed while they are written, so a lazily read input may fail here too; HDF5 says "read" then.
    """
    if problem.errno is None and "read" in str(problem) and "write" not in str(problem):
        return InputFileError(
            f"the spectra could not be read to the end while {target} was made ({problem}); "
            f"the file is damaged or went away: copy it again and repeat the step"
        )
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        cure = "the disk (or your quota) is full: free some space or choose another results folder"
    elif problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cure = "the folder may not be written: choose another results folder or ask for permission"
    elif problem.errno in (errno.ENOTDIR, errno.EEXIST):
        cure = "a file stands where a folder is needed: move it away or choose another results folder"
    else:
        cure = "choose another results folder"
    return OutputError(f"cannot write {target}: {problem.strerror or problem}; {cure}")


@contextlib.contextmanager
def said_plainly(target: Path) -> Iterator[None]:
    """Turn file-system errors of a block into `OutputError`."""
    try:
        yield
    except OSError as problem:
        raise output_error(target, problem) from problem


def flush_tree(folder: Path) -> None:
    """Make sure that every file of a folder is on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            _flush(Path(place) / name)
        _flush(Path(place))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as problem:
        # Some file systems cannot flush a folder; its files have been flushed.
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _swap(new: Path, target: Path) -> None:
    aside = target.parent / f".{target.name}.old-{_owner()}"
    for left in reversed(range(_EXCHANGE_TRIES)):
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, aside)
        try:
            os.rename(new, target)
            break
        except OSError as problem:
            # Another writer has put its own result there in between: both are whole, the later one stays.
            if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST) or left == 0:
                raise
    _flush(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _owner() -> str:
    host = re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())
    return f"{host}-{os.getpid()}"


def _leftover(path: Path) -> tuple[str, str, int]:
    """Split `.name.tmp-host-pid` into name, host and pid; an odd name has pid 0."""
    match = re.fullmatch(r"\.(.+)\.(?:tmp|old)-(\w+)-(\d+)", path.name)
    return (match[1], match[2], int(match[3])) if match else (path.name.lstrip("."), "", 0)


def _abandoned(path: Path) -> bool:
    """True if no living process owns a leftover. This process's own cannot be in use while it starts a new one."""
    _, host, pid = _leftover(path)
    if pid == 0:
        return False
    if host != _owner().rpartition("-")[0]:
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _FOREIGN_LEFTOVER_AGE_S
        return False
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
