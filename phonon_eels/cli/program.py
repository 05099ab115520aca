"""Start of the program: what happens to errors and signals, and which exit code they give.

0 done · 2 bad input (also what argparse uses) · 3 a quality check failed · 130 stopped with Ctrl-C · 143 terminated.
Anything else is a defect of the program and shows its traceback.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

from phonon_eels.cli.commands import BAD_INPUT
from phonon_eels.cli.parser import build_parser
from phonon_eels.cli.stops import INTERRUPTED, stoppable
from phonon_eels.errors import DataError, PhononEELSError, QualityError

QUALITY_FAILURE = 3
_OBJECTS_BEFORE_COLLECTION = 100_000
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    arguments
        Words after the program's name; default: those of this process.
    """
    # Blocks of rows are the one level of parallelism; threads of BLAS inside would fight with it for the cores.
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    # It would read the metadata of every installed package to look for plugins; there is none for our settings.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Settings and libraries make objects by the ten thousand while they load, none of them garbage: looking through them each
    # time 700 are new is a tenth of the start. A single step keeps its libraries out of that altogether (`lean`).
    collect = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, *collect[1:])
    try:
        return _run(arguments)
    finally:
        gc.unfreeze()
        gc.set_threshold(*collect)


def _run(arguments: Sequence[str] | None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        with stoppable():
            code: int = options.command(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has seen enough (`phonon-eels schema | head`). Nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PhononEELSError as problem:
        if options.debug:
            raise
        print("error: " + _naming_the_file(problem, options), file=sys.stderr)
        return QUALITY_FAILURE if isinstance(problem, QualityError) else BAD_INPUT
    except KeyboardInterrupt:
        print("stopped: finished steps are kept; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED


def _naming_the_file(problem: PhononEELSError, options: argparse.Namespace) -> str:
    """Return the message in one line; steps know spectra and no files, so theirs is put before it."""
    sentence = " ".join(str(problem).split())
    given = getattr(options, "file", None) or getattr(options, "dataset_folder", None)
    if given is None or not isinstance(problem, DataError | QualityError) or given.name in sentence:
        return sentence
    return f"{given}: {sentence}"
