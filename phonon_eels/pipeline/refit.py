"""Fit chosen positions of a dataset again, on the files that its steps have left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phonon_eels.config import Settings, load_material
from phonon_eels.errors import InputFileError
from phonon_eels.io.results import read_result, read_summary, staged, write_result
from phonon_eels.pipeline.components import STEP as COMPONENTS
from phonon_eels.pipeline.inputs import input_image, step_context
from phonon_eels.pipeline.lock import lock_step
from phonon_eels.pipeline.staleness import is_fresh, make_provenance, refitted
from phonon_eels.steps.refit import refit_peaks

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend

STEP = "fit_peaks"


def refit(
    folder: str | Path,
    where: str,
    settings: Settings | None = None,
    *,
    backend: Backend | None = None,
    take_over: bool = False,
) -> tuple[int, int]:
    """Fit the positions of a dataset's `fit_peaks` that an expression chooses again, and put the result in place.

    The provenance keeps what was asked for and how many positions changed, and its fingerprint says so: `run` keeps the result, and
    steps that read it are made anew.

    Parameters
    ----------
    folder
        Folder of the dataset, as ``results/scan1``.
    where
        Such as ``status != converged``; see `phonon_eels.steps.refit.chosen_positions`.
    settings
        Those of the run.

    Returns
    -------
    chosen, changed
        Numbers of positions.

    Raises
    ------
    InputFileError
        If the dataset has no result of `fit_peaks`, or one made with other settings.
    ConfigError
        If the expression cannot be read.
    """
    from phonon_eels.backends.select import select_backend

    folder, settings = Path(folder), settings or Settings()
    material, backend = load_material(settings.material), backend or select_backend("auto")
    if (folder / COMPONENTS).is_dir() and not (folder / STEP).is_dir():
        raise InputFileError(
            f"{folder}: holds a result of `phonon-eels fit`, none of {STEP}; fit that again by "
            "`phonon-eels fit FILE --components YAML --where EXPRESSION`, as it was made"
        )
    with lock_step(folder, STEP, take_over) as fence:
        provenance = make_provenance(folder, STEP, settings, material, device=backend.name, threads=backend.threads)
        if not is_fresh(folder, provenance):
            raise InputFileError(
                f"{folder / STEP}: is not what these settings make; give the settings of the run (--recipe, --config, --set), or run "
                f"`phonon-eels fit_peaks --dataset-folder {folder}` first"
            )
        record = read_summary(folder / STEP)["provenance"]
        before = read_result(folder / STEP)

        def silent(done: int, total: int) -> None:
            """Report no progress."""

        with staged(folder / STEP, lambda: fence.check(STEP)) as temporary:
            context = step_context(folder, STEP, settings, material, backend, silent, temporary)
            image = input_image(folder, STEP, settings, None, backend)
            result, chosen, changed = refit_peaks(before, image, getattr(settings, STEP), context, where)
            sentence = (
                f"refit where {where}: {chosen} positions fitted again from other starts, {changed} of them changed"
            )
            result = replace(result, messages=(*result.messages, sentence))
            write_result(
                result,
                temporary,
                step=STEP,
                provenance=refitted(record, where, chosen, changed, provenance.time),
                threads=backend.threads,
            )
    return chosen, changed
