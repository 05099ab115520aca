"""Compile kernels to PTX on a machine without a GPU."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from numba import cuda, types
from numba.cuda import cuda_paths, dispatcher
from numba.cuda.cudadrv import nvrtc


@contextlib.contextmanager
def no_driver(cc: tuple[int, int]) -> Iterator[None]:
    """Answer what numba.cuda asks of a driver and of NVRTC; the compiler itself (libNVVM) is the real one."""
    device = SimpleNamespace(compute_capability=cc, MAX_THREADS_PER_BLOCK=1024)
    with (
        mock.patch.object(dispatcher, "get_current_device", return_value=device),
        mock.patch.object(nvrtc, "get_arch_option", lambda major, minor, arch="": f"compute_{major}{minor}{arch}"),
        mock.patch.object(cuda_paths, "_get_nvrtc_path", return_value=None),
    ):
        yield


def compile_kernel(kernel, signature, cc: tuple[int, int]) -> str:
    """Return the PTX of a kernel (as `cuda.jit` made it) for argument types and a compute capability."""
    with no_driver(cc):
        ptx, _ = cuda.compile(kernel.py_func, types.void(*signature), cc=cc, device=False, abi="numba")
    return str(ptx)


def assemble(ptx: str, cc: tuple[int, int], folder: Path) -> dict[str, int] | None:
    """Return registers, stack and spills that the assembler of the nvcc wheel reports; None where it is not there."""
    program = assembler()
    if program is None:
        return None
    source = folder / "kernel.ptx"
    source.write_text(ptx)
    done = subprocess.run(
        [str(program), "-v", f"-arch=sm_{cc[0]}{cc[1]}", str(source), "-o", str(folder / "kernel.cubin")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = {
        name: max(map(int, re.findall(pattern, done.stderr)), default=0)
        for name, pattern in (
            ("registers", r"Used (\d+) registers"),
            ("stack_bytes", r"(\d+) bytes stack frame"),
            ("spill_bytes", r"(\d+) bytes spill stores"),
        )
    }
    assert found["registers"] > 0, done.stderr[-2000:]
    return found


def assembler() -> Path | None:
    """Return the assembler of the nvidia-cuda-nvcc wheel."""
    from importlib.metadata import PackageNotFoundError, distribution

    with contextlib.suppress(PackageNotFoundError):
        place = Path(str(distribution("nvidia-cuda-nvcc-cu12").locate_file("nvidia/cuda_nvcc/bin/ptxas")))
        return place if place.is_file() else None
    return None
