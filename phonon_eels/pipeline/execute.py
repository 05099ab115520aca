"""Run one step, or all of them: the only place that joins steps, files and provenance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonon_eels.config import Material, Settings
from phonon_eels.errors import InputFileError, OutputError, PhononEELSError
from phonon_eels.forward.recipe import checked_material
from phonon_eels.io.metadata import noise_to_json
from phonon_eels.io.results import read_result, read_summary, recover, staged, write_result
from phonon_eels.pipeline.datasets import check_dataset_name, dataset_folder
from phonon_eels.pipeline.index_page import THUMBNAIL, refresh_index, write_thumbnail
from phonon_eels.pipeline.inputs import checked_source, describe_files, input_image, keep_source, step_context
from phonon_eels.pipeline.lock import Fence, lock_dataset, lock_step
from phonon_eels.pipeline.overview import write_overview
from phonon_eels.pipeline.record import recorded
from phonon_eels.pipeline.staleness import is_fresh, make_provenance
from phonon_eels.pipeline.times import Account, ProcessClock
from phonon_eels.steps.maps import mark_masked
from phonon_eels.steps.registry import find_step, steps_of_route, upstream

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend
    from phonon_eels.provenance import Provenance
    from phonon_eels.spectrum_image import SpectrumImage, StepResult

log = logging.getLogger(__name__)

StepProgress = Callable[[str, int, int], None]
"""Called with (step, done, total) when a step begins and while long work goes on; what it raises ends the work."""


@dataclass(frozen=True)
class StepOutcome:
    """What `run_step` says about a step; the result itself is on disk.

    Attributes
    ----------
    step
        Name of the step.
    folder
        Where its result is.
    up_to_date
        True if the result was there already and is what a run would make again.
    skipped
        Why the step had nothing to do, else None.
    messages
        What the step had to say.
    """

    step: str
    folder: Path
    up_to_date: bool
    skipped: str | None
    messages: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files and cubes of the result, the summary last."""
        found = [path for path in self.folder.iterdir() if path.is_file() or path.suffix == ".zspy"]
        found += [path for name in ("tables", "figures") for path in (self.folder / name).glob("*")]
        return tuple(sorted(found, key=lambda path: (path.name == "summary.json", path)))

    def read(self) -> StepResult:
        """Read the result; its image is lazy."""
        return read_result(self.folder)


@dataclass(frozen=True)
class _Surroundings:
    """What is the same for all steps of a run."""

    settings: Settings
    material: Material
    backend: Backend
    progress: StepProgress
    force: bool
    whole: bool
    """True if all steps run in this process."""
    before_work: Callable[[], None]
    while_writing: Callable[[], AbstractContextManager[None]]
    process: ProcessClock


def run_step(
    folder: str | Path,
    step: str,
    settings: Settings | None = None,
    *,
    input_path: str | Path | None = None,
    haadf: str | Path | None = None,
    backend: Backend | None = None,
    progress: StepProgress | None = None,
    force: bool = False,
    take_over: bool = False,
    before_work: Callable[[], None] = lambda: None,
    while_writing: Callable[[], AbstractContextManager[None]] = nullcontext,
    process_began: float | None = None,
) -> StepOutcome:
    """Run one step of a dataset on the results of the steps before, unless its own is up to date.

    Parameters
    ----------
    folder
        Folder of the dataset, as ``results/scan1``; made by `ingest`.
    step
        Name of the step.
    settings
        Default: every setting at its default. Only the part that the step depends on counts.
    input_path, haadf
        The file, and the file of the dark-field image if that is another one; for `ingest`.
    backend
        Where kernels run; default: what the machine has.
    progress
        Called with (step, done, total).
    force
        Run it even if its result is up to date.
    take_over
        Go on although another process writes there; that one can put no more results in place.
    before_work
        Called if the step has anything to compute, before it reads its input.
    while_writing
        Entered while the result is written.
    process_began
        When this process began, in seconds since 1970, if it does nothing but this: its start is then recorded as overhead.

    Returns
    -------
    StepOutcome
        Where the result is, and what the step said.

    Raises
    ------
    PhononEELSError
        If the input, the settings or the results folder do not allow it; no result is left that looks finished.
    """
    folder = Path(folder)
    check_dataset_name(folder.name)
    process = ProcessClock(process_began)
    surroundings = _surroundings(
        settings,
        backend,
        progress,
        force,
        whole=False,
        process=process,
        before_work=before_work,
        while_writing=while_writing,
    )
    # Before the folder is made: a misspelt name or path must not leave one behind.
    if upstream(step, surroundings.settings.route) and not folder.is_dir():
        raise InputFileError(
            f"{folder}: is no folder of a dataset; run `phonon-eels ingest FILE --dataset-folder {folder}` first, "
            f"or every step with `phonon-eels run`"
        )
    if step == "ingest":
        describe_files(folder, input_path, haadf, surroundings.settings)
    shown = step == "report"
    try:
        with lock_step(folder, step, take_over) as fence:
            outcome = _run_step(folder, step, surroundings, fence, input_path, haadf)
            if step == "report":
                _summarise(folder, surroundings, outcome)
    except PhononEELSError:
        shown = True
        raise
    finally:
        if shown:
            refresh_index(folder.parent)
    return outcome


def run(
    input_path: str | Path,
    output: str | Path = "results",
    settings: Settings | None = None,
    *,
    dataset: str | None = None,
    haadf: str | Path | None = None,
    backend: Backend | None = None,
    progress: StepProgress | None = None,
    force: bool = False,
    take_over: bool = False,
    process_began: float | None = None,
) -> tuple[StepOutcome, ...]:
    """Run all steps of the route on one file, in this process; steps that are up to date are left alone.

    Cubes go from disk to disk in blocks, so a scan may be larger than the memory. A run that was stopped in any way
    is taken up where it was.

    Parameters
    ----------
    input_path
        Spectrum image, in any format that `phonon_eels.read` takes.
    output
        Folder of all results; those of this file go into ``output/dataset``.
    settings
        Default: every setting at its default.
    dataset
        Name of the results; default: the file's name without its ending.
    haadf, backend, progress, force, take_over, process_began
        As for `run_step`.

    Returns
    -------
    tuple of StepOutcome
        One per step, in order.

    Raises
    ------
    PhononEELSError
        As `run_step`.
    """
    input_path = Path(input_path)
    folder = dataset_folder(output, dataset or input_path.stem)
    surroundings = _surroundings(settings, backend, progress, force, whole=True, process=ProcessClock(process_began))
    # Before the folder is made: a misspelt path must not leave one behind.
    describe_files(folder, input_path, haadf, surroundings.settings)
    outcomes = []
    try:
        with lock_dataset(folder, take_over) as fence:
            for entry in steps_of_route(surroundings.settings.route):
                outcomes.append(_run_step(folder, entry.name, surroundings, fence, input_path, haadf))
            _summarise(folder, surroundings, outcomes[-1])
    finally:
        if folder.is_dir():
            refresh_index(folder.parent)
    return tuple(outcomes)


def _summarise(folder: Path, surroundings: _Surroundings, last: StepOutcome) -> None:
    """Write what stands in the dataset's own folder: its summary and its picture."""
    write_overview(folder, surroundings.settings.route)
    if not last.up_to_date or not (folder / THUMBNAIL).is_file():
        write_thumbnail(folder)


def _surroundings(
    settings: Settings | None,
    backend: Backend | None,
    progress: StepProgress | None,
    force: bool,
    *,
    whole: bool,
    process: ProcessClock,
    before_work: Callable[[], None] = lambda: None,
    while_writing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> _Surroundings:
    from phonon_eels.backends.select import select_backend

    settings = settings or Settings()
    return _Surroundings(
        settings, checked_material(settings), backend or select_backend("auto"), progress or (lambda step, done, total: None),
        force, whole, before_work, while_writing, process,
    )  # fmt: skip


def _run_step(
    folder: Path,
    step: str,
    surroundings: _Surroundings,
    fence: Fence,
    input_path: str | Path | None,
    haadf: str | Path | None,
) -> StepOutcome:
    with recorded(folder, step, with_log=surroundings.whole, process=surroundings.process) as account:
        for sentence in recover(folder):
            log.info(sentence)
        source = None
        if step == "ingest":
            source = checked_source(folder, input_path, haadf, surroundings.settings, surroundings.force)
        provenance = make_provenance(
            folder,
            step,
            surroundings.settings,
            surroundings.material,
            source,
            device=_device(step, surroundings.backend),
            threads=surroundings.backend.threads,
        )
        if not surroundings.force and is_fresh(folder, provenance):
            account.idle = True
            record = read_summary(folder / step)
            log.info("%s: up to date", step)
            return StepOutcome(step, folder / step, True, record["skipped"], tuple(record["messages"]))
        result = _make(folder, step, surroundings, fence, source, provenance, account)
        _tell(step, result)
        return StepOutcome(step, folder / step, False, result.skipped, tuple(result.messages))


def _device(step: str, backend: Backend) -> str:
    """Return where a step's kernels run, and say so where that is not what was asked for."""
    if backend.name in find_step(step).devices:
        return backend.name
    log.info("%s: runs on the processor; it has no kernels for the GPU", step)
    return "cpu"


def _make(
    folder: Path,
    step: str,
    surroundings: _Surroundings,
    fence: Fence,
    source: Mapping[str, Any] | None,
    provenance: Provenance,
    account: Account,
) -> StepResult:
    """Compute a step and put its result in place, unless another attempt has taken over meanwhile."""
    log.debug("%s: starts", step)
    settings, backend = surroundings.settings, surroundings.backend
    progress = partial(surroundings.progress, step)
    inputs = _places(folder, provenance.parents)
    progress(0, 1)

    def check() -> None:
        fence.check(step)
        if _places(folder, provenance.parents) != inputs:
            raise OutputError(
                f"{folder / step}: results that it reads were replaced meanwhile; run the same command again"
            )

    with staged(folder / step, check) as temporary:
        result = _compute(folder, step, surroundings, source, progress, temporary, account)
        if source is not None:
            keep_source(temporary, source)
        chunk = {"chunk_bytes": settings.ingest.chunk_megabytes * 1e6} if step == "ingest" else {}
        with account.working(), surroundings.while_writing():
            write_result(
                result,
                temporary,
                step=step,
                provenance=provenance.to_dict(),
                threads=backend.threads,
                progress=progress,
                store=getattr(backend, "store", None),
                **chunk,
            )
    return result


def _places(folder: Path, steps: Iterable[str]) -> list[int]:
    """Return what changes when a step's folder is exchanged for another one."""
    return [(folder / name).stat().st_ino if (folder / name).exists() else 0 for name in steps]


def _compute(
    folder: Path,
    step: str,
    surroundings: _Surroundings,
    source: Mapping[str, Any] | None,
    progress: Callable[[int, int], None],
    temporary: Path,
    account: Account,
) -> StepResult:
    """Call the step, unless its settings switch it off."""
    entry, section = find_step(step), getattr(surroundings.settings, step)
    reason = entry.idle_reason(section)
    if reason is not None:
        from phonon_eels.spectrum_image import StepResult

        return StepResult(skipped=reason)
    surroundings.before_work()
    image = input_image(folder, step, surroundings.settings, source, surroundings.backend)
    context = step_context(
        folder, step, surroundings.settings, surroundings.material, surroundings.backend, progress, temporary
    )
    spec = entry.load()
    with account.working():
        result = spec.run(image, section, context)
    result = mark_masked(result, image, estimates=step not in ("ingest", "register_frames"))
    return _with_noise(result, image)


def _with_noise(result: StepResult, image: SpectrumImage) -> StepResult:
    """Record what the step was told of the detector, in the units of the counts that it took."""
    if result.skipped is not None:
        return result
    return replace(result, summary={**result.summary, "noise_used": noise_to_json(image.noise)})


def _tell(step: str, result: StepResult) -> None:
    if result.skipped is not None:
        log.info("%s: skipped: %s", step, result.skipped)
    else:
        log.info("%s: done", step)
    for message in result.messages:
        log.info("%s: %s", step, message)
