"""Deconvolution of loss spectra."""

import numpy as np
import pytest

from phonon_eels.config.settings import Deconvolve
from phonon_eels.errors import DataError
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import EnergyAxis, SpectrumImage
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.injected_peak import place_and_width
from tests.unit.steps.classic_scans import context_of, image_of

METHODS = ("richardson_lucy", "fourier_ratio")


def loss_scan(dispersion_mev: float = 1.0, level: float = 20.0, noise: bool = True) -> SpectrumImage:
    """Two peaks seen through the zero-loss peak; counts per meV, whatever the dispersion."""
    energy = EnergyAxis(20.0, dispersion_mev, round(160.0 / dispersion_mev) + 1)
    lines = sum(1.0 / (1.0 + ((energy.energies_mev - place) / 2.5) ** 2) for place in (50.0, 80.0))
    response = split_pearson7(dispersion_mev * np.arange(-200, 201), 8.0, 1.6, 1.6)
    seen = np.convolve(lines, response / response.sum())[200:-200]
    mean = dispersion_mev * (1000.0 * seen + level)
    counts = np.broadcast_to(mean, (3, 4, mean.size)).copy()
    if noise:
        counts = np.random.default_rng(12).poisson(counts).astype(float)
    return image_of(counts, energy, variance=np.broadcast_to(np.maximum(mean, 1.0), counts.shape).copy())


@pytest.mark.parametrize("method", METHODS)
def test_peaks_get_narrower_and_stay(method: str) -> None:
    image = loss_scan(noise=False, level=0.0)
    result = deconvolve(image, Deconvolve(method=method), context_of())
    energies = image.energy.energies_mev
    near = (energies > 38.0) & (energies < 62.0)
    before = place_and_width(energies[near], image.counts[0, 0][near])
    after = place_and_width(energies[near], np.asarray(result.image.counts)[0, 0][near].astype(float))
    assert after[1] < 0.85 * before[1]
    assert after[0] == pytest.approx(50.0, abs=0.3)
    assert np.asarray(result.image.counts).sum() == pytest.approx(image.counts.sum(), rel=0.01)
    assert result.image.energy == image.energy


@pytest.mark.parametrize("method", METHODS)
def test_scale_is_the_same_at_any_dispersion(method: str) -> None:
    """The defect of a peer: its result is larger by one over the dispersion."""
    for dispersion in (0.25, 1.0, 4.0):
        image = loss_scan(dispersion, noise=False)
        result = deconvolve(image, Deconvolve(method=method), context_of())
        assert np.asarray(result.image.counts).sum() == pytest.approx(image.counts.sum(), rel=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_injected_peaks_are_reported(method: str) -> None:
    result = deconvolve(loss_scan(), Deconvolve(method=method), context_of())
    table = result.tables["injected_peak"]
    assert list(table["mode"]) == ["BiO38", "CuO42", "BiO57", "SrO67", "CuO78"]  # 22 meV lies at the end of the axis
    assert (table["measured_fwhm_mev"] < table["blurred_fwhm_mev"]).all()
    assert (table["intrinsic_fwhm_mev"] < table["blurred_fwhm_mev"]).all()
    assert table["area_ratio"].to_numpy() == pytest.approx(1.0, abs=0.05)
    if method == "fourier_ratio":  # linear: a shift is a shift
        assert table["measured_shift_mev"].to_numpy() == pytest.approx(1.0, abs=0.02)
        assert table["position_bias_mev"].to_numpy() == pytest.approx(0.0, abs=0.05)
    assert any("injected" in message for message in result.messages)


def test_more_iterations_narrow_more() -> None:
    widths = []
    for iterations in (2, 10, 40):
        table = deconvolve(loss_scan(), Deconvolve(iterations=iterations), context_of()).tables["injected_peak"]
        widths.append(float(table["measured_fwhm_mev"].iloc[-1]))
    assert widths[0] > widths[1] > widths[2]


def test_splits_are_said_to_be_no_evidence_and_noise_is_marked() -> None:
    result = deconvolve(loss_scan(), Deconvolve(), context_of())
    assert any("no evidence" in message for message in result.messages)
    assert result.image.noise.denoised
    assert "correlated" in result.summary["noise"]
    ratio = np.asarray(result.image.variance) / loss_scan().variance
    assert ratio == pytest.approx(result.summary["noise_gain"], rel=1e-5)
    assert result.summary["noise_gain"] > 1.0


@pytest.mark.statistics
def test_variance_of_the_fourier_ratio_is_exact() -> None:
    image = loss_scan()
    mean = loss_scan(noise=False).counts[0, 0]
    counts = np.random.default_rng(13).poisson(np.broadcast_to(mean, (20, 30, mean.size)))
    many = image_of(counts, image.energy, variance=np.broadcast_to(mean, counts.shape).copy())
    settings = Deconvolve(method="fourier_ratio", regularisation_fwhm_mev=8.0)
    result = deconvolve(many, settings, context_of()).image
    spread = np.asarray(result.counts).reshape(600, -1).var(axis=0)
    carried = np.asarray(result.variance)[0, 0]
    assert np.mean(carried / spread) == pytest.approx(1.0, abs=0.03)


def test_discrepancy_stops_every_spectrum_for_itself() -> None:
    image = loss_scan()
    noisy = image.with_(variance=np.where(np.arange(4)[None, :, None] == 0, 100.0, 1.0) * image.variance)
    result = deconvolve(noisy, Deconvolve(stop="discrepancy", iterations=60), context_of())
    iterations = result.maps["iterations"].values
    assert (iterations[:, 0] == 1).all()
    assert (iterations[:, 1:] >= 1).all()
    assert (iterations <= 60).all()
    assert iterations[:, 1:].max() > 1
    assert np.isfinite(result.maps["chi2_per_channel"].values).all()


def test_negative_and_missing_spectra() -> None:
    image = loss_scan(noise=False)
    counts = image.counts - 60.0
    counts[0, 0] = np.nan
    counts[0, 1] = 0.0
    result = deconvolve(image.with_(counts=counts), Deconvolve(), context_of())
    after = np.asarray(result.image.counts)
    assert np.isnan(after[0, 0]).all()
    assert (after[0, 1] == 0.0).all()
    assert result.maps["status"].values[0, :3].tolist() == [1, 2, 0]
    assert result.maps["offset"].values[1, 1] == pytest.approx(-counts[1, 1].min())
    assert after[1].sum(axis=-1) == pytest.approx(counts[1].sum(axis=-1), rel=0.02)
    assert np.isfinite(after[1:]).all()
    assert any("negative values" in message for message in result.messages)


def test_response_reaches_as_far_as_the_settings_say() -> None:
    narrow = deconvolve(loss_scan(), Deconvolve(psf_half_width_mev=10.0), context_of())
    wide = deconvolve(loss_scan(), Deconvolve(psf_half_width_mev=500.0), context_of())
    assert narrow.summary["response"]["channels"] < 30
    assert wide.summary["response"]["channels"] > 161  # longer than the spectrum


def test_zero_loss_peak_must_be_known() -> None:
    with pytest.raises(DataError, match="deconvolve needs zlp_fwhm_mev of align_zlp"):
        deconvolve(loss_scan(), Deconvolve(), context_of(summaries={}))


def test_off() -> None:
    result = deconvolve(loss_scan(), Deconvolve(method="none"), context_of())
    assert result.image is None
    assert "deconvolve.method is none" in result.skipped


def test_place_and_width_of_known_peaks() -> None:
    x = np.arange(0.0, 100.0, 0.5)
    place, width = place_and_width(x, np.exp(-0.5 * ((x - 40.2) / 4.0) ** 2))
    assert place == pytest.approx(40.2, abs=0.01)
    assert width == pytest.approx(4.0 * 2.35482, rel=5e-3)
    assert np.isnan(place_and_width(x, -np.ones(x.size))).all()
