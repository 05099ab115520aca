"""Components fitted to a file: read it, fit every position, write maps, table and record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonon_eels.component_fit.image import components_of, fit_image, refit_image
from phonon_eels.config.components import FitSettings
from phonon_eels.errors import InputFileError
from phonon_eels.io.read import read
from phonon_eels.io.results import read_result, read_summary, result_folder, staged, write_result
from phonon_eels.pipeline.lock import lock_step
from phonon_eels.pipeline.staleness import describe_source, refitted
from phonon_eels.provenance import Provenance, collect
from phonon_eels.spectrum_image import SpectrumImage, StepResult

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend, Progress

STEP = "fit_components"
SMALL_FILE_BYTES = 32e6
"""Up to this size a file is read at once, compressed ten times at most: Dask alone takes a second to load."""


def fit_file(
    path: str | Path,
    settings: FitSettings,
    output: str | Path = "results",
    *,
    dataset: str | None = None,
    where: str | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
    take_over: bool = False,
    while_writing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[Path, StepResult]:
    """Fit the components of the settings to every spectrum of a file.

    Parameters
    ----------
    path
        As `phonon_eels.io.read.read` takes it. Energies are those of the file's axis; nothing is aligned.
    output, dataset
        The result goes to ``output/dataset/fit_components``; default dataset: the file's name without its ending.
    where
        Fit only these positions of the result that is there again; see `phonon_eels.component_fit.image.refit_image`.

    while_writing
        Entered while the result is written.

    Returns
    -------
    folder, result
        ``maps.nc``, ``tables/parameters.csv``, ``summary.json``; and what is in them.

    Raises
    ------
    PhononEELSError
        As reading, fitting and writing raise.
    """
    from phonon_eels.backends.select import select_backend

    path, backend = Path(path), backend or select_backend("auto")
    folder = result_folder(Path(output), dataset or path.stem)
    source = describe_source({"spectra": path})["spectra"]
    small = source["bytes"] <= SMALL_FILE_BYTES
    image = read(path, acquisition=settings.acquisition, signal=settings.signal, lazy=not small)
    provenance = collect(
        STEP,
        inputs={f"spectra {path.name}": source["sha256"]},
        settings=settings.model_dump(mode="json"),
        device=backend.name,
        threads=backend.threads,
    )
    how: dict[str, Any] = {
        "likelihood": settings.likelihood,
        "window_mev": settings.window_mev,
        "backend": backend,
    }
    with lock_step(folder, STEP, take_over) as fence:
        record: dict[str, Any] = provenance.to_dict()
        if where is None:
            result = fit_image(image, components_of(settings), progress=progress, **how)
        else:
            result, record = _again(folder, provenance, image, settings, where, how)
        with staged(folder / STEP, lambda: fence.check(STEP)) as temporary, while_writing():
            write_result(result, temporary, step=STEP, provenance=record, threads=backend.threads)
    return folder / STEP, result


def _again(
    folder: Path, provenance: Provenance, image: SpectrumImage, settings: FitSettings, where: str, how: dict[str, Any]
) -> tuple[StepResult, dict[str, Any]]:
    """Fit some positions of the result that is there again; return it with its record."""
    old = read_summary(folder / STEP)["provenance"]
    if str(old.get("fingerprint")).partition("+")[0] != provenance.fingerprint():
        raise InputFileError(
            f"{folder / STEP}: was made of another file or of other components; give the same file, --components and --set, or "
            "leave --where out to fit all positions"
        )
    result, chosen, changed = refit_image(image, components_of(settings), read_result(folder / STEP), where, **how)
    sentence = f"refit where {where}: {chosen} positions fitted again from other starts, {changed} of them changed"
    record = refitted(old, where, chosen, changed, provenance.time)
    return replace(result, messages=(*result.messages, sentence)), record
