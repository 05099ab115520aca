"""Fit a list of components to every position of a cube of counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from phonon_eels.backends.base import Backend, Progress
from phonon_eels.backends.components import fit_components_block, sum_rows
from phonon_eels.component_fit.model import Component, ComponentModel, build_model
from phonon_eels.component_fit.start import SharedStart, evaluate_model, fit_mean, jittered_starts, scaled_start, shared_start
from phonon_eels.errors import ConfigError, DataError
from phonon_eels.kernels.component_fit import NOT_IDENTIFIED, OUTCOMES
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, GAUSSIAN, NO_DATA, POISSON

STATUS_WORDS = ("converged", "max_iterations", "singular", "no_data", "at_bound", "not_identified", "few_counts")
"""What the numbers of a status map say."""
FEW_COUNTS = 6
ASYMPTOTIC_SIGMA = 5.0
"""A peak whose area is less than this many standard deviations has no parabola around its optimum: `few_counts`."""
TOLERANCE = 1e-3
MAX_EVALUATIONS = 60
OUTLIER_SIGMA = 5.0
RETRIES = 4
USABLE = (CONVERGED, AT_BOUND, NOT_IDENTIFIED, FEW_COUNTS)


@dataclass(frozen=True)
class ComponentFit:
    """The fit of every position; maps are (rows, columns, …).

    Attributes
    ----------
    model
        What was fitted; its `names` are those of the parameters.
    values, std
        (rows, columns, parameters), std from the Fisher matrix: NaN where fixed, at a bound or not identified.
        Areas and amplitudes in electrons (counts where no gain was given), energies in meV.
    covariance
        (rows, columns, free, free) in the order of `model.free_names`, or None if not asked for.
    deviance
        Poisson deviance, or chi-squared.
    pearson_chi2, p_value
        Pearson's chi-squared, and the chance of a larger one: from a gamma distribution with its mean and variance, which
        at few counts is wider than chi-squared's.
    n_channels, evaluations
        Channels used, evaluations of the model.
    status
        Index into `STATUS_WORDS`.
    """

    model: ComponentModel
    values: np.ndarray
    std: np.ndarray
    covariance: np.ndarray | None
    deviance: np.ndarray
    pearson_chi2: np.ndarray
    p_value: np.ndarray
    n_channels: np.ndarray
    evaluations: np.ndarray
    status: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self.model.names

    @property
    def usable(self) -> np.ndarray:
        """True where the optimum was reached, (rows, columns)."""
        return np.isin(self.status, USABLE)

    def value(self, name: str) -> np.ndarray:
        """Return the map of a parameter, "component.parameter"."""
        return np.asarray(self.values[..., self.model.number(name)])

    def value_std(self, name: str) -> np.ndarray:
        """Return the standard deviation's map of a parameter."""
        return np.asarray(self.std[..., self.model.number(name)])

    def curve(self, row: int, column: int) -> np.ndarray:
        """Return the fitted curve at a position, (channels,)."""
        return evaluate_model(self.model, self.values[row, column])[0][: self.model.energies_mev.size]


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


def fit_components(
    counts: Any,
    energies_mev: np.ndarray,
    components: Sequence[Component],
    *,
    likelihood: Literal["poisson", "gaussian"] = "poisson",
    variance: Any = None,
    bad: Any = None,
    window_mev: tuple[float, float] | None = None,
    gain: float = 1.0,
    dark_level: float = 0.0,
    read_noise_e: float = 0.0,
    covariance: bool = False,
    rescale: bool = False,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> ComponentFit:
    """Fit peaks and a background to every position by maximum likelihood, bounds always kept.

    The mean spectrum is fitted from several starts (SciPy). From there one Gauss-Newton step, whose matrix all positions
    share, starts the Levenberg-Marquardt fit of each. Positions that end badly, or whose deviance stands out of the whole
    scan's, are fitted again from several starts and keep the better minimum. No position looks at its neighbours.

    Parameters
    ----------
    counts
        (rows, columns, channels), (positions, channels) or (channels,); integers or floats, numpy or dask. NaN: missing.
    energies_mev
        (channels,) centres of the channels.
    components
        Up to 8 peaks and any backgrounds; see `Component`.
    likelihood
        poisson: counts y with z = (y - dark_level) / gain electrons and read noise, taken as shifted Poisson.
        gaussian: least squares with known `variance`.
    variance
        Of `counts`, same shape, or one number; gaussian only.
    bad
        True where a channel must not be used, same shape as `counts`.
    window_mev
        Fitted range; default all channels.
    covariance
        Also return the covariance matrices.
    rescale
        Multiply standard deviations by the root of chi-squared per degree of freedom (only where variances are relative).
    backend
        Where the fits run; default the processor with all its cores.

    Returns
    -------
    ComponentFit
        Values, standard deviations, covariance, deviance, status.

    Raises
    ------
    ConfigError
        If the components or the arguments make no sense.
    DataError
        If the mean spectrum has too few usable channels.

    References
    ----------
    Levenberg-Marquardt: Marquardt 1963, doi:10.1137/0111030. Shifted Poisson: Snyder et al. 1995, doi:10.1364/JOSAA.12.000272.

    Examples
    --------
    >>> import numpy as np
    >>> energies = np.arange(20.0, 60.0, 0.5)
    >>> curve = 500.0 * np.exp(-((energies - 40.0) ** 2) / 18.0) + 20.0
    >>> peak = Component("gaussian", "mode", start={"centre": 41.0, "fwhm": 6.0})
    >>> fit = fit_components(curve, energies, [peak, Component("offset", "background")])
    >>> round(float(fit.value("mode.centre")[0, 0]), 3)
    40.0
    """
    counts, bad, variance = (_cube(a) for a in (counts, bad, variance))
    energies = np.asarray(energies_mev, dtype=float)
    if counts.shape[-1] != energies.size:
        raise ConfigError(f"counts have {counts.shape[-1]} channels, energies_mev {energies.size}; both must agree")
    first, last = 0, energies.size
    if window_mev is not None:
        inside = np.flatnonzero((energies >= window_mev[0]) & (energies <= window_mev[1]))
        if inside.size < 2:
            raise ConfigError(f"window_mev = {window_mev} holds {inside.size} channels; choose one on the axis")
        first, last = int(inside[0]), int(inside[-1]) + 1
    mask = np.ones(last - first)
    if likelihood == "poisson" and variance is not None:
        raise ConfigError("likelihood = poisson has its variance from the model; leave `variance` out, or say gaussian")
    if likelihood == "gaussian":
        if variance is None:
            raise ConfigError("likelihood = gaussian needs `variance`: an array like counts, or one number")
        if np.ndim(variance) == 0:
            if not float(variance) > 0.0:
                raise ConfigError(f"variance = {variance} must be positive")
            mask /= float(variance) / gain**2
            variance = None
    problem = Problem(
        build_model(components, energies[first:last]), counts, bad, variance, mask, first, gain, dark_level,
        read_noise_e**2, POISSON if likelihood == "poisson" else GAUSSIAN, TOLERANCE, MAX_EVALUATIONS,
    )  # fmt: skip
    fit = fit_problem(problem, _backend(backend), covariance=covariance, progress=progress)
    return rescaled(fit) if rescale else fit


def fit_problem(
    problem: Problem, backend: Backend, *, covariance: bool = False, progress: Progress | None = None,
    start: np.ndarray | None = None,
) -> ComponentFit:  # fmt: skip
    """Fit every position of a problem; `start` (parameters,) instead of the fit of the mean spectrum."""
    mean, spread = mean_spectrum(problem, backend)
    params = fit_mean(problem.model, mean, spread) if start is None else problem.model.with_tied(start)
    shared = shared_start(problem.model, params, spread)
    results = run_positions(problem, backend, shared=shared, covariance=covariance, progress=progress)
    again = outlying(results[3], results[2][..., 0])
    if again.any():
        retry(problem, backend, results, again, params, mean)
    return summarise(problem, results)


def mean_spectrum(problem: Problem, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean spectrum in electrons and the variance of one position, (window,); NaN where no position has data."""
    n = problem.mask.size

    def block(_: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None) -> np.ndarray:
        sums = np.empty((counts.shape[0], 3, n))
        sum_rows(counts, _or_none(bad, bool), _or_none(variance, float), problem.first, problem.gain, problem.dark_level, sums)
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
    start = shared or SharedStart(np.empty(n_params), np.empty(0), np.empty((0, 0)))
    before = None if flags is None else np.concatenate([[0], np.cumsum(flags.sum(axis=1))])

    def block(
        first_row: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None
    ) -> list[np.ndarray]:
        rows = slice(first_row, first_row + counts.shape[0])
        chosen = None if flags is None else flags[rows]
        y, wrong, spread = (_spectra(a, chosen) for a in (counts, bad, variance))
        n = len(y)
        params, std = np.empty((n, n_params)), np.empty((n, n_params))
        if starts is not None and before is not None:
            params[:] = starts[before[rows.start] : before[rows.stop]]
        elif starts is not None:
            params[:] = starts[rows].reshape(n, n_params)
        outcome, status = np.empty((n, OUTCOMES)), np.empty(n, np.int64)
        matrix = np.empty((n, n_free, n_free) if covariance else (0, 0, 0))
        fit_components_block(
            y, _or_none(wrong, bool, 2), _or_none(spread, float, 2), problem.mask, problem.first, problem.gain, problem.dark_level,
            problem.likelihood, problem.shift_e, model.table, model.owner, model.affine, model.bounds, model.axis,
            model.channel_mev, model.index, n_free, problem.tolerance, problem.max_evaluations, start.mean, start.projection,
            start.params, model.amplitude, params, std, matrix, outcome, status,
        )  # fmt: skip
        return [params, std, outcome, status, matrix]

    parts = backend.map_rows(block, [problem.counts, problem.bad, problem.variance], progress=progress)
    whole = [np.concatenate([part[k] for part in parts]) for k in range(5)]
    if flags is not None:
        return whole
    shape = problem.counts.shape[:2]
    return [*[a.reshape(*shape, *a.shape[1:]) for a in whole[:4]], whole[4].reshape(*shape, n_free, n_free) if covariance else whole[4]]


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
    problem: Problem, backend: Backend, results: list[np.ndarray], again: np.ndarray, params: np.ndarray, mean: np.ndarray
) -> int:
    """Fit the flagged positions from several starts, keep the better minimum; return how many changed."""
    electrons = np.concatenate(
        backend.map_rows(
            lambda first_row, counts: _electrons(counts[again[first_row : first_row + counts.shape[0]]], problem), [problem.counts]
        )
    )
    total = float(np.nansum(np.where(problem.mask > 0.0, mean, 0.0)))
    ratio = np.clip(electrons / total, 1e-3, 1e3) if total > 0.0 else np.ones(electrons.size)
    careful = replace(problem, max_evaluations=5 * problem.max_evaluations)
    changed = np.zeros(int(again.sum()), bool)
    for start in jittered_starts(problem.model, params, RETRIES):
        found = run_positions(
            careful, backend, starts=scaled_start(problem.model, start, ratio), flags=again, covariance=results[4].ndim == 4
        )
        before_good = np.isin(results[3][again], USABLE)
        good = np.isin(found[3], USABLE)
        lower = found[2][:, 0] < results[2][again][:, 0] - problem.tolerance
        better = good & (~before_good | lower)
        changed |= better
        where = np.zeros_like(again)
        where[again] = better
        for target, source in zip(results, found, strict=True):
            if target.size:
                target[where] = source[better]
    return int(changed.sum())


def summarise(problem: Problem, results: list[np.ndarray]) -> ComponentFit:
    """Make the maps from what the kernel wrote."""
    from scipy.stats import gamma

    params, std, outcome, status = results[:4]
    model = problem.model
    n_free = model.free.size
    std = std.copy()
    for p in np.flatnonzero((model.owner >= 0) & (model.owner != np.arange(model.owner.size))):
        std[..., p] = np.abs(model.affine[p, 0]) * std[..., model.owner[p]]
    dof = np.maximum(outcome[..., 3] - n_free + np.nan_to_num(outcome[..., 5]), 1.0)
    variance = 2.0 * dof + outcome[..., 2]
    p_value = gamma.sf(outcome[..., 1], dof**2 / variance, scale=variance / dof)
    status = status.astype(np.int16)
    areas = [p for p in model.peaks if model.owner[p] == p]
    if areas:
        with np.errstate(invalid="ignore"):
            weak = (params[..., areas] < ASYMPTOTIC_SIGMA * std[..., areas]).any(axis=-1)
        status = np.where(weak & (status == CONVERGED), np.int16(FEW_COUNTS), status)
    return ComponentFit(
        model, model.with_tied(params), std, results[4] if results[4].ndim == 4 else None, outcome[..., 0], outcome[..., 1],
        p_value, outcome[..., 3], outcome[..., 4], status,
    )  # fmt: skip


def rescaled(fit: ComponentFit) -> ComponentFit:
    """Return the fit with deviations scaled by the root of chi-squared per degree of freedom."""
    factor = fit.pearson_chi2 / np.maximum(fit.n_channels - fit.model.free.size, 1.0)
    matrix = None if fit.covariance is None else fit.covariance * factor[..., None, None]
    return replace(fit, std=fit.std * np.sqrt(factor)[..., None], covariance=matrix)


def _backend(backend: Backend | None) -> Backend:
    from phonon_eels.backends.cpu import CpuBackend

    return CpuBackend() if backend is None else backend


def _cube(array: Any) -> Any:
    """Return (rows, columns, channels) of whatever was given; scalars and None as they are."""
    if array is None or np.ndim(array) == 0:
        return array
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if array.ndim > 3:
        raise DataError(f"an array has shape {array.shape}; (rows, columns, channels) are fitted")
    return array[(None,) * (3 - array.ndim)] if array.ndim == 1 else (array[:, None, :] if array.ndim == 2 else array)


def _or_none(block: np.ndarray | None, kind: type, ndim: int = 3) -> np.ndarray:
    return np.empty((0,) * ndim, dtype=kind) if block is None else np.ascontiguousarray(block, dtype=kind)


def _spectra(block: np.ndarray | None, chosen: np.ndarray | None) -> np.ndarray | None:
    if block is None:
        return None
    if chosen is not None:
        return np.ascontiguousarray(block[chosen])
    return np.ascontiguousarray(block).reshape(-1, block.shape[-1])


def _electrons(spectra: np.ndarray, problem: Problem) -> np.ndarray:
    """Return the electrons of each spectrum in the window."""
    window = np.asarray(spectra[:, problem.first : problem.first + problem.mask.size], dtype=float)
    usable = problem.mask > 0.0
    return np.asarray(np.nansum((window[:, usable] - problem.dark_level) / problem.gain, axis=1))
