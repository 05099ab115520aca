"""Temperature at single positions, by the profile likelihood of each.

Every position is fitted again with its lines tabulated at other temperatures, everything else free as in the fit of its energies.
What the objective rises by over its lowest value is the profile of the temperature: it holds what zero-loss peak, background, areas
and energies let it be, and is no parabola where electrons are few. The interval is where it rises by less than one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.backends.base import Backend
from phonon_eels.backends.spectra import NO_CHANNEL
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit, fit_scan
from phonon_eels.forward.temperature import KNOWN_SHARE, LOG_ROOM
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.spectrum_image import SpectrumImage

TEMPERATURE_STATUS = ("ok", "disagrees_with_stage", "not_determined", "no_fit")
"""Meaning of each status, by number: the first two have a temperature."""
DISAGREES_SIGMA = 3.0
INNER_NODES = 4
"""On either side of the scan's temperature, 0.8 expected deviations apart."""
OUTER_NODES = 3
NODE_SIGMA = 0.8
NODE_ROOM = (0.03, 0.2)
FINE = 601


@dataclass(frozen=True)
class TemperatureMap:
    """Temperatures of single positions, (rows, columns) each; NaN where they are not determined.

    Attributes
    ----------
    value_k, std_k
        Where the profile is lowest, and half the width of its 68 % interval.
    low_k, high_k
        The ends of that interval.
    pull_to_stage
        Signed root of what the profile rises by at the stage's temperature; a standard normal number if that is right.
    status
        Numbers of `TEMPERATURE_STATUS`.
    """

    value_k: np.ndarray
    std_k: np.ndarray
    low_k: np.ndarray
    high_k: np.ndarray
    pull_to_stage: np.ndarray
    status: np.ndarray


def map_temperatures(
    image: SpectrumImage,
    model_at: Callable[[float], ForwardModel],
    alignment: Alignment,
    fit: ScanFit,
    backend: Backend,
    *,
    seen: np.ndarray,
    energy_prior_std_mev: np.ndarray,
    scan_k: float,
    scan_std_k: float,
    stage_k: float | None,
    max_iterations: int = 40,
) -> TemperatureMap:
    """Estimate the temperature of every position that was fitted.

    Parameters
    ----------
    model_at
        Returns the model at a temperature in kelvin.
    fit
        The fit that the search starts from, with the energies `seen`, (rows, columns, modes) of bool, and their priors.
    scan_k, scan_std_k
        Temperature of the whole scan: where the search begins, and by the number of positions how far it must reach.
    stage_k
        What the temperatures are held against; None if it is not known.
    """
    good = np.isin(fit.status, (CONVERGED, AT_BOUND))
    spread = scan_std_k / scan_k * math.sqrt(max(int(np.count_nonzero(good)), 1))
    step = min(max(NODE_SIGMA * spread, NODE_ROOM[0]), NODE_ROOM[1])
    inner = step * np.arange(-INNER_NODES, INNER_NODES + 1)

    def objectives(nodes: np.ndarray, where: np.ndarray) -> np.ndarray:
        chosen = replace(alignment, channel=np.where(where, alignment.channel, NO_CHANNEL))
        found = [
            fit_scan(
                image, model_at(scan_k * math.exp(node)), chosen, fit.params, backend, free_energies=seen,
                energy_prior_std_mev=energy_prior_std_mev, max_iterations=max_iterations, reduce=_objective_only,
            )
            for node in nodes.tolist()
        ]  # fmt: skip
        told = [np.where(np.isin(one.status, (CONVERGED, AT_BOUND)), one.objective, np.nan) for one in found]
        return np.stack(told, axis=-1)

    stage = np.nan if stage_k is None else float(np.log(stage_k / scan_k))
    profile = objectives(inner, good)
    result = _read(inner, profile, stage)
    far = good & ~np.isfinite(result[1]) & np.isfinite(profile).all(axis=-1)
    if far.any() and inner[-1] < LOG_ROOM:
        reach = np.geomspace(inner[-1], LOG_ROOM, OUTER_NODES + 1)[1:]
        outer = objectives(np.concatenate([-reach[::-1], reach]), far)
        nodes = np.concatenate([-reach[::-1], inner, reach])
        whole = np.concatenate([outer[..., :OUTER_NODES], profile, outer[..., OUTER_NODES:]], axis=-1)
        result = np.where(far, _read(nodes, whole, stage), result)
    return _as_map(result, scan_k, good)


def _objective_only(here: slice, fit: ScanFit) -> ScanFit:
    return replace(fit, params=fit.params[..., :0], std=fit.std[..., :0])


def _read(nodes: np.ndarray, profile: np.ndarray, stage: float) -> np.ndarray:
    """Return place of the minimum, ends of the 68 % interval and pull to the stage, (4, rows, columns), NaN where open."""
    from scipy.interpolate import CubicSpline

    fine = np.linspace(nodes[0], nodes[-1], FINE)
    result = np.full((4, *profile.shape[:2]), np.nan)
    for row, values in enumerate(profile):  # row by row: all fine profiles of a scan would be gigabytes
        usable = np.isfinite(values).all(axis=-1)
        if not usable.any():
            continue
        curve = CubicSpline(nodes, values[usable], axis=1)
        rise = curve(fine)
        at = np.argmin(rise, axis=1)
        lowest = rise.min(axis=1)
        inside = rise <= lowest[:, None] + 1.0
        first, last = inside.argmax(axis=1), FINE - 1 - inside[:, ::-1].argmax(axis=1)
        closed = (first > 0) & (last < FINE - 1) & (at > 0) & (at < FINE - 1)
        kept = np.flatnonzero(usable)[closed]
        rise, at, lowest, first, last = (a[closed] for a in (rise, at, lowest, first, last))
        result[0, row, kept] = _vertex(fine, rise, at)
        result[1, row, kept] = _crossing(fine, rise, first - 1, lowest + 1.0)
        result[2, row, kept] = _crossing(fine, rise, last, lowest + 1.0)
        if np.isfinite(stage):
            here = float(np.clip(stage, nodes[0], nodes[-1]))
            risen = np.sqrt(np.maximum(curve(here)[closed] - lowest, 0.0))
            result[3, row, kept] = np.sign(result[0, row, kept] - here) * risen
    return result


def _vertex(fine: np.ndarray, rise: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the minima of parabolas through three points."""
    rows = np.arange(len(rise))
    left, middle, right = (rise[rows, at + k] for k in (-1, 0, 1))
    curvature = left - 2.0 * middle + right
    offset = np.divide(0.5 * (left - right), curvature, out=np.zeros(len(rise)), where=curvature > 0.0)
    return np.asarray(fine[at] + np.clip(offset, -0.5, 0.5) * (fine[1] - fine[0]))


def _crossing(fine: np.ndarray, rise: np.ndarray, before: np.ndarray, level: np.ndarray) -> np.ndarray:
    rows = np.arange(len(rise))
    left, right = rise[rows, before], rise[rows, before + 1]
    share = np.divide(level - left, right - left, out=np.zeros(len(rise)), where=right != left)
    return np.asarray(fine[before] + share * (fine[1] - fine[0]))


def _as_map(result: np.ndarray, scan_k: float, good: np.ndarray) -> TemperatureMap:
    value, low, high = (scan_k * np.exp(result[k]) for k in range(3))
    pull, std = result[3], 0.5 * (high - low)
    with np.errstate(invalid="ignore"):
        known = good & (std < KNOWN_SHARE * value)
        status = np.where(known, np.where(np.abs(pull) > DISAGREES_SIGMA, 1, 0), np.where(good, 2, 3))
    value, std, low, high, pull = (np.where(known, array, np.nan) for array in (value, std, low, high, pull))
    return TemperatureMap(value, std, low, high, pull, status.astype(np.int16))
