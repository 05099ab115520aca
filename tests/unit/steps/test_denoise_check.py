"""What the denoisers do to a known peak and to noise, said with every result; NMF and BM4D; no Poisson fit afterwards."""

import sys
from types import ModuleType

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.config.settings import Denoise
from phonon_eels.errors import ConfigError, DataError
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.bm3d_slices import denoise_slices, denoise_volume, expected_minutes
from phonon_eels.steps.denoise import denoise
from phonon_eels.steps.denoise_check import COLUMNS, correlation_length
from phonon_eels.steps.nonnegative import components, nonnegative_shares
from tests.unit.forward.spectra import context_of as forward_context
from tests.unit.forward.spectra import simulated
from tests.unit.steps.classic_scans import axis, context_of, elastic, image_of, phonons


def scan(rows=12, columns=16, seed=9):
    """Two kinds of spectra, mixed along the columns."""
    energy = axis(dispersion_mev=2.0)
    share = np.linspace(0.0, 1.0, columns)[None, :, None] * np.ones((rows, 1, 1))
    mean = elastic(energy.energies_mev, 1e4) + 5.0 + share * phonons(energy.energies_mev, 300.0)
    counts = np.random.default_rng(seed).poisson(mean)
    return mean, image_of(counts.astype(np.uint16), energy)


@pytest.fixture
def fake_bm4d(monkeypatch):
    """A box filter in place of BM4D, which may not be installed with us."""
    from scipy.ndimage import uniform_filter

    package = ModuleType("bm4d")
    package.bm4d = lambda values, level: uniform_filter(values, (3, 3, 5))
    monkeypatch.setitem(sys.modules, "bm4d", package)
    return package


@pytest.mark.parametrize("method", ["pca", "nmf", "bm4d"])
def test_every_method_says_what_it_does(method, fake_bm4d):
    mean, image = scan()
    result = denoise(image, Denoise(method=method), context_of())
    table = result.tables["injected_peak"]
    assert tuple(table.columns) == COLUMNS
    row = table.iloc[0]
    assert abs(row["position_bias_mev"]) < 1.0
    assert 0.0 < row["measured_shift_mev"] < 1.3
    # A box of five channels widens; a low rank keeps the widths of the spectra it was made from.
    ratio = row["fwhm_after_mev"] / row["fwhm_before_mev"]
    assert ratio > 1.1 if method == "bm4d" else 0.8 < ratio < 1.2
    assert result.summary["noise_left"]["value"] < 0.6
    assert result.summary["correlation_length_mev"]["value"] > 0.5 * image.energy.dispersion_mev
    assert result.image.noise.denoised
    assert any("a peak injected at" in message for message in result.messages)
    before, after = np.asarray(image.counts) - mean, np.asarray(result.image.counts) - mean
    assert (after**2 / mean)[..., 45:].mean() < 0.7 * (before**2 / mean)[..., 45:].mean()


def test_a_method_that_does_nothing_changes_nothing():
    _, image = scan(8, 8)
    result = denoise(image, Denoise(method="pca", components=1000), context_of())
    row = result.tables["injected_peak"].iloc[0]
    assert row["position_bias_mev"] == pytest.approx(0.0, abs=0.02)
    assert row["measured_shift_mev"] == pytest.approx(1.0, abs=0.02)
    assert row["area_ratio"] == pytest.approx(1.0, abs=0.01)
    assert result.summary["noise_left"]["value"] == pytest.approx(1.0, abs=0.02)
    assert result.summary["correlation_length_mev"]["value"] < 0.8 * image.energy.dispersion_mev


def test_rank_one_pulls_every_place_to_the_mean():
    _, image = scan()
    row = denoise(image, Denoise(method="pca", components=1), context_of()).tables["injected_peak"].iloc[0]
    assert row["measured_shift_mev"] < 0.8


def test_nmf_finds_the_parts_and_they_are_not_negative():
    mean, image = scan()
    result = denoise(image, Denoise(method="nmf"), context_of())
    assert result.summary["rank"] == 2
    assert result.summary["method"] == "nmf"
    assert 1 <= result.summary["passes"] <= 60
    counts = np.asarray(result.image.counts)
    assert counts.min() >= 0.0
    pca = np.asarray(denoise(image, Denoise(method="pca"), context_of()).image.counts)
    error = [float((((c - mean) ** 2) / mean).mean()) for c in (counts, pca)]
    assert error[0] < 1.5 * error[1]
    again = denoise(image, Denoise(method="nmf"), context_of(threads=3))
    np.testing.assert_array_equal(counts, np.asarray(again.image.counts))
    assert np.isfinite(np.asarray(result.image.variance)).all()


def test_nonnegative_shares_are_least_squares():
    from scipy.optimize import nnls

    rng = np.random.default_rng(3)
    spectra, data = rng.normal(size=(3, 20)), rng.normal(size=(7, 20))
    shares = nonnegative_shares(data @ spectra.T, spectra @ spectra.T)
    for share, values in zip(shares, data, strict=True):
        np.testing.assert_allclose(share, nnls(spectra.T, values)[0], atol=1e-6)


def test_components_of_a_product_are_found():
    rng = np.random.default_rng(4)
    true = np.abs(rng.normal(size=(2, 30))) * (rng.random((2, 30)) > 0.5)
    shares = np.abs(rng.normal(size=(6, 9, 2)))
    data = shares @ true
    principal = np.linalg.svd(data.reshape(-1, 30), full_matrices=False)[2][:2].T
    found, passes = components(lambda function: (function(row) for row in data), principal)
    assert passes <= 60
    assert (found >= 0.0).all()
    rest = [row - nonnegative_shares(row @ found.T, found @ found.T) @ found for row in data]
    assert np.linalg.norm(rest) < 0.02 * np.linalg.norm(data)


def test_correlation_length():
    white = np.random.default_rng(0).normal(size=(20, 30, 200))
    assert correlation_length(white, 2) == pytest.approx(1.0 - np.exp(-1.0), abs=0.05)
    kernel = np.exp(-(np.arange(-60, 61) ** 2) / (2.0 * 5.0**2))
    smooth = np.apply_along_axis(np.convolve, 2, white, kernel, mode="same")
    assert correlation_length(smooth, 2) == pytest.approx(5.0 * 2.0, rel=0.1)  # σ√2 of the filter, then √2 to 1/e
    assert np.isnan(correlation_length(np.zeros((2, 3, 4)), 1))


def test_line_scans_and_what_is_too_small():
    _, image = scan(1, 16)
    result = denoise(image, Denoise(method="pca"), context_of())
    assert result.tables["injected_peak"].empty
    assert any("the scan is too small, or has gaps" in message for message in result.messages)


def test_denoised_spectra_are_not_fitted_as_counts():
    image = simulated(3, 3).image
    marked = image.with_(noise=type(image.noise)(denoised=True))
    with pytest.raises(DataError, match="the spectra were denoised, which correlates their noise"):
        align_zlp(marked, Settings().align_zlp, forward_context())


def test_bm4d_asks_for_its_package(monkeypatch):
    _, image = scan()
    monkeypatch.setitem(sys.modules, "bm4d", None)
    with pytest.raises(
        ConfigError, match=r"needs the Python package bm4d, which is not installed \(its licence allows only"
    ):
        denoise(image, Denoise(method="bm4d"), context_of())


def test_bm4d_needs_room(fake_bm4d):
    with pytest.raises(ConfigError, match="bm4d needs at least 8 rows and columns"):
        denoise(scan(4, 9)[1], Denoise(method="bm4d"), context_of())


@pytest.mark.parametrize(("method", "minutes"), [("bm3d", 13.0), ("bm4d", 0.8)])
def test_what_would_take_too_long_is_refused_before_it_starts(method, minutes, monkeypatch):
    """Without the package: the time is told first."""
    monkeypatch.setitem(sys.modules, method, None)
    image = scan(16, 16)[1]
    told = expected_minutes(method, image.shape)
    assert told == pytest.approx(minutes, rel=0.5)
    with pytest.raises(ConfigError, match=rf"{method} would take about .* denoise\.longest_min = 0\.01; raise that"):
        denoise(image, Denoise(method=method, longest_min=0.01), context_of())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bm3d", "bm4d"])
def test_the_real_package_where_somebody_has_installed_it(method, monkeypatch):
    """Their licences keep them out of the environment: ``pip install phonon-eels[bm3d]``. A few slices; a small cube."""
    pytest.importorskip(method, reason="its licence keeps it out of the environment")
    monkeypatch.setattr("phonon_eels.steps.bm3d_slices.SLICE_BYTES", 1)
    mean, image = scan(8, 12)
    counts, variance = (denoise_slices if method == "bm3d" else denoise_volume)(image, 1.0, context_of())
    place = (slice(None), slice(None), slice(60, 64))
    before, after = (np.asarray(cube[place]) - mean[place] for cube in (image.counts, counts))
    assert np.isfinite(after).all()
    assert (after**2).mean() < 0.5 * (before**2).mean()
    assert (np.asarray(variance[place]) > 0.0).all()
