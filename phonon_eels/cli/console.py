"""What the program says while it works: log lines and progress bars, on standard error only."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phonon_eels.cli.stops import stop_if_asked


@contextmanager
def reporting(
    quiet: bool = False, debug: bool = False, progress: bool = False
) -> Iterator[Callable[[str, int, int], None]]:
    """Write the package's log to standard error while the block runs, and give a function that shows progress.

    The function also ends the work if a signal asked for that and went unheard.

    Parameters
    ----------
    quiet
        Only warnings and errors, no bars.
    debug
        Everything.
    progress
        Bars even if standard error is no terminal.
    """
    logger = logging.getLogger("phonon_eels")
    before = logger.level
    # What the console leaves out still goes into the log of a step.
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    with _bars(not quiet and (progress or sys.stderr.isatty()), force=progress) as (handler, show):
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
        logger.addHandler(handler)

        def report(step: str, done: int, total: int) -> None:
            stop_if_asked()
            show(step, done, total)

        try:
            yield report
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)


@contextmanager
def _bars(wanted: bool, force: bool) -> Iterator[tuple[logging.Handler, Callable[[str, int, int], None]]]:
    if not wanted:
        yield logging.StreamHandler(sys.stderr), lambda step, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr, force_terminal=force or None, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, visible=False)

        def show(step: str, done: int, total: int) -> None:
            again = bars.tasks[0].description != step or bars.tasks[0].total != total
            if again:
                bars.reset(task, description=step, total=total, visible=True)
            bars.update(task, completed=done)

        yield _ConsoleHandler(console), show


class _ConsoleHandler(logging.Handler):
    """Writes above the bars instead of through them."""

    def __init__(self, console: object) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self._console.print(self.format(record), markup=False)  # type: ignore[attr-defined]
