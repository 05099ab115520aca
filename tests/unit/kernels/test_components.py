import numpy as np
import pytest
from scipy.special import voigt_profile

from phonon_eels.component_fit.model import Component, Tie, build_model
from phonon_eels.component_fit.start import evaluate_model
from phonon_eels.kernels.component_normal import form_normal
from phonon_eels.kernels.component_solve import back_substitute, element, factor, invert, set_element
from phonon_eels.kernels.elementary import exp_in_place, log_and_inverse, log_one
from phonon_eels.kernels.lineshapes import susceptibility

ENERGIES = np.linspace(-40.0, 160.0, 401)
PEAKS = {
    "gaussian": [100.0, 55.3, 7.0],
    "lorentzian": [100.0, 55.3, 7.0],
    "pseudo_voigt": [100.0, 55.3, 7.0, 0.3],
    "voigt": [100.0, 55.3, 5.0, 4.0],
    "oscillator": [100.0, 55.3, 9.0],
}
BACKGROUNDS = {
    "offset": [3.0],
    "polynomial": [3.0, -1.0, 0.5, 0.2],
    "power_law": [30.0, 2.3],
    "exponential": [30.0, 0.02],
    "double_exponential": [30.0, 0.02, 5.0, 0.1],
    "exp_polynomial": [1.0, -0.7, 0.3],
}


def model_of(kind, values):
    start = {"centre": 50.0, "fwhm": 5.0, "fwhm_gauss": 5.0, "fwhm_lorentz": 5.0}
    degree = len(values) - 1 if "polynomial" in kind else 1
    names = Component(kind, "x", degree=degree).parameters
    component = Component(kind, "x", {k: v for k, v in start.items() if k in names}, degree=degree)
    energies = ENERGIES if kind != "power_law" else ENERGIES[ENERGIES > 5.0]
    return build_model([component], energies)


@pytest.mark.parametrize("kind", [*PEAKS, *BACKGROUNDS])
def test_derivatives_are_those_of_the_value(kind):
    values = np.array({**PEAKS, **BACKGROUNDS}[kind])
    model = model_of(kind, values)
    _, rows = evaluate_model(model, values)
    for p, value in enumerate(values):
        small = 1e-5 * max(abs(value), 1.0)
        above, below = (evaluate_model(model, values + s * small * np.eye(values.size)[p])[0] for s in (1, -1))
        slope = (above - below) / (2.0 * small)
        np.testing.assert_allclose(rows[p], slope, atol=2e-7 * np.abs(slope).max(), err_msg=model.names[p])


@pytest.mark.parametrize("kind", ["gaussian", "pseudo_voigt", "voigt", "lorentzian", "oscillator"])
def test_area_is_the_sum_over_channels(kind):
    values = np.array(PEAKS[kind])
    wide = np.linspace(-4000.0, 4000.0, 40001) if kind != "oscillator" else np.linspace(0.0, 8000.0, 40001)
    component = Component(kind, "x", dict(zip(Component(kind, "x").parameters, values, strict=True)))
    curve, _ = evaluate_model(build_model([component], wide), values)
    assert curve[: wide.size].sum() == pytest.approx(100.0, rel=2e-3)


def test_shapes_agree_with_scipy_and_with_the_forward_lines():
    model = model_of("voigt", PEAKS["voigt"])
    for gauss, lorentz in ((5.0, 4.0), (5.0, 0.0), (0.6, 20.0)):
        ours = evaluate_model(model, np.array([1.0, 55.3, gauss, lorentz]))[0][:401] / model.channel_mev
        theirs = voigt_profile(ENERGIES - 55.3, gauss / 2.3548200450309493, lorentz / 2.0)
        np.testing.assert_allclose(ours, theirs, atol=1e-11 * theirs.max())
    ours = evaluate_model(model_of("oscillator", PEAKS["oscillator"]), np.array(PEAKS["oscillator"]))[0][:401]
    line = susceptibility(ENERGIES, 55.3, 9.0, "oscillator")
    np.testing.assert_allclose(ours / ours.max(), line / line.max(), atol=1e-12)


def test_an_overdamped_oscillator_is_no_peak():
    values, _ = evaluate_model(model_of("oscillator", PEAKS["oscillator"]), np.array([100.0, 20.0, 41.0]))
    assert np.isnan(values).all()


def test_tied_parameters_carry_their_derivative_to_the_owner():
    energies = np.linspace(20.0, 80.0, 161)
    first = Component("gaussian", "a", {"centre": 40.0, "fwhm": 5.0})
    second = Component(
        "gaussian", "b", tied={"centre": Tie("a.centre", offset=9.0), "fwhm": Tie("a.fwhm"), "area": Tie("a.area", 0.5)}
    )
    model = build_model([first, second], energies)
    assert model.free_names == ("a.area", "a.centre", "a.fwhm")
    values = model.with_tied(np.array([100.0, 40.0, 5.0, 0.0, 0.0, 0.0]))
    assert values.tolist() == [100.0, 40.0, 5.0, 50.0, 49.0, 5.0]
    _, rows = evaluate_model(model, values)
    for p in model.free:
        moved = [evaluate_model(model, model.with_tied(values + s * 1e-5 * np.eye(6)[p]))[0] for s in (1, -1)]
        slope = (moved[0] - moved[1]) / 2e-5
        np.testing.assert_allclose(rows[p], slope, atol=1e-6 * np.abs(slope).max())


def test_exponential_and_logarithm():
    x = np.linspace(-700.0, 700.0, 4001)
    ours = x.copy()
    exp_in_place(ours)
    assert (np.abs(ours / np.exp(x) - 1.0) < 4.5e-16 + 3.4e-17 * np.abs(x)).all()
    y = np.exp(np.linspace(-600.0, 600.0, 4001))
    assert max(abs(log_one(v) - np.log(v)) / max(abs(np.log(v)), 1e-3) for v in y) < 4.5e-16
    both = np.array([log_and_inverse(v) for v in y])
    assert (np.abs(both[:, 0] - np.log(y)) / np.maximum(np.abs(np.log(y)), 1e-3) < 9e-16).all()
    assert (np.abs(both[:, 1] * y - 1.0) < 9e-16).all()


def as_tiles(matrix):
    """Return the upper triangle as the tiles of `component_solve`, filled up with the unit matrix."""
    n = len(matrix)
    blocks = -(-n // 4)
    tiles = np.zeros((blocks**2, 16))
    for a in range(4 * blocks):
        for b in range(4 * blocks):
            set_element(tiles, blocks, a, b, matrix[a, b] if max(a, b) < n else float(a == b))
    return tiles


@pytest.mark.parametrize("n", [1, 4, 6, 7, 13, 14])  # 6 and 14: the last tile is filled by half
def test_normal_equations_and_their_solution(n):
    random = np.random.default_rng(n)
    rows = np.zeros((n + 1, 64))
    rows[:n] = random.normal(size=(n, 64))
    weight, pull = random.uniform(0.5, 2.0, 64), random.normal(size=64)
    index = np.concatenate([np.arange(n), np.full((-n) % 4 + 4, n)])
    blocks = -(-n // 4)
    gram, gradient = np.zeros((blocks**2, 16)), np.zeros(4 * blocks)
    spans = np.zeros((2, n + 1))
    spans[1] = 64
    rows[0, :16] = rows[0, 40:] = 0.0
    spans[:, 0] = 16, 40
    rows[n // 2, 48:] = 0.0
    spans[1, n // 2] = min(spans[1, n // 2], 48)
    form_normal(rows, index, blocks, weight, pull, spans, gram, gradient)
    truth = (rows[:n] * weight) @ rows[:n].T
    formed = np.array([[element(gram, blocks, a, b) for b in range(n)] for a in range(n)])
    np.testing.assert_allclose(formed, truth, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient[:n], rows[:n] @ pull, rtol=1e-12, atol=1e-12)
    upper = as_tiles(truth)
    inverse, out, diagonal = np.empty(4 * blocks), np.empty(4 * blocks), np.empty(4 * blocks)
    rhs = gradient.copy()
    assert factor(upper, blocks, rhs, inverse, np.empty(4 * blocks)) == 0
    back_substitute(upper, blocks, rhs, inverse, out)
    np.testing.assert_allclose(out[:n], np.linalg.solve(truth, gradient[:n]), rtol=1e-10)
    whole = np.empty((n, n))
    invert(upper, blocks, inverse, np.empty((blocks**2, 16)), diagonal, np.empty((0, 1)))
    np.testing.assert_allclose(diagonal[:n], np.diag(np.linalg.inv(truth)), rtol=1e-10)
    invert(upper, blocks, inverse, np.empty((blocks**2, 16)), diagonal, whole)
    np.testing.assert_allclose(whole, np.linalg.inv(truth), rtol=1e-9, atol=1e-14)


def test_a_parameter_that_others_make_up_takes_no_step():
    matrix = np.array([[2.0, 2.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    upper, rhs = as_tiles(matrix), np.array([4.0, 4.0, 8.0, 3.0])
    inverse, out = np.empty(4), np.empty(4)
    assert factor(upper, 1, rhs, inverse, np.empty(4)) == 1
    back_substitute(upper, 1, rhs, inverse, out)
    np.testing.assert_allclose(out, [2.0, 0.0, 2.0, 3.0])


UNEVEN = np.concatenate([np.linspace(-40.0, 20.0, 90), np.linspace(20.5, 160.0, 401)])  # no multiple of 8
EVEN = np.linspace(-40.0, 160.0, 491)  # where the exponential goes along by multiplications


@pytest.mark.parametrize("energies", [UNEVEN, EVEN], ids=["uneven", "even"])
@pytest.mark.parametrize("kind", ["gaussian", "pseudo_voigt"])
@pytest.mark.parametrize("centre", [-39.0, 3.3, 159.9, 400.0])
@pytest.mark.parametrize("fwhm", [0.05, 2.0, 9.0, 300.0])
def test_cutting_a_peak_where_it_has_vanished_changes_nothing(kind, centre, fwhm, energies):
    model = build_model([Component(kind, "x", {"centre": 0.0, "fwhm": 5.0})], energies)
    value, rows = evaluate_model(model, np.array([100.0, centre, fwhm, 0.0][: len(model.names)]))
    unit = 2.0 * np.sqrt(np.log(2.0) / np.pi) / fwhm * np.exp(-4.0 * np.log(2.0) * ((energies - centre) / fwhm) ** 2)
    unit *= model.channel_mev
    away = (energies - centre) / fwhm
    expected = [
        unit,
        800.0 * np.log(2.0) * away / fwhm * unit,
        100.0 / fwhm * unit * (8.0 * np.log(2.0) * away**2 - 1.0),
    ]
    least = 1e-15 * unit.max() + 1e-250
    np.testing.assert_allclose(value[: energies.size], 100.0 * unit, rtol=1e-12, atol=100.0 * least)
    for row, wanted in zip(rows[:3], expected, strict=True):
        np.testing.assert_allclose(row[: energies.size], wanted, rtol=1e-11, atol=1e-14 * np.abs(wanted).max() + 1e-250)
