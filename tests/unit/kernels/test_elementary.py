"""Exponential and logarithm of arrays against the library's."""

import numpy as np
import pytest

from phonon_eels.kernels.elementary import exp_array, exp_of_parabola, log_array


def in_units_of_last_place(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(value - exact) / np.spacing(np.abs(exact))))


@pytest.mark.parametrize(("low", "high"), [(-700.0, 700.0), (-1.0, 1.0), (-1e-9, 1e-9)])
def test_exp_is_right_to_two_units_in_the_last_place(low: float, high: float) -> None:
    x = np.random.default_rng(0).uniform(low, high, 20_000)
    out = np.empty_like(x)
    exp_array(x, out, np.empty(x.size, np.int64))
    assert in_units_of_last_place(out, np.exp(x)) <= 2.0


@pytest.mark.parametrize(("low", "high"), [(-300.0, 300.0), (-1.0, 1.0), (1e-6, 1e-3)])
def test_log_is_right_to_two_units_in_the_last_place(low: float, high: float) -> None:
    x = np.exp(np.random.default_rng(0).uniform(low, high, 20_000))
    out = np.empty_like(x)
    log_array(x, out, np.empty(x.size, np.int64))
    assert in_units_of_last_place(out, np.log(x)) <= 2.0


def test_exp_is_clamped_and_exact_at_zero() -> None:
    x = np.array([0.0, 1e4, -1e4])
    out = np.empty(3)
    exp_array(x, out, np.empty(3, np.int64))
    assert out[0] == 1.0
    assert np.isfinite(out).all()
    assert out[2] > 0.0


@pytest.mark.parametrize("step", [0.5, 0.0], ids=["along a grid", "one by one"])
@pytest.mark.parametrize(
    ("curvature", "slope"),
    [(-0.02, 0.0), (-3e-6, 0.0), (0.0, -0.05), (0.0, 0.3), (-0.01, 0.02), (-60.0, 0.0), (0.0, 0.0)],
)
def test_exponential_of_a_parabola(curvature, slope, step):
    x = 20.0 + 0.5 * np.arange(640)  # more than are gone along without a new start
    d = x - 60.3
    x, d = (x, d) if curvature > -1e-3 else (x[:128], d[:128])
    out = np.full(x.size, np.nan)
    exp_of_parabola(x, step, 60.3, curvature, slope, out, np.empty((2, x.size)))
    truth = np.exp(np.clip(curvature * d**2 + slope * d, -700.0, 700.0))
    np.testing.assert_allclose(out, truth, rtol=2e-13)


@pytest.mark.parametrize("n", [8, 24, 61])
def test_exponential_along_a_grid_of_any_length(n):
    x = 0.25 * np.arange(n)
    out = np.full(n, np.nan)
    exp_of_parabola(x, 0.25, 3.0, -0.1, 0.2, out, np.empty((2, n)))
    np.testing.assert_allclose(out, np.exp(-0.1 * (x - 3.0) ** 2 + 0.2 * (x - 3.0)), rtol=1e-13)
