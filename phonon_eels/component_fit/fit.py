"""Fit a list of components to every position of a cube of counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from phonon_eels.backends.base import Backend, Progress
from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit.memory import expected_bytes
from phonon_eels.component_fit.model import Component, build_model
from phonon_eels.component_fit.passes import (
    MAX_EVALUATIONS,
    TOLERANCE,
    Problem,
    mean_spectrum,
    outlying,
    retry,
    run_positions,
)
from phonon_eels.component_fit.result import ComponentFit, rescaled, summarise
from phonon_eels.component_fit.start import fit_mean, shared_start
from phonon_eels.component_fit.where import positions_where
from phonon_eels.errors import ConfigError, DataError
from phonon_eels.kernels.component_fit import OUTCOMES
from phonon_eels.kernels.likelihood import GAUSSIAN, POISSON

log = logging.getLogger(__name__)


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
    problem = make_problem(
        counts, energies_mev, components, likelihood=likelihood, variance=variance, bad=bad, window_mev=window_mev, gain=gain,
        dark_level=dark_level, read_noise_e=read_noise_e,
    )  # fmt: skip
    fit = fit_problem(problem, _backend(backend), covariance=covariance, progress=progress)
    return rescaled(fit) if rescale else fit


def make_problem(
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
) -> Problem:
    """Check what `fit_components` was given and put it as the kernels take it; parameters as there."""
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
    return Problem(
        build_model(components, energies[first:last]), counts, bad, variance, mask, first, gain, dark_level,
        read_noise_e**2, POISSON if likelihood == "poisson" else GAUSSIAN, TOLERANCE, MAX_EVALUATIONS,
    )  # fmt: skip


def refit_components(
    fit: ComponentFit,
    where: str,
    counts: Any,
    energies_mev: np.ndarray,
    components: Sequence[Component],
    *,
    backend: Backend | None = None,
    **how: Any,
) -> ComponentFit:
    """Fit again, from several starts, only the positions that an expression chooses; keep the better minimum of each.

    Parameters
    ----------
    fit
        Of the same counts and components.
    where
        Such as ``status != converged``; see `phonon_eels.component_fit.where.positions_where`.
    counts, energies_mev, components, how
        As `fit_components` was given them (but covariance and rescale).

    Returns
    -------
    ComponentFit
        With the changed positions replaced; without covariance, which is not computed again.

    Raises
    ------
    ConfigError
        If the expression cannot be read, or the fit is of another model.
    """
    problem = make_problem(counts, energies_mev, components, **how)
    if problem.model.names != fit.names or problem.counts.shape[:2] != fit.status.shape:
        raise ConfigError(
            f"the fit is of another model or scan: it has parameters {', '.join(fit.names)} at {fit.status.shape} positions, "
            f"asked for are {', '.join(problem.model.names)} at {problem.counts.shape[:2]}"
        )
    chosen = positions_where(fit, where)
    place = _backend(backend)
    mean, spread = mean_spectrum(problem, place)
    outcome = np.full((*fit.status.shape, OUTCOMES), np.nan)
    outcome[..., 0] = fit.deviance
    results = [fit.values.copy(), fit.std.copy(), outcome, fit.status.astype(np.int64), np.empty((0, 0, 0))]
    if not chosen.any():
        return replace(fit, covariance=None)
    changed = retry(problem, place, results, chosen, fit_mean(problem.model, mean, spread), mean)
    new = summarise(problem.model, results)
    maps = ("values", "std", "deviance", "pearson_chi2", "p_value", "n_channels", "evaluations", "status")
    merged = {}
    for name in maps:
        array = getattr(fit, name).copy()
        array[changed] = getattr(new, name)[changed]
        merged[name] = array
    return replace(fit, covariance=None, **merged)


def fit_problem(
    problem: Problem, backend: Backend, *, covariance: bool = False, progress: Progress | None = None,
    start: np.ndarray | None = None,
) -> ComponentFit:  # fmt: skip
    """Fit every position of a problem; `start` (parameters,) instead of the fit of the mean spectrum."""
    if type(backend) is CpuBackend:
        most = expected_bytes(problem.counts, problem.model, covariance, backend)
        log.debug("fit of components: at most %.0f MB of arrays beside the program", most / 1e6)
    mean, spread = mean_spectrum(problem, backend)
    params = fit_mean(problem.model, mean, spread) if start is None else problem.model.with_tied(start)
    shared = shared_start(problem.model, params, spread)
    results = run_positions(problem, backend, shared=shared, covariance=covariance, progress=progress)
    again = outlying(results[3], results[2][..., 0])
    if again.any():
        retry(problem, backend, results, again, params, mean)
    return summarise(problem.model, results)


def _backend(backend: Backend | None) -> Backend:
    return CpuBackend() if backend is None else backend


def _cube(array: Any) -> Any:
    """Return (rows, columns, channels) of whatever was given, in the processor's own byte order; scalars and None as they are."""
    if array is None or np.ndim(array) == 0:
        return array
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if not array.dtype.isnative:  # as files of other machines have it, which no kernel takes
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim > 3:
        raise DataError(f"an array has shape {array.shape}; (rows, columns, channels) are fitted")
    return array[(None,) * (3 - array.ndim)] if array.ndim == 1 else (array[:, None, :] if array.ndim == 2 else array)
