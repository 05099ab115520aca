"""Whatever bytes a Nion file holds: arrays as declared, or our error with the file's name."""

import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phonon_eels.errors import InputFileError
from phonon_eels.io.vendor import load_signals
from tests.unit.io.nion_files import (
    ROW,
    UUIDS,
    counts,
    properties,
    write_h5,
    write_ndata,
    write_nhdf,
    write_project,
)

DATA = counts(2, 3, 4)
ABOUT = properties(DATA)

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["eV", "nm", "frame"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(ROW)) | st.text(max_size=4), inner)
    ),
    max_leaves=8,
)


def check(path: Path) -> None:
    """Either our error with the file's name, or arrays of the declared shape and type."""
    try:
        signals = load_signals(path)
    except InputFileError as problem:
        assert path.name in str(problem)  # noqa: PT017 (either outcome is right)
        return
    for signal in signals:
        assert len(signal.axes) == signal.data.ndim
        assert signal.data.dtype.kind in "biuf"
        assert signal.data.nbytes <= 200 * sum(part.stat().st_size for part in path.parent.rglob("*") if part.is_file())
        try:
            values = np.asarray(signal.data)
        except InputFileError as problem:
            assert ".h5" in str(problem) or ".nhdf" in str(problem)  # noqa: PT017
            continue
        assert (values.shape, values.dtype) == (tuple(signal.data.shape), signal.data.dtype)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(key=st.sampled_from(sorted([*ABOUT, "spatial_calibrations", "properties", "session"])), value=_JSON)
def test_any_json_anywhere(tmp_path: Path, key: str, value: Any) -> None:
    check(write_ndata(tmp_path / "scan.ndata", DATA, ABOUT | {key: value}))


def write_session(path: Path) -> Path:
    write_ndata(path.parent / "s Data" / "data_A.ndata", DATA)
    return write_project(path.parent / path.name, UUIDS[0], project_data_folders=["s Data"])


WRITERS: dict[str, Callable[[Path], Path]] = {
    "a.ndata": lambda path: write_ndata(path, DATA),
    "a.ndata1": lambda path: write_ndata(path, DATA, data_first=False),
    "a.h5": lambda path: write_h5(path, DATA),
    "a.nhdf": lambda path: write_nhdf(path, (DATA, ABOUT)),
    "a.nsproj": write_session,
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Change, insert, remove or repeat some bytes."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(max(len(found), 1))
        what = chance.randrange(5)
        if what == 0:
            found[place : place + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            found[place : place + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\x00\x00\x00\x80", chance.randbytes(4)))
        elif what == 2:
            del found[place : place + chance.randrange(1, 40)]
        elif what == 3:
            found[place:place] = found[chance.randrange(max(len(found), 1)) :][: chance.randrange(1, 40)]
        else:
            found = found[: max(place, 1)]
    return bytes(found) or b"\0"


def fuzz(folder: Path, name: str, cases: int) -> None:
    path = WRITERS[name](folder / name)
    whole = path.read_bytes()
    for seed in range(cases):
        path.write_bytes(mutated(whole, random.Random(f"{name} {seed}")))
        check(path)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_mutated_files(tmp_path: Path, name: str) -> None:
    fuzz(tmp_path, name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_many_mutated_files(tmp_path: Path, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz(tmp_path, name, 500)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "kilobytes: files of 30 kB may not take hundreds of megabytes"
