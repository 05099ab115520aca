"""Where the time of a dataset goes: work, overhead, Snakemake's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phonon_eels.pipeline.index_page import as_text, write_index
from phonon_eels.pipeline.record import read_record, recorded
from phonon_eels.pipeline.status import collect_status
from phonon_eels.pipeline.times import (
    WORKFLOW,
    ProcessClock,
    note_workflow,
    of_records,
    process_began,
    workflow_words,
)


def test_work_and_start_are_told_apart(tmp_path: Path) -> None:
    clock = ProcessClock(time.time() - 3.0)
    with recorded(tmp_path / "scan", "ingest", with_log=False, process=clock) as account, account.working():
        time.sleep(0.05)
    first = read_record(tmp_path / "scan", "ingest")
    assert 3.0 <= first["start_seconds"] < 60.0
    assert 0.05 <= first["work_seconds"] <= first["seconds"]
    # The start of a process counts once; what has nothing to do leaves its time to the next one.
    with recorded(tmp_path / "scan", "ingest", with_log=False, process=clock) as account:
        account.idle = True
    assert read_record(tmp_path / "scan", "ingest") == first
    with recorded(tmp_path / "scan", "align_zlp", with_log=False, process=clock):
        pass
    second = read_record(tmp_path / "scan", "align_zlp")
    assert second["start_seconds"] < first["start_seconds"]
    assert second["work_seconds"] == 0.0
    total, overhead = of_records([first, second])
    assert total is not None
    assert total == pytest.approx(
        sum(record[key] for record in (first, second) for key in ("seconds", "start_seconds"))
    )
    assert overhead == pytest.approx(total - first["work_seconds"])


def test_a_program_that_does_other_things_too_counts_no_start(tmp_path: Path) -> None:
    with recorded(tmp_path / "scan", "ingest", with_log=False):
        pass
    assert read_record(tmp_path / "scan", "ingest")["start_seconds"] == 0.0


def test_records_of_older_versions_have_a_time_and_no_overhead() -> None:
    assert of_records([{"seconds": 2.0}, {"seconds": None}]) == (2.0, None)
    assert of_records([{}]) == (None, None)


def test_when_a_process_began() -> None:
    code = "from phonon_eels.pipeline.times import process_began; import time; time.sleep(0.2); print(process_began())"
    before = time.time()
    told = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    # The system counts in hundredths, and its clocks may drift apart a little.
    assert before - 1.0 < told < time.time() - 0.1
    assert (process_began() or before) < before


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", no_file)
    assert process_began() is None


def test_what_snakemake_took(tmp_path: Path) -> None:
    now = time.time()
    records = {
        # Two jobs at once, one after a pause, one of an earlier run: 100 s, of which 10 to 40 and 50 to 90 are jobs'.
        "one": [{"began": now - 85.0, "start_seconds": 5.0, "seconds": 25.0}, {"state": "done"}],
        "two": [
            {"began": now - 70.0, "start_seconds": 0.0, "seconds": 10.0},
            {"began": now - 50.0, "start_seconds": 0.0, "seconds": 40.0},
        ],
        "old": [{"began": now - 500.0, "start_seconds": 0.0, "seconds": 10.0}],
    }
    note_workflow(tmp_path, now - 100.0, records)
    told = json.loads((tmp_path / WORKFLOW).read_text("utf-8"))
    assert told["datasets"] == 2
    assert told["without_job_seconds"] == pytest.approx(30.0, abs=1.0)
    words = workflow_words(tmp_path)
    assert "made 2 datasets in 100 s" in words
    assert words.endswith(": 15.0 s per dataset")
    # A run that makes nothing leaves what the last one that did told.
    note_workflow(tmp_path, now - 1.0, {"old": records["old"]})
    assert json.loads((tmp_path / WORKFLOW).read_text("utf-8")) == told
    (tmp_path / WORKFLOW).write_text("{}")
    assert workflow_words(tmp_path) == ""


def test_the_overview_shows_both(tmp_path: Path) -> None:
    folder = tmp_path / "scan" / "logs"
    folder.mkdir(parents=True)
    record = {"schema_version": 1, "step": "ingest", "state": "done", "process": os.getpid(), "peak_mb": 400}
    times = {"began": 1.0, "start_seconds": 2.0, "seconds": 60.0, "work_seconds": 57.5}
    (folder / "ingest.json").write_text(json.dumps({**record, **times}))
    told = {"schema_version": 1, "seconds": 80.0, "without_job_seconds": 8.0, "datasets": 1}
    (tmp_path / WORKFLOW).write_text(json.dumps(told))
    rows = collect_status(tmp_path)
    assert as_text(rows).splitlines()[0].endswith("scan  1 min 02 s, 4.5 s of it overhead")
    page = write_index(tmp_path, rows).read_text("utf-8")
    assert "<br>4.5 s of it overhead<br>400 MB" in page
    assert "8.0 s per dataset" in page
