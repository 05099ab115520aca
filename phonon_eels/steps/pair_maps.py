"""Close pairs at every position: area-weighted centroid, splitting and area ratio with their covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.config import Material
from phonon_eels.steps.maps import add_flags

if TYPE_CHECKING:
    import xarray as xr

PAIR_STATUS = ("ok", "centroid_only", "not_identifiable", "failed", "no_deviation")
"""What is told of a pair: all three; centroid and area ratio (the splitting is not known, or an energy was held); nothing; nothing,
because the fit failed; nothing, because an energy ended at its bound or the Fisher matrix is singular, where no deviation holds."""
RATIO_STATUS = ("ok", "skewed", "interval_only", "faint_denominator", "not_told")
"""How an area ratio is to be read: its deviation as that of a normal law; as up to 15 % too small, better by its interval; it has an
interval and no deviation; the upper line is too faint, no value; nothing is told of the pair."""
OK, CENTROID_ONLY, NOT_IDENTIFIABLE, FAILED, NO_DEVIATION = range(len(PAIR_STATUS))
SKEWED_SIGMA, LINEAR_SIGMA, FAINT_SIGMA = 10.0, 5.0, 2.0
"""Deviations of the upper line's area below which a ratio is called skewed, has no deviation, has no value. With s the relative
deviation of a number, that of its inverse is s (1 + 8 s²)^½ to second order: 4 % and 15 % above the linear one at 10 and 5."""
TELLS = {
    "centroid": "(a1 E1 + a2 E2) / (a1 + a2), areas a, energies E, 1 the lower line of the pair",
    "splitting": "E2 - E1",
    "area_ratio": "a1 / a2; how its standard deviation is to be read says area_ratio_status; its interval is Fieller's",
    "correlation": "times both standard deviations it is their covariance",
}


@dataclass(frozen=True)
class PairMaps:
    """Maps of the close pairs of a scan.

    Attributes
    ----------
    names
        Of the pairs, "low+high".
    values
        Name → (array, unit); arrays are (pairs, rows, columns).
    flags
        Name → (numbers, their words); numbers are (pairs, rows, columns).
    """

    names: tuple[str, ...]
    values: dict[str, tuple[np.ndarray, str]]
    flags: dict[str, tuple[np.ndarray, tuple[str, ...]]]


def pairs_in(material: Material, mode_names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the numbers of the modes of every close pair that was fitted, the lower one first."""
    return [
        (mode_names.index(low), mode_names.index(high))
        for low, high in material.pairs
        if low in mode_names and high in mode_names
    ]


def pair_quantities(
    areas: np.ndarray, energies_mev: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return centroid (meV), splitting (meV) and area ratio of two lines, (…, 3), and their covariance, (…, 3, 3).

    The covariance is G C Gᵀ with G the derivatives at the estimate: exact to first order in the deviations.

    Parameters
    ----------
    areas, energies_mev
        (…, 2) of the lower and of the upper line.
    covariance
        (…, 4, 4) of both areas and both energies, in this order.
    """
    (a1, a2), (e1, e2) = np.moveaxis(areas, -1, 0), np.moveaxis(energies_mev, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = a1 + a2
        centroid, ratio = (a1 * e1 + a2 * e2) / total, a1 / a2
        zero, one = np.zeros_like(total), np.ones_like(total)
        gradient = np.stack(
            [
                np.stack([(e1 - centroid) / total, (e2 - centroid) / total, a1 / total, a2 / total], axis=-1),
                np.stack([zero, zero, -one, one], axis=-1),
                np.stack([one / a2, -ratio / a2, zero, zero], axis=-1),
            ],
            axis=-2,
        )
    found = np.einsum("...ik,...kl,...jl->...ij", gradient, covariance, gradient)
    return np.stack([centroid, e2 - e1, ratio], axis=-1), found


def ratio_interval(areas: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 68 % interval of a ratio of two areas, (…) each; NaN where it has no ends.

    All ratios r at which a1 - r a2 is within one of its deviations of 0 (Fieller 1954, doi:10.1111/j.2517-6161.1954.tb00159.x): exact
    for areas with normal noise, however faint. It has two ends where a2 is above one deviation.

    Parameters
    ----------
    areas
        (…, 2).
    covariance
        (…, 2, 2).
    """
    a1, a2 = areas[..., 0], areas[..., 1]
    square = a2**2 - covariance[..., 1, 1]
    cross, rest = a1 * a2 - covariance[..., 0, 1], a1**2 - covariance[..., 0, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        middle, half = cross / square, np.sqrt(np.maximum(cross**2 - square * rest, 0.0)) / square
        bounded = (square > 0.0) & (a2 > 0.0)
    return np.where(bounded, middle - half, np.nan), np.where(bounded, middle + half, np.nan)


def pair_maps(
    pairs: Sequence[tuple[int, int]],
    mode_names: Sequence[str],
    areas: np.ndarray,
    energies_mev: np.ndarray,
    covariance: np.ndarray,
    energies_fitted: np.ndarray,
    label: np.ndarray,
    prefix: str = "",
) -> PairMaps:
    """Return the maps of all close pairs.

    Parameters
    ----------
    areas, energies_mev
        (rows, columns, modes).
    covariance
        (pairs, rows, columns, 4, 4) of each pair's areas and energies; NaN where there is none.
    energies_fitted
        (rows, columns, modes) where the energies have deviations of their own: free and at no bound.
    label
        (modes, rows, columns) numbers of `peak_maps.IDENTIFIABILITY`.
    prefix
        Before the names of energies, "apparent_" on the classic route.
    """
    names = tuple(f"{mode_names[low]}+{mode_names[high]}" for low, high in pairs)
    found = [
        _one_pair(areas[..., own], energies_mev[..., own], matrix, energies_fitted[..., own], label[own].max(axis=0))
        for own, matrix in zip((list(pair) for pair in pairs), covariance, strict=True)
    ]
    units = {"centroid": "meV", "splitting": "meV", "area_ratio": "1"}
    titles = {"centroid": f"{prefix}centroid_mev", "splitting": f"{prefix}splitting_mev", "area_ratio": "area_ratio"}
    numbers = {key: np.stack([one[key] for one in found]) for key in found[0]}
    values: dict[str, tuple[np.ndarray, str]] = {}
    for key, title in titles.items():
        values[title] = (numbers[key], units[key])
        values[f"{title}_std"] = (numbers[f"{key}_std"], units[key])
    for end in ("low68", "high68"):
        values[f"area_ratio_{end}"] = (numbers[end], "1")
    for a, b in _CORRELATED:
        values[f"{a}_{b}_correlation"] = (numbers[f"{a}_{b}"], "1")
    flags: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
        "pair_status": (numbers["status"].astype(np.int16), PAIR_STATUS),
        "area_ratio_status": (numbers["ratio_status"].astype(np.int16), RATIO_STATUS),
    }
    return PairMaps(names, values, flags)


_CORRELATED = (("centroid", "splitting"), ("centroid", "area_ratio"), ("splitting", "area_ratio"))


def _one_pair(
    areas: np.ndarray, energies_mev: np.ndarray, covariance: np.ndarray, fitted: np.ndarray, label: np.ndarray
) -> dict[str, np.ndarray]:
    value, matrix = pair_quantities(areas, energies_mev, covariance)
    known = np.isfinite(matrix).all(axis=(-2, -1))
    status = np.where(label == 0, np.where(fitted.all(axis=-1), OK, CENTROID_ONLY), label)
    status = np.where(label == 3, FAILED, np.where((label < 2) & ~known, NO_DEVIATION, status))
    told = status <= CENTROID_ONLY
    with np.errstate(invalid="ignore"):
        std = np.sqrt(np.maximum(np.diagonal(matrix, axis1=-2, axis2=-1), 0.0))
        significance = areas[..., 1] / np.sqrt(covariance[..., 1, 1])
    how = np.select([significance > limit for limit in (SKEWED_SIGMA, LINEAR_SIGMA, FAINT_SIGMA)], [0, 1, 2], 3)
    how = np.where(told, how, 4)
    split = status == OK
    value = np.where(np.stack([told, split, how <= 2], axis=-1), value, np.nan)
    std = np.where(np.stack([told, split, how <= 1], axis=-1), std, np.nan)
    found = {"status": status, "ratio_status": how}
    for name, end in zip(("low68", "high68"), ratio_interval(areas, covariance[..., :2, :2]), strict=True):
        found[name] = np.where(how <= 2, end, np.nan)
    for k, name in enumerate(("centroid", "splitting", "area_ratio")):
        found |= {name: value[..., k], f"{name}_std": std[..., k]}
    for (a, b), (i, j) in zip(_CORRELATED, ((0, 1), (0, 2), (1, 2)), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            found[f"{a}_{b}"] = np.clip(matrix[..., i, j] / (std[..., i] * std[..., j]), -1.0, 1.0)
    return found


def from_pair_zero(found: PairMaps, zero_mev: float) -> dict[str, tuple[np.ndarray, str]]:
    """Return the maps with centroids counted from another zero."""
    return {
        name: (array - zero_mev if name.endswith("centroid_mev") else array, unit)
        for name, (array, unit) in found.values.items()
    }


def add_pairs(maps: xr.Dataset, found: PairMaps, zero_mev: float) -> None:
    """Write the maps of the pairs, (pair, row, column), into those of the step; centroids count from `zero_mev`."""
    maps.coords["pair"] = ("pair", list(found.names))
    for name, (array, unit) in from_pair_zero(found, zero_mev).items():
        key = "correlation" if name.endswith("correlation") else next(key for key in TELLS if key in name)
        maps[name] = (("pair", "row", "column"), array, {"units": unit, "comment": TELLS[key]})
    add_flags(maps, found.flags, "pair")
