"""Run as a program under NUMBA_ENABLE_CUDASIM=1: one scan on three workers that have two simulated devices between them.

Usage: python -m tests.unit.backends.simulated_gpus OUT.json   Writes which worker saw which device, before and after all were
started again, which kind of backend worked on each block, whether its results are the processor's, and what the log said.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any
from unittest import mock

import numpy as np

from phonon_eels.backends.deconvolve import filter_block
from phonon_eels.backends.workers.connect import workers_backend
from phonon_eels.kernels.device import UNDER_SIMULATOR
from phonon_eels.kernels.fourier import filter_matrix

WORKERS, DEVICES, ROWS, COLUMNS, CHANNELS = 3, 2, 12, 2, 16


def visible() -> str:
    """Return which devices this process may see."""
    return os.environ["CUDA_VISIBLE_DEVICES"]


def main(out: str) -> None:
    """Run the scan."""
    assert UNDER_SIMULATOR
    said: list[str] = []
    logger = logging.getLogger("phonon_eels")
    logger.addHandler(mock.Mock(level=logging.WARNING, handle=lambda record: said.append(record.getMessage())))
    random = np.random.default_rng(0)
    spectra = random.standard_normal((ROWS, COLUMNS, CHANNELS))
    transfer = 1.0 / (1.0 + np.arange(CHANNELS + 1.0))
    matrix = random.standard_normal((CHANNELS, CHANNELS))
    with (
        mock.patch("phonon_eels.backends.cuda.find.n_devices", return_value=DEVICES),
        workers_backend(workers=WORKERS, device="cuda") as many,
    ):
        client: Any = many._client
        client.wait_for_workers(WORKERS)

        def block(first: int, counts: np.ndarray) -> tuple[str, str, np.ndarray]:
            flat = counts.reshape(-1, CHANNELS)
            filtered = np.empty_like(flat)
            many.run(filter_block, flat, matrix, filtered)
            whole = many.whole_array(filter_matrix, np.eye(CHANNELS), shared=(transfer,))
            return visible(), type(many).__name__, filtered @ whole

        names = {address: str(worker["name"]) for address, worker in client.scheduler_info()["workers"].items()}
        first = {names[address]: device for address, device in client.run(visible).items()}
        results = many.map_rows(block, [spectra])
        client.restart()
        names = {address: str(worker["name"]) for address, worker in client.scheduler_info()["workers"].items()}
        again = {names[address]: device for address, device in client.run(visible).items()}
    found = np.concatenate([result for _, _, result in results])
    unit = np.eye(CHANNELS)
    mirrored = np.fft.rfft(np.concatenate([unit, unit[:, ::-1]], axis=1), axis=1)
    wanted = spectra.reshape(-1, CHANNELS) @ matrix @ np.fft.irfft(mirrored * transfer, axis=1)[:, :CHANNELS]
    told = {
        "first": first, "again": again, "n_blocks": len(results), "seen": sorted({device for device, _, _ in results}),
        "kinds": sorted({kind for _, kind, _ in results}), "off": float(np.abs(found - wanted).max()), "said": said,
    }  # fmt: skip
    with open(out, "w", encoding="utf-8") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main(sys.argv[1])
