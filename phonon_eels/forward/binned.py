"""Energies of bins of positions that are just large enough for a wanted standard deviation.

Where single positions cannot carry a free fit, positions are put together until the bound of a mode's energy falls below the
target. Spectra are not added: scores and information of the positions are, each with its own areas, zero-loss peak and
background marginalised, so that drift, thickness and strength may differ inside a bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from phonon_eels.forward.information import inverse_or_large, of_all_energies
from phonon_eels.forward.pooled import gathered
from phonon_eels.forward.recipe import Recipe
from phonon_eels.forward.scan import ScanFit

Along = Literal["both", "rows", "columns"]
BIN_STATUS = ("ok", "target_not_reached", "outside_bounds", "no_data")


@dataclass(frozen=True)
class BinnedEnergies:
    """Energy of the bin that each position lies in.

    Attributes
    ----------
    energy_mev, std_mev
        (modes, rows, columns); NaN where there is none.
    n_positions
        (modes, rows, columns) usable positions in the bin.
    status
        (modes, rows, columns), numbers of `BIN_STATUS`.
    """

    energy_mev: np.ndarray
    std_mev: np.ndarray
    n_positions: np.ndarray
    status: np.ndarray


@dataclass(frozen=True)
class _Level:
    """Bins of one size: energies and deviations (rows, columns, modes), positions and information's trace in them."""

    energy: np.ndarray
    std: np.ndarray
    count: np.ndarray


def binned_energies(
    held: ScanFit,
    usable: np.ndarray,
    bounds_mev: np.ndarray,
    target_std_mev: float,
    along: Along = "both",
    recipe: Recipe | None = None,
) -> BinnedEnergies:
    """Put positions together until the energy of each mode is known to the target, mode by mode.

    Bins are 2ᵏ positions long. A bin is divided as long as all parts of it that hold usable positions reach the target; which
    positions come together depends on what is known there and not on the energies found, so it selects nothing. The energy is
    one Gauss-Newton step from where the scores were taken; all modes' energies are solved for together, so that those of close
    pairs have honest deviations. Without any prior on the energies.

    Parameters
    ----------
    held
        Fit with the energies held that kept scores and information (`fit_scan(profile=True)`).
    usable
        (rows, columns).
    bounds_mev
        (modes, 2): a step that ends outside is no estimate.
    target_std_mev
        Wanted standard deviation.
    along
        Bins grow along both directions, or along rows or columns only (so that they stay inside a plane of atoms).
    recipe
        Energies that are tied are those of one parameter; those that are fixed are none, and have no energy of bins.

    References
    ----------
    Binning to a wanted precision: Sanders and Fabian 2001, doi:10.1046/j.1365-8711.2001.04410.x; the tree is ours.
    """
    if recipe is None:
        recipe = Recipe(np.arange(held.n_modes), np.zeros(held.n_modes))
    levels = _pyramid(held, usable, along, recipe)
    shape, modes = usable.shape, held.n_modes
    energy, std = np.full((2, *shape, modes), np.nan)
    count = np.zeros((*shape, modes))
    active = np.ones((*levels[-1].count.shape, modes), dtype=bool)
    for k in range(len(levels) - 1, -1, -1):
        level = levels[k]
        divided = np.zeros_like(active)
        if k > 0:
            parts = levels[k - 1]
            reached = (parts.std <= target_std_mev) | (parts.count == 0)[..., None]
            divided = active & _blocks(reached, along).all(axis=(1, 3))
        final = _spread(active & ~divided, level.count.shape, shape)
        for target, source in ((energy, level.energy), (std, level.std), (count, level.count[..., None])):
            fine = _spread(np.broadcast_to(source, active.shape), level.count.shape, shape)
            target[final] = fine[final]
        if k > 0:
            active = _spread(divided, level.count.shape, levels[k - 1].count.shape)
    known = usable[..., None] & np.isfinite(std) & ~recipe.fixed
    inside = (energy >= bounds_mev[:, 0]) & (energy <= bounds_mev[:, 1])
    status = np.where(known, np.where(inside, np.where(std <= target_std_mev, 0, 1), 2), 3)
    told = status <= 1
    fields = (
        np.where(told, energy, np.nan),
        np.where(told, std, np.nan),
        np.where(usable[..., None], count, 0.0),
        status,
    )
    return BinnedEnergies(*(np.moveaxis(field, 2, 0) for field in fields))


def _pyramid(held: ScanFit, usable: np.ndarray, along: Along, recipe: Recipe) -> list[_Level]:
    """Return bins of 1, 2, 4 … positions a side, the last of which holds the whole scan (along `along`)."""
    told = gathered(held, recipe.design)
    assert told.score is not None
    assert told.information is not None
    tall, wide = _factors(along)
    information = np.where(usable[..., None, None], told.information, 0.0)
    taken_at = np.nan_to_num(held.energies()[..., recipe.free_modes])
    score = np.where(usable[..., None], told.score, 0.0)
    score = score + np.einsum("rcij,rcj->rci", information, taken_at)
    fields = [score, information, usable.astype(float)]
    levels = [_level(fields[0], fields[1], fields[2], recipe)]
    while fields[2].shape[0] * (tall > 1) > 1 or fields[2].shape[1] * (wide > 1) > 1:
        fields = [_blocks(field, along).sum(axis=(1, 3)) for field in fields]
        levels.append(_level(fields[0], fields[1], fields[2], recipe))
    return levels


def _level(score: np.ndarray, information: np.ndarray, count: np.ndarray, recipe: Recipe) -> _Level:
    """Solve for the energies of bins; what the data do not tell has an infinite deviation."""
    design = recipe.design
    covariance, told = inverse_or_large(information)
    energy = recipe.of_free(np.einsum("...ij,...j->...i", covariance, score))
    covariance, told = of_all_energies(covariance, told, design)
    std = np.sqrt(np.where(told, np.diagonal(covariance, axis1=-2, axis2=-1), np.inf))
    return _Level(energy, std, count)


def _factors(along: Along) -> tuple[int, int]:
    return (1 if along == "rows" else 2), (1 if along == "columns" else 2)


def _blocks(field: np.ndarray, along: Along) -> np.ndarray:
    """Return (rows', tall, columns', wide, …), filled up with zeros (True for flags) to whole blocks."""
    tall, wide = _factors(along)
    rows, columns = field.shape[:2]
    fill = ((0, -rows % tall), (0, -columns % wide), *[(0, 0)] * (field.ndim - 2))
    padded = np.pad(field, fill, constant_values=field.dtype == bool)
    return padded.reshape(padded.shape[0] // tall, tall, padded.shape[1] // wide, wide, *field.shape[2:])


def _spread(field: np.ndarray, coarse: tuple[int, ...], fine: tuple[int, ...]) -> np.ndarray:
    """Give every fine position what its bin has."""
    for axis in (0, 1):
        repeat = 1
        while coarse[axis] * repeat < fine[axis]:
            repeat *= 2
        field = np.repeat(field, repeat, axis=axis)
    return field[: fine[0], : fine[1]]
