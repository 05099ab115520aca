"""How far each dataset of a results folder is, why it is not further, and what would retry it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from phonon_eels.errors import InputFileError
from phonon_eels.pipeline.datasets import Dataset
from phonon_eels.pipeline.overview import SCHEMA_VERSION
from phonon_eels.pipeline.record import LOGS, is_alive, read_record
from phonon_eels.pipeline.times import of_records
from phonon_eels.steps.registry import REGISTRY

State = Literal["failed", "stopped", "running", "waiting", "warned", "done"]
ORDER: tuple[State, ...] = ("failed", "stopped", "running", "waiting", "warned", "done")
"""What needs a person comes first."""
_KILLED = "was killed in this step (too little memory, its time was up, or its machine died)"
_ORDINARY = ("switched off", "one frame")


@dataclass(frozen=True)
class DatasetStatus:
    """A row of the overview.

    Attributes
    ----------
    name
        Name of the dataset.
    state
        failed: an error; stopped: killed or interrupted; warned: finished, with something to say.
    step
        Step that failed, was stopped or is running.
    reason
        Why, in one sentence.
    command
        What retries it.
    verdicts
        "pass", "warn", "fail" → number of quality checks.
    warnings
        What the checks and steps had to say.
    modes
        Energies as the dataset's summary has them.
    modulation
        The primary result, with ``verdict``.
    seconds, overhead_s
        Time of the processes that made it, and how much of it was no work (see `times`); None where that is not recorded.
    peak_mb
        Most memory that one of its processes held.
    folder
        Folder of its results.
    """

    name: str
    state: State
    folder: Path
    step: str = ""
    reason: str = ""
    command: str = ""
    verdicts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    modes: tuple[Mapping[str, Any], ...] = ()
    modulation: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    overhead_s: float | None = None
    peak_mb: float | None = None

    @property
    def report(self) -> Path | None:
        """The report, if there is one."""
        page = self.folder / "report" / "report.html"
        return page if page.is_file() else None


def collect_status(
    results: str | Path, table: Iterable[Dataset] | None = None, *, ended: bool = False
) -> tuple[DatasetStatus, ...]:
    """Return a row per dataset, those that need a person first.

    Parameters
    ----------
    results
        Folder of all results.
    table
        Datasets that there should be; default: those that have a folder.
    ended
        True if nothing is running any more: what says that it runs was killed.

    Raises
    ------
    InputFileError
        If there is neither the folder nor a table.
    """
    results = Path(results)
    rows = {dataset.name: dataset for dataset in table} if table is not None else None
    if rows is None and not results.is_dir():
        raise InputFileError(f"{results}: is no folder of results; run `phonon-eels run FILE --output {results}` first")
    names = list(rows) if rows is not None else sorted(path.parent.name for path in results.glob(f"*/{LOGS}"))
    found = [_status(results / name, None if rows is None else rows[name], ended) for name in names]
    return tuple(sorted(found, key=lambda row: (ORDER.index(row.state), row.name)))


def _status(folder: Path, dataset: Dataset | None, ended: bool) -> DatasetStatus:
    records = {entry.name: read_record(folder, entry.name) for entry in REGISTRY}
    overview = _read_overview(folder)
    state, step, reason, command = _standing(folder, records, overview, ended)
    warnings, verdicts = _warnings(overview), _verdicts(overview)
    if state == "done" and warnings:
        state = "warned"
    if state in ("failed", "stopped") and not command:
        command = _run_command(folder, dataset)
    seconds, overhead_s = of_records(records.values())
    peaks = [record["peak_mb"] for record in records.values() if isinstance(record.get("peak_mb"), int | float)]
    whole = state in ("done", "warned")
    modulation = dict(overview.get("primary") or {}) if whole else {}
    if modulation:
        modulation["verdict"] = _summary(overview, "measure_modulation").get("verdict", "")
    return DatasetStatus(
        name=folder.name,
        state=state,
        folder=folder,
        step=step,
        reason=reason,
        command=command,
        verdicts=verdicts if whole else {},
        warnings=warnings if whole else (),
        modes=tuple(overview.get("modes", ())) if whole else (),
        modulation=modulation,
        seconds=seconds,
        overhead_s=overhead_s,
        peak_mb=max(peaks) if peaks else None,
    )


def _standing(
    folder: Path, records: Mapping[str, Mapping[str, Any]], overview: Mapping[str, Any], ended: bool
) -> tuple[State, str, str, str]:
    """Return state, step, reason and command, from the records and, where a process could leave none, from the logs."""
    for name, record in records.items():
        command = str(record.get("command") or "")
        if record.get("state") == "failed":
            return "failed", name, str(record.get("reason")), command
        if record.get("state") == "stopped":
            return "stopped", name, "was interrupted; the same command goes on from there", command
        if record.get("state") == "running":
            if ended or is_alive(record) is False:
                return "failed", name, _KILLED, command
            return "running", name, f"since {record.get('started')} on {record.get('host')}", command
    for name in ("run", *records):
        reason = error_in_log(folder / LOGS / f"{name}.log")
        if reason is not None and not records.get(name):
            return "failed", "" if name == "run" else name, reason, ""
    if overview:
        return "done", "", "", ""
    done = [name for name, record in records.items() if record.get("state") == "done"]
    return "waiting", "", f"{done[-1]} is done" if done else "did not run", ""


def error_in_log(path: Path) -> str | None:
    """Return the last error that a log tells, None where it tells none."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    crash = [line for line in lines if line.startswith("Traceback ")]
    return f"defect of the program: {lines[-1]}" if crash else None


def _run_command(folder: Path, dataset: Dataset | None) -> str:
    if dataset is None:
        return ""
    words = ["phonon-eels", "run", str(dataset.path), "--output", str(folder.parent), "--dataset", folder.name]
    return shlex.join([*words, *(["--haadf", str(dataset.haadf)] if dataset.haadf else [])])


def _read_overview(folder: Path) -> dict[str, Any]:
    """Return the dataset's summary; one of another layout says nothing here, the report still can."""
    try:
        found = json.loads((folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("schema_version") == SCHEMA_VERSION else {}


def _summary(overview: Mapping[str, Any], step: str) -> Mapping[str, Any]:
    return dict(overview.get("steps", {}).get(step, {}).get("summary") or {})


def _verdicts(overview: Mapping[str, Any]) -> dict[str, int]:
    verdicts = [row.get("verdict") for row in overview.get("quality", ())]
    return {name: verdicts.count(name) for name in ("pass", "warn", "fail") if name in verdicts}


def _warnings(overview: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the steps had to say, and what was left out for other reasons than the settings."""
    said = [
        f"{name}: {sentence}"
        for name, step in overview.get("steps", {}).items()
        for sentence in [*([step["skipped"]] if step.get("skipped") else []), *step.get("messages", ())]
        if not sentence.startswith(_ORDINARY)
    ]
    told = "\n".join(said)
    checks = [
        f"quality: {row['sentence']}"
        for row in overview.get("quality", ())
        if row.get("verdict") in ("warn", "fail") and row.get("sentence", "") not in told
    ]
    return (*checks, *said)
