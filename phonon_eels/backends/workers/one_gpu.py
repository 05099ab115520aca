"""One GPU for each worker of a machine."""

from __future__ import annotations

import os
from typing import Any

from distributed import WorkerPlugin


class OneGpu(WorkerPlugin):  # type: ignore[misc]
    """Let a worker see one device, before it loads anything of CUDA.

    Parameters
    ----------
    n_devices
        Devices of the machine, which workers share in turn. If CUDA_VISIBLE_DEVICES names some, only those are dealt out.
    """

    name = "phonon_eels: one GPU for each worker"

    def __init__(self, n_devices: int) -> None:
        self.n_devices = n_devices

    def setup(self, worker: Any) -> None:
        """Choose by the worker's number; one that replaces a dead one has its number and so its device."""
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = given.split(",") if given else [str(number) for number in range(self.n_devices)]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[int(worker.name) % len(devices)]
