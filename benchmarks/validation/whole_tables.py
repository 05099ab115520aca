"""Tables of the small scans that went through the whole chain, beside what the surrogates say of the same cells.

Run: python benchmarks/validation/whole_tables.py [--table FILE.csv] [--units FILE.csv] [--output benchmarks/results/validation]

whole_cells.csv: claims among nulls with binomial limits, and whether the p-values are uniform (Kolmogorov-Smirnov), beside the surrogates'
share of the same artefact. whole_planted.csv: bias of the components and coverage. whole_planes.csv: mean, variance and
correlation of the planes' amplitudes against the surrogates' (`Scan.covariance`), which ties both with far fewer scans.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom, chi2, kstest
from study import write
from surrogates import PERIOD_NM, Scan, template_file
from whole_scans import COLUMN_STEP_NM, COLUMNS, RESULTS

LEVEL = 0.05
SURROGATE_OF = {
    "usual sizes": "none",
    "drift and zero-loss wander": "width wander",
    "weight modulation": "weight modulation",
    "thickness, corrugation, scan waves": "all together",
}


def null_table(scans: pd.DataFrame, surrogates: pd.DataFrame) -> list[dict[str, Any]]:
    """Return claims among nulls, cell by cell and together."""
    nulls = scans[(scans["planted_mev"] == 0.0) & scans["skipped"].isna()]
    rows = []
    for route, of_route in nulls.groupby("route"):
        cells = [((name, n), cell) for (name, n), cell in of_route.groupby(["artefact", "units"], sort=False)]
        cells += [(("all", n), cell) for n, cell in of_route.groupby("units")] + [(("all", "6 and 12"), of_route)]
        for (name, n), cell in cells:
            claims, total = int(cell["claim"].sum()), len(cell)
            same = surrogates[
                (surrogates["artefact"] == SURROGATE_OF.get(name))
                & (surrogates["units"] == n)
                & (surrogates["periods"] == 2)
            ]
            shares = same["claim" if route == "forward" else "classic claim"]
            rows.append({
                "route": route, "artefact": name, "units": n, "nulls": total, "claims": claims, "share": claims / total,
                "most_claims_99": int(binom.ppf(0.99, total, LEVEL)), "rate_low_95": clopper_pearson(claims, total)[0],
                "rate_high_95": clopper_pearson(claims, total)[1],
                "p_below_5": int((cell["p_value"] < LEVEL).sum()), "p_below_50": float((cell["p_value"] < 0.5).mean()),
                "uniform_p": float(kstest(cell["p_value"], "uniform").pvalue),
                "surrogates_share": float(shares.iloc[0]) if len(same) else np.nan,
            })  # fmt: skip
    return rows


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate."""
    from scipy.stats import beta

    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    return low, 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))


def planted_table(scans: pd.DataFrame) -> list[dict[str, Any]]:
    """Return bias of the components and coverage of the 95 % interval, by amplitude."""
    planted = scans[(scans["planted_mev"] > 0.0) & scans["skipped"].isna()]
    rows = []
    for (route, amplitude), cell in planted.groupby(["route", "planted_mev"]):
        error = cell["cos_mev"] - amplitude
        inside = (cell["low_mev"] <= amplitude) & (amplitude <= cell["high_mev"])
        scatter = float(np.sqrt(np.mean(cell["std_mev"] ** 2)))
        rows.append({
            "route": route, "planted_mev": amplitude, "scans": len(cell), "claims": int(cell["claim"].sum()),
            "cos_bias_mev": float(error.mean()), "sin_bias_mev": float(cell["sin_mev"].mean()),
            "bias_std_mev": scatter / np.sqrt(len(cell)), "allowed_bias_mev": 0.05 * amplitude + 0.1 * scatter,
            "inside_95": int(inside.sum()),
        })  # fmt: skip
    return rows


def plane_table(units: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the planes' amplitudes of nulls over what surrogates without artefacts draw, by route and artefact.

    Both components count. If surrogates and whole chains agree, the ratio of the variances lies between the limits of
    chi-squared with as many degrees of freedom in 99 of 100 tables; its own 95 % interval stands beside it. Below 1 the
    surrogates scatter more than whole chains do.
    """
    used = units[(units["planted_mev"] == 0.0) & units["used"].astype(bool)]
    rows = []
    for route, of_route in used.groupby("route"):
        expected = surrogate_variance(str(route))
        for name, cell in [*of_route.groupby("artefact", sort=False), ("all", of_route)]:
            values = cell[["cos_mev", "sin_mev"]].to_numpy()
            told = cell[["cos_mev_std", "sin_mev_std"]].to_numpy()
            n = values.size
            neighbours = neighbouring(cell)
            ratio = float(np.mean(values**2 / expected))
            low, high = (float(chi2.ppf(level, n) / n) for level in (0.005, 0.995))
            rows.append({
                "route": route, "artefact": name, "planes": len(cell), "mean_mev": float(values.mean()),
                "mean_over_its_std": float(values.mean() / np.sqrt(expected.mean() / n)),
                "variance_over_surrogates": ratio, "chance_low_99": low, "chance_high_99": high,
                "agree": low <= ratio <= high, "ratio_low_95": ratio * n / float(chi2.ppf(0.975, n)),
                "ratio_high_95": ratio * n / float(chi2.ppf(0.025, n)),
                "variance_over_told": float(np.mean((values / told) ** 2)),
                "told_variance_over_surrogates": float(np.mean(told**2 / expected)),
                "cos_with_sin": float(np.corrcoef(values.T)[0, 1]), "with_next_plane": neighbours[0],
                "chance_correlation_99": 2.58 / np.sqrt(len(cell)), "pairs": neighbours[1],
            })  # fmt: skip
    return rows


def surrogate_variance(route: str) -> np.ndarray:
    """Return the variance of cos and sin component of a plane, meV², (2,), on the grid of the small scans."""
    periods = COLUMNS * COLUMN_STEP_NM / PERIOD_NM
    scan = Scan(12, periods, template=template_file(route, small=True), column_step_nm=COLUMN_STEP_NM)
    parts = [np.diag(j @ c[:6, :6] @ j.T) for j, c in zip(scan.joint, scan.covariance, strict=True)]
    return np.asarray(np.mean(parts, axis=0))


def neighbouring(cell: pd.DataFrame) -> tuple[float, int]:
    """Return the correlation of the amplitudes of neighbouring planes of a scan, and their number."""
    pairs = []
    for _, scan in cell.groupby(["artefact", "units", "seed"]):
        by_plane = scan.set_index("half_slab")[["cos_mev", "sin_mev"]]
        pairs += [
            (by_plane.loc[plane].to_numpy(), by_plane.loc[plane + 1].to_numpy())
            for plane in by_plane.index
            if plane + 1 in by_plane.index
        ]
    if len(pairs) < 3:
        return float("nan"), len(pairs)
    left, right = np.array(pairs).transpose(1, 0, 2)
    return float(np.corrcoef(left.ravel(), right.ravel())[0, 1]), len(pairs)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=RESULTS / "whole_scans.csv")
    parser.add_argument("--units", type=Path, default=RESULTS / "whole_scans_units.csv")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    scans, units = pd.read_csv(asked.table), pd.read_csv(asked.units)
    write(null_table(scans, pd.read_csv(RESULTS / "false_positives.csv")), asked.output / "whole_cells.csv")
    write(planted_table(scans), asked.output / "whole_planted.csv")
    write(plane_table(units), asked.output / "whole_planes.csv")


if __name__ == "__main__":
    main()
