"""A night of scans: good and poor ones finish, each bad one is named with its cause, a second run retries only those.

PHONON_EELS_GOOD says how many good ones there are; 86 make the night of a hundred that docs/validation.md speaks of.
PHONON_EELS_CORES says on how many cores.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from phonon_eels.pipeline.datasets import read_rows
from phonon_eels.pipeline.status import collect_status
from tests.workflow.batch_files import Row, write_night

N_GOOD = int(os.environ.get("PHONON_EELS_GOOD", "2"))
CORES = os.environ.get("PHONON_EELS_CORES", "2")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 + 180 * N_GOOD)]


def snakemake(repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), "--cores", CORES]
    command += ["--profile", str(repository / "pipelines" / "profiles" / "local")]
    env = {**os.environ, "PYTHONPATH": str(repository), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def jobs(done: subprocess.CompletedProcess[str]) -> int:
    """Return how many datasets a run took up."""
    table = done.stderr.partition("Job stats:")[2].partition("total")[0]
    return int(dict(re.findall(r"^(\w+) +(\d+)$", table, re.M))["dataset"])


def reasons(folder: Path, rows: list[Row]) -> list[str]:
    """Return what is wrong with the overview, one sentence each."""
    found = {row.name: row for row in collect_status(folder / "results", read_rows(folder / "datasets.tsv"))}
    wrong, twins = [], {row.name for row in rows if row.cause and not row.path.startswith("scan_")}
    for row in rows:
        status = found[row.name]
        if row.name == "scan_00" and row.cause:
            (status,) = [entry for name, entry in found.items() if name.startswith("scan_00.line")]
        if row.cause and (status.state != "failed" or row.cause not in status.reason or not status.command):
            wrong.append(f"{row.name}: {status.state}: {status.reason}: should be {row.cause}; {status.command}")
        if row.poor and (status.state != "warned" or row.poor not in " ".join(status.warnings)):
            wrong.append(f"{row.name}: {status.state}: {status.warnings} {status.reason}: should warn of {row.poor}")
        if not row.cause and not row.poor and status.state not in ("done", "warned"):
            wrong.append(f"{row.name}: {status.state}: {status.reason}")
    assert len(twins) == 10
    return wrong


def test_a_night(repository: Path, tmp_path: Path) -> None:
    rows = write_night(tmp_path, N_GOOD)
    (tmp_path / "pipelines").mkdir()
    settings = {"report": {"figure_formats": ["png"], "dpi": 50}}
    config = {"datasets": "datasets.tsv", "results": "results", "jobs": "dataset", "settings": settings}
    (tmp_path / "pipelines" / "config.yaml").write_text(yaml.safe_dump(config))

    done = snakemake(repository, tmp_path)
    assert done.returncode != 0
    assert jobs(done) == len(rows)
    assert reasons(tmp_path, rows) == []
    told = done.stderr.partition("Datasets that are not finished:")[2]
    assert len([line for line in told.splitlines() if line.startswith("  ")]) == 10
    page = (tmp_path / "results" / "index.html").read_text("utf-8")
    assert page.count("<tr data-rank") == len(rows)
    assert page.index('data-name="unreadable"') < page.index('data-name="no_haadf"') < page.index("</table>")

    # Mending one file and running again retries the failed ones and nothing else.
    (tmp_path / "empty.hspy").write_bytes((tmp_path / "scan.hspy").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/scan_*/report/report.html")}
    again = snakemake(repository, tmp_path)
    assert again.returncode != 0
    assert jobs(again) == 10
    assert {path: path.stat().st_mtime_ns for path in before} == before
    states = {row.name: row.state for row in collect_status(tmp_path / "results")}
    assert states["empty"] == "warned"
    assert list(states.values()).count("failed") == 9
