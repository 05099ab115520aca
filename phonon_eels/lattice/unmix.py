"""What each layer contributes, freed from what leaks in from its neighbours.

Every position sees all planes near it, each with a Gaussian share of its distance, and a part that is the same everywhere
(dechannelled and dipole scattering, zero-loss tail, background). Least squares over all positions takes these apart. Leakage
and pure spectra cannot both be found from the spectra alone (SCIENCE §9): the width of the share is given, with an error
that is carried along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

EVERYWHERE = "everywhere"
"""Name of the part that no layer holds."""
MAX_CONDITION = 1e8
MIN_WEIGHT = 1e-3
"""A component that no position sees with more than this is not there."""


@dataclass(frozen=True)
class Components:
    """The layers that are told apart: their names and which one each plane belongs to.

    Attributes
    ----------
    names
        Layers; those whose two planes lie closest to each other are split into lower and upper (outward normal).
    of_plane
        (planes,) index into `names`.
    """

    names: tuple[str, ...]
    of_plane: np.ndarray


def components_of(layer: np.ndarray, outward: np.ndarray, split: str | None) -> Components:
    """Return the components of a table of planes.

    Parameters
    ----------
    layer, outward
        (planes,) names and directions of the outward normal.
    split
        Layer whose lower and upper planes are told apart; None for no such layer.
    """
    names: list[str] = []
    of_plane = np.empty(len(layer), dtype=np.intp)
    for k, (name, side) in enumerate(zip(layer, outward, strict=True)):
        full = f"{name} {'upper' if side > 0 else 'lower'}" if name == split else str(name)
        if full not in names:
            names.append(full)
        of_plane[k] = names.index(full)
    return Components(tuple(names), of_plane)


def shares_at(
    source_plane: np.ndarray, source_weight: np.ndarray, components: Components, width_ratio: float = 1.0
) -> np.ndarray:
    """Return how strongly every position sees each component, (rows, columns, components); 1 on top of a lone plane.

    Parameters
    ----------
    source_plane, source_weight
        (sources, rows, columns): planes near a position (-1: none) and exp(-d²/2σ²) at the reference width.
    width_ratio
        Width over the reference width.
    """
    present = (source_plane >= 0) & (source_weight > 0.0)
    with np.errstate(divide="ignore"):
        weight = np.where(present, np.exp(np.log(np.where(present, source_weight, 1.0)) / width_ratio**2), 0.0)
    index = components.of_plane[np.where(present, source_plane, 0)]
    shares = np.zeros((*source_plane.shape[1:], len(components.names)))
    for k in range(len(components.names)):
        shares[..., k] = np.where(index == k, weight, 0.0).sum(axis=0)
    return shares


def unmixing_weights(shares: np.ndarray, usable: np.ndarray, precision: np.ndarray | None = None) -> np.ndarray:
    """Return the weights that give each component from the positions, (components + 1, rows, columns); the last is `EVERYWHERE`.

    Components that are not in view, and all of them where the geometry does not tell them apart, get NaN.

    Parameters
    ----------
    shares
        (rows, columns, components).
    usable
        (rows, columns).
    precision
        (rows, columns) inverse variances; None for equal ones.
    """
    n = shares.shape[2]
    seen = np.array([bool((shares[usable][:, k] > MIN_WEIGHT).any()) for k in range(n)] + [True])
    design = np.concatenate([shares, np.ones((*usable.shape, 1))], axis=2)[..., seen]
    weight = np.where(usable, 1.0 if precision is None else precision, 0.0)
    normal = np.einsum("rci,rc,rcj->ij", design, weight, design)
    result = np.full((n + 1, *usable.shape), np.nan)
    if not np.isfinite(normal).all() or np.linalg.cond(normal) > MAX_CONDITION:
        return result
    result[seen] = np.linalg.solve(
        normal, np.moveaxis(design * weight[..., None], 2, 0).reshape(int(seen.sum()), -1)
    ).reshape(int(seen.sum()), *usable.shape)
    return result


def leakage_matrix(shares: np.ndarray, probe: np.ndarray, n_probes: int) -> np.ndarray:
    """Return the mean share of each component in what is seen on each layer, (probes, components), rows of sum 1.

    Parameters
    ----------
    probe
        (rows, columns) layer of each position, others than 0 … n_probes - 1 are left out.
    """
    total = shares.sum(axis=2, keepdims=True)
    relative = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0.0)
    return np.stack([
        relative[probe == k].mean(axis=0) if (probe == k).any() else np.full(shares.shape[2], np.nan) for k in range(n_probes)
    ])  # fmt: skip


def with_width_error(function: Callable[[float], np.ndarray], relative_std: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a function of the width ratio at 1, and half its difference between one deviation more and less."""
    step = min(relative_std, 0.5)
    return function(1.0), 0.5 * np.abs(function(1.0 + step) - function(1.0 - step))


def unmix_by_matrix(
    matrix: np.ndarray, matrix_std: np.ndarray, seen: np.ndarray, seen_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pure spectra, their statistical and their systematic deviations, all (layers, channels), from a given leakage matrix.

    Parameters
    ----------
    matrix, matrix_std
        (layers, layers) share of source j in what is seen on layer i, and its deviation.
    seen, seen_std
        (layers, channels).

    Raises
    ------
    ValueError
        If the matrix cannot be inverted.
    """
    if np.linalg.cond(matrix) > 1e6:
        raise ValueError("the leakage matrix cannot be inverted: layers are seen in the same proportions")
    inverse = np.linalg.inv(matrix)
    pure = inverse @ seen
    std = np.sqrt(inverse**2 @ seen_std**2)
    # d(pure) = -inverse · d(matrix) · pure, every entry with its own independent error.
    syst = np.sqrt(np.einsum("ai,ij,jn->an", inverse**2, matrix_std**2, pure**2))
    return pure, std, syst
