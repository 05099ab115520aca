"""Mutated copies of real and written files through every reader: arrays as declared, or our error; nothing else."""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from phonon_eels.io.cubes import write_image
from phonon_eels.io.export import write_hspy
from phonon_eels.io.vendor import memory_bound
from tests.unit.io.scans import small_scan

CASES = {
    "EELS_SI.dm4": 300, "EELS_spectrum.dm3": 300, "EELS_STO.dm3": 100, "LSMO_linescan_low_loss.hdf5": 300,
    "example1.msa": 300, "velox.emd": 100, "si_uint16.ndata1": 150, "si_uint16.nhdf": 150,
    "scan.hspy": 300, "image.zspy": 300,
}  # fmt: skip


def made(name: str, folder: Path, shared_data: Path) -> Path:
    """A whole file of the format."""
    if name == "scan.hspy":
        return write_hspy(small_scan(), folder / name)
    if name == "image.zspy":
        write_image(small_scan(), folder)
        return folder / name
    if name == "velox.emd":
        with zipfile.ZipFile(shared_data / "velox" / "velox_EELS_EDS.zip") as archive:
            (member,) = [item for item in archive.namelist() if item.endswith(".emd")]
            (folder / name).write_bytes(archive.read(member))
        return folder / name
    (found,) = shared_data.rglob(name)
    return found


def fuzz(name: str, folder: Path, shared_data: Path, cases: int) -> Counter[str]:
    source = made(name, folder, shared_data)
    work = folder / "work"
    work.mkdir()
    command = [sys.executable, "-m", "tests.unit.io.fuzz_worker", str(source), str(work), "0", str(cases)]
    env = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[3]
    env["PYTHONPATH"] = f"{root}{os.pathsep}{env.get('PYTHONPATH', '')}"
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{name}: ended with {done.returncode} in case {lines[-1:]}:\n{done.stderr[-3000:]}"
    assert not list(folder.rglob("CANARY")), "code from the file was run"
    assert len(lines) == cases + 1
    assert 1024 * int(lines[-1]) < memory_bound(source), "memory beyond the bound declared from the file's size"
    return Counter(line.partition(" ")[2] for line in lines[:-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(CASES))
def test_mutated_files(name: str, tmp_path: Path, shared_data: Path) -> None:
    outcomes = fuzz(name, tmp_path, shared_data, CASES[name])
    assert outcomes["refused"] > 0, outcomes
    assert outcomes["read"] > 0, outcomes


def test_enough_cases_are_tried() -> None:
    assert sum(CASES.values()) >= 2000
