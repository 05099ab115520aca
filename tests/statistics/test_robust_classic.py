"""The whole classic chain on counts of any number type, with empty spectra and missing channels among them."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.config.settings import Deconvolve, FitPeaks
from tests.statistics.test_classic_intervals import (
    GAIN,
    MODES,
    SHAPE,
    SUBTRACTION,
    classic_chain,
    material_of_two,
    scan,
)

FIT = FitPeaks(line_shape="gaussian", background="linear", window_mev=(40.0, 100.0))
EMPTY, DARK, MISSING, HOLES = (2, 3), (5, 5), (7, 1), (9, 9)
SPOILT = (EMPTY, DARK, MISSING, HOLES)


@pytest.fixture(scope="module")
def counted():
    return scan(material_of_two(), 4e5, np.ones(SHAPE), 6)


def run(image, method):
    return classic_chain(image, material_of_two(), SUBTRACTION, Deconvolve(method=method), FIT).maps


@pytest.fixture(scope="module", params=["richardson_lucy", "fourier_ratio"])
def whole(request, counted):
    return request.param, run(counted, request.param)


def test_number_types_give_the_same(counted, whole):
    method, before = whole
    for kind in (np.float32, np.uint32):
        maps = run(replace(counted, counts=counted.counts.astype(kind)), method)
        for name in ("apparent_energy_mev", "apparent_energy_mev_std", "area_e"):
            np.testing.assert_allclose(maps[name], before[name], rtol=1e-6, err_msg=f"{kind.__name__} {name}")


def test_spoilt_spectra_are_told_and_hardly_touch_the_others(counted, whole):
    method, before = whole
    counts = counted.counts.astype(float)
    counts[EMPTY] = 0.0
    counts[DARK] = -3.0 * GAIN
    counts[MISSING] = np.nan
    counts[HOLES][95:99] = np.nan  # four channels between the modes
    maps = run(replace(counted, counts=counts), method)
    for place in SPOILT[:3]:
        assert maps["status"].values[place] != 0, place
        assert np.isnan(maps["apparent_energy_mev"].values[:, *place]).all(), place
        assert np.isnan(maps["apparent_energy_mev_std"].values[:, *place]).all(), place
    others = np.ones(SHAPE, bool)
    for place in SPOILT:
        others[place] = False
    assert (maps["status"].values[others] == before["status"].values[others]).all()
    for mode in MODES:
        here, was = maps.sel(mode=mode), before.sel(mode=mode)
        moved = (here["apparent_energy_mev"] - was["apparent_energy_mev"]) / was["apparent_energy_mev_std"]
        assert float(np.abs(moved.values[others]).max()) < 0.2, mode
        at = here["apparent_energy_mev"].values[HOLES]
        assert np.isnan(at) or abs(moved.values[HOLES]) < 3.0, mode
