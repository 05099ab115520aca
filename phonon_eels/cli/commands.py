"""What each command does. Everything heavy is imported here, inside the functions."""

from __future__ import annotations

import argparse
import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from phonon_eels.errors import ConfigError

BAD_INPUT = 2


def run(options: argparse.Namespace) -> int:
    """``phonon-eels run``: all steps on one file."""
    from phonon_eels import pipeline
    from phonon_eels.cli.console import reporting
    from phonon_eels.cli.options import computing, settings_of
    from phonon_eels.pipeline import dataset_folder
    from phonon_eels.pipeline.times import process_began

    settings = settings_of(options)
    if options.refused is not None:
        _refuse(dataset_folder(options.output, options.dataset or options.file.stem), options.refused)
    with reporting(options.quiet, options.debug, options.progress) as show, computing(options) as backend:
        outcomes = pipeline.run(
            options.file,
            options.output,
            settings,
            dataset=options.dataset,
            haadf=options.haadf,
            backend=backend,
            progress=show,
            force=options.force,
            take_over=options.take_over,
            process_began=process_began(),
        )
    for outcome in outcomes:
        print(outcome.folder)
    page = outcomes[-1].folder / "report.html"
    if page.exists():
        print(page)
    print(outcomes[-1].folder.parent / "summary.json")
    return 0


def step(options: argparse.Namespace) -> int:
    """``phonon-eels STEP``: one step of a dataset."""
    from phonon_eels import pipeline
    from phonon_eels.cli.console import reporting
    from phonon_eels.cli.lean import load_libraries, without_dask, without_unused_libraries
    from phonon_eels.cli.options import computing, settings_of
    from phonon_eels.pipeline.times import process_began
    from phonon_eels.steps.registry import find_step

    settings = settings_of(options)
    if getattr(options, "refused", None) is not None:
        _refuse(options.dataset_folder, options.refused)
    alone = (
        options.step != "ingest" and options.workers is None and options.scheduler is None and options.cluster is None
    )
    reads_counts = find_step(options.step).reads_counts
    quick = without_unused_libraries(reads_counts=reads_counts) if alone else contextlib.nullcontext()
    computer = computing(options, pipeline.IN_MEMORY_BYTES if alone else 0.0)
    hooks: dict[str, Any] = (
        {"before_work": partial(load_libraries, options.step), "while_writing": without_dask} if alone else {}
    )
    with quick, reporting(options.quiet, options.debug, options.progress) as show, computer as backend:
        outcome = pipeline.run_step(
            options.dataset_folder,
            options.step,
            settings,
            input_path=getattr(options, "file", None),
            haadf=getattr(options, "haadf", None),
            backend=backend,
            progress=show,
            force=options.force,
            take_over=options.take_over,
            process_began=process_began(),
            **hooks,
        )
    for path in outcome.paths:
        print(path)
    return 0


def _refuse(folder: Path, reason: str) -> None:
    """Record why a row of the table of datasets is not run, and end."""
    from phonon_eels.pipeline.index_page import refresh_index
    from phonon_eels.pipeline.record import refuse

    refuse(folder, reason)
    refresh_index(folder.parent)
    raise ConfigError(reason)


def status(options: argparse.Namespace) -> int:
    """``phonon-eels status``: how far every dataset is, and what would retry those that failed."""
    from phonon_eels.pipeline.datasets import read_rows
    from phonon_eels.pipeline.index_page import as_text, write_index
    from phonon_eels.pipeline.status import collect_status
    from phonon_eels.pipeline.times import workflow_words

    table = None if options.datasets is None else read_rows(options.datasets)
    rows = collect_status(options.results, table)
    print(as_text(rows))
    if words := workflow_words(options.results):
        print(words)
    if options.results.is_dir():
        print(write_index(options.results, rows))
    return BAD_INPUT if any(row.state in ("failed", "stopped") for row in rows) else 0


def watch(options: argparse.Namespace) -> int:
    """``phonon-eels watch``: analyse whatever arrives in a folder."""
    import shlex
    import signal
    import threading

    from phonon_eels.cli.console import reporting
    from phonon_eels.config.load import read_yaml
    from phonon_eels.pipeline.watch import Snakemake, Watcher, find_snakefile, only_watcher, table_of, watch

    table = table_of(read_yaml(options.config), options.config)
    snakemake = Snakemake(find_snakefile(options.snakefile), options.config, shlex.split(options.snakemake))
    got: list[int] = []

    # The handler only takes note: an exception out of it may arrive anywhere, also where nobody catches it.
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        got.append(number)
        stopping.set()
        snakemake.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with reporting(options.quiet, options.debug), only_watcher(table):
            watcher = Watcher(options.folder, table, options.settle)
            watch(watcher, snakemake, every_s=options.every, stop=stopping.is_set, sleep=stopping.wait)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if got and got[0] == signal.SIGTERM:
        raise SystemExit(128 + signal.SIGTERM)
    raise KeyboardInterrupt


def inspect(options: argparse.Namespace) -> int:
    """``phonon-eels inspect``: what a file is and what it lacks."""
    import json

    from phonon_eels.cli.console import reporting
    from phonon_eels.io.inspect import as_text
    from phonon_eels.io.inspect import inspect as look_into
    from phonon_eels.io.results import to_json
    from phonon_eels.pipeline.gather import gather_settings

    acquisition = gather_settings(overrides=options.overrides).acquisition
    seen: dict[int, dict[str, Any]] = {}
    with reporting(options.quiet, options.debug):
        found = look_into(options.file, acquisition=acquisition, look=seen.__setitem__)
    if options.pictures is not None:
        drawn = [_check_pictures(options.pictures, f"{options.file.stem}-{n}", parts) for n, parts in seen.items()]
        found["pictures"] = [str(path) for paths in drawn for path in paths]
    text = json.dumps(to_json(found), indent=1, ensure_ascii=False) if options.json else as_text(found)
    print(text.rstrip("\n"))
    return 0


def _check_pictures(folder: Path, name: str, parts: dict[str, Any]) -> list[Path]:
    """Write the checks at a glance and a panel for each of them, as PNG and SVG."""
    from phonon_eels import figures
    from phonon_eels.io.atomic import output_error

    summary = {key: value for key, value in parts.items() if key != "pictures"}
    drawn = {"quality": figures.plot_quality(**summary), "checks": figures.plot_checks(**parts)}
    paths = [folder / f"{name}-{kind}.{ending}" for kind in drawn for ending in ("png", "svg")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            figures.save_figure(drawn[path.stem.rsplit("-", 1)[1]], path)
    except OSError as problem:
        raise output_error(folder, problem) from problem
    return paths


def simulate(options: argparse.Namespace) -> int:
    """``phonon-eels simulate``: a spectrum image with known truth."""
    from phonon_eels.cli.console import reporting
    from phonon_eels.config import load_material, load_simulation
    from phonon_eels.simulate import simulate as simulate_image
    from phonon_eels.simulate import write_samples, write_simulation

    if (options.file is None) == (options.sample is None):
        raise ConfigError("simulate: give either the FILE to write, or --sample DIR for the two sample scans")
    if options.sample is not None:
        if options.config is not None or options.overrides:
            raise ConfigError(
                "simulate --sample: the sample scans have settings of their own; leave --config and --set out"
            )
        paths = write_samples(options.sample)
    else:
        settings = load_simulation(options.config, options.overrides)
        material = load_material(options.material, Path.cwd())
        with reporting(options.quiet, options.debug, options.progress) as show:
            # A folder is written block by block, so such a scan may be larger than the memory.
            simulation = simulate_image(
                settings,
                material,
                lazy=options.file.suffix == ".zspy",
                progress=lambda done, total: show("simulate", done, total),
            )
            paths = list(write_simulation(simulation, options.file))
    for path in paths:
        print(path)
    return 0


def plan(options: argparse.Namespace) -> int:
    """``phonon-eels plan``: what a scan can show, before it is taken."""
    import json

    from phonon_eels.cli.console import reporting
    from phonon_eels.config import load_material
    from phonon_eels.config.planning import load_plan
    from phonon_eels.plan.files import as_tree, write_forecast
    from phonon_eels.plan.forecast import forecast
    from phonon_eels.plan.text import as_text

    overrides = list(options.overrides)
    if options.material is not None:
        overrides.append(f"material={options.material}")
    settings = load_plan(options.config, overrides)
    with reporting(options.quiet, options.debug):
        found = forecast(settings, load_material(settings.material, Path.cwd()))
        paths = [] if options.output is None else write_forecast(found, settings, options.output)
    if options.json:
        print(json.dumps(as_tree(found, settings), indent=1, ensure_ascii=False))
    elif not options.quiet:
        print(as_text(found), end="")
    for path in paths:
        print(path, file=sys.stderr if options.json else sys.stdout)
    return 0


def pool(options: argparse.Namespace) -> int:
    """``phonon-eels pool``: several scans of a specimen as one result."""
    from phonon_eels.cli.console import reporting
    from phonon_eels.pipeline.pool import pool_datasets

    with reporting(options.quiet, options.debug):
        result = pool_datasets(options.dataset_folders, options.output, min_units=options.min_units)
    for message in result.messages:
        if not options.quiet:
            print(message, file=sys.stderr)
    print(options.output / "summary.json")
    return 0


def refit(options: argparse.Namespace) -> int:
    """``phonon-eels refit``: some positions of a finished fit again."""
    from phonon_eels.cli.console import reporting
    from phonon_eels.cli.options import computing, settings_of
    from phonon_eels.pipeline.refit import refit as refit_dataset

    settings = settings_of(options)
    with reporting(options.quiet, options.debug), computing(options) as backend:
        chosen, changed = refit_dataset(
            options.dataset_folder, options.where, settings, backend=backend, take_over=options.take_over
        )
    if not options.quiet:
        print(f"{chosen} positions fitted again, {changed} of them changed", file=sys.stderr)
    print(options.dataset_folder / "fit_peaks")
    return 0


def fit(options: argparse.Namespace) -> int:
    """``phonon-eels fit``: peaks and a background of one's own for every spectrum of a file."""
    from phonon_eels.cli.console import reporting
    from phonon_eels.cli.lean import load_xarray_alone, without_dask, without_unused_libraries
    from phonon_eels.cli.options import computing
    from phonon_eels.config.components import load_fit

    settings = load_fit(options.components, options.overrides)
    with reporting(options.quiet, options.debug, options.progress) as show:
        from phonon_eels.pipeline.components import fit_file

        with without_unused_libraries(reads_counts=True):  # readers may want them later
            load_xarray_alone()
        with computing(options) as backend:
            folder, result = fit_file(
                options.file,
                settings,
                options.output,
                dataset=options.dataset,
                where=options.where,
                backend=backend,
                progress=lambda done, total: show("fit", done, total),
                take_over=options.take_over,
                while_writing=without_dask,
            )
    if not options.quiet:
        for message in result.messages:
            print(message, file=sys.stderr)
        print(_as_text(result.tables["parameters"]), file=sys.stderr)
    for name in ("maps.nc", "tables/parameters.csv", "summary.json"):
        print(folder / name)
    return 0


def _as_text(table: Any) -> str:
    """Return the means of a fit's parameters as lines."""
    columns = ["parameter", "unit", "mean", "mean_std", "scatter", "positions"]
    return str(table[columns].to_string(index=False, float_format=lambda number: f"{number:.5g}"))


def schema(options: argparse.Namespace) -> int:
    """``phonon-eels schema``: the JSON schema of all settings, of those of a plan, or of a file of components."""
    from phonon_eels.config import Settings, json_schema
    from phonon_eels.config.components import FitSettings
    from phonon_eels.config.planning import PlanSettings

    sys.stdout.write(json_schema(PlanSettings if options.plan else FitSettings if options.fit else Settings))
    return 0
