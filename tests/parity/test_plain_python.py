"""The kernels as plain Python (as the CUDA simulator runs them) equal the compiled ones."""

import os
import subprocess
import sys

import numpy as np
import pytest

from phonon_eels.backends.spectra import fit_block
from phonon_eels.forward.background import make_background
from phonon_eels.kernels import device
from phonon_eels.kernels.likelihood import POISSON
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.response import FineGrid, ZeroLossShape, build_mode_tables

TOLERANCE = 1e-6
"""Of a standard deviation's size: sums in another order and fused multiply-adds; measured 1e-9 or less."""
OUTPUTS = ("params", "std", "outcome", "status", "score", "information", "area_slope")
KEPT = slice(-11, -4)

PLAIN = """
import sys, numpy as np
from phonon_eels.kernels import device
assert device.UNDER_SIMULATOR
from phonon_eels.backends.spectra import fit_block
given = np.load(sys.argv[1], allow_pickle=False)
arguments = [given[f"a{k:02d}"] for k in range(len(given.files))]
arguments = [a.item() if a.ndim == 0 else a for a in arguments]
with np.errstate(all="ignore"):
    fit_block(*arguments)
np.savez(sys.argv[2], *arguments[-11:-4])
"""


def batch():
    """Return the arguments of `fit_block` for four spectra, one of them empty and one with bad channels."""
    random = np.random.default_rng(0)
    shape, dispersion = ZeroLossShape(7.5, 1.6, 1.9), 1.0
    channels = np.arange(-20, 75)
    grid = FineGrid(channels, dispersion, 4.0, 120.0)
    tables = build_mode_tables(grid, shape, np.array([[36.0, 46.0]]), np.array([4.0]), 25.2, "oscillator")
    energies, n, n_params = channels * dispersion, 4, 11
    node = round((42.0 - tables.first_node_mev[0]) / tables.node_step_mev)
    line = tables.values[0, 0, node, 0, 6:-6]
    mean = 1e4 * split_pearson7(energies, *vars(shape).values()) + 2e3 * line + 2.0
    background = make_background("constant", energies, 7.5, 25.2)
    counts = np.zeros((n, 110))
    counts[:, 5 : 5 + channels.size] = random.poisson(mean, (n, channels.size))
    counts[2] = 0.0
    bad = np.zeros(counts.shape, bool)
    bad[3, 40:43] = True
    start = np.array([9e3, 0.1, 0, 0, 0, 1.0, 0, 0, 1.5e3, 41.5, 0])
    free = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0], np.int8)
    infinite = np.full(n_params, np.inf)
    lower, upper = -infinite, infinite.copy()
    lower[1:5], upper[1:5] = [-2.0, -0.5, -0.5, -0.5], [2.0, 0.5, 0.5, 0.5]
    lower[9], upper[9] = 36.0, 46.0
    precision = np.zeros(n_params)
    precision[2:5] = [400.0, 2500.0, 2500.0]
    return [
        counts, bad, np.empty((0, 0)), np.full(n, 25), 1.0, 0.0, 1.0, np.array([0.8, 0.1]), POISSON, -20,
        energies, dispersion, np.array([7.5, 1.6, 1.9]), background.rows, background.code, np.empty((0, 0)), tables.values, tables.first_node_mev, tables.node_step_mev,
        np.tile(free, (n, 1)), lower, upper, np.zeros((n, n_params)), precision, 12,
        np.tile(start, (n, 1)), np.empty((n, n_params)), np.empty((n, 7)), np.empty(n, np.int64),
        np.empty((n, 2)), np.empty((n, 2, 2)), np.empty((n, 1, 2)), 10.0, 3.0, np.empty((0, 1, 4)),
        np.empty((0, 1), np.int64),
    ]  # fmt: skip


@pytest.mark.skipif(device.UNDER_SIMULATOR, reason="compares with the compiled kernels")
def test_fit_of_a_batch(tmp_path):
    arguments = batch()
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
