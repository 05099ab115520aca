"""The drivers on a real GPU: they agree with the processor, and no result depends on how they are launched."""

from __future__ import annotations

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.cuda.find import why_no_cuda
from phonon_eels.kernels import device
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
