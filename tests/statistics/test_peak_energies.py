"""Peak energies of the forward fit over many simulated spectra: bias, pulls, coverage.

The truth comes from the simulator, whose forward model is written apart from the fitted one. Modes are farther apart
than the resolution, so no prior stands on their energies.
"""

import numpy as np
import pytest
from scipy.stats import binom, chi2

from tests.unit.forward.spectra import SEPARATED, fit, material_of, model_of, simulated

pytestmark = pytest.mark.statistics
MATERIAL = material_of(*SEPARATED)
WANDER = {"width_wander": 0.03, "tail_wander": 0.01}
PRIORS = {"log_width_std": 0.03, "tail_std": 0.014}
"""As wide as the truth wanders; the simulator moves both tails together, the prior takes them for independent: times √2."""


def pulls_of(rows, columns, seed, gain, read, wander=WANDER, area_e=5e3, **priors):
    """Return pulls (spectra, modes) and the number of spectra that could not be fitted."""
    simulation = simulated(
        rows, columns, seed=seed, material=MATERIAL, zero_loss=wander, phonons={"area_e": area_e}, energy={"drift_mev": 1.0, "jitter_mev": 0.1},
        detector={"poisson": True, "gain": gain, "read_noise_e": read},
    )  # fmt: skip
    model = model_of(simulation, MATERIAL, **{**PRIORS, **priors})
    found = fit(simulation, model)
    truth = np.moveaxis(simulation.truth_maps["energy_mev"].values, 0, 2)
    pulls = (found.energies() - truth) / found.energies(found.std)
    good = (found.status == 0) & np.isfinite(pulls).all(axis=2)
    return pulls[good], int((~good).sum())


def check(pulls, names=SEPARATED):
    """Mean within 0.03 and its own error, width within the 99 % limits of chi-squared, coverage within the binomial ones."""
    n = len(pulls)
    low, high = np.sqrt(chi2.ppf([0.005, 0.995], n - 1) / (n - 1))
    for m, name in enumerate(names):
        p = pulls[:, m]
        assert abs(p.mean()) < 0.03 + 2.58 / np.sqrt(n), (name, p.mean())
        assert low - 0.03 < p.std(ddof=1) < high + 0.03, (name, p.std(ddof=1))
        for share, bound in ((0.6827, 1.0), (0.95, 1.959964)):
            inside = np.count_nonzero(np.abs(p) < bound)
            few, many = binom.ppf([0.005, 0.995], n, share)
            assert few <= inside <= many, (name, share, inside / n)


@pytest.mark.parametrize(("gain", "read"), [(0.13, 0.0), (5.0, 4.0)])
def test_pulls_and_coverage(gain, read):
    pulls, failed = pulls_of(20, 25, 1, gain, read)
    assert failed <= 2
    check(pulls)


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "read"), [(0.13, 0.0), (0.13, 4.0), (2.5, 1.0), (5.0, 0.0), (5.0, 4.0)])
def test_pulls_and_coverage_of_five_thousand_spectra(gain, read):
    pulls, failed = pulls_of(50, 100, 2, gain, read)
    assert failed <= 10
    check(pulls)


def test_wrong_gain_shows_in_the_pulls():
    """Poisson on detector numbers instead of electrons: deviations wrong by the root of the gain. The test can fail."""
    from dataclasses import replace

    simulation = simulated(10, 20, material=MATERIAL, detector={"poisson": True, "gain": 5.0})
    wrong = replace(simulation, image=simulation.image.with_(noise=replace(simulation.image.noise, gain=1.0)))
    found = fit(wrong, model_of(simulation, MATERIAL))
    truth = np.moveaxis(simulation.truth_maps["energy_mev"].values, 0, 2)
    assert 1.8 < np.nanstd((found.energies() - truth)[..., 2] / found.energies(found.std)[..., 2]) < 2.7
