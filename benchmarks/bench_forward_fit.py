"""Forward fit against SciPy: the same model, likelihood and spectra on one core, in one run.

Run: python benchmarks/bench_forward_fit.py [--spectra 2000] [--scipy 20]

Prints spectra per second of both, their ratio, and how far the objectives of both optima lie apart. SciPy minimises the same
objective (shifted Poisson and priors) with the same compiled model and Jacobian, so the ratio is that of the drivers,
not of Python against machine code.
"""

from __future__ import annotations

import argparse
import platform
import time
from importlib.metadata import version

import numpy as np
from scipy.optimize import minimize

from phonon_eels.backends.spectra import fit_block
from phonon_eels.config import load_material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.model import ForwardModel, build_forward_model
from phonon_eels.kernels.forward import N_LOCAL, correction_lines, evaluate
from phonon_eels.kernels.likelihood import POISSON, objective
from phonon_eels.kernels.response import ZeroLossShape

GAIN, READ_NOISE_E, AREA_E, HEIGHT_E = 2.5, 1.0, 1500.0, 1e4


def build_model() -> ForwardModel:
    """Return the default model of Bi2212 at 0.5 meV per channel."""
    shape = ZeroLossShape(7.5, 1.6, 1.9)
    channels = np.arange(-120, 231)
    return build_forward_model(
        FitPeaks(), load_material("bi2212"), channels, 0.5, shape, 25.25, shift_e=READ_NOISE_E**2
    )


def truth(model: ForwardModel) -> np.ndarray:
    """Return the parameters of all spectra."""
    local = [HEIGHT_E, 0.1, 0.01, 0.005, -0.005, 1.0, 0.0]
    return np.concatenate([local, np.full(model.n_modes, AREA_E), model.mode_energies_mev, np.zeros(model.n_modes)])


def run_model(
    model: ForwardModel, params: np.ndarray, corrections: np.ndarray, jacobian: np.ndarray, out: np.ndarray
) -> None:
    """Evaluate model and Jacobian by the compiled kernel."""
    tables = model.tables
    evaluate(
        params, model.energies_mev, model.dispersion_mev, model.reference, tables.values, tables.first_node_mev,
        tables.node_step_mev, corrections, jacobian, out,
    )  # fmt: skip


def simulate(model: ForwardModel, n: int) -> np.ndarray:
    """Return detector numbers, (n, channels)."""
    size = model.energies_mev.size
    params = truth(model)
    jacobian, expected = np.empty((params.size, size)), np.empty(size)
    run_model(model, params, _corrections(model, params), jacobian, expected)
    rng = np.random.default_rng(1)
    return GAIN * (rng.poisson(expected, (n, size)) + rng.normal(0.0, READ_NOISE_E, (n, size)))


def _corrections(model: ForwardModel, params: np.ndarray) -> np.ndarray:
    corrections = np.empty((model.n_modes, 4, model.energies_mev.size))
    tables = model.tables
    correction_lines(
        params, tables.values, tables.first_node_mev, tables.node_step_mev, model.dispersion_mev, corrections
    )
    return corrections


def ours(model: ForwardModel, counts: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit all spectra; return objectives and statuses."""
    n, size = counts.shape[0], start.size
    lower, upper = model.bounds()
    mean = np.zeros((n, size))
    mean[:, N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes] = model.mode_energies_mev
    params, std = np.tile(start, (n, 1)), np.empty((n, size))
    outcome, status = np.empty((n, 4)), np.empty(n, np.int64)
    none = np.empty((0, 0))
    zero = np.full(n, -model.first_channel)
    free = np.tile(model.free(True), (n, 1))
    fit_block(
        counts, np.empty((0, 0), bool), none, zero, GAIN, 0.0, model.shift_e, POISSON, model.first_channel,
        model.energies_mev, model.dispersion_mev, model.reference, model.tables.values, model.tables.first_node_mev,
        model.tables.node_step_mev, free, lower, upper, mean, prior(model), 40, params, std, outcome, status, none,
        np.empty((0, 0, 0)), np.empty((0, 0, 0)),
    )  # fmt: skip
    return outcome[:, 0], status


def prior(model: ForwardModel) -> np.ndarray:
    """Return the prior precisions: the close pair keeps the material's."""
    stds = np.full(model.n_modes, np.inf)
    stds[1:3] = 1.5
    return model.prior_precision(stds)


def scipy_fit(model: ForwardModel, counts: np.ndarray, start: np.ndarray) -> float:
    """Minimise the same objective of one spectrum by L-BFGS-B with the analytic gradient, scaled, tight tolerance."""
    free = np.flatnonzero(model.free(True))
    size = model.energies_mev.size
    jacobian, out, weight, residual = np.empty((start.size, size)), np.empty(size), np.empty(size), np.empty(size)
    corrections = _corrections(model, start)
    mean = np.zeros(start.size)
    mean[N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes] = model.mode_energies_mev
    precision = prior(model)
    scale = np.where(np.abs(start) > 1.0, 0.05 * np.abs(start), 0.05)
    z, ones = counts / GAIN, np.ones(size)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        params = start.copy()
        params[free] = x * scale[free]
        run_model(model, params, corrections, jacobian, out)
        total = objective(z, ones, out, model.shift_e, POISSON, params, mean, precision, weight, residual)
        gradient = -2.0 * (jacobian @ (weight * residual)) + 2.0 * precision * (params - mean)
        return total, gradient[free] * scale[free]

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30}
    return float(minimize(value, start[free] / scale[free], jac=True, method="L-BFGS-B", options=options).fun)


def main() -> None:
    """Time both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spectra", type=int, default=2000)
    parser.add_argument("--scipy", type=int, default=20)
    asked = parser.parse_args()
    model = build_model()
    counts = simulate(model, asked.spectra)
    start = truth(model)
    start[[1, 2, 3, 4]] = 0.0
    start[N_LOCAL : N_LOCAL + model.n_modes] *= 0.8
    ours(model, counts[:2], start)  # compiles
    began = time.perf_counter()
    objectives, status = ours(model, counts, start)
    rate = asked.spectra / (time.perf_counter() - began)
    began = time.perf_counter()
    theirs = np.array([scipy_fit(model, row, start) for row in counts[: asked.scipy]])
    their_rate = asked.scipy / (time.perf_counter() - began)
    difference = objectives[: asked.scipy] - theirs
    print(f"{platform.processor() or platform.machine()}, one core; numba {version('numba')}, scipy {version('scipy')}")
    print(
        f"model: {model.n_modes} oscillators through a split Pearson VII, {int(model.free(True).sum())} free, {model.energies_mev.size} channels"
    )
    print(f"phonon_eels {rate:.0f} spectra/s, scipy L-BFGS-B {their_rate:.1f} spectra/s: ratio {rate / their_rate:.0f}")
    print(f"not converged or at a bound: {int((status != 0).sum())} of {asked.spectra}")
    print(f"objective, ours less scipy's: median {np.median(difference):.2e}, largest {difference.max():.2e}")


if __name__ == "__main__":
    main()
