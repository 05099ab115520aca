"""The fit of the mean spectrum."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.recipe import width_groups
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, alignment_of, material_of, simulated

MATERIAL = material_of(*SEPARATED)
START = ZeroLossShape(7.2, 1.5, 2.0)


def _fit(simulation, **changes):
    image = simulation.image
    channels = np.arange(-90, 211)
    one = np.ones((1, *image.shape[:2]))
    total, squares = aligned_sums(image, alignment_of(simulation), -90, channels.size, one, CpuBackend(1))
    n = one.sum()
    settings = Settings().fit_peaks.model_copy(update=changes)
    model = MeanModel(settings, MATERIAL, channels, 0.5, START, thermal_energy_mev(293.0))
    return fit_mean(model, total[0] / n, squares[0] / n**2)


def test_width_groups():
    free = Settings().fit_peaks
    assert width_groups(("a", "b", "c"), [], free) == [0, 1, 2]
    assert width_groups(("a", "b", "c"), [("a", "c")], free) == [0, 1, 0]
    assert width_groups(("a", "b"), [("a", "x")], free) == [0, 1]
    tied = free.model_copy(update={"same_fwhm": (("b", "c"),), "fixed_fwhm_mev": {"d": 3.0}})
    assert width_groups(("a", "b", "c", "d"), [("a", "b")], tied) == [0, 0, 0, -1]
    assert width_groups(("a", "b", "c", "d"), [("a", "d")], tied) == [0, 1, 1, -1]


@pytest.fixture(scope="module")
def found():
    return _fit(simulated(4, 4, material=MATERIAL, phonons={"area_e": 8e3, "background_e_per_mev": 4.0}))


def test_shape_energies_widths_and_areas_come_back(found):
    np.testing.assert_allclose(found.energies_fit_mev, [38.0, 57.5, 78.0], atol=0.05)
    np.testing.assert_allclose(found.fwhm_mev, [4.0, 4.5, 4.5], rtol=0.05)
    shape = found.zero_loss
    np.testing.assert_allclose([shape.fwhm_mev, shape.tail_loss, shape.tail_gain], [7.5, 1.6, 1.9], rtol=0.01)
    assert found.constant_e == pytest.approx(2.0, rel=0.15)
    assert found.chi2_per_dof < 0.1
    assert found.starts().size == 8 + 9


def test_the_width_of_the_zero_loss_peak_scatters_by_its_deviation(found):
    random = np.random.default_rng(3)
    variance = found.model_e / 4.0
    model = MeanModel(Settings().fit_peaks, MATERIAL, np.arange(-90, 211), 0.5, START, thermal_energy_mev(293.0))
    pulls = []
    for _ in range(24):
        fit = fit_mean(model, random.normal(found.model_e, np.sqrt(variance)), variance)
        pulls.append((fit.zero_loss.fwhm_mev - found.zero_loss.fwhm_mev) / fit.zlp_fwhm_std_mev)
    # 99.8 % limits of chi-squared; a third of the told variance is the model error, which these draws do not have.
    assert 0.47 < np.sqrt(np.mean(np.square(pulls))) < 1.47
    assert found.zlp_fwhm_std_mev == pytest.approx(0.009, rel=0.1)


def test_without_a_zero_loss_peak_its_width_has_no_deviation():
    model = MeanModel(Settings().fit_peaks, MATERIAL, np.arange(40, 211), 0.5, None, None)
    spectrum = 5.0 + sum(
        np.exp(-0.5 * ((model.energies_mev - mode.energy_mev) / 2.0) ** 2) * 50.0 for mode in MATERIAL.modes
    )
    assert np.isnan(fit_mean(model, spectrum, spectrum).zlp_fwhm_std_mev)


def test_components_add_up(found):
    np.testing.assert_allclose(sum(found.components_e.values()), found.model_e, rtol=1e-10)
    assert set(found.components_e) == {"background", "zlp", *SEPARATED}


def test_background_may_be_left_out():
    simulation = simulated(3, 3, material=MATERIAL, phonons={"background_e_per_mev": 0.0})
    assert _fit(simulation, background="none").constant_e == 0.0


def test_mode_that_is_not_there_gets_no_negative_area():
    simulation = simulated(
        4, 4, material=MATERIAL, phonons={"relative_areas": {"BiO57": 0.0}}, detector={"poisson": True}
    )
    assert (_fit(simulation).areas_e >= 0.0).all()
