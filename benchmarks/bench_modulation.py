"""Layers, superstructure and modulation of a whole scan: seconds of each part, for the aim of 60 s on two cores.

Run: python benchmarks/bench_modulation.py [--rows 128] [--columns 128] [--threads 2] [--quick]

A scan is simulated and taken through all steps before (not timed, printed for scale). Then `assign_layers`, `map_superstructure`
and `measure_modulation` run as the program runs them, with the ensemble of windows, shapes and priors. Inside the last the fits of the whole scan
are told apart from the rest; resampling (random rotation of the planes' phases) is part of the rest. The first call of a kernel
would compile it: a small scan goes through everything before. Seconds of the processor and of the clock: on a busy
machine only the first means something.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "validation"))

from chain import prepare, recipe, simulated_scan

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.steps import joint_fit, modulation_systematics
from phonon_eels.steps.registry import find_step

AIM_S = 60.0
STEPS = ("assign_layers", "map_superstructure", "measure_modulation")


class Timed:
    """A function that counts its calls, and seconds of the processor and of the clock."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls, self.used, self.clock = function, 0, 0.0, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        used, clock = time.process_time(), time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.calls += 1
            self.used += time.process_time() - used
            self.clock += time.perf_counter() - clock


def timed_steps(rows: int, columns: int, threads: int) -> tuple[Timed, dict[str, Timed], Timed]:
    """Return what the steps before took, what each of the three took, and what the fits inside the last took."""
    # Intervals of single positions are nothing that these steps read.
    chosen = recipe({"measure_modulation": {"variants": True}, "fit_peaks": {"profile_below_sigma": 0.0}})
    settings = simulated_scan(
        7, rows, columns, scan={"rows": rows, "columns": columns, "row_step_nm": 0.055, "column_step_nm": 0.09}
    )
    before = Timed(prepare)
    image, context = before(settings, chosen, "assign_layers")
    context = replace(context, backend=CpuBackend(threads))
    fits = Timed(joint_fit.fit_scan)
    joint_fit.fit_scan = modulation_systematics.fit_scan = fits  # type: ignore[assignment]
    steps = {}
    for name in STEPS:
        steps[name] = Timed(find_step(name).load().run)
        result = steps[name](image, getattr(chosen, name), context)
        if result.skipped is not None:
            raise SystemExit(f"{name} was skipped: {result.skipped}")
        context = replace(
            context,
            maps={**context.maps, **({} if result.maps is None else {name: result.maps})},
            tables={**context.tables, name: dict(result.tables)},
            summaries={**context.summaries, name: dict(result.summary)},
        )
    joint_fit.fit_scan = modulation_systematics.fit_scan = fits.function
    return before, steps, fits


def main() -> None:
    """Time all parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="56 × 48 positions, for a look")
    asked = parser.parse_args()
    rows, columns = (56, 48) if asked.quick else (asked.rows, asked.columns)
    timed_steps(56, 40, asked.threads)  # compiles
    before, steps, fits = timed_steps(rows, columns, asked.threads)
    print(
        f"{rows} × {columns} positions, {asked.threads} threads, {platform.machine()}, Python {platform.python_version()}"
    )
    print(f"{'part':48} {'processor s':>12} {'clock s':>9}")
    print(f"{'(simulation and the steps before)':48} {before.used:12.1f} {before.clock:9.1f}")
    for name, step in steps.items():
        print(f"{name:48} {step.used:12.2f} {step.clock:9.2f}")
    print(f"{f'  of it {fits.calls} fits of the scan':48} {fits.used:12.2f} {fits.clock:9.2f}")
    last = steps["measure_modulation"]
    print(f"{'  of it everything else':48} {last.used - fits.used:12.2f} {last.clock - fits.clock:9.2f}")
    used, clock = sum(s.used for s in steps.values()), sum(s.clock for s in steps.values())
    print(f"{'all three steps':48} {used:12.2f} {clock:9.2f}")
    print(
        f"{1e3 * fits.used / fits.calls / rows / columns:.3f} ms of the processor per position and fit; aim {AIM_S:g} s by the clock"
    )


if __name__ == "__main__":
    main()
