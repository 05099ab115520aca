"""Nion files that are damaged, untrue or malicious are refused by name and with a cure, and never run or fill memory."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from phonon_eels.errors import InputFileError
from phonon_eels.io.read import read
from tests.unit.io.nion_files import (
    ENERGY,
    ROW,
    calibration,
    counts,
    npy,
    properties,
    write_h5,
    write_ndata,
    write_project,
    write_zip,
)

DATA = counts(2, 3, 4)
ABOUT = properties(DATA)


def header(shape: Any, descr: str = "<u2") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(path: Path, data: bytes, **options: Any) -> Path:
    return write_zip(path, ("data.npy", data), ("metadata.json", json.dumps(ABOUT).encode()), **options)


# Zips ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scan 1.ndata", "scan 1.ndata1"])
def test_truncated_at_any_place(tmp_path: Path, name: str) -> None:
    path = write_ndata(tmp_path / name, DATA, data_first=name.endswith("a"))
    whole = path.read_bytes()
    for n in range(1, len(whole), 37):
        path.write_bytes(whole[:n])
        with pytest.raises(InputFileError, match=r"scan 1\.ndata1? is damaged or no Nion Swift file .*copy it again"):
            read(path)


def test_changed_values_are_noticed(tmp_path: Path) -> None:
    path = write_ndata(tmp_path / "scan.ndata", DATA)
    content = path.read_bytes()
    place = content.index(DATA.tobytes()) + 7
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(InputFileError, match=r"scan\.ndata: the values in data\.npy do not agree with their checksum"):
        read(path)


def test_directory_that_lies_about_the_place(tmp_path: Path) -> None:
    path = write_ndata(tmp_path / "scan.ndata", DATA, data_first=False)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"data.npy") - 4  # offset of the local header in the directory's last entry
    content[place : place + 4] = struct.pack("<I", 5)
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"scan\.ndata: data\.npy is not where the zip says"):
        read(path)


def test_compressed_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "scan.ndata1", npy(DATA), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputFileError, match=r"scan\.ndata1: .* is compressed .*zip -0"):
        read(path)


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "notes.ndata", ("notes.txt", b"hello"))
    with pytest.raises(InputFileError, match=r"notes\.ndata is a zip without metadata\.json"):
        read(path)
    write_zip(path, ("metadata.json", json.dumps(ABOUT).encode()))
    with pytest.raises(InputFileError, match=r"notes\.ndata holds a data item without values"):
        read(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(path, ("metadata.json", b"{}"), ("data.npy", npy(DATA)), ("data.npy", npy(DATA)))
    with pytest.raises(InputFileError, match=r"notes\.ndata holds data\.npy twice"):
        read(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (header((2, 3, 4)) + bytes(40), r"declares the shape \(2, 3, 4\) of uint16 \(48 bytes\) but holds 40"),
        (header((2, 3, 4)) + bytes(50), "but holds 50"),
        (header((10**6, 10**6, 10**6)) + bytes(48), "2000000000000000000 bytes"),
        (header((-2, -3, 4)) + bytes(48), "declares the shape"),
        (header((2, 3, 4), "|S2") + bytes(48), "which is no number"),
        (header((2, 3, 4), "<M8[s]") + bytes(192), "which is no number"),
        (header((2, 3, 4), "<c16") + bytes(384), "complex values"),
        (header((2, 0, 4)), r"array of shape \(2, 0, 4\)"),
        (header(()) + bytes(2), r"array of shape \(\)"),
        (header((1,) * 9) + bytes(2), "no spectrum image"),
        (header("__import__('os').system('touch executed')") + bytes(48), "is damaged"),
        (b"\x93NUMPY\x03\x00" + bytes(60), r"version \(3, 0\)"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 60, "is damaged"),
        (b"no npy at all", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_arrays_that_are_not_what_they_say(tmp_path: Path, content: bytes, match: str) -> None:
    with pytest.raises(InputFileError, match=rf"scan\.ndata.*{match}"):
        read(zipped(tmp_path / "scan.ndata", content))


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    objects = np.array([Trap(mark)] * 3, dtype=object)
    for content in (npy(objects), pickle.dumps(Trap(mark)), header((1,), "|O") + pickle.dumps(Trap(mark))):
        with pytest.raises(InputFileError, match=r"scan\.ndata: data\.npy"):
            read(zipped(tmp_path / "scan.ndata", content))
    assert not mark.exists()


def test_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    path = write_ndata(tmp_path / "scan.ndata", DATA, data_first=False)
    image = read(path)
    os.truncate(path, 400)
    with pytest.raises(InputFileError, match=r"scan\.ndata was changed while it was read"):
        np.asarray(image.counts)


# JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1' + b"0" * 5000]
)
def test_metadata_that_is_no_json_object(tmp_path: Path, text: bytes) -> None:
    path = write_zip(tmp_path / "scan.ndata", ("data.npy", npy(DATA)), ("metadata.json", text))
    with pytest.raises(InputFileError, match=r"scan\.ndata: metadata\.json (is no JSON|must be a JSON object)"):
        read(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"is_sequence": 1}, "is_sequence must be true or false, not 1"),
        ({"is_sequence": True}, "cannot be a sequence of 2 scan and 1 data dimensions"),
        ({"collection_dimension_count": 1}, r"shape \(2, 3, 4\) cannot be 1 scan and 1 data dimensions"),
        ({"collection_dimension_count": "2"}, "collection_dimension_count must be a whole number from 0, not '2'"),
        ({"datum_dimension_count": -1}, "datum_dimension_count must be a whole number"),
        ({"datum_dimension_count": None}, "datum_dimension_count must be a whole number"),
        ({"dimensional_calibrations": {}}, "dimensional_calibrations must be a list of 3 calibrations"),
        ({"dimensional_calibrations": [ROW, ENERGY]}, "must be a list of 3 calibrations"),
        ({"dimensional_calibrations": [ROW, "nm", ENERGY]}, "must be a list of 3 calibrations"),
        (
            {"dimensional_calibrations": [ROW, calibration(float("nan")), ENERGY]},
            r"calibrations\[1\] must have a finite",
        ),
        (
            {"dimensional_calibrations": [ROW, ROW, calibration(0, float("inf"))]},
            r"calibrations\[2\] must have a finite",
        ),
        ({"dimensional_calibrations": [ROW, ROW, {"offset": "0"}]}, r"calibrations\[2\] must have a finite"),
        ({"dimensional_calibrations": [ROW, ROW, {"units": 7}]}, r"calibrations\[2\] must have a finite"),
        ({"dimensional_calibrations": [ROW, ROW, {"scale": 10**400}]}, r"calibrations\[2\] must have a finite"),
        ({"dimensional_calibrations": [ROW, ROW, calibration(0, 0, "eV")]}, "“Energy loss” has step 0"),
        ({"dimensional_calibrations": [ROW, ENERGY, ENERGY]}, "2 axes have an energy unit"),
    ],
)
def test_descriptions_of_the_wrong_shape(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    with pytest.raises(InputFileError, match=rf"scan\.ndata: .*{match}"):
        read(write_ndata(tmp_path / "scan.ndata", DATA, ABOUT | change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"display_items": {}}, "display_items must be a list, not dict"),
        ({"project_data_folders": "night Data"}, "project_data_folders must be a list"),
        ({"project_data_folders": [7]}, "project_data_folders must hold names, not 7"),
        ({"project_data_folders": ["a\0b"]}, "project_data_folders must hold names"),
        ({"data_item_deletions": 3}, "data_item_deletions must be a list"),
    ],
)
def test_projects_of_the_wrong_shape(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    write_ndata(tmp_path / "night Data" / "data_A.ndata", DATA)
    with pytest.raises(InputFileError, match=rf"night\.nsproj: {match}"):
        read(write_project(tmp_path / "night.nsproj", **change))


def test_projects_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "night.nsproj"
    for text in ("{}", '{"cells": []}'):
        path.write_text(text)
        with pytest.raises(InputFileError, match=r"night\.nsproj is no Nion Swift project"):
            read(path)
    path.write_text("[1")
    with pytest.raises(InputFileError, match=r"night\.nsproj: the project is no JSON"):
        read(path)
    write_ndata(tmp_path / "night Data" / "data_A.ndata", DATA)
    odd = [None, 7, {"display_data_channels": 3}, {"display_data_channels": [None, {"data_item_reference": "x"}]}]
    assert read(write_project(path, display_items=odd, data_item_deletions=[None, "x"])).shape == (2, 3, 4)


# HDF5 ---------------------------------------------------------------------------------------------


def test_hdf5_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    for place in ("entry/data", "data"):
        with h5py.File(path, "w") as file:
            file[place] = DATA
        with pytest.raises(InputFileError, match=r"scan\.h5 is an HDF5 file, but not of Nion Swift .*HyperSpy"):
            read(path)
    path.write_bytes(b"text")
    with pytest.raises(InputFileError, match=r"scan\.h5 is no HDF5 file"):
        read(path)


def test_truncated_hdf5(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "scan.h5", DATA)
    os.truncate(path, path.stat().st_size - 20)
    with pytest.raises(InputFileError, match=r"scan\.h5 cannot be opened .*truncated"):
        read(path)


def test_heap_that_would_hold_the_library_for_ever(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "scan.h5", DATA)
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL") + 24  # size of the first text
    content[place : place + 8] = struct.pack("<Q", 5)
    path.write_bytes(content)
    with pytest.raises(
        InputFileError, match=r"scan\.h5 is damaged: its heap of texts is not consistent; copy it again"
    ):
        read(path)


@pytest.mark.parametrize("value", [b"{", "[]", 7, np.arange(3)])
def test_properties_of_the_wrong_shape(tmp_path: Path, value: Any) -> None:
    path = write_h5(tmp_path / "scan.h5", DATA)
    with h5py.File(path, "a") as file:
        file["data"].attrs["properties"] = value
    with pytest.raises(InputFileError, match=r"scan\.h5: (the attribute )?'properties' (is no|must be)"):
        read(path)


def test_values_that_were_never_written(tmp_path: Path) -> None:
    """A stopped acquisition, or a file of a kilobyte that claims a terabyte."""
    for chunks in ((1, 10, 100), None):
        path = tmp_path / "scan.h5"
        with h5py.File(path, "w") as file:
            item = file.create_dataset("data", shape=(10**5, 10**3, 10**4), dtype="f4", chunks=chunks)
            item.attrs["properties"] = json.dumps(ABOUT)
            if chunks:
                item[0, 0] = 1.0
        with pytest.raises(
            InputFileError, match=r"scan\.h5: /data declares .*4000000000000 bytes\) but only .*crop it"
        ):
            read(path, lazy=False)


def test_compressed_bomb(tmp_path: Path) -> None:
    data = np.zeros((4, 1000, 1000), np.uint8)
    path = write_h5(tmp_path / "scan.h5", data, compression="gzip", compression_opts=9, chunks=(1, 1000, 1000))
    with pytest.raises(InputFileError, match=r"scan\.h5: /data declares .*but only \d+ bytes were written"):
        read(path)


def test_compressed_values_are_read(tmp_path: Path) -> None:
    data = np.random.default_rng(1).poisson(5.0, (6, 5, 40)).astype(np.uint16)
    path = write_h5(tmp_path / "scan.h5", data, compression="gzip", chunks=(2, 5, 40))
    np.testing.assert_array_equal(np.asarray(read(path).counts), data)


def test_values_in_other_files_are_not_followed(tmp_path: Path) -> None:
    other = write_h5(tmp_path / "other.h5", DATA)
    path = tmp_path / "scan.h5"

    def external_link(file: h5py.File) -> None:
        file["data"] = h5py.ExternalLink(other, "data")

    def link_below(file: h5py.File) -> None:
        file["data/0"] = h5py.SoftLink("/elsewhere")

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
        layout[...] = h5py.VirtualSource(str(other), "data", DATA.shape)
        file.create_virtual_dataset("data", layout).attrs["properties"] = json.dumps(ABOUT)

    def external(file: h5py.File) -> None:
        item = file.create_dataset("data", DATA.shape, DATA.dtype, external=[(str(other), 0, h5py.h5f.UNLIMITED)])
        item.attrs["properties"] = json.dumps(ABOUT)

    for make in (external_link, link_below, virtual, external):
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(InputFileError, match=r"scan\.h5.*(not followed|not of Nion Swift)"):
            read(path)
