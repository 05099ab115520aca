"""The validation of the modulation: false positives, power, coverage, efficiency. One command, fixed seeds, tables.

Run: python benchmarks/validation/study.py [--quick] [--only TABLE …] [--seed 20261121] [--output benchmarks/results/validation]

Everything here is on the level of scores (surrogates.py, made from templates of a scan that went through the whole chain by
either route). whole_scans.py runs whole chains and ties these figures to them; shapes.py does so for truths of other shapes.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom, chi2, ncx2
from surrogates import ARTEFACTS, Artefacts, Scan, template_file, tested_planes

from phonon_eels.lattice.inference import (
    NOISE_NODES,
    TYPICAL_NULL_LENGTH,
    MeanAmplitude,
    antiphase_and_inphase,
    rotation_p_value,
)

LEVEL = 0.05
ESTIMATORS = ("claim", "joint", "modulation spectrum", "regression of positions", "the same, unsigned", "phase bins")
AMPLITUDES_MEV = (0.0, 0.25, 0.5, 1.0, 2.0)
TABLES = ("false_positives", "rotation", "efficiency", "power", "coverage")


def false_positives(seed: int, draws: int, cells: dict[str, Artefacts], units: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the share of nulls that each estimator calls a modulation at 5 %, by cell: forward, beside it classic."""
    rows = []
    limit = binom.ppf(0.99, draws, LEVEL) / draws
    for k, (name, artefacts) in enumerate(cells.items()):
        for n in units:
            for periods in (2.0, 3.0, 4.0):
                found = {}
                for route in ("forward", "classic"):
                    random = np.random.default_rng([seed, k, n, int(periods)])
                    scan = Scan(n, periods, artefacts=artefacts, template=template_file(route))
                    # In parts: fields of every position of 2,000 scans do not fit into memory.
                    parts = [scan.features(random, min(250, draws))[0] for _ in range(-(-draws // 250))]
                    found[route] = detections(scan, np.concatenate(parts))
                rates = found["forward"]
                row = {
                    "artefact": name,
                    "units": n,
                    "periods": periods,
                    "nulls": sum(len(part) for part in parts),
                    "limit_99": limit,
                    **rates,
                }
                row["claim_within_limit"] = rates["claim"] <= limit
                row |= {f"classic {key}": rate for key, rate in found["classic"].items()}
                row["classic_claim_within_limit"] = found["classic"]["claim"] <= limit
                rows.append(row)
    return rows


def detections(scan: Scan, features: np.ndarray) -> dict[str, float]:
    """Return the share of draws in which each estimator finds a modulation at 5 %."""
    tests = tested_planes(scan.joint_units(features), scan.sign)
    found = tests.p_value < LEVEL
    rates = {"claim": float((found & ~tests.stopped).mean()), "joint": float(found.mean())}
    alone = tested_planes(scan.alone_units(features), scan.sign)
    rates["modulation spectrum"] = float((alone.p_value < LEVEL).mean())
    rates["regression of positions"] = float((scan.regression_p(features) < LEVEL).mean())
    rates["the same, unsigned"] = float((scan.regression_p(features, signed=False) < LEVEL).mean())
    rates["phase bins"] = float((scan.bins_p(features) < LEVEL).mean())
    return rates


def detectable(scan: Scan, seed: int, draws: int) -> dict[str, float]:
    """Return the amplitude that each estimator finds in 80 % of scans, meV (bisection on the same draws)."""
    features, response = scan.features(np.random.default_rng(seed), draws)
    direction = response @ np.array([1.0, 0.0])
    result = {}
    scale = float(np.sqrt(np.mean([m[0, 1] for m in scan.joint]) / scan.units))
    for name in ESTIMATORS:
        if name == "the same, unsigned":
            continue  # planes of both orientations cancel
        low, high = 0.0, 40.0 * scale
        for _ in range(9):
            middle = 0.5 * (low + high)
            power = detections(scan, features + middle * direction)[name]
            low, high = (middle, high) if power < 0.8 else (low, middle)
        result[name] = 0.5 * (low + high)
    return result


def power_table(seed: int, draws: int, units: tuple[int, ...], doses: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return detectable amplitudes against the number of planes and the dose."""
    cells = [(n, 1.0) for n in units] + [(8, dose) for dose in doses if dose != 1.0]
    return [
        {"units": n, "dose": dose, "periods": 2.2, **detectable(Scan(n, 2.2, dose=dose), seed, draws)}
        for n, dose in cells
    ]


COVERED_CELLS = ("none", "correlated noise", "planes differ", "all together")


def coverage_table(
    seed: int, draws: int, cells: tuple[str, ...] = COVERED_CELLS, units: tuple[int, ...] = (6, 12)
) -> list[dict[str, Any]]:
    """Return bias of the components, and how often the 68 and 95 % intervals hold the truth, for 0 to 2 meV.

    A bias below 5 % of the amplitude and 0.1 of a scan's own scatter is asked for. In a scan whose phase is wrong (scan wave
    along b, one of "all together") the amplitude itself is lowered.
    """
    rows = []
    for n in units:
        for name in cells:
            scan = Scan(n, 2.2, artefacts=ARTEFACTS[name])
            for k, amplitude in enumerate(AMPLITUDES_MEV):
                random = np.random.default_rng([seed, n, k])
                # In parts: fields of every position of many scans do not fit into memory.
                parts = [scan.features(random, min(250, draws)) for _ in range(-(-draws // 250))]
                features = np.concatenate([part[0] for part in parts])
                seen = scan.joint_units(features + amplitude * (parts[0][1] @ np.array([1.0, 0.0])))
                means = [antiphase_and_inphase(u, scan.sign)[0] for u in seen]
                values = np.array([mean.value for mean in means])
                scatter = float(values.std(axis=0).mean())
                cos_bias, sin_bias = values[:, 0].mean() - amplitude, values[:, 1].mean()
                row = {
                    "units": n, "artefact": name, "amplitude_mev": amplitude, "scans": len(means),
                    "cos_bias_mev": cos_bias, "sin_bias_mev": sin_bias, "scatter_mev": scatter,
                    "allowed_bias_mev": 0.05 * amplitude + 0.1 * scatter,
                    "bias_within": max(abs(cos_bias), abs(sin_bias)) <= 0.05 * amplitude + 0.1 * scatter,
                }  # fmt: skip
                for level in (0.68, 0.95):
                    share = covered(means, amplitude, level).mean()
                    row[f"coverage_{100 * level:.0f}"] = float(share)
                    row[f"lowest_99_{100 * level:.0f}"] = binom.ppf(0.005, len(means), level) / len(means)
                rows.append(row)
    return rows


def covered(means: list[MeanAmplitude], amplitude: float, confidence: float) -> np.ndarray:
    """Return which intervals hold an amplitude, (n,) bool: `MeanAmplitude.interval` for arrays, without finding its ends.

    The first intervals are compared with the program's own every time.
    """
    length = np.array([mean.amplitude for mean in means])
    noise = np.array([mean.amplitude_std for mean in means])
    dof, tail = means[0].dof, 0.5 * (1.0 - confidence)
    quantiles = (np.arange(NOISE_NODES) + 0.5) / NOISE_NODES
    variance = noise[:, None] ** 2 * dof / chi2.ppf(quantiles, dof)
    typical = np.maximum(length, TYPICAL_NULL_LENGTH * noise)

    def below(observed: np.ndarray) -> np.ndarray:
        shifted = np.maximum(amplitude**2 / variance, 1e-12)
        return np.asarray(ncx2.cdf(observed[:, None] ** 2 / variance, 2, shifted).mean(axis=1))

    inside = (below(typical) >= tail) & (below(length) <= 1.0 - tail)
    for k in range(min(len(means), 8)):
        low, high = means[k].interval(confidence)
        assert inside[k] == (low <= amplitude <= high), (k, low, high, amplitude)
    return inside


def efficiency_table(seed: int, draws: int) -> list[dict[str, Any]]:
    """Return the scatter of the joint fit over the Cramér-Rao bound with all nuisances marginalised."""
    rows = []
    for n in (6, 12):
        for dose in (0.1, 1.0, 10.0):
            scan = Scan(n, 2.2, dose=dose)
            features, _ = scan.features(np.random.default_rng([seed, n]), draws)
            values = np.array([antiphase_and_inphase(u, scan.sign)[0].value for u in scan.joint_units(features)])
            bound = np.linalg.inv(sum(np.linalg.inv(np.linalg.inv(c[:6, :6])[1:3, 1:3]) for c in scan.covariance))
            ratio = values.std(axis=0, ddof=1) / np.sqrt(np.diag(bound))
            rows.append({"units": n, "dose": dose, "cos_over_bound": ratio[0], "sin_over_bound": ratio[1]})
    return rows


def rotation_table(seed: int, draws: int) -> list[dict[str, Any]]:
    """Return the share of nulls below 5 % of the random rotation of the planes' phases."""
    rows = []
    for n in (6, 12):
        scan = Scan(n, 2.0, artefacts=ARTEFACTS["all together"])
        features, _ = scan.features(np.random.default_rng([seed, n]), draws)
        p = [rotation_p_value(units, k, 399) for k, units in enumerate(scan.joint_units(features))]
        rows.append({"units": n, "nulls": draws, "random rotation": float(np.mean(np.array(p) < LEVEL))})
    return rows


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a table as CSV and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(f"\n{path.stem}\n" + " | ".join(lines[0]))
    for line in lines:
        print(" | ".join(str(v) for v in line.values()))


def main() -> None:
    """Run the study and write its tables and the figure of power."""
    from power_figure import plot_power

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer draws and cells, for a look")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/validation"))
    parser.add_argument("--only", choices=TABLES, nargs="+", default=TABLES, help="only these tables")
    asked = parser.parse_args()
    began, quick, only = time.monotonic(), asked.quick, asked.only
    if "false_positives" in only:
        cells = {k: ARTEFACTS[k] for k in ("none", "correlated noise", "all together")} if quick else ARTEFACTS
        write(false_positives(asked.seed, 300 if quick else 2000, cells, (6, 12)), asked.output / "false_positives.csv")
    if "rotation" in only:
        write(rotation_table(asked.seed, 200 if quick else 2000), asked.output / "rotation.csv")
    if "efficiency" in only:
        write(efficiency_table(asked.seed, 500 if quick else 4000), asked.output / "efficiency.csv")
    if "power" in only:
        units, doses = ((4, 8, 16), (0.25, 4.0)) if quick else ((4, 6, 8, 12, 16, 24), (0.1, 0.25, 0.5, 2.0, 4.0, 10.0))
        power = power_table(asked.seed, 100 if quick else 400, units, doses)
        write(power, asked.output / "power.csv")
        plot_power(power, asked.output / "power.png")
    if "coverage" in only:
        write(coverage_table(asked.seed, 50 if quick else 1000), asked.output / "coverage.csv")
    print(f"\n{time.monotonic() - began:.0f} s, seed {asked.seed}")


if __name__ == "__main__":
    main()
