"""The batch on a real SLURM of two nodes: what it gives, and what a node that dies in the middle changes (nothing)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from phonon_eels.provenance import array_digest
from tests.workflow.batch_files import scan
from tests.workflow.slurm_cluster import NODES, Cluster, why_not

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
QUICK = {"report": {"figure_formats": ["png"], "dpi": 50}}
SAMPLES = ("bi2212_modulated", "bi2212_null")
BRISK = (
    "--slurm-init-seconds-before-status-checks",
    "3",
    "--seconds-between-status-checks",
    "2",
    "--latency-wait",
    "5",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    # Sockets allow only short paths.
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    found = Cluster(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environment(repository: Path, cluster: Cluster | None = None) -> dict[str, str]:
    outer = os.environ if cluster is None else cluster.environment
    return {**outer, "PYTHONPATH": str(repository), "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, dict[str, str]]:
    """Dataset → digests of the arrays of a run without SLURM and without harm."""
    results = tmp_path_factory.mktemp("undisturbed")
    found = {}
    for name in SAMPLES:
        words = ["run", str(repository / "sample_data" / f"{name}.hspy"), "--output", str(results), "--quiet"]
        words += ["--set", "report.figure_formats=[png]", "--set", "report.dpi=50", "--threads", "1"]
        command = [sys.executable, "-m", "phonon_eels", *words]
        subprocess.run(command, env=environment(repository), check=True, stdout=subprocess.DEVNULL)
        found[name] = array_digest(results / name)
    return found


def submit(cluster: Cluster, repository: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the workflow through the profile."""
    (folder / "pipelines").mkdir(parents=True)
    rows = ["dataset\tpath", *(f"{name}\t{repository / 'sample_data' / name}.hspy" for name in SAMPLES)]
    (folder / "datasets.tsv").write_text("\n".join(rows) + "\n")
    config = {"datasets": "datasets.tsv", "results": "results", "settings": QUICK}
    (folder / "pipelines" / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile")]
    command += ["--profile", str(repository / "pipelines" / "profiles" / "slurm"), "--slurm-no-account", *BRISK]
    with (folder / "snakemake.txt").open("w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment(repository, cluster), stdout=log, stderr=subprocess.STDOUT
        )


def check(folder: Path, undisturbed: dict[str, dict[str, str]]) -> None:
    for name in SAMPLES:
        assert array_digest(folder / "results" / name) == undisturbed[name]
        assert (folder / "results" / name / "logs" / "fit_peaks.log").is_file()
        assert (folder / "results" / name / "logs" / "run.log").is_file()
    page = (folder / "results" / "index.html").read_text("utf-8")
    assert all(name in page for name in SAMPLES)


def test_a_node_dies_and_nothing_changes(
    cluster: Cluster, repository: Path, tmp_path: Path, undisturbed: dict[str, dict[str, str]]
) -> None:
    workflow = submit(cluster, repository, tmp_path)
    lost = None
    try:

        def fitting() -> bool:
            """A job on each node, one of them in the middle of its fit."""
            assert workflow.poll() is None, (tmp_path / "snakemake.txt").read_text()[-3000:]
            places = {node for _, state, node in cluster.jobs() if state == "RUNNING"}
            return places == set(NODES) and bool(list(tmp_path.glob("results/*/.fit_peaks.tmp-*")))

        cluster.wait(fitting, 900, "two jobs, one of them in the middle of its fit")
        (temporary,) = list(tmp_path.glob("results/*/.fit_peaks.tmp-*"))[:1]
        process = int(temporary.name.rpartition("-")[2])
        lost = next(node for node in NODES if process in cluster.job_processes(node))
        job = next(job for job, state, node in cluster.jobs() if state == "RUNNING" and node == lost)
        cluster.kill_node(lost)
        cluster.wait(lambda: cluster.states()[lost].startswith("down"), 120, "the node is down")

        # SLURM lets a job that goes back into the queue wait two minutes; here its administrator does not.
        def released() -> bool:
            assert workflow.poll() is None, (tmp_path / "snakemake.txt").read_text()[-3000:]
            cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            state, place = next((state, place) for name, state, place in cluster.jobs() if name == job)
            return state == "RUNNING" and place not in ("", lost)

        cluster.wait(released, 1200, "the lost job runs on the other node")
        assert workflow.wait(1200) == 0, (tmp_path / "snakemake.txt").read_text()[-3000:]
    finally:
        if workflow.poll() is None:
            workflow.send_signal(signal.SIGINT)
            workflow.wait(60)
        if lost is not None:
            cluster.start_node(lost)
    check(tmp_path, undisturbed)


def test_one_scan_on_the_nodes_of_slurm(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    """Workers are jobs of SLURM (dask-jobqueue); nothing of them is left, and the results are those of one thread."""
    scan(tmp_path / "small.hspy", 5, "scan.rows=12", "scan.columns=16", "energy.channels=352")
    words = [sys.executable, "-m", "phonon_eels", "run", "small.hspy", "--set", "report.figure_formats=[png]"]
    words += ["--set", "report.dpi=50"]
    alone = [*words, "--output", "alone", "--threads", "1"]
    subprocess.run(alone, cwd=tmp_path, env=environment(repository), check=True, capture_output=True)
    many = [*words, "--output", "many", "--cluster", "slurm", "--workers", "2", "--worker-memory", "3GB"]
    before = {job for job, _, _ in cluster.jobs()}
    seen: set[tuple[str, str]] = set()
    with (tmp_path / "said.txt").open("w") as said:
        run = subprocess.Popen(many, cwd=tmp_path, env=environment(repository, cluster), stdout=said, stderr=said)
    while run.poll() is None:
        seen |= {(job, node) for job, state, node in cluster.jobs() if state == "RUNNING" and job not in before}
        time.sleep(1.0)
    assert run.returncode == 0, (tmp_path / "said.txt").read_text()[-3000:]
    assert {node for _, node in seen} == set(NODES)
    cluster.wait(
        lambda: not any(state == "RUNNING" for _, state, _ in cluster.jobs()), 60, "the workers' jobs are gone"
    )
    assert array_digest(tmp_path / "many" / "small") == array_digest(tmp_path / "alone" / "small")


def test_every_job_is_one_process_with_memory_and_time_of_its_own(
    cluster: Cluster, repository: Path, tmp_path: Path
) -> None:
    """What is asked of SLURM, without running it: jobs, memory, minutes, and a GPU where one is wanted."""
    scan(tmp_path / "one.hspy", 1)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "datasets.tsv").write_text("dataset\tpath\none\tone.hspy\n")
    config = {"datasets": "datasets.tsv", "results": "results", "device": "cuda", "gpu_gres": "gpu:a100:1"}
    (tmp_path / "pipelines" / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), "-n", "--slurm-no-account"]
    done = subprocess.run(
        [*command, "--profile", str(repository / "pipelines" / "profiles" / "slurm")],
        cwd=tmp_path, env=environment(repository, cluster), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rule dataset:" in done.stdout
    assert "rule fit_peaks:" not in done.stdout
    assert "gres=gpu:a100:1" in done.stdout
    assert "slurm_partition=gpu" in done.stdout
    assert "mem_mb=1200" in done.stdout


def test_two_writers_do_no_harm(repository: Path, tmp_path: Path) -> None:
    """A run is stopped in the middle as a lost job would be, a second takes over, the first wakes up and must stop."""
    scan(tmp_path / "scan.hspy", 4)
    words = [sys.executable, "-m", "phonon_eels", "run", "scan.hspy", "--threads", "1", "--set", "report.dpi=50"]
    words += ["--set", "report.figure_formats=[png]", "--take-over"]
    env = environment(repository)
    subprocess.run([*words, "--output", "alone"], cwd=tmp_path, env=env, check=True, capture_output=True)
    lost = subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    # Its temporary folder is there: it has found nothing up to date and computes.
    while not list(tmp_path.glob("results/scan/.fit_peaks.tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    lost.send_signal(signal.SIGSTOP)
    try:
        second = subprocess.run(words, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    finally:
        lost.send_signal(signal.SIGCONT)
    assert second.returncode == 0, second.stderr
    assert "taken over from process" in second.stderr
    _, said = lost.communicate(timeout=600)
    assert lost.returncode == 2, said
    assert "a newer attempt has taken over" in said
    assert array_digest(tmp_path / "results" / "scan") == array_digest(tmp_path / "alone" / "scan")


def test_with_an_accounting_database(repository: Path, tmp_path: Path) -> None:
    """The profile as it stands, and with `sacct` asked for the state of jobs; SLURM counts them for the user's account."""
    reason = why_not(accounting=True)
    if reason is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    cluster = Cluster(folder, accounting=True)
    scan(tmp_path / "small.hspy", 5, "scan.rows=12", "scan.columns=16", "energy.channels=352")
    (tmp_path / "bad.hspy").touch()
    (tmp_path / "pipelines").mkdir()
    rows = ["dataset\tpath", "small\tsmall.hspy", "bad\tbad.hspy"]
    (tmp_path / "datasets.tsv").write_text("\n".join(rows) + "\n")
    config = {"datasets": "datasets.tsv", "results": "results", "settings": QUICK}
    (tmp_path / "pipelines" / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), *BRISK, "--retries", "0"]
    command += ["--profile", str(repository / "pipelines" / "profiles" / "slurm")]
    try:
        cluster.start()
        for words in ((), ("--slurm-status-command", "sacct")):
            done = subprocess.run(
                [*command, *words], cwd=tmp_path, env=environment(repository, cluster),
                capture_output=True, text=True, check=False, timeout=1200,
            )  # fmt: skip
            assert done.returncode != 0, done.stderr
            assert "bad: ingest: " in done.stderr
            assert "is empty (0 bytes)" in done.stderr
            assert (tmp_path / "results" / "small" / "report" / "report.html").is_file()
        counted = cluster.ask("sacct", "-X", "-n", "-P", "-o", "Account,State").split()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    # The good one ran once, the bad one each time.
    assert sorted(counted) == ["science|COMPLETED", "science|FAILED", "science|FAILED"]
