"""The GPU's kernels compile to PTX, and assemble, without a GPU: the very kernels and argument types that the drivers launch."""

from __future__ import annotations

import pytest

from phonon_eels.backends.cuda.backend import CALLS
from phonon_eels.kernels import device
from tests.parity import ptx
from tests.parity.cases import CASES

ARCHITECTURES = ((8, 0), (9, 0))
FRAMES = ("forward-frames", "forward-frames-intervals", "covariance-frames")
LARGE = (
    "forward",
    "forward-intervals",
    *FRAMES,
    "covariance",
    "covariance-frames",
    "background-power-law",
    "components",
)
"""Kernels that the compiler works on for half a minute and more; the others take seconds."""

pytestmark = pytest.mark.skipif(device.UNDER_SIMULATOR, reason="the simulator compiles nothing")


def call_of(name):
    """Return the driver's call for a case."""
    case = dict(CASES)[name]()
    return dict(CALLS)[case.block.__name__](*case.arguments)


def kernels():
    """Return one case for each kernel, and for each that takes arrays of other dimensions; the large ones marked slow."""
    seen, chosen = set(), []
    for name, _ in CASES:
        call = call_of(name)
        kernel = call.kernel.py_func.__name__, *(getattr(kind, "ndim", None) for kind in call.signature())
        if kernel not in seen:
            seen.add(kernel)
            chosen.append(pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()))
    return chosen


def test_every_driver_has_a_case():
    assert {dict(CASES)[name]().block.__name__ for name, _ in CASES} == set(dict(CALLS))


@pytest.mark.parametrize("cc", ARCHITECTURES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("name", kernels())
def test_kernel_compiles(name, cc, tmp_path, record_property):
    if name in FRAMES and cc != ARCHITECTURES[-1]:
        pytest.skip("the same source as without frames, which is compiled for this architecture too")
    call = call_of(name)
    code = ptx.compile_kernel(call.kernel, call.signature(), cc)
    assert f".target sm_{cc[0]}{cc[1]}" in code
    assert code.count(".entry") == 1
    assert call.kernel.py_func.__name__ in code
    assert "fma.rn.f64" in code or "add.f64" in code, "float64 throughout"
    if name in LARGE and (cc != ARCHITECTURES[-1] or name in ("forward-intervals", *FRAMES)):
        return  # assembling takes longer than compiling; its result hardly depends on the architecture
    found = ptx.assemble(code, cc, tmp_path)
    if found is None:
        pytest.skip("PTX was made and looked at; the nvidia-cuda-nvcc wheel's assembler is not installed")
    for key, value in found.items():
        record_property(key, value)
    assert found["registers"] <= 255
    # Spilled registers go to memory that every thread has of its own; more than this and the share left free is too small.
    assert found["stack_bytes"] < 8192
