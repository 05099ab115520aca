"""Write a forecast: tables, one JSON file with everything, a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from phonon_eels.config.planning import PlanSettings
from phonon_eels.io.atomic import staged_file
from phonon_eels.io.results import to_json, write_table
from phonon_eels.plan.forecast import Forecast

TABLES = ("modes", "pairs", "choices", "curves", "chances", "spectrum")
SCHEMA_VERSION = 1


def as_tree(found: Forecast, plan: PlanSettings) -> dict[str, Any]:
    """Return forecast and settings as plain numbers and words, ready for JSON."""
    tables = {name: getattr(found, name).to_dict("records") for name in TABLES if name not in ("spectrum", "chances")}
    tree: dict[str, Any] = to_json(
        {
            "schema_version": SCHEMA_VERSION,
            **found.summary,
            "tables": tables,
            "settings": plan.model_dump(mode="json"),
        }
    )
    return tree


def write_forecast(found: Forecast, plan: PlanSettings, folder: Path) -> list[Path]:
    """Write `plan.json`, `plan_*.csv`, `plan.png` and `plan.svg` into a folder; return the paths.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    from phonon_eels.figures import plot_plan, save_figure

    paths = []
    for name in TABLES:
        path = folder / f"plan_{name}.csv"
        with staged_file(path) as temporary:
            write_table(getattr(found, name), temporary)
        paths.append(path)
    figure = plot_plan(found)
    for form in ("png", "svg"):
        path = folder / f"plan.{form}"
        with staged_file(path) as temporary:
            save_figure(figure, temporary, form=form)
        paths.append(path)
    path = folder / "plan.json"
    with staged_file(path) as temporary:
        temporary.write_text(json.dumps(as_tree(found, plan), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [*paths, path]
