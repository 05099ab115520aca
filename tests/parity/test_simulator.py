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
from tests.parity.cases import CASES

TOLERANCE = 1e-6
"""Largest difference over the largest value of a result: the order of sums and fused multiply-adds; measured 1e-8 or less."""

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
    for place in case.results:
        ours, theirs = arguments[place], simulated[f"{name}/{place}"]
        assert ours.dtype == theirs.dtype
        assert not np.array_equal(ours, case.arguments[place]), "nothing was computed"
        if ours.dtype.kind in "biu":
            np.testing.assert_array_equal(theirs, ours, err_msg=f"argument {place}")
            continue
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs), err_msg=f"argument {place}")
        ours, theirs = np.delete(ours, case.undetermined, 0), np.delete(theirs, case.undetermined, 0)
        ours, theirs = np.nan_to_num(ours, posinf=0.0, neginf=0.0), np.nan_to_num(theirs, posinf=0.0, neginf=0.0)
        scale = np.maximum(np.abs(ours).max(axis=0), dict(case.least_scale).get(place, 1e-3))
        assert (np.abs(ours - theirs) / scale).max() < TOLERANCE, f"argument {place}"


@pytest.mark.parametrize("name", list(dict(CASES)))
def test_memory_is_what_the_model_says(name, simulated):
    allocated, predicted = simulated[f"{name}/bytes"]
    assert 0.8 * predicted <= allocated <= predicted
