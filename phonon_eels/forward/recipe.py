"""Energies and widths that a recipe fixes or ties, as the fits take them.

A tie is no prior: the mode that follows has no parameter of its own. Its derivatives are added to those of the mode it follows,
so values, deviations, covariances and the number of free parameters are those of the smaller model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phonon_eels.config import Material, Mode, Settings, load_material
from phonon_eels.config.recipe import PeakRecipe
from phonon_eels.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """Which energies are fitted and how the others follow.

    Attributes
    ----------
    owner
        (modes,) the mode whose energy each one follows: itself where it is free, -1 where it is fixed.
    offset_mev
        (modes,) distance from the owner; of a fixed mode its energy.
    """

    owner: np.ndarray
    offset_mev: np.ndarray

    @property
    def free_modes(self) -> np.ndarray:
        """Modes with an energy of their own."""
        return np.flatnonzero(self.owner == np.arange(self.owner.size))

    @property
    def followers(self) -> np.ndarray:
        """Modes that follow another one."""
        return np.flatnonzero((self.owner >= 0) & (self.owner != np.arange(self.owner.size)))

    @property
    def fixed(self) -> np.ndarray:
        """(modes,) of bool."""
        return np.asarray(self.owner < 0)

    @property
    def design(self) -> np.ndarray:
        """Derivatives of all energies to the free ones, (modes, free)."""
        return (self.owner[:, None] == self.free_modes).astype(float)

    def held(self, energies_mev: np.ndarray) -> np.ndarray:
        """Return energies, (…, modes), with those of followers and fixed modes set."""
        of_owner = np.where(self.fixed, 0.0, energies_mev[..., np.maximum(self.owner, 0)])
        return np.asarray(of_owner + self.offset_mev)

    def of_free(self, values: np.ndarray) -> np.ndarray:
        """Return the energies, (…, modes), of all modes from those of the free ones, (…, free)."""
        return np.asarray(values @ self.design.T + self.offset_mev)

    def codes(self, fitted: np.ndarray, first: int) -> np.ndarray:
        """Return how the kernels fit each energy, as `least_squares.fit_one` has it, (…, modes).

        Parameters
        ----------
        fitted
            (…, modes) of bool; modes that hang together are fitted where one of them is.
        first
            Number of the first energy among the parameters.
        """
        codes = np.zeros(fitted.shape, np.int8)
        for mode in self.free_modes:
            own = np.flatnonzero(self.owner == mode)
            some = fitted[..., own].any(axis=-1)
            codes[..., own] = np.where(some, -(first + mode) - 1, 0)[..., None]
            codes[..., mode] = some
        return codes

    def bounds(self, bounds_mev: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return bounds, (modes, 2), that all modes that hang together can keep.

        Raises
        ------
        ConfigError
            If there are none, or a fixed energy lies outside its own.
        """
        result = np.array(bounds_mev, dtype=float)
        for mode in np.flatnonzero(self.fixed):
            low, high = result[mode]
            if not low <= self.offset_mev[mode] <= high:
                raise ConfigError(
                    f"fit_peaks holds mode {names[int(mode)]} at {self.offset_mev[mode]:g} meV, outside its bounds {low:g} … {high:g} meV; "
                    "give another energy, or other bounds_mev in the material file"
                )
        for mode in self.free_modes:
            own = np.flatnonzero(self.owner == mode)
            low, high = (result[own] - self.offset_mev[own, None]).T
            if not low.max() < high.min():
                raise ConfigError(
                    f"fit_peaks.fixed_separation_mev cannot hold for {', '.join(names[int(m)] for m in own)}: no energies inside their bounds "
                    "lie so far apart; give another separation, or other bounds_mev in the material file"
                )
            result[own] = np.array([low.max(), high.min()]) + self.offset_mev[own, None]
        return result

    def gathered(self, precision: np.ndarray) -> np.ndarray:
        """Return prior precisions, (modes,): those of modes that hang together added up at the free one, 0 at the others."""
        total = np.zeros(self.owner.size)
        total[self.free_modes] = self.design.T @ precision
        return total

    def own_prior_std(self, std_mev: np.ndarray) -> np.ndarray:
        """Return the deviations that belong to `gathered`, (modes,): infinite at modes without an energy of their own."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.gathered(std_mev**-2.0) ** -0.5)

    def prior_std(self, std_mev: np.ndarray) -> np.ndarray:
        """Return what is known beforehand of each energy, (modes,), those that hang together counted together; inf: nothing."""
        return np.append(self.own_prior_std(std_mev), np.inf)[self.owner]


def read_recipe(settings: PeakRecipe, material: Material, names: Sequence[str]) -> Recipe | None:
    """Return what the settings hold of the energies of the modes `names`, None if nothing.

    Raises
    ------
    ConfigError
        If a mode is not one of the material's, or one follows another that is not in the window.
    """
    known = [mode.name for mode in material.modes]
    for name, key in settings.named_modes.items():
        if name not in known:
            raise ConfigError(
                f"fit_peaks.{key}: {name!r} is no mode of material {material.name}; they are {', '.join(known)}"
            )
    if not settings.holds_energies:
        return None
    owner, offset = np.arange(len(names)), np.zeros(len(names))
    ties = {tie.mode: tie for tie in settings.fixed_separation_mev}
    for m, name in enumerate(names):
        root, distance = name, 0.0
        while root in ties:
            distance += ties[root].separation_mev
            root = ties[root].from_mode
        if root in settings.fixed_energies_mev:
            owner[m], offset[m] = -1, settings.fixed_energies_mev[root] + distance
        elif root in names:
            owner[m], offset[m] = names.index(root), distance
        else:
            raise ConfigError(
                f"fit_peaks.fixed_separation_mev: mode {name} follows {root}, which lies beyond the fitted window; widen "
                "fit_peaks.window_mev, or let another mode lead"
            )
    return Recipe(owner, offset)


def checked_material(settings: Settings) -> Material:
    """Return the material of a run.

    Raises
    ------
    ConfigError
        If there is none, or what `fit_peaks` is to hold of energies and widths does not go with it.
    """
    material = load_material(settings.material)
    check_recipe(settings.fit_peaks, material)
    return material


def check_recipe(settings: PeakRecipe, material: Material) -> None:
    """Raise a ConfigError if what the settings hold of energies and widths does not go with the material."""
    names = [mode.name for mode in material.modes]
    recipe = read_recipe(settings, material, names)
    if recipe is not None:
        recipe.bounds(np.array([mode.bounds_mev for mode in material.modes]), names)


def recipe_modes(settings: PeakRecipe, material: Material) -> tuple[Mode, ...]:
    """Return the material's modes with the widths that the settings fix, and one width (their geometric mean) in each group."""
    widths = {mode.name: mode.fwhm_mev for mode in material.modes}
    for group in settings.same_fwhm:
        common = float(np.exp(np.mean([np.log(widths[name]) for name in group if name in widths])))
        widths |= dict.fromkeys(group, common)
    widths |= settings.fixed_fwhm_mev
    return tuple(
        mode if mode.fwhm_mev == widths[mode.name] else mode.model_copy(update={"fwhm_mev": widths[mode.name]})
        for mode in material.modes
    )


def width_groups(names: Sequence[str], pairs: Sequence[tuple[str, str]], settings: PeakRecipe) -> list[int]:
    """Return the group of each mode, -1 where its width is fixed: those of a group share one factor on their widths.

    Modes of a pair do, whose widths alone could not be told, and modes that the recipe gives one width.
    """
    fixed = settings.fixed_fwhm_mev
    group = list(range(len(names)))
    for tied in (*pairs, *settings.same_fwhm):
        present = [names.index(name) for name in tied if name in names and name not in fixed]
        for mode in present[1:]:
            old, new = group[mode], group[present[0]]
            group = [new if g == old else g for g in group]
    order = sorted({g for name, g in zip(names, group, strict=True) if name not in fixed})
    return [-1 if name in fixed else order.index(g) for name, g in zip(names, group, strict=True)]
