"""Whole chain on scans without any energy modulation: how often is one claimed?

Run: python benchmarks/validation/null_scans.py [--scans 8] [--artefact none] [--weight 0.0] [--amplitude 0.0] [--route forward]
or:  python benchmarks/validation/null_scans.py --table benchmarks/results/validation/null_scans.csv [--minutes 25]

Every scan is simulated anew (drift, zero-loss wander, thickness wedge, corrugation, leakage, scan drift) and goes through the
whole route in memory: spikes, zero-loss peak, peaks, layers, superstructure, modulation. `--artefact` adds one of those below
at several times its default size. `--weight` modulates the intensity of the primary mode by that fraction, which must not
pass for an energy. `--amplitude` plants an energy modulation instead (meV), for bias and coverage. One line per scan and a
summary; the estimators and the in-phase null channel stand beside the claim. `--table` goes through all artefacts, one seed
after the other, by the forward and the classic route beside it, until the time is up, and writes one line per scan.
`p positions` is the regression of the map of fitted energies with single positions as units, as is usual.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
from chain import measure, recipe, simulated_scan

ARTEFACTS: dict[str, dict[str, Any]] = {
    "none": {},
    "width and tail wander": {"zero_loss": {"width_wander": 0.03, "tail_wander": 0.015}},
    "drift": {"energy": {"drift_mev": 4.0, "jitter_mev": 0.2}},
    "thickness": {"thickness": {"wedge_rows": 0.3, "wedge_columns": 0.6}},
    "scan wave b": {"scan": {"wave_b_nm": 0.05}},
    "scan wave c": {"scan": {"wave_c_nm": 0.02}},
    "corrugation off": {"structure": {"corrugation": 0.3}},
}


def analyse(seed: int, artefact: str, weight: float, amplitude: float, route: str) -> dict[str, Any]:
    """Simulate and analyse one scan; return what the primary test says."""
    sections = {name: dict(values) for name, values in ARTEFACTS[artefact].items()}
    sections["modulation"] = {"modes": {"CuO78": {"energy_mev": amplitude, "weight": weight}}}
    base = simulated_scan(seed).scan.model_dump()
    sections["scan"] = {**base, **sections.get("scan", {})}
    tree: dict[str, Any] = {"route": route, "measure_modulation": {"variants": False}}
    result = measure(simulated_scan(seed, **sections), recipe(tree))
    if result.skipped is not None:
        return {"skipped": result.skipped}
    primary = result.summary["primary"]
    table = result.tables["estimators"].set_index("estimator")
    inphase = result.tables["defences"].iloc[0]
    amplitudes = result.tables["amplitudes"].query("mode == 'CuO78'").set_index("method")
    return {
        "p_value": primary["p_value"],
        "claim": float(result.summary["claim"]),
        **{key: primary["amplitude_mev"][key] for key in ("value", "std", "low", "high")},
        **{f"p {name}": float(table.loc[name, "p_value"]) for name in table.index},
        "p positions": positions_p(amplitudes.loc["regression"]) if "regression" in amplitudes.index else float("nan"),
        "in-phase": float(inphase["value"]),
        "failed": [str(name) for name in result.tables["defences"].query("verdict == 'fail'")["defence"]],
    }


def positions_p(row: Any) -> float:
    """Return the p-value of a regression whose units are single positions."""
    return float(
        np.exp(-0.5 * ((row["cos_mev"] / row["cos_mev_std"]) ** 2 + (row["sin_mev"] / row["sin_mev_std"]) ** 2))
    )


def write_table(path: Path, minutes: float, seed: int) -> None:
    """Write one line per scan, artefact and route, seed after seed, until the time is up."""
    cases = [(name, 0.0) for name in ARTEFACTS] + [("weight modulation 0.3", 0.3)]
    began, rows = time.monotonic(), []
    for k in range(1000):
        for name, weight in cases:
            for route in ("forward", "classic"):
                if time.monotonic() - began > 60.0 * minutes:
                    return
                found = analyse(seed + k, name if name in ARTEFACTS else "none", weight, 0.0, route)
                failed = "; ".join(found.pop("failed", []))
                row = {"artefact": name, "route": route, "seed": seed + k, **found, "failed": failed}
                rows.append({key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()})
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("w", newline="") as file:
                    names = list(max(rows, key=len))
                    writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
                    writer.writeheader()
                    writer.writerows(rows)
                print(" | ".join(str(v) for v in rows[-1].values()), flush=True)


def main() -> None:
    """Run all scans and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--artefact", choices=list(ARTEFACTS), default="none")
    parser.add_argument("--weight", type=float, default=0.0)
    parser.add_argument("--amplitude", type=float, default=0.0)
    parser.add_argument("--route", choices=("forward", "classic"), default="forward")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0)
    asked = parser.parse_args()
    if asked.table is not None:
        write_table(asked.table, asked.minutes, asked.seed)
        return
    rows = []
    for k in range(asked.scans):
        row = analyse(asked.seed + k, asked.artefact, asked.weight, asked.amplitude, asked.route)
        if "skipped" in row:
            print(f"seed {asked.seed + k}: skipped, {row['skipped']}", flush=True)
            continue
        rows.append(row)
        others = ", ".join(f"{key[2:]} {row[key]:.2g}" for key in row if key.startswith("p "))
        print(
            f"seed {asked.seed + k}: amplitude {row['value']:.4f} ± {row['std']:.4f} meV [{row['low']:.4f}, {row['high']:.4f}], "
            f"p = {row['p_value']:.3g}, claim {bool(row['claim'])}, in-phase {row['in-phase']:.4f} meV; p of {others}; "
            f"failed: {', '.join(row['failed']) or 'none'}",
            flush=True,
        )
    inside = [row["low"] <= asked.amplitude <= row["high"] for row in rows]
    print(
        f"{asked.artefact}, {asked.route}: claims {sum(row['claim'] for row in rows):.0f} of {len(rows)}; truth inside the 95 % interval {sum(inside)} of {len(rows)}"
    )
    print(f"mean amplitude {np.mean([row['value'] for row in rows]):.4f} meV, planted {asked.amplitude:g}")


if __name__ == "__main__":
    main()
