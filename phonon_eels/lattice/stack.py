"""The stack of atomic planes of a layered crystal, as arrays.

Coordinates count along c in the crystal's own nm: 0 is the middle of a van der Waals gap, slab n is centred
on c (n/2 + 1/4). The stack repeats every c/2 in projection; only the superstructure tells odd from even slabs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from phonon_eels.config import Material

GAP = "gap"
"""Label of the van der Waals gap between slabs, a layer without atoms."""

Z_CONTRAST_EXPONENT = 1.7  # HAADF intensity of a column against atomic number, between Rutherford's 2 and screening


@dataclass(frozen=True)
class Stack:
    """Planes of one slab.

    Attributes
    ----------
    names
        Layer kinds from the middle of the slab outwards, without the gap.
    heights_nm
        Height of each kind over the middle of the slab.
    weights
        Expected HAADF strength of each kind, the strongest 1.
    wave_ratio
        Superstructure displacement of each kind over that of the anchor.
    c_nm
        Lattice parameter; a slab every c/2.
    anchor
        The kind that the image shows best: its planes are followed one by one.
    """

    names: tuple[str, ...]
    heights_nm: np.ndarray
    weights: np.ndarray
    wave_ratio: np.ndarray
    c_nm: float
    anchor: int

    @property
    def repeat_nm(self) -> float:
        """Distance from slab to slab."""
        return 0.5 * self.c_nm

    def layer_name(self, kind: int) -> str:
        """Return the name of a kind; the one after the last is the gap."""
        return (*self.names, GAP)[kind]


@dataclass(frozen=True)
class Planes:
    """Planes of several slabs in order along c; arrays of one length.

    Attributes
    ----------
    kind
        Index into `Stack.names`; the gap counts as one more kind, its "plane" lies in its middle.
    slab
        Number of the slab; a gap has the number of the slab below it.
    side
        +1 on the side of increasing c of the slab's middle, -1 on the other, 0 in the middle and for the gap.
    position_nm
        Undisplaced coordinate along c.
    """

    kind: np.ndarray
    slab: np.ndarray
    side: np.ndarray
    position_nm: np.ndarray

    def select(self, chosen: np.ndarray) -> Planes:
        """Return some of the planes."""
        return Planes(self.kind[chosen], self.slab[chosen], self.side[chosen], self.position_nm[chosen])


def stack_of(material: Material) -> Stack | None:
    """Return the stack of a material, or None if its file gives no crystal or no layers."""
    if material.crystal is None or not material.layers:
        return None
    layers = sorted(material.layers, key=lambda layer: layer.height_nm)
    weights = np.array([float(layer.atomic_number) for layer in layers]) ** Z_CONTRAST_EXPONENT
    weights /= weights.max()
    anchor = int(np.argmax(weights))
    names = tuple(layer.name for layer in layers)
    ratio = np.ones(len(layers))
    waves = material.superstructure.displacement_nm if material.superstructure is not None else {}
    if waves.get(names[anchor], 0.0) > 0.0:
        ratio = np.array([waves.get(name, waves[names[anchor]]) / waves[names[anchor]] for name in names])
    return Stack(names, np.array([layer.height_nm for layer in layers]), weights, ratio, material.crystal.c_nm, anchor)


def planes_between(stack: Stack, low_nm: float, high_nm: float) -> Planes:
    """Return all planes, gaps among them, with coordinates in [low_nm, high_nm], in order along c."""
    first = math.floor(low_nm / stack.repeat_nm) - 1
    last = math.ceil(high_nm / stack.repeat_nm) + 1
    rows: list[tuple[float, int, int, int]] = []
    for slab in range(first, last + 1):
        middle = stack.repeat_nm * (slab + 0.5)
        rows.append((middle + 0.5 * stack.repeat_nm, len(stack.names), slab, 0))
        for kind, height in enumerate(stack.heights_nm):
            for side in (-1, 1) if height > 0.0 else (0,):
                rows.append((middle + side * float(height), kind, slab, side))
    rows = sorted(row for row in rows if low_nm <= row[0] <= high_nm)
    table = np.array(rows, dtype=float).reshape(-1, 4)
    whole = table[:, 1:].astype(int)
    return Planes(whole[:, 0], whole[:, 1], whole[:, 2], table[:, 0])


def periodic_profile(stack: Stack, sigma_nm: float, weights: np.ndarray | None = None, n: int = 1024) -> np.ndarray:
    """Return the HAADF profile of the undisplaced stack over one repeat c/2, shape (n,), starting at a gap.

    Parameters
    ----------
    sigma_nm
        Gaussian width that every plane is seen with.
    weights
        Strength of each kind; default `Stack.weights`.
    """
    strengths = stack.weights if weights is None else weights
    z = np.arange(n) * (stack.repeat_nm / n)
    reach = 5.0 * sigma_nm
    planes = planes_between(stack, -reach, stack.repeat_nm + reach)
    atoms = planes.select(planes.kind < len(stack.names))
    distance = z[:, None] - atoms.position_nm[None, :]
    profile: np.ndarray = np.exp(-0.5 * (distance / sigma_nm) ** 2) @ strengths[atoms.kind]
    return profile
