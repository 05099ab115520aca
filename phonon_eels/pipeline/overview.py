"""`results/{dataset}/summary.json`: what every step says, and the primary result, in one file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phonon_eels.errors import InputFileError
from phonon_eels.io.results import read_summary, staged_file
from phonon_eels.steps.registry import steps_of_route
from phonon_eels.steps.spec import Route

SCHEMA_VERSION = 1


def write_overview(folder: Path, route: Route) -> Path:
    """Write the summary of a dataset from the summaries of its steps.

    Parameters
    ----------
    folder
        Folder of the dataset.
    route
        Steps of the other route that are still there from an earlier run are left out.

    Returns
    -------
    Path
        The file.
    """
    steps: dict[str, Any] = {}
    for entry in steps_of_route(route):
        try:
            record = read_summary(folder / entry.name)
        except InputFileError:
            continue
        steps[entry.name] = {
            "status": "done" if record["skipped"] is None else "skipped",
            **{key: record[key] for key in ("skipped", "messages", "summary")},
            "fingerprint": record["provenance"].get("fingerprint"),
        }
    modulation = steps.get("measure_modulation", {})
    overview = {
        "schema_version": SCHEMA_VERSION,
        "dataset": folder.name,
        "route": route,
        "primary": modulation.get("summary", {}).get("primary"),
        "claim": modulation.get("summary", {}).get("claim"),
        "modes": _modes(folder, steps),
        "quality": [
            {key: row.get(key, "") for key in ("check", "verdict", "sentence")}
            for row in _rows(folder / "ingest" / "tables" / "quality.csv")
        ],
        "skipped": {name: step["skipped"] for name, step in steps.items() if step["skipped"] is not None},
        "steps": steps,
    }
    path = folder / "summary.json"
    with staged_file(path) as temporary:
        text = json.dumps(overview, indent=1, sort_keys=True, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def _modes(folder: Path, steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the energies of the modes: with the modulation taken out where that was measured."""
    for step in ("measure_modulation", "fit_peaks"):
        rows = _rows(folder / step / "tables" / "modes.csv") if step in steps else []
        key = next((name for name in ("energy_mev", "apparent_energy_mev") if rows and name in rows[0]), None)
        if key is not None:
            return [
                {
                    "mode": row.get("mode", ""),
                    "quantity": key,
                    "energy_mev": _number(row.get(key)),
                    "energy_mev_std": _number(row.get(f"{key}_std")),
                    "identifiable": row.get("identifiable", ""),
                    "from": step,
                }
                for row in rows
            ]
    return []


def _rows(path: Path) -> list[dict[str, str]]:
    """Read a table without pandas, whose import would cost a step that only writes the overview a second."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    except OSError:
        return []
    return list(csv.DictReader(lines))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
