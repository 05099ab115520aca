"""Run one step, or all of them: the only place that joins steps, files and provenance."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonon_eels.config import Material, Settings, load_material
from phonon_eels.errors import InputFileError, OutputError
from phonon_eels.io.results import (
    read_image,
    read_maps,
    read_result,
    read_summary,
    read_tables,
    recover,
    staged,
    write_result,
)
from phonon_eels.pipeline.datasets import check_dataset_name, dataset_folder
from phonon_eels.pipeline.lock import lock_dataset, lock_step
from phonon_eels.pipeline.overview import write_overview
from phonon_eels.pipeline.staleness import SOURCE_FILE, describe_source, is_fresh, make_provenance, recorded_source
from phonon_eels.steps.registry import find_step, steps_of_route, upstream
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend
    from phonon_eels.spectrum_image import SpectrumImage, StepResult

log = logging.getLogger(__name__)

StepProgress = Callable[[str, int, int], None]
"""Called with (step, done, total) while long work goes on."""


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
    surroundings = _surroundings(settings, backend, progress, force)
    # Before the folder is made: a misspelt name or path must not leave one behind.
    if upstream(step, surroundings.settings.route) and not folder.is_dir():
        raise InputFileError(
            f"{folder}: is no folder of a dataset; run `phonon-eels ingest FILE --dataset-folder {folder}` first, "
            f"or every step with `phonon-eels run`"
        )
    if step == "ingest":
        _describe(folder, input_path, haadf)
    with lock_step(folder, step):
        outcome = _run_step(folder, step, surroundings, input_path, haadf)
        if step == "report":
            write_overview(folder, surroundings.settings.route)
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
    haadf, backend, progress, force
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
    surroundings = _surroundings(settings, backend, progress, force)
    _describe(folder, input_path, haadf)  # before the folder is made: a misspelt path must not leave one behind
    outcomes = []
    with lock_dataset(folder):
        for entry in steps_of_route(surroundings.settings.route):
            outcomes.append(_run_step(folder, entry.name, surroundings, input_path, haadf))
        write_overview(folder, surroundings.settings.route)
    return tuple(outcomes)


def _surroundings(
    settings: Settings | None, backend: Backend | None, progress: StepProgress | None, force: bool
) -> _Surroundings:
    from phonon_eels.backends.select import select_backend

    settings = settings or Settings()
    return _Surroundings(
        settings,
        load_material(settings.material),
        backend or select_backend("auto"),
        progress or (lambda step, done, total: None),
        force,
    )


def _run_step(
    folder: Path, step: str, surroundings: _Surroundings, input_path: str | Path | None, haadf: str | Path | None
) -> StepOutcome:
    settings, backend = surroundings.settings, surroundings.backend
    for sentence in recover(folder):
        log.info(sentence)
    source = _source(folder, input_path, haadf, surroundings.force) if step == "ingest" else None
    provenance = make_provenance(
        folder, step, settings, surroundings.material, source, device=backend.name, threads=backend.threads
    )
    if not surroundings.force and is_fresh(folder, provenance):
        record = read_summary(folder / step)
        log.info("%s: up to date", step)
        return StepOutcome(step, folder / step, True, record["skipped"], tuple(record["messages"]))
    log.debug("%s: starts", step)
    progress = partial(surroundings.progress, step)
    with staged(folder / step) as temporary:
        result = _compute(folder, step, surroundings, source, progress, temporary)
        if source is not None:
            _keep_source(temporary, source)
        chunk = {"chunk_bytes": settings.ingest.chunk_megabytes * 1e6} if step == "ingest" else {}
        write_result(
            result,
            temporary,
            step=step,
            provenance=provenance.to_dict(),
            threads=backend.threads,
            progress=progress,
            **chunk,
        )
    _tell(step, result)
    return StepOutcome(step, folder / step, False, result.skipped, tuple(result.messages))


def _compute(
    folder: Path,
    step: str,
    surroundings: _Surroundings,
    source: Mapping[str, Any] | None,
    progress: Callable[[int, int], None],
    temporary: Path,
) -> StepResult:
    """Call the step, unless its settings switch it off."""
    entry, section = find_step(step), getattr(surroundings.settings, step)
    reason = entry.idle_reason(section)
    if reason is not None:
        from phonon_eels.spectrum_image import StepResult

        return StepResult(skipped=reason)
    image = _input_image(folder, step, surroundings.settings, source)
    return entry.load().run(image, section, _context(folder, step, surroundings, progress, temporary))


def _tell(step: str, result: StepResult) -> None:
    if result.skipped is not None:
        log.info("%s: skipped: %s", step, result.skipped)
    else:
        log.info("%s: done", step)
    for message in result.messages:
        log.info("%s: %s", step, message)


def _source(folder: Path, input_path: str | Path | None, haadf: str | Path | None, force: bool) -> dict[str, Any]:
    """Describe the input files, and refuse another file in place of the one whose results are here."""
    source = _describe(folder, input_path, haadf)
    old, new = (recorded_source(folder) or {}).get("spectra"), source["spectra"]
    finished = (folder / "ingest" / "summary.json").is_file()
    if old and finished and not force and old["path"] != new["path"] and old["sha256"] != new["sha256"]:
        raise OutputError(
            f"{folder}: holds the results of another file, {old['path']}; give this one a name of its own with "
            f"--dataset, or replace those results with --force"
        )
    return source


def _describe(folder: Path, input_path: str | Path | None, haadf: str | Path | None) -> dict[str, Any]:
    """Describe the input files of `ingest`; a truth file beside the spectra is one of them."""
    known = recorded_source(folder) or {}
    if input_path is None:
        if "spectra" not in known:
            raise InputFileError(f"{folder}: ingest needs the file to read; give it as `phonon-eels ingest FILE`")
        input_path, haadf = known["spectra"]["path"], haadf or known.get("haadf", {}).get("path")
    input_path = Path(input_path)
    truth = input_path.with_name(f"{input_path.stem}.truth.json")
    haadf = None if haadf is None else Path(haadf)
    files = {"spectra": input_path, "haadf": haadf, "truth": truth if truth.is_file() else None}
    return describe_source(files, known)


def _keep_source(temporary: Path, source: Mapping[str, Any]) -> None:
    (temporary / SOURCE_FILE).write_text(json.dumps(source, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if "truth" in source:
        shutil.copyfile(source["truth"]["path"], temporary / "truth.json")


def _input_image(folder: Path, step: str, settings: Settings, source: Mapping[str, Any] | None) -> SpectrumImage:
    """Read the file for `ingest`; for others the image of the nearest earlier step that wrote one."""
    if source is not None:
        from phonon_eels.io.read import read

        haadf = source.get("haadf", {}).get("path")
        return read(
            Path(source["spectra"]["path"]),
            acquisition=settings.acquisition,
            haadf=None if haadf is None else Path(haadf),
            signal=settings.ingest.signal,
        )
    route = [entry.name for entry in steps_of_route(settings.route)]
    for earlier in reversed(route[: route.index(step)]):
        if (folder / earlier / "image.zspy").is_dir():
            return read_image(folder / earlier)
    raise InputFileError(f"{folder}: holds no spectrum image before {step}; run `phonon-eels ingest FILE` first")


def _context(
    folder: Path, step: str, surroundings: _Surroundings, progress: Callable[[int, int], None], temporary: Path
) -> StepContext:
    """Collect what a step is given; parts that it does not declare stay at their defaults."""
    entry, settings = find_step(step), surroundings.settings
    available = [name for name in upstream(step, settings.route) if name in entry.needs]
    records = {name: read_summary(folder / name) for name in available}
    maps = {name: folder / name / "maps.nc" for name in available}
    truth = folder / "ingest" / "truth.json"
    return StepContext(
        material=surroundings.material,
        backend=surroundings.backend,
        route=settings.route if "route" in entry.shared else "forward",
        maps={name: read_maps(path) for name, path in maps.items() if path.is_file()},
        summaries={
            name: {**record["summary"], "messages": record["messages"], "skipped": record["skipped"]}
            for name, record in records.items()
        },
        tables={name: read_tables(folder / name) for name in available},
        acquisition_settings=settings.acquisition.model_dump() if "acquisition" in entry.shared else {},
        seed=settings.seed if "seed" in entry.shared else 0,
        progress=progress,
        truth=json.loads(truth.read_text("utf-8")) if step == "report" and truth.is_file() else None,
        folder=temporary,
    )
