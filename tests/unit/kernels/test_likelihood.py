"""Likelihoods, normal equations, standard deviations, profiled scores."""

import math

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.forward.scan import Alignment, fit_scan
from phonon_eels.forward.zero_loss import zero_loss_model
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import (
    CONVERGED,
    FLOOR_E,
    GAUSSIAN,
    POISSON,
    deviations,
    dot,
    normal_equations,
    objective,
    profile_shared,
)
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage

NOTHING = np.zeros(1)


def _value(z, model, shift=0.0, likelihood=POISSON, variance=None, params=NOTHING, mean=NOTHING, precision=NOTHING):
    z, model = np.atleast_1d(np.asarray(z, float)), np.atleast_1d(np.asarray(model, float))
    variance = np.ones_like(z) if variance is None else variance
    weight, residual = np.empty_like(z), np.empty_like(z)
    work, bits = np.empty(2 * z.size), np.empty(z.size, np.int64)
    total = objective(z, variance, model, shift, likelihood, params, mean, precision, weight, residual, work, bits)
    return total, weight, residual


def _constant(truth, n=40_000, gain=1.0, dark=0.0, read=0.0, seed=0, channels=25, dtype=float):
    """Fit a constant to Poisson noise and return estimates with their deviations."""
    random = np.random.default_rng(seed)
    electrons = random.poisson(truth, (n // channels, 1, channels)) + read * random.normal(
        size=(n // channels, 1, channels)
    )
    counts = (gain * electrons + dark).astype(dtype)
    image = SpectrumImage(
        counts, EnergyAxis(-12.0, 1.0, channels), (ScanAxis("row", 1.0, n // channels), ScanAxis("column", 1.0, 1)),
        NoiseModel(gain=gain, dark_level=dark, read_noise_e=read),
    )  # fmt: skip
    model = zero_loss_model(ZeroLossShape(4.0, 1.5, 1.5), 12.0, 1.0, read**2, False, True)
    model.free_local[:] = (0, 0, 0, 0, 0, 1, 0, 0)
    start = np.zeros(N_LOCAL)
    start[5] = 0.7 * truth + 0.1
    fit = fit_scan(image, model, Alignment.at_zero(image), start, CpuBackend(1), free_energies=False)
    assert (fit.status == CONVERGED).all()
    return fit.params[..., 5].ravel(), fit.std[..., 5].ravel()


@pytest.mark.parametrize("truth", [20.0, 4.0, 0.5])
def test_mean_of_a_poisson_constant_is_not_biased(truth):
    found, std = _constant(truth)
    assert abs(found.mean() - truth) < 3.0 * math.sqrt(truth / 40_000)
    assert np.std(found) / np.sqrt(np.mean(std**2)) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    ("gain", "dark", "read"), [(0.1285, 0.0, 4.0), (5.0, 100.0, 0.0), (0.13, 7.0, 1.0), (2.5, 0.0, 4.0)]
)
def test_gain_dark_level_and_read_noise(gain, dark, read):
    found, std = _constant(3.0, gain=gain, dark=dark, read=read)
    assert abs(found.mean() - 3.0) < 3.5 * math.sqrt((3.0 + read**2) / 40_000)
    assert np.std(found) / np.sqrt(np.mean(std**2)) == pytest.approx(1.0, abs=0.06)


def test_dark_corrected_negatives_are_kept():
    """A mean of 0.2 electrons under 4 electrons of read noise: clipping the negatives would give about 1.7."""
    found, _ = _constant(0.2, read=4.0)
    assert abs(found.mean() - 0.2) < 3.5 * math.sqrt(16.2 / 40_000)
    total, weight, residual = _value([-3.0], [2.0], shift=4.0)
    assert weight[0] == pytest.approx(1.0 / 6.0)
    assert residual[0] == pytest.approx(-5.0)
    assert math.isfinite(total)
    # Even below minus the shift, where the logarithm of the data has no meaning.
    assert math.isfinite(_value([-30.0], [2.0], shift=4.0)[0])


@pytest.mark.parametrize("counts", [0.0, 1.0, 17.0])
def test_poisson_objective_is_least_at_the_counts(counts):
    grid = np.linspace(0.03, 40.0, 4000)
    best = grid[np.argmin([_value([counts], [m])[0] for m in grid])]
    assert best == pytest.approx(max(counts, 0.03), abs=0.02)
    if counts:
        assert _value([counts], [counts])[0] == pytest.approx(0.0, abs=1e-12)


def test_differences_of_the_objective_are_twice_log_likelihood_ratios():
    from scipy.stats import poisson

    z = np.array([0.0, 3.0, 8.0])
    a, b = np.array([1.0, 2.0, 9.0]), np.array([0.5, 4.0, 7.0])
    ratio = -2.0 * (poisson.logpmf(z, a).sum() - poisson.logpmf(z, b).sum())
    assert _value(z, a)[0] - _value(z, b)[0] == pytest.approx(ratio, rel=1e-12)


@pytest.mark.parametrize("likelihood", [POISSON, GAUSSIAN])
def test_missing_channels_weigh_nothing(likelihood):
    whole, weight, residual = _value([5.0, np.nan, np.inf], [4.0, 4.0, 4.0], likelihood=likelihood)
    assert whole == _value([5.0], [4.0], likelihood=likelihood)[0]
    assert (weight[1:] == 0.0).all()
    assert (residual[1:] == 0.0).all()


@pytest.mark.parametrize("variance", [np.nan, 0.0, -1.0])
def test_unknown_variance_weighs_nothing(variance):
    total, weight, _ = _value([5.0, 5.0], [4.0, 4.0], likelihood=GAUSSIAN, variance=np.array([2.0, variance]))
    assert total == pytest.approx(0.5)
    assert weight.tolist() == [0.5, 0.0]


def test_negative_model_is_held_at_the_floor():
    total, weight, _ = _value([3.0], [-5.0])
    assert weight[0] == pytest.approx(1.0 / FLOOR_E)
    assert math.isfinite(total)


def test_prior_adds_its_squared_distance():
    plain = _value([5.0], [4.0])[0]
    with_prior = _value([5.0], [4.0], params=np.array([3.0]), mean=np.array([1.0]), precision=np.array([0.25]))[0]
    assert with_prior - plain == pytest.approx(1.0)


def test_dot_sums_everything():
    a, b = np.random.default_rng(0).normal(size=(2, 1003))
    assert dot(a, b) == pytest.approx(math.fsum(a * b), rel=1e-12)


def _problem(seed=0, n=60, modes=2):
    random = np.random.default_rng(seed)
    n_params = N_LOCAL + 3 * modes
    jacobian = random.normal(size=(n_params, n))
    weight, residual = random.uniform(0.5, 2.0, n), random.normal(size=n)
    precision = np.where(np.arange(n_params) == 2, 4.0, 0.0)
    return jacobian, weight, residual, random.normal(size=n_params), precision


def test_normal_equations_and_standard_deviations():
    jacobian, weight, residual, params, precision = _problem()
    chosen, zeros = np.array([0, 2, 5, 8]), np.zeros_like(params)
    n = params.size
    matrices, gradient, rows = np.empty((4, n + 4, n + 4)), np.empty(4), np.empty((n + 5, weight.size))
    normal_equations(
        jacobian, weight, residual, chosen, 4, params, zeros, precision, rows, matrices[0], gradient
    )  # fmt: skip
    matrix = matrices[0, :4, :4]
    rows = jacobian[chosen]
    fisher = (rows * weight) @ rows.T + np.diag(precision[chosen])
    np.testing.assert_allclose(matrix, fisher, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient, rows @ (weight * residual) - precision[chosen] * params[chosen], rtol=1e-11)
    std = np.full(params.size, np.nan)
    spread = np.empty(weight.size)
    taken = deviations(rows, weight, 0.0, np.zeros(0), chosen, 4, precision, matrices, spread, std)
    assert taken == pytest.approx(4.0 - (precision[chosen] * std[chosen] ** 2).sum())
    np.testing.assert_allclose(std[chosen], np.sqrt(np.diag(np.linalg.inv(fisher))), rtol=1e-10)
    assert np.isnan(np.delete(std, chosen)).all()


def test_profiled_scores_are_the_schur_complement():
    modes = 2
    jacobian, weight, residual, params, precision = _problem(modes=modes)
    n = params.size
    free = np.ones(n, np.int8)
    free[[6, 7]] = 0
    free[N_LOCAL + modes :] = 0
    score, information, slope = np.empty(4), np.empty((4, 4)), np.empty((2, 4))
    profile_shared(
        jacobian, weight, residual, free, modes, params, np.zeros(n), precision, np.empty((n + 5, weight.size)),
        np.empty((4, n + 4, n + 4)), np.empty(n, np.int64), np.empty((4, n)), score, information, slope,
    )  # fmt: skip
    local, shared = np.flatnonzero(free), np.arange(N_LOCAL + modes, n)
    fisher = (jacobian * weight) @ jacobian.T + np.diag(precision)
    gradient = jacobian @ (weight * residual) - precision * params
    inverse = np.linalg.inv(fisher[np.ix_(local, local)])
    cross = fisher[np.ix_(shared, local)]
    np.testing.assert_allclose(information, fisher[np.ix_(shared, shared)] - cross @ inverse @ cross.T, rtol=1e-9)
    np.testing.assert_allclose(score, gradient[shared] - cross @ inverse @ gradient[local], rtol=1e-9, atol=1e-10)
    followed = -inverse @ cross.T
    areas = [int(np.flatnonzero(local == N_LOCAL + m)[0]) for m in range(modes)]
    np.testing.assert_allclose(slope, followed[areas], rtol=1e-9)
