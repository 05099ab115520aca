"""Whole chain on scans without any energy modulation: how often is one claimed?

Run: python benchmarks/validation/null_scans.py [--scans 8] [--weight 0.0] [--amplitude 0.0] [--seed 1]

Every scan is simulated anew (drift, zero-loss wander, thickness wedge, corrugation, leakage, scan drift) and goes through the
forward route in memory: spikes, zero-loss peak, peaks, layers, superstructure, modulation. `--weight` modulates the
intensity of the primary mode by that fraction, which must not pass for an energy. `--amplitude` plants an energy
modulation instead (meV), for bias and coverage. Prints one line per scan and a summary.
"""

from __future__ import annotations

import argparse

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, load_material
from phonon_eels.config.simulation import SimulationSettings
from phonon_eels.simulate import simulate
from phonon_eels.steps.registry import find_step
from phonon_eels.steps.spec import StepContext

STEPS = ("remove_spikes", "align_zlp", "fit_peaks", "assign_layers", "map_superstructure", "measure_modulation")


def scan(seed: int, weight: float, amplitude: float) -> SimulationSettings:
    """Return the settings of one scan."""
    tree = {
        "seed": seed,
        "scan": {"rows": 112, "columns": 56, "row_step_nm": 0.055, "column_step_nm": 0.1},
        "modulation": {"modes": {"CuO78": {"energy_mev": amplitude, "weight": weight}}},
        "detector": {"fixed_pattern": 0.0},
    }
    return SimulationSettings.model_validate(tree)


def analyse(settings: SimulationSettings) -> dict[str, float]:
    """Simulate and analyse one scan; return what the primary test says."""
    material, defaults, backend = load_material("bi2212"), Settings(), CpuBackend()
    image = simulate(settings, material).image
    maps, summaries, tables = {}, {}, {}
    for name in STEPS:
        context = StepContext(material=material, backend=backend, maps=maps, summaries=summaries, tables=tables)
        result = find_step(name).load().run(image, getattr(defaults, name), context)
        image = image if result.image is None else result.image
        maps |= {} if result.maps is None else {name: result.maps}
        summaries[name], tables[name] = dict(result.summary), dict(result.tables)
    primary = summaries["measure_modulation"]["primary"]
    size = primary["amplitude_mev"]
    return {
        "p_value": primary["p_value"],
        "claim": float(summaries["measure_modulation"]["claim"]),
        **{key: size[key] for key in ("value", "std", "low", "high")},
    }


def main() -> None:
    """Run all scans and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--weight", type=float, default=0.0)
    parser.add_argument("--amplitude", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rows = []
    for k in range(asked.scans):
        row = analyse(scan(asked.seed + k, asked.weight, asked.amplitude))
        rows.append(row)
        print(
            f"seed {asked.seed + k}: amplitude {row['value']:.4f} ± {row['std']:.4f} meV "
            f"[{row['low']:.4f}, {row['high']:.4f}], p = {row['p_value']:.3g}, claim {bool(row['claim'])}",
            flush=True,
        )
    inside = [row["low"] <= asked.amplitude <= row["high"] for row in rows]
    print(
        f"claims {sum(row['claim'] for row in rows):.0f} of {len(rows)}; truth inside the 95 % interval {sum(inside)} of {len(rows)}"
    )
    print(f"mean amplitude {np.mean([row['value'] for row in rows]):.4f} meV, planted {asked.amplitude:g}")


if __name__ == "__main__":
    main()
