"""The drivers of the GPU under Numba's CUDA simulator: batches, streams, scratch and kernels give what the processor gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.kernels import device
from tests.parity.cases import CASES, TOLERANCE, assert_agree

pytestmark = pytest.mark.skipif(device.UNDER_SIMULATOR, reason="compares with the compiled kernels")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Return what all drivers gave under the simulator, from one process."""
    out = tmp_path_factory.mktemp("simulator") / "out.npz"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.parity.simulate", str(out), *dict(CASES)]
    done = subprocess.run(command, check=False, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(out)


@pytest.mark.parametrize("name", list(dict(CASES)))
def test_driver_equals_the_processor(name, simulated):
    case = dict(CASES)[name]()
    arguments = case.fresh()
    CpuBackend(1).run(case.block, *arguments)
    given = {place: simulated[f"{name}/{place}"] for place in case.results}
    assert_agree(case, dict(enumerate(arguments)), given, TOLERANCE)


@pytest.mark.parametrize("name", list(dict(CASES)))
def test_memory_is_what_the_model_says(name, simulated):
    allocated, predicted = simulated[f"{name}/bytes"]
    assert 0.8 * predicted <= allocated <= predicted
