"""Weighted PCA and slice-wise BM3D."""

import sys
from types import ModuleType

import numpy as np
import pytest

from phonon_eels.config.settings import Denoise
from phonon_eels.errors import ConfigError, DataError
from phonon_eels.spectrum_image import NoiseModel, SpectrumImage
from phonon_eels.steps.bm3d_slices import slice_noise
from phonon_eels.steps.denoise import denoise
from tests.unit.steps.classic_scans import axis, context_of, elastic, image_of, phonons


def two_component_mean(rows: int = 16, columns: int = 20, height: float = 200.0) -> tuple[np.ndarray, SpectrumImage]:
    energy = axis(dispersion_mev=3.0)
    share = np.linspace(0.0, 1.0, columns)[None, :, None] * np.ones((rows, 1, 1))
    tail = elastic(energy.energies_mev, 1e4) + 3.0
    mean = tail + share * phonons(energy.energies_mev, height)
    counts = np.random.default_rng(9).poisson(mean)
    return mean, image_of(counts.astype(np.uint16), energy)


def test_rank_is_that_of_the_truth_and_the_noise_goes() -> None:
    mean, image = two_component_mean()
    result = denoise(image, Denoise(method="pca"), context_of())
    assert result.summary["rank"] == 2
    before, after = np.asarray(image.counts) - mean, np.asarray(result.image.counts) - mean
    weight = 1.0 / mean
    assert (weight * after**2).mean() < 0.1 * (weight * before**2).mean()
    assert result.image.noise.denoised
    assert any("correlated" in message for message in result.messages)
    assert 0.0 < result.summary["effective_degrees_of_freedom"] < image.counts.size


@pytest.mark.statistics
def test_variance_is_about_that_of_the_residual() -> None:
    mean, image = two_component_mean()
    result = denoise(image, Denoise(method="pca"), context_of())
    error = (np.asarray(result.image.counts) - mean) ** 2
    assert error.mean() / np.asarray(result.image.variance).mean() == pytest.approx(1.0, abs=0.3)


def test_pure_noise_has_no_component() -> None:
    counts = np.random.default_rng(10).poisson(np.full((20, 20, 60), 30.0))
    energy = axis(dispersion_mev=5.0)
    flat = counts - 30.0  # mean taken off: nothing but noise is left
    image = image_of(flat, energy, variance=np.full(flat.shape, 30.0))
    result = denoise(image, Denoise(method="pca"), context_of())
    assert result.summary["rank"] == 1
    assert any("no component" in message for message in result.messages)


def test_given_number_of_components() -> None:
    _, image = two_component_mean(6, 5)
    result = denoise(image, Denoise(method="pca", components=4), context_of())
    assert result.summary["rank"] == 4
    assert result.summary["rank_chosen_by"] == "given"
    full = denoise(image, Denoise(method="pca", components=100), context_of())
    assert np.asarray(full.image.counts) == pytest.approx(np.asarray(image.counts), abs=0.05)


def test_dark_level_is_kept() -> None:
    _, image = two_component_mean()
    dark = image.with_(counts=image.counts + 500, noise=NoiseModel(dark_level=500.0))
    plain = np.asarray(denoise(image, Denoise(method="pca"), context_of()).image.counts)
    assert np.asarray(denoise(dark, Denoise(method="pca"), context_of()).image.counts) == pytest.approx(
        plain + 500.0, abs=0.05
    )


def test_missing_spectra_stay_missing_and_spoil_nothing() -> None:
    mean, image = two_component_mean()
    counts = image.counts.astype(float)
    counts[3, 4] = np.nan
    result = denoise(image.with_(counts=counts), Denoise(method="pca"), context_of())
    after = np.asarray(result.image.counts)
    assert np.isnan(after[3, 4]).all()
    after[3, 4] = mean[3, 4]
    assert np.isfinite(after).all()
    assert any("1 spectra are not finite" in message for message in result.messages)


def moved_out(image: SpectrumImage, rng: np.random.Generator) -> np.ndarray:
    """What alignment leaves: every spectrum lacks up to four channels at either end."""
    counts = np.array(image.counts, dtype=float)
    for row in counts:
        for spectrum in row:
            low, high = rng.integers(0, 5, 2)
            spectrum[:low] = np.nan
            spectrum[len(spectrum) - high :] = np.nan
    return counts


@pytest.mark.parametrize("method", ["pca", "nmf"])
def test_channels_that_alignment_moved_out_stay_missing_and_the_others_are_denoised(method: str) -> None:
    """A resampled scan: not one spectrum is finite at all channels."""
    mean, image = two_component_mean()
    counts = moved_out(image, np.random.default_rng(12))
    counts[3, 4] = np.nan  # and one without a zero-loss peak
    counts[2, 2, 60] = np.nan  # and one with a hole
    variance = np.where(np.isfinite(counts), np.maximum(mean, 1.0), np.nan)
    given = image.with_(counts=counts, variance=variance)
    result = denoise(given, Denoise(method=method, components=2), context_of())
    after = np.asarray(result.image.counts)
    assert np.array_equal(np.isnan(after), np.isnan(counts))
    ends = np.r_[0:4, after.shape[2] - 4 : after.shape[2]]
    assert np.array_equal(after[..., ends], counts[..., ends].astype(np.float32), equal_nan=True)
    assert np.array_equal(after[2, 2], counts[2, 2].astype(np.float32), equal_nan=True)
    used = np.ones(counts.shape, bool)
    used[3, 4] = used[2, 2] = False
    used[..., ends] = False
    before, left = ((values - mean)[used] ** 2 / mean[used] for values in (counts, after))
    assert left.mean() < 0.15 * before.mean()
    spread = np.asarray(result.image.variance)
    assert spread[..., ends] == pytest.approx(variance[..., ends].astype(np.float32), nan_ok=True)
    assert any("8 channels at the ends of the axis" in message for message in result.messages)
    assert any("2 spectra are not finite" in message for message in result.messages)
    whole = image.with_(counts=moved_out(image, np.random.default_rng(12)), variance=variance)
    tried = denoise(whole, Denoise(method=method, components=2), context_of()).tables["injected_peak"]
    assert len(tried) == 1
    assert abs(tried["position_bias_mev"].iloc[0]) < 1.0


def test_missing_positions_do_not_keep_bm3d_from_its_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("bm3d")
    package.bm3d = lambda slice_, sigma: np.full_like(slice_, slice_.mean())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bm3d", package)
    _, image = two_component_mean()
    counts = moved_out(image, np.random.default_rng(13))
    counts[3, 4] = np.nan
    after = np.asarray(denoise(image.with_(counts=counts), Denoise(method="bm3d"), context_of()).image.counts)
    assert np.array_equal(np.isnan(after), np.isnan(counts))
    assert np.nanstd(after[:, :, 60]) == pytest.approx(0.0, abs=1e-3)


def test_nothing_finite() -> None:
    _, image = two_component_mean(2, 2)
    with pytest.raises(DataError, match="at least two finite spectra"):
        denoise(image.with_(counts=np.full(image.shape, np.nan)), Denoise(method="pca"), context_of())


def test_off() -> None:
    _, image = two_component_mean(2, 2)
    result = denoise(image, Denoise(), context_of())
    assert result.image is None
    assert "denoise.method is none" in result.skipped


def test_bm3d_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    _, image = two_component_mean()
    with pytest.raises(ConfigError, match="needs the Python package bm3d"):
        denoise(image, Denoise(method="bm3d"), context_of())


def test_bm3d_gets_every_energy_slice_with_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package stands in as a function that says what it was given."""
    calls: list[tuple[tuple[int, ...], float]] = []

    def smoother(slice_: np.ndarray, sigma: float) -> np.ndarray:
        calls.append((slice_.shape, sigma))
        assert slice_.min() == pytest.approx(0.0)
        assert slice_.max() == pytest.approx(255.0)
        return np.full_like(slice_, slice_.mean())

    package = ModuleType("bm3d")
    package.bm3d = smoother  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bm3d", package)
    mean, image = two_component_mean()
    result = denoise(image, Denoise(method="bm3d"), context_of())
    smoothed = np.asarray(result.image.counts)
    assert smoothed[0, 0] == pytest.approx(np.asarray(image.counts).mean(axis=(0, 1)), rel=1e-4)
    # Once for the result, four times for what the method does to a peak and to noise.
    assert [shape for shape, _ in calls] == [(16, 20)] * (5 * mean.shape[2])
    single = [sigma for _, sigma in calls]
    calls.clear()
    np.asarray(denoise(image, Denoise(method="bm3d", strength=2.0), context_of()).image.counts)
    assert sorted(sigma for _, sigma in calls) == pytest.approx(sorted(2.0 * sigma for sigma in single))
    assert result.image.noise.denoised
    with pytest.raises(ConfigError, match="at least 8 rows and columns"):
        denoise(two_component_mean(4, 20)[1], Denoise(method="bm3d"), context_of())


def test_noise_of_a_slice_is_that_of_its_fast_part() -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    wave = 10.0 * np.sin(2.0 * np.pi * columns / 32.0)
    noise = np.random.default_rng(11).normal(0.0, 3.0, (64, 64))
    assert slice_noise(wave + 0.0 * rows) == pytest.approx(0.0, abs=1e-9)
    # White noise has 84 % of its power above the limit: the recipe's √2 makes 3 into 3.9.
    assert slice_noise(wave + noise) == pytest.approx(np.sqrt(2.0) * 3.0 * np.sqrt(1.0 - 0.05 * np.pi), rel=0.05)
