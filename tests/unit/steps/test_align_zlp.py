"""The step that finds the zero-loss peak of every position."""

import dask.array as da
import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.errors import DataError
from phonon_eels.steps.align_zlp import ALIGN_ZLP, align_zlp
from tests.unit.forward.spectra import context_of, simulated


@pytest.fixture(scope="module")
def counted():
    detector = {"poisson": True, "gain": 2.5, "read_noise_e": 1.0}
    return simulated(5, 6, energy={"jitter_mev": 0.4}, zero_loss={"width_wander": 0.02}, detector=detector)


def _run(image, route="forward", threads=1, **settings):
    return align_zlp(image, Settings().align_zlp.model_copy(update=settings), context_of(threads=threads, route=route))


def test_maps_hold_the_truth_within_their_deviations(counted):
    maps = _run(counted.image).maps
    for name in ("zlp_center_mev", "zlp_fwhm_mev"):
        pull = (maps[name] - counted.truth_maps[name].values) / maps[f"{name}_std"]
        assert np.abs(pull).max() < 4.5, name
        assert 0.7 < float(pull.std()) < 1.5, name
    relative = maps["zlp_counts"].values / counted.truth_maps["zlp_counts"].values
    np.testing.assert_allclose(relative, 1.0, atol=0.05)


def test_names_units_and_statuses(counted):
    result = _run(counted.image)
    for name, unit in ALIGN_ZLP.makes.items():
        assert result.maps[name].attrs["units"] == unit
        assert result.maps[f"{name}_std"].attrs["units"] == unit
    assert result.maps["status"].dtype.kind == "i"
    assert "no_data" in result.maps["status"].attrs["flag_meanings"]
    assert all("units" in variable.attrs for variable in result.maps.variables.values())
    assert result.summary["zlp_fwhm_mev"]["unit"] == "meV"
    assert sum(result.summary["status_counts"].values()) == 30


def test_forward_route_leaves_the_counts_alone(counted):
    result = _run(counted.image)
    assert result.image is None
    assert result.summary["alignment"] == "coordinate"


def test_classic_route_brings_every_peak_to_zero_and_keeps_the_counts(counted):
    result = _run(counted.image, "classic")
    moved = result.image
    assert isinstance(moved.counts, da.Array)
    assert any("correlated" in message for message in result.messages)
    spectra = moved.counts.compute()
    electrons = np.asarray(counted.image.counts, float) / 2.5
    np.testing.assert_allclose(spectra.sum(axis=2), electrons.sum(axis=2), rtol=1e-4)
    again = _run(moved.with_(counts=spectra.astype(float), variance=moved.variance.compute().astype(float)))
    assert np.abs(again.maps["zlp_center_mev"]).max() < 0.1
    assert again.summary["zlp_center_spread_mev"] < 0.2 * _run(counted.image).summary["zlp_center_spread_mev"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("chunks", [None, (2, 4, 100)])
def test_blocks_and_threads_leave_no_trace(counted, threads, chunks):
    image = counted.image
    if chunks is not None:
        image = image.with_(counts=da.from_array(image.counts, chunks=chunks))
    result, plain = _run(image, threads=threads), _run(counted.image)
    for name in plain.maps:
        np.testing.assert_array_equal(result.maps[name].values, plain.maps[name].values)


def test_search_window_and_line_shape_have_an_effect(counted):
    counts = np.array(counted.image.counts, float)
    counts[..., 300:306] += 1e6
    image = counted.image.with_(counts=counts)
    window = _run(image, search_window_mev=(-20.0, 30.0))
    np.testing.assert_allclose(
        window.maps["zlp_center_mev"], counted.truth_maps["zlp_center_mev"], atol=0.1
    )  # fmt: skip
    assert (_run(image).maps["zlp_center_mev"] > 50.0).all()
    gaussian = _run(counted.image, line_shape="gaussian")
    assert any("chi-squared" in message for message in gaussian.messages)
    wide = _run(counted.image, fit_half_width_fwhm=2.5).maps["zlp_tail_loss_std"]
    assert float(wide.mean()) < float(_run(counted.image).maps["zlp_tail_loss_std"].mean())


def test_summary_names_the_shape_that_was_fitted(counted):
    assert _run(counted.image).summary["line_shape"] == "split Pearson VII"


def test_empty_spectra_keep_their_place_with_a_status(counted):
    counts = np.array(counted.image.counts, float)
    counts[2, 3] = 0.0
    counts[4, 0] = np.nan
    result = _run(counted.image.with_(counts=counts))
    status = result.maps["status"].values
    for place in ((2, 3), (4, 0)):
        assert status[place] not in (0, 4)
        assert np.isnan(result.maps["zlp_center_mev"].values[place])
    assert np.isfinite(result.maps["zlp_center_mev"].values).sum() == 28
    assert any("could not be fitted at 2 of 30 positions" in message for message in result.messages)


def test_one_spike_moves_no_centre(counted):
    counts = np.array(counted.image.counts, float)
    counts[..., 290] += 1e7
    spoiled = _run(counted.image.with_(counts=counts)).maps["zlp_center_mev"]
    plain = _run(counted.image).maps
    assert (np.abs(spoiled - plain["zlp_center_mev"]) < 0.1 * plain["zlp_center_mev_std"]).all()


def test_axis_without_a_peak_is_refused(counted):
    nothing = counted.image.with_(counts=np.zeros(counted.image.shape))
    with pytest.raises(DataError, match=r"no zero-loss peak was found.*align_zlp\.search_window_mev"):
        _run(nothing)


def test_window_outside_the_axis_is_refused(counted):
    with pytest.raises(DataError, match=r"align_zlp\.search_window_mev = -500"):
        _run(counted.image, search_window_mev=(-500.0, 30.0))


def test_narrow_peak_is_told():
    narrow = simulated(2, 3, energy={"dispersion_mev": 4.0, "channels": 45}, zero_loss={"fwhm_mev": 8.0})
    assert any("channels wide" in message for message in _run(narrow.image).messages)
