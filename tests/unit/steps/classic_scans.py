"""Small aligned scans for the steps of the classic route."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage
from phonon_eels.steps.spec import StepContext

OFFSET_MEV = -60.0
ALIGNED = {
    "zlp_fwhm_mev": {"value": 8.0},
    "zlp_tail_loss": {"value": 1.6},
    "zlp_tail_gain": {"value": 1.6},
    "alignment": "resample",
}


def axis(dispersion_mev: float = 1.0, last_mev: float = 240.0) -> EnergyAxis:
    return EnergyAxis(OFFSET_MEV, dispersion_mev, round((last_mev - OFFSET_MEV) / dispersion_mev))


def elastic(energies_mev: np.ndarray, height: float = 1e5) -> np.ndarray:
    return height * split_pearson7(energies_mev, 8.0, 1.6, 1.6)


def phonons(energies_mev: np.ndarray, height: float = 100.0, temperature_k: float = 293.0) -> np.ndarray:
    """Three Gaussians, and on the gain side what detailed balance leaves of them."""
    lines = sum(np.exp(-0.5 * ((np.abs(energies_mev) - place) / 4.0) ** 2) for place in (40.0, 57.0, 78.0))
    return height * lines * np.where(energies_mev < 0.0, np.exp(energies_mev / (0.0861733 * temperature_k)), 1.0)


def image_of(counts: Any, energy: EnergyAxis, **fields: Any) -> SpectrumImage:
    rows, columns = counts.shape[:2]
    scan = (ScanAxis("row", 0.1, rows), ScanAxis("column", 0.1, columns))
    return SpectrumImage(counts=counts, energy=energy, scan=scan, **fields)


def noisy_image(
    rows: int = 4, columns: int = 3, energy: EnergyAxis | None = None, seed: int = 0, **fields: Any
) -> SpectrumImage:
    energy = energy or axis()
    mean = elastic(energy.energies_mev) + phonons(energy.energies_mev) + 2.0
    counts = np.random.default_rng(seed).poisson(np.broadcast_to(mean, (rows, columns, mean.size)))
    return image_of(counts.astype(np.int32), energy, **fields)


def context_of(
    threads: int = 1, summaries: Mapping[str, Any] | None = None, maps: Mapping[str, Any] | None = None
) -> StepContext:
    return StepContext(
        material=load_material("bi2212"),
        backend=CpuBackend(threads),
        route="classic",
        summaries={"align_zlp": ALIGNED} if summaries is None else summaries,
        maps=maps or {},
    )
