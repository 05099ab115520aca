"""A folder is watched while Snakemake runs: stopped in the middle of a fit, started again, nothing is run twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from phonon_eels.pipeline.datasets import read_rows
from tests.workflow.batch_files import scan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(repository: Path, folder: Path) -> subprocess.Popen[str]:
    words = ["watch", "in", "--config", "config.yaml", "--settle", "0.5", "--every", "0.3", "--debug"]
    words += ["--snakefile", str(repository / "Snakefile"), "--snakemake=--cores 1"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "phonon_eels", *words], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait(met: Callable[[], bool], process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 900
    while not met():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        failed = [
            path for path in folder.glob("results/*/logs/*.json") if '"state": "failed"' in path.read_text("utf-8")
        ]
        assert not failed, failed[0].read_text("utf-8")
        time.sleep(0.1)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> str:
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said[-3000:]
    assert "Traceback" not in said
    return said


def test_stopped_in_a_fit_and_started_again(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    settings = {"report": {"figure_formats": ["png"], "dpi": 50}}
    config = {"datasets": "datasets.tsv", "results": "results", "jobs": "dataset", "settings": settings}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    scan(tmp_path / "first.hspy", 5, "scan.rows=12", "scan.columns=16", "energy.channels=352")
    whole = (tmp_path / "first.hspy").read_bytes()
    report = tmp_path / "results" / "first" / "report" / "report.html"

    process = start(repository, tmp_path)
    wait(lambda: (tmp_path / ".datasets.tsv.watch").exists(), process, tmp_path)
    (tmp_path / "in" / "first.hspy").write_bytes(whole)
    (tmp_path / "in" / "half.hspy").write_bytes(whole[: len(whole) // 2])
    wait(lambda: bool(list(tmp_path.glob("results/first/.fit_peaks.tmp-*"))), process, tmp_path)
    stop(process, signal.SIGINT)
    assert not report.exists()
    assert not list(tmp_path.glob("results/first/.fit_peaks.tmp-*"))

    process = start(repository, tmp_path)
    wait(report.exists, process, tmp_path)
    # Files, not times: Snakemake touches what a job has made once more when the job ends.
    summary = tmp_path / "results" / "first" / "ingest" / "summary.json"
    made = [(path.stat().st_ino, path.read_bytes()) for path in (report, summary)]
    # The half one grows to its end while the watcher looks.
    (tmp_path / "in" / "half.hspy").write_bytes(whole)
    wait((tmp_path / "results" / "half" / "report" / "report.html").exists, process, tmp_path)
    stop(process, signal.SIGTERM)
    assert [row.name for row in read_rows(tmp_path / "datasets.tsv")] == ["first", "half"]
    assert [(path.stat().st_ino, path.read_bytes()) for path in (report, summary)] == made
