"""Reading of spectra out of a block."""

import numpy as np

from phonon_eels.backends.spectra import read_spectrum
from phonon_eels.backends.zero_loss import find_peaks_block

NO_BAD = np.empty(0, np.bool_)


def test_electrons_from_detector_numbers():
    z = np.empty(3)
    assert read_spectrum(np.array([0.0, 105.0, 110.0, 95.0]), NO_BAD, 1, 5.0, 100.0, z) == 3
    np.testing.assert_allclose(z, [1.0, 2.0, -1.0])


def test_channels_beyond_the_axis_and_bad_ones_are_missing():
    z = np.empty(6)
    bad = np.array([False, True, False, False])
    assert read_spectrum(np.array([1.0, 2.0, 3.0, np.nan]), bad, -1, 1.0, 0.0, z) == 2
    np.testing.assert_array_equal(z, [np.nan, 1.0, np.nan, 3.0, np.nan, np.nan])


def test_search_over_a_block_keeps_positions_apart():
    counts = np.zeros((3, 40))
    for row, center in ((0, 10.0), (2, 25.0)):
        counts[row] = 100.0 * np.exp(-0.5 * ((np.arange(40) - center) / 3.0) ** 2)
    out, status = np.full((3, 3), np.nan), np.empty(3, np.int64)
    find_peaks_block(counts, np.empty((0, 0), bool), 0, 40, 1, 0.0, out, status)
    assert status.tolist() == [0, 1, 0]
    np.testing.assert_allclose(out[[0, 2], 0], [10.0, 25.0], atol=0.1)
