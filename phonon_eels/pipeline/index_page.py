"""`results/index.html`, the morning view: one row per dataset, and the same rows as text for a terminal."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phonon_eels import __version__
from phonon_eels.errors import OutputError
from phonon_eels.io.results import staged_file
from phonon_eels.pipeline.status import ORDER, DatasetStatus, collect_status
from phonon_eels.pipeline.times import workflow_words
from phonon_eels.rounding import plus_minus

log = logging.getLogger(__name__)

PAGE = "index.html"
THUMBNAIL = "thumbnail.png"
_TITLES = {"failed": "failed", "stopped": "stopped", "running": "running", "waiting": "waiting",
           "warned": "finished, with warnings", "done": "finished"}  # fmt: skip


def write_thumbnail(folder: Path) -> Path | None:
    """Write the picture of a dataset: its dark field, else the counts; None where `ingest` left no maps."""
    from phonon_eels.figures.thumbnail import save_thumbnail
    from phonon_eels.io.results import read_maps

    source = folder / "ingest" / "maps.nc"
    if not source.is_file():
        return None
    maps = read_maps(source)
    values = maps["haadf" if "haadf" in maps else "total_counts"]
    steps = [float(abs(axis[1] - axis[0])) if axis.size > 1 else 1.0 for axis in (maps["row"], maps["column"])]
    tall, wide = (max(size, 1) * step for size, step in zip(values.shape[-2:], steps, strict=True))
    path = folder / THUMBNAIL
    with staged_file(path) as temporary:
        save_thumbnail(values.values, temporary, height_per_width=tall / wide)
    return path


def write_index(results: str | Path, rows: Sequence[DatasetStatus]) -> Path:
    """Write the page; pictures are inside, links go to the reports beside it.

    Parameters
    ----------
    results
        Folder of all results.
    rows
        As `collect_status` gives them.

    Returns
    -------
    Path
        The file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("phonon_eels", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(PAGE).render(
        rows=[_row(row, Path(results)) for row in rows],
        counts=[(name, _TITLES[name], count) for name, count in _counts(rows)],
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        workflow=workflow_words(Path(results)),
    )
    path = Path(results) / PAGE
    with staged_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def refresh_index(results: Path) -> None:
    """Write the page anew from what lies in a folder of results; a page that cannot be written stops no analysis."""
    try:
        write_index(results, collect_status(results))
    except OutputError as problem:
        log.warning("%s", problem)


def as_text(rows: Sequence[DatasetStatus]) -> str:
    """Return the rows as text, those that need a person first."""
    lines = []
    for row in rows:
        lines.append(f"{row.state:8} {row.name}{'  ' if row.seconds is not None else ''}{time_words(row)}")
        if row.reason:
            lines.append(f"         {row.step + ': ' if row.step else ''}{row.reason}")
        if row.command and row.state in ("failed", "stopped"):
            lines.append(f"         retry: {row.command}")
        if row.state in ("done", "warned"):
            energies = ", ".join(f"{mode['mode']} {energy}" for mode in row.modes if (energy := _energy(mode)))
            lines += [f"         {energies} meV"] if energies else []
            lines.append(f"         {modulation_words(row)}")
        lines += [f"         - {sentence}" for sentence in row.warnings]
    lines.append(", ".join(f"{count} {_TITLES[name]}" for name, count in _counts(rows)) or "no datasets")
    return "\n".join(lines)


def time_words(row: DatasetStatus) -> str:
    """Return the time of a dataset's processes, and how much of it was starting them."""
    overhead = "" if row.overhead_s is None else f", {row.overhead_s:.1f} s of it overhead"
    return f"{duration(row.seconds)}{overhead}"


def modulation_words(row: DatasetStatus) -> str:
    """Return the modulation in a few words: amplitude, standard deviation, p-value."""
    found = row.modulation
    if not found:
        return "modulation not measured"
    amplitude, p_value = found.get("amplitude_mev") or {}, found.get("p_value")
    if amplitude.get("value") is None or p_value is None:
        return f"modulation of {found.get('mode')}: {found.get('verdict') or 'not testable'}"
    return (
        f"modulation of {found.get('mode')}: {_told(amplitude['value'], amplitude.get('std'))} meV, "
        f"p = {p_value:.2g} ({found.get('verdict')})"
    )


def _told(value: float, std: float | None) -> str:
    return plus_minus(value, math.nan if std is None else std)


def duration(seconds: float | None) -> str:
    """Return a time as minutes and seconds."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _energy(mode: Any) -> str:
    value = mode.get("energy_mev")
    return "" if value is None else _told(value, mode.get("energy_mev_std"))


def _counts(rows: Sequence[DatasetStatus]) -> list[tuple[str, int]]:
    return [(name, count) for name in ORDER if (count := sum(row.state == name for row in rows))]


def _row(row: DatasetStatus, results: Path) -> dict[str, Any]:
    picture = row.folder / THUMBNAIL
    report = row.report
    p_value = row.modulation.get("p_value")
    return {
        "name": row.name,
        "state": row.state,
        "title": _TITLES[row.state],
        "rank": ORDER.index(row.state),
        "step": row.step,
        "reason": row.reason,
        "command": row.command if row.state in ("failed", "stopped") else "",
        "picture": base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else "",
        "verdicts": [(name, row.verdicts[name]) for name in ("fail", "warn", "pass") if name in row.verdicts],
        "warnings": row.warnings,
        "modes": [
            {"name": mode["mode"], "energy": _energy(mode), "quantity": mode.get("quantity", "energy_mev")}
            for mode in row.modes
            if _energy(mode)
        ],
        "modulation": modulation_words(row) if row.state in ("done", "warned") else "",
        "p_value": "" if p_value is None else p_value,
        "seconds": row.seconds if row.seconds is not None else "",
        "duration": duration(row.seconds),
        "overhead": "" if row.overhead_s is None else f"{row.overhead_s:.1f} s of it overhead",
        "peak_mb": "" if row.peak_mb is None else f"{row.peak_mb:.0f} MB",
        "report": "" if report is None else report.relative_to(results).as_posix(),
    }
