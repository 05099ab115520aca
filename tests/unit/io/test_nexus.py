"""NeXus files as `.h5`: read as far as RosettaSciIO does, told from Nion Swift's."""

from pathlib import Path

import h5py
import hyperspy.api as hs
import numpy as np
import pytest

from phonon_eels.errors import InputFileError
from phonon_eels.io.read import read
from tests.unit.io.nion_files import counts, write_h5


def nexus(path: Path) -> tuple[Path, np.ndarray]:
    truth = counts(3, 4, 64)
    signal = hs.signals.Signal1D(truth)
    for axis, (name, units, scale) in zip(
        signal.axes_manager._axes, [("y", "nm", 0.5), ("x", "nm", 0.25), ("Energy", "eV", 0.001)], strict=True
    ):
        axis.name, axis.units, axis.scale = name, units, scale
    signal.axes_manager[-1].offset = -0.02
    signal.save(str(path.with_suffix(".nxs")))
    return path.with_suffix(".nxs").rename(path), truth


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lazy", [False, True])
def test_a_nexus_file_is_read(tmp_path: Path, lazy: bool) -> None:
    path, truth = nexus(tmp_path / "scan.h5")
    image = read(path, lazy=lazy)
    np.testing.assert_array_equal(np.asarray(image.counts), truth)
    assert image.energy.dispersion_mev == pytest.approx(1.0)
    assert image.energy.offset_mev == pytest.approx(-20.0)
    assert (image.scan[0].step_nm, image.scan[1].step_nm) == (pytest.approx(0.5), pytest.approx(0.25))


def test_nion_files_are_still_read_as_such(tmp_path: Path) -> None:
    data = counts(3, 4, 8)
    np.testing.assert_array_equal(np.asarray(read(write_h5(tmp_path / "scan.h5", data)).counts), data)


def test_other_hdf5_files_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["Measurement_000/Channel_000/Raw_Data"] = np.zeros((2, 3))
        file.attrs["data_type"] = "USID"
    with pytest.raises(InputFileError, match=r"not of Nion Swift .*in HyperSpy, and save it as \.hspy"):
        read(tmp_path / "other.h5")
