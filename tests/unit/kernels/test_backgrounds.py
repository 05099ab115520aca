"""Backgrounds fitted to windows."""

import numpy as np
import pytest

from phonon_eels.kernels.background_shapes import (
    DOUBLE_EXPONENTIAL,
    EXP_POLYNOMIAL2,
    EXP_POLYNOMIAL3,
    EXP_POLYNOMIAL4,
    EXPONENTIAL,
    LOG_QUADRATIC,
    N_PARAMETERS,
    PEARSON7,
    POWER_LAW,
    REFERENCE,
    background_curve_one,
    background_value,
)
from phonon_eels.kernels.backgrounds import (
    AT_BOUND,
    CONVERGED,
    NO_COUNTS,
    SMALL_ROWS,
    TOO_FEW_CHANNELS,
    fit_background_one,
)
from phonon_eels.kernels.lineshapes import split_pearson7

ENERGIES = np.arange(10.0, 240.0, 0.5)
WINDOWS = ((ENERGIES >= 15.0) & (ENERGIES <= 25.0)) | ((ENERGIES >= 110.0) & (ENERGIES <= 150.0))
FITTED = ENERGIES[WINDOWS]
REFERENCE_MEV = 50.0
TRUTH = {
    PEARSON7: np.array([np.log(1e6), np.log(8.0), 1.6, 0.2, np.nan]),
    LOG_QUADRATIC: np.array([6.0, -2.5, -0.3, np.nan, np.nan]),
    POWER_LAW: np.array([500.0, 2.5, np.nan, np.nan, np.nan]),
    EXPONENTIAL: np.array([500.0, 0.02, np.nan, np.nan, np.nan]),
    DOUBLE_EXPONENTIAL: np.array([400.0, 0.05, 100.0, 0.008, np.nan]),
    EXP_POLYNOMIAL2: np.array([6.0, -1.3, 0.2, np.nan, np.nan]),
    EXP_POLYNOMIAL3: np.array([6.0, -1.3, 0.3, -0.05, np.nan]),
    EXP_POLYNOMIAL4: np.array([6.0, -1.4, 0.4, -0.1, 0.01]),
    REFERENCE: np.array([2e6, 0.4, 0.05, np.nan, np.nan]),
}
OF_ZERO_LOSS = (PEARSON7, REFERENCE)
_OWN = np.arange(-60.0, 300.0, 0.5)
MEASURED = np.concatenate([[_OWN[0], 0.5, 8.0], split_pearson7(_OWN, 8.0, 1.6, 1.9)])
Fit = tuple[int, np.ndarray, np.ndarray]


def curve(shape: int, parameters: np.ndarray, energies: np.ndarray) -> np.ndarray:
    gradient = np.empty(5)
    return np.array(
        [background_value(shape, parameters, energy, REFERENCE_MEV, MEASURED, gradient) for energy in energies]
    )


def fit(
    shape: int,
    counts: np.ndarray,
    variance: np.ndarray | None = None,
    usable: np.ndarray | None = None,
    peak: float | None = None,
) -> Fit:
    parameters, covariance = np.empty(5), np.empty((5, 5))
    status = fit_background_one(
        shape,
        FITTED,
        counts,
        np.maximum(counts, 1.0) if variance is None else variance,
        np.ones(FITTED.size, dtype=bool) if usable is None else usable,
        float(np.nanmax(counts)) if peak is None else peak,
        REFERENCE_MEV,
        MEASURED,
        parameters,
        covariance,
        np.empty((3, FITTED.size)),
        np.empty((SMALL_ROWS, 5)),
    )
    return status, parameters, covariance


@pytest.mark.parametrize("shape", sorted(TRUTH))
def test_gradient_is_the_derivative(shape: int) -> None:
    gradient, unused = np.empty(5), np.empty(5)
    for energy in (-30.0, 0.3, 42.0, 200.0):
        if energy < 0.0 and shape in (LOG_QUADRATIC, POWER_LAW):
            continue
        background_value(shape, TRUTH[shape], energy, REFERENCE_MEV, MEASURED, gradient)
        for number in range(N_PARAMETERS[shape]):
            step = np.zeros(5)
            step[number] = 1e-6 * max(1.0, abs(TRUTH[shape][number]))
            up = background_value(shape, TRUTH[shape] + step, energy, REFERENCE_MEV, MEASURED, unused)
            down = background_value(shape, TRUTH[shape] - step, energy, REFERENCE_MEV, MEASURED, unused)
            numerical = (up - down) / (2.0 * step[number])
            assert gradient[number] == pytest.approx(numerical, rel=1e-5, abs=1e-6 * abs(up))


def test_pearson7_is_the_loss_side_of_the_zero_loss_peak() -> None:
    ours = curve(PEARSON7, np.array([0.0, np.log(8.0), 1.6, 0.0]), FITTED)
    assert ours == pytest.approx(split_pearson7(FITTED, 8.0, 1.6, 2.5))


@pytest.mark.parametrize("shape", sorted(TRUTH))
def test_known_background_is_found(shape: int) -> None:
    truth = curve(shape, TRUTH[shape], FITTED)
    status, parameters, covariance = fit(shape, truth, peak=1e6 if shape in OF_ZERO_LOSS else None)
    assert status == CONVERGED
    everywhere = curve(shape, TRUTH[shape], ENERGIES)
    assert curve(shape, parameters, ENERGIES) == pytest.approx(everywhere, rel=1e-3)
    value, variance = np.empty(ENERGIES.size), np.empty(ENERGIES.size)
    background_curve_one(
        shape, parameters, covariance.ravel(), ENERGIES, REFERENCE_MEV, MEASURED, np.empty((2, 5)), value, variance
    )
    assert value == pytest.approx(everywhere, rel=1e-3)
    assert (variance > 0.0).all()


@pytest.mark.statistics
@pytest.mark.parametrize("shape", [LOG_QUADRATIC, POWER_LAW, EXPONENTIAL, EXP_POLYNOMIAL2])
@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_standard_deviations_are_right_and_low_counts_do_not_bias(shape: int, scale: float) -> None:
    rng = np.random.default_rng(4)
    truth = scale * curve(shape, TRUTH[shape], FITTED)
    middle, values, deviations = np.array([60.0]), [], []
    for _ in range(400):
        counts = rng.poisson(truth).astype(float)
        _, parameters, covariance = fit(shape, counts, variance=np.maximum(truth, 0.05))
        value, variance = np.empty(1), np.empty(1)
        background_curve_one(
            shape, parameters, covariance.ravel(), middle, REFERENCE_MEV, MEASURED, np.empty((2, 5)), value, variance
        )
        values.append(value[0])
        deviations.append(np.sqrt(variance[0]))
    true_middle = scale * curve(shape, TRUTH[shape], middle)[0]
    spread = np.std(values)
    assert np.mean(values) == pytest.approx(true_middle, abs=0.25 * spread)
    assert np.sqrt(np.mean(np.square(deviations))) == pytest.approx(spread, rel=0.15)


@pytest.mark.statistics
def test_published_recipe_stays_below_the_data() -> None:
    """The one-sided weights of the recipe: half or more of the channels would lie below an unbiased fit."""
    rng = np.random.default_rng(5)
    truth = curve(PEARSON7, TRUTH[PEARSON7], FITTED)
    below = []
    for _ in range(30):
        counts = rng.poisson(truth).astype(float)
        status, parameters, _ = fit(PEARSON7, counts, peak=1e6)
        assert status in (CONVERGED, AT_BOUND)
        below.append((counts < curve(PEARSON7, parameters, FITTED)).mean())
    assert np.mean(below) < 0.35


def test_bounds_are_always_active() -> None:
    rising = 100.0 + FITTED
    status, parameters, covariance = fit(POWER_LAW, rising)
    assert status == AT_BOUND
    assert parameters[1] == 0.0
    assert covariance[1, 1] == 0.0
    status, parameters, _ = fit(PEARSON7, rising**3, peak=float(rising.max() ** 3))
    assert status in (CONVERGED, AT_BOUND)
    rising = rising**3
    assert np.log(0.5 * rising.max()) - 1e-9 <= parameters[0] <= np.log(10.0 * rising.max()) + 1e-9
    assert np.log(2.0) <= parameters[1] <= np.log(50.0)
    assert 0.1 <= parameters[2] <= 5.0
    assert -1.0 <= parameters[3] <= 1.0


@pytest.mark.parametrize("shape", sorted(TRUTH))
@pytest.mark.parametrize("factor", [1e-9, 1e6])
def test_scale_of_the_counts_does_not_matter(shape: int, factor: float) -> None:
    counts = np.random.default_rng(6).poisson(curve(shape, TRUTH[shape], FITTED)).astype(float)
    variance, peak = np.maximum(counts, 1.0), float(counts.max())
    status, parameters, covariance = fit(shape, counts, variance, peak=peak)
    scaled = fit(shape, factor * counts, factor**2 * variance, peak=factor * peak)
    assert scaled[0] == status
    assert curve(shape, scaled[1], FITTED) == pytest.approx(factor * curve(shape, parameters, FITTED), rel=1e-6)
    linear = shape in (POWER_LAW, EXPONENTIAL, DOUBLE_EXPONENTIAL, REFERENCE)
    relative = factor if linear else 1.0
    assert scaled[2][0, 0] == pytest.approx(relative**2 * covariance[0, 0], rel=1e-4, abs=1e-30)


def test_masked_and_missing_channels_do_not_enter() -> None:
    truth = curve(EXPONENTIAL, TRUTH[EXPONENTIAL], FITTED)
    spoilt, usable, variance = truth.copy(), np.ones(FITTED.size, dtype=bool), truth.copy()
    spoilt[3], usable[3] = 1e9, False
    spoilt[7] = np.nan
    variance[11], spoilt[11] = np.nan, 1e9
    status, parameters, _ = fit(EXPONENTIAL, spoilt, variance, usable, peak=truth.max())
    assert status == CONVERGED
    assert parameters[:2] == pytest.approx(TRUTH[EXPONENTIAL][:2], rel=1e-6)


@pytest.mark.parametrize("shape", sorted(TRUTH))
def test_what_cannot_be_fitted_says_so(shape: int) -> None:
    zeros, ones = np.zeros(FITTED.size), np.ones(FITTED.size)
    assert fit(shape, zeros, ones, peak=0.0)[0] == NO_COUNTS
    status, parameters, covariance = fit(shape, zeros, ones, peak=1e5)
    assert status == NO_COUNTS
    assert np.isnan(parameters).all()
    assert np.isnan(covariance).all()
    assert fit(shape, np.full(FITTED.size, np.nan), ones, peak=np.nan)[0] == NO_COUNTS
    few = np.zeros(FITTED.size, dtype=bool)
    few[:2] = True
    assert fit(shape, 1e3 * ones, ones, few)[0] == TOO_FEW_CHANNELS


def test_measured_peak_is_read_between_its_channels() -> None:
    ours = curve(REFERENCE, np.array([1.0, 0.0, 0.0, np.nan, np.nan]), np.arange(-30.0, 60.0, 0.13))
    assert ours == pytest.approx(split_pearson7(np.arange(-30.0, 60.0, 0.13), 8.0, 1.6, 1.9), abs=2e-3)
    wide = curve(REFERENCE, np.array([3.0, 1.0, 0.1, np.nan, np.nan]), ENERGIES)
    assert wide == pytest.approx(3.0 * split_pearson7(ENERGIES - 1.0, 8.0 * np.exp(0.1), 1.6, 1.9), rel=1e-3)


def test_one_zero_count_does_not_spoil_the_background() -> None:
    """A peer takes the logarithm of the counts and returns 0 everywhere if a single one is 0."""
    truth = curve(POWER_LAW, TRUTH[POWER_LAW], FITTED)
    spoilt = truth.copy()
    spoilt[25] = 0.0
    for shape in (LOG_QUADRATIC, POWER_LAW, EXP_POLYNOMIAL2, DOUBLE_EXPONENTIAL):
        status, parameters, _ = fit(shape, spoilt, truth)
        assert status in (CONVERGED, AT_BOUND)
        have, want = curve(shape, parameters, FITTED)[22:40], curve(shape, fit(shape, truth, truth)[1], FITTED)[22:40]
        assert have == pytest.approx(want, rel=0.08)
