"""Names of datasets, the folder of each, and the table that lists many."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from phonon_eels.errors import ConfigError, InputFileError, OutputError
from phonon_eels.io.atomic import staged_file

COLUMNS = ("dataset", "path", "haadf", "group", "note")
SCHEMA_VERSION = 1
"""Version of the table, which its first line may state: ``# schema_version: 1``."""
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
    refusal
        Why this row cannot be run; then `name` is one that no other row has.
    """

    name: str
    path: Path
    haadf: Path | None = None
    group: str = ""
    note: str = ""
    refusal: str | None = None


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
        If the file is missing or of a newer version, or a row is not whole.
    ConfigError
        If a name occurs twice.
    """
    rows = read_rows(path)
    for row in rows:
        if row.refusal is not None:
            raise (ConfigError if "occurs twice" in row.refusal else InputFileError)(row.refusal)
    return rows


def read_rows(path: str | Path) -> tuple[Dataset, ...]:
    """Read the table of datasets; a row that cannot be run says why in `refusal` and costs the others nothing.

    Raises
    ------
    InputFileError
        If the file is missing, of a newer version, or has other columns.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputFileError(
            f"{path}: the table of datasets cannot be read ({problem}); give a tab-separated text file"
        ) from problem
    _check_version(path, lines)
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
    found: list[Dataset] = []
    for (number, _), row in zip(numbered[1:], rows, strict=True):
        found.append(_dataset(dict(zip(header, row, strict=False)), path, number, found))
    return tuple(found)


def append_dataset(path: str | Path, dataset: Dataset) -> None:
    """Add a row to a table of datasets, made where it is missing; the table is never half written."""
    path = Path(path)
    lines = path.read_text("utf-8").splitlines() if path.exists() else [f"# schema_version: {SCHEMA_VERSION}"]
    header = next((line.split("\t") for line in lines if line.strip() and line[0] != "#"), None)
    if header is None:
        header = list(COLUMNS)
        lines.append("\t".join(header))
    values = {"dataset": dataset.name, "path": str(dataset.path), "haadf": str(dataset.haadf or ""),
              "group": dataset.group, "note": dataset.note}  # fmt: skip
    lines.append("\t".join(re.sub(r"\s", " ", values.get(word.strip(), "")) for word in header))
    with staged_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _check_version(path: Path, lines: list[str]) -> None:
    stated = [match[1] for line in lines if (match := re.fullmatch(r"#\s*schema_version:\s*(\d+)\s*", line))]
    if stated and int(stated[0]) > SCHEMA_VERSION:
        raise InputFileError(
            f"{path}: is a table of version {stated[0]}, this program reads {SCHEMA_VERSION}; update phonon_eels"
        )


def _dataset(row: dict[str, str], path: Path, number: int, before: list[Dataset]) -> Dataset:
    row = {key: value.strip() for key, value in row.items()}
    name, refusal = row.get("dataset", ""), None
    if not name or not row.get("path"):
        refusal = f"{path}:{number}: a row needs a dataset and a path, separated by tabs; got {list(row.values())}"
    else:
        try:
            check_dataset_name(name)
        except OutputError as problem:
            refusal = f"{path}:{number}: {problem}"
    # Some file systems take A and a for one folder.
    if refusal is None and name.lower() in {other.name.lower() for other in before}:
        refusal = (
            f"{path}:{number}: dataset {name} occurs twice (upper and lower case count as one); "
            f"every row needs a name of its own"
        )
    if refusal is not None:
        name = f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:60] or 'unnamed'}.line{number}"
    haadf = Path(row["haadf"]) if row.get("haadf") else None
    return Dataset(name, Path(row.get("path", "")), haadf, row.get("group", ""), row.get("note", ""), refusal)
