"""Bad files end in one of our errors that names the file and the cure; nothing in a file is executed."""

import json
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from phonon_eels.errors import InputFileError
from phonon_eels.io.export import write_hspy
from phonon_eels.io.read import read
from phonon_eels.io.results import write_image
from tests.unit.io.scans import small_scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_hspy(small_scan(), tmp_path / "scan 1.hspy")


def group(file: h5py.File) -> h5py.Group:
    return file["Experiments/a small-scan"]


def test_missing_file_names_its_neighbours(scan: Path) -> None:
    with pytest.raises(InputFileError, match=r"scan 2\.hspy does not exist; the folder holds scan 1\.hspy"):
        read(scan.with_name("scan 2.hspy"))
    with pytest.raises(InputFileError, match="does not exist; check the name and the folder"):
        read(scan.parent / "nowhere" / "x.dm4")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated_file(scan: Path, part: float) -> None:
    whole = scan.read_bytes()
    scan.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputFileError, match=r"scan 1\.hspy cannot be read as \.hspy .*copy it again"):
        read(scan)


def test_empty_file(scan: Path) -> None:
    scan.write_bytes(b"")
    with pytest.raises(InputFileError, match=r"scan 1\.hspy is empty \(0 bytes\); copy it again"):
        read(scan)


@pytest.mark.parametrize("suffix", [".hspy", ".hdf5", ".dm3", ".dm4", ".emd", ".msa", ".zip"])
def test_text_under_another_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_text("Energy  Counts\n0.0  12\n0.5  13\n" * 20)
    with pytest.raises(InputFileError, match=rf"notes\{suffix} (is no HDF5 file|cannot be (read|unpacked))"):
        read(path)


def test_unknown_ending_and_folders(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(InputFileError, match=r"x\.txt has the ending '\.txt'; read are \.hspy"):
        read(tmp_path / "x.txt")
    (tmp_path / "y.hspy").mkdir()
    with pytest.raises(InputFileError, match=r"y\.hspy is a folder, which a \.hspy is not"):
        read(tmp_path / "y.hspy")
    (tmp_path / "z.zspy").write_text("no zip")
    with pytest.raises(InputFileError, match=r"z\.zspy is no folder of arrays"):
        read(tmp_path / "z.zspy")


def test_hdf5_that_is_no_hyperspy_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hspy", "w") as file:
        file["data"] = np.zeros((3, 4, 5))
    with pytest.raises(InputFileError, match=r"other\.hspy cannot be read as \.hspy"):
        read(tmp_path / "other.hspy")


def test_images_instead_of_spectra(scan: Path) -> None:
    with h5py.File(scan, "a") as file:
        here = group(file)
        data = here["data"][:, :, 0]
        del here["data"], here["axis-2"]
        here["data"] = data
        for number in range(2):
            here[f"axis-{number}"].attrs["navigate"] = False
    with pytest.raises(InputFileError, match=r"scan 1\.hspy holds no spectra, only image \(4, 5\).*energy axis"):
        read(scan)


def test_axes_in_the_wrong_order(scan: Path) -> None:
    with h5py.File(scan, "a") as file:
        group(file)["axis-2"].attrs["navigate"] = True
        group(file)["axis-0"].attrs["navigate"] = False
    with pytest.raises(InputFileError, match=r"scan 1\.hspy: the axes are in the wrong order"):
        read(scan)


@pytest.mark.parametrize(("axis", "key"), [(0, "scan_step_nm"), (1, "scan_unit"), (2, "energy_unit")])
def test_axes_without_units(scan: Path, axis: int, key: str) -> None:
    with h5py.File(scan, "a") as file:
        group(file)[f"axis-{axis}"].attrs["units"] = "<undefined>"
    with pytest.raises(InputFileError, match=rf"scan 1\.hspy: .* has no unit.*acquisition\.{key}"):
        read(scan)


def test_energy_in_ev_and_mev_is_told_apart(scan: Path) -> None:
    before = read(scan, lazy=False).energy
    with h5py.File(scan, "a") as file:
        axis = group(file)["axis-2"].attrs
        axis["units"], axis["scale"], axis["offset"] = "meV", 0.5, -10.1
    assert read(scan, lazy=False).energy == before
    with h5py.File(scan, "a") as file:
        group(file)["axis-2"].attrs["units"] = "eV"
    assert read(scan).energy.dispersion_mev == 500.0


def test_axis_sizes_that_do_not_fit(scan: Path) -> None:
    with h5py.File(scan, "a") as file:
        group(file)["axis-2"].attrs["size"] = 63
    with pytest.raises(InputFileError, match=r"scan 1\.hspy: signal 0 has an array of shape \(4, 5, 64\) but axes"):
        read(scan)


@pytest.mark.parametrize("data", [np.ones((4, 5, 64), complex), np.full((4, 5, 64), b"x")])
def test_values_that_are_no_counts(scan: Path, data: np.ndarray) -> None:
    with h5py.File(scan, "a") as file:
        del group(file)["data"]
        group(file)["data"] = data
    with pytest.raises(InputFileError, match=r"scan 1\.hspy(: signal 0 has values of type| cannot be read)"):
        read(scan)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("where", ["data", "metadata"])
def test_pickles_in_zspy_are_not_run(tmp_path: Path, where: str) -> None:
    (tmp_path / "result").mkdir()
    write_image(small_scan(), tmp_path / "result")
    path = tmp_path / "result" / "image.zspy"
    mark = tmp_path / "executed"
    base = path / "Experiments" / "a small-scan"
    array = base / "data" if where == "data" else base / "metadata" / "PhononEELS" / "haadf"
    description = json.loads((array / ".zarray").read_text())
    n = int(np.prod(description["shape"]))
    description |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}], "compressor": None, "fill_value": None}
    description["chunks"] = description["shape"]
    (array / ".zarray").write_text(json.dumps(description))
    chunk = array.joinpath(*["0"] * len(description["shape"]))
    if chunk.is_dir():
        chunk = next(part for part in chunk.rglob("*") if part.is_file())
    chunk.write_bytes(pickle.dumps(np.array([Trap(mark)] * n, dtype=object)))
    with pytest.raises(InputFileError, match=r"image\.zspy uses the codec 'pickle', which may run code"):
        read(path)
    assert not mark.exists()


def test_arrays_in_one_piece_are_loaded(scan: Path) -> None:
    with h5py.File(scan, "a") as file:
        data = group(file)["data"][...]
        del group(file)["data"]
        group(file)["data"] = data
    image = read(scan)
    assert isinstance(image.counts, np.ndarray)
    np.testing.assert_array_equal(image.counts, small_scan().counts)


def test_zip_with_several_files(tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "night.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(scan, "a.hspy")
        archive.write(scan, "notes.txt")
    np.testing.assert_array_equal(read(path).counts, small_scan().counts)
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(scan, "b.hspy")
    with pytest.raises(InputFileError, match=r"night\.zip must hold one readable file, it holds a\.hspy, b\.hspy"):
        read(path)


def test_zip_does_not_write_outside_its_folder(tmp_path: Path, scan: Path) -> None:
    path = tmp_path / "sub" / "evil.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(scan, "../../escaped.hspy")
    before = set(tmp_path.rglob("*"))
    assert read(path).shape == (4, 5, 64)
    assert set(tmp_path.rglob("*")) == before
