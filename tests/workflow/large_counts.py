"""A scan of many gigabytes in a vendor's file, written row by row from one small simulated one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from phonon_eels.config import load_material, load_simulation
from phonon_eels.simulate import simulate
from tests.workflow.large_files import write_ndata1

_TILE_ROWS, _TILE_COLUMNS = 8, 64


def write_large_counts(path: Path, rows: int, columns: int, channels: int) -> Path:
    """Write counts as Nion Swift does; the axis is that of `large_files.ABOUT`, 1 meV per channel from −100 meV."""
    sizes = [f"scan.rows={_TILE_ROWS}", f"scan.columns={_TILE_COLUMNS}", f"energy.channels={channels}", "seed=3"]
    sizes += ["energy.dispersion_mev=1.0", "energy.offset_mev=-100.0"]
    tile = np.asarray(simulate(load_simulation(overrides=sizes), load_material("bi2212")).image.counts)
    counts = np.clip(np.rint(tile), 0, 65534).astype("<u2")

    def lines() -> Iterator[np.ndarray]:
        for row in range(rows):
            yield np.tile(counts[row % _TILE_ROWS], (columns // _TILE_COLUMNS, 1))

    return write_ndata1(path, (rows, columns, channels), lines())
