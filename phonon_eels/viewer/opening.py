"""Opens files, results of a dataset and folders of several as sessions. No Qt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phonon_eels.config import STEP_NAMES, Material, Settings, load_material
from phonon_eels.errors import InputFileError, PhononEELSError
from phonon_eels.spectrum_image import StepResult
from phonon_eels.viewer.sessions import Session


def open_file(path: Path, settings: Settings | None = None) -> Session:
    """Open a spectrum image in any format that `read` knows; its counts stay on disk.

    Raises
    ------
    InputFileError, DataError
        As `io.read.read`.
    """
    from phonon_eels.io.read import read

    settings = settings or Settings()
    number = settings.ingest.signal
    image = read(path, acquisition=settings.acquisition, signal=number)
    name = path.stem if number is None else f"{path.stem}_signal{number}"
    return Session(name, image, path.absolute(), None, settings, load_material(settings.material))


def result_folders(path: Path) -> list[Path]:
    """Return the dataset folders that a folder is, belongs to, or holds; empty for any other folder."""
    if path.suffix == ".zspy" or not path.is_dir():
        return []
    if path.name in STEP_NAMES and (path / "summary.json").is_file():
        return [path.parent]
    if _is_dataset(path):
        return [path]
    return [folder for folder in sorted(path.iterdir()) if folder.is_dir() and _is_dataset(folder)]


def _is_dataset(folder: Path) -> bool:
    return any((folder / step / "summary.json").is_file() for step in STEP_NAMES)


def open_results(folder: Path) -> Session:
    """Open the results of one dataset: those of every step that was run, and the spectra that were fitted.

    Raises
    ------
    InputFileError
        If there is no whole result or no spectrum image, or it is damaged or of a newer version.
    """
    from phonon_eels.io.results import image_of, read_maps, read_summary, read_tables
    from phonon_eels.pipeline.staleness import recorded_source
    from phonon_eels.steps.registry import steps_of_route

    results, tree = {}, {}
    for step in STEP_NAMES:
        if not (folder / step / "summary.json").is_file():
            continue
        record = read_summary(folder / step)
        tree.update(record.get("provenance", {}).get("settings", {}))
        path = folder / step / "maps.nc"
        results[step] = StepResult(
            maps=read_maps(path) if path.is_file() else None,
            tables=read_tables(folder / step),
            summary=record["summary"],
            messages=tuple(record["messages"]),
            skipped=record["skipped"],
        )
    settings, material, notes = _recorded(folder, tree)
    route = [entry.name for entry in steps_of_route(settings.route)]
    before = [step for step in route[: route.index("fit_peaks")] if step in results]
    image = next((found for step in reversed(before) if (found := image_of(folder / step)) is not None), None)
    if image is None:
        raise InputFileError(f"{folder} holds no spectrum image; run `phonon-eels ingest FILE` into it first")
    source = (recorded_source(folder) or {}).get("spectra", {}).get("path")
    source = None if source is None else Path(source)
    return Session(folder.name, image, source, folder.absolute(), settings, material, results, notes)


def _recorded(folder: Path, tree: Mapping[str, Any]) -> tuple[Settings, Material, tuple[str, ...]]:
    """Return the settings that results were made with; the defaults, and a note, where they can no longer be read."""
    from phonon_eels.config.load import settings_from_tree

    try:
        settings = settings_from_tree(tree, "settings of the results")
        return settings, load_material(settings.material), ()
    except PhononEELSError as problem:
        note = (
            f"{folder.name}: the settings of these results cannot be read ({problem}); the defaults are shown instead"
        )
        return Settings(), load_material("bi2212"), (note,)


def open_path(path: Path) -> list[Session]:
    """Open a file, the results of a dataset, or a folder of several.

    Raises
    ------
    PhononEELSError
        If it cannot be read, or is neither.
    """
    path = Path(path)
    folders = result_folders(path)
    if folders:
        return [open_results(folder) for folder in folders]
    if path.is_dir() and path.suffix != ".zspy":
        raise InputFileError(
            f"{path} holds no results; open the folder of a dataset, which `phonon-eels run` makes, or a folder of several, "
            f"or a spectrum file"
        )
    return open_scans(path)


def open_scans(path: Path) -> list[Session]:
    """Open every spectrum image of a file; where it holds several, each with the setting that chooses it.

    Raises
    ------
    PhononEELSError
        If it cannot be read, or holds none.
    """
    from phonon_eels.io.read import scan_numbers

    try:
        return [open_file(path)]
    except InputFileError:
        numbers = scan_numbers(path)
        if len(numbers) < 2:
            raise
    settings = [Settings.model_validate({"ingest": {"signal": number}}) for number in numbers]
    return [open_file(path, one) for one in settings]
