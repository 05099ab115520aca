"""What the covariance of each position's fit adds to the maps of `fit_peaks`: bounds, close pairs, and the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.steps.maps import flag_summary
from phonon_eels.steps.pair_maps import PairMaps, add_pairs, from_pair_zero
from phonon_eels.steps.peak_maps import Values

if TYPE_CHECKING:
    import xarray as xr

UNIT = "product of parameter_unit of parameter and of other_parameter"


@dataclass(frozen=True)
class CovarianceMaps:
    """Covariance of the parameters of every position.

    Attributes
    ----------
    names, units
        Of the parameters, "mode.map" or "map": names of the maps of `fit_peaks`.
    values
        (parameters, parameters, rows, columns), NaN where a parameter has no deviation.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: np.ndarray


def empty_covariance(parameters: Sequence[tuple[str, str]], shape: tuple[int, ...]) -> CovarianceMaps:
    """Return maps to be filled; `parameters` are names and units, `shape` that of the scan."""
    names, units = zip(*parameters, strict=True)
    return CovarianceMaps(names, units, np.full((len(names), len(names), *shape), np.nan))


@dataclass(frozen=True)
class Told:
    """Maps that rest on the covariance.

    Attributes
    ----------
    bounds
        Cramér-Rao bounds of what is no mode, (rows, columns) each.
    pairs
        Of the close pairs, None where the material has none.
    covariance
        Of all parameters, None if not asked for.
    chi2_ratio
        Pearson's chi-squared over what the noise lets it be on average, (rows, columns); NaN where the fit failed.
    """

    bounds: Values
    pairs: PairMaps | None
    covariance: CovarianceMaps | None
    chi2_ratio: np.ndarray

    def add_to(self, maps: xr.Dataset, zero_mev: float) -> None:
        """Write pairs and covariance into the maps of the step; energies count from `zero_mev`."""
        if self.pairs is not None:
            add_pairs(maps, self.pairs, zero_mev)
        if self.covariance is not None:
            add_covariance(maps, self.covariance)

    def arrays(self, zero_mev: float) -> Values:
        """Return all maps by name, as they are in the step's; energies count from `zero_mev`."""
        found = dict(self.bounds)
        if self.pairs is not None:
            found |= from_pair_zero(self.pairs, zero_mev)
        if self.covariance is not None:
            found["covariance"] = (self.covariance.values, UNIT)
        return found

    @property
    def flags(self) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
        """Statuses of the pairs."""
        return {} if self.pairs is None else self.pairs.flags

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return how many positions have each status of each pair."""
        return {} if self.pairs is None else flag_summary(self.pairs.flags, self.pairs.names)


def add_covariance(maps: xr.Dataset, found: CovarianceMaps) -> None:
    """Write the variable ``covariance`` (parameter, other_parameter, row, column) into the maps of the step."""
    maps.coords["parameter"] = ("parameter", list(found.names))
    maps.coords["other_parameter"] = ("other_parameter", list(found.names))
    maps.coords["parameter_unit"] = ("parameter", list(found.units))
    maps["covariance"] = (
        ("parameter", "other_parameter", "row", "column"),
        found.values,
        {"units": UNIT, "comment": "its diagonal is the square of the _std maps; NaN: held, at a bound, or not fitted"},
    )
