"""Small spectrum images for the tests of files."""

from typing import Any

import numpy as np

from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage


def small_scan(*, rows: int = 4, columns: int = 5, channels: int = 64, **changes: Any) -> SpectrumImage:
    """A zero-loss peak at 0 meV on a Poisson background; every position differs."""
    random = np.random.default_rng(3)
    energy = EnergyAxis(-10.1, 0.5, channels)
    peak = 400.0 * np.exp(-(energy.energies_mev**2) / 8.0) + 2.0
    counts = random.poisson(np.broadcast_to(peak, (rows, columns, channels))).astype(np.uint16)
    image = SpectrumImage(
        counts=counts,
        energy=energy,
        scan=(ScanAxis("row", 0.05, rows), ScanAxis("column", 0.06, columns)),
        noise=NoiseModel(0.5, 3.0, 1.5, source={"gain": "given", "dark_level": "measured", "read_noise_e": "assumed"}),
        acquisition=Acquisition(60.0, 30.0, 25.0, "on-axis", 293.0, 0.01, 1, "Iris"),
        haadf=random.random((rows, columns)),
        title="a small/scan",
    )
    return image.with_(**changes)
