"""Bias and efficiency of the energies at single positions: the forward route beside the classic one, on the same counts.

Run: python benchmarks/validation/routes.py [--results DIR] [--table routes.csv]

Both routes run on the sample without modulation (results that are there and fresh are taken as they are). Mode by mode, over the 30 %
of the positions where the true area is largest and both routes tell an energy: mean error (bias), scatter about it and root mean square error over
the Cramér-Rao bound of the raw counts, and how often the interval of 68 % holds the truth. A bound belongs to unbiased estimates: a
route whose scatter is below it has paid with bias. The prior that close modes carry is not in the bound.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

SAMPLE = Path("sample_data/bi2212_null.hspy")
BRIGHTEST = 0.3


def run(results: Path, name: str, *more: str) -> xr.Dataset:
    """Run one route and return its maps."""
    command = [sys.executable, "-m", "phonon_eels", "run", str(SAMPLE), "--output", str(results), "--dataset", name]
    subprocess.run([*command, *more], check=True)
    return xr.load_dataset(results / name / "fit_peaks" / "maps.nc")


def compare(truth: xr.Dataset, forward: xr.Dataset, classic: xr.Dataset) -> pd.DataFrame:
    """Return one row per mode and route."""
    rows = []
    for mode in forward["mode"].values:
        here = {"forward": forward.sel(mode=mode), "classic": classic.sel(mode=mode)}
        names = {"forward": "energy_mev", "classic": "apparent_energy_mev"}
        true, area = (truth.sel(mode=mode)[name].values for name in ("energy_mev", "area_e"))
        bound = here["forward"]["energy_mev_crb"].values
        kept = (area >= np.quantile(area, 1.0 - BRIGHTEST)) & np.isfinite(bound)
        for route, maps in here.items():
            kept &= np.isfinite(maps[names[route]].values) & np.isfinite(maps[f"{names[route]}_std"].values)
        for route, maps in here.items():
            error = (maps[names[route]].values - true)[kept]
            std = maps[f"{names[route]}_std"].values[kept]
            inside = np.abs(error) < std
            if route == "forward":
                low, high = (maps[f"energy_mev_{end}68"].values[kept] for end in ("low", "high"))
                inside = (true[kept] > low) & (true[kept] < high)
            rows.append(
                {
                    "mode": mode,
                    "route": route,
                    "positions": int(kept.sum()),
                    "bias_mev": error.mean(),
                    "bias_mev_std": error.std() / np.sqrt(kept.sum()),
                    "scatter_over_bound": float(np.sqrt(np.mean(((error - error.mean()) / bound[kept]) ** 2))),
                    "rms_over_bound": float(np.sqrt(np.mean((error / bound[kept]) ** 2))),
                    "inside_68": float(inside.mean()),
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Run both routes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="folder of results to use or to make (default: a temporary one)")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = asked.results or Path(scratch)
        truth = xr.load_dataset(SAMPLE.with_suffix("").with_suffix(".truth.nc"))
        table = compare(truth, run(results, "forward"), run(results, "classic", "--recipe", "pku2021"))
    print(table.round(3).to_string(index=False))
    if asked.table:
        table.round(4).to_csv(asked.table, index=False)


if __name__ == "__main__":
    main()
