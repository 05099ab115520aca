"""The zero-loss peak over many draws: efficiency, bias and pulls from 100 to 1,000,000 peak counts."""

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.align_zlp import align_zlp
from tests.unit.forward.spectra import context_of

pytestmark = pytest.mark.statistics
AXIS = EnergyAxis(-40.0, 0.5, 161)
CENTER_MEV = 0.37


def expected(height, center=CENTER_MEV, fwhm=8.0, loss=1.6, gain=1.9):
    """Electrons of every channel, averaged over its width by brute force."""
    within = (np.arange(64) + 0.5) / 64 - 0.5
    x = AXIS.energies_mev[:, None] + AXIS.dispersion_mev * within - np.atleast_1d(center)[:, None, None]
    return height * split_pearson7(x, fwhm, loss, gain).mean(axis=-1)


def scan(height, shape=(40, 50), seed=0, *, gain=1.0, read=0.0, dark=0.0, spike=False, spread=0.3, saturation=None):
    """Return an image and the true centres."""
    random = np.random.default_rng([seed, int(height)])
    center = CENTER_MEV + spread * random.normal(size=shape)
    mean = expected(height, center.ravel()).reshape(*shape, -1)
    electrons = random.poisson(mean) + read * random.normal(size=mean.shape)
    if spike:
        electrons[..., 150] += 30.0 * height
    counts = gain * electrons + dark
    if saturation is not None:
        counts = np.minimum(counts, saturation)
    axes = (ScanAxis("row", 0.1, shape[0]), ScanAxis("column", 0.1, shape[1]))
    return SpectrumImage(counts, AXIS, axes, NoiseModel(gain=gain, dark_level=dark, read_noise_e=read)), center


def run(image, **settings):
    return align_zlp(image, Settings().align_zlp.model_copy(update=settings), context_of())


def figures(image, center):
    """Return rms over the Cramér-Rao bound, bias over sigma, width of the pulls, share of positions fitted."""
    maps = run(image).maps
    off = maps["zlp_center_mev"].values - center
    std = maps["zlp_center_mev_std"].values
    ok = np.isfinite(off)
    bound = np.sqrt(np.mean(std[ok] ** 2))
    rms = np.sqrt(np.mean(off[ok] ** 2))
    return rms / bound, off[ok].mean() / bound, np.std(off[ok] / std[ok]), ok.mean()


@pytest.mark.parametrize("height", [1e2, 1e3, 1e4, 1e5, 1e6])
def test_centre_is_efficient_unbiased_and_has_the_right_deviation(height):
    efficiency, bias, pull, fitted = figures(*scan(height))
    assert fitted == 1.0
    assert efficiency <= 1.1
    assert abs(bias) < 0.1
    assert 0.97 - 0.016 < pull < 1.03 + 0.016  # 2,000 positions: one standard error is 0.016


@pytest.mark.parametrize(
    ("gain", "read", "dark"), [(0.1285, 0.0, 0.0), (5.0, 0.0, 100.0), (0.13, 4.0, 0.0), (2.5, 4.0, 20.0)]
)
def test_gain_and_read_noise(gain, read, dark):
    efficiency, bias, pull, fitted = figures(*scan(3e3, gain=gain, read=read, dark=dark))
    assert fitted == 1.0
    assert efficiency <= 1.1
    assert abs(bias) < 0.1
    assert 0.95 < pull < 1.05


def test_width_and_counts_are_right():
    image, _ = scan(1e4)
    maps = run(image).maps
    for name, truth in (("zlp_fwhm_mev", 8.0), ("zlp_tail_loss", 1.6), ("zlp_tail_gain", 1.9)):
        pull = (maps[name].values - truth) / maps[f"{name}_std"].values
        assert abs(pull.mean()) < 0.15, name
        assert 0.9 < pull.std() < 1.1, name


def test_spike_outside_the_window_changes_nothing():
    with_spike, without = (run(scan(1e3, (10, 10), spike=spike)[0]).maps for spike in (True, False))
    std = without["zlp_center_mev_std"].values
    off = (with_spike["zlp_center_mev"].values - without["zlp_center_mev"].values) / std
    assert np.abs(off).max() < 0.05


def test_search_that_is_off_by_channels_does_not_hold_the_centre_back():
    """At 100 counts the search is off by up to a third of the width; the fit must be free to come back."""
    image, center = scan(1e2)
    maps = run(image).maps
    at_bound = np.isnan(maps["zlp_center_mev_std"].values)
    assert at_bound.mean() < 0.001
    assert np.nanmax(np.abs(maps["zlp_center_mev"].values - center)) < 5.0 * np.nanmean(
        maps["zlp_center_mev_std"].values
    )


def test_saturated_peak_is_told():
    """A cut-off peak cannot be fitted; the result must say so instead of giving a confident number."""
    result = run(scan(1e4, (10, 10), saturation=8000.0)[0])
    assert any("chi-squared per degree of freedom of the zero-loss fit" in message for message in result.messages)
    assert float(result.maps["chi2_per_dof"].mean()) > 5.0
    assert not run(scan(1e4, (10, 10))[0]).messages
