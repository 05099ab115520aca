"""Deviations multiplied by the root of chi-squared per degree of freedom, for noise that is known in proportion only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.forward.scan import INTERVAL_MEANINGS
from phonon_eels.steps.covariance_maps import Told
from phonon_eels.steps.pair_maps import PairMaps
from phonon_eels.steps.peak_maps import INTERVAL_ENDS, PeakMaps, Values

if TYPE_CHECKING:
    import xarray as xr

SENTENCE = "multiplied by the root of chi-squared per degree of freedom of the position (fit_peaks.scale_std_by_chi2)"
ABOUT_ITSELF = tuple(INTERVAL_MEANINGS.index(word) for word in ("fisher", "profile"))
"""Kinds of intervals that lie about the energy; the others end at its bounds, which nothing moves."""


def scaled_by_chi2(found: PeakMaps, told: Told) -> tuple[PeakMaps, Told]:
    """Return the maps with deviations and intervals of every position multiplied by the root of its chi-squared per degree of freedom.

    Degrees of freedom are what the noise lets chi-squared be on average, channels that share noise included. Bounds, statuses,
    correlations, deviations that stand for independent channels (``_naive_std``), systematic parts and those of bins stay.
    """
    root = np.sqrt(told.chi2_ratio)
    values = _scaled(found.values, root)
    if "interval_kind" in found.flags:
        own = np.isin(found.flags["interval_kind"][0], ABOUT_ITSELF)
        energy = values["energy_mev"][0]
        for name in (f"energy_mev_{end}" for end in INTERVAL_ENDS):
            end, unit = values[name]
            values[name] = (np.where(own, energy + (end - energy) * root, end), unit)
    pairs, whole = told.pairs, told.covariance
    if pairs is not None:
        pairs = PairMaps(pairs.names, _scaled(pairs.values, root), pairs.flags)
        ratio = pairs.values["area_ratio"][0]
        for name in ("area_ratio_low68", "area_ratio_high68"):
            end, unit = pairs.values[name]
            pairs.values[name] = (ratio + (end - ratio) * root, unit)
    if whole is not None:
        whole = replace(whole, values=whole.values * told.chi2_ratio)
    return replace(found, values=values), replace(told, pairs=pairs, covariance=whole)


def is_scaled(name: str) -> bool:
    """Return whether a map is one of those that are multiplied."""
    ends = (*(f"energy_mev_{end}" for end in INTERVAL_ENDS), "area_ratio_low68", "area_ratio_high68", "covariance")
    plain = (
        name.endswith("_std") and not name.endswith("_naive_std") and not name.startswith(("binned_", "temperature_"))
    )
    return plain or name in ends


def _scaled(values: Values, root: np.ndarray) -> Values:
    return {
        name: (array * root if name.endswith("_std") and is_scaled(name) else array, unit)
        for name, (array, unit) in values.items()
    }


def tell_scale(maps: xr.Dataset) -> None:
    """Write into the attributes of the multiplied maps that they are."""
    for name in maps.data_vars:
        if is_scaled(str(name)):
            maps[name].attrs["scaled"] = SENTENCE.replace("the root of ", "") if name == "covariance" else SENTENCE
