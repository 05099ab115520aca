"""Words and options of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from phonon_eels import __version__
from phonon_eels.cli import commands

_EPILOG = """\
exit codes: 0 done, 2 bad input, 3 a quality check failed, 130 stopped
Paths of results go to standard output, one a line; everything else to standard error.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; every step of the registry is a command."""
    parser = argparse.ArgumentParser(
        prog="phonon-eels",
        description="Layer-resolved phonon maps from STEM-EELS spectrum images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"phonon-eels {__version__}")
    words = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(words)
    _add_status(words)
    _add_watch(words)
    _add_inspect(words)
    _add_simulate(words)
    _add_plan(words)
    _add_pool(words)
    _add_refit(words)
    _add_fit(words)
    _add_schema(words)
    _add_steps(words)
    return parser


def _add_run(words: Any) -> None:
    run = _command(words, "run", "all steps on one file, without Snakemake", commands.run)
    run.add_argument("file", type=Path, metavar="FILE", help="spectrum image, in any format that HyperSpy reads")
    run.add_argument(
        "--output", type=Path, default=Path("results"), metavar="DIR", help="folder of all results (results)"
    )
    run.add_argument(
        "--dataset", metavar="NAME", help="name of this file's results (the file's name without its ending)"
    )
    _add_haadf(run)
    _add_refused(run)
    _add_split(run)
    _add_settings(run)
    _add_machine(run)


def _add_status(words: Any) -> None:
    status = _command(words, "status", "how far every dataset is, what failed and what retries it", commands.status)
    status.add_argument(
        "results", type=Path, metavar="DIR", nargs="?", default=Path("results"), help="folder of all results (results)"
    )
    status.add_argument(
        "--datasets", type=Path, metavar="TSV", help="table of datasets: those that never ran are shown too"
    )


def _add_watch(words: Any) -> None:
    watch = _command(words, "watch", "analyse whatever arrives in a folder, until stopped", commands.watch)
    watch.add_argument("folder", type=Path, metavar="DIR", help="where acquisitions are written")
    watch.add_argument(
        "--config", type=Path, required=True, metavar="YAML",
        help="configuration of the workflow (as pipelines/config.yaml): table of datasets, results, settings",
    )  # fmt: skip
    watch.add_argument("--snakefile", type=Path, metavar="FILE", help="default: ./Snakefile, or the repository's")
    watch.add_argument(
        "--settle", type=float, default=20.0, metavar="S", help="seconds for which a file must not change (20)"
    )
    watch.add_argument("--every", type=float, default=10.0, metavar="S", help="seconds between looks (10)")
    watch.add_argument(
        "--snakemake", default="--cores all", metavar="WORDS", help='words for Snakemake (--snakemake="--cores all")'
    )


def _add_inspect(words: Any) -> None:
    inspect = _command(
        words, "inspect", "what is this file: axes, units, zero-loss width, what is missing", commands.inspect
    )
    inspect.add_argument("file", type=Path, metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="as JSON, for programs")
    inspect.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="write a picture of the spectra and one of every check into this folder",
    )
    _add_set(inspect, "acquisition.energy_unit=meV")


def _add_simulate(words: Any) -> None:
    simulate = _command(words, "simulate", "a spectrum image with known truth", commands.simulate)
    simulate.add_argument(
        "file", type=Path, metavar="FILE", nargs="?", help="the .hspy file to write; FILE's .truth.json lies beside it"
    )
    simulate.add_argument("--config", type=Path, metavar="YAML", help="settings of the simulation")
    _add_set(simulate, "scan.rows=64")
    simulate.add_argument("--sample", type=Path, metavar="DIR", help="instead: the two sample scans, into this folder")
    simulate.add_argument(
        "--material", default="bi2212", metavar="NAME", help="shipped material, or a YAML file (bi2212)"
    )
    simulate.add_argument("--progress", action="store_true", help="show progress bars even if this is no terminal")


def _add_plan(words: Any) -> None:
    plan = _command(words, "plan", "before the beam time: what a scan can show, and what more would buy", commands.plan)
    plan.add_argument("--config", type=Path, metavar="YAML", help="the planned experiment")
    _add_set(plan, "beam.current_pa=20")
    plan.add_argument("--material", metavar="NAME", help="shipped material, or a YAML file (bi2212)")
    plan.add_argument(
        "--output", type=Path, metavar="DIR", help="also write figure, tables and plan.json into this folder"
    )
    plan.add_argument("--json", action="store_true", help="as JSON, for programs")


def _add_pool(words: Any) -> None:
    pool = _command(
        words, "pool", "several scans of a specimen: one amplitude, with the variance between scans", commands.pool
    )
    pool.add_argument("dataset_folders", type=Path, nargs="+", metavar="DATASET_FOLDER", help="as results/scan1")
    pool.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the pooled result")
    pool.add_argument("--min-units", type=_positive, metavar="N", help="planes a test asks for (as the scans say)")


def _add_refit(words: Any) -> None:
    refit = _command(
        words,
        "refit",
        "fit chosen positions of fit_peaks again, from other starts; the others keep their bits",
        commands.refit,
    )
    refit.add_argument(
        "--dataset-folder", type=Path, required=True, metavar="DIR", help="folder of the dataset, as results/scan1"
    )
    refit.add_argument(
        "--where", required=True, metavar="EXPRESSION",
        help='which positions, by the maps of fit_peaks: "status != converged", "p_value < 0.001", '
        '"CuO78.mode_status == failed or CuO78.energy_mev_std > 0.5"',
    )  # fmt: skip
    _add_settings(refit)
    _add_machine(refit, again=False)


def _add_fit(words: Any) -> None:
    fit = _command(words, "fit", "peaks and a background of your own, fitted to every spectrum of a file", commands.fit)
    fit.add_argument("file", type=Path, metavar="FILE", help="spectra, in any format that HyperSpy reads")
    fit.add_argument(
        "--components", type=Path, required=True, metavar="YAML", help="peaks, backgrounds, window: docs/howto/fit-components.md"
    )  # fmt: skip
    _add_set(fit, "components.peak.start.centre=78")
    fit.add_argument(
        "--output", type=Path, default=Path("results"), metavar="DIR", help="folder of all results (results)"
    )
    fit.add_argument(
        "--dataset", metavar="NAME", help="name of this file's results (the file's name without its ending)"
    )
    fit.add_argument(
        "--where", metavar="EXPRESSION",
        help='fit only these positions of the result that is there again: "status != converged", "peak.centre.std > 0.5"',
    )  # fmt: skip
    _add_machine(fit, again=False)


def _add_schema(words: Any) -> None:
    schema = _command(words, "schema", "JSON schema of all settings", commands.schema)
    what = schema.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="of the settings of `phonon-eels plan` instead")
    what.add_argument("--fit", action="store_true", help="of the components of `phonon-eels fit` instead")


def _add_steps(words: Any) -> None:
    from phonon_eels.config import Settings
    from phonon_eels.steps.registry import REGISTRY

    for entry in REGISTRY:
        about = (Settings.model_fields[entry.name].annotation.__doc__ or "").strip().splitlines()[0]
        step = _command(words, entry.name, f"step: {about[:1].lower()}{about[1:].rstrip('.')}", commands.step)
        step.set_defaults(step=entry.name)
        if entry.name == "ingest":
            step.add_argument("file", type=Path, metavar="FILE", nargs="?", help="default: the file it has read before")
            _add_haadf(step)
            _add_refused(step)
        if entry.name == "register_frames":
            _add_split(step)
        step.add_argument(
            "--dataset-folder", type=Path, required=True, metavar="DIR", help="folder of the dataset, as results/scan1"
        )
        _add_settings(step)
        _add_machine(step)


def _command(words: Any, name: str, about: str, function: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = words.add_parser(
        name, help=about.replace("%", "%%"), description=about[:1].upper() + about[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(command=function)
    parser.add_argument("--quiet", action="store_true", help="say only warnings and errors")
    parser.add_argument("--debug", action="store_true", help="say more, and show where an error came from")
    return parser


def _add_haadf(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--haadf", type=Path, metavar="FILE", help="dark-field image, where it is a file of its own")


def _add_refused(parser: argparse.ArgumentParser) -> None:
    # For the workflow: a row of its table that cannot be run fails like any other, and costs the others nothing.
    parser.add_argument("--refused", metavar="REASON", help=argparse.SUPPRESS)


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split",
        choices=("all", "odd", "even", "first", "last"),
        help="add only these frames, to compare with the others (same as --set register_frames.split=…)",
    )


def _add_set(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help=f"a setting, as {example}; repeatable",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "settings", "each wins over the one before: --recipe, --config, --settings, --set"
    )
    group.add_argument("--recipe", metavar="NAME", help="a shipped set of settings: forward, pku2021")
    group.add_argument("--config", type=Path, metavar="YAML", help="file of settings")
    group.add_argument("--settings", metavar="JSON", help="settings as one JSON object, as the workflow gives them")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="one setting, as fit_peaks.background=linear; repeatable",
    )


def _add_machine(parser: argparse.ArgumentParser, again: bool = True) -> None:
    group = parser.add_argument_group("machine", "no influence on the results")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where kernels run (auto)")
    group.add_argument(
        "--threads", type=_positive, metavar="N", help="threads (default: all processors of this process)"
    )
    group.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on the workers of this dask.distributed scheduler (tcp://host:8786)"
    )
    group.add_argument(
        "--workers", type=_positive, metavar="N", help="run on N worker processes, each with --threads threads (1)"
    )
    group.add_argument("--cluster", choices=("slurm",), help="start the workers as jobs, through dask-jobqueue")
    group.add_argument("--worker-memory", metavar="SIZE", help="memory of a worker, as 4GB")
    if again:
        group.add_argument("--force", action="store_true", help="run steps again even if they are up to date")
    group.add_argument(
        "--take-over",
        action="store_true",
        help="go on although another process writes there, which then leaves its results out (for schedulers)",
    )
    group.add_argument("--progress", action="store_true", help="show progress bars even if this is no terminal")


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; give 1 or more")
    return number
