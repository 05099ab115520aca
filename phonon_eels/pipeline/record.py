"""What happens to a step: ``logs/{step}.json`` says how it went, how long it took and which command retries it.

A killed process cannot say that it was killed, so "running" is written first and judged by whoever reads it.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phonon_eels.errors import PhononEELSError
from phonon_eels.io.atomic import output_error
from phonon_eels.pipeline.times import Account, ProcessClock

SCHEMA_VERSION = 1
LOGS = "logs"
"""Folder of a dataset that holds the records and the logs."""
_LOGGER = logging.getLogger("phonon_eels")


@contextmanager
def recorded(folder: Path, step: str, *, with_log: bool, process: ProcessClock | None = None) -> Iterator[Account]:
    """Record how a step goes while the block runs.

    Parameters
    ----------
    folder
        Folder of the dataset, which is there.
    step
        Name of the step.
    with_log
        Also write what the program says into ``logs/{step}.log``; the workflow does that itself for single steps.
    process
        Time that no step has counted yet, which becomes the start of this one.

    Yields
    ------
    Account
        To count work in, and to be made `idle` if nothing had to be done: then an earlier record of success stays, with its
        times.
    """
    account, now = Account(clock=process or ProcessClock()), time.time()
    since = account.clock.counted_until
    record = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "state": "running",
        "reason": None,
        "command": command_line(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": os.getpid(),
        "host": socket.gethostname(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "began": round(now, 3),
        "start_seconds": 0.0 if since is None else round(max(0.0, now - since), 3),
        "seconds": None,
        "work_seconds": None,
        "peak_mb": None,
    }
    before = read_record(folder, step)
    clock = time.monotonic()

    def finish(state: str, reason: str | None) -> None:
        now = read_record(folder, step)
        if now and any(now.get(name) != record[name] for name in ("process", "host", "started")):
            return  # a newer attempt has written its own: how this one ends is not what the dataset's state is
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        times = {"seconds": round(time.monotonic() - clock, 3), "work_seconds": round(account.work_s, 3)}
        _write(folder, {**record, "state": state, "reason": reason, **times, "peak_mb": round(peak)})
        if since is not None:
            account.clock.counted_until = time.time()

    _write(folder, record)
    try:
        with _log_file(folder, step) if with_log else nullcontext():
            yield account
    except PhononEELSError as problem:
        finish("failed", one_line(problem))
        raise
    except BaseException as problem:
        asked = isinstance(problem, KeyboardInterrupt | SystemExit)
        finish("stopped" if asked else "failed", None if asked else f"defect of the program: {one_line(problem)}")
        raise
    if account.idle and before.get("state") == "done":
        _write(folder, before)
    else:
        finish("done", None)


def read_record(folder: Path, step: str) -> dict[str, Any]:
    """Return the record of a step, empty where there is none that can be read."""
    try:
        found = json.loads((folder / LOGS / f"{step}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("schema_version") == SCHEMA_VERSION else {}


def refuse(folder: Path, reason: str) -> None:
    """Record that a row of the table of datasets cannot be run; once the table is mended, the workflow retries it."""
    _write(folder, {"schema_version": SCHEMA_VERSION, "step": "ingest", "state": "failed", "reason": reason,
                    "command": "snakemake --cores all --keep-going", "refused": True})  # fmt: skip


def is_alive(record: Mapping[str, Any]) -> bool | None:
    """Return whether the process of a record still runs, None where that cannot be seen from this machine."""
    if record.get("host") != socket.gethostname() or not isinstance(record.get("process"), int):
        return None
    try:
        os.kill(record["process"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_line() -> str:
    """Return the command of this process as one would type it."""
    name = Path(sys.argv[0]).name
    return shlex.join(["phonon-eels" if name in ("phonon-eels", "__main__.py") else name, *sys.argv[1:]])


def one_line(problem: BaseException) -> str:
    """Return what an exception says, in one line; the name of its class where it is no message for users."""
    words = " ".join(str(problem).split())
    return words if isinstance(problem, PhononEELSError) else f"{type(problem).__name__}: {words}".rstrip(": ")


@contextmanager
def _log_file(folder: Path, step: str) -> Iterator[None]:
    path = folder / LOGS / f"{step}.log"
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _LOGGER.addHandler(handler)
    # Called from Python, nobody may have asked for sentences; the log has them nevertheless.
    before = _LOGGER.level
    if _LOGGER.getEffectiveLevel() > logging.INFO:
        _LOGGER.setLevel(logging.INFO)
    try:
        yield
    except Exception as problem:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"error: {one_line(problem)}\n")
        raise
    finally:
        _LOGGER.setLevel(before)
        _LOGGER.removeHandler(handler)
        handler.close()


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write whole or not at all; not flushed, because a record that a power cut loses costs nothing."""
    path = folder / LOGS / f"{record['step']}.json"
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as problem:
        raise output_error(path, problem) from problem
