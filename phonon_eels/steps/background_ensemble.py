"""What the choice of windows and of the background's shape does to the result: a systematic part of its variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.kernels.backgrounds import AT_BOUND, CONVERGED
from phonon_eels.steps.background_models import NEED_LOSS_SIDE, RIVALS, Background, make_background

if TYPE_CHECKING:
    import pandas as pd

CUT = 0.25
"""Share of each window that a variant leaves out, once at its lower and once at its upper end."""
MIN_CHANNELS = 4
NEGLIGIBLE_WEIGHT = 0.02
"""Akaike weight below which the windows refuse a shape: about four of AIC behind each of two better ones."""


@dataclass(frozen=True)
class Member:
    """Another way to fit the background."""

    background: Background


def window_variants(windows: list[slice]) -> list[list[slice]]:
    """Return the windows as they are, and with a quarter of each left out at either end."""
    variants = [windows]
    for upper in (False, True):
        cut = []
        for window in windows:
            n = window.stop - window.start
            off = min(round(CUT * n), max(n - MIN_CHANNELS, 0))
            cut.append(slice(window.start, window.stop - off) if upper else slice(window.start + off, window.stop))
        variants.append(cut)
    return variants


def make_members(
    chosen: Background, windows: list[slice], scope: str, comparison: pd.DataFrame | None
) -> tuple[Member, ...]:
    """Return the members of the ensemble; none if it is off.

    Shapes take part if their Akaike weight on the scan's own windows allows it, the same ones at all positions, so that no
    contrast is made by them: a shape that the data refuse says nothing about the error of one that they accept.
    """
    if scope == "none":
        return ()
    methods = [chosen.method]
    if scope == "windows_and_models" and comparison is not None:
        allowed = comparison[comparison["akaike_weight"] >= NEGLIGIBLE_WEIGHT]["method"]
        methods += [method for method in RIVALS if method in set(allowed) and method != chosen.method]
    members = []
    for method in methods:
        for variant in window_variants(windows):
            channels = np.concatenate([chosen.energies_mev[window] for window in variant])
            if method in NEED_LOSS_SIDE and channels.min() <= 0.0:
                continue
            background = make_background(method, chosen.energies_mev, variant, chosen.table)
            members.append(Member(background))
    return tuple(members)


def differences(
    members: Sequence[Member],
    counts: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray | None,
    value: np.ndarray,
    energies_mev: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return how the members differ from a background, by shape: (windows, energies).

    Parameters
    ----------
    counts, variance, bad
        One spectrum, (channels,).
    value
        The background that stands, at `energies_mev`.
    """
    found: dict[str, list[np.ndarray]] = {}
    for member in members:
        status, parameters, covariance = member.background.fit(counts, variance, bad)
        if status in (CONVERGED, AT_BOUND):
            curve = member.background.curve(parameters, covariance, energies_mev)[0]
            found.setdefault(member.background.method, []).append(curve - value)
    return {method: np.stack(rows) for method, rows in found.items()}


def spread(
    members: Sequence[Member],
    counts: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray | None,
    value: np.ndarray,
    energies_mev: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return the mean square of the members' differences from a background, and that of their sums.

    The mean is over windows; of the shapes that the data allow, the one that differs most counts, because which of them is
    right is not a matter of chance. Parameters as `differences`.
    """
    found = differences(members, counts, variance, bad, value, energies_mev)
    if not found:
        return np.full_like(value, np.nan), float("nan")
    worst = np.max([np.mean(rows**2, axis=0) for rows in found.values()], axis=0)
    return worst, max(float(np.mean(rows.sum(axis=1) ** 2)) for rows in found.values())
