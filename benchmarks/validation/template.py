"""Store what the surrogates are made of: information and share of every row of a scan that went through the whole chain.

Run: python benchmarks/validation/template.py [--seed 4242] [--small]

One null scan is simulated, fitted and linearised; information of energy and width of the primary mode (everything else
marginalised) and the signed share are averaged along b, row by row of each half-slab plane, and written to template.csv;
with `--small` a scan like those of whole_scans.py, to template_small.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from chain import prepare, simulated_scan
from whole_scans import scan_of

from phonon_eels.forward.model import model_from_description
from phonon_eels.steps.align_zlp import alignment_of
from phonon_eels.steps.joint_fit import fit_joint, read_geometry

MODE = "CuO78"
FILE = Path(__file__).with_name("template.csv")
SMALL = Path(__file__).with_name("template_small.csv")


def main() -> None:
    """Write the template."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    seed, path = asked.seed, SMALL if asked.small else FILE
    settings = scan_of(seed, 12, "usual sizes", 0.0) if asked.small else simulated_scan(seed)
    image, context = prepare(settings)
    model = model_from_description(context.summaries["fit_peaks"]["model"], context.material)
    geometry = read_geometry(context)
    joint = fit_joint(image, model, geometry, alignment_of(image, context), context)
    m = model.mode_names.index(MODE)
    n = model.n_modes
    full = joint.scores.information
    others = [k for k in range(2 * n) if k not in (m, n + m)]
    kept = [m, n + m]
    # Energies and widths of all other modes are marginalised as well: they are free in the joint fit.
    prior = np.diag([1e-2] * (n - 1) + [1.0] * (n - 1))
    cross = full[..., kept, :][..., others]
    inner = full[..., others, :][..., others] + prior
    schur = full[..., kept, :][..., kept] - cross @ np.linalg.solve(inner, np.swapaxes(cross, -1, -2))
    share = joint.signed_share[m]
    rows = []
    for unit in sorted(joint.units):
        inside = (geometry.half_slab == unit) & joint.scores.usable & np.isfinite(share)
        if joint.units[unit].information[m] < 0.4 * np.median([u.information[m] for u in joint.units.values()]):
            continue
        row_of = np.broadcast_to(np.arange(inside.shape[0])[:, None], inside.shape)
        for row in np.unique(row_of[inside]):
            here = inside & (row_of == row)
            if here.sum() < 0.5 * inside.shape[1]:
                continue
            block = schur[here].mean(axis=0)
            rows.append([unit, row, share[here].mean(), block[0, 0], block[0, 1], block[1, 1]])
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        file.write(f"# made by template.py, seed {seed}; information per position of {MODE}: 1/meV2\n")
        writer.writerow(["half_slab", "row", "signed_share", "info_ee", "info_ew", "info_ww"])
        writer.writerows([[int(u), int(r), *(f"{v:.6g}" for v in values)] for u, r, *values in rows])
    print(f"{path}: {len(rows)} rows of {len({row[0] for row in rows})} planes")


if __name__ == "__main__":
    main()
