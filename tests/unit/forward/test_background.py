"""Backgrounds of the forward fit: their shapes, detailed balance, and that the fit gives the truth back."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.forward.background import make_background
from phonon_eels.forward.information import model_at
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.model import build_forward_model, describe, model_from_description
from phonon_eels.forward.scan import Alignment, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, material_of

MATERIAL = material_of(*SEPARATED)
THERMAL = thermal_energy_mev(293.0)
CHANNELS = np.arange(-110, 231)
SHAPES = {"exponential": (0.8, 0.0), "power_law": (1.2, 0.0), "exp_polynomial": (-0.7, 0.3)}


def _model(kind, **changes):
    settings = Settings().fit_peaks.model_copy(update={"background": kind, **changes})
    return build_forward_model(
        settings,
        MATERIAL,
        CHANNELS,
        0.5,
        ZeroLossShape(7.5, 1.6, 1.9),
        THERMAL,
        background_shape=SHAPES.get(kind, (0, 0)),
    ), settings


def _params(kind):
    return np.concatenate(
        [[2e4, 0.1, 0, 0, 0, 15.0, *SHAPES[kind]], [3e3, 2e3, 3e3], [38.0, 57.5, 78.0], np.zeros(3)]
    )  # fmt: skip


@pytest.mark.parametrize("kind", list(SHAPES))
def test_gain_side_is_tied_by_detailed_balance(kind):
    energies = np.linspace(-60.0, 60.0, 121)
    tied = make_background(kind, energies, 7.5, THERMAL).column(*SHAPES[kind])
    np.testing.assert_allclose(tied[::-1][61:] / tied[61:], np.exp(-energies[61:] / THERMAL), rtol=1e-12)
    alone = make_background(kind, energies, 7.5, None).column(*SHAPES[kind])
    assert alone[:30].max() < 1e-6 * alone[61:].max()


def test_shapes_are_what_their_names_say():
    energies = np.linspace(-50.0, 200.0, 251)
    far = energies > 60.0
    cold = 1e-3  # no occupation: the loss side is the shape itself
    power = make_background("power_law", energies, 7.5, cold).column(2.0, 0.0)
    slope = np.diff(np.log(power[far])) / np.diff(np.log(energies[far]))
    np.testing.assert_allclose(slope, -2.0, atol=0.03)
    decay = make_background("exponential", energies, 7.5, cold).column(2.0, 0.0)
    np.testing.assert_allclose(np.diff(np.log(decay[far])), -0.02, rtol=1e-9)
    curve = make_background("exp_polynomial", energies, 7.5, cold).column(-1.0, 0.5)
    np.testing.assert_allclose(np.diff(np.log(curve[far]), 2), 2 * 0.5 / 100.0**2, rtol=1e-6)
    assert np.interp(100.0, energies, power) == pytest.approx(1.0 / (1.0 + 0.075**2), rel=1e-9)


@pytest.mark.parametrize("kind", list(SHAPES))
def test_fit_gives_background_and_peaks_back(kind):
    model, settings = _model(kind)
    truth = _params(kind)
    expected, _ = model_at(model, truth)
    counts = np.random.default_rng(1).poisson(expected, (30, 1, expected.size)).astype(float)
    axis = EnergyAxis(float(model.energies_mev[0]), 0.5, expected.size)
    image = SpectrumImage(counts, axis, (ScanAxis("row", 1.0, 30), ScanAxis("column", 1.0, 1)))
    place = Alignment(np.full((30, 1), -int(CHANNELS[0])), np.full((30, 1), 0.1))
    start = truth.copy()
    start[5:8] = 10.0, SHAPES[kind][0] * 0.8, 0.0
    found = fit_scan(image, model, place, start, CpuBackend(1), free_energies=True)
    assert (found.status == 0).all()
    free = np.flatnonzero(model.free(True))
    # Slope and bend carry a prior around the truth here: their pulls are narrower than 1.
    pulls = ((found.params - truth) / found.std)[:, 0, free]
    assert np.abs(pulls.mean(axis=0)).max() < 3.5 / np.sqrt(30)
    assert (pulls.std(axis=0) < 1.45).all()
    assert 0.6 < pulls[:, -6:].std() < 1.2
    # The mean spectrum's own fit finds the shape without being told.
    search = MeanModel(settings, MATERIAL, CHANNELS, 0.5, ZeroLossShape(7.4, 1.65, 1.85), THERMAL)
    result = fit_mean(search, expected, np.maximum(expected, 1.0) / 1000.0)
    np.testing.assert_allclose(result.energies_fit_mev, [38.0, 57.5, 78.0], atol=0.05)
    shape = model.background.column(*SHAPES[kind])
    loss = model.energies_mev > 20.0
    np.testing.assert_allclose(result.components_e["background"][loss], 15.0 * shape[loss], rtol=0.03)
    assert result.starts()[N_LOCAL - 2] == result.ramp_e


def test_description_keeps_the_background():
    model, settings = _model("exp_polynomial")
    again = model_from_description(describe(model, settings, THERMAL), MATERIAL)
    assert again.background_shape == pytest.approx(SHAPES["exp_polynomial"])
    np.testing.assert_array_equal(again.background.rows, model.background.rows)
    np.testing.assert_array_equal(again.prior_mean(), model.prior_mean())
