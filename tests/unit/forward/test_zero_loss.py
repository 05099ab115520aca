"""The scan-wide shape of the zero-loss peak and its fit at every position."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.errors import DataError
from phonon_eels.forward.scan import NO_CHANNEL
from phonon_eels.forward.zero_loss import counts_in_peak, estimate_shape, fit_zero_loss, search_peaks
from phonon_eels.kernels.likelihood import CONVERGED
from tests.unit.forward.spectra import simulated

CPU = CpuBackend(1)


@pytest.fixture(scope="module")
def quiet():
    return simulated(4, 6, energy={"jitter_mev": 0.3}, phonons={"area_e": 0.0, "background_e_per_mev": 0.0})


def _search(image, low=0, high=None):
    return search_peaks(image, slice(low, image.shape[2] if high is None else high), CPU)


def test_shape_of_the_scan(quiet):
    shape = estimate_shape(quiet.image, _search(quiet.image), CPU)
    assert shape.fwhm_mev == pytest.approx(7.5, rel=0.03)
    assert 1.0 < shape.tail_loss <= shape.tail_gain < 3.1


def test_centre_width_tails_and_counts(quiet):
    search = _search(quiet.image)
    shape = estimate_shape(quiet.image, search, CPU)
    model, alignment, fit = fit_zero_loss(quiet.image, search, shape, 2.5, False, CPU)
    assert (fit.status == CONVERGED).all()
    truth = quiet.truth_maps
    center = quiet.image.energy.offset_mev + 0.5 * alignment.channel + fit.params[..., 1]
    np.testing.assert_allclose(center, truth["zlp_center_mev"], atol=2e-3)
    fwhm, counts, counts_std = counts_in_peak(fit, model.zero_loss, 0.5)
    np.testing.assert_allclose(fwhm, 7.5, rtol=2e-3)
    np.testing.assert_allclose(counts, truth["zlp_counts"], rtol=5e-3)
    assert (counts_std > 0.0).all()
    np.testing.assert_allclose(model.zero_loss.tail_loss * np.exp(fit.params[..., 3]), 1.6, rtol=5e-3)
    np.testing.assert_allclose(model.zero_loss.tail_gain * np.exp(fit.params[..., 4]), 1.9, rtol=5e-3)


def test_gaussian_shape_has_no_free_tails(quiet):
    search = _search(quiet.image)
    model, _, fit = fit_zero_loss(quiet.image, search, estimate_shape(quiet.image, search, CPU), 1.5, True, CPU)
    assert model.free_local.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert model.zero_loss.tail_loss == 30.0
    assert not fit.params[..., 3:5].any()


def test_positions_without_counts_have_no_peak(quiet):
    counts = np.array(quiet.image.counts)
    counts[1, 2] = 0.0
    search = _search(quiet.image.with_(counts=counts))
    assert np.isnan(search.channel[1, 2])
    assert np.isfinite(search.channel).sum() == 23
    _, alignment, fit = fit_zero_loss(
        quiet.image.with_(counts=counts), search, estimate_shape(quiet.image, search, CPU), 1.5, False, CPU
    )
    assert alignment.channel[1, 2] == NO_CHANNEL
    assert fit.status[1, 2] != CONVERGED
    assert np.isnan(fit.params[1, 2]).all()


def test_peak_at_the_end_of_the_window_is_told(quiet):
    zero = round(quiet.image.energy.channel(0.0))
    search = _search(quiet.image, zero + 6, zero + 60)
    assert search.at_edge.all()
    with pytest.raises(
        DataError, match=r"no zero-loss peak was found between -55 and .* give align_zlp.search_window_mev"
    ):
        estimate_shape(quiet.image, search, CPU)
