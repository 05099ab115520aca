"""Profile-likelihood intervals, for positions where the Fisher matrix does not describe the objective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from phonon_eels.backends.base import Backend
from phonon_eels.component_fit.passes import Problem, run_positions
from phonon_eels.component_fit.result import USABLE, ComponentFit
from phonon_eels.errors import ConfigError

STEPS = 14
"""Halvings of the bracket, after which an end is known to 1e-4 of it."""
WIDEST_SIGMA = 12.0


def profile_interval(
    problem: Problem,
    fit: ComponentFit,
    name: str,
    backend: Backend,
    *,
    where: np.ndarray,
    confidence: float = 0.6827,
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the objective, minimised over all other parameters, has risen by the chi-squared quantile.

    Parameters
    ----------
    fit
        Fit of the same problem.
    name
        "component.parameter", a free one.
    where
        (rows, columns) positions wanted.
    confidence
        Of the interval; 0.6827 is what one standard deviation means.

    Returns
    -------
    low, high
        (rows, columns); NaN elsewhere. An end that the objective does not reach before the bound is the bound.

    Raises
    ------
    ConfigError
        If the parameter is not free.

    References
    ----------
    Wilks 1938, doi:10.1214/aoms/1177732360.
    """
    from scipy.stats import chi2

    parameter = fit.model.number(name)
    if parameter not in fit.model.free:
        raise ConfigError(f"{name} is not free; free are {', '.join(fit.model.free_names)}")
    chosen = where & np.isin(fit.status, USABLE)
    best, objective = fit.values[chosen], fit.deviance[chosen]
    rise = float(chi2.ppf(confidence, 1))
    low, high = fit.model.bounds[:2, parameter]
    middle = best[:, parameter]
    scale = fit.std[chosen][:, parameter]
    typical = (
        np.nanmedian(fit.std[..., parameter])
        if np.isfinite(fit.std[..., parameter]).any()
        else 1e-3 * (abs(middle) + 1.0)
    )
    scale = np.where(np.isfinite(scale) & (scale > 0.0), scale, typical)
    held = replace(problem, model=fit.model.holding(parameter))

    def excess(at: np.ndarray) -> np.ndarray:
        starts = best.copy()
        starts[:, parameter] = at
        found = run_positions(held, backend, starts=starts, flags=chosen)
        return np.asarray(np.nan_to_num(found[2][:, 0] - objective, nan=np.inf) - rise)

    ends = []
    for sign, bound in ((-1.0, low), (1.0, high)):
        outer = middle + sign * scale
        reached = np.zeros(middle.size, bool)
        for _ in range(6):  # widen until the objective has risen enough
            outer = np.clip(outer, low, high)
            reached |= excess(outer) > 0.0
            outer = np.where(
                reached, outer, middle + sign * np.minimum(2.0 * abs(outer - middle), WIDEST_SIGMA * scale)
            )
        outer = np.clip(outer, low, high)
        inner = middle.copy()
        for _ in range(STEPS):
            half = 0.5 * (inner + outer)
            above = excess(half) > 0.0
            inner, outer = np.where(above, inner, half), np.where(above, half, outer)
        end = np.where(reached, 0.5 * (inner + outer), bound)
        whole = np.full(fit.status.shape, np.nan)
        whole[chosen] = end
        ends.append(whole)
    return ends[0], ends[1]
