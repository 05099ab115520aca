"""Runs steps for the viewer: on the file of a session or on a region of it, with a way to stop. No Qt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config import Settings
from phonon_eels.errors import InputFileError
from phonon_eels.viewer.opening import open_results
from phonon_eels.viewer.regions import bounding_box
from phonon_eels.viewer.sessions import Session, crop

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend, Progress, Take, WholeArray
    from phonon_eels.pipeline import StepOutcome


class Stopped(Exception):
    """The user has cancelled; no result of the step that was running is left."""


class Stoppable:
    """A backend that looks before every block whether it shall go on."""

    def __init__(self, backend: Backend, stop: threading.Event) -> None:
        """Wrap the backend that does the work; `stop` is set by whoever cancels."""
        self._backend, self._stop = backend, stop
        self.name, self.threads = backend.name, backend.threads
        self.shares_memory = backend.shares_memory

    def check(self) -> None:
        """Raise `Stopped` once it was cancelled."""
        if self._stop.is_set():
            raise Stopped("cancelled: no result of the step that was running is left")

    def run(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `Backend.run`."""
        return self._backend.run(block, *args, **kwargs)

    @property
    def xp(self) -> Any:
        """As `Backend.xp`."""
        return self._backend.xp

    @property
    def fft(self) -> Any:
        """As `Backend.fft`."""
        return self._backend.fft

    def whole_array(
        self, function: WholeArray, *arrays: np.ndarray, shared: Sequence[Any] = (), row_bytes: float | None = None
    ) -> Any:
        """As `Backend.whole_array`."""
        self.check()
        return self._backend.whole_array(function, *arrays, shared=shared, row_bytes=row_bytes)

    def map_rows(
        self,
        function: Callable[..., Any],
        arrays: Sequence[Any],
        *,
        progress: Progress | None = None,
        take: Take | None = None,
    ) -> list[Any]:
        """As `Backend.map_rows`."""

        def checked(*args: Any) -> Any:
            self.check()
            return function(*args)

        return self._backend.map_rows(checked, arrays, progress=progress, take=take)

    def map_cube(
        self,
        function: Callable[..., np.ndarray],
        arrays: Sequence[Any],
        *,
        dtype: Any,
        n_channels: int | None = None,
    ) -> Any:
        """As `Backend.map_cube`."""

        def checked(*args: Any) -> np.ndarray:
            self.check()
            return function(*args)

        return self._backend.map_cube(checked, arrays, dtype=dtype, n_channels=n_channels)


Report = Callable[[str, int, int], None]
"""Called with (step, done, total)."""


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes
    ----------
    session
        The scan.
    settings
        Settings of the run.
    last_step
        Run the steps up to this one; None for all.
    output
        Folder of results, for a session that has none yet, and for regions.
    region
        (rows, columns) of bool: only its bounding box is run, as a dataset of its own; None for the whole image.
    """

    session: Session
    settings: Settings
    last_step: str | None
    output: Path
    region: np.ndarray | None = None


def run_job(job: Job, backend: Backend, stop: threading.Event, report: Report) -> Session:
    """Run the steps of a job that are not up to date, and return the session of their results.

    Raises
    ------
    Stopped
        If it was cancelled; results of steps that had ended stay.
    PhononEELSError
        As `pipeline.run_step`.
    """
    from phonon_eels import pipeline
    from phonon_eels.steps.registry import steps_of_route

    stoppable = Stoppable(backend, stop)

    def progress(step: str, done: int, total: int) -> None:
        stoppable.check()
        report(step, done, total)

    folder, source = _place(job)
    outcomes: list[StepOutcome] = []
    for entry in steps_of_route(job.settings.route):
        progress(entry.name, 0, 1)
        path = source if entry.name == "ingest" else None
        outcomes.append(
            pipeline.run_step(
                folder, entry.name, job.settings, input_path=path, backend=stoppable, progress=progress
            )
        )  # fmt: skip
        if entry.name == job.last_step:
            break
    return open_results(folder)


def _place(job: Job) -> tuple[Path, Path | None]:
    """Return the folder of the results and the file to read; the file of a region is written now."""
    session = job.session
    if job.region is not None:
        return _write_region(job)
    if session.folder is not None:
        return session.folder, None
    if session.source is None:
        raise InputFileError(f"{session.name}: its file is not known any more; open the file that was measured")
    return job.output / folder_name(session.name), session.source


def _write_region(job: Job) -> tuple[Path, Path]:
    from phonon_eels.io.export import write_hspy
    from phonon_eels.io.results import read_image

    assert job.region is not None
    rows, columns = bounding_box(job.region)
    name = folder_name(f"{job.session.name}_rows{rows[0]}-{rows[1] - 1}_columns{columns[0]}-{columns[1] - 1}")
    # Its own file, so that the region's results say what they were made from, as those of any other file do; from
    # before any repair, which the run of the region makes itself.
    session = job.session
    whole = session.image if session.folder is None else read_image(session.folder / "ingest")
    image = crop(whole, rows, columns)
    path = job.output / f"{name}.hspy"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_hspy(image.with_(bad=None, title=name), path)
    return job.output / name, path


def folder_name(text: str) -> str:
    """Return a name that a folder may have everywhere."""
    kept = "".join(c if c.isalnum() or c in "_.+-" else "_" for c in text).lstrip("_.+-")
    return kept or "scan"
