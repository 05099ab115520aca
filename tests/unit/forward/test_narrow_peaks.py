"""Zero-loss peaks less than two channels wide: what a channel and the alignment by whole channels smear is taken out."""

from __future__ import annotations

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.scan import Alignment
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.zero_loss import estimate_shape, fit_zero_loss, search_peaks
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.kernels.lineshapes import loss_spectrum, split_pearson7
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.units import thermal_energy_mev

CPU = CpuBackend(1)
AXIS = EnergyAxis(-20_000.0, 500.0, 160)
FWHM, LOSS, GAIN = 720.0, 1.8, 2.3
PLASMON = {"mode_mev": 29_000.0, "fwhm_mev": 8000.0}
PLACES = np.linspace(-0.475, 0.475, 20)  # within a channel
THERMAL = thermal_energy_mev(293.0)
MATERIAL = Material.model_validate(
    {
        "name": "metal",
        "modes": [{"name": "P29", "energy_mev": 28_000, "bounds_mev": [25_000, 33_000], "fwhm_mev": 8000}],
    }
)


@pytest.fixture(scope="module")
def scan() -> tuple[SpectrumImage, np.ndarray]:
    """A line of 40 positions whose peak drifts through more than a channel; the truth of its centre."""
    random = np.random.default_rng(5)
    center = 3100.0 + 700.0 * np.linspace(0.0, 1.0, 40) + random.normal(0.0, 20.0, 40)
    loss = AXIS.energies_mev[None, :, None] - center[:, None, None] + 500.0 * PLACES
    peak = 2e4 * split_pearson7(loss, FWHM, LOSS, GAIN)
    plasmon = loss_spectrum(loss, **PLASMON, thermal_mev=THERMAL, shape="oscillator")
    expected = (peak + plasmon * 250.0 / plasmon.max()).mean(axis=2)
    counts = random.poisson(expected)[None].astype(float)
    noise = NoiseModel(1.0, 0.0, 0.0, source={"gain": "given", "dark_level": "given", "read_noise_e": "given"})
    return SpectrumImage(counts, AXIS, (ScanAxis("row", 1.0, 1), ScanAxis("column", 3.2, 40)), noise), center


def test_width_is_that_before_the_channels(scan: tuple[SpectrumImage, np.ndarray]) -> None:
    image, _ = scan
    shape = estimate_shape(image, search_peaks(image, slice(0, AXIS.n_channels), CPU), CPU)
    assert shape.fwhm_mev == pytest.approx(FWHM, rel=0.25)  # half height of the sampled mean says 1000 and more


def test_centres_and_widths(scan: tuple[SpectrumImage, np.ndarray]) -> None:
    image, center = scan
    search = search_peaks(image, slice(0, AXIS.n_channels), CPU)
    model, alignment, fit = fit_zero_loss(image, search, estimate_shape(image, search, CPU), 1.5, False, CPU)
    assert np.isin(fit.status, (CONVERGED, AT_BOUND)).all()
    found = AXIS.offset_mev + AXIS.dispersion_mev * alignment.channel + fit.params[..., 1]
    pull = (found[0] - center) / fit.std[0, :, 1]
    assert np.abs(found[0] - center).max() < 25.0
    assert np.std(pull) < 2.5
    assert model.zero_loss is not None
    widths = model.zero_loss.fwhm_mev * np.exp(fit.params[0, :, 2])
    assert np.median(widths) == pytest.approx(FWHM, rel=0.02)


def test_mean_of_shifted_spectra_has_the_width_of_one(scan: tuple[SpectrumImage, np.ndarray]) -> None:
    image, center = scan
    alignment = Alignment.from_center(center[None], image)
    channels = np.arange(-14, 90)
    total, squares = aligned_sums(image, alignment, -14, channels.size, np.ones((1, 1, 40)), CPU)
    search = search_peaks(image, slice(0, AXIS.n_channels), CPU)
    shape = estimate_shape(image, search, CPU)
    widths = {}
    for name, places in (("told", alignment.shift_mev), ("not told", None)):
        model = MeanModel(FitPeaks(), MATERIAL, channels, 500.0, shape, THERMAL, places)
        fit = fit_mean(model, total[0] / 40.0, squares[0] / 40.0**2)
        assert fit.zero_loss is not None
        widths[name] = fit.zero_loss.fwhm_mev
        if places is not None:
            assert fit.energies_fit_mev[0] == pytest.approx(PLASMON["mode_mev"], abs=100.0)
            assert fit.chi2_per_dof < 2.0
    assert widths["told"] == pytest.approx(FWHM, rel=0.02)
    assert widths["not told"] > 1.08 * FWHM
