"""Names of datasets, the folder of each, and the table that lists many."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from phonon_eels.errors import ConfigError, InputFileError, OutputError

COLUMNS = ("dataset", "path", "haadf", "group", "note")
MAX_NAME_LENGTH = 100  # leaves room for the step and file names within the 255 bytes of a file system


@dataclass(frozen=True)
class Dataset:
    """A row of the table of datasets.

    Attributes
    ----------
    name
        Name of the folder of its results.
    path
        Its file, as the table says it (relative to the working folder).
    haadf
        File of the dark-field image if that is a file of its own.
    group
        Datasets of one group belong to one specimen.
    note
        Free words.
    """

    name: str
    path: Path
    haadf: Path | None = None
    group: str = ""
    note: str = ""


def check_dataset_name(name: str) -> str:
    """Return a dataset's name if it can be the name of a folder everywhere.

    Raises
    ------
    OutputError
        If it is not; the message proposes one that can.
    """
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) and ".." not in name and len(name) <= MAX_NAME_LENGTH:
        return name
    proposal = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "_", name)).strip("._")[:MAX_NAME_LENGTH] or "scan"
    raise OutputError(
        f"dataset = {name!r} cannot name a folder of results; use letters, digits, '.', '_' and '-' "
        f"(no '..', no leading '.', at most {MAX_NAME_LENGTH}), for example --dataset {proposal}"
    )


def dataset_folder(results: str | Path, name: str) -> Path:
    """Return the folder of a dataset's results; it is not made."""
    return Path(results) / check_dataset_name(name)


def read_datasets(path: str | Path) -> tuple[Dataset, ...]:
    """Read the tab-separated table of datasets; lines that start with ``#`` are left out.

    Raises
    ------
    InputFileError
        If the file is missing, or a row is not whole.
    ConfigError
        If a name occurs twice.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputFileError(
            f"{path}: the table of datasets cannot be read ({problem}); give a tab-separated text file"
        ) from problem
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and line[0] != "#"]
    if not numbered:
        raise InputFileError(f"{path}: holds no dataset; the first line must be {' '.join(COLUMNS)}, separated by tabs")
    header, *rows = csv.reader((line for _, line in numbered), delimiter="\t")
    header = [word.strip() for word in header]
    unknown = [word for word in header if word not in COLUMNS]
    if unknown or not {"dataset", "path"} <= set(header):
        raise InputFileError(
            f"{path}: the columns are {header}; allowed are {', '.join(COLUMNS)}, separated by tabs; "
            f"dataset and path are needed"
        )
    datasets = [
        _dataset(dict(zip(header, row, strict=False)), f"{path}:{number}")
        for (number, _), row in zip(numbered[1:], rows, strict=True)
    ]
    _refuse_twins(path, (dataset.name for dataset in datasets))
    return tuple(datasets)


def _dataset(row: dict[str, str], place: str) -> Dataset:
    row = {key: value.strip() for key, value in row.items()}
    if not row.get("dataset") or not row.get("path"):
        raise InputFileError(f"{place}: a row needs a dataset and a path, separated by tabs; got {list(row.values())}")
    try:
        name = check_dataset_name(row["dataset"])
    except OutputError as problem:
        raise InputFileError(f"{place}: {problem}") from problem
    haadf = Path(row["haadf"]) if row.get("haadf") else None
    return Dataset(name, Path(row["path"]), haadf, row.get("group", ""), row.get("note", ""))


def _refuse_twins(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        # Some file systems take A and a for one folder.
        if name.lower() in seen:
            raise ConfigError(
                f"{path}: dataset {name} occurs twice (upper and lower case count as one); "
                f"every row needs a name of its own"
            )
        seen.add(name.lower())
