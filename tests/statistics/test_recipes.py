"""Pulls of tied energies and of the four line shapes through the response; run as a program it prints the figures."""

import numpy as np
import pytest
from scipy.stats import chi2

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.config.recipe import FixedSeparation
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.scan import fit_scan
from phonon_eels.kernels.likelihood import CONVERGED
from tests.unit.forward import shape_scenes as scenes

SEED, ROWS, COLUMNS = 71, 40, 60
TIES = (
    FixedSeparation(mode="BiO57", from_mode="BiO38", separation_mev=float(scenes.ENERGIES[1] - scenes.ENERGIES[0])),
)
MEAN_DRAWS = 24


def pulls(shape, ties):
    """Return pulls of all energies, (positions, modes), of counted spectra."""
    random = np.random.default_rng(SEED)
    counts = random.poisson(scenes.expected(shape), (ROWS, COLUMNS, scenes.N)).astype(float)
    image, place = scenes.image_of(counts)
    model = scenes.model_of(shape, fixed_separation_mev=ties)
    fit = fit_scan(image, model, place, scenes.starts(model), CpuBackend(1), free_energies=True)
    assert (fit.status == CONVERGED).mean() > 0.99
    good = fit.status == CONVERGED
    return ((fit.energies() - scenes.ENERGIES) / fit.energies(fit.std))[good]


def limits(n):
    """Return the 99.9 % limits of the mean and of the width of n pulls."""
    return 3.29 / np.sqrt(n), np.sqrt(chi2.ppf([5e-4, 1.0 - 5e-4], n - 1) / (n - 1))


@pytest.mark.slow
@pytest.mark.parametrize("ties", [(), TIES], ids=["free", "tied"])
@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_pulls_have_mean_0_and_width_1(shape, ties):
    found = pulls(shape, ties)
    mean, (low, high) = limits(len(found))
    assert (np.abs(found.mean(axis=0)) < mean).all(), found.mean(axis=0)
    width = found.std(axis=0, ddof=1)
    assert ((width > low) & (width < high)).all(), width
    if ties:
        np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-6)


def share_pulls(shape):
    """Return pulls of the Lorentzian share fitted to mean spectra of 2,000 positions."""
    random, truth, n = np.random.default_rng(SEED), scenes.expected(shape), 2000
    settings = Settings().fit_peaks.model_copy(update={"line_shape": shape})
    channels = scenes.FIRST + np.arange(scenes.N)
    model = MeanModel(settings, scenes.MATERIAL, channels, scenes.DISPERSION, scenes.RESPONSE, scenes.THERMAL)
    told = []
    for _ in range(MEAN_DRAWS):
        mean = random.poisson(n * truth) / n
        fit = fit_mean(model, mean, mean / n)
        told.append((fit.lorentzian_share - scenes.SHARE) / fit.lorentzian_share_std)
    return np.array(told)


@pytest.mark.slow
def test_the_deviation_of_the_share_is_not_too_small():
    """`fit_mean` allows its model 0.3 %, and widths have a prior that pulls: the deviation may be too large, not too small."""
    found = share_pulls("pseudo_voigt")
    found = found[np.isfinite(found)]
    assert len(found) > 0.9 * MEAN_DRAWS
    assert np.sqrt((found**2).mean()) < np.sqrt(chi2.ppf(0.999, len(found)) / len(found))


if __name__ == "__main__":
    for kind in scenes.SHAPES:
        for held in ((), TIES):
            told = pulls(kind, held)
            print(
                kind,
                "tied" if held else "free",
                len(told),
                np.round(told.mean(axis=0), 3),
                np.round(told.std(axis=0, ddof=1), 3),
            )
    shares = share_pulls("pseudo_voigt")
    print(
        "share", np.round(np.sqrt(np.nanmean(shares**2)), 2), np.round(np.nanmean(shares), 2), np.isfinite(shares).sum()
    )
