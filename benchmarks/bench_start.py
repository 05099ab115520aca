"""What starting costs: a step as a process of its own, `phonon-eels run`, and a dataset of the workflow.

Run: python benchmarks/bench_start.py [--quick]

A step or a run is timed as a fresh process, then once more inside one process where everything is loaded; what remains is
the start: Python, imports, compiled kernels from their cache. For the workflow as many datasets as cores are run, then nothing is
left to do and Snakemake runs once more. Times of the processor and of the clock: on a busy machine only the first means something.
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
from phonon_eels.simulate import simulate, write_simulation

REPOSITORY = Path(__file__).resolve().parents[1]
QUICK = ["--set", "report.figure_formats=[png]", "--set", "report.dpi=50", "--threads", "1", "--quiet"]
STEPS = (
    "ingest", "register_frames", "remove_spikes", "align_zlp", "calibrate", "fit_peaks", "assign_layers",
    "map_superstructure", "measure_modulation", "report",
)  # fmt: skip
TWICE = """
import sys, time
from phonon_eels.cli import main
words = sys.argv[1:]
assert main(words) == 0
began = time.perf_counter(), time.process_time()
assert main(words) == 0
print("\\nagain", time.perf_counter() - began[0], time.process_time() - began[1])
"""


def fresh(*words: str) -> tuple[float, float]:
    """Return seconds of the clock and of the processor of a new process."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "phonon_eels", *words, *QUICK], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


def again(*words: str) -> tuple[float, float]:
    """Return the same of a second time in one process."""
    done = subprocess.run([sys.executable, "-c", TWICE, *words, *QUICK], check=True, capture_output=True, text=True)
    clock, used = done.stdout.rpartition("again")[2].split()
    return float(clock), float(used)


def workflow(folder: Path, scan: Path, datasets: int) -> tuple[float, float]:
    """Return the seconds that Snakemake takes for small datasets, and those for finding that nothing is to be done."""
    (folder / "pipelines").mkdir()
    rows = ["dataset\tpath", *(f"scan{number}\t{scan}" for number in range(datasets))]
    (folder / "datasets.tsv").write_text("\n".join(rows) + "\n")
    (folder / "pipelines" / "config.yaml").write_text(
        "datasets: datasets.tsv\nresults: results\njobs: dataset\nsettings: {report: {figure_formats: [png], dpi: 50}}\n"
    )
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "-s",
            str(REPOSITORY / "Snakefile"),
            "--cores",
            "1",
            "--quiet",
            "all",
        ]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return seconds[0], seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no workflow")
    quick = parser.parse_args().quick
    print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        scan = place / "small.hspy"
        sizes = ["scan.rows=16", "scan.columns=16", "energy.channels=352", "seed=1"]
        write_simulation(simulate(load_simulation(overrides=sizes), load_material("bi2212")), scan)
        whole = ["run", str(scan), "--output", str(place / "results"), "--force"]
        fresh(*whole)  # compiles what no cache holds
        first, second = fresh(*whole), again(*whole)
        print(
            "\n| what | new process: clock, processor s | loaded: clock, processor s | start: clock, processor s |\n|---|---|---|---|"
        )
        show("phonon-eels run, 16 × 16 × 352", first, second)
        for step in STEPS:
            words = [
                step,
                *([str(scan)] if step == "ingest" else []),
                "--dataset-folder",
                str(place / "results" / "small"),
            ]
            words.append("--force")
            show(step, fresh(*words), again(*words))
        if not quick:
            (place / "batch").mkdir()
            datasets = 3
            all_of_them, nothing = workflow(place / "batch", scan, datasets)
            each = all_of_them / datasets
            print(
                f"\nSnakemake, one core: {each:.1f} s a dataset, {each - second[0]:.1f} s more than its steps take in a loaded "
                f"process; {nothing:.1f} s where nothing is to be done."
            )


def show(name: str, first: tuple[float, float], second: tuple[float, float]) -> None:
    """Print a row."""
    start = [one - other for one, other in zip(first, second, strict=True)]
    print(
        f"| {name} | {first[0]:.2f}, {first[1]:.2f} | {second[0]:.2f}, {second[1]:.2f} | {start[0]:.2f}, {start[1]:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
