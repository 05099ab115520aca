"""Provenance says what made a result; its fingerprint covers what determines it and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from phonon_eels.io.results import staged, write_result
from phonon_eels.provenance import Provenance, array_digest, collect, data_digest, file_digest, json_digest, versions
from phonon_eels.spectrum_image import StepResult
from tests.unit.io.scans import small_scan


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "scan.hspy"
    path.write_bytes(b"counts" * 1_000_000)
    return path


def record(source: Path, **changes: object) -> Provenance:
    given = {"inputs": [source], "settings": {"window_mev": (1.0, 2.0)}, "parents": {"ingest": "a"}, "seed": 3}
    return collect("align_zlp", **{**given, **changes})  # type: ignore[arg-type]


def test_file_digest_is_sha256_of_the_content(source: Path) -> None:
    import hashlib

    assert file_digest(source) == hashlib.sha256(source.read_bytes()).hexdigest()


def test_folder_digest_knows_names_and_contents(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / "x.zspy").mkdir(exist_ok=True)
        (tmp_path / "x.zspy" / name).write_text(text)
    before = file_digest(tmp_path / "x.zspy")
    (tmp_path / "x.zspy" / "a").rename(tmp_path / "x.zspy" / "c")
    assert file_digest(tmp_path / "x.zspy") != before


def test_record_survives_json(source: Path) -> None:
    made = record(source, material={"name": "bi2212"}, command=["phonon-eels", "run", "a b.hspy"])
    text = json.dumps(made.to_dict())
    back = Provenance.from_dict(json.loads(text))
    assert back == made
    assert back.fingerprint() == made.fingerprint() == made.to_dict()["fingerprint"]
    assert made.command == "phonon-eels run 'a b.hspy'"
    assert made.time.endswith("+00:00")
    assert made.versions["phonon_eels"]
    assert made.versions["numpy"] == np.__version__


def test_fingerprint_ignores_what_merely_happened(source: Path) -> None:
    first = record(source)
    moved = source.rename(source.with_name("copy.hspy"))
    again = record(moved, device="cuda", threads=7, command=["other"])
    assert again.fingerprint() == first.fingerprint()
    assert record(moved, settings={"window_mev": [1.0, 2.0]}).fingerprint() == first.fingerprint(), "tuple or list"


@pytest.mark.parametrize(
    "change",
    [{"settings": {"window_mev": (1.0, 2.1)}}, {"parents": {"ingest": "b"}}, {"seed": 4}, {"material": "other"}],
)
def test_fingerprint_sees_what_determines(source: Path, change: dict[str, object]) -> None:
    assert record(source, **change).fingerprint() != record(source).fingerprint()


def test_fingerprint_sees_the_input_and_the_version(source: Path) -> None:
    before = record(source)
    source.write_bytes(source.read_bytes()[:-1] + b"S")
    assert record(source).fingerprint() != before.fingerprint()
    older = Provenance.from_dict({**before.to_dict(), "versions": {"phonon_eels": "0.0.1"}})
    assert older.fingerprint() != before.fingerprint()


def test_json_digest_ignores_the_order_of_keys() -> None:
    assert json_digest({"a": 1, "b": [1.5, None]}) == json_digest({"b": [1.5, None], "a": 1})
    assert json_digest({"a": 1}) != json_digest({"a": 2})


def test_data_digest() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    assert data_digest(values) == data_digest(np.asfortranarray(values))
    assert data_digest(values) != data_digest(values.reshape(3, 2, 4))
    assert data_digest(values) != data_digest(values.astype(np.float32))
    assert data_digest(np.array(["a", "b"], dtype=object)) != data_digest(np.array(["a", "c"], dtype=object))


def write(folder: Path, value: float, time: str, chunk_bytes: float) -> None:
    maps = xr.Dataset({"x": (("row", "column"), np.full((4, 5), value))})
    result = StepResult(small_scan(), maps, summary={"mean": value})
    with staged(folder / "align_zlp") as temporary:
        write_result(result, temporary, step="align_zlp", provenance={"time": time}, chunk_bytes=chunk_bytes)


def test_same_results_have_the_same_digest(tmp_path: Path) -> None:
    write(tmp_path / "a", 1.0, "now", 1e6)
    write(tmp_path / "b", 1.0, "later", 500)
    write(tmp_path / "c", 1.5, "now", 1e6)
    a, b, c = (array_digest(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {"align_zlp/maps.nc:x", "align_zlp/summary.json"}
    assert "align_zlp/image.zspy:Experiments/a small-scan/data" in a


def test_versions_import_nothing() -> None:
    found = versions()
    assert {"phonon_eels", "python", "numpy", "numba", "scipy", "hyperspy"} <= set(found)
