"""Choose the device by name."""

from __future__ import annotations

import logging
from typing import Literal

from phonon_eels.backends.base import Backend
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.cuda.find import why_no_cuda
from phonon_eels.errors import DeviceError

log = logging.getLogger(__name__)


def select_backend(
    device: Literal["auto", "cpu", "cuda"] = "auto", threads: int | None = None, *, at_once_bytes: float = 0.0
) -> Backend:
    """Return the backend for a device; cubes up to `at_once_bytes` it computes at once, see `CpuBackend`.

    "auto" takes the processor, and says so if there is a GPU: no GPU has run these kernels in this project's tests yet
    (docs/adr/0008), so it is taken only when it is asked for.

    Raises
    ------
    DeviceError
        If "cuda" is asked for and cannot be had; there is no silent fallback.
    """
    backend = _backend(device, threads)
    backend.at_once_bytes = at_once_bytes
    return backend


def _backend(device: Literal["auto", "cpu", "cuda"], threads: int | None) -> CpuBackend:
    if device == "cpu":
        return CpuBackend(threads)
    reason = why_no_cuda()
    if device == "cuda":
        if reason is not None:
            raise DeviceError(f"device = cuda: {reason}; use --device cpu or auto")
        from phonon_eels.backends.cuda.backend import CudaBackend

        return CudaBackend(threads)
    log.info("device auto: cpu (%s)", reason or "a CUDA device is there; --device cuda takes it, after `pytest -m gpu`")
    return CpuBackend(threads)
