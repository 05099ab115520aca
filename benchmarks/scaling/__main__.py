"""How one scan scales over workers, and where it ends.

Run: python benchmarks/scaling [--quick] [--workers 1 2 4 8] [--positions 4096]

Steps `ingest` (storage to worker to storage) and `align_zlp` (a fit per position) on workers of dask.distributed on this machine.
Strong: one scan, more workers. Weak: as many positions per worker each time. Prints a table of both, the
cost of a task and of a position, bytes that passed through scheduler and client, bytes that the workers read and wrote, the peak
memory of a worker, and what a linear model makes of that for a billion positions. More workers than cores share the cores: then the
clock says nothing of scaling, and the columns of processor time tell what workers cost: overhead is the processor time of workers, client
and scheduler beyond that of one process with one thread, per position.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.workers.backend import LARGEST_BLOCK_BYTES, WorkersBackend
from phonon_eels.backends.workers.connect import workers_backend
from phonon_eels.backends.workers.payload import pack
from phonon_eels.config import load_material, load_settings, load_simulation
from phonon_eels.io.export import write_hspy
from phonon_eels.pipeline import run_step
from phonon_eels.pipeline.resources import ScanSize, expected_mb
from phonon_eels.simulate import simulate
from phonon_eels.spectrum_image import ScanAxis

CHANNELS, COLUMNS, TILE_ROWS = 512, 64, 16
STEPS = ("ingest", "register_frames", "remove_spikes", "align_zlp")
TIMED = ("ingest", "align_zlp")
SETTINGS = load_settings(overrides=["remove_spikes.enabled=false"])
BILLION = 1_000_000_000
FARM = 64
"""Workers of the extrapolation."""
CLIENT_BYTES = 128e9
"""Memory of the process that the steps run in, which holds what they keep of every position."""

HEAVY = ("measure_modulation", "fit_peaks")


def held_bytes(step: str) -> float:
    """Return what a step keeps of a position by its memory model (`pipeline/resources.py`)."""
    return expected_mb(ScanSize(2_000_000, CHANNELS), step, 1) - expected_mb(ScanSize(1_000_000, CHANNELS), step, 1)


@dataclass
class Point:
    """What one run cost."""

    workers: int
    positions: int
    seconds: dict[str, float]
    tasks: int
    passed_bytes: int
    worker_mb: float
    worker_cpu_s: float
    client_cpu_s: float
    storage_bytes: float

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


class Counting(WorkersBackend):
    """Counts what passes through the client and the scheduler."""

    passed_bytes = 0

    def _run(self, task: Any, payload: bytes, edges: Any, progress: Any) -> list[Any]:
        results = super()._run(task, payload, edges, progress)
        self.passed_bytes += len(payload) + len(pack(results))
        return results


def write_scan(path: Path, positions: int) -> None:
    """Write a scan made of one simulated tile again and again; the file is read back chunk by chunk."""
    rows = max(TILE_ROWS, -(-positions // COLUMNS // TILE_ROWS) * TILE_ROWS)
    sizes = [f"scan.rows={TILE_ROWS}", f"scan.columns={COLUMNS}", f"energy.channels={CHANNELS}", "seed=3"]
    tile = simulate(load_simulation(overrides=sizes), load_material("bi2212")).image
    counts = np.tile(np.asarray(tile.counts), (rows // TILE_ROWS, 1, 1))
    haadf = None if tile.haadf is None else np.tile(np.asarray(tile.haadf), (rows // TILE_ROWS, 1))
    first = tile.scan[0]
    axes = (ScanAxis(first.name, first.step_nm, rows), tile.scan[1])
    write_hspy(tile.with_(counts=da.from_array(counts, chunks=(4, -1, -1)), haadf=haadf, scan=axes), path)


def measure(scan: Path, folder: Path, workers: int, positions: int) -> Point:
    """Run the steps on so many workers, once to load their programs and once for the clock."""
    with workers_backend(workers=workers, worker_memory="4GB") as given:
        backend = Counting(given._client)
        for _ in range(2):
            seconds = {}
            before, client_before = given._client.run(usage), time.process_time()
            backend.passed_bytes = backend.n_tasks = 0
            for step in STEPS:
                began = time.perf_counter()
                path = scan if step == "ingest" else None
                run_step(folder, step, SETTINGS, input_path=path, backend=backend, force=True)
                seconds[step] = time.perf_counter() - began
            seconds = {step: seconds[step] for step in TIMED}
        client_cpu_s = time.process_time() - client_before
        after, peaks = given._client.run(usage), given._client.run(peak_mb)
        used = [sum(after[name][part] - before[name][part] for name in after) for part in range(2)]
        return Point(
            workers, positions, seconds, backend.n_tasks, backend.passed_bytes, max(peaks.values()),
            worker_cpu_s=used[0], client_cpu_s=client_cpu_s, storage_bytes=used[1],
        )  # fmt: skip


def usage() -> tuple[float, float]:
    """Return the processor time of this process, and the bytes that it read from files and wrote to them."""
    with open("/proc/self/io", encoding="ascii") as told:
        counters = dict(line.split(": ") for line in told.read().splitlines())
    return time.process_time(), float(counters["rchar"]) + float(counters["wchar"])


def peak_mb() -> float:
    """Return the most memory that this process held."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6


def task_ms(workers: int, n_tasks: int) -> float:
    """Return what a task costs that does nothing, with all of them given at once."""
    with workers_backend(workers=workers) as backend:
        backend._run(nothing, pack(None), [0, 1], None)
        began = time.perf_counter()
        backend._run(nothing, pack(None), list(range(n_tasks + 1)), None)
        return 1e3 * (time.perf_counter() - began) / n_tasks


def nothing(payload: bytes, low: int, high: int) -> None:
    """Do nothing."""


def threads_s(scan: Path, folder: Path) -> tuple[float, float]:
    """Return the time of the same steps in one process with one thread, by the clock and by the processor."""
    for _ in range(2):
        began, used = time.perf_counter(), time.process_time()
        for step in STEPS:
            run_step(
                folder, step, SETTINGS, input_path=scan if step == "ingest" else None, backend=CpuBackend(1), force=True
            )
    return time.perf_counter() - began, time.process_time() - used


def show(title: str, points: list[Point], base: float, base_cpu_s: float) -> None:
    """Print a table; `base_cpu_s` is the processor time of one thread for a position."""
    print(f"\n{title}\n")
    print(
        "| workers | positions | ingest s | align_zlp s | speed-up | tasks | bytes per position through the client | bytes per position "
        "from and to files | processor s: workers, client | overhead ms per position | peak MB of a worker |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for point in points:
        gain = base * point.positions / points[0].positions / point.total_s
        print(
            f"| {point.workers} | {point.positions} | {point.seconds['ingest']:.2f} | {point.seconds['align_zlp']:.2f} | "
            f"{gain:.2f} | {point.tasks} | {point.passed_bytes / point.positions:.0f} | "
            f"{point.storage_bytes / point.positions:.0f} | {point.worker_cpu_s:.2f}, {point.client_cpu_s:.2f} | "
            f"{1e3 * ((point.worker_cpu_s + point.client_cpu_s) / point.positions - base_cpu_s):.3f} | {point.worker_mb:.0f} |"
        )


def extrapolate(per_position_s: float, task_s: float, passed: float, worker_mb: float) -> None:
    """Print a billion positions: linear in positions for time, storage and bytes; tasks by the size of a block."""
    values = BILLION * CHANNELS
    cube = 4.0 * values
    tasks = 8.0 * values / LARGEST_BLOCK_BYTES
    computing = BILLION * per_position_s / FARM
    giving = tasks * task_s * len(TIMED)
    print(
        f"\nA billion positions of {CHANNELS} channels. Model: time = positions × {1e3 * per_position_s:.3f} ms of a core / workers "
        f"+ tasks × {1e3 * task_s:.2f} ms, the second by one scheduler whatever the number of workers; tasks = bytes as float64 / "
        f"{LARGEST_BLOCK_BYTES / 1e6:.0f} MB a pass; storage, maps and bytes through the client linear in positions; a worker's memory "
        f"constant, because blocks are.\n\n| what | how much |\n|---|---|"
    )
    rows = [
        ("storage: one cube, float32, uncompressed", f"{cube / 1e12:.1f} TB; the four images of the route {4 * cube / 1e12:.0f} TB"),
        ("tasks of one pass over the cube", f"{tasks:,.0f} (15,625 per TB of float32)"),
        (f"time of {' and '.join(TIMED)} on {FARM} workers", f"{(computing + giving) / 3600:.1f} h, {giving:.0f} s of it for the tasks"),
        ("workers that one scheduler can keep busy", f"{LARGEST_BLOCK_BYTES / 8 / CHANNELS * per_position_s / len(TIMED) / task_s:,.0f}"),
        ("memory of a worker", f"{worker_mb:.0f} MB as here, up to 24 blocks more: {worker_mb / 1e3 + 24 * LARGEST_BLOCK_BYTES / 1e9:.1f} GB"),
        ("through scheduler and client", f"at most {BILLION * passed / 1e9:.0f} GB (here the constants of the function count most)"),
        ("one map in the client's memory", f"{8.0 * BILLION / 1e9:.0f} GB; " + ", ".join(f"{step} holds {held_bytes(step) * BILLION / 1e9:.0f} GB" for step in HEAVY)),
    ]  # fmt: skip
    for name, words in rows:
        print(f"| {name} | {words} |")
    limits = [
        *[
            (CLIENT_BYTES / held_bytes(step), f"what {step} keeps fills a client of {CLIENT_BYTES / 1e9:.0f} GB")
            for step in HEAVY
        ],
        (1e5 * LARGEST_BLOCK_BYTES / 8 / CHANNELS, "a pass has 100,000 tasks, where Dask's scheduler grows slow"),
        (100e12 / (4 * 4.0 * CHANNELS), "the images fill 100 TB of disk"),
        (FARM * 24 * 3600 / per_position_s, f"these steps take a day on {FARM} workers"),
    ]
    print("\nWhat breaks, in order:\n\n| positions | what |\n|---|---|")
    for positions, words in sorted(limits):
        print(f"| {positions / 1e6:,.0f} million | {words} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 and 2 workers, a small scan")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--positions", type=int, default=4096)
    options = parser.parse_args()
    numbers = [1, 2] if options.quick else options.workers
    positions = 1024 if options.quick else options.positions
    print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_scan(place / "strong.hspy", positions)
        base, base_cpu_s = threads_s(place / "strong.hspy", place / "threads")
        print(f"one process, one thread: {base:.2f} s for {positions} positions, {base_cpu_s:.2f} s of processor time")
        base_cpu_s /= positions
        strong = [measure(place / "strong.hspy", place / f"strong{n}", n, positions) for n in numbers]
        show("Strong scaling (one scan; speed-up over one thread of one process)", strong, base, base_cpu_s)
        weak = []
        for number in numbers:
            write_scan(place / f"weak{number}.hspy", positions // 4 * number)
            weak.append(measure(place / f"weak{number}.hspy", place / f"weak{number}", number, positions // 4 * number))
        show("Weak scaling (a quarter of that per worker)", weak, weak[0].total_s, base_cpu_s)
    task_s = task_ms(numbers[-1], 200 if options.quick else 2000) / 1e3
    cores = min(len(os.sched_getaffinity(0)), max(numbers))
    best = min(strong, key=lambda point: point.worker_cpu_s)
    per_position = best.worker_cpu_s / positions
    print(f"\nA task that does nothing: {1e3 * task_s:.2f} ms. A position: {1e3 * per_position:.2f} ms of one core.")
    print(f"Rows of more workers than the {cores} cores show what workers cost each other, no speed-up.")
    extrapolate(per_position, task_s, best.passed_bytes / best.positions, max(point.worker_mb for point in strong))


if __name__ == "__main__":
    main()
