"""How much memory and time a step takes, by the size of the scan: what the workflow asks a scheduler for.

The models are linear in positions and threads. Memory is rounded up from measured sizes (all steps in one process: 0.4 to
0.6 GB at 32 × 32 × 512, 1.1 GB at 256 × 256 × 1024 with two threads; `fit_peaks` of six modes from 65,536 to 262,144 positions
2.3 kB each, 2.7 with profile likelihood); times are generous. `logs/{step}.json` tells what each step really took,
and a job that is killed nevertheless runs again with twice as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from phonon_eels.steps.registry import REGISTRY

_HDF5 = (".hspy", ".hdf5", ".h5", ".nhdf", ".emd")
_ASSUMED_CHANNELS = 1024
_LEAST_COMPRESSED_BYTES = 1.0  # per channel of a position, in files that cannot be looked into cheaply
_SPARE = 1.5
_ROUND_MB = 100


@dataclass(frozen=True)
class ScanSize:
    """How large a scan is.

    Attributes
    ----------
    positions
        Rows times columns, times frames.
    channels
        Energy channels.
    """

    positions: int
    channels: int


@dataclass(frozen=True)
class Cost:
    """What a step takes.

    Attributes
    ----------
    base_mb
        Program and libraries.
    thread_mb
        Blocks of rows that a thread works on.
    position_bytes
        Maps and tables in memory.
    base_s
        Start and what does not depend on the size.
    channel_us
        Microseconds per channel and position on one core.
    """

    base_mb: float
    thread_mb: float
    position_bytes: float
    base_s: float
    channel_us: float


_LIGHT = Cost(400, 60, 500, 10, 0.1)
_COSTS: Mapping[str, Cost] = {
    "ingest": Cost(400, 120, 500, 15, 1.0),
    "register_frames": Cost(500, 150, 1_000, 15, 4.0),
    "remove_spikes": Cost(400, 150, 500, 15, 1.0),
    "align_zlp": Cost(400, 120, 1_000, 15, 1.0),
    "denoise": Cost(500, 250, 4_000, 15, 20.0),
    "deconvolve": Cost(400, 200, 1_000, 15, 20.0),
    "fit_peaks": Cost(400, 120, 2_900, 20, 3.0),
    "measure_modulation": Cost(400, 120, 7_000, 30, 3.0),
    "report": Cost(600, 20, 5_000, 60, 0.3),
}


def scan_size(path: Path) -> ScanSize:
    """Return the size of a scan, from the header of its file where that is cheap, else bounded by its bytes.

    A file that is missing or broken has the smallest size: its job will say so.
    """
    try:
        if path.suffix.lower() in _HDF5:
            return _hdf5_size(path)
        if path.is_dir():
            n_bytes = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
        else:
            n_bytes = path.stat().st_size
    except (OSError, RuntimeError, ValueError):
        return ScanSize(1, _ASSUMED_CHANNELS)
    return ScanSize(max(1, round(n_bytes / _LEAST_COMPRESSED_BYTES / _ASSUMED_CHANNELS)), _ASSUMED_CHANNELS)


def memory_mb(size: ScanSize, step: str | None, threads: int) -> int:
    """Return the memory to ask for in MB.

    Parameters
    ----------
    step
        Name of the step; None: all of them in one process.
    """
    return -(-round(_SPARE * expected_mb(size, step, threads)) // _ROUND_MB) * _ROUND_MB


def expected_mb(size: ScanSize, step: str | None, threads: int) -> float:
    """Return the memory that a step holds at most by its model, in MB, without what is asked for to spare."""
    costs = [_cost(step)] if step is not None else [_cost(entry.name) for entry in REGISTRY]
    return max(cost.base_mb + threads * cost.thread_mb + size.positions * cost.position_bytes / 1e6 for cost in costs)


def runtime_min(size: ScanSize, step: str | None, threads: int) -> int:
    """Return the time to ask for in minutes: several times what one core of 2023 takes."""
    costs = [_cost(step)] if step is not None else [_cost(entry.name) for entry in REGISTRY]
    values = size.positions * size.channels
    seconds = sum(cost.base_s + values * cost.channel_us * 1e-6 / threads for cost in costs)
    return max(10, -(-round(3.0 * seconds) // 60))


def _cost(step: str) -> Cost:
    return _COSTS.get(step, _LIGHT)


def _hdf5_size(path: Path) -> ScanSize:
    import h5py

    shapes: list[tuple[int, ...]] = []
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda _, item: shapes.append(item.shape) if isinstance(item, h5py.Dataset) and item.ndim > 1 else None
        )
    largest = max(shapes, key=lambda shape: _product(shape), default=(1, _ASSUMED_CHANNELS))
    # Which axis is the energy is for `ingest` to find out; the longest one is a fair guess and only scales a request.
    channels = max(largest)
    return ScanSize(max(1, _product(largest) // max(channels, 1)), max(channels, 1))


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
