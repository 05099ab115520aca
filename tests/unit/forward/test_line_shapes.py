"""Gaussian, Lorentzian, pseudo-Voigt and Voigt lines through the response, on the forward route."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.model import describe, model_from_description, rebuilt
from phonon_eels.forward.scan import fit_scan
from phonon_eels.kernels.likelihood import CONVERGED
from phonon_eels.kernels.lineshapes import loss_spectrum, susceptibility, voigt_widths
from tests.unit.forward import shape_scenes as scenes

BIAS_MEV = 3e-3


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_energies_of_noise_free_spectra(shape):
    """The truth was integrated numerically: what is left is interpolation in the tables and the two-point zero-loss channel."""
    image, place = scenes.image_of(scenes.expected(shape)[None, None])
    model = scenes.model_of(shape)
    found = fit_scan(image, model, place, scenes.starts(model), CpuBackend(1), free_energies=True)
    assert found.status[0, 0] == CONVERGED
    np.testing.assert_allclose(found.energies()[0, 0], scenes.ENERGIES, atol=BIAS_MEV)
    np.testing.assert_allclose(found.areas()[0, 0], scenes.AREAS, rtol=5e-3)
    assert found.pearson_chi2[0, 0] < 1.0


def test_the_shapes_can_be_told_from_each_other():
    """The bounds above mean something only if another shape fails them."""
    image, place = scenes.image_of(scenes.expected("voigt")[None, None])
    for shape in ("gaussian", "lorentzian"):
        model = scenes.model_of(shape)
        found = fit_scan(image, model, place, scenes.starts(model), CpuBackend(1), free_energies=True)
        assert found.pearson_chi2[0, 0] > 5.0, shape


@pytest.mark.parametrize("shape", ["pseudo_voigt", "voigt"])
def test_the_response_is_odd_and_detailed_balance_holds(shape):
    energies = np.linspace(0.5, 120.0, 240)
    for share in (0.2, 0.8):
        one, other = (susceptibility(sign * energies, 40.0, 4.0, shape, share) for sign in (1.0, -1.0))
        np.testing.assert_array_equal(one, -other)
        loss, gain = (loss_spectrum(sign * energies, 40.0, 4.0, scenes.THERMAL, shape, share) for sign in (1.0, -1.0))
        np.testing.assert_allclose(gain / loss, np.exp(-energies / scenes.THERMAL), rtol=1e-9)


def test_shares_of_0_and_1_are_a_gaussian_and_a_lorentzian():
    energies = np.linspace(-120.0, 120.0, 481)
    for shape in ("pseudo_voigt", "voigt"):
        for share, plain in ((0.0, "gaussian"), (1.0, "lorentzian")):
            mixed, alone = (susceptibility(energies, 40.0, 4.0, kind, share) for kind in (shape, plain))
            # Of a Voigt the formula for the width is right to 0.02 %.
            np.testing.assert_allclose(
                mixed / mixed.max(), alone / alone.max(), atol=1e-12 if shape == "pseudo_voigt" else 5e-3
            )


def test_widths_of_a_voigt_line():
    for share in (0.1, 0.5, 0.9):
        lorentzian, gaussian = voigt_widths(4.0, share)
        at = susceptibility(np.array([500.0, 502.0]), 500.0, 4.0, "voigt", share)
        assert at[1] / at[0] == pytest.approx(0.5, abs=3e-4)
        assert lorentzian == pytest.approx(4.0 * share)
        assert gaussian < 4.0


@pytest.mark.parametrize("shape", ["pseudo_voigt", "voigt"])
def test_the_share_is_fitted_to_the_mean_spectrum(shape):
    """Noise-free, with the variance of 4,000 such spectra."""
    truth = scenes.expected(shape)
    settings = Settings().fit_peaks.model_copy(update={"line_shape": shape})
    channels = scenes.FIRST + np.arange(scenes.N)
    free, held = (
        fit_mean(
            MeanModel(
                settings.model_copy(update={"lorentzian_share": share}), scenes.MATERIAL, channels, scenes.DISPERSION,
                scenes.RESPONSE, scenes.THERMAL,
            ),
            truth, truth / 4000.0,
        )
        for share in (None, scenes.SHARE)
    )  # fmt: skip
    assert abs(free.lorentzian_share - scenes.SHARE) < max(0.03, free.lorentzian_share_std)
    assert 0.0 < free.lorentzian_share_std < 0.3
    assert (held.lorentzian_share, np.isnan(held.lorentzian_share_std)) == (scenes.SHARE, True)
    for fit in (free, held):
        np.testing.assert_allclose(fit.energies_fit_mev, scenes.ENERGIES, atol=0.02)


def test_the_share_is_kept_wherever_the_model_is_built_anew():
    model = scenes.model_of("voigt", lorentzian_share=None)
    assert model.lorentzian_share == 0.5
    settings = Settings().fit_peaks.model_copy(update={"line_shape": "voigt", "lorentzian_share": 0.2})
    told = scenes.model_of("voigt", lorentzian_share=0.2)
    again = model_from_description(describe(told, settings, scenes.THERMAL), scenes.MATERIAL)
    np.testing.assert_array_equal(again.tables.values, told.tables.values)
    moved = rebuilt(told, settings, scenes.MATERIAL, scenes.THERMAL, told.mode_energies_mev, told.fwhm_mev)
    np.testing.assert_array_equal(moved.tables.values, told.tables.values)
    assert np.abs(model.tables.values - told.tables.values).max() > 1e-4


def test_a_share_at_its_bound_has_no_deviation():
    """Lorentzian lines, fitted as pseudo-Voigt ones."""
    truth, settings = (
        scenes.expected("lorentzian"),
        Settings().fit_peaks.model_copy(update={"line_shape": "pseudo_voigt"}),
    )
    channels = scenes.FIRST + np.arange(scenes.N)
    model = MeanModel(settings, scenes.MATERIAL, channels, scenes.DISPERSION, scenes.RESPONSE, scenes.THERMAL)
    fit = fit_mean(model, truth, truth / 4000.0)
    assert fit.lorentzian_share > 0.97
    assert np.isnan(fit.lorentzian_share_std) == (fit.lorentzian_share > 0.999)
