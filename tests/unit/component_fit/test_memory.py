"""Memory of a fit on the processor: what is allocated is what the model says."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit.fit import fit_components
from phonon_eels.component_fit.memory import OTHER_BYTES, expected_bytes, position_bytes
from phonon_eels.component_fit.model import Component, build_model
from phonon_eels.io.read import read
from tests.workflow.large_counts import write_large_counts

PLACES = {"pair": (40.0, 12.0), "bio": (57.0, 9.0), "sro": (67.0, 9.0), "high": (78.0, 9.0)}
WINDOW_MEV = (28.0, 115.0)


def parts() -> list[Component]:
    """Four Gaussians on a power law, 14 parameters."""
    peaks = [
        Component("gaussian", name, {"centre": at, "fwhm": wide}, {"centre": (at - 5.0, at + 5.0), "fwhm": (5.0, 20.0)})
        for name, (at, wide) in PLACES.items()
    ]
    return [*peaks, Component("power_law", "tail")]


def peak_and_model(counts, energies_mev, gain: float, threads: int, covariance: bool) -> tuple[int, float]:
    """Return what a fit allocated at most, and what the model says; all is compiled and loaded before."""
    backend = CpuBackend(threads)
    words = {"window_mev": WINDOW_MEV, "gain": gain, "backend": backend, "covariance": covariance}
    fit_components(counts[:2], energies_mev, parts(), **words)
    inside = (energies_mev >= WINDOW_MEV[0]) & (energies_mev <= WINDOW_MEV[1])
    tracemalloc.start()
    try:
        fit = fit_components(counts, energies_mev, parts(), **words)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fit.usable.mean() > 0.95
    return peak, expected_bytes(counts, build_model(parts(), energies_mev[inside]), covariance, backend)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "threads", "covariance"),
    [
        ((64, 128, 2048), 1, False),
        ((64, 128, 2048), 2, False),
        ((64, 128, 2048), 2, True),
        ((128, 256, 1024), 1, False),
        ((128, 256, 1024), 2, True),
    ],
)
def test_a_cube_on_disk(tmp_path: Path, shape: tuple[int, int, int], threads: int, covariance: bool) -> None:
    image = read(write_large_counts(tmp_path / "scan.ndata1", *shape))
    peak, model = peak_and_model(image.counts, image.energy.energies_mev, image.noise.gain, threads, covariance)
    print(f"{peak / 1e6:.1f} of {model / 1e6:.1f} MB: {peak / model:.3f}")
    assert 0.8 * model <= peak <= model


@pytest.mark.slow
def test_a_cube_mapped_from_disk(tmp_path: Path) -> None:
    """Nothing of it is allocated: what is left is results."""
    image = read(write_large_counts(tmp_path / "scan.ndata1", 64, 128, 256))
    np.save(tmp_path / "counts.npy", np.asarray(image.counts))
    mapped = np.load(tmp_path / "counts.npy", mmap_mode="r")
    peak, model = peak_and_model(mapped, image.energy.energies_mev, image.noise.gain, 1, True)
    print(f"{peak / 1e6:.1f} of {model / 1e6:.1f} MB: {peak / model:.3f}")
    assert 0.8 * model <= peak <= model


def test_every_part_counts() -> None:
    """4 rows of 10 MB as float64, 2-byte counts in chunks of two rows: a block of one thread is a chunk, of four threads a row of one."""
    model = build_model(parts(), np.arange(28.0, 115.0))
    shape = (4, 1000, 1250)
    cube = da.zeros(shape, chunks=(2, -1, -1), dtype=np.uint16)
    assert position_bytes(model, False) == 8 * (14 + 14 + 6 + 1)
    assert position_bytes(model, True) - position_bytes(model, False) == 8 * 14**2
    results, row = 4000 * 280, 1000 * 1250 * 2
    one = expected_bytes(cube, model, False, CpuBackend(1))
    assert one == pytest.approx(OTHER_BYTES + results + 2 * row + 0.1 * results)
    many = expected_bytes(cube, model, False, CpuBackend(4))
    assert many == pytest.approx(OTHER_BYTES + results + 4 * 3 * row + 0.1 * results)
    there = expected_bytes(np.empty(shape, np.uint16), model, False, CpuBackend(1))
    assert there == pytest.approx(OTHER_BYTES + results + 4000 * 8 * (28 + 6))


def test_it_is_said_beforehand(caplog: pytest.LogCaptureFixture) -> None:
    energies = np.arange(20.0, 60.0, 0.5)
    curve = 500.0 * np.exp(-((energies - 40.0) ** 2) / 18.0) + 20.0
    peak = Component("gaussian", "mode", start={"centre": 41.0, "fwhm": 6.0})
    with caplog.at_level(logging.DEBUG, logger="phonon_eels.component_fit.fit"):
        fit_components(curve, energies, [peak, Component("offset", "background")], backend=CpuBackend(1))
    assert "at most 3 MB of arrays beside the program" in caplog.text
