"""One GPU for each worker of a machine."""

from __future__ import annotations

import os
from typing import Any


def one_gpu_each(n_devices: int) -> Any:
    """Return the plugin that lets a worker see one device, before it loads anything of CUDA.

    Parameters
    ----------
    n_devices
        Devices of the machine, which workers share in turn. If CUDA_VISIBLE_DEVICES names some, only those are dealt out.
    """
    from distributed import WorkerPlugin

    class OneGpu(WorkerPlugin):  # type: ignore[misc]
        name = "phonon_eels: one GPU for each worker"

        def setup(self, worker: Any) -> None:
            choose_device(int(worker.name), n_devices)

    return OneGpu()


def choose_device(number: int, n_devices: int) -> None:
    """Leave one device visible; a worker that replaces a dead one has its number and so its device."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = given.split(",") if given else [str(device) for device in range(n_devices)]
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
