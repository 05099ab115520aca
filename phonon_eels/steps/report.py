"""`report`: figures, tables and one self-contained HTML page from the results of all steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonon_eels import __version__
from phonon_eels.config import STEP_NAMES
from phonon_eels.rounding import plus_minus
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps import report_numbers as numbers
from phonon_eels.steps.report_classic import classic_tables
from phonon_eels.steps.report_defences import defence_tables
from phonon_eels.steps.report_figures import draw_all
from phonon_eels.steps.report_frames import reproducibility_table
from phonon_eels.steps.report_lattice import gap_table, layer_table, leakage_table
from phonon_eels.steps.report_sources import Shown, Sources
from phonon_eels.steps.report_truth import compare_with_truth
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    import pandas as pd

    from phonon_eels.config.settings import Report
    from phonon_eels.spectrum_image import SpectrumImage

PAGE = "report.html"
CLASSIC_STEPS = frozenset({"normalise", "denoise", "subtract_zlp", "deconvolve"})


@dataclass(frozen=True)
class StepLine:
    """A line of the table of what was done."""

    name: str
    state: str
    """"done", "skipped" or "not run"."""
    started: str
    words: str


def report(image: SpectrumImage, settings: Report, context: StepContext) -> StepResult:
    """Draw every figure and write the page; what is missing is said in its place.

    Parameters
    ----------
    image
        Latest spectrum image: for its dark-field image, axes and acquisition. Its counts are not read.
    settings
        Formats and resolution of the figures.
    context
        Maps, tables and summaries of the steps before, of which any may be missing. A summary may also hold
        "skipped" and "messages". With a folder, ``report.html`` and ``figures/`` are written into it.

    Returns
    -------
    StepResult
        `truth_comparison` as a table where the truth is known; the verdict and the number of figures in the summary.
    """
    truth_table = compare_with_truth(context)
    figures_folder = None
    if context.folder is not None:
        figures_folder = context.folder / "figures"
        figures_folder.mkdir(parents=True, exist_ok=True)
    shown = draw_all(Sources(image, context, truth_table), settings, figures_folder)
    page = render(image, context, shown, truth_table)
    if context.folder is not None:
        (context.folder / PAGE).write_text(page, encoding="utf-8")
    head = numbers.headline(context)
    summary: dict[str, Any] = {
        "headline": head.sentence,
        "verdict": head.verdict,
        "figures": [entry.name for entry in shown if entry.data],
        "not_drawn": {entry.name: entry.sentence for entry in shown if not entry.data},
    }
    messages = [f"{entry.title}: {entry.sentence}" for entry in shown if entry.failed]
    if truth_table is not None:
        agrees = truth_table["verdict"].astype(str).str.startswith("agrees")
        summary["truth"] = {"compared": len(truth_table), "agree": int(agrees.sum())}
        messages += [
            f"{row['quantity']} disagrees with the truth: {plus_minus(row['measured'], row['std'])} "
            f"against {row['truth']:.4g} {row['unit']}"
            for row in numbers.records(truth_table[~agrees])
        ]
    tables = {} if truth_table is None else {"truth_comparison": truth_table}
    return StepResult(tables=tables, summary=summary, messages=tuple(messages))


def render(
    image: SpectrumImage, context: StepContext, shown: list[Shown], truth_table: pd.DataFrame | None = None
) -> str:
    """Return the page; every string of the data is escaped by the template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("phonon_eels", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    word = numbers.peak_word(image.acquisition, context.material)
    provenance = step_provenance(context)
    tables = [
        numbers.mode_table(context, word),
        numbers.pair_table(context),
        numbers.limit_table(context),
        reproducibility_table(context),
        *classic_tables(context),
        numbers.amplitude_table(context),
        *defence_tables(context),
        gap_table(context),
        layer_table(context),
        leakage_table(context),
        numbers.quality_table(context),
        status_table(context),
        numbers.quantity_table(context),
    ]
    return environment.get_template(PAGE).render(
        title=_title(image, context),
        image=image,
        scan=_scan_words(image),
        facts=numbers.acquisition_facts(image.acquisition),
        zones=numbers.spanned_zones(image.acquisition, context.material),
        material=context.material,
        route=context.route,
        simulated=context.truth is not None,
        head=numbers.headline(context),
        steps=step_lines(context, provenance),
        messages=step_messages(context),
        figures=shown,
        truth=truth_rows(truth_table),
        tables=[table for table in tables if table is not None],
        settings=settings_tree(context, provenance),
        inputs=_inputs(provenance),
        versions=_versions(provenance),
        version=__version__,
        provenance=provenance,
    )


def _title(image: SpectrumImage, context: StepContext) -> str:
    dataset = context.folder.parent.name if context.folder is not None else ""
    return image.title or dataset or "untitled scan"


def _scan_words(image: SpectrumImage) -> str:
    rows, columns, energy = *image.scan, image.energy
    return (
        f"{rows.n} × {columns.n} positions (rows × columns) of {rows.step_nm:.4g} × {columns.step_nm:.4g} nm; "
        f"{energy.n_channels} channels of {energy.dispersion_mev:.4g} meV "
        f"from {energy.offset_mev:.4g} to {energy.last_mev:.4g} meV"
    )


def step_lines(context: StepContext, provenance: Mapping[str, Mapping[str, Any]]) -> list[StepLine]:
    """Return every step of the route with done, skipped (and why) or not run."""
    lines = []
    for name in STEP_NAMES:
        if name == "report" or (context.route == "forward" and name in CLASSIC_STEPS):
            continue
        summary = context.summaries.get(name)
        started = str(provenance.get(name, {}).get("time", ""))
        if summary is None and name not in context.maps and name not in context.tables:
            lines.append(StepLine(name, "not run", started, ""))
        elif summary is not None and summary.get("skipped"):
            lines.append(StepLine(name, "skipped", started, str(summary["skipped"])))
        else:
            lines.append(StepLine(name, "done", started, ""))
    return lines


def step_messages(context: StepContext) -> list[tuple[str, str]]:
    """Return (step, sentence) of everything the steps had to say."""
    return [
        (step, str(sentence))
        for step, summary in context.summaries.items()
        for sentence in (summary.get("messages") or ())
    ]


def status_table(context: StepContext) -> numbers.ReportTable | None:
    """Return how many positions have which status, for every step that maps one."""
    from phonon_eels.figures.maps import flag_counts, percent

    rows = []
    for step, maps in context.maps.items():
        labelled = [("", maps["status"])] if "status" in maps else []
        if "mode_status" in maps and "mode" in maps["mode_status"].dims:
            labelled += [(str(mode), maps["mode_status"].sel(mode=mode)) for mode in maps["mode"].values]
        if "pair_status" in maps:
            labelled += [(str(pair), maps["pair_status"].sel(pair=pair)) for pair in maps["pair"].values]
        for of_what, flags in labelled:
            counts = flag_counts(flags)
            total = sum(count for _, count in counts)
            there = " · ".join(f"{name} {count} ({percent(count, total)})" for name, count in counts if count)
            rows.append((step, of_what, there, ", ".join(name for name, count in counts if not count)))
    header = ("step", "mode or pair", "positions of each status", "none of them")
    return numbers.ReportTable("Status of the positions", header, tuple(rows)) if rows else None


def truth_rows(table: pd.DataFrame | None) -> numbers.ReportTable | None:
    """Return measured against truth as a table of words."""
    rows = [
        (
            str(row["quantity"]),
            plus_minus(row["measured"], row["std"], str(row["unit"])),
            f"{row['truth']:.5g} {row['unit']}".strip(),
            f"{row['pull']:+.2f}",
            str(row["verdict"]),
        )
        for row in numbers.records(table)
    ]
    header = ("quantity", "measured", "truth", "(measured − truth) / std", "verdict")
    note = "Only what the fit calls identifiable is compared; within 3 std agrees."
    return numbers.ReportTable("Measured against truth", header, tuple(rows), note) if rows else None


def step_provenance(context: StepContext) -> dict[str, dict[str, Any]]:
    """Return step → the record of what made its result, as far as it can be found.

    It stands in the step's folder beside ours; in memory it may come with the summary or with the maps.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in STEP_NAMES:
        record = context.summaries.get(name, {}).get("provenance")
        if not isinstance(record, Mapping) and name in context.maps:
            record = _decoded(context.maps[name].attrs.get("provenance"))
        if not isinstance(record, Mapping) and context.folder is not None:
            record = _beside(context.folder.parent / name / "summary.json")
        if isinstance(record, Mapping):
            found[name] = {str(key): value for key, value in record.items()}
    return found


def _beside(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8")).get("provenance")
    except (OSError, ValueError, AttributeError):
        return None


def _decoded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


def settings_tree(context: StepContext, provenance: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (key, value) of every setting that a step used, as the configuration file writes them."""
    tree: dict[str, Any] = {"material": context.material.name, "route": context.route, "seed": context.seed}
    tree["acquisition"] = {k: v for k, v in context.acquisition_settings.items() if v is not None}
    for record in provenance.values():
        for key, value in (record.get("settings") or {}).items():
            if key in STEP_NAMES:
                tree[key] = value
    return _flat(tree)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False, default=str)))
    return lines


def _inputs(provenance: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for record in provenance.values():
        found.update({str(k): str(v) for k, v in (record.get("inputs") or {}).items()})
    return sorted(found.items())


def _versions(provenance: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    found: dict[str, str] = {"phonon_eels": __version__}
    for record in provenance.values():
        found.update({str(k): str(v) for k, v in (record.get("versions") or {}).items()})
    return sorted(found.items())


REPORT = StepSpec(
    name="report",
    run=report,
    needs=tuple(name for name in STEP_NAMES if name != "report"),
    bytes_per_channel=0.0,
)
