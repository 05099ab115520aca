"""Files far larger than the memory they may take: opened at once, streamed through `ingest`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phonon_eels.io.read import read
from tests.workflow.large_files import write_dm4, write_ndata1

OPEN = """
import json, resource, sys, time
import phonon_eels.io.read, rsciio.digitalmicrograph, dask.array, h5py, skimage
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
phonon_eels.read(sys.argv[2])  # the small file: what is imported late
before, begin = peak(), time.process_time()
image = phonon_eels.read(sys.argv[1])
told = {"mb": peak() - before, "seconds": time.process_time() - begin, "shape": image.shape}
corner = image.counts[0, 0, :8].compute()
print(json.dumps({**told, "mb_with_a_spectrum": peak() - before}))
"""
WRITERS = {"scan.ndata1": write_ndata1, "scan.dm4": write_dm4}


def run(*command: str) -> str:
    root = str(Path(__file__).parents[2])
    env = {
        **os.environ,
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_made_files_are_what_they_say(name: str, tmp_path: Path) -> None:
    image = read(WRITERS[name](tmp_path / name, (3, 4, 50)))
    assert image.shape == (3, 4, 50)
    assert image.energy.dispersion_mev == pytest.approx(1.0)
    assert image.energy.offset_mev == pytest.approx(-100.0, abs=1e-6)
    assert image.scan[0].step_nm == pytest.approx(0.05)
    assert not np.asarray(image.counts).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_five_gigabytes_open_at_once(name: str, tmp_path: Path) -> None:
    """The files are holes: 5 GB to every reader, a few kilobytes on the disk. How long it took is printed (`-s`)."""
    path = WRITERS[name](tmp_path / name, (1250, 1000, 2000))
    assert path.stat().st_size > 5_000_000_000
    small = WRITERS[name](tmp_path / f"small{path.suffix}", (3, 4, 50))
    told = json.loads(run("-c", OPEN, str(path), str(small)))
    assert told["shape"] == [1250, 1000, 2000]
    assert told["mb"] < 200
    assert told["mb_with_a_spectrum"] < 300, "one spectrum needs one block, not the file"
    print(f"{name}: {told['seconds']:.2f} s of processor time, {told['mb']:.0f} MB beyond the imports")


PEAK_OF_A_RUN = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "phonon_eels", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ingest_streams(tmp_path: Path) -> None:
    """1.5 GB through `ingest` in less memory than the file has bytes."""
    shape = (375, 1000, 2000)
    rng = np.random.default_rng(0)
    energies = np.arange(2000) - 100.0
    mean = 2000.0 * np.exp(-0.5 * (energies / 6.0) ** 2) + 3.0
    rows = [rng.poisson(np.broadcast_to(mean, shape[1:])).astype(np.uint16) for _ in range(3)]
    path = write_ndata1(tmp_path / "scan.ndata1", shape, (rows[number % 3] for number in range(shape[0])))
    # A process of its own in between, whose only child is the program: the largest child of this one may be another's.
    words = ["ingest", str(path), "--dataset-folder", str(tmp_path / "results" / "scan"), "--threads", "2"]
    done = subprocess.run([sys.executable, "-c", PEAK_OF_A_RUN, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    peak = float(done.stdout.split()[-1]) / 1e6
    assert peak < 1.2, f"{peak:.2f} GB"
    assert (tmp_path / "results" / "scan" / "ingest" / "image.zspy").is_dir()
