"""Truths that the fit does not share: the bias of the amplitude that remains is printed.

Run: python benchmarks/validation/shapes.py [--seed 31] [--amplitude 1.0] [--area 8000]

The simulated zero-loss peak, or the modes' own lines, have another shape than the model (split Pearson VII; damped oscillators).
Printed: amplitude against what was planted, mean energy against truth, chi-squared of the mean spectrum, defences that failed.
"""

from __future__ import annotations

import argparse
from typing import Any

from chain import prepare, recipe, simulated_scan

from phonon_eels.steps.registry import find_step

SHAPES: dict[str, dict[str, Any]] = {
    "as the fit": {},
    "zero loss: split Gaussian": {"zero_loss": {"shape": "split_gaussian", "asymmetry": 0.1}},
    "zero loss: Gaussian, exponential skirts": {"zero_loss": {"shape": "gaussian_exponential"}},
    "zero loss: pseudo-Voigt": {"zero_loss": {"shape": "pseudo_voigt"}},
    "modes: skewed": {"phonons": {"shape": "skewed", "skew": 0.5}},
    "modes: density of states": {"phonons": {"shape": "table"}},
    "a neighbour at 72 meV, outside its bounds": {"phonons": {"energies_mev": {"SrO67": 72.0}}},
}


def main() -> None:
    """Run every truth once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--amplitude", type=float, default=1.0)
    parser.add_argument("--area", type=float, default=8000.0)
    asked = parser.parse_args()
    chosen = recipe({"measure_modulation": {"variants": True}})
    print("truth | amplitude (meV) | bias (%) | bias / std | p | energy - truth (meV) | chi2 of the mean | failed")
    for name, sections in SHAPES.items():
        merged = {key: dict(value) for key, value in sections.items()}
        merged["phonons"] = {"area_e": asked.area, **merged.get("phonons", {})}
        merged["modulation"] = {"primary_energy_mev": asked.amplitude}
        image, context = prepare(simulated_scan(asked.seed, **merged), chosen)
        result = find_step("measure_modulation").load().run(image, chosen.measure_modulation, context)
        if result.skipped is not None:
            print(f"{name} | skipped: {result.skipped}", flush=True)
            continue
        primary = result.summary["primary"]
        size = primary["amplitude_mev"]
        bias = size["value"] - asked.amplitude
        failed = ", ".join(result.tables["defences"].query("verdict == 'fail'")["defence"]) or "none"
        chi2 = context.summaries["fit_peaks"]["mean_chi2_per_dof"]
        print(
            f"{name} | {size['value']:.4f} ± {size['std']:.4f} ± {size['syst']:.4f} | {100 * bias / asked.amplitude:+.2f} | "
            f"{bias / size['std']:+.1f} | {primary['p_value']:.2g} | {primary['mean_energy_mev']['value'] - 78.0:+.3f} | "
            f"{chi2:.3g} | {failed}",
            flush=True,
        )


if __name__ == "__main__":
    main()
