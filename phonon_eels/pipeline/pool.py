"""Several scans of a specimen as one result: `results/pool/{group}/`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import ConfigError, InputFileError
from phonon_eels.io.results import read_summary, read_table, staged, write_result
from phonon_eels.lattice.inference import holm
from phonon_eels.lattice.pooling import PooledAmplitude, ScanUnits, pool_scans
from phonon_eels.provenance import collect
from phonon_eels.spectrum_image import StepResult

if TYPE_CHECKING:
    import pandas as pd

STEP = "measure_modulation"
POOL_FOLDER = "pool"
DEFAULT_MIN_UNITS = 6
DEFAULT_CONFIDENCE = 0.95


def pool_datasets(
    folders: Sequence[Path], output: Path, *, min_units: int | None = None, confidence: float = DEFAULT_CONFIDENCE
) -> StepResult:
    """Pool the modulation of several datasets and write tables, figure and summary.

    Parameters
    ----------
    folders
        Folders of the datasets, as ``results/scan1``; each must have a result of `measure_modulation`.
    output
        Folder of the pooled result; its name is the group's.
    min_units
        Planes that a test asks for; default: the largest that any of the scans asked for.

    Raises
    ------
    InputFileError
        If a folder has no such result.
    ConfigError
        If a folder is given twice, or the scans declared different primary tests.
    """
    folders = [Path(folder) for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("pool: a dataset is given twice; every scan counts once")
    records = {folder.name: read_summary(folder / STEP) for folder in folders}
    if len(records) < len(folders):
        raise ConfigError("pool: two datasets have one name; results of one folder of results can be pooled")
    left_out = {name: str(record["skipped"]) for name, record in records.items() if record["skipped"] is not None}
    units = {folder.name: _units(folder) for folder in folders if folder.name not in left_out}
    primary = _primary({name: records[name] for name in units})
    asked = [int(records[name]["summary"]["primary"]["units_needed"]) for name in units]
    needed = min_units or max(asked, default=DEFAULT_MIN_UNITS)
    result = pooled_result(units, primary, needed, confidence, left_out, _failing(folders, units))
    provenance = collect(
        "pool",
        settings={"min_units": needed, "confidence": confidence},
        parents={name: str(record["provenance"].get("fingerprint")) for name, record in records.items()},
    ).to_dict()
    with staged(Path(output)) as folder:
        _draw(result, folder)
        write_result(result, folder, step="pool", provenance=provenance)
    return result


def pooled_result(
    units: Mapping[str, pd.DataFrame],
    primary: tuple[str, str] | None,
    min_units: int,
    confidence: float,
    left_out: Mapping[str, str] | None = None,
    failing: Mapping[str, Sequence[str]] | None = None,
) -> StepResult:
    """Pool tables of planes (`units` of `measure_modulation`), by scan."""
    import pandas as pd

    left_out, failing = dict(left_out or {}), dict(failing or {})
    messages = [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    messages += [f"{name}: defence failed: {', '.join(found)}" for name, found in failing.items() if found]
    if primary is None:
        summary = {"scans": [], "left_out": left_out, "verdict": "not testable", "claim": False}
        return StepResult(summary=summary, messages=(*messages, "no scan has a modulation to pool"))
    modes = sorted(
        {(str(m), str(layer)) for t in units.values() for m, layer in zip(t["mode"], t["layer"], strict=True)}
    )
    rows, scans = [], []
    kept: PooledAmplitude | None = None
    for mode, layer in sorted(modes, key=lambda pair: (pair[0] != primary[0], pair)):
        names, parts = _of_mode(units, mode)
        pooled = pool_scans(parts, min_units)
        role = "primary" if mode == primary[0] else "secondary"
        kept = pooled if role == "primary" else kept
        rows.append(_row(pooled, mode, layer, role, len(parts), confidence))
        scans += _scan_rows(pooled, mode, layer, names, parts)
    table = pd.DataFrame(rows)
    secondary = (table["role"] == "secondary").to_numpy()
    table["p_value_holm"] = np.nan
    table.loc[secondary, "p_value_holm"] = holm(table.loc[secondary, "p_value"].to_numpy(dtype=float))
    if kept is None:
        raise InputFileError(f"pool: no scan has planes of the primary mode {primary[0]}; run measure_modulation again")
    summary, words = _summary(kept, rows[0], confidence, min_units, left_out, failing)
    everything = pd.concat([t.assign(dataset=name) for name, t in units.items()], ignore_index=True)
    tables = {"amplitudes": table, "scans": pd.DataFrame(scans), "units": everything}
    return StepResult(tables=tables, summary={"scans": list(units), **summary}, messages=(*messages, *words))


def _units(folder: Path) -> pd.DataFrame:
    path = folder / STEP / "tables" / "units.csv"
    if not path.is_file():
        raise InputFileError(f"{path} is missing: run `phonon-eels {STEP} --dataset-folder {folder}` again")
    table = read_table(path)
    if "sign" not in table:
        raise InputFileError(f"{path} was written by an older version: run `phonon-eels {STEP}` again")
    return table[table["used"].astype(bool)]


def _primary(records: Mapping[str, Mapping[str, Any]]) -> tuple[str, str] | None:
    declared = {(str(r["summary"]["primary"]["mode"]), str(r["summary"]["primary"]["layer"])) for r in records.values()}
    if len(declared) > 1:
        raise ConfigError(
            f"pool: the scans declared different primary tests ({', '.join(map(' in '.join, sorted(declared)))}); "
            "give all of them the same measure_modulation.mode and .layer"
        )
    return next(iter(declared), None)


def _failing(folders: Sequence[Path], units: Mapping[str, Any]) -> dict[str, list[str]]:
    found = {}
    for folder in folders:
        path = folder / STEP / "tables" / "defences.csv"
        if folder.name in units and path.is_file():
            table = read_table(path)
            found[folder.name] = [str(v) for v in table.loc[table["verdict"] == "fail", "defence"]]
    return found


def _of_mode(units: Mapping[str, pd.DataFrame], mode: str) -> tuple[list[str], list[ScanUnits]]:
    names, parts = [], []
    for name, table in units.items():
        own = table[table["mode"].astype(str) == mode]
        own = own[np.isfinite(own["cos_mev"]) & np.isfinite(own["sin_mev"])]
        if not len(own):
            continue
        variance = 0.5 * (own["cos_mev_std"] ** 2 + own["sin_mev_std"] ** 2).to_numpy(dtype=float)
        values = own[["cos_mev", "sin_mev"]].to_numpy(dtype=float)
        names.append(name)
        parts.append(ScanUnits(values, own["sign"].to_numpy(dtype=float), variance))
    return names, parts


def _row(pooled: PooledAmplitude, mode: str, layer: str, role: str, n_scans: int, confidence: float) -> dict[str, Any]:
    mean = pooled.mean
    low, high = mean.interval(confidence)
    spread = np.sqrt(np.diag(mean.covariance))
    return {
        "mode": mode, "layer": layer, "role": role, "amplitude_mev": mean.amplitude, "amplitude_mev_std": mean.amplitude_std,
        "amplitude_low_mev": low, "amplitude_high_mev": high, "phase_rad": mean.phase_rad,
        "phase_rad_std": mean.phase_std_rad, "cos_mev": mean.value[0], "cos_mev_std": spread[0], "sin_mev": mean.value[1],
        "sin_mev_std": spread[1], "p_value": mean.p_value, "between_scans_std_mev": pooled.between_std,
        "heterogeneity_p": pooled.heterogeneity_p, "n_scans": n_scans, "n_units": pooled.n_units,
        "scans_needed": pooled.scans_needed, "status": "ok" if np.isfinite(mean.p_value) else "not testable",
    }  # fmt: skip


def _scan_rows(
    pooled: PooledAmplitude, mode: str, layer: str, names: Sequence[str], parts: Sequence[ScanUnits]
) -> list[dict[str, Any]]:
    return [
        {
            "dataset": name, "mode": mode, "layer": layer, "cos_mev": pooled.scan_values[k, 0],
            "sin_mev": pooled.scan_values[k, 1], "std_mev": pooled.scan_std[k], "weight": pooled.scan_weight[k],
            "n_units": len(part.values), "orientations": len(set(np.sign(part.sign))),
        }
        for k, (name, part) in enumerate(zip(names, parts, strict=True))
    ]  # fmt: skip


def _summary(
    pooled: PooledAmplitude,
    row: Mapping[str, Any],
    confidence: float,
    min_units: int,
    left_out: Mapping[str, str],
    failing: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Any], list[str]]:
    testable = math.isfinite(pooled.mean.p_value)
    spoilt = [name for name, found in failing.items() if found]
    claim = testable and pooled.mean.p_value < 1.0 - confidence and not spoilt
    words = []
    if not testable:
        words.append(
            f"not testable: {pooled.n_units} half-slab planes in {row['n_scans']} scans, {min_units} are asked for; "
            f"{pooled.scans_needed} scans like these would be needed"
        )
    if row["n_scans"] == 1:
        words.append("one scan: nothing is known of the variance between scans; at least 3 regions are what holds")
    if math.isfinite(pooled.heterogeneity_p) and pooled.heterogeneity_p < 0.01:
        words.append(f"the scans disagree beyond what their planes scatter (p = {pooled.heterogeneity_p:.2g})")
    return {
        "left_out": dict(left_out),
        "defences_failed": {name: list(found) for name, found in failing.items() if found},
        "claim": bool(claim),
        "verdict": "claim" if claim else ("no modulation claimed" if testable else "not testable"),
        "confidence": confidence,
        "units_needed": min_units,
        "primary": dict(row),
    }, words


def _draw(result: StepResult, folder: Path) -> None:
    from phonon_eels.figures.pooling import plot_pooled
    from phonon_eels.figures.style import save_figure

    figure = plot_pooled(*(result.tables.get(name) for name in ("scans", "units", "amplitudes")))
    for ending in ("png", "svg"):
        save_figure(figure, folder / f"pooled.{ending}")
