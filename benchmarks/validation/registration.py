"""Registration of frames: how often is a random walk followed, and does the program know where it is not?

Run: python benchmarks/validation/registration.py [--steps 0.3 0.5 ...] [--seeds 100] [--first 0] [--frames 20] [--size 64]

Frames of the [100] projection of the crystal of `tests/unit/lattice/test_registration.py` (corrugated planes, counting noise),
moved by random walks that end up to two column distances (b/2) away. For every distance of positions (in Å): walks within 0.2
position in all frames, walks with a frame a period off, largest error of the others, and what the program said of itself:
walks with a frame that it calls unsure (margin below 3 in log likelihood), and jumps that it did not call so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from phonon_eels.lattice.registration import estimate_drift
from tests.unit.lattice.test_registration import B, noisy, walk


def follow(step_nm: float, seed: int, n_frames: int, size: int) -> tuple[float, float, bool]:
    """Return the largest error in positions and in column distances, and whether the program is unsure of a frame."""
    rng = np.random.default_rng(seed)
    shifts = walk(n_frames, 2.0, rng) / step_nm
    drift = estimate_drift(noisy(shifts, size, step_nm, rng), step_nm=step_nm)
    error = drift.shifts - shifts
    error -= np.median(error, axis=0)
    largest = float(np.abs(error).max())
    return largest, largest * step_nm / (B / 2.0), bool(drift.unsure.any())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=float, nargs="+", default=[0.3, 0.5, 0.7, 1.0, 1.2, 1.4, 1.6, 2.0], help="Å")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    for step in given.steps:
        seeds = range(given.first, given.first + given.seeds)
        found = [follow(step / 10.0, seed, given.frames, given.size) for seed in seeds]
        good = np.array([f[0] < 0.2 for f in found])
        jumped = np.array([f[1] > 0.5 for f in found])
        unsure = np.array([f[2] for f in found])
        largest = max((f[0] for f in found if f[1] <= 0.5), default=float("nan"))
        print(
            f"{step:g} Å: {good.sum()} of {len(found)} walks within 0.2 position, {jumped.sum()} with a period jump; "
            f"largest error without one {largest:.2f} position; unsure {unsure.sum()}, jumps not called unsure "
            f"{(jumped & ~unsure).sum()}; seeds with a jump {[s for s, j in zip(seeds, jumped, strict=True) if j]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
