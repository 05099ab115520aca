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
NEGLIGIBLE_WEIGHT = 1e-3


@dataclass(frozen=True)
class Member:
    """Another way to fit the background, and how much it counts."""

    background: Background
    weight: float


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

    Windows count alike. Shapes count by their Akaike weights on the scan's own windows (the same for all positions, so that
    no contrast is made by them): a shape that the data refuse says nothing about the error of one that they accept.
    """
    if scope == "none":
        return ()
    weights = {chosen.method: 1.0}
    if scope == "windows_and_models" and comparison is not None:
        rivals = comparison[comparison["method"].isin([*RIVALS, chosen.method])]
        weights = {row["method"]: float(row["akaike_weight"]) for row in rivals.to_dict("records")}
        # The chosen shape stands even where the recipe's own weights give it a poor chi-squared.
        weights[chosen.method] = max(weights.get(chosen.method, 0.0), 1.0 / (len(weights) + 1))
    total = sum(weights.values())
    members = []
    for method, weight in weights.items():
        if weight / total < NEGLIGIBLE_WEIGHT:
            continue
        for variant in window_variants(windows):
            channels = np.concatenate([chosen.energies_mev[window] for window in variant])
            if method in NEED_LOSS_SIDE and channels.min() <= 0.0:
                continue
            background = make_background(method, chosen.energies_mev, variant, chosen.table)
            members.append(Member(background, weight / total))
    return tuple(members)


def spread(
    members: Sequence[Member],
    counts: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray | None,
    value: np.ndarray,
    energies_mev: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return the weighted mean square of the members' differences from a background, and that of their sums.

    Parameters
    ----------
    counts, variance, bad
        One spectrum, (channels,).
    value
        The background that stands, at `energies_mev`.
    """
    square, of_sum, used = np.zeros(energies_mev.size), 0.0, 0.0
    for member in members:
        status, parameters, covariance = member.background.fit(counts, variance, bad)
        if status not in (CONVERGED, AT_BOUND):
            continue
        other = member.background.curve(parameters, covariance, energies_mev)[0]
        square += member.weight * (other - value) ** 2
        of_sum += member.weight * float((other - value).sum()) ** 2
        used += member.weight
    return (square / used, of_sum / used) if used > 0.0 else (np.full_like(value, np.nan), float("nan"))
