"""Asymmetric lines: what they are, and that the mean spectrum tells truths with and without asymmetry apart."""

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.forward.asymmetric import AsymmetricGrid, asymmetric_model
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.model import build_forward_model
from phonon_eels.kernels.response import FineGrid, ZeroLossShape
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, alignment_of, material_of, simulated

MATERIAL = material_of(*SEPARATED)
SETTINGS = Settings().fit_peaks
THERMAL = thermal_energy_mev(293.0)


def test_lines_keep_area_and_detailed_balance():
    plain = FineGrid(np.arange(-100, 200), 0.5, 4.0, 50.0)
    grid = AsymmetricGrid(plain, 0.5)
    line = grid.line(40.0, 4.0, THERMAL, "oscillator")
    loss = grid.energies_mev > 0.0
    assert line[loss].sum() * grid.step_mev == pytest.approx(1.0, abs=1e-3)
    up, down = (np.interp(sign * 45.0, grid.energies_mev, line) for sign in (1.0, -1.0))
    assert down / up == pytest.approx(np.exp(-45.0 / THERMAL), rel=1e-3)
    at_zero = AsymmetricGrid(plain, 0.0).line(40.0, 4.0, THERMAL, "oscillator")
    np.testing.assert_allclose(at_zero, plain.line(40.0, 4.0, THERMAL, "oscillator"), rtol=1e-9)
    symmetric = np.interp(45.0, grid.energies_mev, at_zero) / np.interp(35.0, grid.energies_mev, at_zero)
    assert up / np.interp(35.0, grid.energies_mev, line) > 1.5 * symmetric


@pytest.mark.parametrize(("shape", "skew"), [("oscillator", 0.0), ("skewed", 0.5), ("skewed", -0.5)])
def test_mean_spectrum_tells_the_asymmetry(shape, skew):
    scene = simulated(
        1, 1, material=MATERIAL, zero_loss={"electrons": 2e5},
        phonons={"area_e": 1e5, "shape": shape, "skew": skew},
    )  # fmt: skip
    zero = int(alignment_of(scene).channel[0, 0])
    channels = np.arange(8 - zero, scene.image.energy.n_channels - 8 - zero)
    spectrum = np.asarray(scene.image.counts[0, 0, zero + channels], dtype=float)
    variance = np.maximum(spectrum, 1.0) / 1000.0
    search = MeanModel(SETTINGS, MATERIAL, channels, 0.5, ZeroLossShape(7.5, 1.6, 1.9), THERMAL)
    mean = fit_mean(search, spectrum, variance)
    model = build_forward_model(
        SETTINGS, MATERIAL, channels, 0.5, mean.zero_loss, THERMAL, energies_mev=mean.energies_fit_mev,
        fwhm_mev=mean.fwhm_mev, background_shape=(mean.ramp_e, mean.bend),
    )  # fmt: skip
    found = asymmetric_model(model, SETTINGS, MATERIAL, THERMAL, spectrum, variance)
    if skew == 0.0:
        assert abs(found.asymmetry) < 0.05
        assert np.abs(found.moved_mev).max() < 0.05
    else:
        # A width that falls towards higher energies has its longer tail below.
        assert np.sign(found.asymmetry) == -np.sign(skew)
        assert abs(found.asymmetry) > 0.2
        assert 0.05 < np.abs(found.moved_mev).max() < 1.0
