"""HyperSpy finds the signal type by the entry point alone, in a wheel as in an editable installation."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

IN_A_NOTEBOOK = """
import sys
import hyperspy.api as hs
import numpy as np
assert "phonon_eels" not in sys.modules, "HyperSpy must not import us before we are needed"
s = hs.signals.Signal1D(np.ones((2, 3, 8)))
s.axes_manager[-1].units = "eV"
s.set_signal_type("PhononEELS")
print(type(s).__module__, type(s).__name__, type(s.as_lazy()).__name__)
s.set_signal_type("vibrational EELS")
print(type(s).__name__)
print(hs.print_known_signal_types())
model = s.create_model(auto_background=False, auto_add_edges=False)
"""


def test_entry_point(repository: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=repository, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The entry point of the editable installation of the test run comes later on the path and has the same name.
    env = {**os.environ, "PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NOTEBOOK], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["phonon_eels.signals.spectrum PhononEELS LazyPhononEELS", "PhononEELS"]
    assert any("PhononEELS" in line and "phonon_eels" in line for line in lines[2:])
