"""Verdicts of the defences, and the numbers behind them, on made-up fits."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.model import build_forward_model
from phonon_eels.forward.seen_lines import SeenLines
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.lattice.inference import MeanAmplitude
from phonon_eels.lattice.modulation import Scores, UnitFit, basis
from phonon_eels.steps.artefact_defences import (
    common_mode_row,
    gain_mirror_row,
    mirror_verdict,
    predicted_verdict,
    sensitivity,
    unit_lock_in,
)
from phonon_eels.steps.modulation_defences import inphase_verdict
from phonon_eels.steps.modulation_systematics import systematic_parts, window_row
from tests.unit.forward.spectra import BI2212


def mean(cosine, sine=0.0, std=0.01, p_value=0.001):
    return MeanAmplitude(np.array([cosine, sine]), std**2 * np.eye(2), 7.0, p_value)


@pytest.mark.parametrize(
    ("size", "std", "verdict"),
    [
        (0.1, 0.05, "pass"),
        (0.9, 0.1, "fail"),
        (0.1, 0.6, "no power"),
        (0.5, 0.1, "not distinguished"),
        (np.nan, 1, "no power"),
    ],
)
def test_predicted_artefact_against_half_of_the_amplitude(size, std, verdict):
    assert predicted_verdict(size, std, 1.0)[0] == verdict


@pytest.mark.parametrize(
    ("value", "std", "verdict"),
    [(0.9, 0.2, "pass"), (-1.1, 0.2, "fail"), (0.0, 0.7, "no power"), (0.0, 0.1, "not distinguished")],
)
def test_gain_side_against_the_loss_side(value, std, verdict):
    assert mirror_verdict(value, std, 1.0)[0] == verdict


def test_in_phase_channel():
    assert inphase_verdict(mean(1.0), mean(0.9, p_value=1e-4))[0] == "fail"
    assert inphase_verdict(mean(1.0), mean(0.2, p_value=1e-4))[0] == "pass"
    assert inphase_verdict(mean(1.0), mean(0.9, p_value=np.nan))[0] == "no power"


def _others(cosine):
    row = {"method": "joint", "role": "secondary", "cos_mev_std": 0.02, "sin_mev": 0.0, "sin_mev_std": 0.02}
    return pd.DataFrame([{**row, "cos_mev": c} for c in cosine])


def test_common_mode_is_bounded_by_the_zero_loss_centre():
    still, moving = {"value": 0.05, "std": 0.02}, {"value": 0.4, "std": 0.1}
    assert common_mode_row(_others([0.0, 0.1]), mean(1.0), None)["verdict"] == "pass"
    together = _others([1.0, 0.9])
    assert common_mode_row(together, mean(1.0), still)["verdict"] == "pass"
    assert common_mode_row(together, mean(1.0), moving)["verdict"] == "not distinguished"
    assert common_mode_row(together, mean(1.0), None)["verdict"] == "not distinguished"
    assert common_mode_row(_others([0.0]).assign(role="exploratory"), mean(1.0), still)["verdict"] == "no power"


@pytest.fixture(scope="module")
def lines():
    model = build_forward_model(FitPeaks(), BI2212, np.arange(-220, 231), 0.5, ZeroLossShape(7.5, 1.6, 1.9), 25.25)
    params = np.zeros(model.n_params)
    params[0] = 1e4
    params[N_LOCAL : N_LOCAL + model.n_modes] = 2000.0
    params[N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes] = model.mode_energies_mev
    return SeenLines(model, params)


def _spectrum(lines, change):
    return pd.DataFrame({"cos_e": change, "sin_e": 0.0 * change, "std_e": np.full(change.size, 0.05)})


def test_a_real_shift_and_a_drifting_axis_are_told_apart_on_the_gain_side(lines):
    mode = lines.model.mode_names.index("CuO42")
    energy = float(lines.energies_mev[mode])
    real = 2000.0 * (lines.line(mode, energy + 0.25) - lines.line(mode, energy - 0.25)) / 0.5
    found = gain_mirror_row(_spectrum(lines, real), lines, mean(1.0), mode, 1.0, 2000.0)
    assert found["value"] == pytest.approx(1.0, abs=0.02)
    assert found["verdict"] == "pass"
    drift = -2000.0 * np.gradient(lines.line(mode, energy), lines.model.dispersion_mev)
    found = gain_mirror_row(_spectrum(lines, drift), lines, mean(1.0), mode, 1.0, 2000.0)
    assert found["value"] < -0.8
    assert found["verdict"] == "fail"


def test_an_axis_that_ends_before_the_gain_side_has_no_power():
    model = build_forward_model(FitPeaks(), BI2212, np.arange(-100, 231), 0.5, ZeroLossShape(7.5, 1.6, 1.9), 25.25)
    params = np.zeros(model.n_params)
    params[N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes] = model.mode_energies_mev
    short = SeenLines(model, params)
    row = gain_mirror_row(_spectrum(short, 0.0 * model.energies_mev), short, mean(1.0), model.n_modes - 1, 1.0, 2000.0)
    assert row["verdict"] == "no power"
    assert "before the gain side of 78 meV" in row["sentence"]


def _made_up(slope):
    """Six planes of one mode whose energy follows a map; the map has a wave of its own beside noise."""
    random = np.random.default_rng(0)
    rows, columns = 36, 50
    unit = np.repeat(np.arange(6), 6)[:, None] + np.zeros((rows, columns), int)
    sign = np.where(unit % 2 == 0, 1.0, -1.0)
    phase = np.broadcast_to(np.linspace(0, 4 * np.pi, columns, endpoint=False), (rows, columns))
    covariate = 0.3 * sign * np.cos(phase) + random.normal(size=(rows, columns))
    regressors = basis(phase, sign[None])
    information = np.zeros((rows, columns, 2, 2))
    information[..., 0, 0] = 4.0
    energy = 78.0 + 1.0 * sign * np.cos(phase) + slope * covariate
    score = np.zeros((rows, columns, 2))
    score[..., 0] = 4.0 * (energy - 78.0) + 2.0 * random.normal(size=(rows, columns))
    scores = Scores(score, information, np.full((rows, columns, 1), 78.0), np.ones((rows, columns), bool))
    fit = UnitFit(np.zeros((2, 3)), np.zeros((2, 3, 3)), np.array([100.0]), 300)
    joint = SimpleNamespace(scores=scores, regressors=regressors, units=dict.fromkeys(range(6), fit))
    return joint, SimpleNamespace(half_slab=unit), covariate


def test_sensitivity_to_a_map_is_told_apart_from_the_wave():
    joint, geometry, covariate = _made_up(0.5)
    slope, std = sensitivity(joint, geometry, covariate, 0)
    assert abs(slope - 0.5) < 4 * std
    assert 0.005 < std < 0.05
    wave = unit_lock_in(joint, geometry, covariate, 0)
    np.testing.assert_allclose(wave.mean(axis=0), [0.3, 0.0], atol=0.1)
    slope, std = sensitivity(*_made_up(0.0)[:2], covariate, 0)
    assert abs(slope) < 4 * std


def test_variants_of_the_fit():
    table = pd.DataFrame(
        {
            "kind": ["window", "window", "model"],
            "variant": ["a", "b", "c"],
            "change_mev": [0.1, 0.3, 0.2],
            "p_value": 0.01,
        }
    )
    assert window_row(table, mean(1.0))["verdict"] == "pass"
    assert "b" in window_row(table, mean(1.0))["sentence"]
    assert window_row(table, mean(0.2))["verdict"] == "fail"
    assert window_row(table[:0], mean(1.0))["verdict"] == "no power"
    parts = systematic_parts(table)
    assert (parts["window"], parts["model"]) == (0.3, 0.2)
    assert np.isnan(parts["zero_loss"])
