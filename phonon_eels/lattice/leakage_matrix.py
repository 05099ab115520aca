"""Leakage between layers as a multislice calculation gives it, in place of a Gaussian in the distance to the planes.

The matrix says how much of what is seen on a layer comes from each layer. Between the layers' planes it is mixed by the
probability of each layer at the position, and a source layer's share is parted among its planes as their distances say,
since the matrix does not tell the two planes of a layer apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.lattice.localisation import Localisation, Sources

RELATIVE_STEP = 1e-3


@dataclass(frozen=True)
class LeakageMatrix:
    """A leakage matrix and where each of its rows applies.

    Attributes
    ----------
    layers
        Names, in the order of rows and columns.
    share, share_std
        (layers, layers) share of source column in what is seen on layer row, and its standard deviation.
    probability
        (layers, rows, columns) of each layer at every position.
    """

    layers: tuple[str, ...]
    share: np.ndarray
    share_std: np.ndarray
    probability: np.ndarray


def plane_weights(sources: Sources, matrix: LeakageMatrix, share: np.ndarray, layer_of_plane: np.ndarray) -> np.ndarray:
    """Return how much of what is seen at every position comes from each of its source planes, (sources, rows, columns)."""
    total = matrix.probability.sum(axis=0)
    probability = np.divide(matrix.probability, total, out=np.zeros_like(matrix.probability), where=total > 0.0)
    by_layer = np.einsum("irc,ij->jrc", probability, share)
    number = np.array([matrix.layers.index(str(name)) for name in layer_of_plane])
    present = sources.plane >= 0
    index = np.where(present, number[np.where(present, sources.plane, 0)], -1)
    weights = np.zeros_like(sources.weight)
    for j in range(len(matrix.layers)):
        own = np.where(index == j, sources.weight, 0.0)
        within = np.divide(own, own.sum(axis=0), out=np.zeros_like(own), where=own.sum(axis=0) > 0.0)
        weights += within * by_layer[j]
    return weights


def with_matrix(
    found: Localisation, sources: Sources, matrix: LeakageMatrix, layer_of_plane: np.ndarray,
    area: np.ndarray, area_std: np.ndarray, information: np.ndarray,
) -> Localisation:  # fmt: skip
    """Return a mode's localisation with the shares of a leakage matrix, and what the matrix's deviations make of an amplitude.

    A constant part beside the matrix (dipole scattering) is fitted to the area map, as for distances.

    Parameters
    ----------
    found
        Localisation by distances, whose width is kept.
    layer_of_plane
        (planes,) names.
    area, area_std, information
        (rows, columns) of the mode; the last weights positions as a fit of the amplitude does.
    """

    def shares(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.where(sources.plane >= 0, sources.plane, 0)
        strong = plane_weights(sources, matrix, share, layer_of_plane) * sources.strength[index]
        return strong.sum(axis=0), (strong * sources.sign[index]).sum(axis=0)

    profile, signed = shares(matrix.share)
    strength, constant, constant_std = _strength_and_constant(profile, area, area_std)
    total = strength * profile + constant

    def damping(of_profile: np.ndarray, of_signed: np.ndarray) -> np.ndarray:
        whole = strength * of_profile + constant
        return np.divide(strength * of_signed, whole, out=np.zeros_like(whole), where=whole > 0.0)

    share = damping(profile, signed)
    usable = (information > 0.0) & np.isfinite(share)
    mean_total = float(total[usable].mean()) if usable.any() else 1.0
    return replace(
        found,
        signed_share=share,
        constant_share=constant / mean_total,
        constant_share_std=constant_std / mean_total,
        leakage_std=_propagated(share, damping, shares, matrix, information * usable),
    )


def _strength_and_constant(profile: np.ndarray, area: np.ndarray, area_std: np.ndarray) -> tuple[float, float, float]:
    """Fit area = strength · profile + constant, the constant not negative; return both and the constant's deviation."""
    usable = np.isfinite(area) & np.isfinite(area_std) & (area_std > 0.0)
    if usable.sum() < 3:
        return 1.0, 0.0, float("nan")
    design = np.column_stack([profile[usable], np.ones(int(usable.sum()))]) / area_std[usable][:, None]
    target = area[usable] / area_std[usable]
    covariance = np.linalg.pinv(design.T @ design)
    value = covariance @ design.T @ target
    misfit = float(((target - design @ value) ** 2).sum() / max(target.size - 2, 1))
    std = float(np.sqrt(covariance[1, 1] * max(misfit, 1.0)))
    if value[1] < 0.0:
        value = np.array([float(design[:, 0] @ target / (design[:, 0] @ design[:, 0])), 0.0])
    return float(value[0]), float(value[1]), std


def _propagated(share, damping, shares, matrix: LeakageMatrix, information: np.ndarray) -> float:  # type: ignore[no-untyped-def]
    """Relative standard deviation of an amplitude from those of the matrix's entries, taken as independent.

    An amplitude is fitted with the share as its regressor: if the true share is larger by d, it comes out larger by
    Σ w · share · d / Σ w · share².
    """
    norm = float((information * share**2).sum())
    if norm <= 0.0:
        return float("nan")
    variance = 0.0
    for place in np.argwhere(matrix.share_std > 0.0):
        i, j = int(place[0]), int(place[1])
        changed = matrix.share.copy()
        changed[i, j] += RELATIVE_STEP
        slope = (damping(*shares(changed)) - share) / RELATIVE_STEP
        variance += (float((information * share * slope).sum()) / norm * float(matrix.share_std[i, j])) ** 2
    return float(np.sqrt(variance))
