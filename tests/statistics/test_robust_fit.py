"""The forward fit from half an electron to ten million per channel, with masked channels and empty spectra."""

import numpy as np
import pytest
from scipy.stats import chi2

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.forward.information import model_at
from phonon_eels.forward.scan import STATUS_MEANINGS, Alignment, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import CONVERGED
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.peak_maps import goodness_of_fit
from tests.unit.forward.spectra import SEPARATED, material_of, model_of, simulated

pytestmark = pytest.mark.statistics
MATERIAL = material_of(*SEPARATED)
N = 300


@pytest.fixture(scope="module")
def model():
    return model_of(simulated(1, 1, material=MATERIAL), MATERIAL, log_width_std=0.03, tail_std=0.014)


def _image(counts, model, **more):
    n = counts.shape[0]
    axis = EnergyAxis(float(model.energies_mev[0]), model.dispersion_mev, counts.shape[1])
    image = SpectrumImage(
        counts[:, None, :], axis, (ScanAxis("row", 1.0, n), ScanAxis("column", 1.0, 1)), NoiseModel(), **more
    )
    return image, Alignment(np.full((n, 1), -model.first_channel), np.full((n, 1), 0.05))


def _truth(scale):
    local = [1e4 * scale, 0.05, 0, 0, 0, max(5.0 * scale, 0.5), 0, 0]
    return np.concatenate([local, np.full(3, 3e3 * scale), [38.0, 57.5, 78.0], np.zeros(3)])


@pytest.mark.parametrize("peak", [1e3, 1e4, 1e5, 1e6, 1e7])
@pytest.mark.parametrize("kind", [np.uint32, np.float32])
def test_areas_from_half_an_electron_to_ten_million_per_channel(model, peak, kind):
    """At 1,000 electrons in the peak channels far from it hold half an electron; at 10⁷ the model itself is exact to far below the noise."""
    params = _truth(peak / 1e4)
    expected, _ = model_at(model, params)
    counts = np.random.default_rng(7).poisson(expected, (N, expected.size)).astype(kind)
    image, place = _image(counts, model)
    found = fit_scan(image, model, place, params, CpuBackend(1), free_energies=peak > 2e3)
    assert (found.status == CONVERGED).mean() > 0.99
    good = found.status[:, 0] == CONVERGED
    low, high = np.sqrt(chi2.ppf([0.0005, 0.9995], good.sum() - 1) / (good.sum() - 1))
    for p in (0, 5, *range(N_LOCAL, N_LOCAL + 3)):
        pulls = ((found.params[:, 0, p] - params[p]) / found.std[:, 0, p])[good]
        assert abs(pulls.mean()) < 0.1 + 3.3 / np.sqrt(N), p
        assert low - 0.05 < pulls.std() < high + 0.05, p
    p_values = goodness_of_fit(found)[found.status == CONVERGED]
    assert 0.4 < p_values.mean() < 0.6


def test_masked_and_missing_channels_cost_information_only(model):
    params = _truth(1.0)
    expected, _ = model_at(model, params)
    random = np.random.default_rng(8)
    counts = random.poisson(expected, (N, expected.size)).astype(float)
    whole = fit_scan(
        *_image(counts, model)[:1], model, _image(counts, model)[1], params, CpuBackend(1), free_energies=True
    )
    holes = random.random(counts.shape) < 0.15
    spoiled = counts.copy()
    spoiled[holes] = np.nan
    image, place = _image(spoiled, model)
    by_nan = fit_scan(image, model, place, params, CpuBackend(1), free_energies=True)
    wild = np.where(holes, 1e9, counts)
    image, place = _image(wild, model, bad=holes[:, None, :])
    by_mask = fit_scan(image, model, place, params, CpuBackend(1), free_energies=True)
    np.testing.assert_array_equal(by_nan.params, by_mask.params)
    np.testing.assert_array_equal(by_nan.std, by_mask.std)
    free = model.free(True) == 1
    assert (by_nan.std[..., free] > 0.99 * whole.std[..., free]).all()
    np.testing.assert_array_equal(by_nan.n_channels[:, 0], (~holes).sum(axis=1))
    pulls = (by_nan.energies() - params[N_LOCAL + 3 : N_LOCAL + 6]) / by_nan.energies(by_nan.std)
    assert np.abs(pulls.mean(axis=(0, 1))).max() < 3.3 / np.sqrt(N)
    assert np.abs(pulls.std(axis=(0, 1)) - 1.0).max() < 0.15


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan])
def test_spectra_without_counts_are_told_and_touch_nobody(model, value):
    params = _truth(1.0)
    expected, _ = model_at(model, params)
    counts = np.random.default_rng(9).poisson(expected, (6, expected.size)).astype(float)
    image, place = _image(counts, model)
    before = fit_scan(image, model, place, params, CpuBackend(1), free_energies=True, profile_below=10.0)
    counts[2] = value
    image, place = _image(counts, model)
    after = fit_scan(image, model, place, params, CpuBackend(1), free_energies=True, profile_below=10.0)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(after.params[others], before.params[others])
    np.testing.assert_array_equal(after.intervals[others], before.intervals[others])
    status = STATUS_MEANINGS[after.status[2, 0]]
    assert status in ("no_data", "singular", "max_iterations", "at_bound", "converged")
    seen = after.areas()[2, 0] > 3.0 * after.areas(after.std)[2, 0]
    assert not seen.any(), status
    assert (after.interval_kind[2] == 0).all()
