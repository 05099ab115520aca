"""A leakage matrix from a file: read whole, or refused with the reason."""

import numpy as np
import pytest
import xarray as xr

from phonon_eels.errors import InputFileError
from phonon_eels.io.leakage_file import read_leakage

LAYERS = ("CuO2", "BiO")
GOOD = "probe,source,share,share_std\nCuO2,CuO2,0.8,0.02\nCuO2,BiO,0.2,0.02\nBiO,CuO2,0.1,0.01\nBiO,BiO,0.9,0.01\n"


def written(tmp_path, text):
    path = tmp_path / "leakage.csv"
    path.write_text(text)
    return path


def test_table_and_netcdf_say_the_same(tmp_path):
    matrix, std = read_leakage(written(tmp_path, GOOD), LAYERS)
    np.testing.assert_allclose(matrix, [[0.8, 0.2], [0.1, 0.9]])
    np.testing.assert_allclose(std, [[0.02, 0.02], [0.01, 0.01]])
    data = xr.Dataset(
        {"share": (("source", "probe"), matrix.T), "share_std": (("probe", "source"), std)},
        coords={"probe": list(LAYERS), "source": list(LAYERS)},
    )
    data.to_netcdf(tmp_path / "leakage.nc")
    for found, expected in zip(read_leakage(tmp_path / "leakage.nc", LAYERS), (matrix, std), strict=True):
        np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("share_std", "sigma"), "lacks the column share_std"),
        (GOOD.replace("BiO,BiO,0.9,0.01\n", ""), "lacks the pair BiO, BiO"),
        (GOOD + "BiO,BiO,0.9,0.01\n", "stands there twice"),
        (GOOD.replace("0.9,0.01", "0.5,0.01"), r"the shares seen on BiO add up to 0\.600; they must add up to 1"),
        (GOOD.replace("0.9,0.01", "1.9,0.01"), "must lie between 0 and 1"),
        (GOOD.replace("0.9,0.01", "nan,0.01"), "must lie between 0 and 1"),
        (GOOD.replace("0.9,0.01", "much,0.01"), "is no leakage matrix"),
        (GOOD.replace("BiO,BiO", "BiO,LaO"), "must be layers of the material: CuO2, BiO"),
        ("", "is no leakage matrix"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(InputFileError, match=message):
        read_leakage(written(tmp_path, text), LAYERS)


def test_missing_file(tmp_path):
    with pytest.raises(InputFileError, match="there is no such file"):
        read_leakage(tmp_path / "none.csv", LAYERS)
    path = tmp_path / "bad.nc"
    path.write_text("nothing")
    with pytest.raises(InputFileError, match="is no leakage matrix"):
        read_leakage(path, LAYERS)
