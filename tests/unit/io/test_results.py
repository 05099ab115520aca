"""Step folders: what is written is read back exactly, and a folder is whole or absent."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from phonon_eels.errors import InputFileError, OutputError
from phonon_eels.io import atomic, cubes
from phonon_eels.io.results import (
    read_image,
    read_result,
    read_summary,
    recover,
    result_folder,
    staged,
    staged_file,
    to_json,
    write_image,
    write_result,
)
from phonon_eels.provenance import array_digest
from phonon_eels.spectrum_image import StepResult
from tests.unit.io.scans import small_scan


def whole_result() -> StepResult:
    image = small_scan(rows=11)
    lazy = da.from_array(image.counts, chunks=(4, 2, 64))
    image = image.with_(
        counts=lazy,
        variance=(lazy * 2.5).astype(np.float32),
        bad=lazy > 300,
        frames=da.stack([lazy, lazy + 1]),
        haadf_frames=np.random.default_rng(5).random((2, 11, 5)),
    )
    maps = xr.Dataset(
        {
            "energy_mev": (("mode", "row", "column"), np.random.default_rng(0).random((2, 11, 5)), {"units": "meV"}),
            "status": (
                ("row", "column"),
                np.zeros((11, 5), np.int16),
                {"flag_values": np.array([0, 1], np.int16), "flag_meanings": "ok bad"},
            ),
        },
        coords={"mode": ["Bi", "Cu-O"], "row": ("row", 0.05 * np.arange(11), {"units": "nm"})},
    )
    maps["energy_mev"][0, 0, 0] = np.nan
    table = pd.DataFrame({"energy_mev": [1 / 3, np.nan], "mode": ["#a", "b,c"], "n": [1, 2]})
    return StepResult(image, maps, {"modes": table}, {"x": {"value": np.float64(2.5), "std": np.nan}}, ("a message",))


def test_result_round_trip(tmp_path: Path) -> None:
    result = whole_result()
    folder = tmp_path / "scan" / "align_zlp"
    seen: list[tuple[int, int]] = []
    with staged(folder) as temporary:
        write_result(
            result,
            temporary,
            step="align_zlp",
            provenance={"fingerprint": "f00", "versions": {"phonon_eels": "1"}},
            chunk_bytes=3 * 5 * 64 * 2,
            threads=2,
            progress=lambda done, total: seen.append((done, total)),
        )
    back = read_result(folder)
    assert back.image is not None
    assert result.image is not None
    for name in ("counts", "variance", "bad", "frames"):
        got, want = getattr(back.image, name), getattr(result.image, name)
        assert isinstance(got, da.Array)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got.compute(), want.compute())
    np.testing.assert_array_equal(back.image.haadf, result.image.haadf)
    np.testing.assert_array_equal(back.image.haadf_frames, result.image.haadf_frames)
    for name in ("energy", "scan", "noise", "acquisition", "title"):
        assert getattr(back.image, name) == getattr(result.image, name)
    assert back.maps is not None
    assert result.maps is not None
    xr.testing.assert_equal(back.maps, result.maps)
    assert back.maps["energy_mev"].attrs["units"] == "meV"
    assert back.maps["status"].dtype == np.int16
    assert json.loads(back.maps.attrs["provenance"])["fingerprint"] == "f00"
    pd.testing.assert_frame_equal(back.tables["modes"], result.tables["modes"])
    assert back.summary == {"x": {"value": 2.5, "std": None}}
    assert back.messages == ("a message",)
    assert seen[-1] == (33, 33)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert cubes.read_provenance(folder) == {"fingerprint": "f00", "versions": {"phonon_eels": "1"}}


def test_same_arrays_whatever_the_chunks(tmp_path: Path) -> None:
    image = whole_result().image
    assert image is not None
    digests = []
    for number, (chunk_bytes, threads) in enumerate([(1, 1), (5000, 3), (1e9, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_image(image, folder, chunk_bytes=chunk_bytes, threads=threads)
        digests.append(array_digest(folder))
    assert digests[0] == digests[1] == digests[2]
    assert len(digests[0]) == 7, "counts, variance, mask, frames, both dark-field arrays and the axes"


def test_large_results_are_computed_block_by_block(tmp_path: Path) -> None:
    alive, most = 0, 0

    def count(block: np.ndarray) -> np.ndarray:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        out = block + 1
        alive -= 1
        return out

    image = small_scan(rows=40)
    lazy = da.from_array(image.counts, chunks=(1, -1, -1)).map_blocks(count, dtype=np.uint16)
    write_image(image.with_(counts=lazy), tmp_path, threads=2)
    assert most <= 2
    np.testing.assert_array_equal(read_image(tmp_path).counts.compute(), image.counts + 1)


def test_new_result_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "step"
    for text in ("old", "new"):
        with staged(target) as folder:
            (folder / "a.txt").write_text(text)
            (folder / f"{text}.txt").write_text(text)
    assert sorted(path.name for path in target.iterdir()) == ["a.txt", "new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_failure_leaves_the_old_result(tmp_path: Path) -> None:
    target = tmp_path / "step"
    with staged(target) as folder:
        (folder / "a.txt").write_text("old")

    def fail() -> None:
        with staged(target) as folder:
            (folder / "a.txt").write_text("half")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert (target / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def fail_with(code: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("code", "cure"), [(errno.ENOSPC, "full"), (errno.EACCES, "may not be written"), (errno.EIO, "choose another")]
)
def test_disk_troubles_are_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cure: str) -> None:
    monkeypatch.setattr(atomic, "flush_tree", fail_with(code))
    with pytest.raises(OutputError, match=f"cannot write .*step: .*{cure}"), staged(tmp_path / "step") as folder:
        (folder / "a.txt").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_while_a_cube_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubes, "_store", fail_with(errno.ENOSPC))
    with (
        pytest.raises(OutputError, match=r"the disk .* is full"),
        staged(tmp_path / "ingest") as folder,
    ):
        write_result(StepResult(small_scan()), folder, step="ingest")
    assert list(tmp_path.iterdir()) == []


def leftover(tmp_path: Path, kind: str, pid: int, host: str | None = None) -> Path:
    me = atomic._owner().rpartition("-")[0]
    folder = tmp_path / f".step.{kind}-{host or me}-{pid}"
    folder.mkdir()
    (folder / "a.txt").write_text(kind)
    return folder


DEAD = 2**22 + 1  # above the largest process number


def test_interrupted_exchange_is_undone(tmp_path: Path) -> None:
    leftover(tmp_path, "old", DEAD)
    leftover(tmp_path, "tmp", DEAD)
    done = recover(tmp_path)
    assert (tmp_path / "step" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert len(done) == 2


def test_finished_exchange_only_loses_its_leftover(tmp_path: Path) -> None:
    leftover(tmp_path, "old", DEAD)
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "a.txt").write_text("new")
    recover(tmp_path)
    assert (tmp_path / "step" / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_living_and_foreign_writers_are_left_alone(tmp_path: Path) -> None:
    kept = {leftover(tmp_path, "tmp", os.getppid()), leftover(tmp_path, "tmp", DEAD, "another_machine")}
    assert recover(tmp_path) == []
    assert set(tmp_path.iterdir()) == kept


def test_staged_file_replaces_at_once(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "x.json"
    with staged_file(target) as temporary:
        temporary.write_text("1")
        assert not target.exists()

    def fail() -> None:
        with staged_file(target) as temporary:
            temporary.write_text("2")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert target.read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("name", ["../up", "a b", "", ".hidden", "a/b", "..", "x\n"])
def test_names_that_are_no_folders_are_refused(name: str) -> None:
    with pytest.raises(OutputError, match=r"cannot be a folder name.*choose another name"):
        result_folder(Path("results"), name)


def test_result_folder() -> None:
    assert result_folder(Path("r"), "Bi2212_scan-1.5", "ingest") == Path("r/Bi2212_scan-1.5/ingest")


def test_missing_and_damaged_results(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="holds no result: run the step first"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputFileError, match=r"summary\.json cannot be read .*delete the folder"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"schema_version": 99}')
    with pytest.raises(InputFileError, match="layout version 99, this program reads 1"):
        read_summary(tmp_path)
    with pytest.raises(InputFileError, match=r"image\.zspy is missing"):
        read_image(tmp_path)
    (tmp_path / "image.zspy").mkdir()
    with pytest.raises(InputFileError, match=r"image\.zspy is damaged"):
        read_image(tmp_path)


def test_to_json() -> None:
    given = {1: np.float32(0.5), "a": [np.int64(2), np.inf, None, True], "b": np.arange(2), "p": Path("x")}
    assert to_json(given) == {"1": 0.5, "a": [2, None, None, True], "b": [0, 1], "p": "x"}
    with pytest.raises(TypeError, match="cannot hold a object"):
        to_json(object())
