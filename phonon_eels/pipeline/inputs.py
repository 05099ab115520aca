"""What a step is given: the files that `ingest` reads, the image it starts from, results of the steps before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonon_eels.errors import InputFileError, OutputError
from phonon_eels.io.results import read_image, read_maps, read_summary, read_tables
from phonon_eels.pipeline.staleness import SOURCE_FILE, describe_source, recorded_source
from phonon_eels.steps.registry import find_step, steps_of_route, upstream
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend
    from phonon_eels.config import Material, Settings
    from phonon_eels.spectrum_image import SpectrumImage


IN_MEMORY_BYTES = 32e6
"""Cubes up to this size a step reads at once, where it works in its own process; larger ones block by block."""


def checked_source(
    folder: Path, input_path: str | Path | None, haadf: str | Path | None, settings: Settings, force: bool
) -> dict[str, Any]:
    """Describe the input files, and refuse another file in place of the one whose results are here."""
    source = describe_files(folder, input_path, haadf, settings)
    old, new = (recorded_source(folder) or {}).get("spectra"), source["spectra"]
    finished = (folder / "ingest" / "summary.json").is_file()
    if old and finished and not force and old["path"] != new["path"] and old["sha256"] != new["sha256"]:
        raise OutputError(
            f"{folder}: holds the results of another file, {old['path']}; give this one a name of its own with "
            f"--dataset, or replace those results with --force"
        )
    return source


def describe_files(
    folder: Path, input_path: str | Path | None, haadf: str | Path | None, settings: Settings
) -> dict[str, Any]:
    """Describe the input files of `ingest`; masks, and a truth file beside the spectra, are among them."""
    known = recorded_source(folder) or {}
    if input_path is None:
        if "spectra" not in known:
            raise InputFileError(f"{folder}: ingest needs the file to read; give it as `phonon-eels ingest FILE`")
        input_path, haadf = known["spectra"]["path"], haadf or known.get("haadf", {}).get("path")
    input_path = Path(input_path)
    truth = input_path.with_name(f"{input_path.stem}.truth.json")
    haadf = None if haadf is None else Path(haadf)
    files = {"spectra": input_path, "haadf": haadf, "truth": truth if truth.is_file() else None}
    files |= {f"mask {number}": Path(file.path) for number, file in enumerate(settings.masks.files)}
    if settings.masks.vacuum_file is not None:
        files["vacuum"] = Path(settings.masks.vacuum_file)
    return describe_source(files, known)


def keep_source(temporary: Path, source: Mapping[str, Any]) -> None:
    (temporary / SOURCE_FILE).write_text(json.dumps(source, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if "truth" in source:
        shutil.copyfile(source["truth"]["path"], temporary / "truth.json")


def input_image(
    folder: Path, step: str, settings: Settings, source: Mapping[str, Any] | None, backend: Backend
) -> SpectrumImage:
    """Read the file for `ingest`; for others the image of the nearest earlier step that wrote one."""
    if source is not None:
        from phonon_eels.io.read import read
        from phonon_eels.io.regions import mark_regions

        haadf = source.get("haadf", {}).get("path")
        image = read(
            Path(source["spectra"]["path"]),
            acquisition=settings.acquisition,
            haadf=None if haadf is None else Path(haadf),
            signal=settings.ingest.signal,
        )
        return mark_regions(image, settings.masks.files)
    route = [entry.name for entry in steps_of_route(settings.route)]
    for earlier in reversed(route[: route.index(step)]):
        if (folder / earlier / "image.zspy").is_dir():
            # Workers of a cluster read their blocks themselves, however small the scan.
            at_once = 0.0 if hasattr(backend, "store") else IN_MEMORY_BYTES
            return read_image(folder / earlier, lazy=find_step(step).reads_counts, in_memory_bytes=at_once)
    raise InputFileError(f"{folder}: holds no spectrum image before {step}; run `phonon-eels ingest FILE` first")


def _vacuum(settings: Settings) -> SpectrumImage | None:
    """Read the scan of vacuum alone."""
    if settings.masks.vacuum_file is None:
        return None
    from phonon_eels.io.read import read

    return read(Path(settings.masks.vacuum_file), acquisition=settings.acquisition)


def step_context(
    folder: Path,
    step: str,
    settings: Settings,
    material: Material,
    backend: Backend,
    progress: Callable[[int, int], None],
    temporary: Path,
) -> StepContext:
    """Collect what a step is given; parts that it does not declare stay at their defaults."""
    entry = find_step(step)
    available = [name for name in upstream(step, settings.route) if name in entry.needs]
    records = {name: read_summary(folder / name) for name in available}
    maps = {name: folder / name / "maps.nc" for name in available}
    truth = folder / "ingest" / "truth.json"
    return StepContext(
        material=material,
        backend=backend,
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
        vacuum=_vacuum(settings) if step == "ingest" else None,
        truth=json.loads(truth.read_text("utf-8")) if step == "report" and truth.is_file() else None,
        folder=temporary,
    )
