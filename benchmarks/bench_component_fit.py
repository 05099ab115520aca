"""The component fit against HyperSpy, lmfit, SciPy and the machine's own multiply-add rate, in one run.

Run: python benchmarks/bench_component_fit.py [--quick]

Two models on 180 channels, every spectrum with its own areas and centres:

- three Gaussians, exponential and offset, 12 free parameters;
- power law and three pseudo-Voigts, 14 free parameters.

Peers fit a few spectra each, from the same start, the fit of the mean spectrum. HyperSpy minimises unweighted least squares, so
ours is timed with that objective (`gaussian`) beside its own default (`poisson`); all ours return standard deviations, as HyperSpy does, and the
covariance matrix where it says so.
Everything is interleaved and the fastest of several rounds counts. Times are processor times, so that other work on the machine
counts little: rates are per core, and our positions are independent of each other, so all cores together do that many times more
(`wall` says what they did at this moment, other work included). Peers run on one core.

The bound is what the multiply-adds of the fit would take if every one ran at the rate that a loop of nothing else reaches, in
registers of 256 bits and in the widest that the processor has, which our kernels use: per evaluation P(P+3)/2 for the normal
equations and (14 + 4) per exponential with its derivatives, per channel, P³/6 for the solution, and as many evaluations as the
fits took. Logarithms, divisions and reading are not counted.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numba
import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit.fit import fit_components
from phonon_eels.component_fit.model import Component, ComponentModel, build_model
from phonon_eels.component_fit.passes import MAX_EVALUATIONS, TOLERANCE, Problem, mean_spectrum, run_positions
from phonon_eels.component_fit.start import evaluate_model, fit_mean, shared_start
from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.likelihood import GAUSSIAN, POISSON

ENERGIES = np.linspace(15.0, 105.0, 180)
SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
EXPONENTIALS = {"3 Gaussians": 4, "3 pseudo-Voigts": 4}
LARGE_SCAN = 260_000
"""Spectra by which several cores are timed, a scan of 512 × 512: a core that was idle takes a tenth of a second to reach its speed."""
PEAKS = {"a": (37.0, 1500.0), "b": (58.0, 2000.0), "c": (79.0, 2500.0)}


def components_of(name: str) -> list[Component]:
    """Return the components of a benchmark."""
    kind = "gaussian" if name == "3 Gaussians" else "pseudo_voigt"
    peaks = [
        Component(
            kind, word, {"centre": centre, "fwhm": 6.5}, {"centre": (centre - 8.0, centre + 8.0), "fwhm": (2.0, 20.0)}
        )
        for word, (centre, _) in PEAKS.items()
    ]
    if kind == "gaussian":
        return [*peaks, Component("exponential", "tail"), Component("offset", "floor")]
    return [*peaks, Component("power_law", "tail")]


def simulate(name: str, n: int, seed: int = 0) -> tuple[ComponentModel, np.ndarray]:
    """Return the model and Poisson counts, (1, n, channels), of spectra that all differ."""
    model = build_model(components_of(name), ENERGIES)
    random = np.random.default_rng(seed)
    scale = 1.0 if name == "3 Gaussians" else 4.0
    peak = [6.0] if name == "3 Gaussians" else [6.0, 0.45]
    tail = [60.0, 0.04, 10.0] if name == "3 Gaussians" else [60.0, 2.0]
    spectra = np.empty((1, n, ENERGIES.size))
    for k in range(n):
        values: list[float] = []
        for centre, area in PEAKS.values():
            values += [scale * area * random.uniform(0.7, 1.4), centre + 1.0 + random.normal(0.0, 0.5), *peak]
        strength = random.uniform(0.8, 1.2)
        values += [scale * tail[0] * strength, tail[1], *tail[2:]]
        spectra[0, k] = random.poisson(evaluate_model(model, np.array(values))[0][: ENERGIES.size])
    return model, spectra


def fastest(call: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.process_time) -> float:
    """Return the shortest time of several."""
    best = np.inf
    for _ in range(rounds):
        began = clock()
        call()
        best = min(best, clock() - began)
    return float(best)


@numba.njit(fastmath=True, nogil=True)
def multiply_add(n: int) -> float:
    """Run n · 64 multiply-adds in registers of 256 bits, as Numba compiles by itself."""
    sums = np.zeros(64)
    for _ in range(n):
        for i in range(64):
            sums[i] = sums[i] * 0.999999 + 1e-9
    return sums.sum()


@kernel
def widest_multiply_add(n: int, sums: np.ndarray) -> int:
    """Run n · 64 multiply-adds in the widest registers that the processor has, as our kernels use them."""
    for _ in range(n):
        for i in range(64):
            sums[i] = sums[i] * 0.999999 + 1e-9
    return 0


def machine_rates(rounds: int) -> np.ndarray:
    """Return multiply-adds per second of one core, in registers of 256 bits and in the widest it has."""
    n, sums = 400_000, np.zeros(64)
    seconds = []
    for call in (multiply_add, lambda n: widest_multiply_add(n, sums)):
        call(10)
        seconds.append(fastest(lambda call=call: call(n), rounds))
    return n * 64 / np.array(seconds)


def gained_by_threads(rounds: int, threads: int) -> float:
    """Return how many times one thread's multiply-adds all threads do by the clock, sharing nothing: what fits can gain."""
    n = 1_000_000
    with ThreadPoolExecutor(threads) as pool:
        alone = fastest(lambda: multiply_add(n), rounds, time.perf_counter)
        together = fastest(lambda: list(pool.map(multiply_add, [n] * threads)), rounds, time.perf_counter)
    return threads * alone / together


def bound(name: str, n_free: int, evaluations: float, rate: float) -> float:
    """Return the fits per second that the multiply-adds alone would allow."""
    per_channel = n_free * (n_free + 3) / 2 + 18 * EXPONENTIALS[name]
    return rate / (evaluations * (per_channel * ENERGIES.size + n_free**3 / 6))


class Ours:
    """The compiled engine, from shared start to standard deviations, and covariance if wanted; counts lie in memory."""

    def __init__(
        self, model: ComponentModel, counts: np.ndarray, likelihood: int, threads: int, covariance: bool = False
    ) -> None:
        self.backend, self.covariance = CpuBackend(threads), covariance
        rows = counts.reshape(20, -1, counts.shape[-1])
        self.problem = Problem(
            model, rows, None, None, np.ones(ENERGIES.size), 0, 1.0, 0.0, 0.0, likelihood, TOLERANCE, MAX_EVALUATIONS
        )
        mean, spread = mean_spectrum(self.problem, self.backend)
        self.start = fit_mean(model, mean, spread)
        if likelihood == GAUSSIAN:  # of one variance for all channels, so that the tolerance means what it says
            typical = float(np.nanmean(mean))
            self.problem = Problem(**{**vars(self.problem), "mask": np.full(ENERGIES.size, 1.0 / typical)})
            spread = np.full(ENERGIES.size, typical)
        self.shared = shared_start(model, self.start, spread)

    def __call__(self) -> list[np.ndarray]:
        """Fit every spectrum."""
        return run_positions(self.problem, self.backend, shared=self.shared, covariance=self.covariance)


def hyperspy_fits(name: str, counts: np.ndarray, start: dict[str, float], **how: Any) -> Callable[[], Any]:
    """Return a call that fits the spectra by HyperSpy's multifit."""
    import hyperspy.api as hs

    library = hs.model.components1D
    signal = hs.signals.Signal1D(counts)
    signal.axes_manager.signal_axes[0].scale = float(ENERGIES[1] - ENERGIES[0])
    signal.axes_manager.signal_axes[0].offset = float(ENERGIES[0])
    model = signal.create_model()
    step, middle = float(ENERGIES[1] - ENERGIES[0]), 0.5 * float(ENERGIES[0] + ENERGIES[-1])
    pieces: list[tuple[Any, dict[str, tuple[float, float, float]]]] = []
    for word, (centre, _) in PEAKS.items():
        area = (step * start[f"{word}.area"], 0.0, 1e9)
        where = (start[f"{word}.centre"], centre - 8.0, centre + 8.0)
        width = start[f"{word}.fwhm"]
        if name == "3 Gaussians":
            piece = library.Gaussian()
            pieces.append((piece, {"A": area, "centre": where, "sigma": (width / SIGMA, 2.0 / SIGMA, 20.0 / SIGMA)}))
        else:
            piece = library.Expression(
                expression=(
                    "area*(share*fwhm/2/pi/((x-centre)**2+fwhm**2/4)"
                    "+(1-share)*0.9394372786996513/fwhm*exp(-2.772588722239781*((x-centre)/fwhm)**2))"
                ),
                name=word,
                position="centre",
                module="numpy",
            )
            share = (start[f"{word}.fraction"], 0.0, 1.0)
            pieces.append((piece, {"area": area, "centre": where, "fwhm": (width, 2.0, 20.0), "share": share}))
    if name == "3 Gaussians":
        height = start["tail.amplitude"] * np.exp(start["tail.rate"] * middle)
        pieces.append((library.Exponential(), {"A": (height, 0.0, 1e9), "tau": (1.0 / start["tail.rate"], 1.0, 1e4)}))
        pieces.append((library.Offset(), {"offset": (start["floor.value"], -1e6, 1e6)}))
    else:
        height = start["tail.amplitude"] * middle ** start["tail.exponent"]
        pieces.append((library.PowerLaw(), {"A": (height, 0.0, 1e14), "r": (start["tail.exponent"], 0.0, 10.0)}))
    for piece, values in pieces:
        model.append(piece)
        for parameter in piece.parameters:
            parameter.free = parameter.name in values

    def run() -> None:
        for piece, values in pieces:  # every round from the same start, not from what the last one found
            for name, (value, low, high) in values.items():
                parameter = getattr(piece, name)
                parameter.bmin, parameter.bmax, parameter.value = low, high, value
                parameter.assign_current_value_to_all()
                parameter.map["is_set"][:] = False
        model.multifit(show_progressbar=False, iterpath="serpentine", **how)

    return run


def scipy_fits(model: ComponentModel, counts: np.ndarray, start: np.ndarray) -> Callable[[], Any]:
    """Return a call that fits by SciPy's bounded least squares with our compiled model and Jacobian."""
    from scipy.optimize import least_squares

    n = ENERGIES.size

    def run() -> None:
        for y in counts:
            least_squares(
                lambda p, y=y: evaluate_model(model, p)[0][:n] - y, start, lambda p: evaluate_model(model, p)[1][:, :n].T,
                bounds=tuple(model.bounds[:2]), x_scale=np.abs(start),
            )  # fmt: skip

    return run


def lmfit_fits(model: ComponentModel, counts: np.ndarray, start: np.ndarray) -> Callable[[], Any]:
    """Return a call that fits by lmfit with our compiled model."""
    import lmfit

    params = lmfit.Parameters()
    for name, value, low, high in zip(model.names, start, *model.bounds[:2], strict=True):
        params.add(name.replace(".", "_"), value=value, min=low, max=high)

    def run() -> None:
        for y in counts:
            lmfit.minimize(
                lambda p, y=y: evaluate_model(model, np.array(list(p.valuesdict().values())))[0][:180] - y, params
            )

    return run


def compare(name: str, n: int, few: int, rounds: int, threads: int) -> None:
    """Time all on one model and print the rates."""
    model, counts = simulate(name, n)
    codes = {"poisson": POISSON, "gaussian": GAUSSIAN}
    ours = {word: Ours(model, counts, code, 1) for word, code in codes.items()}
    large = np.tile(counts, (1, LARGE_SCAN // n, 1))
    wide = {(word, k): Ours(model, large, code, k) for word, code in codes.items() for k in (1, threads)}
    whole = {word: Ours(model, counts, code, 1, covariance=True) for word, code in codes.items()}
    results = {word: engine() for word, engine in ours.items()}  # compiles
    base = ours["gaussian"].start
    start = dict(zip(model.names, base, strict=True))
    small = counts[0, :few]
    peers = {
        "HyperSpy lm": hyperspy_fits(name, small, start),
        "HyperSpy lm, analytical gradient": hyperspy_fits(name, small, start, grad="analytical"),
        "HyperSpy trf, bounded": hyperspy_fits(name, small[: max(few // 3, 4)], start, optimizer="trf", bounded=True),
        "lmfit, bounded": lmfit_fits(model, small[: max(few // 3, 4)], base),
        "SciPy trf, our Jacobian, bounded": scipy_fits(model, small, base),
    }
    size = {word: few if "bounded" not in word or "SciPy" in word else max(few // 3, 4) for word in peers}
    seconds = dict.fromkeys([*ours, *peers, "whole"], np.inf)
    matrices = dict.fromkeys(ours, np.inf)
    clock = dict.fromkeys(wide, np.inf)
    rate, more = np.zeros(2), 0.0
    for _ in range(rounds):  # interleaved: all see the same load
        rate = np.maximum(rate, machine_rates(3))
        for word, engine in ours.items():
            seconds[word] = min(seconds[word], fastest(engine, 3))
            matrices[word] = min(matrices[word], fastest(whole[word], 3))
        for word, call in peers.items():
            seconds[word] = min(seconds[word], fastest(call, 1))
        more = max(more, gained_by_threads(3, threads))
        for key, engine in wide.items():
            clock[key] = min(clock[key], fastest(engine, 2, time.perf_counter))
        seconds["whole"] = min(
            seconds["whole"], fastest(lambda: fit_components(counts, ENERGIES, components_of(name)), 1)
        )
    print(f"\n{name}, {len(model.free)} free, 180 channels, {n} spectra; per core")
    for word in ours:
        status, outcome = results[word][3], results[word][2]
        evaluations = float(outcome[..., 4].mean())
        most, widest = (bound(name, len(model.free), evaluations, r) for r in rate)
        print(
            f"  phonon_eels {word}: {n / seconds[word]:,.0f} fits/s, {evaluations:.2f} evaluations each, "
            f"{100 * n / seconds[word] / most:.0f} % of the bound {most:,.0f}/s ({rate[0] / 1e9:.1f}·10⁹ multiply-adds/s of 256 bits), "
            f"{100 * n / seconds[word] / widest:.0f} % with the widest registers ({rate[1] / 1e9:.1f}·10⁹/s); "
            f"not converged {np.isin(status, (1, 2)).sum()}, at a bound {(status == 4).sum()}; "
            f"with the covariance matrix {n / matrices[word]:,.0f} fits/s"
        )
    print(f"  phonon_eels poisson with mean fit, retries and p-values: {n / seconds['whole']:,.0f} fits/s")
    for word in peers:
        theirs = size[word] / seconds[word]
        ratio = n / seconds["gaussian"] / theirs
        print(
            f"  {word}: {theirs:.1f} fits/s; ratio {ratio:,.0f} core to core, {threads * ratio:,.0f} with our {threads} cores"
        )
    for word in ours:
        both = clock[word, threads]
        print(
            f"  wall, {word}, {large.shape[1]:,} spectra, {threads} threads, other work included: {large.shape[1] / both:,.0f} fits/s, "
            f"{clock[word, 1] / both:.2f} times one thread (multiply-adds that share nothing {more:.2f} times)"
        )


def main() -> None:
    """Time both models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer spectra and rounds")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    threads = len(os.sched_getaffinity(0))
    print(
        f"{platform.machine()}, {threads} threads; "
        + ", ".join(f"{p} {version(p)}" for p in ("numba", "scipy", "lmfit", "hyperspy"))
    )
    for name in EXPONENTIALS:
        compare(name, 2_000 if asked.quick else 10_000, 12 if asked.quick else 30, 3 if asked.quick else 6, threads)


if __name__ == "__main__":
    main()
