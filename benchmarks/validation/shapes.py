"""Truths that the fit does not share: the bias of the amplitude that remains is printed.

Run: python benchmarks/validation/shapes.py [--seed 31] [--amplitude 1.0] [--area 8000] [--only modes] [--table FILE.csv]

`--only` takes the truths whose name begins so, `--table` adds their lines to a CSV file. The simulated zero-loss peak, or the modes' own lines, have another shape than the model (split Pearson VII; damped oscillators).
Printed: amplitude against what was planted, mean energy against truth, chi-squared of the mean spectrum, defences that failed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
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
    parser.add_argument("--only", default="", help="truths whose name begins so")
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    chosen = recipe({"measure_modulation": {"variants": True}})
    print("truth | amplitude (meV) | bias (%) | bias / std | p | energy - truth (meV) | chi2 of the mean | failed")
    for name, sections in SHAPES.items():
        if not name.startswith(asked.only):
            continue
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
        if asked.table is not None:
            add_line(asked.table, {
                "truth": name, "seed": asked.seed, "planted_mev": asked.amplitude, "amplitude_mev": size["value"],
                "std_mev": size["std"], "syst_mev": size["syst"], "low_mev": size["low"], "high_mev": size["high"],
                "bias_percent": 100 * bias / asked.amplitude, "p_value": primary["p_value"],
                "energy_bias_mev": primary["mean_energy_mev"]["value"] - 78.0, "chi2_of_mean": chi2, "failed": failed,
            })  # fmt: skip


def add_line(path: Path, row: dict[str, Any]) -> None:
    """Add a line to a CSV file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
