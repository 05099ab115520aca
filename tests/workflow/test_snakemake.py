"""The workflow: what runs, what runs again, and what a failure stops. The steps themselves are stood in for.

Snakemake is started beside a program `phonon-eels` that only writes the files a rule promises, so that these tests
look at the rules alone. `test_samples.py` runs the real thing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

FORWARD = {
    *("ingest", "register_frames", "remove_spikes", "align_zlp", "calibrate", "fit_peaks"),
    *("assign_layers", "map_superstructure", "measure_modulation", "report"),
}
CLASSIC = {*FORWARD, "normalise", "denoise", "subtract_zlp", "deconvolve"}

PROGRAM = """#!/bin/sh
# phonon-eels STEP [FILE] ... --dataset-folder DIR ...
step=$1
echo "$@" >> calls.txt
while [ $# -gt 0 ]; do
  [ "$1" = --dataset-folder ] && folder=$2
  case $1 in *.bad) echo "error: $1: cannot be read" >&2; exit 2;; esac
  shift
done
mkdir -p "$folder/$step"
if [ "$step" = report ]; then
  mkdir -p "$folder/report/figures"
  echo "a picture" > "$folder/report/figures/maps.png"
  echo "<html>$folder</html>" > "$folder/report/report.html"
  echo '{}' > "$folder/summary.json"
fi
echo '{}' > "$folder/$step/summary.json"
"""


class Batch:
    """A working folder with datasets, and a Snakemake that finds the stand-in."""

    def __init__(self, folder: Path, repository: Path, files: dict[str, str]) -> None:
        self.folder, self.repository = folder, repository
        program = folder / "bin" / "phonon-eels"
        program.parent.mkdir(parents=True)
        program.write_text(PROGRAM)
        program.chmod(0o755)
        # The Snakefile takes the program that lies beside its own interpreter.
        (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
        (folder / "pipelines").mkdir()
        rows = ["dataset\tpath\thaadf\tgroup\tnote"]
        for name, file in files.items():
            (folder / file).write_bytes(name.encode())
            rows.append(f"{name}\t{file}\t\t\t")
        (folder / "datasets.tsv").write_text("\n".join(rows) + "\n")
        self.configure()

    def configure(self, **keys: object) -> None:
        """Write the configuration of the workflow."""
        config = {"datasets": "datasets.tsv", "results": "results", "threads": 1, **keys}
        (self.folder / "pipelines" / "config.yaml").write_text(yaml.safe_dump(config))

    def snakemake(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it in the working folder."""
        command = [str(self.folder / "bin" / "python"), "-m", "snakemake", "-s", str(self.repository / "Snakefile")]
        paths = [sysconfig.get_paths()["purelib"], str(self.repository)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(self.folder / "cache")}
        return subprocess.run(
            [*command, "--cores", "2", *words], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )

    def would_run(self) -> dict[str, int]:
        """Return rule → number of jobs that a run would have now."""
        done = self.snakemake("-n")
        assert done.returncode == 0, done.stderr
        table = done.stdout.partition("Job stats:")[2].partition("total")[0]
        return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M) if name != "all"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Batch:
    """Two datasets, all steps run."""
    batch = Batch(tmp_path_factory.mktemp("batch"), repository, {"one": "one.hspy", "two": "two.hspy"})
    done = batch.snakemake()
    assert done.returncode == 0, done.stderr
    return batch


def test_every_dataset_and_every_step_of_the_route(finished: Batch) -> None:
    results = finished.folder / "results"
    for name in ("one", "two"):
        assert {path.name for path in (results / name).iterdir() if path.is_dir()} == {*FORWARD, "logs"}
        assert (results / name / "report" / "report.html").is_file()
    calls = (finished.folder / "calls.txt").read_text().splitlines()
    assert len(calls) == 2 * len(FORWARD)
    assert any(call.startswith("ingest one.hspy --dataset-folder results/one --settings {") for call in calls)


CHANGES = [
    # Facts of the machine and steps of the other route do not count.
    ({"threads": 2, "settings": {"deconvolve": {"iterations": 3}}}, set()),
    ({"settings": {"report": {"dpi": 99}}}, {"report"}),
    ({"settings": {"fit_peaks": {"background": "linear"}}}, {"fit_peaks", "measure_modulation", "report"}),
    (
        {"settings": {"assign_layers": {"min_probability": 0.6}}},
        {"assign_layers", "map_superstructure", "measure_modulation", "report"},
    ),
]


@pytest.mark.parametrize(("keys", "rules"), CHANGES, ids=[str(keys) for keys, _ in CHANGES])
def test_a_setting_runs_again_only_what_depends_on_it(
    finished: Batch, keys: dict[str, object], rules: set[str]
) -> None:
    finished.configure(**keys)
    assert finished.would_run() == dict.fromkeys(rules, 2)


def test_the_other_route_shares_what_does_not_depend_on_it(finished: Batch) -> None:
    finished.configure(route="classic")
    shared = {"ingest", "register_frames", "remove_spikes"}
    assert finished.would_run() == dict.fromkeys(CLASSIC - shared, 2)


def test_a_changed_file_runs_its_own_dataset_again(finished: Batch) -> None:
    finished.configure()
    path = finished.folder / "two.hspy"
    before = path.stat()
    try:
        path.write_bytes(b"other spectra")
        os.utime(path, (before.st_atime + 100, before.st_mtime + 100))
        assert finished.would_run() == dict.fromkeys(FORWARD, 1)
    finally:
        path.write_bytes(b"two")
        os.utime(path, (before.st_atime, before.st_mtime))


def test_report_is_one_file(finished: Batch) -> None:
    finished.configure()
    done = finished.snakemake("--report", "report.html")
    assert done.returncode == 0, done.stderr
    text = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "report.html" in text
    assert "maps.png" in text


def test_a_failed_dataset_does_not_stop_the_others_and_is_named(tmp_path: Path, repository: Path) -> None:
    batch = Batch(tmp_path / "batch", repository, {"broken": "broken.bad", "good": "good.hspy", "gone": "gone.bad"})
    (batch.folder / "gone.bad").unlink()
    profile = repository / "pipelines" / "profiles" / "local"
    done = batch.snakemake("--profile", str(profile), "--cores", "2")
    assert done.returncode != 0
    assert (batch.folder / "results" / "good" / "report" / "report.html").is_file()
    assert not (batch.folder / "results" / "broken" / "report").exists()
    assert "Datasets that are not finished:" in done.stderr
    assert "broken: ingest: broken.bad: cannot be read" in done.stderr
    assert "gone: ingest: gone.bad: cannot be read" in done.stderr


def test_wrong_configuration_is_said_before_anything_runs(tmp_path: Path, repository: Path) -> None:
    batch = Batch(tmp_path / "batch", repository, {"one": "one.hspy"})
    batch.configure(settings={"fit_peaks": {"backgroud": "linear"}})
    done = batch.snakemake()
    assert done.returncode != 0
    assert "unknown key fit_peaks.backgroud; did you mean background?" in done.stderr
    assert not (batch.folder / "results").exists()


def test_lint_is_clean(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_slurm_profile_is_understood(finished: Batch, repository: Path) -> None:
    """The local one is used above."""
    finished.configure()
    done = finished.snakemake("--profile", str(repository / "pipelines" / "profiles" / "slurm"), "-n")
    assert done.returncode == 0, done.stderr


def test_scans_of_one_group_are_pooled(tmp_path: Path, repository: Path) -> None:
    batch = Batch(tmp_path, repository, {"one": "one.hspy", "two": "two.hspy", "three": "three.hspy"})
    table = tmp_path / "datasets.tsv"
    table.write_text(
        table.read_text().replace("one.hspy\t\t\t", "one.hspy\t\tA\t").replace("two.hspy\t\t\t", "two.hspy\t\tA\t")
    )
    assert batch.would_run()["pool"] == 1
    table.write_text(table.read_text().replace("\tA\t", "\t\t", 1))
    assert "pool" not in batch.would_run()
