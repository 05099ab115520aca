"""What is fitted: window, bounds, priors, and the way back from a description."""

import json

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.errors import DataError
from phonon_eels.forward.model import build_forward_model, describe, fit_window, model_from_description, modes_in_window
from phonon_eels.forward.zero_loss import zero_loss_model
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import EnergyAxis
from tests.unit.forward.spectra import BI2212

SHAPE = ZeroLossShape(7.5, 1.6, 1.9)
SETTINGS = Settings().fit_peaks


def _model(**changes):
    settings = SETTINGS.model_copy(update=changes)
    return build_forward_model(settings, BI2212, np.arange(-80, 221), 0.5, SHAPE, 25.2)


@pytest.mark.parametrize(("gain_side", "low"), [(True, -60.0), (False, -15.0)])
def test_default_window(gain_side, low):
    axis = EnergyAxis(-90.0, 0.5, 600)
    channels = fit_window(SETTINGS.model_copy(update={"gain_side": gain_side}), BI2212, axis, axis.channel(0.0), 7.5)
    assert channels[0] * 0.5 == pytest.approx(low, abs=0.5)
    assert channels[-1] * 0.5 == pytest.approx(83.0 + 30.0, abs=0.5)
    assert (np.diff(channels) == 1).all()


def test_window_ends_with_the_axis():
    axis = EnergyAxis(-20.0, 0.5, 241)
    channels = fit_window(SETTINGS, BI2212, axis, axis.channel(0.0), 7.5)
    assert channels[0] * 0.5 == -20.0
    assert channels[-1] * 0.5 == 100.0


def test_window_counts_from_the_zero_loss_peak():
    axis = EnergyAxis(-90.0, 0.5, 600)
    settings = SETTINGS.model_copy(update={"window_mev": (-10.0, 95.0)})
    for zero_mev in (0.0, 7.5):
        channels = fit_window(settings, BI2212, axis, axis.channel(zero_mev), 7.5)
        assert (channels[0] * 0.5, channels[-1] * 0.5) == (-10.0, 95.0)


def test_window_that_leaves_the_axis_names_the_setting():
    settings = SETTINGS.model_copy(update={"window_mev": (-10.0, 500.0)})
    with pytest.raises(DataError, match=r"fit_peaks\.window_mev.*500 meV does not fit the energy axis"):
        fit_window(settings, BI2212, EnergyAxis(-90.0, 0.5, 600), 180.0, 7.5)


def test_axis_without_modes_is_told():
    with pytest.raises(DataError, match="below the first mode of material bi2212"):
        fit_window(SETTINGS, BI2212, EnergyAxis(-60.0, 0.5, 130), 120.0, 7.5)


def test_modes_beyond_the_window_are_left_out():
    assert [BI2212.modes[i].name for i in modes_in_window(BI2212, 60.0)] == ["Sr22", "BiO38", "CuO42", "BiO57"]


def test_what_is_free():
    free = _model().free(True)
    assert free.tolist() == [1, 1, 1, 1, 1, 1, 0, 0] + [1] * 12 + [0] * 6
    assert _model(background="none").free(False).tolist() == [1, 1, 1, 1, 1, 0, 0, 0] + [1] * 6 + [0] * 12
    assert _model(background="linear").free(False)[:7].all()


def test_bounds_and_priors():
    model = _model(log_width_std=0.04, tail_std=0.01)
    lower, upper = model.bounds()
    modes = slice(N_LOCAL + 6, N_LOCAL + 12)
    np.testing.assert_allclose(lower[modes], [m.bounds_mev[0] for m in BI2212.modes])
    np.testing.assert_allclose(upper[modes], [m.bounds_mev[1] for m in BI2212.modes])
    assert np.isneginf(lower[N_LOCAL : N_LOCAL + 6]).all()
    precision = model.prior_precision(np.array([np.inf, 1.5, 1.5, np.inf, np.inf, np.inf]))
    np.testing.assert_allclose(precision[2:5], [0.04**-2, 1e4, 1e4])
    np.testing.assert_allclose(precision[modes], [0, 1.5**-2, 1.5**-2, 0, 0, 0])


def test_weak_zero_loss_peaks_may_move_further_than_modes_can_follow():
    assert _model().bounds()[1][1] == 1.0
    assert zero_loss_model(SHAPE, 12.0, 0.5, 0.0, False, True).bounds()[1][1] == 3.75


def test_description_survives_json_and_gives_the_same_model():
    model = _model().with_energies(np.array([22.0, 38.2, 41.7, 57.0, 67.0, 99.0]))
    assert model.mode_energies_mev[-1] == 83.0
    described = json.loads(json.dumps(describe(model, SETTINGS, 25.2)))
    again = model_from_description(described, BI2212)
    np.testing.assert_array_equal(again.tables.values, model.tables.values)
    np.testing.assert_array_equal(again.mode_energies_mev, model.mode_energies_mev)
    np.testing.assert_array_equal(again.energies_mev, model.energies_mev)
    assert again.poisson == model.poisson
    classic = build_forward_model(SETTINGS, BI2212, np.arange(30, 200), 0.5, None, None)
    assert not model_from_description(json.loads(json.dumps(describe(classic, SETTINGS, None))), BI2212).poisson
