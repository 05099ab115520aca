"""A zero-loss peak measured in vacuum: its shape, the bias it takes away, and what its own noise leaves."""

import json

import numpy as np
import pytest
from scipy.stats import chi2

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.forward.information import vacuum_deviations
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.model import build_forward_model, describe, model_from_description
from phonon_eels.forward.scan import fit_scan
from phonon_eels.forward.vacuum import fit_vacuum
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, alignment_of, material_of, simulated, true_params

MATERIAL = material_of(*SEPARATED)
SKIRTS = {"shape": "gaussian_exponential", "skirt_share": 0.05, "electrons": 2e5}
SETTINGS = Settings().fit_peaks
THERMAL = thermal_energy_mev(293.0)
GUESS = ZeroLossShape(7.5, 2.0, 2.0)


def _scene(area_e, **changes):
    return simulated(1, 1, material=MATERIAL, zero_loss={**SKIRTS, **changes}, phonons={"area_e": area_e})


def _window(simulation):
    zero = int(alignment_of(simulation).channel[0, 0])
    channels = np.arange(8 - zero, simulation.image.energy.n_channels - 8 - zero)
    return channels, np.asarray(simulation.image.counts[0, 0, zero + channels], dtype=float)


@pytest.fixture(scope="module")
def scene():
    specimen, empty = _scene(5e3), _scene(0.0)
    channels, spectrum = _window(specimen)
    return specimen, channels, spectrum, _window(empty)[1]


def _fit(scene, vacuum):
    """Fit the mean and the one position with a reference or without; return errors of the energies, the fit, the model."""
    specimen, channels, spectrum, _ = scene
    shape = GUESS if vacuum is None else vacuum.shape
    search = MeanModel(SETTINGS, MATERIAL, channels, 0.5, shape, THERMAL, vacuum=vacuum)
    mean = fit_mean(search, spectrum, np.maximum(spectrum, 1.0) / 1000.0)
    model = build_forward_model(
        SETTINGS, MATERIAL, channels, 0.5, mean.zero_loss, THERMAL, energies_mev=mean.energies_fit_mev,
        fwhm_mev=np.array([mode.fwhm_mev for mode in MATERIAL.modes]), vacuum=vacuum,
    )  # fmt: skip
    start = mean.starts()
    found = fit_scan(
        specimen.image, model, alignment_of(specimen), start, CpuBackend(1), free_energies=True, max_iterations=100
    )
    return found.energies()[0, 0] - specimen.truth_maps["energy_mev"].values[:, 0, 0], found, model


def test_vacuum_takes_the_bias_of_a_wrong_shape_away(scene):
    _, channels, _, empty = scene
    reference = fit_vacuum(channels * 0.5, 1000.0 * empty, np.maximum(1000.0 * empty, 1.0), GUESS)
    without, poor, _ = _fit(scene, None)
    measured, good, _ = _fit(scene, reference)
    assert abs(without[0]) > 0.4
    assert np.abs(measured).max() < 0.25 * np.abs(without).max()
    assert np.abs(measured / good.energies(good.std)[0, 0]).max() < 0.5
    assert good.pearson_chi2[0, 0] < 0.1 * poor.pearson_chi2[0, 0]


def test_own_shape_needs_no_factor():
    simulation = _scene(0.0, shape="split_pearson7")
    channels, empty = _window(simulation)
    reference = fit_vacuum(channels * 0.5, empty, np.maximum(empty, 1.0), GUESS)
    energies = np.linspace(-40.0, 100.0, 50)
    np.testing.assert_allclose(reference.factor(energies), 1.0, atol=0.02)
    assert reference.shape.fwhm_mev == pytest.approx(7.5, abs=0.05)


def test_noise_of_the_vacuum_is_told(scene):
    """Many vacuum measurements of twice the spectrum's electrons: the energies scatter as foretold."""
    specimen, channels, _, empty = scene
    random = np.random.default_rng(3)
    moved, told = [], []
    for _ in range(24):
        noisy = random.poisson(2.0 * empty).astype(float)
        reference = fit_vacuum(channels * 0.5, noisy, np.maximum(noisy, 1.0), GUESS)
        model = build_forward_model(SETTINGS, MATERIAL, channels, 0.5, reference.shape, THERMAL, vacuum=reference)
        start = true_params(specimen, model)
        start[..., 0], start[..., 2:5] = empty.max(), 0.0
        found = fit_scan(specimen.image, model, alignment_of(specimen), start, CpuBackend(1), free_energies=True)
        moved.append(found.energies()[0, 0])
        told.append(vacuum_deviations(model, found.params[0, 0]))
    ratio = np.std(moved, axis=0, ddof=1) / np.mean(told, axis=0)
    low, high = np.sqrt(chi2.ppf([0.001, 0.999], 23) / 23)
    assert (ratio > 0.8 * low).all(), ratio
    assert (ratio < 1.2 * high).all(), ratio


def test_description_keeps_the_reference(scene):
    _, channels, _, empty = scene
    reference = fit_vacuum(channels * 0.5, empty, np.maximum(empty, 1.0), GUESS)
    model = build_forward_model(SETTINGS, MATERIAL, channels, 0.5, reference.shape, THERMAL, vacuum=reference)
    again = model_from_description(json.loads(json.dumps(describe(model, SETTINGS, THERMAL))), MATERIAL)
    np.testing.assert_array_equal(again.factor, model.factor)
    np.testing.assert_array_equal(again.tables.values, model.tables.values)
    assert again.free(True).size == N_LOCAL + 9


@pytest.mark.slow
@pytest.mark.parametrize("times", [0.2, 1.0])
def test_scatter_grows_as_the_electrons_say_and_pulls_are_one(times):
    """Specimen and vacuum counted anew each time: a reference of few electrons adds its share, and the deviation holds it."""
    specimen, empty_scan = (_scene(area, shape="split_pearson7", electrons=4e6) for area in (8e3, 0.0))
    channels, spectrum = _window(specimen)
    empty = _window(empty_scan)[1]
    truth = specimen.truth_maps["energy_mev"].values[:, 0, 0]
    zero = int(alignment_of(specimen).channel[0, 0])
    random = np.random.default_rng(11)
    errors, own, whole = [], [], []
    for _ in range(40):
        noisy = random.poisson(times * empty).astype(float)
        reference = fit_vacuum(channels * 0.5, noisy, np.maximum(noisy, 1.0), GUESS)
        model = build_forward_model(SETTINGS, MATERIAL, channels, 0.5, reference.shape, THERMAL, vacuum=reference)
        start = true_params(specimen, model)
        start[..., 0], start[..., 2:5] = empty.max(), 0.0
        counts = np.array(specimen.image.counts)
        counts[0, 0, zero + channels] = random.poisson(spectrum)
        image = specimen.image.with_(counts=counts)
        found = fit_scan(image, model, alignment_of(specimen), start, CpuBackend(1), free_energies=True)
        errors.append(found.energies()[0, 0] - truth)
        own.append(found.energies(found.std)[0, 0])
        whole.append(np.hypot(own[-1], vacuum_deviations(model, found.params[0, 0])))
    pulls = np.array(errors) / np.array(whole)
    grown = np.sqrt((np.array(whole) ** 2).mean(axis=0)) / np.sqrt((np.array(own) ** 2).mean(axis=0))
    low, high = np.sqrt(chi2.ppf([0.001, 0.999], 40) / 40)
    assert (np.abs(pulls.mean(axis=0)) < 3.3 / np.sqrt(40)).all(), pulls.mean(axis=0)
    assert (pulls.std(axis=0) > low).all(), pulls.std(axis=0)
    assert (pulls.std(axis=0) < high).all(), pulls.std(axis=0)
    observed = np.std(errors, axis=0) / np.mean(own, axis=0)
    assert (observed > low * grown).all(), (observed, grown)
    assert (observed < high * grown).all(), (observed, grown)
    # A reference taken channel by channel would cost the whole root; splines average it over channels.
    assert (grown < np.sqrt(1.0 + 1.0 / times)).all(), grown
    assert grown.max() > (1.4 if times < 0.5 else 1.1)
