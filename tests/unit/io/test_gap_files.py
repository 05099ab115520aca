"""Files of the user's own gap: what fits is read, what does not is refused with the reason."""

import numpy as np
import pytest
import xarray as xr

from phonon_eels.errors import InputFileError
from phonon_eels.io.gap_files import read_gap_curve, read_gap_map

CURVE = "# from STM\nphase_rad, gap_mev, gap_std_mev, remark\n0, 40, 0.5, crest\n1.57, 38, 0.5,\n3.14, 36, 0.6,\n"


def written(tmp_path, text, name="gap.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_curve(tmp_path):
    phase, gap, std = read_gap_curve(written(tmp_path, CURVE))
    np.testing.assert_allclose(phase, [0, 1.57, 3.14])
    np.testing.assert_allclose(gap, [40, 38, 36])
    np.testing.assert_allclose(std, [0.5, 0.5, 0.6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no CSV table"),
        ("a,b\n1,2\n", "lacks the columns phase_rad, gap_mev, gap_std_mev; it has a, b"),
        ("phase_rad,gap_mev,gap_std_mev\n", "holds no line of numbers"),
        (CURVE.replace("38", "=cmd|' /C calc'!A0"), "gap_mev is .* in line 2"),
        (CURVE.replace("38", "nan"), "gap_mev is .* in line 2 of the numbers; all must be finite"),
        (CURVE.replace("38", "inf"), "all must be finite"),
        (CURVE.replace("38", "-38"), "a gap must lie between 0 and 1000 meV"),
        (CURVE.replace("0.6", "0"), "every standard deviation must be positive"),
        (CURVE.replace("3.14", "314"), "give radians"),
        (b"phase_rad,gap_mev,gap_std_mev\n\xff\xfe\x00,1,1\n", "is no CSV table"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is no CSV table|lacks the columns"),
        ("phase_rad,gap_mev,gap_std_mev\n1,2\n1,2,3,4,5,6\n", "is no CSV table"),
    ],
)
def test_curves_that_are_refused(tmp_path, text, message):
    with pytest.raises(InputFileError, match=message):
        read_gap_curve(written(tmp_path, text))


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputFileError, match="there is no such file"):
            read_gap_curve(path)


def test_map_from_csv(tmp_path):
    path = written(tmp_path, "row,column,gap_mev,gap_std_mev\n0,0,40,1\n2,3,36,2\n")
    gap, std = read_gap_map(path, (3, 4))
    assert (gap[0, 0], std[2, 3]) == (40.0, 2.0)
    assert np.isnan(gap).sum() == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [("3,0,40,1", "row and column must be whole numbers from 0 to 2 and 3"), ("0.5,0,40,1", "whole numbers"), ("-1,0,40,1", "whole numbers"),
     ("0,0,40,1\n0,0,41,1", "stand there twice"), ("0,0,4e4,1", "check the unit")],
)  # fmt: skip
def test_maps_that_are_refused(tmp_path, line, message):
    with pytest.raises(InputFileError, match=message):
        read_gap_map(written(tmp_path, f"row,column,gap_mev,gap_std_mev\n{line}\n"), (3, 4))


def test_map_from_netcdf(tmp_path):
    gap = np.full((3, 4), 38.0)
    gap[1, 1] = np.nan
    data = xr.Dataset({"gap_mev": (("row", "column"), gap), "gap_mev_std": (("row", "column"), np.ones((3, 4)))})
    data.to_netcdf(tmp_path / "gap.nc")
    found, std = read_gap_map(tmp_path / "gap.nc", (3, 4))
    np.testing.assert_array_equal(found, gap)
    assert (std == 1).all()
    with pytest.raises(InputFileError, match=r"gap_mev is \(3, 4\), the scan \(5, 4\)"):
        read_gap_map(tmp_path / "gap.nc", (5, 4))
    data.drop_vars("gap_mev_std").to_netcdf(tmp_path / "half.nc")
    with pytest.raises(InputFileError, match="needs the variables gap_mev and gap_mev_std"):
        read_gap_map(tmp_path / "half.nc", (3, 4))
    with pytest.raises(InputFileError, match="cannot be read as NetCDF"):
        read_gap_map(written(tmp_path, "no netcdf", "bad.nc"), (3, 4))
