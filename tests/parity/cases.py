"""Small batches for every driver of the GPU: the arguments of the processor's functions, and which of them are results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from phonon_eels.backends.backgrounds import fit_backgrounds_block
from phonon_eels.backends.components import fit_components_block
from phonon_eels.backends.covariance import covariance_block
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.deconvolve import filter_block, lucy_block
from phonon_eels.backends.resample import resample_block
from phonon_eels.backends.spectra import NO_CHANNEL, fit_block
from phonon_eels.backends.zero_loss import find_peaks_block, score_block
from phonon_eels.component_fit.model import build_model
from phonon_eels.component_fit.passes import Problem, run_positions
from phonon_eels.component_fit.start import shared_start
from phonon_eels.forward.background import make_background
from phonon_eels.kernels import background_shapes as shapes
from phonon_eels.kernels.deconvolve import make_response
from phonon_eels.kernels.likelihood import GAUSSIAN, POISSON
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.kernels.response import FineGrid, ZeroLossShape, build_mode_tables
from phonon_eels.kernels.zero_loss_tables import score_tables
from tests.unit.component_fit.made_up import ENERGIES, TRUTH, three_gaussians
from tests.unit.component_fit.made_up import counts as made_up_counts

TOLERANCE = 1e-6
"""Largest difference over the largest value of a result: the order of sums and fused multiply-adds; measured 3e-10 or less."""


@dataclass(frozen=True)
class Case:
    """A call of a block function.

    Attributes
    ----------
    results
        Places of the arguments that it writes.
    undetermined
        Spectra whose parameters the data do not determine (no counts): only their integers are compared.
    least_scale
        (place, size): differences of results that are 0 at the optimum are judged against this.
    """

    block: Callable[..., Any]
    arguments: tuple[Any, ...]
    results: tuple[int, ...]
    undetermined: tuple[int, ...] = ()
    least_scale: tuple[tuple[int, float], ...] = ()

    def fresh(self) -> list[Any]:
        """Return the arguments with arrays of their own, results filled with a number that no kernel writes."""
        return [a.copy() if isinstance(a, np.ndarray) else a for a in self.arguments]


def forward_case(kind: str, n: int = 5, frames: bool = False) -> Case:
    """Return spectra for the forward fit: one empty, one with bad channels, one without a zero-loss peak.

    Parameters
    ----------
    kind
        "profile": with score and information; "intervals"; "gaussian": least squares with a given variance.
    frames
        The spectra are sums of frames, each position's at zero-loss origins of its own.
    """
    random = np.random.default_rng(0)
    shape, dispersion = ZeroLossShape(7.5, 1.6, 1.9), 1.0
    channels = np.arange(-20, 75)
    grid = FineGrid(channels, dispersion, 4.0, 120.0)
    tables = build_mode_tables(grid, shape, np.array([[36.0, 46.0]]), np.array([4.0]), 25.2, "oscillator")
    energies, n_params = channels * dispersion, 11
    node = round((42.0 - tables.first_node_mev[0]) / tables.node_step_mev)
    line = tables.values[0, 0, node, 0, 6:-6]
    area = 60.0 if kind == "intervals" else 2e3  # weak enough to be profiled
    mean = 1e4 * split_pearson7(energies, *vars(shape).values()) + area * line + 2.0
    background = make_background("constant", energies, 7.5, 25.2)
    counts = np.zeros((n, 110))
    counts[:, 5 : 5 + channels.size] = random.poisson(mean, (n, channels.size))
    counts[2] = 0.0
    bad = np.zeros(counts.shape, bool)
    bad[3, 40:43] = True
    place = np.full(n, 25)
    place[n - 1] = NO_CHANNEL if n > 4 else 25
    start = np.array([9e3, 0.1, 0, 0, 0, 1.0, 0, 0, 0.75 * area, 41.5, 0])
    free = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0], np.int8)
    infinite = np.full(n_params, np.inf)
    lower, upper = -infinite, infinite.copy()
    lower[1:5], upper[1:5] = [-2.0, -0.5, -0.5, -0.5], [2.0, 0.5, 0.5, 0.5]
    lower[9], upper[9] = 36.0, 46.0
    precision = np.zeros(n_params)
    precision[2:5] = [400.0, 2500.0, 2500.0]
    gaussian = kind == "gaussian"
    reference = np.array([7.5, 1.6, 1.9])
    if frames:  # offset, weight, offset, weight; every position another
        apart = np.linspace(0.4, 1.4, n)[:, None]
        pairs = np.concatenate(
            [-0.6 * apart, np.full_like(apart, 0.25), 0.2 * apart, np.full_like(apart, 0.75)], axis=1
        )
        reference = np.concatenate([np.tile(reference, (n, 1)), pairs], axis=1)
    kept, shown = (n if kind == "profile" else 0), (n if kind == "intervals" else 0)
    variance = np.maximum(counts, 1.0) if gaussian else np.empty((0, 0))
    arguments = (
        counts, bad, variance, place, 1.0, 0.0, 1.0, np.array([0.8, 0.1]), GAUSSIAN if gaussian else POISSON, -20,
        energies, dispersion, reference, background.rows, background.code, np.empty((0, 0)), tables.values,
        tables.first_node_mev, tables.node_step_mev, np.tile(free, (n, 1)), lower, upper, np.zeros((n, n_params)), precision,
        12, np.tile(start, (n, 1)), np.full((n, n_params), -7.0), np.full((n, 7), -7.0), np.full(n, -7, np.int64),
        np.empty((kept, 2)), np.empty((kept, 2, 2)), np.empty((kept, 1, 2)), 10.0, 1.0, np.empty((shown, 1, 4)),
        np.empty((shown, 1), np.int64),
    )  # fmt: skip
    results = (25, 26, 27, 28, *((29, 30, 31) if kept else ()), *((34, 35) if shown else ()))
    # The score of an area is about one over its deviation, 60 electrons.
    return Case(fit_block, arguments, results, undetermined=(2,), least_scale=((29, 0.01),))


def covariance_case(kind: str, n: int = 5, frames: bool = False) -> Case:
    """Return the spectra of `forward_case` ("plain" or "gaussian") at estimates: one of them without any, one energy held."""
    given = forward_case(kind, n, frames).arguments
    params = given[25].copy()
    params[1, 0] = np.nan
    free = given[19].copy()
    free[0, 9] = 0
    precision = given[23].copy()
    precision[9] = 0.4
    kept = np.array([8, 9, 5])
    arguments = (
        *given[:7], np.empty(0) if kind == "gaussian" else given[7], *given[8:19], params, np.zeros(params.shape[1]), given[19], precision, kept,
        free, given[23], np.full((n, 3, 3), -7.0), np.full(params.shape, -7.0),
    )  # fmt: skip
    return Case(covariance_block, arguments, (26, 27))


def zero_loss_counts(n: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy zero-loss peaks at different places, one spectrum empty, one with a spike, one with bad channels."""
    random = np.random.default_rng(1)
    x = np.arange(72.0)
    centres = 30.0 + np.linspace(-3.0, 6.0, n)
    counts = random.poisson([400.0 * split_pearson7(x - c, 6.0, 1.7, 2.1) + 3.0 for c in centres]).astype(dtype)
    counts[1] = 0
    counts[2, 60] = 20_000
    bad = np.zeros(counts.shape, bool)
    bad[3, 31] = True
    return counts, bad


def find_case(n: int = 5) -> Case:
    """Return spectra for the search of the zero-loss peak."""
    counts, bad = zero_loss_counts(n, float)
    return Case(find_peaks_block, (counts, bad, 2, 70, 1, 0.5, np.full((n, 3), np.nan), np.full(n, -7)), (6, 7))


def score_case(dtype: Any, n: int = 5) -> Case:
    """Return spectra for the fast estimate of the zero-loss peak; the places of `bad` are left out for integers."""
    counts, bad = zero_loss_counts(n, dtype)
    tables = score_tables(6.0, 1.7, 2.1, 12, 0.01)
    masked = bad if np.dtype(dtype).kind == "f" else np.empty((0, 0), bool)
    precision = np.array([0.0, 0.0, 25.0, 25.0])
    out, status = np.full((n, 9), -7.0), np.full(n, -7)
    return Case(score_block, (counts, masked, 2, 70, 0.9, 0.5, *tables, 0.01, precision, out, status), (11, 12))


def resample_case(n: int = 5) -> Case:
    """Return spectra for resampling: whole and broken shifts, off the axis, one not finite."""
    counts, bad = zero_loss_counts(n, float)
    shift = np.array([0.0, -3.25, 2.0, 0.7, np.nan])[:n]
    out = np.full(counts.shape, -7.0)
    return Case(resample_block, (counts, bad, shift, 1.1, 0.5, 2.0, 6, out, out.copy()), (7, 8))


def background_case(shape: int, n: int = 5) -> Case:
    """Return spectra for a background in two windows: one without counts, one with bad channels."""
    random = np.random.default_rng(2)
    energies = np.arange(5.0, 65.0)
    channels = np.concatenate([np.arange(3, 15), np.arange(40, 55)])
    counts = random.poisson(np.outer(np.linspace(0.7, 1.6, n), 4e4 * energies**-1.7 + 20.0)).astype(float)
    counts[1] = 0.0
    bad = np.zeros(counts.shape, bool)
    bad[3, 7:9] = True
    outs = (np.full((n, 5), -7.0), np.full((n, 25), -7.0), np.full((n, 2), -7.0), np.full(n, -7))
    arguments = (
        shape, energies[channels], channels, 20.0, shapes.NO_REFERENCE, energies[15:40], counts, np.maximum(counts, 1.0), bad,
        *outs,
    )  # fmt: skip
    return Case(fit_backgrounds_block, arguments, (9, 10, 11, 12))


def lucy_case(stop_at_noise: bool, n: int = 5) -> Case:
    """Return spectra to be deconvolved: one empty, one with a missing channel, some with negative values."""
    random = np.random.default_rng(3)
    x = np.arange(70.0)
    counts = random.poisson(200.0 * np.exp(-(((x - 30.0) / 5.0) ** 2)) + 4.0, (n, x.size)) - 5.0
    counts[1], counts[2, 12] = 0.0, np.nan
    response = make_response(np.exp(-((np.arange(-9.0, 10.0) / 3.0) ** 2)), 9.0, x.size)
    spread = np.abs(counts) + 4.0 if stop_at_noise else np.empty((0, 0))
    outs = (np.full(counts.shape, -7.0), np.full((n, 7), np.nan), np.full((n, 3), -7.0), np.full(n, -7))
    arguments = (
        counts, np.empty((0, 0)), spread, response.taps, response.anchors, response.inverse_cover,
        response.inverse_transpose, 6, stop_at_noise, not stop_at_noise, *outs,
    )  # fmt: skip
    return Case(lucy_block, arguments, (10, *((11,) if stop_at_noise else ()), 12, 13))


def filter_case(n: int = 5) -> Case:
    """Return spectra to be filtered: one empty, one with a missing channel."""
    random = np.random.default_rng(5)
    spectra = random.poisson(100.0, (n, 40)) - 20.0
    spectra[1], spectra[2, 12] = 0.0, np.nan
    return Case(filter_block, (spectra, random.standard_normal((40, 40)), np.full((n, 40), -7.0)), (2,))


class _Caught(CpuBackend):
    """A backend that keeps the arguments of a call and computes nothing."""

    def run(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
        """Keep the call."""
        self.caught = args
        return 0


def components_case(likelihood: int, shared: bool) -> Case:
    """Return spectra for three Gaussians on an exponential: one empty, one with bad channels.

    Parameters
    ----------
    shared
        Start all from the fit of the mean spectrum; else each from its own.
    """
    cube = made_up_counts((1, 5), seed=4)[..., ::2]  # all three peaks in half the channels
    truth = TRUTH * np.where(np.isin(np.arange(TRUTH.size), (0, 3, 6)), 0.5, 1.0)  # areas, on channels twice as wide
    cube[0, 1] = 1.0  # the dark level: no electron at all
    bad = np.zeros(cube.shape, bool)
    bad[0, 3, 30:33] = True
    model = build_model(three_gaussians(), ENERGIES[::2])
    variance = np.maximum(cube, 1.0) if likelihood == GAUSSIAN else None
    problem = Problem(model, cube, bad, variance, np.ones(cube.shape[2]), 0, 0.8, 1.0, 2.0, likelihood, 1e-4, 60)
    start = shared_start(model, truth, np.full(cube.shape[2], cube.mean()))
    backend = _Caught(1)
    starts = None if shared else np.broadcast_to(1.02 * truth, (1, 5, truth.size))
    run_positions(problem, backend, shared=start if shared else None, starts=starts, covariance=True)
    arguments = list(backend.caught)
    for place in (26, 27, 28, 29, *((25,) if shared else ())):
        arguments[place] = np.full_like(arguments[place], -7)
    return Case(fit_components_block, tuple(arguments), (25, 26, 27, 28, 29))


CASES: tuple[tuple[str, Callable[[], Case]], ...] = (
    ("forward", lambda: forward_case("plain")),
    ("forward-gaussian", lambda: forward_case("gaussian")),
    ("forward-profile", lambda: forward_case("profile")),
    ("forward-intervals", lambda: forward_case("intervals")),
    ("forward-frames", lambda: forward_case("profile", frames=True)),
    ("forward-frames-intervals", lambda: forward_case("intervals", frames=True)),
    ("covariance", lambda: covariance_case("plain")),
    ("covariance-gaussian", lambda: covariance_case("gaussian")),
    ("covariance-frames", lambda: covariance_case("plain", frames=True)),
    ("zero-loss-search", find_case),
    ("zero-loss-score", lambda: score_case(np.float32)),
    ("zero-loss-score-of-integers", lambda: score_case(np.uint16)),
    ("resample", resample_case),
    ("background-power-law", lambda: background_case(shapes.POWER_LAW)),
    ("background-pearson7", lambda: background_case(shapes.PEARSON7)),
    ("components", lambda: components_case(POISSON, True)),
    ("components-gaussian", lambda: components_case(GAUSSIAN, False)),
    ("filter", filter_case),
    ("richardson-lucy", lambda: lucy_case(False)),
    ("richardson-lucy-to-the-noise", lambda: lucy_case(True)),
)


def assert_agree(
    case: Case, ours: Mapping[int, np.ndarray], theirs: Mapping[int, np.ndarray], tolerance: float
) -> None:
    """Compare the results of a case: integers and missing values alike, numbers to a tolerance of their size."""
    for place in case.results:
        a, b = ours[place], theirs[place]
        words = f"argument {place}"
        assert a.dtype == b.dtype
        assert not np.array_equal(a, case.arguments[place]), f"{words}: nothing was computed"
        if a.dtype.kind in "biu":
            np.testing.assert_array_equal(b, a, err_msg=words)
            continue
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b), err_msg=words)
        a, b = (np.nan_to_num(np.delete(x, case.undetermined, 0), posinf=0.0, neginf=0.0) for x in (a, b))
        scale = np.maximum(np.abs(a).max(axis=0), dict(case.least_scale).get(place, 1e-3))
        assert (np.abs(a - b) / scale).max() <= tolerance, words
