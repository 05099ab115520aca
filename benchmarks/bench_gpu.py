"""The GPU against this machine's own processor: the same spectra and kernels, in one run.

Run: python benchmarks/bench_gpu.py [--quick] [--threads 2]

Prints spectra per second of both for every driver, with everything that a step pays (copies in and out included, the first
call's compilation not), their ratio, and the largest difference of the results. Without a CUDA device it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.cuda.find import why_no_cuda

TIMED = ("forward", "components", "zero-loss-score", "resample", "background-power-law", "richardson-lucy")
TURNS = 3


def repeated(case: Any, times: int) -> tuple[list[Any], tuple[int, ...]]:
    """Return the arguments of a case with its spectra repeated, and the places of those that have one entry per spectrum."""
    from phonon_eels.backends.cuda.backend import CALLS
    from phonon_eels.backends.cuda.stream import Changed, Given, Made

    declared = dict(CALLS)[case.block.__name__](*case.arguments)
    n = declared.n_spectra
    places = tuple(
        k
        for k, (argument, given) in enumerate(zip(declared.arguments, case.arguments, strict=False))
        if isinstance(argument, (Given, Changed, Made)) and given.shape[0] == n
    )
    arguments = [np.concatenate([a] * times) if k in places else a for k, a in enumerate(case.fresh())]
    return arguments, places


def seconds(backend: CpuBackend, case: Any, arguments: list[Any], places: tuple[int, ...]) -> tuple[float, list[Any]]:
    """Time one pass over all spectra, in as many blocks as the backend works on at once."""
    given = [a.copy() if k in places else a for k, a in enumerate(arguments)]
    edges = np.linspace(0, given[places[0]].shape[0], backend.blocks_at_once + 1).astype(int)

    def block(_: int, numbers: np.ndarray) -> int:
        for n in numbers:
            own = slice(edges[n], edges[n + 1])
            backend.run(case.block, *[a[own] if k in places else a for k, a in enumerate(given)])
        return 0

    start = time.perf_counter()
    backend.map_rows(block, [np.arange(backend.blocks_at_once)])
    return time.perf_counter() - start, given


def main() -> None:
    """Time both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the spectra")
    parser.add_argument("--threads", type=int, default=2, help="of the processor (2)")
    options = parser.parse_args()
    reason = why_no_cuda()
    if reason is not None:
        print(f"no GPU: {reason}. Nothing was measured.")
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from phonon_eels.backends.cuda.backend import CudaBackend
    from tests.parity.cases import CASES

    times = 2_000 if options.quick else 20_000
    print(f"{'kernel':24}{'processor /s':>14}{'GPU /s':>14}{'ratio':>8}{'difference':>12}")
    for name in TIMED:
        case = dict(CASES)[name]()
        arguments, places = repeated(case, times)
        n = arguments[places[0]].shape[0]
        best, results = [], []
        for backend in (CpuBackend(options.threads), CudaBackend(options.threads)):
            small, _ = repeated(case, 2)
            seconds(backend, case, small, places)  # compiles
            turns = [seconds(backend, case, arguments, places) for _ in range(TURNS)]
            best.append(min(turn[0] for turn in turns))
            results.append(turns[0][1])
        first = case.results[0]
        ours, theirs = (np.nan_to_num(np.asarray(result[first], dtype=float)) for result in results)
        gap = float((np.abs(ours - theirs) / np.maximum(np.abs(ours).max(axis=0), 1e-300)).max())
        print(f"{name:24}{n / best[0]:14,.0f}{n / best[1]:14,.0f}{best[0] / best[1]:8.1f}{gap:12.1e}")


if __name__ == "__main__":
    main()
