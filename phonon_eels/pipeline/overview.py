"""`results/{dataset}/summary.json`: what every step says, and the primary result, in one file."""

from __future__ import annotations

import json
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
        "skipped": {name: step["skipped"] for name, step in steps.items() if step["skipped"] is not None},
        "steps": steps,
    }
    path = folder / "summary.json"
    with staged_file(path) as temporary:
        text = json.dumps(overview, indent=1, sort_keys=True, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path
