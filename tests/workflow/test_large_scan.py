"""A scan of 256 × 256 spectra of 1024 channels, 268 MB as float32, goes from disk to disk in less than 2 GB of memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

LIMIT_BYTES = 2_000_000_000
# The high-water mark of the process itself: what `getrusage` says of a child begins with the memory of its parent.
MEASURED = """
import sys
from phonon_eels.cli import main
code = main(sys.argv[1:])
if code == 0:
    with open("/proc/self/status") as status:
        print([line.split()[1] for line in status if line.startswith("VmHWM")][0])
sys.exit(code)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is measured as Linux tells it"),
]


def peak_bytes(*words: str) -> int:
    """Run the command line in a process of its own; return the most memory that it ever held."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("large")
    yield path
    shutil.rmtree(path)  # pytest would keep the gigabyte for three sessions


@pytest.fixture(scope="module")
def peak(folder: Path) -> int:
    """Most memory of the whole run."""
    sizes = [f"--set={size}" for size in ("scan.rows=256", "scan.columns=256", "energy.channels=1024")]
    scan = folder / "large.hspy"
    assert peak_bytes("simulate", str(scan), *sizes) < LIMIT_BYTES
    return peak_bytes("run", str(scan), "--output", str(folder), "--threads", "2", "--set=report.figure_formats=[png]")


def test_memory_stays_below_two_gigabytes(peak: int) -> None:
    assert peak < LIMIT_BYTES


def test_every_position_has_its_result(peak: int, folder: Path) -> None:
    results = folder / "large"
    with xr.open_dataset(results / "fit_peaks" / "maps.nc") as maps:
        assert maps["energy_mev"].shape == (6, 256, 256)
        assert np.isin(maps["status"].values, (0, 4)).mean() > 0.98
        assert np.isfinite(maps["area_e"].values).mean() > 0.98
    modes = pd.read_csv(results / "fit_peaks" / "tables" / "modes.csv", comment="#").set_index("mode")
    assert modes.loc["CuO78", "energy_mev"] == pytest.approx(78.0, abs=0.05)
    for step in ("assign_layers", "map_superstructure", "measure_modulation", "report"):
        assert json.loads((results / step / "summary.json").read_text("utf-8"))["skipped"] is None
    assert (results / "report" / "report.html").is_file()
