"""The kernels as plain Python (as the CUDA simulator runs them) equal the compiled ones."""

import os
import subprocess
import sys

import numpy as np
import pytest

from phonon_eels.backends.spectra import fit_block
from phonon_eels.kernels import device
from tests.parity.cases import forward_case

TOLERANCE = 1e-6
"""Of a standard deviation's size: sums in another order and fused multiply-adds; measured 1e-9 or less."""
OUTPUTS = ("params", "std", "outcome", "status", "score", "information", "area_slope")
KEPT = slice(-11, -4)

PLAIN = """
import sys, numpy as np
from phonon_eels.kernels import device
from tests.parity.cases import forward_case
assert device.UNDER_SIMULATOR
from phonon_eels.backends.spectra import fit_block
given = np.load(sys.argv[1], allow_pickle=False)
arguments = [given[f"a{k:02d}"] for k in range(len(given.files))]
arguments = [a.item() if a.ndim == 0 else a for a in arguments]
with np.errstate(all="ignore"):
    fit_block(*arguments)
np.savez(sys.argv[2], *arguments[-11:-4])
"""


@pytest.mark.skipif(device.UNDER_SIMULATOR, reason="compares with the compiled kernels")
def test_fit_of_a_batch(tmp_path):
    arguments = forward_case("profile", 4).fresh()  # the third empty, the fourth with bad channels
    np.savez(tmp_path / "in.npz", **{f"a{k:02d}": value for k, value in enumerate(arguments)})
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")], check=True, env=environment
    )
    fit_block(*arguments)
    plain = np.load(tmp_path / "out.npz")
    compiled = dict(zip(OUTPUTS, arguments[KEPT], strict=True))
    assert compiled["status"][[0, 1, 3]].tolist() == [0, 0, 0]
    fitted = np.array([True, True, False, True])
    for k, name in enumerate(OUTPUTS):
        ours, theirs = compiled[name], plain[f"arr_{k}"]
        if name == "status":
            np.testing.assert_array_equal(ours, theirs)
            continue
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=name)
        ours, theirs = np.nan_to_num(ours[fitted]), np.nan_to_num(theirs[fitted])
        scale = np.maximum(np.abs(ours).max(axis=0), 1e-3)
        if name == "score":  # zero at the optimum: its scale is its deviation
            scale = np.sqrt(np.diagonal(compiled["information"][fitted], axis1=1, axis2=2).max(axis=0))
        assert (np.abs(ours - theirs) / scale).max() < TOLERANCE, name
