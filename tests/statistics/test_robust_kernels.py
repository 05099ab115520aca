"""Every family of kernels on what files hold: number types, missing and empty spectra, lengths, counts from 0.5 to 10⁷ per channel.

The forward fit has `test_robust_fit`, whole classic chains `test_robust_classic`; here are zero-loss peak, backgrounds, the three
deconvolutions and the component fit.
"""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chi2

from phonon_eels.component_fit.fit import fit_components
from phonon_eels.component_fit.model import Component
from phonon_eels.component_fit.result import STATUS_WORDS
from phonon_eels.config import Settings
from phonon_eels.config.settings import Deconvolve, SubtractZlp
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import EnergyAxis
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.background_models import SHAPES
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.subtract_zlp import subtract_zlp
from tests.statistics.test_zero_loss import AXIS, expected, figures, scan
from tests.unit.component_fit.made_up import ENERGIES, TRUTH, three_gaussians
from tests.unit.component_fit.made_up import expected as sum_of_components
from tests.unit.forward.spectra import context_of as forward_context
from tests.unit.steps.classic_scans import axis, context_of, elastic, image_of, phonons

pytestmark = [pytest.mark.statistics, pytest.mark.slow]
KINDS = ("u2", "f4", ">i4")
ESTIMATORS = ("maximum_likelihood", "fast")
DECONVOLUTIONS = ("richardson_lucy", "fourier_ratio", "fourier_log")
CLEAR = ((14.0, 24.0), (110.0, 150.0))


def forms(counts):
    """Every number type, and an array whose channels do not lie beside each other."""
    for kind in KINDS:
        yield kind, counts.astype(kind)
    yield "strided", np.repeat(counts, 2, axis=-1)[..., ::2]


def zero_loss(image, estimator):
    return align_zlp(image, Settings().align_zlp.model_copy(update={"estimator": estimator}), forward_context()).maps


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_zero_loss_number_types(estimator):
    image, _ = scan(1e4, (4, 6))
    before = zero_loss(image, estimator)
    for kind, counts in forms(image.counts):
        maps = zero_loss(image.with_(counts=counts), estimator)
        for name in before.data_vars:
            np.testing.assert_allclose(maps[name], before[name], rtol=1e-12, err_msg=f"{kind} {name}")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_zero_loss_missing_channels_on_the_peak(estimator):
    """NaN and masked are the same; both cost information only. Masked neighbours of a good channel once made it the peak."""
    image, center = scan(1e4, (10, 20))
    holes = np.random.default_rng(2).random(image.shape) < 0.1
    spoilt = np.where(holes, np.nan, image.counts)
    by_nan = zero_loss(image.with_(counts=spoilt), estimator)
    by_mask = zero_loss(image.with_(counts=np.where(holes, 3e7, image.counts), bad=holes), estimator)
    for maps in (by_nan, by_mask):
        pulls = (maps["zlp_center_mev"].values - center) / maps["zlp_center_mev_std"].values
        assert np.isfinite(pulls).all()
        assert abs(pulls.mean()) < 3.3 / np.sqrt(pulls.size)
        low, high = np.sqrt(chi2.ppf([0.0005, 0.9995], pulls.size - 1) / (pulls.size - 1))
        assert low < pulls.std() < high
    # Runs of three masked channels grow by one, as those of saturation must; missing ones do not.
    runs = (holes[..., :-2] & holes[..., 1:-1] & holes[..., 2:]).any(axis=-1)
    same = (by_nan["zlp_center_mev"].values - by_mask["zlp_center_mev"].values) / by_nan["zlp_center_mev_std"].values
    assert (~runs).sum() > 100
    assert np.abs(same[~runs]).max() < 0.05  # the shape of the scan comes from the others too
    whole = zero_loss(image, estimator)["zlp_center_mev_std"].values
    assert 1.0 < np.median(by_nan["zlp_center_mev_std"].values / whole) < 1.15  # 10 % of the channels: 5 %


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("value", [0.0, -3.0, np.nan])
def test_zero_loss_spectra_without_a_peak_touch_nobody(estimator, value):
    image, _ = scan(1e4, (5, 6))
    counts = np.array(image.counts, float)
    counts[2, 3] = value
    maps, before = zero_loss(image.with_(counts=counts), estimator), zero_loss(image, estimator)
    words = maps["status"].attrs["flag_meanings"].split()
    assert words[maps["status"].values[2, 3]] not in ("converged", "ok")
    assert np.isnan(maps["zlp_center_mev"].values[2, 3])
    moved = (maps["zlp_center_mev"] - before["zlp_center_mev"]) / before["zlp_center_mev_std"]
    others = np.ones((5, 6), bool)
    others[2, 3] = False
    assert np.abs(moved.values[others]).max() < 0.1  # the shape of the scan comes from one spectrum less


@pytest.mark.parametrize("height", [50.0, 1e7])
def test_zero_loss_few_and_many_counts(height):
    """50 counts at the top are half a count a few widths away; at 10⁷ the model must be exact to 10⁻⁴ of a channel."""
    efficiency, bias, pull, fitted = figures(*scan(height))
    assert fitted > 0.995
    assert efficiency <= 1.1
    assert abs(bias) < 0.1
    assert 0.9 < pull < 1.1


@pytest.mark.parametrize("n", [101, 127, 128, 161])
def test_zero_loss_any_length(n):
    image, center = scan(1e4, (6, 10))
    cut = image.with_(counts=image.counts[..., :n], energy=EnergyAxis(AXIS.offset_mev, AXIS.dispersion_mev, n))
    maps = zero_loss(cut, "maximum_likelihood")
    pulls = (maps["zlp_center_mev"].values - center) / maps["zlp_center_mev_std"].values
    assert np.abs(pulls).max() < 4.5
    assert abs(pulls.mean()) < 3.3 / np.sqrt(pulls.size)


def counted(height=1e5, shape=(3, 4), last_mev=240.0):
    energy = axis(last_mev=last_mev)
    mean = elastic(energy.energies_mev, height) + phonons(energy.energies_mev, 1e-3 * height) + 2e-5 * height
    return image_of(np.random.default_rng(3).poisson(np.broadcast_to(mean, (*shape, mean.size))).astype(float), energy)


def subtracted(image, method):
    settings = SubtractZlp(method=method, windows_mev=CLEAR, compare_models=False)
    return subtract_zlp(image, settings, context_of())


@pytest.mark.parametrize("method", [name for name in SHAPES if name != "reference"])
def test_background_number_types_and_spoilt_spectra(method):
    image = counted(height=3e4)
    whole = subtracted(image, method)
    before = np.asarray(whole.image.counts)
    for kind, counts in forms(image.counts):
        after = subtracted(image.with_(counts=counts), method)
        np.testing.assert_array_equal(np.asarray(after.image.counts), before, err_msg=kind)
        np.testing.assert_array_equal(np.asarray(after.image.variance), np.asarray(whole.image.variance), err_msg=kind)
    counts = np.array(image.counts)
    counts[0, 1], counts[1, 2], counts[2, 0] = 0.0, np.nan, -3.0
    holes = [80, 82, 190]  # 20 and 22 meV, in the lower window; 130 meV, in the upper one
    counts[2, 3, holes] = np.nan
    spoilt = subtracted(image.with_(counts=counts), method)
    after = np.asarray(spoilt.image.counts)
    for place in ((0, 1), (1, 2), (2, 0)):
        assert spoilt.maps["status"].values[place] > 1, place
        assert np.isnan(after[place]).all(), place
    others = np.ones((3, 4), bool)
    others[0, 1] = others[1, 2] = others[2, 0] = others[2, 3] = False
    np.testing.assert_array_equal(after[others], before[others])
    shown = spoilt.image.energy.energies_mev
    phonon = (shown > 30.0) & (shown < 100.0)
    std = np.sqrt(np.asarray(spoilt.image.variance)[2, 3, phonon])
    assert np.abs((after[2, 3, phonon] - before[2, 3, phonon]) / std).max() < 3.0


@pytest.mark.parametrize("level", [30.0, 1e4, 1e7])
@pytest.mark.parametrize("last_mev", [240.0, 197.0])
def test_background_few_and_many_counts(level, last_mev):
    """10⁷ counts per channel in the lower window, or 0.5 in the upper one; 300 and 257 channels."""
    energy = axis(last_mev=last_mev)
    mean = level * np.exp(-0.03 * (energy.energies_mev - 14.0))
    mean = np.where(energy.energies_mev < 10.0, elastic(energy.energies_mev, 30.0 * level), mean)
    counts = np.random.default_rng(8).poisson(np.broadcast_to(mean, (10, 20, mean.size))).astype(float)
    result = subtracted(image_of(counts, energy), "exponential")
    assert (result.maps["status"].values == 0).all()
    left, variance = np.asarray(result.image.counts, float), np.asarray(result.image.variance, float)
    pulls = left[..., result.image.energy.energies_mev == 60.0] / np.sqrt(variance[..., 60 - 20, None])
    low, high = np.sqrt(chi2.ppf([0.0005, 0.9995], pulls.size - 1) / (pulls.size - 1))
    assert abs(pulls.mean()) < 0.1 + 3.3 / np.sqrt(pulls.size)
    assert low - 0.05 < pulls.std() < high + 0.05


def lines_seen(n=161, level=20.0, scale=1.0, shape=(3, 4)):
    energies = 20.0 + np.arange(n)
    lines = sum(1.0 / (1.0 + ((energies - place) / 2.5) ** 2) for place in (50.0, 80.0))
    response = split_pearson7(np.arange(-200.0, 201.0), 8.0, 1.6, 1.6)
    mean = scale * (1000.0 * np.convolve(lines, response / response.sum())[200:-200] + level)
    counts = np.random.default_rng(12).poisson(np.broadcast_to(mean, (*shape, n))).astype(float)
    return image_of(
        counts, EnergyAxis(20.0, 1.0, n), variance=np.broadcast_to(np.maximum(mean, 0.5), counts.shape).copy()
    )


def deconvolved(image, method):
    zlp_counts = xr.DataArray(np.full(image.shape[:2], 1e4 * max(np.nanmax(image.counts), 1.0)), dims=("row", "column"))
    maps = {"align_zlp": xr.Dataset({"zlp_counts": zlp_counts})}
    result = deconvolve(image, Deconvolve(method=method), context_of(maps=maps))
    return np.asarray(result.image.counts), result.maps["status"].values


@pytest.mark.parametrize("method", DECONVOLUTIONS)
def test_deconvolution_number_types_and_spoilt_spectra(method):
    image = lines_seen()
    before, status = deconvolved(image, method)
    assert (status == 0).all()
    for kind, counts in forms(image.counts):
        after, _ = deconvolved(image.with_(counts=counts), method)
        np.testing.assert_array_equal(after, before, err_msg=kind)
    counts = np.array(image.counts)
    counts[0, 1], counts[1, 2] = 0.0, np.nan
    counts[2, 0, 60] = np.nan
    after, status = deconvolved(image.with_(counts=counts), method)
    assert np.isnan(after[1, 2]).all()
    assert np.isnan(after[2, 0]).all()  # a hole has no convolution: refused, and told
    assert status[1, 2] != 0
    assert status[2, 0] != 0
    assert (np.nan_to_num(after[0, 1]) == 0.0).all()
    others = np.ones((3, 4), bool)
    others[0, 1] = others[1, 2] = others[2, 0] = False
    assert (status[others] == 0).all()
    np.testing.assert_allclose(after[others], before[others], rtol=0.0, atol=2e-3)  # of deviations of 4 to 30 counts


@pytest.mark.parametrize("method", DECONVOLUTIONS)
@pytest.mark.parametrize("n", [127, 128, 161, 211])
@pytest.mark.parametrize("scale", [5e-4, 1.0, 2e4])
def test_deconvolution_few_and_many_counts_any_length(method, n, scale):
    """0.5 counts in the highest channel and 0.01 in most, up to 10⁷; every length keeps the counts and the place."""
    image = lines_seen(n, scale=scale, shape=(20, 20))
    after, status = deconvolved(image, method)
    empty = image.counts.sum(axis=-1) == 0.0
    assert (status[~empty] == 0).all()
    assert np.isfinite(after).all()
    total, was = float(after.sum(dtype=np.float64)), float(image.counts.sum())
    assert total == pytest.approx(was, rel=0.01)
    if scale >= 1.0:
        assert 60.0 + np.argmax(after.mean(axis=(0, 1))[40:80]) == pytest.approx(80.0, abs=1.0)


@pytest.mark.parametrize("scale", [0.02, 1.0, 2e4])
@pytest.mark.parametrize("n", [97, 128, 180, 211])
def test_component_fit_few_and_many_counts_any_length(scale, n):
    """Half a count per channel between the peaks, 10⁷ at their tops; all pulls as a normal distribution's."""
    energies = np.linspace(ENERGIES[0], ENERGIES[-1], n)
    params = TRUTH.copy()
    params[[0, 3, 6, 9, 11]] *= (
        scale * np.array([n / 180, n / 180, n / 180, 1.0, 1.0]) * np.array([180 / n] * 3 + [1, 1])
    )
    if scale < 1.0:  # peaks well above the background, so that none vanishes
        params[[0, 3, 6]] *= 10.0
    mean = sum_of_components(three_gaussians(), params, energies)
    if scale > 1.0:
        assert mean.max() > 4e6
    counts = np.random.default_rng(5).poisson(np.broadcast_to(mean, (20, 25, n)))
    fit = fit_components(counts, energies, three_gaussians())
    assert fit.usable.mean() > (0.97 if scale < 1.0 else 0.999)  # some of the rest are singular, and say so
    assert (fit.status != STATUS_WORDS.index("not_identified")).all()
    good = fit.status == STATUS_WORDS.index("converged")
    for name in ("a.centre", "b.centre", "c.centre", "c.fwhm", "c.area"):
        pulls = ((fit.value(name) - params[fit.model.number(name)]) / fit.value_std(name))[good]
        low, high = np.sqrt(chi2.ppf([0.0005, 0.9995], pulls.size - 1) / (pulls.size - 1))
        assert abs(pulls.mean()) < 3.3 / np.sqrt(pulls.size) + (0.1 if scale < 1.0 else 0.0), name
        assert low - 0.05 < pulls.std() < high + 0.05, name


def test_component_fit_number_types():
    counts = np.random.default_rng(6).poisson(sum_of_components(three_gaussians(), TRUTH), (4, 5, 180)).astype(float)
    before = fit_components(counts, ENERGIES, three_gaussians())
    for kind, same in forms(counts):
        fit = fit_components(same, ENERGIES, three_gaussians())
        np.testing.assert_array_equal(fit.values, before.values, err_msg=kind)
        np.testing.assert_array_equal(fit.std, before.std, err_msg=kind)


def test_component_fit_half_a_count_is_not_biased():
    """0.5 counts per channel and nothing else: the likelihood's mean is that of the counts, weights from the data would give 0."""
    counts = np.random.default_rng(7).poisson(0.5, (40, 25, 101))
    fit = fit_components(counts, np.arange(101.0), [Component("offset", "floor")])
    np.testing.assert_allclose(fit.value("floor.value"), counts.mean(axis=-1), rtol=1e-5)
    pulls = (fit.value("floor.value") - 0.5) / fit.value_std("floor.value")
    assert abs(pulls.mean()) < 0.1 + 3.3 / np.sqrt(1000.0)


def test_models_of_the_tests_are_what_they_say():
    assert expected(1e7).max() == pytest.approx(1e7, rel=0.01)
    assert 0.01 < expected(50.0).min() < 0.5
    assert 0.3 < 30.0 * np.exp(-0.03 * (150.0 - 14.0)) < 0.7
