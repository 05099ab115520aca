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
    """Another way to fit the background.

    Attributes
    ----------
    preferred
        True where the windows refuse the shape that was chosen and allow this one: the difference is then no matter of chance but
        most likely the error itself, known to the member's own deviation, which is added to it.
    """

    background: Background
    preferred: bool = False


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
    contrast is made by them: a shape that the data refuse says nothing about the error of one that they accept. Weights are among
    these shapes: one with many parameters that follows the noise must not refuse them all.
    """
    if scope == "none":
        return ()
    methods, refused = [chosen.method], False
    if scope == "windows_and_models" and comparison is not None:
        rivals = comparison[comparison["method"].isin((*RIVALS, chosen.method))]
        weight = dict(zip(rivals["method"], rivals["akaike_weight"] / rivals["akaike_weight"].sum(), strict=True))
        methods += [m for m in RIVALS if weight.get(m, 0.0) >= NEGLIGIBLE_WEIGHT and m != chosen.method]
        refused = weight.get(chosen.method, 1.0) < NEGLIGIBLE_WEIGHT
    members = []
    for method in methods:
        for variant in window_variants(windows):
            channels = np.concatenate([chosen.energies_mev[window] for window in variant])
            if method in NEED_LOSS_SIDE and channels.min() <= 0.0:
                continue
            background = make_background(method, chosen.energies_mev, variant, chosen.table)
            members.append(Member(background, refused and method != chosen.method))
    return tuple(members)


@dataclass(frozen=True)
class Differences:
    """How the members of one shape differ from a background: at each energy (windows, energies), and their sums (windows,)."""

    rows: np.ndarray
    sums: np.ndarray


def differences(
    members: Sequence[Member],
    counts: np.ndarray,
    variance: np.ndarray,
    bad: np.ndarray | None,
    value: np.ndarray,
    energies_mev: np.ndarray,
) -> dict[str, Differences]:
    """Return how the members differ from a background, by shape; a preferred one's with its own deviation added.

    Parameters
    ----------
    counts, variance, bad
        One spectrum, (channels,).
    value
        The background that stands, at `energies_mev`.
    """
    found: dict[str, list[tuple[np.ndarray, float]]] = {}
    for member in members:
        status, parameters, covariance = member.background.fit(counts, variance, bad)
        if status not in (CONVERGED, AT_BOUND):
            continue
        curve, own, of_sum = member.background.curve(parameters, covariance, energies_mev)
        rows, total = curve - value, float((curve - value).sum())
        if member.preferred:
            rows = rows + np.sign(rows) * np.sqrt(np.maximum(own, 0.0))
            total += float(np.sign(total) * np.sqrt(max(of_sum, 0.0)))
        found.setdefault(member.background.method, []).append((rows, total))
    return {
        method: Differences(np.stack([rows for rows, _ in parts]), np.array([total for _, total in parts]))
        for method, parts in found.items()
    }


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
    worst = np.max([np.mean(own.rows**2, axis=0) for own in found.values()], axis=0)
    return worst, max(float(np.mean(own.sums**2)) for own in found.values())
