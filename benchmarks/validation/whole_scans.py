"""Small scans through the whole chain, many of them: false claims, bias and coverage, cell by cell as the surrogates' tables.

Run: python benchmarks/validation/whole_scans.py [--minutes 60] [--route forward] [--table FILE.csv] [--units FILE.csv]
then: python benchmarks/validation/whole_tables.py

Every scan is simulated anew and goes through every step that the claim rests on: spikes, zero-loss peak, peaks, layers,
superstructure, modulation with its defences. Made cheap by size alone: steps of 0.8 and 1.2 Å, two periods, 1 meV per
channel; left out are the profile intervals of single positions and the ensemble of other windows, neither of which the
claim reads. Cells are visited in turn, one seed after the other, lines written as they come; a run that was stopped goes on
where it ended. In every round two scans have a modulation planted, of 0.25 to 2 meV in turn.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

from chain import measure, recipe, simulated_scan

ROW_STEP_NM, COLUMN_STEP_NM = 0.08, 0.12
ROWS = {6: 60, 12: 118}
COLUMNS = 44
DISPERSION_MEV, CHANNELS = 1.0, 176
WEIGHT = {"modes": {"CuO78": {"weight": 0.3}}}
ARTEFACTS: dict[str, dict[str, Any]] = {
    "usual sizes": {},
    "drift and zero-loss wander": {
        "energy": {"drift_mev": 4.0, "jitter_mev": 0.2},
        "zero_loss": {"width_wander": 0.03, "tail_wander": 0.015},
    },
    "weight modulation": {"modulation": WEIGHT},
    "thickness, corrugation, scan waves": {
        "thickness": {"wedge_rows": 0.3, "wedge_columns": 0.6},
        "structure": {"corrugation": 1.3},
        "scan": {"wave_b_nm": 0.05, "wave_c_nm": 0.02},
    },
}
PLANTED_MEV = (0.25, 0.5, 1.0, 2.0)
MODE = "CuO78"
RESULTS = Path("benchmarks/results/validation")
FIRST_SEED = 9001


def scan_of(seed: int, units: int, artefact: str, amplitude_mev: float) -> Any:
    """Return the settings of one scan."""
    sections = {name: dict(values) for name, values in ARTEFACTS[artefact].items()}
    grid = {"rows": ROWS[units], "columns": COLUMNS, "row_step_nm": ROW_STEP_NM, "column_step_nm": COLUMN_STEP_NM}
    sections["scan"] = grid | sections.get("scan", {})
    sections["energy"] = {"dispersion_mev": DISPERSION_MEV, "channels": CHANNELS} | sections.get("energy", {})
    sections["modulation"] = {"primary_energy_mev": amplitude_mev} | sections.get("modulation", {})
    return simulated_scan(seed, **sections)


def analyse(
    seed: int, units: int, artefact: str, amplitude_mev: float, route: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Simulate and analyse one scan; return its line and the lines of its planes."""
    tree: dict[str, Any] = {"route": route, "measure_modulation": {"variants": False}}
    if route == "forward":
        tree["fit_peaks"] = {"profile_below_sigma": 0.0}
    began = time.process_time()
    result = measure(scan_of(seed, units, artefact, amplitude_mev), recipe(tree))
    line: dict[str, Any] = {
        "route": route, "artefact": artefact, "units": units, "planted_mev": amplitude_mev, "seed": seed,
        "cpu_s": time.process_time() - began,
    }  # fmt: skip
    if result.skipped is not None:
        return line | {"skipped": result.skipped}, []
    primary = result.summary["primary"]
    amplitudes = result.tables["amplitudes"]
    joint = amplitudes[(amplitudes["mode"] == MODE) & (amplitudes["method"] == "joint")].iloc[0]
    p_values = result.tables["estimators"].set_index("estimator")["p_value"]
    failed = result.tables["defences"].query("verdict == 'fail'")["defence"]
    line |= {
        "n_units": primary["n_units"], "p_value": primary["p_value"], "claim": int(result.summary["claim"]),
        "cos_mev": joint["cos_mev"], "sin_mev": joint["sin_mev"], "std_mev": primary["amplitude_mev"]["std"],
        "low_mev": primary["amplitude_mev"]["low"], "high_mev": primary["amplitude_mev"]["high"],
        **{f"p {name}": float(p) for name, p in p_values.items()}, "failed": "; ".join(failed), "skipped": "",
    }  # fmt: skip
    planes = result.tables["units"].query("mode == @MODE")
    keys = ("half_slab", "sign", "used", "cos_mev", "cos_mev_std", "sin_mev", "sin_mev_std", "n_positions")
    head = {key: line[key] for key in ("route", "artefact", "units", "planted_mev", "seed")}
    return line, [head | {key: row[key] for key in keys} for _, row in planes.iterrows()]


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add lines to a CSV file; the header is that of the first line."""
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    names = path.open().readline().strip().split(",") if path.exists() else list(rows[0])
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def done(path: Path) -> set[tuple[str, str, str, str, str]]:
    """Return what a table holds already."""
    if not path.exists():
        return set()
    with path.open() as file:
        return {
            tuple(row[k] for k in ("route", "artefact", "units", "planted_mev", "seed")) for row in csv.DictReader(file)
        }  # type: ignore[misc]


def cases(round_: int) -> list[tuple[int, str, float]]:
    """Return (units, artefact, planted amplitude) of one round: all null cells and two planted scans."""
    nulls = [(n, name, 0.0) for name in ARTEFACTS for n in ROWS]
    names = list(ARTEFACTS)
    planted = [
        (n, names[round_ // len(PLANTED_MEV) % len(names)], PLANTED_MEV[round_ % len(PLANTED_MEV)]) for n in ROWS
    ]
    return nulls + planted


def main() -> None:
    """Analyse scans until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--route", choices=("forward", "classic"), default="forward")
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--table", type=Path, default=RESULTS / "whole_scans.csv")
    parser.add_argument("--units", type=Path, default=RESULTS / "whole_scans_units.csv")
    asked = parser.parse_args()
    began, known = time.monotonic(), done(asked.table)
    for k in range(asked.rounds):
        for j, (units, artefact, amplitude) in enumerate(cases(k)):
            seed = asked.seed + 100 * k + j
            if (asked.route, artefact, str(units), f"{amplitude:.5g}", str(seed)) in known:
                continue
            if time.monotonic() - began > 60.0 * asked.minutes:
                return
            line, planes = analyse(seed, units, artefact, amplitude, asked.route)
            append(asked.table, [line])
            append(asked.units, planes)
            print(" | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in line.values()), flush=True)


if __name__ == "__main__":
    main()
