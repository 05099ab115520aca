"""Exponential and logarithm of arrays against the library's."""

import numpy as np
import pytest

from phonon_eels.kernels.elementary import exp_array, log_array


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
