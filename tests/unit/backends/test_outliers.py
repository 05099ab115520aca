"""The first guess without spikes: lines a few channels wide are no spikes if the neighbours show them too."""

import numpy as np
import pytest

from phonon_eels.backends.outliers import clean_rows


def spectra(columns: int) -> np.ndarray:
    """A peak two channels wide that moves by a channel along the row, on 50 electrons."""
    row = np.full((1, columns, 64), 50.0)
    for p in range(columns):
        zero = 30 + (p >= columns // 2)
        row[0, p, zero - 1 : zero + 3] = [2000.0, 20000.0, 12000.0, 900.0]
    return row


def cleaned(given: np.ndarray, narrow: bool, state: np.ndarray | None = None) -> np.ndarray:
    out = np.empty_like(given)
    clean_rows(given, np.zeros(64, np.uint8) if state is None else state, 4.0, 5.0, narrow, out)
    return out


@pytest.mark.parametrize("columns", [1, 2, 9])
def test_a_narrow_peak_stays(columns: int) -> None:
    given = spectra(columns)
    kept = cleaned(given, True)
    top = given[0].argmax(axis=1)
    for p in range(columns):
        np.testing.assert_array_equal(kept[0, p, top[p] : top[p] + 2], given[0, p, top[p] : top[p] + 2])
    # Without being told, the running median takes the peak for a spike: that is why it must be told.
    assert cleaned(given, False)[0, 0].max() < 5000.0


def test_a_cosmic_ray_still_goes() -> None:
    given = spectra(9)
    given[0, 4, 50:52] = 8000.0
    kept = cleaned(given, True)
    np.testing.assert_array_equal(kept[0, 4, 50:52], 50.0)


def test_a_hot_channel_still_goes() -> None:
    given, state = spectra(9), np.zeros(64, np.uint8)
    given[0, :, 50] = 8000.0
    state[50] = 3
    np.testing.assert_array_equal(cleaned(given, True, state)[0, :, 50], 50.0)
