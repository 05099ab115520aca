"""Several scans of one specimen."""

import numpy as np
import pytest
from scipy.stats import binom

from phonon_eels.lattice.inference import antiphase_and_inphase
from phonon_eels.lattice.pooling import ScanUnits, pool_scans


def scan(random, n, amplitude=0.0, common=(0.0, 0.0), inphase=0.0, noise=1.0):
    sign = np.resize([1.0, -1.0], n)
    values = noise * random.normal(size=(n, 2)) + [amplitude, 0.0] + np.asarray(common)
    return ScanUnits(values + inphase * sign[:, None], sign, np.full(n, noise**2))


def test_one_scan_is_the_test_of_a_scan():
    one = scan(np.random.default_rng(1), 8, 2.0)
    pooled = pool_scans([one], 6)
    alone = antiphase_and_inphase(one.values, one.sign)[0]
    assert pooled.mean.p_value == alone.p_value
    np.testing.assert_array_equal(pooled.mean.value, alone.value)
    assert np.isnan(pooled.between_std)


def test_scans_of_two_planes_are_pooled_and_few_planes_are_not_testable():
    random = np.random.default_rng(2)
    scans = [scan(random, 2, 8.0) for _ in range(5)]
    found = pool_scans(scans, 6)
    assert found.n_units == 10
    assert found.mean.p_value < 0.01
    assert found.mean.interval(0.95)[0] < 8.0 < found.mean.interval(0.95)[1]
    few = pool_scans(scans[:2], 6)
    assert np.isnan(few.mean.p_value)
    assert few.scans_needed == 3
    assert np.isfinite(few.mean.amplitude)


def test_what_is_equal_in_all_planes_of_a_scan_does_not_enter():
    quiet = [scan(np.random.default_rng(3 + k), 4, 1.0) for k in range(3)]
    drifted = [ScanUnits(s.values + 50.0 * (k + 1) * s.sign[:, None], s.sign, s.variance) for k, s in enumerate(quiet)]
    np.testing.assert_allclose(pool_scans(drifted, 6).scan_values, pool_scans(quiet, 6).scan_values, atol=1e-12)


def test_scans_that_disagree_are_noticed():
    random = np.random.default_rng(4)
    scans = [scan(random, 8, common=(c, 0.0)) for c in (0.0, 5.0, 10.0, 15.0)]
    found = pool_scans(scans, 6)
    assert found.heterogeneity_p < 1e-3
    assert 3.0 < found.between_std < 12.0
    # Planes as units would have said that 7.5 meV are sure; the scans' own scatter does not.
    assert found.mean.p_value > 1e-4
    np.testing.assert_allclose(found.scan_weight.sum(), 1.0)


def test_a_noisier_scan_weighs_less():
    random = np.random.default_rng(5)
    found = pool_scans([scan(random, 6, noise=0.1), scan(random, 6, noise=3.0), scan(random, 6, noise=0.1)], 6)
    assert found.scan_weight[1] < 0.1


def test_no_scan_gives_no_number():
    found = pool_scans([], 6)
    assert np.isnan(found.mean.value).all()
    assert found.n_units == 0


@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("planes", [(2, 2, 2), (4, 6), (2, 4, 6, 8)])
def test_false_positives_of_pooled_scans(planes, between):
    random = np.random.default_rng(sum(planes))
    hits = sum(
        pool_scans([scan(random, n, common=between * random.normal(size=2)) for n in planes], 6).mean.p_value < 0.05
        for _ in range(250)
    )
    assert hits <= binom.ppf(0.99, 250, 0.05), hits / 250
