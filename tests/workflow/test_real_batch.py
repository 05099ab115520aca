"""The workflow with the real steps: the same results as one `run`, a broken file beside good ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material, load_simulation
from phonon_eels.pipeline import run
from phonon_eels.provenance import array_digest
from phonon_eels.simulate import simulate, write_simulation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def snakemake(repository: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), *words]
    profile = ["--profile", str(repository / "pipelines" / "profiles" / "local"), "--cores", "2"]
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run([*command, *profile], cwd=folder, env=env, capture_output=True, text=True, check=False)


def configure(folder: Path, rows: dict[str, str], **settings: object) -> None:
    (folder / "pipelines").mkdir(exist_ok=True)
    table = ["dataset\tpath\thaadf\tgroup\tnote", *(f"{name}\t{path}\t\t\t" for name, path in rows.items())]
    (folder / "datasets.tsv").write_text("\n".join(table) + "\n")
    config = {"datasets": "datasets.tsv", "results": "results", "settings": settings}
    (folder / "pipelines" / "config.yaml").write_text(yaml.safe_dump(config))


def test_batch(tmp_path: Path, repository: Path) -> None:
    sizes = ["scan.rows=36", "scan.columns=10", "seed=5"]
    write_simulation(simulate(load_simulation(overrides=sizes), load_material("bi2212")), tmp_path / "good.hspy")
    (tmp_path / "text.hspy").write_text("this is no HDF5 file")
    configure(tmp_path, {"good": "good.hspy", "broken": "text.hspy"})

    done = snakemake(repository, tmp_path)
    assert done.returncode != 0
    named = done.stderr.partition("Datasets that are not finished:")[2]
    assert "broken: ingest: " in named
    assert "text.hspy" in named
    assert "good" not in named
    assert not list((tmp_path / "results" / "broken").glob("*/summary.json"))

    run(tmp_path / "good.hspy", tmp_path / "alone", backend=CpuBackend(2))
    assert array_digest(tmp_path / "results" / "good") == array_digest(tmp_path / "alone" / "good")

    # The other way round: a run finds the results of the workflow up to date.
    outcomes = run(tmp_path / "good.hspy", tmp_path / "results", backend=CpuBackend(1))
    assert all(outcome.up_to_date for outcome in outcomes)

    configure(tmp_path, {"good": "good.hspy"}, report={"dpi": 90})
    done = snakemake(repository, tmp_path)
    assert done.returncode == 0, done.stderr
    jobs = done.stderr.partition("Job stats:")[2].partition("total")[0]
    assert {line.split()[0] for line in jobs.splitlines() if line[-1:].isdigit()} == {"all", "report"}

    assert snakemake(repository, tmp_path, "--report", "batch.html").returncode == 0
    assert "mean_spectrum" in (tmp_path / "batch.html").read_text(encoding="utf-8")
