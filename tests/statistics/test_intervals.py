"""Intervals at few counts, noise that channels share, p-values and Cramér-Rao bounds, over many spectra of known truth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, chi2, kstest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.forward.information import cramer_rao, fisher_matrix, model_at, sensitivities
from phonon_eels.forward.noise import shared_noise
from phonon_eels.forward.scan import INTERVAL_MEANINGS, Alignment, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.peak_maps import goodness_of_fit
from tests.unit.forward.spectra import SEPARATED, alignment_of, fit, material_of, model_of, simulated

pytestmark = pytest.mark.statistics
MATERIAL = material_of(*SEPARATED)
WANDER = {"width_wander": 0.03, "tail_wander": 0.01}
PRIORS = {"log_width_std": 0.03, "tail_std": 0.014}
"""As in test_peak_energies."""


def _fitted(rows, columns, seed, gain, read, area_e):
    simulation = simulated(
        rows, columns, seed=seed, material=MATERIAL, zero_loss=WANDER, phonons={"area_e": area_e},
        energy={"drift_mev": 1.0, "jitter_mev": 0.1}, detector={"poisson": True, "gain": gain, "read_noise_e": read},
    )  # fmt: skip
    found = fit(simulation, model_of(simulation, MATERIAL, **PRIORS), profile_below=10.0)
    return np.moveaxis(simulation.truth_maps["energy_mev"].values, 0, 2), found


def _check_coverage(truth, found):
    """Each mode at each level within the 99 % binomial limits of the positions that show it."""
    for m in range(truth.shape[2]):
        shown = found.interval_kind[..., m] > 0
        ends, true = found.intervals[..., m, :][shown], truth[..., m][shown]
        assert shown.mean() > 0.99
        assert (ends[:, 2] <= ends[:, 0]).all()
        assert (ends[:, 1] <= ends[:, 3]).all()
        for level, low, high in ((0.682689, 0, 1), (0.95, 2, 3)):
            inside = np.count_nonzero((ends[:, low] <= true) & (true <= ends[:, high]))
            few, many = binom.ppf([0.005, 0.995], shown.sum(), level)
            assert few <= inside <= many, (SEPARATED[m], level, inside / shown.sum())


def test_intervals_cover_at_few_counts():
    """Some 300, 150 and 250 electrons per mode: areas known to 13, 17 and 10 %."""
    truth, found = _fitted(20, 25, 31, 1.0, 0.0, 1e3)
    _check_coverage(truth, found)
    kinds = {INTERVAL_MEANINGS[k] for k in np.unique(found.interval_kind)}
    assert {"fisher", "profile", "open"} <= kinds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "read", "area_e"),
    [(0.13, 0.0, 1e3), (5.0, 4.0, 2e3), (1.0, 4.0, 2e3), (0.13, 4.0, 5e3), (5.0, 0.0, 2e4)],
)
def test_intervals_of_five_thousand_spectra(gain, read, area_e):
    _check_coverage(*_fitted(50, 100, 32, gain, read, area_e))


def test_profile_interval_is_the_fisher_interval_where_counts_are_many():
    """Forced everywhere at 30,000 electrons per mode: both agree, so nothing jumps where one takes over from the other."""
    simulation = simulated(4, 5, material=MATERIAL, phonons={"area_e": 1e5}, detector={"poisson": True})
    model = model_of(simulation, MATERIAL, **PRIORS)
    profile, fisher = (fit(simulation, model, profile_below=below) for below in (1e9, 0.0))
    assert (profile.interval_kind == 2).all()
    assert (fisher.interval_kind == 1).all()
    std = fisher.energies(fisher.std)[..., None]
    assert np.abs((profile.intervals - fisher.intervals) / std).max() < 0.05
    np.testing.assert_array_equal(profile.params, fisher.params)


def test_interval_ends_where_the_objective_has_risen_by_its_level():
    simulation = simulated(2, 5, seed=4, material=MATERIAL, phonons={"area_e": 1e3}, detector={"poisson": True})
    model = model_of(simulation, MATERIAL, **PRIORS)
    found = fit(simulation, model, profile_below=1e9)
    closed = found.interval_kind == 2
    assert closed.sum() > 15
    for end, level in ((0, 1.0), (1, 1.0), (2, 1.959964), (3, 1.959964)):
        for m in range(3):
            start = found.params.copy()
            start[..., N_LOCAL + 3 + m] = found.intervals[..., m, end]
            free = np.ones((2, 5, 3), bool)
            free[..., m] = False
            start = np.where(closed[..., m, None], start, found.params)
            held = fit_scan(simulation.image, model, alignment_of(simulation), start, CpuBackend(1), free_energies=free)
            rise = np.sqrt(np.maximum(held.objective - found.objective, 0.0))[closed[..., m]]
            assert rise == pytest.approx(np.full(rise.size, level), rel=0.02), (end, m)


def test_interval_of_an_energy_at_its_bound_is_open():
    modes = tuple(
        mode.model_copy(update={"bounds_mev": (73.0, 77.0), "energy_mev": 76.0}) if mode.name == "CuO78" else mode
        for mode in MATERIAL.modes
    )
    simulation = simulated(1, 8, material=MATERIAL, detector={"poisson": True})
    model = model_of(simulation, MATERIAL.model_copy(update={"modes": modes}), **PRIORS)
    found = fit(simulation, model, profile_below=10.0)
    assert (found.interval_kind[..., 2] == INTERVAL_MEANINGS.index("open")).all()
    assert (found.intervals[..., 2, 3] == 77.0).all()
    assert (found.intervals[..., 2, 2] < 77.0).all()


def test_p_values_are_uniform_at_few_and_many_counts():
    for read, area_e in ((0.0, 1e3), (4.0, 1e4)):
        _, found = _fitted(20, 25, 33, 2.0, read, area_e)
        assert kstest(goodness_of_fit(found)[found.status == 0], "uniform").pvalue > 0.005


def test_errors_reach_the_cramer_rao_bound():
    """Root mean square against the bound with all nuisances marginalised; 1.05, and what 1,000 spectra let it scatter."""
    simulation = simulated(
        20, 50, seed=34, material=MATERIAL, zero_loss=WANDER, phonons={"area_e": 1e4}, detector={"poisson": True}
    )
    model = model_of(simulation, MATERIAL, **PRIORS)
    truth = np.moveaxis(simulation.truth_maps["energy_mev"].values, 0, 2)
    found = fit(simulation, model)
    held = fit(simulation, model, free_energies=False, profile=True)
    bound = cramer_rao(held)
    highest = np.sqrt(chi2.ppf(0.995, 1000) / 1000)
    for m in range(3):
        pulls = (found.energies() - truth)[..., m] / bound.energy_mev[..., m]
        assert np.sqrt(np.mean(pulls**2)) < 1.05 * highest
        assert np.median(found.energies(found.std)[..., m] / bound.energy_mev[..., m]) == pytest.approx(1.0, abs=0.02)
        areas = found.areas(found.std)[..., m] / bound.area_e[..., m]
        assert np.median(areas) == pytest.approx(1.0, abs=0.02)


def test_bound_is_the_inverse_fisher_matrix():
    simulation = simulated(1, 2, material=MATERIAL)
    model = model_of(simulation, MATERIAL, **PRIORS)
    held = fit(simulation, model, free_energies=False, profile=True)
    free = np.flatnonzero(model.free(True))
    whole = np.linalg.inv(fisher_matrix(model, held.params[0, 0])[np.ix_(free, free)])
    energies = np.isin(free, np.arange(N_LOCAL + 3, N_LOCAL + 6))
    bound = cramer_rao(held)
    np.testing.assert_allclose(bound.energy_covariance[0, 0], whole[np.ix_(energies, energies)], rtol=1e-6)
    areas = np.isin(free, np.arange(N_LOCAL, N_LOCAL + 3))
    np.testing.assert_allclose(bound.area_e[0, 0], np.sqrt(np.diag(whole)[areas]), rtol=1e-6)


def test_sensitivities_are_what_wrong_shapes_do():
    """The zero-loss width, then each tail, held 0.2 % off on a noise-free spectrum: the energies move as foretold."""
    simulation = simulated(1, 1, material=MATERIAL)
    model = model_of(simulation, MATERIAL, log_width_std=10.0, tail_std=10.0)
    right = fit(simulation, model)
    foretold = sensitivities(model, right.params[0, 0])
    for k in range(3):
        local = model.free_local.copy()
        local[2 + k] = 0
        start = right.params.copy()
        start[..., 2 + k] += 0.002
        wrong = fit_scan(
            simulation.image, replace(model, free_local=local), alignment_of(simulation), start, CpuBackend(1),
            free_energies=True,
        )  # fmt: skip
        moved = (wrong.energies() - right.energies())[0, 0] / 0.002
        np.testing.assert_allclose(moved, foretold[:, k], rtol=0.05, atol=0.02 * np.abs(foretold[:, k]).max())


def _spread_scan(psf_channels, n=1500, seed=35):
    """Spectra of 3 meV per channel whose electrons the detector spreads, with exactly the model's mean."""
    quiet = simulated(1, 1, material=MATERIAL, energy={"dispersion_mev": 3.0, "channels": 60})
    model = model_of(quiet, MATERIAL, **PRIORS)
    params = np.concatenate([[2e4, 0.3, 0, 0, 0, 20.0, 0, 0], np.full(3, 2e4), [38.0, 57.5, 78.0], np.zeros(3)])
    mean, _ = model_at(model, params)
    half = 5
    edges = (np.arange(-half, half + 2) - 0.5) / (psf_channels / 2.3548)
    from scipy.special import ndtr

    kernel = np.diff(ndtr(edges))
    kernel /= kernel.sum()
    electrons = np.random.default_rng(seed).poisson(mean, (n, mean.size)) - mean
    z = mean + np.apply_along_axis(np.convolve, 1, electrons, kernel, mode="same")
    correlation = 1.0 / float((kernel**2).sum())
    image = SpectrumImage(
        z[:, None, :], EnergyAxis(float(model.energies_mev[0]), 3.0, mean.size),
        (ScanAxis("row", 1.0, n), ScanAxis("column", 1.0, 1)), NoiseModel(noise_correlation=correlation),
    )  # fmt: skip
    place = Alignment(np.full((n, 1), -model.first_channel), np.full((n, 1), 0.3))
    return image, replace(model, noise_correlation=correlation), place, params


@pytest.mark.parametrize("psf_channels", [1.0, 1.8])
def test_deviations_hold_for_noise_that_channels_share(psf_channels):
    image, model, place, params = _spread_scan(psf_channels)
    found = fit_scan(image, model, place, params, CpuBackend(1), free_energies=True)
    naive = fit_scan(image, replace(model, noise_correlation=1.0), place, params, CpuBackend(1), free_energies=True)
    low, high = np.sqrt(chi2.ppf([0.005, 0.995], 1499) / 1499)
    true = params[N_LOCAL + 3 : N_LOCAL + 6]
    for m in range(3):
        width = ((found.energies()[..., m] - true[m]) / found.energies(found.std)[..., m]).std()
        assert low - 0.02 < width < high + 0.02, (m, width)
    # The zero-loss shift sits on flanks of two channels, where shared noise is felt most: the test can fail.
    shift = (found.params[..., 1] - 0.3).std()
    assert low - 0.02 < shift / np.median(found.std[..., 1]) < high + 0.02
    assert shift / np.median(naive.std[..., 1]) < 0.97
    # The fit takes 12 parameters from 44 channels here, and only the mean of what it takes is followed exactly.
    p_values = goodness_of_fit(found)
    assert abs(p_values.mean() - 0.5) < 0.05
    assert abs(p_values.std() - 12.0**-0.5) < 0.04
    assert goodness_of_fit(naive).mean() > 0.75


@pytest.mark.parametrize("correlation", [1.05, 1.7, 3.0])
def test_shared_noise_keeps_the_plateau(correlation):
    lags = shared_noise(correlation)
    assert lags[0] + 2.0 * lags[1:].sum() == pytest.approx(1.0, abs=1e-12)
    assert lags[0] == pytest.approx(1.0 / correlation, rel=1e-3)
    assert (np.diff(lags) < 0.0).all()
    assert shared_noise(1.0).size == 0
