"""What starting costs: every step as a process of its own, `phonon-eels run`, and a dataset of the workflow.

Run: python benchmarks/bench_start.py [--quick]     (about 6 minutes on two free cores, 3 with --quick; the kernels compiled before)

A process does its command twice. *First* is counted from the birth of the process, so with Python, imports, settings, compiled
kernels from their cache; *again* is the same command with everything loaded. *Start* is the difference: what a process of its own
costs. Of three processes the one that starts fastest counts (one for what takes long). Each time by the clock, which the aims are
compared with, and by the processor: on a busy machine only the second means something. The last lines are a real run of Snakemake
on one core, with what its overview says: the overhead of each dataset's processes, and Snakemake's own part.
Limits aimed at: 2 s for a step that reads no vendor file (`ingest` does), 5 s for a run.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from phonon_eels.config import load_material, load_simulation
from phonon_eels.pipeline.status import collect_status
from phonon_eels.pipeline.times import workflow_words
from phonon_eels.simulate import simulate, write_simulation
from phonon_eels.steps.registry import steps_of_route

STARTS = 3
REPOSITORY = Path(__file__).resolve().parents[1]
FEW_FIGURES = ["--set", "report.figure_formats=[png]", "--set", "report.dpi=50"]
MACHINE = ["--threads", "1", "--quiet", "--force"]
CLASSIC = ("normalise", "denoise", "subtract_zlp", "deconvolve")
TWICE = """
import sys, time
from phonon_eels.cli import main
from phonon_eels.pipeline.times import process_began
words = sys.argv[1:]
def run():
    try:
        assert main(words) == 0
    except SystemExit as end:
        assert end.code == 0
run()
first = time.time() - (process_began() or 0.0), time.process_time()
began = time.perf_counter(), time.process_time()
run()
print("\\ntimes", *first, time.perf_counter() - began[0], time.process_time() - began[1])
"""


def twice(name: str, *words: str, limit_s: float | None = None, starts: int = STARTS) -> None:
    """Run a command twice in one process, several times, and print the row of the process that started fastest."""
    tries = []
    for _ in range(starts):
        done = subprocess.run([sys.executable, "-c", TWICE, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} | | | |", flush=True)
            return
        tries.append([float(word) for word in done.stdout.rpartition("times")[2].split()])
    clock, used, clock_again, used_again = min(tries, key=lambda times: times[0] - times[2])
    start = clock - clock_again
    verdict = "" if limit_s is None else f"{'below' if start < limit_s else '**above**'} {limit_s:.0f} s"
    print(
        f"| {name} | {clock:.2f}, {used:.2f} | {clock_again:.2f}, {used_again:.2f} | "
        f"{start:.2f}, {used - used_again:.2f} | {verdict} |",
        flush=True,
    )


def libraries() -> None:
    """Print what starting Python with the libraries alone costs: a machine that is slow today shows here."""
    words = [sys.executable, "-c", "import numpy, pandas, xarray, scipy.optimize, numba, pydantic"]
    seconds = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run(words, check=True)
        seconds.append(time.perf_counter() - began)
    print(
        f"Python with numpy, pandas, xarray, scipy.optimize, numba and pydantic, nothing of ours: {min(seconds):.2f} s"
    )


def steps(folder: Path, scan: Path, route: str, names: tuple[str, ...]) -> None:
    """Print a row for each step, on a dataset that is finished."""
    for name in names:
        files = [str(scan)] if name == "ingest" else []
        words = [name, *files, "--dataset-folder", str(folder), "--set", f"route={route}", *FEW_FIGURES, *MACHINE]
        if name == "denoise":
            words += ["--set", "denoise.method=pca"]
        twice(name, *words, limit_s=None if name == "ingest" else 2.0, starts=1 if name == "report" else STARTS)


def workflow(folder: Path, scan: Path, datasets: int) -> None:
    """Print what a run of Snakemake costs, and one that finds nothing to do."""
    (folder / "pipelines").mkdir(parents=True)
    rows = ["dataset\tpath", *(f"scan{number}\t{scan}" for number in range(datasets))]
    (folder / "datasets.tsv").write_text("\n".join(rows) + "\n")
    (folder / "pipelines" / "config.yaml").write_text(
        "datasets: datasets.tsv\nresults: results\njobs: dataset\nsettings: {report: {figure_formats: [png], dpi: 50}}\n"
    )
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--cores", "1", "--quiet", "all"]
    seconds = []
    for _ in range(2):
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append((time.perf_counter() - began, used))
    print(f"\nSnakemake, one core, {datasets} datasets, one process each (clock, processor):")
    print(
        f"- all: {seconds[0][0]:.1f}, {seconds[0][1]:.1f} s; nothing to do: {seconds[1][0]:.1f}, {seconds[1][1]:.1f} s"
    )
    for row in collect_status(folder / "results"):
        print(f"- {row.name}: {row.seconds or 0.0:.1f} s by the clock, {row.overhead_s or 0.0:.1f} s of it overhead")
    print(f"- {workflow_words(folder / 'results')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no classic steps and no workflow")
    quick = parser.parse_args().quick
    print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    libraries()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        scan = place / "small.hspy"
        sizes = ["scan.rows=16", "scan.columns=16", "energy.channels=352", "seed=1"]
        write_simulation(simulate(load_simulation(overrides=sizes), load_material("bi2212")), scan)
        output = ["run", str(scan), "--output", str(place / "results"), *FEW_FIGURES, *MACHINE]
        # Compiles what no cache holds, and makes what the single steps read.
        subprocess.run([sys.executable, "-m", "phonon_eels", *output], check=True, stdout=subprocess.DEVNULL)
        print("\n| what (16 × 16 × 352) | first: clock, processor s | again | start | aim |\n|---|---|---|---|---|")
        twice("phonon-eels --help", "--help")
        twice("phonon-eels status", "status", str(place / "results"))
        twice("phonon-eels run", *output, limit_s=5.0, starts=1)
        steps(place / "results" / "small", scan, "forward", tuple(entry.name for entry in steps_of_route("forward")))
        if not quick:
            other = [*output, "--dataset", "classic", "--set", "route=classic", "--set", "denoise.method=pca"]
            subprocess.run([sys.executable, "-m", "phonon_eels", *other], check=True, stdout=subprocess.DEVNULL)
            steps(place / "results" / "classic", scan, "classic", CLASSIC)
            workflow(place / "batch", scan, 2)


if __name__ == "__main__":
    main()
