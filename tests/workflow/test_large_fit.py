"""A cube of 4 GB on disk is fitted, position by position, in less than 2 GB of memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phonon_eels.pipeline.resources import ScanSize, expected_mb
from tests.workflow.large_counts import write_large_counts

FIT = """
import json, sys
import numpy as np
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit.fit import fit_components
from phonon_eels.component_fit.model import Component
from phonon_eels.io.read import read

image = read(sys.argv[1])
energies = image.energy.energies_mev
places = {"pair": (40.0, 12.0), "bio": (57.0, 9.0), "sro": (67.0, 9.0), "high": (78.0, 9.0)}
parts = [
    Component("gaussian", name, {"centre": at, "fwhm": wide}, {"centre": (at - 5.0, at + 5.0), "fwhm": (5.0, 20.0)})
    for name, (at, wide) in places.items()
]
parts.append(Component("power_law", "tail"))
fit = fit_components(image.counts, energies, parts, window_mev=(28.0, 115.0), gain=image.noise.gain, backend=CpuBackend(2))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
centre = fit.value("high.centre")
print(json.dumps({
    "peak_bytes": 1024 * int(peak),
    "shape": list(fit.status.shape),
    "usable": float(fit.usable.mean()),
    "centre": float(np.nanmedian(centre)),
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is measured as Linux tells it")
def test_four_gigabytes_are_fitted_within_two(repository: Path, tmp_path: Path) -> None:
    file = write_large_counts(tmp_path / "large.ndata1", 512, 1024, 4096)
    assert file.stat().st_size > 4e9
    environment = {**os.environ, "PYTHONPATH": str(repository), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FIT, str(file)], capture_output=True, text=True, check=False, env=environment
    )
    shutil.rmtree(tmp_path)  # pytest would keep the gigabytes for three sessions
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert told["shape"] == [512, 1024]
    assert told["peak_bytes"] < 2e9
    assert told["usable"] > 0.95
    assert told["centre"] == pytest.approx(78.0, abs=1.0)


RUN = """
import sys
from phonon_eels.cli import main
assert main(sys.argv[1:]) == 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is measured as Linux tells it")
def test_fit_peaks_stays_within_its_memory_model(repository: Path, tmp_path: Path) -> None:
    """The forward route holds 2 to 3 kB a position; what the workflow asks a scheduler for rests on it."""
    file = write_large_counts(tmp_path / "wide.ndata1", 128, 512, 256)
    environment = {**os.environ, "PYTHONPATH": str(repository), "OPENBLAS_NUM_THREADS": "1"}
    peak_bytes = {}
    for step in ("ingest", "register_frames", "remove_spikes", "align_zlp", "calibrate", "fit_peaks"):
        words = [step, *([str(file)] if step == "ingest" else []), "--dataset-folder", str(tmp_path / "wide")]
        words += ["--threads", "2", "--set", "fit_peaks.profile_below_sigma=0"]
        done = subprocess.run(
            [sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        peak_bytes[step] = 1024 * int(done.stdout.splitlines()[-1])
    print(peak_bytes)
    expected = 1e6 * expected_mb(ScanSize(128 * 512, 256), "fit_peaks", 2)
    assert 0.7 * expected < peak_bytes["fit_peaks"] <= expected
