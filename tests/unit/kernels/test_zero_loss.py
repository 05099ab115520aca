"""The fast search for the zero-loss peak."""

import numpy as np
import pytest

from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.zero_loss import find_peak

NO_BAD = np.empty(0, np.bool_)


def _search(counts, bad=NO_BAD, low=0, high=None, dark=0.0):
    out = np.full(3, np.nan)
    status = find_peak(np.asarray(counts), bad, low, counts.shape[0] if high is None else high, 1, dark, out)
    return status, out


def _peak(center=60.3, fwhm=14.0, height=1e4, n=200):
    return height * split_pearson7(np.arange(n) - center, fwhm, 1.8, 1.8)


@pytest.mark.parametrize("center", [20.0, 60.3, 150.5, 170.9])
def test_place_width_and_height(center):
    status, out = _search(_peak(center))
    assert status == 0
    assert out[0] == pytest.approx(center, abs=0.15)
    assert out[1] == pytest.approx(14.0, rel=0.08)
    assert out[2] == pytest.approx(1e4, rel=0.05)


def test_dark_level_is_taken_off_before_the_half_height():
    status, out = _search(_peak() + 5000.0, dark=5000.0)
    assert status == 0
    assert out[1] == pytest.approx(_search(_peak())[1][1], rel=1e-6)
    assert out[2] == pytest.approx(_search(_peak())[1][2], rel=1e-6)


def test_integer_counts_are_taken():
    status, out = _search(np.round(_peak()).astype(np.int32))
    assert status == 0
    assert out[0] == pytest.approx(60.3, abs=0.15)


def test_spike_of_one_channel_is_no_peak():
    counts = _peak()
    counts[150] = 1e7
    assert _search(counts)[1][0] == pytest.approx(60.3, abs=0.15)


def test_bad_and_missing_channels_are_passed_over():
    counts = _peak()
    counts[149:152] = 1e7
    bad = np.zeros(200, bool)
    bad[148:153] = True
    assert _search(counts, bad)[1][0] == pytest.approx(60.3, abs=0.15)
    counts[149:152] = np.nan
    status, out = _search(counts)
    assert status == 0
    assert out[0] == pytest.approx(60.3, abs=0.15)


@pytest.mark.parametrize("counts", [np.zeros(50), np.full(50, -3.0), np.full(50, np.nan)], ids=["zero", "minus", "nan"])
def test_nothing_to_find_is_told(counts):
    status, out = _search(counts)
    assert status == 1
    assert np.isnan(out).all()


@pytest.mark.parametrize("center", [-20.0, 250.0])
def test_peak_beyond_the_end_is_told(center):
    assert _search(_peak(center))[0] == 2


def test_search_stays_in_its_range():
    counts = _peak(60.0) + _peak(150.0, height=1e6)
    status, out = _search(counts, low=20, high=100)
    assert status in (0, 2)
    assert status == 2 or out[0] == pytest.approx(60.0, abs=0.5)
    assert _search(_peak(60.0) + _peak(150.0, height=3e4), low=20, high=90)[1][0] == pytest.approx(60.0, abs=0.5)
