"""What each command does. Everything heavy is imported here, inside the functions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from phonon_eels.errors import ConfigError

if TYPE_CHECKING:
    from phonon_eels.pipeline import StepOutcome


def run(options: argparse.Namespace) -> int:
    """``phonon-eels run``: all steps on one file."""
    from phonon_eels import pipeline
    from phonon_eels.backends.select import select_backend
    from phonon_eels.cli.console import reporting
    from phonon_eels.cli.options import settings_of

    settings = settings_of(options)
    with reporting(options.quiet, options.debug, options.progress) as show:
        outcomes = pipeline.run(
            options.file,
            options.output,
            settings,
            dataset=options.dataset,
            haadf=options.haadf,
            backend=select_backend(options.device, options.threads),
            progress=show,
            force=options.force,
        )
    _print_paths(*outcomes)
    print(outcomes[-1].folder.parent / "summary.json")
    return 0


def step(options: argparse.Namespace) -> int:
    """``phonon-eels STEP``: one step of a dataset."""
    from phonon_eels import pipeline
    from phonon_eels.backends.select import select_backend
    from phonon_eels.cli.console import reporting
    from phonon_eels.cli.options import settings_of

    settings = settings_of(options)
    with reporting(options.quiet, options.debug, options.progress) as show:
        outcome = pipeline.run_step(
            options.dataset_folder,
            options.step,
            settings,
            input_path=getattr(options, "file", None),
            haadf=getattr(options, "haadf", None),
            backend=select_backend(options.device, options.threads),
            progress=show,
            force=options.force,
        )
    _print_paths(outcome)
    return 0


def inspect(options: argparse.Namespace) -> int:
    """``phonon-eels inspect``: what a file is and what it lacks."""
    raise NotImplementedError


def simulate(options: argparse.Namespace) -> int:
    """``phonon-eels simulate``: a spectrum image with known truth."""
    raise NotImplementedError


def schema(options: argparse.Namespace) -> int:
    """``phonon-eels schema``: the JSON schema of all settings."""
    from phonon_eels.config import json_schema

    sys.stdout.write(json_schema())
    return 0


def _print_paths(*outcomes: StepOutcome) -> None:
    for outcome in outcomes:
        for path in outcome.paths:
            print(path)
