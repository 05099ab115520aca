"""How many spectra go into a batch."""

import math

import pytest

from phonon_eels.backends.memory import LARGEST_BATCH, SHARE_OF_FREE, Footprint, batch_size
from phonon_eels.errors import DeviceError


def test_footprint_adds_up_elements():
    made = Footprint.of([((3, 4), 8), ((0, 5), 8)], [((10,), 4), ((), 8), ((2, 3), 1)])
    assert made == Footprint(shared_bytes=96, bytes_per_spectrum=54)
    assert made.total_bytes(100, 2) == 96 + 2 * 100 * 54


@pytest.mark.parametrize("free", [3e6, 1e8, 7.7e9])
def test_batch_fills_its_share_and_no_more(free):
    needs = Footprint(shared_bytes=200_000, bytes_per_spectrum=170_000)
    batch = batch_size(needs, free, 10**9)
    assert batch == LARGEST_BATCH or needs.total_bytes(batch + 1, 2) > SHARE_OF_FREE * free
    assert needs.total_bytes(batch, 2) <= SHARE_OF_FREE * free


def test_batch_is_at_most_the_work():
    assert batch_size(Footprint(0, 8), math.inf, 17) == 17
    assert batch_size(Footprint(0, 8), math.inf, 10**9) == LARGEST_BATCH


def test_no_room_for_one_spectrum():
    with pytest.raises(DeviceError, match=r"one spectrum needs 4\.00 MB .* but 4 MB are free"):
        batch_size(Footprint(0, 2_000_000), 4e6, 10)
