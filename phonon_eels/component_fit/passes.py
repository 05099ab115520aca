"""Passes of the kernel over all positions or some of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phonon_eels.backends.base import Backend, Progress
from phonon_eels.backends.components import fit_components_block, sum_rows
from phonon_eels.component_fit.model import ComponentModel
from phonon_eels.component_fit.result import USABLE
from phonon_eels.component_fit.start import SharedStart, jittered_starts, no_start, scaled_start
from phonon_eels.kernels.component_fit import OUTCOMES
from phonon_eels.kernels.likelihood import NO_DATA, POISSON

TOLERANCE = 2e-7
"""Of the objective, per degree of freedom, that the last step may leave to gain: 3e-5 for 180 channels and 12 parameters.

Chosen so that at least 99.9 % of spectra end within 1e-6 (relative) of the minimum, in truth and by the deviance told; at three
times as much, the deviance told is off by more in one spectrum of a hundred.
"""
MAX_EVALUATIONS = 60
OUTLIER_SIGMA = 5.0
RETRIES = 4


@dataclass(frozen=True)
class Problem:
    """What every pass over the positions shares.

    Attributes
    ----------
    counts, bad, variance
        (rows, columns, channels) arrays, numpy or dask; the last two may be None.
    mask
        (window,) weight of the channels: 1 or 0, or inverse variances for least squares with one variance for all.
    first
        First channel of the window.
    """

    model: ComponentModel
    counts: Any
    bad: Any
    variance: Any
    mask: np.ndarray
    first: int
    gain: float
    dark_level: float
    shift_e: float
    likelihood: int
    tolerance: float
    max_evaluations: int


def mean_spectrum(problem: Problem, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean spectrum in electrons and the variance of one position, (window,); NaN where no position has data."""
    n = problem.mask.size

    def block(_: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None) -> np.ndarray:
        sums = np.empty((counts.shape[0], 3, n))
        sum_rows(
            counts,
            _or_none(bad, bool),
            _or_none(variance, float),
            problem.first,
            problem.gain,
            problem.dark_level,
            sums,
        )
        return sums

    rows = np.concatenate(backend.map_rows(block, [problem.counts, problem.bad, problem.variance]))
    total = np.zeros((3, n))
    for row in rows:
        total += row
    used = np.where((total[2] > 0.0) & (problem.mask > 0.0), total[2], np.nan)
    mean = total[0] / used
    if problem.likelihood == POISSON:
        floor = max(1e-3 * float(np.nanmax(mean, initial=0.0)), 1e-9)
        return mean, np.maximum(mean + problem.shift_e, floor)
    return mean, (total[1] / used if problem.variance is not None else 1.0 / problem.mask)


def run_positions(
    problem: Problem,
    backend: Backend,
    *,
    shared: SharedStart | None = None,
    starts: np.ndarray | None = None,
    flags: np.ndarray | None = None,
    covariance: bool = False,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Run the kernel at every position, or at those flagged, from a shared start or from `starts`.

    Returns
    -------
    list of arrays
        params, std, outcome, status, covariance: (rows, columns, …), or (flagged, …) where `flags` (rows, columns) is given;
        `starts` is (rows, columns, parameters) or (flagged, parameters) alike.
    """
    model = problem.model
    n_params, n_free = len(model.names), model.free.size
    start = shared or no_start(n_params)
    per_row = np.full(problem.counts.shape[0], problem.counts.shape[1]) if flags is None else flags.sum(axis=1)
    before = np.concatenate([[0], np.cumsum(per_row)])

    def results(n: int) -> list[np.ndarray]:
        matrix = np.empty((n, n_free, n_free) if covariance else (1, 0, 1))
        return [
            np.empty((n, n_params)),
            np.empty((n, n_params)),
            np.empty((n, OUTCOMES)),
            np.empty(n, np.int64),
            matrix,
        ]

    whole = results(int(before[-1]))
    kept = 5 if covariance else 4
    # Fresh memory costs a tenth of a fit with its covariance: none is taken for blocks of which the results need not travel.
    in_place = whole if backend.shares_memory else None

    def block(
        first_row: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None
    ) -> list[np.ndarray]:
        rows = slice(first_row, first_row + counts.shape[0])
        chosen = None if flags is None else flags[rows]
        y = _spectra(counts, chosen)
        wrong, spread = (None if a is None else _spectra(a, chosen) for a in (bad, variance))
        low, high = before[rows.start], before[rows.stop]
        found = results(high - low) if in_place is None else [*[a[low:high] for a in in_place[:kept]], *in_place[kept:]]
        params, std, outcome, status, matrix = found
        if starts is not None:
            params[:] = starts.reshape(-1, n_params)[low:high]
        backend.run(
            fit_components_block, y, _or_none(wrong, bool, 2), _or_none(spread, float, 2), problem.mask, problem.first, problem.gain, problem.dark_level,
            problem.likelihood, problem.shift_e, model.table, model.owner, model.affine, model.bounds, model.axis,
            model.channel_mev, model.index, n_free, problem.tolerance, problem.max_evaluations, start.mean, start.projection,
            start.pairs, start.series, start.params, model.amplitude, params, std, matrix, outcome, status,
        )  # fmt: skip
        return [] if in_place is not None else found

    def take(first_row: int, found: list[np.ndarray]) -> None:
        low = before[first_row]
        for target, source in zip(whole[:kept], found, strict=False):
            target[low : low + len(source)] = source

    backend.map_rows(block, [problem.counts, problem.bad, problem.variance], progress=progress, take=take)
    if flags is not None:
        return whole
    shape = problem.counts.shape[:2]
    return [
        *[a.reshape(*shape, *a.shape[1:]) for a in whole[:4]],
        whole[4].reshape(*shape, n_free, n_free) if covariance else whole[4],
    ]


def outlying(status: np.ndarray, objective: np.ndarray) -> np.ndarray:
    """Return where the fit ended badly or its deviance stands out of the whole scan's; neighbours play no part."""
    good = np.isin(status, USABLE)
    bad = ~good & (status != NO_DATA)
    if good.sum() < 20:
        return np.asarray(bad)
    middle = np.median(objective[good])
    width = 1.4826 * np.median(np.abs(objective[good] - middle))
    return np.asarray(bad | (good & (objective > middle + OUTLIER_SIGMA * max(width, 1e-12))))


def retry(
    problem: Problem,
    backend: Backend,
    results: list[np.ndarray],
    again: np.ndarray,
    params: np.ndarray,
    mean: np.ndarray,
) -> np.ndarray:
    """Fit the flagged positions from several starts, keep the better minimum; return where it changed, (rows, columns)."""
    electrons = np.concatenate(
        backend.map_rows(
            lambda first_row, counts: _electrons(counts[again[first_row : first_row + counts.shape[0]]], problem),
            [problem.counts],
        )
    )
    total = float(np.nansum(np.where(problem.mask > 0.0, mean, 0.0)))
    ratio = np.clip(electrons / total, 1e-3, 1e3) if total > 0.0 else np.ones(electrons.size)
    careful = replace(problem, max_evaluations=5 * problem.max_evaluations)
    changed = np.zeros(int(again.sum()), bool)
    for start in jittered_starts(problem.model, params, RETRIES):
        found = run_positions(
            careful,
            backend,
            starts=scaled_start(problem.model, start, ratio),
            flags=again,
            covariance=results[4].ndim == 4,
        )
        before_good = np.isin(results[3][again], USABLE)
        good = np.isin(found[3], USABLE)
        lower = found[2][:, 0] < results[2][again][:, 0] - problem.tolerance * problem.mask.size
        better = good & (~before_good | lower)
        changed |= better
        where = np.zeros_like(again)
        where[again] = better
        for target, source in zip(results, found, strict=True):
            if target.size:
                target[where] = source[better]
    where = np.zeros_like(again)
    where[again] = changed
    return where


def _or_none(block: np.ndarray | None, kind: type, ndim: int = 3) -> np.ndarray:
    return np.empty((0,) * ndim, dtype=kind) if block is None else np.ascontiguousarray(block, dtype=kind)


def _spectra(block: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
    if chosen is not None:
        return np.ascontiguousarray(block[chosen])
    return np.ascontiguousarray(block).reshape(-1, block.shape[-1])


def _electrons(spectra: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the electrons of each spectrum in the window."""
    window = np.asarray(spectra[:, problem.first : problem.first + problem.mask.size], dtype=float)
    usable = problem.mask > 0.0
    return np.asarray(np.nansum((window[:, usable] - problem.dark_level) / problem.gain, axis=1))
