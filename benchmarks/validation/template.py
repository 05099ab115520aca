"""Store what the surrogates are made of: information and share of every row of a scan that went through the whole chain.

Run: python benchmarks/validation/template.py [--route forward] [--seed 4242] [--small]

One null scan is simulated, fitted and linearised; information of energy and width of the primary mode (everything else
marginalised) and the signed share are averaged along b, row by row of each half-slab plane. The other modes are shared
by a plane, not by a position: the rows of a plane are scaled to the information that the joint fit has of its harmonic. The classic
route's is that of its resampled and deconvolved spectra, widened by the noise that their channels share. `leak` of the first
line is the false energy (meV) per relative change of the primary mode's signal: from two scans without counting noise that differ
in a weight modulation of 0.3 and nothing else. Written to template_{route}.csv; with `--small` a scan like those of
whole_scans.py, to template_{route}_small.csv.
"""

from __future__ import annotations

import argparse
import csv
import time
from typing import Any

import numpy as np
from chain import measure, prepare, recipe, simulated_scan
from numpy.typing import NDArray
from surrogates import template_file
from whole_scans import scan_of

from phonon_eels.config import Settings
from phonon_eels.config.simulation import SimulationSettings
from phonon_eels.forward.model import model_from_description
from phonon_eels.lattice.modulation import HARMONIC_PRIOR_MEV, WIDTH_PRIOR_FRACTION
from phonon_eels.steps.align_zlp import alignment_of
from phonon_eels.steps.joint_fit import Geometry, JointFit, fit_joint, read_geometry

MODE = "CuO78"
WEIGHT = 0.3


def plane_information(joint: JointFit, geometry: Geometry, unit: int, mode: int) -> NDArray[np.float64]:
    """Return the information of a plane's energy and width harmonic, (2, 2), mean of cos and sin, all else marginalised."""
    n = joint.model.n_modes
    inside = (geometry.half_slab == unit) & joint.scores.usable & np.isfinite(geometry.lateral_phase_rad)
    wave = joint.regressors[inside][..., :3]
    both = np.concatenate([wave, wave], axis=1)
    matrix = np.einsum("pmi,pmn,pnj->minj", both, joint.scores.information[inside], both, optimize=True)
    prior = np.full((2 * n, 3), HARMONIC_PRIOR_MEV**-2.0)
    prior[n:] = (WIDTH_PRIOR_FRACTION * joint.model.fwhm_mev[:, None]) ** -2.0
    prior[[mode, n + mode]] = 0.0
    flat = matrix.reshape(6 * n, 6 * n) + np.diag(prior.ravel())
    kept = [3 * row + k for row in (mode, n + mode) for k in range(3)]
    others = np.setdiff1d(np.arange(6 * n), kept)
    schur = flat[np.ix_(kept, kept)] - flat[np.ix_(kept, others)] @ np.linalg.solve(
        flat[np.ix_(others, others)], flat[np.ix_(others, kept)]
    )
    blocks = schur.reshape(2, 3, 2, 3)
    return np.asarray(0.5 * (blocks[:, 1, :, 1] + blocks[:, 2, :, 2]))


def rows_of(joint: JointFit, geometry: Geometry) -> list[list[float]]:
    """Return half slab, row, share and the three informations of every row of every whole plane."""
    n, m = joint.model.n_modes, joint.model.mode_names.index(MODE)
    full = joint.scores.information
    kept = [m, n + m]
    others = [k for k in range(2 * n) if k not in kept]
    prior = np.diag([1e-2] * (n - 1) + [1.0] * (n - 1))
    cross = full[..., kept, :][..., others]
    inner = full[..., others, :][..., others] + prior
    schur = full[..., kept, :][..., kept] - cross @ np.linalg.solve(inner, np.swapaxes(cross, -1, -2))
    schur = schur / joint.noise_factor[m] ** 2
    share = joint.signed_share[m]
    median = np.median([u.information[m] for u in joint.units.values()])
    row_of = np.broadcast_to(np.arange(share.shape[0])[:, None], share.shape)
    rows = []
    for unit in sorted(joint.units):
        inside = (geometry.half_slab == unit) & joint.scores.usable & np.isfinite(share)
        if joint.units[unit].information[m] < 0.4 * median:
            continue
        here = [inside & (row_of == row) for row in np.unique(row_of[inside])]
        means = [
            (schur[k].mean(axis=0), share[k].mean(), row_of[k][0]) for k in here if k.sum() >= 0.5 * share.shape[1]
        ]
        # What a surrogate of this plane would have of a harmonic, mean of cos and sin.
        held = 0.5 * share.shape[1] * sum(info * own**2 for info, own, _ in means)
        factor = plane_information(joint, geometry, unit, m) / joint.noise_factor[m] ** 2 / held
        print(f"plane {unit}: information of the joint fit over that of its rows {factor[0, 0]:.3f}", flush=True)
        rows += [[unit, row, own, *(info * factor)[[0, 0, 1], [0, 1, 1]]] for info, own, row in means]
    return rows


def leak(settings: Settings, seed: int) -> tuple[float, float]:
    """Return the false energy per relative weight along the outward normal, meV, and its standard deviation."""
    found = []
    for weight in (0.0, WEIGHT):
        modes = {"CuO78": {"energy_mev": 0.0, "weight": weight}}
        scan = scan_of(seed, 6, "usual sizes", 0.0).model_dump()
        scan["modulation"] = {"modes": modes}
        scan["detector"] = {"fixed_pattern": 0.0, "poisson": False, "read_noise_e": 0.0, "spike_rate": 0.0}
        result = measure(SimulationSettings.model_validate(scan), settings)
        primary = result.tables["units"].query("mode == @MODE and used")
        found.append(primary.set_index("half_slab")[["cos_mev", "sin_mev"]])
    change = (found[1] - found[0]).dropna().to_numpy() / WEIGHT
    return float(change[:, 0].mean()), float(change[:, 0].std(ddof=1) / np.sqrt(len(change)))


def main() -> None:
    """Write the template."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--route", choices=("forward", "classic"), default="forward")
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    began = time.process_time()
    tree: dict[str, Any] = {"route": asked.route, "measure_modulation": {"variants": False}}
    chosen = recipe(tree)
    scan = scan_of(asked.seed, 12, "usual sizes", 0.0) if asked.small else simulated_scan(asked.seed)
    image, context = prepare(scan, chosen)
    model = model_from_description(context.summaries["fit_peaks"]["model"], context.material)
    geometry = read_geometry(context)
    joint = fit_joint(image, model, geometry, alignment_of(image, context), context)
    rows = rows_of(joint, geometry)
    print(f"{time.process_time() - began:.0f} s of processor time", flush=True)
    slope, slope_std = leak(chosen, asked.seed)
    path = template_file(asked.route, asked.small)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        file.write(
            f"# made by template.py, route {asked.route}, seed {asked.seed}; information per position of {MODE}: 1/meV2; "
            f"leak {slope:.4g} +- {slope_std:.2g} meV\n"
        )
        writer.writerow(["half_slab", "row", "signed_share", "info_ee", "info_ew", "info_ww"])
        writer.writerows([[int(u), int(r), *(f"{v:.6g}" for v in values)] for u, r, *values in rows])
    print(f"{path}: {len(rows)} rows of {len({row[0] for row in rows})} planes, leak {slope:.4f} ± {slope_std:.4f} meV")
    print(f"{time.process_time() - began:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
