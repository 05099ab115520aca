"""Deviations, optima and intervals of the component fit, on spectra of known truth."""

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize
from scipy.stats import binom

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit.fit import fit_components
from phonon_eels.component_fit.intervals import profile_interval
from phonon_eels.component_fit.model import Component, build_model
from phonon_eels.component_fit.passes import MAX_EVALUATIONS, TOLERANCE, Problem
from phonon_eels.component_fit.result import STATUS_WORDS
from phonon_eels.component_fit.start import evaluate_model
from phonon_eels.errors import ConfigError
from phonon_eels.kernels.likelihood import POISSON
from tests.unit.component_fit.made_up import ENERGIES, TRUTH, counts, expected, three_gaussians

FEW = STATUS_WORDS.index("few_counts")


def within_binomial(hits, probability):
    """Return whether a number of hits lies in the 99 % limits."""
    low, high = binom.ppf([0.005, 0.995], hits.size, probability)
    return low <= hits.sum() <= high


@pytest.mark.slow
def test_pulls_coverage_and_efficiency():
    params = TRUTH * np.where(np.isin(np.arange(12), [0, 3, 6, 9, 11]), 4.0, 1.0)
    fit = fit_components(counts((50, 100), 11, params), ENERGIES, three_gaussians())
    assert (fit.status == 0).all()
    pulls = ((fit.values - params) / fit.std).reshape(-1, 12)
    n = pulls.shape[0]
    _, rows = evaluate_model(fit.model, params)
    mean = expected(three_gaussians(), params)
    bound = np.sqrt(np.diag(np.linalg.inv((rows[:, :180] / mean) @ rows[:, :180].T)))
    for p in (1, 4, 7):  # the energies
        assert abs(pulls[:, p].mean()) < 3.0 / np.sqrt(n)
        assert abs(pulls[:, p].std() - 1.0) < 0.03
        assert within_binomial(np.abs(pulls[:, p]) < 1.0, 0.6827)
        assert within_binomial(np.abs(pulls[:, p]) < 1.96, 0.95)
        rms = np.sqrt(np.mean((fit.values[..., p] - params[p]) ** 2))
        assert rms <= 1.05 * bound[p]


@pytest.mark.slow
def test_same_optimum_as_tight_scipy():
    y = counts((1, 400), 7)
    fit = fit_components(y, ENERGIES, three_gaussians())
    model, worse = fit.model, 0
    for k in range(400):
        data = y[0, k].astype(float)

        def deviance(scaled, data=data):
            mean, rows = evaluate_model(model, scaled * TRUTH)
            mean = np.maximum(mean[:180], 1e-9)
            value = 2.0 * np.sum(mean - data + data * np.log(np.where(data > 0, data, 1.0) / mean))
            return value, 2.0 * (rows[:, :180] @ (1.0 - data / mean)) * TRUTH

        start = fit.values[0, k] / TRUTH  # and from the truth: the lower one counts
        best = min(
            minimize(deviance, s, jac=True, method="L-BFGS-B", options={"maxiter": 3000, "maxfun": 9000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}).fun
            for s in (start, np.ones(12))
        )  # fmt: skip
        worse += fit.deviance[0, k] > best * (1.0 + 1e-6)
    assert worse == 0  # of 400: more than 99.9 % would be 0.4 of them


def test_bounded_pseudo_voigts_reach_the_optimum():
    energies = np.linspace(20.0, 110.0, 180)
    peaks = [
        Component("pseudo_voigt", n, {"centre": c, "fwhm": 7.0}, {"centre": (c - 8.0, c + 8.0), "fwhm": (2.0, 20.0)})
        for n, c in (("a", 38.0), ("b", 57.0), ("c", 78.0))
    ]
    components = [*peaks, Component("power_law", "tail", bounds={"exponent": (0.0, 10.0)})]
    truth = np.array([6e3, 38.5, 6.0, 0.1, 8e3, 57.0, 6.0, 0.5, 1e4, 77.6, 6.0, 0.9, 240.0, 2.0])
    y = np.random.default_rng(4).poisson(expected(components, truth, energies), (30, 180)).astype(float)
    fit = fit_components(y, energies, components, likelihood="gaussian", variance=250.0)
    assert (fit.status == 4).sum() > 3  # some fractions are at a bound
    model = build_model(components, energies)
    low, high = model.bounds[:2]
    for k in range(30):
        costs = []
        for start in (truth, fit.values[k, 0]):
            inside = np.clip(start, low + 1e-9, np.minimum(high - 1e-9, 1e12))
            tight = least_squares(
                lambda p, k=k: (evaluate_model(model, p)[0][:180] - y[k]) / np.sqrt(250.0), inside,
                lambda p: evaluate_model(model, p)[1][:, :180].T / np.sqrt(250.0), bounds=(low, high), x_scale=np.maximum(np.abs(truth), 0.1),
                ftol=1e-14, xtol=1e-14, gtol=1e-14, max_nfev=3000,
            )  # fmt: skip
            costs.append(2.0 * tight.cost)
        assert fit.deviance[k, 0] <= min(costs) * (1.0 + 1e-6)


def test_few_counts_are_told_and_profiled():
    energies = np.linspace(40.0, 75.0, 70)
    peak = Component("gaussian", "m", {"centre": 57.0, "fwhm": 6.0}, {"centre": (45.0, 70.0)}, fixed=("fwhm",))
    components = [peak, Component("offset", "floor", bounds={"value": (0.0, 50.0)})]
    truth = np.array([16.0, 57.0, 6.0, 0.5])  # electrons under the peak, half an electron per channel beside
    y = np.random.default_rng(8).poisson(expected(components, truth, energies), (300, 1, 70))
    fit = fit_components(y, energies, components)
    assert (np.isin(fit.status, (FEW, 4, 5))).mean() > 0.95  # the asymptotics fail, and the status says so
    problem = Problem(
        fit.model, y, None, None, np.ones(70), 0, 1.0, 0.0, 0.0, POISSON, TOLERANCE, MAX_EVALUATIONS
    )  # fmt: skip
    everywhere = np.ones(fit.status.shape, bool)
    low, high = profile_interval(problem, fit, "m.centre", CpuBackend(2), where=everywhere)
    assert (low <= fit.value("m.centre")).all()
    assert (high >= fit.value("m.centre")).all()
    covered = ((low <= 57.0) & (high >= 57.0)).mean()
    assert covered >= binom.ppf(0.005, 300, 0.6827) / 300  # never less than nominal; discreteness may make it more
    at = np.isfinite(fit.value_std("m.centre"))
    assert np.median(high[at] - low[at]) > 1.5 * np.median(fit.value_std("m.centre")[at])
    with pytest.raises(ConfigError, match="is not free"):
        profile_interval(problem, fit, "m.fwhm", CpuBackend(1), where=everywhere)
