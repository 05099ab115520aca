"""The fit of one spectrum against SciPy's optimum, at bounds, and on data that cannot be fitted."""

import numpy as np
import pytest
from scipy.optimize import minimize

from phonon_eels.forward.information import model_at
from phonon_eels.kernels.forward import N_LOCAL, work_size
from phonon_eels.kernels.least_squares import ENOUGH, fit_one
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, GAUSSIAN, NO_DATA, POISSON, SINGULAR, objective
from tests.unit.forward.spectra import SEPARATED, material_of, model_of, simulated, start_params, true_params

MATERIAL = material_of(*SEPARATED)


class Problem:
    """One spectrum, its model, and everything that `fit_one` is given."""

    def __init__(self, model, z, start, free=None, variance=None, likelihood=POISSON):
        self.model, self.z, self.likelihood = model, np.asarray(z, float), likelihood
        self.variance = np.ones_like(self.z) if variance is None else variance
        self.start = np.array(start, float)
        self.free = model.free(True) if free is None else free
        self.lower, self.upper = model.bounds()
        self.mean, self.precision = np.zeros(model.n_params), model.prior_precision()

    def fit(self, max_iterations=40):
        """Return status, parameters, deviations and outcome."""
        model, n, n_params = self.model, self.z.size, self.model.n_params
        params, std, outcome, tables = self.start.copy(), np.empty(n_params), np.empty(7), model.tables
        status, _ = fit_one(
            self.z, self.variance, model.shift_e, model.lags, self.likelihood, model.energies_mev, model.dispersion_mev,
            model.reference, model.background.rows, model.background.code, model.factor, tables.values,
            tables.first_node_mev, tables.node_step_mev, self.free, self.lower, self.upper, self.mean, self.precision,
            max_iterations, False, params, std, np.empty((n_params, n)), np.empty((model.n_modes, 4, n)),
            np.empty((n_params + 5, n)), np.empty((5, n)), np.empty((4, n_params + 4, n_params + 4)),
            np.empty((5, n_params)), np.empty(n_params, np.int64), np.empty(work_size(n)), np.empty(2 * n, np.int64), outcome,
        )  # fmt: skip
        return status, params, std, outcome

    def cost_and_slope(self, params):
        """Return the objective and its exact gradient with the derivative lines of the start."""
        model, n = self.model, self.z.size
        weight, residual = np.empty(n), np.empty(n)
        values, jacobian = model_at(model, params, np.clip(self.start, self.lower, self.upper))
        cost = objective(
            self.z, self.variance, values, model.shift_e, self.likelihood, params, self.mean, self.precision, weight, residual,
            np.empty(2 * n), np.empty(n, np.int64),
        )  # fmt: skip
        slope = -2.0 * jacobian @ (weight * residual) + 2.0 * self.precision * (params - self.mean)
        return cost, slope

    def scipy(self, near):
        """Return the least objective that SciPy finds from here, within the bounds."""
        free = np.flatnonzero(self.free)
        scale = np.maximum(np.abs(near[free]) * 1e-3, 1e-3)
        full = near.copy()

        def cost(x):
            full[free] = x * scale
            value, slope = self.cost_and_slope(full)
            return value, slope[free] * scale

        bounds = list(zip(self.lower[free] / scale, self.upper[free] / scale, strict=True))
        options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-8, "maxcor": 30}
        found = minimize(cost, near[free] / scale, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        full[free] = found.x * scale
        return float(found.fun), full


@pytest.fixture(scope="module")
def counted():
    detector = {"poisson": True, "gain": 2.5, "read_noise_e": 1.0}
    return simulated(
        5, 10, material=MATERIAL, detector=detector, energy={"jitter_mev": 0.1}, zero_loss={"width_wander": 0.02}
    )


def _problem(simulation, row, column, **changes):
    model = model_of(simulation, MATERIAL)
    image = simulation.image
    center = simulation.truth_maps["zlp_center_mev"].values[row, column]
    first = round(image.energy.channel(center)) + model.first_channel
    z = np.asarray(image.counts[row, column, first : first + model.energies_mev.size], float) / image.noise.gain
    return Problem(model, z, start_params(simulation, model)[row, column], **changes)


def test_objective_is_scipys_optimum(counted):
    for row in range(5):
        for column in range(10):
            problem = _problem(counted, row, column)
            status, params, std, outcome = problem.fit()
            assert status == CONVERGED
            best, _ = problem.scipy(params)
            # The last step's gain is predicted, not evaluated.
            assert outcome[0] == pytest.approx(problem.cost_and_slope(params)[0], abs=ENOUGH)
            assert outcome[0] <= best * (1.0 + 1e-6) + 1e-4, (row, column)
            assert np.isfinite(std[problem.free == 1]).all()


def test_weighted_least_squares_is_scipys_optimum(counted):
    for column in range(10):
        plain = _problem(counted, 0, column)
        variance = np.maximum(plain.z, 1.0) + 1.0
        problem = _problem(counted, 0, column, variance=variance, likelihood=GAUSSIAN)
        status, params, _, outcome = problem.fit()
        assert status == CONVERGED
        assert outcome[0] <= problem.scipy(params)[0] * (1.0 + 1e-6) + 1e-4
        assert outcome[0] == pytest.approx(outcome[1] + (problem.precision * params**2).sum(), abs=1e-2)


def test_start_far_away_comes_to_the_same_place(counted):
    near, far = _problem(counted, 1, 1), _problem(counted, 1, 1)
    far.start[0] *= 0.5
    far.start[1] += 0.4
    far.start[5] = 20.0
    far.start[N_LOCAL : N_LOCAL + 3] *= 3.0
    far.start[N_LOCAL + 3 : N_LOCAL + 6] += 1.0
    (_, a, std, first), (status, b, _, second) = near.fit(), far.fit(100)
    assert status == CONVERGED
    # Lines of derivatives are those of the start: the optimum moves by a small part of a standard deviation.
    free = near.free == 1
    assert np.abs((a - b)[free] / std[free]).max() < 0.1
    assert second[0] == pytest.approx(first[0], abs=0.1)


def test_noise_free_spectrum_gives_the_truth_back(counted):
    quiet = simulated(1, 1, material=MATERIAL)
    problem, model = _problem(quiet, 0, 0), model_of(quiet, MATERIAL)
    status, params, std, _ = problem.fit()
    truth = true_params(quiet, model)[0, 0]
    assert status == CONVERGED
    free = problem.free == 1
    assert np.abs((params - truth)[free] / std[free]).max() < 0.05


def test_energy_at_its_bound_is_told_and_the_rest_still_fits(counted):
    problem = _problem(counted, 0, 0)
    energy = N_LOCAL + 3 + 2
    problem.upper[energy] = 76.0
    status, params, std, outcome = problem.fit(100)
    assert status == AT_BOUND
    assert params[energy] == 76.0
    assert np.isnan(std[energy])
    others = np.flatnonzero(problem.free)
    others = others[others != energy]
    assert np.isfinite(std[others]).all()
    assert outcome[0] <= problem.scipy(params)[0] * (1.0 + 1e-6) + 1e-4


def test_start_outside_the_bounds_is_brought_inside(counted):
    problem = _problem(counted, 0, 0)
    problem.start[N_LOCAL + 3 : N_LOCAL + 6] = 1000.0
    _, params, _, _ = problem.fit(1)
    assert (params >= problem.lower).all()
    assert (params <= problem.upper).all()


def test_fixed_parameters_stay_and_have_no_deviation(counted):
    problem = _problem(counted, 0, 0)
    problem.free = problem.model.free(False)
    _, params, std, _ = problem.fit()
    held = problem.free == 0
    np.testing.assert_array_equal(params[held], problem.start[held])
    assert np.isnan(std[held]).all()


def test_areas_may_turn_negative(counted):
    empty = simulated(1, 8, material=MATERIAL, phonons={"area_e": 0.0}, detector={"poisson": True})
    areas, stds = [], []
    for column in range(8):
        problem = _problem(empty, 0, column)
        problem.free = problem.model.free(False)
        status, params, std, _ = problem.fit()
        assert status == CONVERGED
        areas.append(params[N_LOCAL : N_LOCAL + 3])
        stds.append(std[N_LOCAL : N_LOCAL + 3])
    assert np.min(areas) < 0.0
    assert abs(np.mean(np.array(areas) / np.array(stds))) < 3.0 / np.sqrt(24)


def test_too_few_channels_are_no_data(counted):
    problem = _problem(counted, 0, 0)
    problem.z[12:] = np.nan
    status, _, std, outcome = problem.fit()
    assert status in (NO_DATA, SINGULAR)
    assert np.isnan(std).all()
    assert outcome[2] <= 12


def test_flat_start_without_counts_does_not_raise(counted):
    problem = _problem(counted, 0, 0)
    problem.z[:] = 0.0
    problem.start[:] = 0.0
    status, params, _, _ = problem.fit()
    assert status != CONVERGED or np.isfinite(params).all()


def test_missing_channels_cost_information_only(counted):
    problem = _problem(counted, 0, 0)
    _, whole, std_whole, _ = problem.fit()
    problem.z[::7] = np.nan
    status, part, std_part, outcome = problem.fit()
    assert status == CONVERGED
    assert outcome[2] == np.isfinite(problem.z).sum()
    free = problem.free == 1
    assert (std_part[free] >= 0.999 * std_whole[free]).all()
    assert np.abs((part - whole)[free] / std_whole[free]).max() < 3.0


def test_more_iterations_than_allowed_is_told(counted):
    problem = _problem(counted, 0, 0)
    problem.start[N_LOCAL : N_LOCAL + 3] *= 5.0
    assert problem.fit(1)[0] == 1
