"""Centroid, splitting and area ratio of 38 and 42 meV under a response of 8 meV: pulls and coverage over many spectra."""

import numpy as np
import pytest
from scipy.stats import binom, chi2

from phonon_eels.config import Settings
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.fit_peaks import fit_peaks
from tests.unit.forward.spectra import BI2212, context_of, simulated, with_results

pytestmark = [pytest.mark.statistics, pytest.mark.slow]
TRUTH = {"centroid_mev": 40.0, "splitting_mev": 4.0, "area_ratio": 1.0}
BIAS = 0.1
"""In deviations: what the shared widths of one scan and the second order of the ratio may leave."""
PRIOR_MEV = 1.5


def maps_of(rows, columns, area_e, seed):
    """Return the maps of `fit_peaks` over a scan whose positions all see the same modes."""
    scan = simulated(
        rows, columns, seed=seed, zero_loss={"fwhm_mev": 8.0, "width_wander": 0.01}, phonons={"area_e": area_e},
        energy={"jitter_mev": 0.1}, detector={"poisson": True, "gain": 2.5, "read_noise_e": 1.0},
    )  # fmt: skip
    context = context_of(BI2212, 2)
    context = with_results(context, align_zlp=align_zlp(scan.image, Settings().align_zlp, context))
    return fit_peaks(scan.image, Settings().fit_peaks, context).maps.isel(pair=0)


@pytest.fixture(scope="module")
def maps():
    return maps_of(30, 40, 3e5, 11)


@pytest.mark.parametrize("name", list(TRUTH))
def test_pulls_and_coverage(maps, name):
    assert (maps["pair_status"] == 0).mean() > 0.99
    pulls = ((maps[name] - TRUTH[name]) / maps[f"{name}_std"]).values
    pulls = pulls[np.isfinite(pulls)]
    n = pulls.size
    assert n > 0.99 * 1200
    assert abs(pulls.mean()) < BIAS + 2.58 / np.sqrt(n)
    low, high = np.sqrt(chi2.ppf([0.005, 0.995], n - 1) / (n - 1))
    assert low - 0.03 < pulls.std(ddof=1) < high + 0.03
    for share, bound in ((0.6827, 1.0), (0.95, 1.959964)):
        few, many = binom.ppf([0.005, 0.995], n, share)
        assert few - 0.01 * n <= np.count_nonzero(np.abs(pulls) < bound) <= many + 0.01 * n, share


def test_correlations_are_those_of_the_scatter(maps):
    for a, b in (("centroid", "splitting"), ("centroid", "area_ratio"), ("splitting", "area_ratio")):
        names = [name if name == "area_ratio" else f"{name}_mev" for name in (a, b)]
        scatter = np.corrcoef(*[((maps[name] - TRUTH[name]) / maps[f"{name}_std"]).values.ravel() for name in names])[
            0, 1
        ]
        told = float(maps[f"{a}_{b}_correlation"].mean())
        # Fisher's z of n pairs is known to 1/sqrt(n - 3) = 0.029.
        assert abs(np.arctanh(scatter) - np.arctanh(told)) < 2.58 * 0.029 + 0.03, (a, b, scatter, told)


def test_centroid_is_better_known_than_either_energy(maps):
    own = maps["energy_mev_std"].sel(mode=["BiO38", "CuO42"]).min("mode")
    mean = maps["energy_mev"].sel(mode=["BiO38", "CuO42"]).mean("mode")
    assert (maps["centroid_mev_std"] < own).all()
    # The unweighted mean scatters more, too: the data know the weighted one.
    assert float(maps["centroid_mev"].std()) < 0.7 * float(mean.std())


def test_interval_of_the_ratio_at_few_counts():
    faint = maps_of(30, 30, 4e4, 12)
    shown = (faint["area_ratio_status"] <= 2).values
    low, high = (faint[f"area_ratio_{end}"].values[shown] for end in ("low68", "high68"))
    held = ((low < 1.0) & (high > 1.0)).mean()
    assert shown.mean() > 0.9
    few, many = binom.ppf([0.005, 0.995], shown.sum(), 0.6827) / shown.sum()
    # The prior on the energies, at its centre the truth, can only make intervals hold more often.
    assert few - 0.02 <= held <= many + 0.1, held
