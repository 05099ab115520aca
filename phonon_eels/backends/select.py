"""Choose the device by name."""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal

from phonon_eels.backends.base import Backend
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.errors import DeviceError

log = logging.getLogger(__name__)


def select_backend(device: Literal["auto", "cpu", "cuda"] = "auto", threads: int | None = None) -> Backend:
    """Return the backend for a device.

    Raises
    ------
    DeviceError
        If "cuda" is asked for and cannot be had; there is no silent fallback.
    """
    if device == "cuda":
        if importlib.util.find_spec("phonon_eels.backends.cuda") is None:
            raise DeviceError("device = cuda: this version has no CUDA backend yet; use --device cpu")
        raise DeviceError("device = cuda: no CUDA device was found; use --device cpu or auto")
    if device == "auto":
        log.info("device auto: cpu (no CUDA backend in this version)")
    return CpuBackend(threads)
