"""Bias of mode energies when the zero-loss peak has another shape than the fit assumes.

Run: python benchmarks/validation/zero_loss_shapes.py [--out table.csv]

Noise-free spectra of the simulator with zero-loss peaks outside the fitted family (split Gaussian, Gaussian with exponential skirts,
pseudo-Voigt), fitted as a scan is: first the shape of the mean, then every position with its prior around it. What
remains is no counting noise. Beside the bias stands chi-squared of the misfit at 10⁵ electrons in the zero-loss peak, by which a
user would see that the shape is wrong, and the counting deviation there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, SimulationSettings, load_material
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.model import build_forward_model
from phonon_eels.forward.scan import Alignment, fit_scan
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.simulate import simulate
from phonon_eels.units import thermal_energy_mev

NAMES = ("BiO38", "BiO57", "CuO78")
QUIET: dict[str, dict[str, object]] = {
    "scan": {"rows": 1, "columns": 1, **dict.fromkeys(("drift_row_nm", "drift_column_nm", "wander_nm", "line_jitter_nm"), 0.0)},
    "energy": {"zero_mev": 0.1, "drift_mev": 0.0, "jitter_mev": 0.0, "channels": 340, "offset_mev": -55.0},
    "phonons": {"area_e": 5e3, "dechannelled_fraction": 1.0},
    "modulation": {"energy_enabled": False},
    "structure": {"corrugation": 0.0},
    "detector": {"poisson": False, "read_noise_e": 0.0, "fixed_pattern": 0.0, "spike_rate": 0.0, "gain": 1.0, "dark_level": 0.0},
}  # fmt: skip
SHAPES: dict[str, dict[str, object]] = {
    "split Pearson VII (the fit's own)": {"shape": "split_pearson7"},
    "split Gaussian, asymmetry 0.1": {"shape": "split_gaussian", "asymmetry": 0.1},
    "split Gaussian, asymmetry 0.3": {"shape": "split_gaussian", "asymmetry": 0.3},
    "exponential skirts, 5 %": {"shape": "gaussian_exponential", "skirt_share": 0.05},
    "exponential skirts, 15 %": {"shape": "gaussian_exponential", "skirt_share": 0.15},
    "pseudo-Voigt, 5 % Lorentzian": {"shape": "pseudo_voigt", "lorentzian_share": 0.05},
    "pseudo-Voigt, 20 % Lorentzian": {"shape": "pseudo_voigt", "lorentzian_share": 0.2},
}


def bias_of(zero_loss: dict[str, object]) -> dict[str, float]:
    """Return the bias and the counting deviation of every mode's energy, and the misfit per channel."""
    material = load_material("bi2212")
    modes = tuple(mode for mode in material.modes if mode.name in NAMES)
    material = material.model_copy(update={"modes": modes, "pairs": ()})
    still = {"width_wander": 0.0, "tail_wander": 0.0, "haadf_slope": 0.0, "electrons": 1e5}
    truth = simulate(
        SimulationSettings.model_validate({"seed": 1, **QUIET, "zero_loss": {**still, **zero_loss}}), material
    )
    settings, axis = Settings().fit_peaks, truth.image.energy
    place = Alignment.from_center(truth.truth_maps["zlp_center_mev"].values, truth.image)
    zero = int(place.channel[0, 0])
    channels = np.arange(8 - zero, axis.n_channels - 8 - zero)
    thermal = thermal_energy_mev(float(truth.truth["temperature_k"]))
    spectrum = np.asarray(truth.image.counts[0, 0, 8 : axis.n_channels - 8], dtype=float)
    mean_model = MeanModel(settings, material, channels, axis.dispersion_mev, ZeroLossShape(7.5, 2.0, 2.0), thermal)
    # As from a scan of 1,000 positions: its mean is known that well.
    mean = fit_mean(mean_model, spectrum, np.maximum(spectrum, 1.0) / 1000.0)
    model = build_forward_model(
        settings, material, channels, axis.dispersion_mev, mean.zero_loss, thermal,
        energies_mev=mean.energies_fit_mev, fwhm_mev=np.array([mode.fwhm_mev for mode in modes]),
    )  # fmt: skip
    fit = fit_scan(truth.image, model, place, mean.starts(), CpuBackend(1), free_energies=True, max_iterations=100)
    true = truth.truth_maps["energy_mev"].values[:, 0, 0]
    row = {"chi2_per_channel": float(fit.pearson_chi2[0, 0] / fit.n_channels[0, 0])}
    for m, name in enumerate(NAMES):
        row[f"{name}_bias_mev"] = float(fit.energies()[0, 0, m] - true[m])
        row[f"{name}_std_mev"] = float(fit.energies(fit.std)[0, 0, m])
    row["status"] = float(fit.status[0, 0])
    return row


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    table = pd.DataFrame({name: bias_of(shape) for name, shape in SHAPES.items()}).T
    print(table.round(3).to_string())
    if asked.out is not None:
        table.to_csv(asked.out, index_label="zero-loss shape")


if __name__ == "__main__":
    main()
