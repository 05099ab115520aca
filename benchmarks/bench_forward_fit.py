"""Forward fit against SciPy: the same model, likelihood and spectra, in one run.

Run: python benchmarks/bench_forward_fit.py [--spectra 3000] [--scipy 20] [--quick]

Two cases: all six modes of Bi2212 over 351 channels (18 free parameters), and four modes over 240 channels (14 free). For each: spectra
per second with standard deviations on one thread and on two, with intervals by profile likelihood forced for every
energy, and by SciPy; the share of the machine's own bound; how far the objectives of both optima lie apart. SciPy
minimises the same objective (shifted Poisson and priors) with the same compiled model and Jacobian, so the ratio is that
of the drivers, not of Python against machine code. Times are the least of several, interleaved.

The bound: multiply-adds that model, Jacobian, objective and normal equations cannot do without (counted in
`multiply_adds`), at the rate that the Gram kernel reaches on rows in the nearest cache.
"""

from __future__ import annotations

import argparse
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from scipy.optimize import minimize

from phonon_eels.backends.spectra import fit_block
from phonon_eels.config import load_material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.information import model_at
from phonon_eels.forward.model import ForwardModel, build_forward_model
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import POISSON, gram, objective
from phonon_eels.kernels.response import ZeroLossShape

GAIN, READ_NOISE_E, AREA_E, HEIGHT_E = 2.5, 1.0, 1500.0, 1e4
REPEATS = 5


@dataclass(frozen=True)
class Case:
    """A model, its spectra, and where every fit starts."""

    name: str
    model: ForwardModel
    precision: np.ndarray
    counts: np.ndarray
    start: np.ndarray


def build_model(names: tuple[str, ...], channels: np.ndarray, dispersion_mev: float) -> ForwardModel:
    """Return the model of some modes of Bi2212."""
    material = load_material("bi2212")
    if names:
        modes = tuple(mode for mode in material.modes if mode.name in names)
        material = material.model_copy(update={"modes": modes, "pairs": ()})
    shape = ZeroLossShape(7.5, 1.6, 1.9)
    return build_forward_model(FitPeaks(), material, channels, dispersion_mev, shape, 25.25, shift_e=READ_NOISE_E**2)


def truth(model: ForwardModel) -> np.ndarray:
    """Return the parameters of all spectra."""
    local = [HEIGHT_E, 0.1, 0.01, 0.005, -0.005, 1.0, 0.0, 0.0]
    return np.concatenate([local, np.full(model.n_modes, AREA_E), model.mode_energies_mev, np.zeros(model.n_modes)])


def build_case(name: str, model: ForwardModel, spectra: int, pair: tuple[int, int] | None) -> Case:
    """Return detector numbers and starts; the modes of a close pair keep the material's prior."""
    stds = np.full(model.n_modes, np.inf)
    if pair is not None:
        stds[list(pair)] = 1.5
    params = truth(model)
    expected, _ = model_at(model, params)
    rng = np.random.default_rng(1)
    shape = (spectra, expected.size)
    counts = GAIN * (rng.poisson(expected, shape) + rng.normal(0.0, READ_NOISE_E, shape))
    start = params.copy()
    start[[1, 2, 3, 4]] = 0.0
    start[N_LOCAL : N_LOCAL + model.n_modes] *= 0.8
    return Case(name, model, model.prior_precision(stds), counts, start)


def fit(case: Case, counts: np.ndarray, profile_below: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Fit spectra; return outcomes and statuses."""
    model = case.model
    n, size, modes = counts.shape[0], case.start.size, model.n_modes
    lower, upper = model.bounds()
    params, std = np.tile(case.start, (n, 1)), np.empty((n, size))
    outcome, status = np.empty((n, 7)), np.empty(n, np.int64)
    none, nothing = np.empty((0, 0)), np.empty((0, 0, 0))
    wanted = 0 if profile_below is None else n
    fit_block(
        counts, np.empty((0, 0), bool), none, np.full(n, -model.first_channel), GAIN, 0.0, model.shift_e, model.lags, POISSON,
        model.first_channel, model.energies_mev, model.dispersion_mev, model.reference, model.background.rows,
        model.background.code, model.factor, model.tables.values, model.tables.first_node_mev, model.tables.node_step_mev,
        np.tile(model.free(True), (n, 1)), lower, upper, np.tile(model.prior_mean(), (n, 1)), case.precision, 40, params, std,
        outcome, status, none, nothing, nothing, profile_below or 0.0, 3.0, np.empty((wanted, modes, 4)),
        np.empty((wanted, modes), np.int64),
    )  # fmt: skip
    return outcome, status


def scipy_fit(case: Case, counts: np.ndarray) -> float:
    """Minimise the same objective of one spectrum by L-BFGS-B with the analytic gradient, scaled, tight tolerance."""
    model, start = case.model, case.start
    free = np.flatnonzero(model.free(True))
    size = model.energies_mev.size
    weight, residual, work, bits = np.empty(size), np.empty(size), np.empty(2 * size), np.empty(size, np.int64)
    mean = model.prior_mean()
    scale = np.where(np.abs(start) > 1.0, 0.05 * np.abs(start), 0.05)
    z, ones = counts / GAIN, np.ones(size)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        params = start.copy()
        params[free] = x * scale[free]
        out, jacobian = model_at(model, params, start)
        total = objective(
            z, ones, out, model.shift_e, POISSON, params, mean, case.precision, weight, residual, work, bits
        )  # fmt: skip
        gradient = -2.0 * (jacobian @ (weight * residual)) + 2.0 * case.precision * (params - mean)
        return total, gradient[free] * scale[free]

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30}
    return float(minimize(value, start[free] / scale[free], jac=True, method="L-BFGS-B", options=options).fun)


def multiply_adds(model: ForwardModel, iterations: float) -> float:
    """Return the multiply-adds of one spectrum's fit, the least count of arithmetic per channel.

    Zero-loss peak: two points, each a logarithm and an exponential (30 together) and 22 for value and derivatives. A mode: 8 for
    the nodes, 12 for value, shift and energy between channels, 11 for corrections and what it adds to other rows.
    Objective: logarithm and 10. Normal equations: half the products of all pairs of rows, and scaling.
    """
    n, free = model.energies_mev.size, int(model.free(True).sum())
    evaluation = 2 * (30 + 22) + 31 * model.n_modes + 25
    normal = 0.5 * free * (free + 3) + free
    return n * (iterations * (evaluation + normal)) + n * 32 * model.n_modes


def gram_rate(n: int) -> float:
    """Return the multiply-adds per second that the Gram kernel reaches on 16 rows."""
    rows, matrix = np.random.default_rng(0).normal(size=(16, n)), np.empty((16, 16))
    best = np.inf
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            gram(rows, 16, matrix)
        best = min(best, (time.perf_counter() - began) / 200)
    return 144 * n / best  # tiles of 2 × 4 on and below the diagonal


def rates(case: Case) -> dict[str, float]:
    """Return spectra per second by way of fitting, the least time of several interleaved ones."""
    halves = np.array_split(case.counts, 2)
    best = {"one thread": np.inf, "two threads": np.inf, "profile": np.inf}
    few = case.counts[: max(len(case.counts) // 10, 1)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(REPEATS):
            for name in best:
                began = time.perf_counter()
                if name == "one thread":
                    fit(case, case.counts)
                elif name == "two threads":
                    list(pool.map(lambda half: fit(case, half), halves))
                else:
                    fit(case, few, profile_below=1e9)
                best[name] = min(best[name], time.perf_counter() - began)
    counted = {"one thread": len(case.counts), "two threads": len(case.counts), "profile": len(few)}
    return {name: counted[name] / seconds for name, seconds in best.items()}


def report(case: Case, n_scipy: int) -> None:
    """Time one case and print the comparison."""
    fit(case, case.counts[:2], profile_below=1e9)  # compiles
    rate = rates(case)
    outcome, status = fit(case, case.counts)
    began = time.perf_counter()
    theirs = np.array([scipy_fit(case, row) for row in case.counts[:n_scipy]])
    their_rate = n_scipy / (time.perf_counter() - began)
    difference = outcome[:n_scipy, 0] - theirs
    iterations = float(outcome[:, 3].mean())
    bound = gram_rate(case.model.energies_mev.size) / multiply_adds(case.model, iterations)
    free, n = int(case.model.free(True).sum()), case.model.energies_mev.size
    print(f"{case.name}: {case.model.n_modes} oscillators through a split Pearson VII, {free} free, {n} channels")
    print(f"  {rate['one thread']:.0f} spectra/s on one thread, {rate['two threads']:.0f} on two, with std")
    print(f"  {rate['profile']:.0f} spectra/s with profile intervals of every energy (one thread)")
    print(f"  scipy L-BFGS-B {their_rate:.1f} spectra/s: ratio {rate['one thread'] / their_rate:.0f}")
    print(
        f"  bound {bound:.0f} spectra/s per core at {iterations:.1f} iterations: {rate['one thread'] / bound:.0%} reached"
    )
    print(f"  not converged or at a bound: {int((status != 0).sum())} of {len(case.counts)}")
    print(f"  objective, ours less scipy's: median {np.median(difference):.1e}, largest {difference.max():.1e}")


def main() -> None:
    """Time both cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spectra", type=int, default=3000)
    parser.add_argument("--scipy", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="300 spectra, 3 of SciPy")
    asked = parser.parse_args()
    spectra, n_scipy = (300, 3) if asked.quick else (asked.spectra, asked.scipy)
    print(f"{platform.processor() or platform.machine()}; numba {version('numba')}, scipy {version('scipy')}")
    six = build_model((), np.arange(-120, 231), 0.5)
    four = build_model(("Sr22", "BiO38", "BiO57", "CuO78"), np.arange(-70, 170), 0.6)
    report(build_case("six modes", six, spectra, (1, 2)), n_scipy)
    report(build_case("four modes", four, spectra, None), n_scipy)


if __name__ == "__main__":
    main()
