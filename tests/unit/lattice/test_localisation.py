"""Width of localisation and constant share from made-up area maps."""

import numpy as np
import pytest

from phonon_eels.lattice.leakage import plane_leakage
from phonon_eels.lattice.localisation import Sources, fit_localisation, total_fwhm_nm
from phonon_eels.units import FWHM_PER_SIGMA

PLANES_NM = np.array([0.3, 0.63, 1.85, 2.18, 3.4, 3.73])
SIGNS = np.array([1.0, -1.0] * 3)
SHAPE = (80, 40)


def _sources(reference=0.22, strength=None):
    c = np.linspace(0.0, 4.0, SHAPE[0])[:, None] + np.zeros(SHAPE)
    distance = np.abs(c[None] - PLANES_NM[:, None, None])
    plane, weight = plane_leakage(
        distance.reshape(6, -1), np.arange(6)[:, None] + np.zeros((6, c.size), int), reference, 0.0
    )
    strength = np.ones(6) if strength is None else np.asarray(strength, float)
    return Sources(plane.reshape(6, *SHAPE), weight.reshape(6, *SHAPE), strength, SIGNS, reference), c


def _truth(c, fwhm, constant, wedge=0.0, strength=1000.0, planes=range(6)):
    sigma = fwhm / FWHM_PER_SIGMA
    parts = np.stack([np.exp(-0.5 * ((c - PLANES_NM[p]) / sigma) ** 2) for p in planes])
    columns = np.linspace(-1.0, 1.0, SHAPE[1])
    local = strength * (1.0 + wedge * columns) * parts
    signed = np.einsum("p,prc->rc", SIGNS[list(planes)], local)
    total = local.sum(axis=0) + constant * (1.0 + wedge * columns)
    return total, signed / total


@pytest.mark.parametrize("fwhm", [0.15, 0.22, 0.35])
@pytest.mark.parametrize("wedge", [0.0, 0.2])
def test_width_and_constant_share(fwhm, wedge):
    sources, c = _sources()
    total, share = _truth(c, fwhm, 100.0, wedge)
    random = np.random.default_rng(0)
    std = np.full(SHAPE, 20.0)
    found = fit_localisation(sources, total + random.normal(0.0, 20.0, SHAPE), std, 0.22, 0.2)
    assert abs(found.fwhm_nm - fwhm) < 4.0 * found.fwhm_std_nm
    assert found.fwhm_std_nm < 0.01
    assert found.constant_share == pytest.approx(100.0 / total.mean(), abs=max(4.0 * found.constant_share_std, 1e-3))
    np.testing.assert_allclose(found.signed_share, share, atol=0.05)


def test_deviation_of_the_width_is_right():
    sources, c = _sources()
    total, _ = _truth(c, 0.22, 50.0)
    pulls = []
    for seed in range(40):
        noisy = total + np.random.default_rng(seed).normal(0.0, 100.0, SHAPE)
        found = fit_localisation(sources, noisy, np.full(SHAPE, 100.0), 0.22, 10.0)
        pulls.append((found.fwhm_nm - 0.22) / found.fwhm_std_nm)
    low, high = np.sqrt(np.array([20.7, 66.8]) / 39)  # 99 % of chi-squared with 39 degrees of freedom
    assert low < np.std(pulls, ddof=1) < high
    assert abs(np.mean(pulls)) < 3.0 / np.sqrt(40)


def test_at_the_plane_the_share_is_that_of_the_plane():
    sources, c = _sources()
    found = fit_localisation(sources, _truth(c, 0.22, 0.0)[0], np.ones(SHAPE), 0.22, 0.1)
    for plane, sign in zip(PLANES_NM, SIGNS, strict=True):
        row = int(np.argmin(np.abs(c[:, 0] - plane)))
        assert found.signed_share[row].mean() * sign > 0.98
    between = int(np.argmin(np.abs(c[:, 0] - 0.5 * (PLANES_NM[0] + PLANES_NM[1]))))
    assert abs(found.signed_share[between].mean()) < 0.2


def test_constant_part_lowers_the_share():
    sources, c = _sources()
    row = int(np.argmin(np.abs(c[:, 0] - PLANES_NM[2])))
    shares = [
        fit_localisation(sources, _truth(c, 0.22, k)[0], np.ones(SHAPE), 0.22, 0.1).signed_share[row].mean()
        for k in (0.0, 300.0)
    ]
    assert shares[1] == pytest.approx(shares[0] * 1000.0 / 1300.0, rel=0.01)


def test_planes_without_the_mode_count_for_nothing():
    sources, c = _sources(strength=[1, 1, 0, 0, 1, 1])
    total, _ = _truth(c, 0.22, 20.0, planes=(0, 1, 4, 5))
    found = fit_localisation(sources, total, np.ones(SHAPE), 0.22, 0.1)
    row = int(np.argmin(np.abs(c[:, 0] - PLANES_NM[2])))
    assert np.abs(found.signed_share[row]).max() < 0.01
    assert found.fwhm_nm == pytest.approx(0.22, abs=0.003)


def test_missing_positions_are_left_out():
    sources, c = _sources()
    total, _ = _truth(c, 0.22, 50.0)
    std = np.ones(SHAPE)
    total[::5], std[:, ::7] = np.nan, 0.0
    found = fit_localisation(sources, total, std, 0.22, 0.1)
    assert found.fwhm_nm == pytest.approx(0.22, abs=0.002)
    assert np.isfinite(found.signed_share).all()


def test_without_a_profile_the_prior_stays():
    sources, _ = _sources()
    noise = np.random.default_rng(0).normal(0.0, 1.0, SHAPE)
    found = fit_localisation(sources, 1000.0 + noise, np.ones(SHAPE), 0.22, 0.01)
    assert found.fwhm_nm == pytest.approx(0.22, abs=0.03)
    assert found.constant_share > 0.99
    assert np.abs(found.signed_share).max() < 0.02


def test_widths_add_in_quadrature():
    assert total_fwhm_nm(0.3, 0.4) == pytest.approx(0.5)
