"""Where the time of a dataset goes: work, starting, and Snakemake's own.

*Work* is what the step's own function and the writing of its result take. All else between the start of a process and its
last result is *overhead*: Python, libraries, settings, hashes of the input, looking for what is stale, reading maps.
Snakemake's own part is the time in which none of its jobs ran, divided by the datasets that it made.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phonon_eels.io.atomic import staged_file

SCHEMA_VERSION = 1
WORKFLOW = "workflow.json"
"""In the folder of all results: what the last run of the workflow took beside its jobs."""


@dataclass
class ProcessClock:
    """Time of a process that no record counts yet.

    Attributes
    ----------
    counted_until
        Seconds since 1970; None where the process does other things too.
    """

    counted_until: float | None = None


@dataclass
class Account:
    """What a step notes while it goes.

    Attributes
    ----------
    idle
        True if nothing had to be done.
    work_s
        Seconds in the step's own function and in writing.
    """

    idle: bool = False
    work_s: float = 0.0
    clock: ProcessClock = field(default_factory=ProcessClock)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time of a block as work."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.work_s += time.monotonic() - began


def process_began() -> float | None:
    """Return when this process began, in seconds since 1970; None where the system does not tell (no Linux)."""
    try:
        fields = Path("/proc/self/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
        up_s = float(Path("/proc/uptime").read_text("ascii").split()[0])
        age_s = up_s - float(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - age_s if age_s >= 0.0 else None


def of_records(records: Iterable[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Return the seconds of the processes that made a dataset, and those that were no work.

    The second is None where a record does not tell, as those of older versions.
    """
    timed = [record for record in records if isinstance(record.get("seconds"), int | float)]
    if not timed:
        return None, None
    total = sum(record["seconds"] + record.get("start_seconds", 0.0) for record in timed)
    if any("work_seconds" not in record for record in timed):
        return total, None
    return total, max(0.0, total - sum(record["work_seconds"] for record in timed))


def note_workflow(results: Path, began: float | None, datasets: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write what a run of the workflow that ends now took beside its jobs; nothing where it made nothing.

    Parameters
    ----------
    began
        When it began, seconds since 1970.
    datasets
        Name → records of the steps.
    """
    if began is None or not results.is_dir():
        return
    ended = time.time()
    spans = {name: [_span(record) for record in records] for name, records in datasets.items()}
    inside = {name: [(low, high) for low, high in found if high > began] for name, found in spans.items()}
    made = sum(bool(found) for found in inside.values())
    if made == 0:
        return
    busy, until = 0.0, began
    for low, high in sorted(span for found in inside.values() for span in found):
        busy += max(0.0, min(high, ended) - max(low, until))
        until = max(until, high)
    record = {"schema_version": SCHEMA_VERSION, "seconds": round(ended - began, 1),
              "without_job_seconds": round(ended - began - busy, 1), "datasets": made}  # fmt: skip
    with staged_file(results / WORKFLOW) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def workflow_words(results: Path) -> str:
    """Return what the last run of the workflow took beside its jobs, in a sentence; empty where there was none."""
    try:
        record = json.loads((results / WORKFLOW).read_text("utf-8"))
        if record["schema_version"] != SCHEMA_VERSION:
            return ""
        idle, made, whole = float(record["without_job_seconds"]), int(record["datasets"]), float(record["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return (
        f"the last run of the workflow made {made} dataset{'' if made == 1 else 's'} in {whole:.0f} s; in {idle:.1f} s of these "
        f"none of its jobs ran (Snakemake's own time and waiting in a queue): {idle / made:.1f} s per dataset"
    )


def _span(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return when the time of a record began and ended; nothing where it does not tell."""
    try:
        began, start = float(record["began"]), float(record["start_seconds"])
        return began - start, began + float(record["seconds"])
    except (KeyError, TypeError):
        return 0.0, 0.0
