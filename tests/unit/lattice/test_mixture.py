"""A line fitted to two lines of opposite modulation."""

import numpy as np
import pytest

from phonon_eels.lattice.mixture import mixture_response

ENERGIES = np.arange(-40.0, 40.0, 0.25)
SIGMA = 3.0


def gaussian(energy):
    return np.exp(-0.5 * ((ENERGIES - energy) / SIGMA) ** 2)


@pytest.fixture(scope="module")
def response():
    return mixture_response(gaussian, np.ones((1, ENERGIES.size)), np.ones_like(ENERGIES), 0.0, 3.0)


def test_small_modulations_are_followed_to_first_order(response):
    share = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(response.at(share, np.zeros(9)), share, atol=1e-12)


def test_one_line_alone_is_followed_wholly(response):
    np.testing.assert_allclose(response.at(np.array([1.0, -1.0]), np.array([3.0, 2.0])), [1.0, -1.0])


def test_a_far_line_pulls_less(response):
    """A Gaussian among few counts of another pulls with d · exp(-d²/4σ²), where d = 2x: least squares of small mixtures."""
    small, x = 0.95, 3.0
    followed = response.at(np.array([small]), np.array([x]))[0]
    pull = np.exp(-((2 * x) ** 2) / (4 * SIGMA**2))
    expected = 1.0 - (1.0 - small) * pull
    assert followed == pytest.approx(expected, abs=0.005)
    assert followed > small + 0.02


def test_unknown_places_stay_unknown(response):
    assert np.isnan(response.at(np.array([np.nan, 0.5]), np.array([1.0, np.nan]))).all()


def test_offsets_beyond_the_grid_take_its_end(response):
    share = np.array([0.7])
    assert response.at(share, np.array([9.0])) == response.at(share, np.array([3.0]))
