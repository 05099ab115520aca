"""When a result on disk is still the one that a run would make again.

Every result carries the fingerprint of its provenance: program version, the settings the step depends on, the
fingerprints of the results it read and, for `ingest`, the content of the input files. A step whose recorded
fingerprint equals the one worked out anew is up to date. Nothing is compared by time, so copied results and restored
backups stay valid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phonon_eels.config import Material, Settings, load_material
from phonon_eels.errors import InputFileError, PhononEELSError
from phonon_eels.io.nion_project import project_files
from phonon_eels.io.results import read_summary
from phonon_eels.provenance import Provenance, collect, file_digest, json_digest
from phonon_eels.steps.registry import find_step, steps_of_route, upstream

REFITTED = "+refit."
SOURCE_FILE = "source.json"
"""In the folder of `ingest`: the input files, so that nobody has to hash them again while they are unchanged."""


def relevant_settings(settings: Settings, step: str) -> dict[str, Any]:
    """Return the part of the settings that a step depends on, as a tree of plain values."""
    return settings.model_dump(mode="json", include={step, *find_step(step).shared})


def step_parameters(settings: Settings, step: str) -> str:
    """Return the part of the settings that a step depends on, as one line of JSON.

    The workflow hands it to ``phonon-eels STEP --settings`` and runs a rule again when it changes.
    """
    return json.dumps(relevant_settings(settings, step), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def make_provenance(
    folder: Path,
    step: str,
    settings: Settings,
    material: Material,
    source: Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Provenance:
    """Make the record of what determines a step's result now.

    Parameters
    ----------
    folder
        Folder of the dataset; the steps before must be there.
    source
        Input files of `ingest` as `describe_source` gives them; default: those that its result records.

    Raises
    ------
    InputFileError
        If a step that it reads has no result.
    """
    relevant = relevant_settings(settings, step)
    # What the material file says counts (by its hash), not where it lies.
    relevant.pop("material", None)
    shared = find_step(step).shared
    inputs = (source or recorded_source(folder) or {}) if step == "ingest" else {}
    return collect(
        step,
        inputs={
            **{f"{role} {Path(entry['path']).name}": entry["sha256"] for role, entry in inputs.items()},
            **named_files(relevant),
        },
        settings=relevant,
        parents={name: recorded_fingerprint(folder, name) for name in upstream(step, settings.route)},
        material=material.model_dump(mode="json") if "material" in shared else None,
        seed=settings.seed if "seed" in shared else 0,
        device=device,
        threads=threads,
    )


def named_files(settings: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Return the content of the files that settings name (keys that end in `_file`), so that a changed one is noticed."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= named_files(value, f"{place}{key}.")
        elif key.endswith("_file") and isinstance(value, str):
            path = Path(value).expanduser()
            found[f"{place}{key} {path.name}"] = file_digest(path) if path.is_file() else "missing"
    return found


def recorded_fingerprint(folder: Path, step: str) -> str:
    """Return the fingerprint that a step's result carries.

    Raises
    ------
    InputFileError
        If there is no result, with the command that makes it.
    """
    place = Path(folder) / step
    try:
        return str(read_summary(place)["provenance"]["fingerprint"])
    except (InputFileError, KeyError) as problem:
        raise InputFileError(
            f"{place}: holds no finished result of {step}; run `phonon-eels {step} --dataset-folder {folder}` first, "
            f"or every step with `phonon-eels run`"
        ) from problem


def is_fresh(folder: Path, provenance: Provenance) -> bool:
    """Return True if the result of a step is there and is what a run would make again."""
    try:
        return recorded_fingerprint(folder, provenance.step).partition(REFITTED)[0] == provenance.fingerprint()
    except InputFileError:
        return False


def refitted(record: Mapping[str, Any], where: str, chosen: int, changed: int, time: str) -> dict[str, Any]:
    """Return the provenance of a result some of whose positions were fitted again.

    Its fingerprint is that of the settings, so the result stays up to date, with a mark of the refits behind it, so that what was made of
    the result before is not.
    """
    refits = [*record.get("refits", ()), {"where": where, "positions": chosen, "changed": changed, "time": time}]
    told = [(entry["where"], entry["changed"]) for entry in refits]
    base = str(record["fingerprint"]).partition(REFITTED)[0]
    return {**record, "refits": refits, "fingerprint": f"{base}{REFITTED}{json_digest(told)[:16]}"}


def unfinished_step(folder: str | Path, settings: Settings) -> str | None:
    """Return the first step of a dataset that is missing or stale, None if the dataset is finished."""
    folder = Path(folder)
    material = load_material(settings.material)
    for entry in steps_of_route(settings.route):
        try:
            fresh = is_fresh(folder, make_provenance(folder, entry.name, settings, material))
        except PhononEELSError:
            fresh = False
        if not fresh:
            return entry.name
    return None


def recorded_source(folder: Path) -> dict[str, Any] | None:
    """Return the description of the input files that `ingest` recorded, None if it has not run."""
    try:
        return dict(json.loads((Path(folder) / "ingest" / SOURCE_FILE).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def describe_source(files: Mapping[str, Path | None], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe the input files: path, size, time of the last change, SHA-256 of the content.

    Parameters
    ----------
    files
        What a file is for ("spectra", "haadf", "truth") → its path, or None.
    known
        An earlier description: a file of the same path, size and time is not hashed again.

    Raises
    ------
    InputFileError
        If a file is missing or cannot be read.
    """
    described: dict[str, Any] = {}
    for role, path in files.items():
        if path is None:
            continue
        try:
            # The values of a Nion Swift project are not in the file that is named.
            parts = project_files(path) if path.suffix.lower() == ".nsproj" else []
            files_in = [path, *parts] if not path.is_dir() else [entry for entry in path.rglob("*") if entry.is_file()]
            states = [file.stat() for file in files_in]
            entry: dict[str, Any] = {
                "path": str(path.absolute()),
                "bytes": sum(state.st_size for state in states),
                "mtime_ns": max((state.st_mtime_ns for state in states), default=0),
            }
            before = (known or {}).get(role, {})
            same = bool(before) and all(before.get(key) == value for key, value in entry.items())
            entry["sha256"] = before["sha256"] if same else file_digest(path, *parts)
        except OSError as problem:
            raise InputFileError(
                f"{path}: the {role} file cannot be read ({problem.strerror}); give the path of an existing file"
            ) from problem
        described[role] = entry
    return described
