"""Division by the zero-loss or the total counts."""

import numpy as np
import pytest
import xarray as xr

from phonon_eels.config.settings import Normalise
from phonon_eels.spectrum_image import NoiseModel
from phonon_eels.steps.normalise import normalise
from tests.unit.steps.classic_scans import axis, context_of, elastic, image_of, noisy_image, phonons


def test_total_counts_become_one() -> None:
    image = noisy_image()
    result = normalise(image, Normalise(method="total"), context_of())
    assert np.asarray(result.image.counts).sum(axis=-1) == pytest.approx(1.0, rel=1e-5)
    assert result.maps["normaliser_e"].values == pytest.approx(image.counts.sum(axis=-1))
    assert result.maps["normaliser_e"].attrs["units"] == "electrons"
    assert result.summary["unit"] == "1/channel"


def test_zero_loss_counts_are_those_within_one_fwhm() -> None:
    image = noisy_image()
    near = np.abs(image.energy.energies_mev) <= 8.0
    result = normalise(image, Normalise(), context_of())
    assert result.maps["normaliser_e"].values == pytest.approx(image.counts[..., near].sum(axis=-1))


def test_fitted_zero_loss_counts_are_preferred() -> None:
    image = noisy_image()
    electrons = np.full((4, 3), 5e5)
    dims = ("row", "column")
    maps = xr.Dataset({"zlp_counts": (dims, electrons), "zlp_counts_std": (dims, electrons / 1e3)})
    result = normalise(image, Normalise(), context_of(maps={"align_zlp": maps}))
    assert np.asarray(result.image.counts) == pytest.approx(image.counts / 5e5, rel=1e-6)
    assert result.maps["normaliser_e_std"].values == pytest.approx(500.0)


def test_gain_and_dark_level_are_taken_out() -> None:
    plain = noisy_image()
    noise = NoiseModel(gain=4.0, dark_level=100.0)
    scaled = plain.with_(counts=4.0 * plain.counts + 100.0, noise=noise)
    want = normalise(plain, Normalise(), context_of())
    have = normalise(scaled, Normalise(), context_of())
    assert np.asarray(have.image.counts) == pytest.approx(np.asarray(want.image.counts), rel=1e-5)
    assert np.asarray(have.image.variance) == pytest.approx(np.asarray(want.image.variance), rel=1e-5)
    assert have.image.noise.dark_level == 0.0
    assert have.image.noise.gain == 1.0


def test_variance_of_an_earlier_step_is_used() -> None:
    image = noisy_image(variance=np.full((4, 3, 300), 9.0))
    result = normalise(image, Normalise(), context_of())
    electrons = result.maps["normaliser_e"].values[..., None]
    far = np.asarray(result.image.variance)[..., 150:]
    assert far == pytest.approx(np.broadcast_to(9.0 / electrons**2, far.shape), rel=0.02)


@pytest.mark.statistics
@pytest.mark.parametrize("method", ["zero_loss", "total"])
def test_variance_is_that_of_repeated_measurements(method: str) -> None:
    """At the peak the covariance with the normaliser matters: without it the variance there is twice too large."""
    energy = axis()
    mean = elastic(energy.energies_mev, 6e3) + phonons(energy.energies_mev, 60.0) + 2.0
    counts = np.random.default_rng(7).poisson(np.broadcast_to(mean, (40, 60, mean.size)))
    result = normalise(image_of(counts, energy), Normalise(method=method), context_of())
    spread = np.asarray(result.image.counts).reshape(-1, mean.size).var(axis=0)
    carried = np.asarray(result.image.variance).reshape(-1, mean.size).mean(axis=0)
    phonon = slice(90, 160)
    # The local mean behind the variance smears peaks of the width of the zero-loss peak: their sum is right.
    assert carried[phonon].sum() / spread[phonon].sum() == pytest.approx(1.0, abs=0.05)
    peak = int(mean.argmax())
    assert carried[peak] / spread[peak] == pytest.approx(1.0, abs=0.2 if method == "total" else 0.35)


def test_positions_without_counts_fail_visibly() -> None:
    image = noisy_image()
    counts = image.counts.copy()
    counts[1, 2] = 0
    counts[2, 0] = -5
    result = normalise(image.with_(counts=counts), Normalise(), context_of())
    assert result.maps["status"].values[1, 2] == 1
    assert result.maps["status"].values[2, 0] == 1
    assert result.summary["status_counts"]["ok"] == 10
    assert np.isnan(np.asarray(result.image.counts)[1, 2]).all()
    assert np.isnan(result.maps["normaliser_e"].values[2, 0])
    assert np.isfinite(np.asarray(result.image.counts)[0]).all()
    assert any("2 of 12 positions" in message for message in result.messages)


def test_normaliser_that_the_fit_did_not_find() -> None:
    electrons = np.full((4, 3), 5e5)
    electrons[0, 0] = np.nan
    maps = xr.Dataset({"zlp_counts": (("row", "column"), electrons)})
    result = normalise(noisy_image(), Normalise(), context_of(maps={"align_zlp": maps}))
    assert result.maps["status"].values[0, 0] == 2
    assert np.isnan(np.asarray(result.image.counts)[0, 0]).all()


def test_off() -> None:
    result = normalise(noisy_image(), Normalise(method="none"), context_of())
    assert result.image is None
    assert "normalise.method" in result.skipped
