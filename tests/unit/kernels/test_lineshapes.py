"""Shapes of the zero-loss peak and of phonon lines."""

import numpy as np
import pytest
from scipy.integrate import quad

from phonon_eels.kernels.lineshapes import (
    loss_spectrum,
    split_pearson7,
    split_pearson7_area,
    split_pearson7_slopes,
    susceptibility,
)
from phonon_eels.simulate.lines import add_line, response
from phonon_eels.units import thermal_energy_mev

SHAPES = ("oscillator", "lorentzian", "gaussian")
KT = thermal_energy_mev(293.0)


@pytest.mark.parametrize(("loss", "gain"), [(1.0, 1.0), (1.6, 1.9), (0.8, 6.0)])
def test_split_pearson7_has_its_width_and_its_mode_at_zero(loss, gain):
    edges = split_pearson7(np.array([-4.0, 0.0, 4.0]), 8.0, loss, gain)
    np.testing.assert_allclose(edges, [0.5, 1.0, 0.5], rtol=1e-14)
    x = np.linspace(-50, 50, 1001)
    assert x[np.argmax(split_pearson7(x, 8.0, loss, gain))] == 0.0


def test_each_exponent_belongs_to_its_side():
    heavy = split_pearson7(np.array([-30.0, 30.0]), 8.0, 1.0, 3.0)
    assert heavy[1] > 10.0 * heavy[0]


@pytest.mark.parametrize(("loss", "gain"), [(1.0, 1.0), (1.6, 1.9), (0.8, 6.0)])
def test_area_of_the_split_pearson7(loss, gain):
    sides = [
        quad(lambda x, s=s: float(split_pearson7(np.array(s * x), 8.0, loss, gain)), 0.0, np.inf, limit=400)[0]
        for s in (1, -1)
    ]
    assert split_pearson7_area(8.0, loss, gain) == pytest.approx(sum(sides), rel=1e-6)


def test_peak_agrees_with_the_simulator():
    x = np.linspace(-60.0, 120.0, 500)
    simulated = [response(e, 0, 7.5, 1.6, 1.9, 0.0) for e in x]
    np.testing.assert_allclose(split_pearson7(x, 7.5, 1.6, 1.9), simulated, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_susceptibility_is_odd(shape):
    e = np.linspace(0.1, 150.0, 300)
    np.testing.assert_allclose(
        susceptibility(-e, 42.0, 4.0, shape), -susceptibility(e, 42.0, 4.0, shape), rtol=1e-12, atol=1e-300
    )
    assert (susceptibility(e, 42.0, 4.0, shape) >= 0.0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_width_is_the_full_width_at_half_maximum(shape):
    e = np.linspace(30.0, 54.0, 24001)
    response_of_mode = susceptibility(e, 42.0, 2.0, shape)
    inside = e[response_of_mode >= 0.5 * response_of_mode.max()]
    assert inside[-1] - inside[0] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gain_obey_detailed_balance(shape):
    e = np.linspace(0.5, 120.0, 200)
    loss, gain = loss_spectrum(e, 42.0, 4.0, KT, shape), loss_spectrum(-e, 42.0, 4.0, KT, shape)
    np.testing.assert_allclose(gain, loss * np.exp(-e / KT), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("shape", SHAPES)
def test_value_at_zero_is_the_limit(shape):
    around = loss_spectrum(np.array([-1e-3, 0.0, 1e-3]), 22.0, 4.0, KT, shape)
    assert around[1] == pytest.approx(0.5 * (around[0] + around[2]), rel=1e-6)
    assert np.isfinite(around).all()


def test_oscillator_agrees_with_the_simulator():
    step, zero, n = 0.1, 1500, 4001
    energies = step * (np.arange(n) - zero)
    with np.errstate(divide="ignore", invalid="ignore"):
        occupied = energies / -np.expm1(-energies / KT)
    occupied[zero] = KT
    out = np.zeros(n)
    add_line(42.0, 4.0, 1000.0, 0, 0.0, np.zeros(2), 0.0, 1.0, step, zero, occupied, np.empty(n), out)
    ours = loss_spectrum(energies, 42.0, 4.0, KT, "oscillator")
    ours *= out.max() / ours.max()
    np.testing.assert_allclose(ours, out, rtol=1e-9, atol=1e-9 * out.max())


def test_slopes_of_the_split_pearson7_are_those_of_differences():
    x = np.linspace(-30.0, 30.0, 241)

    def peak(place=0.0, width=0.0, loss=0.0, gain=0.0):
        return split_pearson7(x - place, 8.0 * np.exp(width), 1.6 * np.exp(loss), 1.9 * np.exp(gain))

    *slopes, value = split_pearson7_slopes(x, 8.0, 1.6, 1.9)
    np.testing.assert_allclose(value, peak(), rtol=1e-13)
    for name, slope in zip(("place", "width", "loss", "gain"), slopes, strict=True):
        differences = (peak(**{name: 1e-4}) - peak(**{name: -1e-4})) / 2e-4
        # The curvature jumps at the mode, where a difference is off by its own step times that jump.
        np.testing.assert_allclose(slope, differences, atol=1e-6)
