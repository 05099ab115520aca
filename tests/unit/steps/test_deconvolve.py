"""Deconvolution of loss spectra."""

import numpy as np
import pytest
import xarray as xr
from scipy.signal import find_peaks

from phonon_eels.config.settings import Deconvolve
from phonon_eels.errors import DataError
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import EnergyAxis, SpectrumImage
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.deconvolved_noise import local_maxima, maxima_table, prominences
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
    assert ratio == pytest.approx(np.broadcast_to(ratio[0, 0], ratio.shape), rel=1e-5)
    assert np.median(ratio) == pytest.approx(result.summary["noise_gain"], rel=1e-3)
    assert ratio[0, 0].max() > 1.5 * ratio[0, 0].min()  # on a peak noise grows more than between


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


def test_held_out_chooses_one_number_for_the_scan() -> None:
    settings = Deconvolve(stop="held_out", iterations=60)
    chosen = {}
    for factor in (1.0, 30.0):  # thirty times the counts bear more iterations
        mean = factor * loss_scan(noise=False).counts
        counts = np.random.default_rng(14).poisson(mean).astype(float)
        image = loss_scan().with_(counts=counts, variance=np.maximum(mean, 1.0))
        result = deconvolve(image, settings, context_of())
        chosen[factor] = result.summary["iterations"]
        assert any("iterations predict noise kept apart best" in message for message in result.messages)
        again = deconvolve(image, Deconvolve(iterations=chosen[factor]), context_of())
        assert np.array_equal(np.asarray(result.image.counts), np.asarray(again.image.counts))
    assert 1 <= chosen[1.0] < chosen[30.0]
    with pytest.raises(DataError, match="held_out needs spectra with a variance"):
        deconvolve(loss_scan().with_(variance=None), settings, context_of())


def test_acceleration_and_wiener_have_an_effect() -> None:
    image = loss_scan()
    plain = np.asarray(deconvolve(image, Deconvolve(), context_of()).image.counts)
    fast = np.asarray(deconvolve(image, Deconvolve(accelerate=True), context_of()).image.counts)
    assert fast.max() > plain.max()
    assert fast.sum() == pytest.approx(plain.sum(), rel=0.01)
    ratio = Deconvolve(method="fourier_ratio")
    wiener = deconvolve(image, ratio.model_copy(update={"regulariser": "wiener"}), context_of()).image
    assert not np.array_equal(
        np.asarray(wiener.counts), np.asarray(deconvolve(image, ratio, context_of()).image.counts)
    )
    assert np.asarray(wiener.counts).sum() == pytest.approx(image.counts.sum(), rel=0.005)


def test_fourier_log_takes_double_losses_away() -> None:
    energy = EnergyAxis(20.0, 1.0, 161)
    line = 1e4 * np.exp(-0.5 * ((energy.energies_mev - 60.0) / 6.0) ** 2)
    response = split_pearson7(np.arange(-200.0, 201.0), 8.0, 1.6, 1.6)
    response /= response.sum()
    once = np.convolve(line, response)[200:-200]  # P = H * (s + s * s / (2 I0))
    full = np.convolve(np.convolve(line, line) / (2.0 * 1e6), response)[200:-200]  # channel 0 of the square is 40 meV
    zero_loss = xr.DataArray(np.full((2, 2), 1e6), dims=("row", "column"))
    maps = {"align_zlp": xr.Dataset({"zlp_counts": zero_loss})}
    counts = np.broadcast_to(once, (2, 2, 161)).copy()
    counts[..., 20:] += full[:141]
    image = image_of(counts, energy, variance=np.maximum(counts, 1.0))
    result = deconvolve(image, Deconvolve(method="fourier_log"), context_of(maps=maps))
    near = slice(80, 121)
    doubled = counts[0, 0, near] - once[near]
    assert doubled.max() > 100.0
    left = np.asarray(result.image.counts)[0, 0, near] - once[near]
    assert np.abs(left).max() < 0.15 * doubled.max()
    assert result.maps["losses_per_electron"].values == pytest.approx(np.log1p(counts[0, 0].sum() / 1e6), rel=1e-3)
    with pytest.raises(DataError, match="fourier_log needs zlp_counts"):
        deconvolve(image, Deconvolve(method="fourier_log"), context_of())


def test_maxima_that_only_deconvolution_shows_are_flagged() -> None:
    energies = np.arange(20.0, 120.0)
    one = np.exp(-0.5 * ((energies - 60.0) / 8.0) ** 2)
    two = np.exp(-0.5 * ((energies - 56.0) / 3.0) ** 2) + np.exp(-0.5 * ((energies - 66.0) / 3.0) ** 2)
    table = maxima_table(energies, one, two, np.full(100, 1e-3), reach_mev=8.0)
    assert table["energy_mev"].tolist() == [56.0, 66.0]
    assert table["seen_before"].tolist() == [True, False]
    assert table["evidence"].iloc[1] == "none: only after deconvolution"
    assert len(maxima_table(energies, one, two, np.full(100, 10.0), reach_mev=8.0)) == 0  # noise


@pytest.mark.statistics
def test_variance_and_std_factors_are_those_of_repeated_measurements() -> None:
    """Channels of a deconvolved spectrum are not independent: fits that take them so quote too small deviations."""
    mean = 20.0 * loss_scan(noise=False).counts[0, 0]
    counts = np.random.default_rng(15).poisson(np.broadcast_to(mean, (30, 40, mean.size)))
    many = image_of(counts, loss_scan().energy, variance=np.broadcast_to(mean, counts.shape).copy())
    result = deconvolve(many, Deconvolve(), context_of())
    spectra = np.asarray(result.image.counts, dtype=float).reshape(1200, -1)
    carried = np.asarray(result.image.variance)[0, 0].astype(float)
    inside = slice(10, -10)
    assert carried[inside] / spectra.var(axis=0)[inside] == pytest.approx(1.0, abs=0.3)
    assert np.mean(carried[inside] / spectra.var(axis=0)[inside]) == pytest.approx(1.0, abs=0.05)
    table = result.tables["std_factors"].set_index("mode")
    energies = many.energy.energies_mev
    width = float(result.tables["injected_peak"].set_index("mode").loc["CuO78", "measured_fwhm_mev"]) / 2.35482
    x = (energies - 78.0) / width
    near = np.abs(x) < 3.0
    jacobian = np.stack([np.exp(-0.5 * x[near] ** 2), x[near] * np.exp(-0.5 * x[near] ** 2), np.ones(near.sum())])
    weighted = jacobian / carried[near]
    covariance = np.linalg.inv(weighted @ jacobian.T)
    found = covariance @ weighted @ (spectra - spectra.mean(axis=0))[:, near].T
    factor = found.std(axis=1) / np.sqrt(np.diag(covariance))
    assert table.loc["CuO78", "energy_std_factor"] == pytest.approx(factor[1], rel=0.15)
    assert table.loc["CuO78", "area_std_factor"] == pytest.approx(factor[0], rel=0.15)
    assert factor[1] > 1.2


@pytest.mark.parametrize("seed", range(200))
def test_maxima_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    # Few levels make plateaus, also at the ends.
    values = rng.integers(0, 4, n).astype(float) if seed % 2 else rng.normal(size=n)
    found, properties = find_peaks(values, prominence=0.0)
    np.testing.assert_array_equal(local_maxima(values), found)
    np.testing.assert_array_equal(prominences(values, found), properties["prominences"])
