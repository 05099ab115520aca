"""The drivers on a real GPU: they agree with the processor, and no result depends on how they are launched."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.cuda.find import why_no_cuda
from phonon_eels.kernels import device
from phonon_eels.kernels.fourier import (
    filter_matrix,
    ratio_filter,
    scattering_bytes,
    scattering_filters,
    single_scattering,
)
from phonon_eels.lattice.frame_match import correlation_map
from phonon_eels.lattice.registration import mean_autocorrelation
from phonon_eels.steps.carried_noise import _coloured
from phonon_eels.steps.denoise import _eigen
from tests.parity.cases import CASES, TOLERANCE, assert_agree

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.UNDER_SIMULATOR, reason="the simulator is no GPU"),
    pytest.mark.skipif(why_no_cuda() is not None, reason=f"needs a CUDA device: {why_no_cuda()}"),
]
NAMES = list(dict(CASES))


def on_device(name, **launch):
    """Return a case and the arguments after a run on the device."""
    from phonon_eels.backends.cuda.backend import CudaBackend

    case = dict(CASES)[name]()
    arguments = case.fresh()
    CudaBackend(1, **launch).run(case.block, *arguments)
    return case, arguments


@pytest.mark.parametrize("name", NAMES)
def test_device_equals_the_processor(name):
    case, theirs = on_device(name)
    ours = case.fresh()
    CpuBackend(1).run(case.block, *ours)
    assert_agree(case, dict(enumerate(ours)), dict(enumerate(theirs)), TOLERANCE)


@pytest.mark.parametrize(
    "launch", [{"threads_per_block": 32}, {"threads_per_block": 128}, {"largest_batch": 2}], ids=str
)
@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_the_launch(name, launch):
    case, usual = on_device(name)
    _, other = on_device(name, **launch)
    for place in case.results:
        np.testing.assert_array_equal(other[place], usual[place], err_msg=f"argument {place}")


def whole_arrays():
    """Return whole-array work with arguments of a scan's size: (function, arrays, shared, bytes of a row)."""
    random = np.random.default_rng(7)
    response = np.exp(-0.5 * (np.arange(-30.0, 31.0) / 4.0) ** 2)
    losses = random.poisson(20.0, (3000, 301)).astype(float)
    filters = scattering_filters(response, 30, 301, -12.5)
    frames = ndimage.gaussian_filter(random.standard_normal((6, 60, 50)), (0.0, 1.0, 1.0))
    covered = random.random((60, 50)) > 0.05
    ratio = ratio_filter(response, 30, 602, 8.0)
    return {
        "fourier-log": (single_scattering, (losses, np.full(3000, 1e5)), filters, scattering_bytes(filters[0])),
        "fourier-ratio": (filter_matrix, (np.eye(301),), (ratio,), None),
        "eigenvectors": (_eigen, (np.diag(np.arange(1.0, 65.0)) + 0.01 * np.ones((64, 64)),), (), None),
        "autocorrelation": (mean_autocorrelation, (frames,), (), None),
        "correlation": (correlation_map, (frames[0], covered, frames[1]), (), None),
        "shared-noise": (_coloured, (random.standard_normal((400, 306)),), (np.linspace(1.0, 2.0, 154),), None),
    }


@pytest.mark.parametrize("name", list(whole_arrays()))
def test_whole_arrays_equal_the_processor(name):
    from phonon_eels.backends.cuda.backend import CudaBackend

    function, arrays, shared, row_bytes = whole_arrays()[name]
    ours, theirs = (
        backend.whole_array(function, *arrays, shared=shared, row_bytes=row_bytes)
        for backend in (CpuBackend(1), CudaBackend(1))
    )
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (ours, theirs)), strict=True):
        assert type(b) is np.ndarray
        np.testing.assert_allclose(b, a, atol=1e-10 * np.abs(a).max(), rtol=0.0)


def test_the_pool_s_memory_is_used_again():
    import cupy

    on_device("forward")
    kept = cupy.get_default_memory_pool().total_bytes()
    assert kept > 0
    on_device("forward")
    assert cupy.get_default_memory_pool().total_bytes() == kept
    assert cupy.get_default_memory_pool().used_bytes() == 0
