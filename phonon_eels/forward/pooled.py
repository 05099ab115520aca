"""Scan-wide mode energies and intrinsic widths from the per-position scores.

Each position contributes the score and the information of the modes' energies and widths, with its own areas, zero-loss
shape and background marginalised; the shared values solve the summed score equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.forward.scan import ScanFit

STRIP_ROWS = 64
MIN_BLOCKS = 4
MAX_BLOCKS = 16
Axis = int
ROWS: Axis = 0
COLUMNS: Axis = 1


def local_energies(
    fit: ScanFit, usable: np.ndarray, energies_mev: np.ndarray, separate: np.ndarray, window: tuple[int, int] = (3, 5)
) -> np.ndarray:
    """Estimate the energies around every position from the scores of its neighbours, (rows, columns, M).

    Energies that vary from place to place bias a common one in second order, and through it the energies of
    neighbouring modes; scores taken at the local energies do so much less. How far each mode varies is
    estimated first (method of moments over disjoint windows, as between the studies of a random-effects meta-analysis,
    doi:10.1016/0197-2456(86)90046-2) and is zero unless significant, so that noise is not taken for variation.
    The position itself is left out of its window, so that its energy does not follow its own noise.

    Parameters
    ----------
    energies_mev
        (rows, columns, M) where the scores were taken.
    separate
        (M,) modes farther from their neighbours than the resolution; the others keep the common energy, because the noise
        of a close pair's local energies does more harm than their variation.
    """
    assert fit.score is not None
    assert fit.information is not None
    modes = energies_mev.shape[2]
    kept = usable[:, :, None]
    information = np.nan_to_num(fit.information[..., :modes, :modes])
    information[~usable] = 0.0
    absolute = np.where(kept, np.nan_to_num(fit.score[..., :modes]), 0.0)
    absolute += np.einsum("rcij,rcj->rci", information, energies_mev)
    common = np.linalg.lstsq(information.sum(axis=(0, 1)), absolute.sum(axis=(0, 1)), rcond=None)[0]
    rest = absolute - np.einsum("rcij,j->rci", information, common)
    spread = _spread(rest, information, window)
    varying = np.flatnonzero((spread > 0.0) & separate)
    result = np.broadcast_to(common, energies_mev.shape).copy()
    if varying.size == 0:
        return result
    size, half = window[0] * window[1], window[0] // 2
    for low in range(0, len(rest), STRIP_ROWS):  # the sums over windows of a whole scan would take as much again
        first, last = max(low - half, 0), min(low + STRIP_ROWS + half, len(rest))
        own = slice(low - first, min(low + STRIP_ROWS, len(rest)) - first)
        score, block = rest[first:last, :, varying], information[first:last, :, varying[:, None], varying[None, :]]
        near = size * moving_mean(moving_mean(score, window[0], ROWS), window[1], COLUMNS) - score
        total = size * moving_mean(moving_mean(block, window[0], ROWS), window[1], COLUMNS) - block
        step = np.linalg.solve(total[own] + np.diag(spread[varying] ** -2.0), near[own][..., None])[..., 0]
        result[low : low + STRIP_ROWS, :, varying] += step
    return result


def moving_mean(values: np.ndarray, size: int, axis: Axis) -> np.ndarray:
    """Return the mean over `size` (odd) neighbours along an axis, with zeros beyond its ends.

    As `scipy.ndimage.uniform_filter1d`, which a test holds against it to the last bit: that package takes a twentieth of a
    step's start to load.
    """
    along = np.moveaxis(values, axis, 0)
    beyond = np.zeros((size // 2, *along.shape[1:]))
    padded = np.concatenate([beyond, along, beyond])
    first = sum(padded[:size], start=np.zeros((1, *along.shape[1:])))
    changes = padded[size:] - padded[:-size]
    return np.moveaxis(np.cumsum(np.concatenate([first, changes]), axis=0) / size, 0, axis)


def _spread(rest: np.ndarray, information: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Standard deviation of each mode's energy between disjoint windows beyond noise, (M,); 0 where not significant."""
    rows, columns, modes = rest.shape
    tall, wide = (rows // window[0]) or 1, (columns // window[1]) or 1
    spread = np.zeros(modes)
    for m in range(modes):
        scores, weights = (
            np.add.reduceat(
                np.add.reduceat(a, np.arange(tall) * (rows // tall), axis=0),
                np.arange(wide) * (columns // wide),
                axis=1,
            )
            for a in (rest[..., m], information[..., m, m])
        )
        known = weights > 0.0
        q = float((scores[known] ** 2 / weights[known]).sum())
        n = int(known.sum())
        if n > 1 and q > n + 4.0 * np.sqrt(2.0 * n):
            spread[m] = np.sqrt((q - n) / weights[known].sum())
    return spread


def relative_to(fit: ScanFit, taken_at_mev: np.ndarray, common_mev: np.ndarray) -> ScanFit:
    """Return the fit with scores moved (to first order) from the local energies to common ones."""
    assert fit.score is not None
    assert fit.information is not None
    modes = taken_at_mev.shape[2]
    moved = fit.score + np.einsum("rcij,rcj->rci", fit.information[..., :modes], taken_at_mev - common_mev)
    return replace(fit, score=moved)


def gathered(fit: ScanFit, design: np.ndarray) -> ScanFit:
    """Return the fit with score and information of the free energies in place of all, (rows, columns, free) and (…, free, free).

    Parameters
    ----------
    design
        (M, free) derivatives of the energies to the free ones.
    """
    assert fit.score is not None
    assert fit.information is not None
    modes = len(design)
    information = design.T @ np.nan_to_num(fit.information[..., :modes, :modes]) @ design
    return replace(fit, score=np.nan_to_num(fit.score[..., :modes]) @ design, information=information)


@dataclass(frozen=True)
class BlockSums:
    """Sums over blocks of neighbouring rows or columns; a block is what is left out in the jackknife.

    Attributes
    ----------
    score, information
        (blocks, 2M), (blocks, 2M, 2M) of energies, then widths.
    areas, slopes
        (blocks, M) summed areas at the linearisation, (blocks, M, 2M) their derivatives to energies and widths.
    area_variance
        (blocks, M) summed variances of the areas.
    n_positions
        (blocks,).
    """

    score: np.ndarray
    information: np.ndarray
    areas: np.ndarray
    slopes: np.ndarray
    area_variance: np.ndarray
    n_positions: np.ndarray


def row_sums(fit: ScanFit, usable: np.ndarray) -> np.ndarray:
    """Sum what `block_sums` needs over blocks of neighbouring columns, row by row, so that chunks leave no trace.

    Returns
    -------
    np.ndarray
        (rows, blocks, values), the values those of `BlockSums` one after the other.
    """
    assert fit.score is not None
    assert fit.information is not None
    assert fit.area_slope is not None
    values = [fit.score, fit.information, fit.areas(), fit.area_slope, fit.areas(fit.std) ** 2, usable.astype(float)]
    flat = np.concatenate([array.reshape(*usable.shape, -1) for array in values], axis=2)
    kept = np.where(usable[..., None], np.nan_to_num(flat), 0.0)
    return np.add.reduceat(kept, _block_edges(usable.shape[1])[:-1], axis=1)


def block_sums(sums: np.ndarray, modes: int, axis: Axis) -> BlockSums:
    """Sum over blocks of neighbouring rows or columns what `row_sums` has summed over rows, (rows, blocks, values)."""
    if axis == COLUMNS:
        total = sums.sum(axis=0)
    else:
        total = np.add.reduceat(sums.sum(axis=1), _block_edges(len(sums))[:-1], axis=0)
    shapes = [(2 * modes,), (2 * modes, 2 * modes), (modes,), (modes, 2 * modes), (modes,), ()]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(total, ends[:-1], axis=1)
    return BlockSums(*(part.reshape(len(total), *shape) for part, shape in zip(parts, shapes, strict=True)))


def _block_edges(n: int) -> np.ndarray:
    return np.linspace(0, n, int(np.clip(n // 4, min(MIN_BLOCKS, n), MAX_BLOCKS)) + 1).astype(int)


@dataclass(frozen=True)
class Pooled:
    """Mode energies and widths shared by all positions, and mean areas.

    Attributes
    ----------
    energies_mev, fwhm_mev, areas_e
        (M,).
    energies_std_mev, fwhm_std_mev
        (M,) from counting statistics, everything else marginalised.
    areas_std_e
        (M,) of the mean area, energies and widths held.
    replicates
        (blocks, 3, M): leave-one-block-out values of energies, widths and areas.
    """

    energies_mev: np.ndarray
    fwhm_mev: np.ndarray
    areas_e: np.ndarray
    energies_std_mev: np.ndarray
    fwhm_std_mev: np.ndarray
    areas_std_e: np.ndarray
    replicates: np.ndarray

    def jackknife(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return a function of (energies, areas) and its jackknife standard deviation over blocks."""
        value = np.asarray(function(self.energies_mev, self.areas_e))
        copies = np.stack([function(r[0], r[2]) for r in self.replicates])
        blocks = len(copies)
        variance = (blocks - 1) / blocks * ((copies - copies.mean(axis=0)) ** 2).sum(axis=0)
        return value, np.sqrt(variance)


def pool_scores(
    sums: BlockSums,
    energies_mev: np.ndarray,
    fwhm_mev: np.ndarray,
    width_prior_mev: np.ndarray,
    width_prior_std_mev: np.ndarray,
    width_group: Sequence[int],
    widths_free: bool,
    energy_design: np.ndarray | None = None,
) -> Pooled:
    """Solve the score equations of shared energies and widths, once for all blocks and once without each.

    Parameters
    ----------
    energies_mev, fwhm_mev
        (M,) where the scores were taken.
    width_prior_mev, width_prior_std_mev
        (M,) prior of the widths.
    width_group
        Modes of one group change their widths by one common factor; those of group -1 keep them.
    widths_free
        False: the widths are held.
    energy_design
        (M, free) derivatives of the energies to those that are free; default: all are.
    """
    modes = len(energies_mev)
    groups = max(width_group) + 1 if widths_free else 0
    energy_design = np.eye(modes) if energy_design is None else energy_design
    free = energy_design.shape[1]
    design = np.zeros((2 * modes, free + groups))
    design[:modes, :free] = energy_design
    for m in range(modes):
        if widths_free and width_group[m] >= 0:
            design[modes + m, free + width_group[m]] = fwhm_mev[m]
    precision = np.zeros(2 * modes)
    precision[modes:] = width_prior_std_mev**-2.0

    def normal(kept: np.ndarray) -> np.ndarray:
        share = len(kept) / len(
            sums.score
        )  # the prior is left out with its share, so replicates do not drift towards it
        return np.asarray(design.T @ (sums.information[kept].sum(axis=0) + share * np.diag(precision)) @ design)

    def solve(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        share = len(kept) / len(sums.score)
        score = sums.score[kept].sum(axis=0)
        score[modes:] -= share * precision[modes:] * (fwhm_mev - width_prior_mev)
        step = design @ np.linalg.lstsq(normal(kept), design.T @ score, rcond=None)[0]
        areas = sums.areas[kept].sum(axis=0) + sums.slopes[kept].sum(axis=0) @ step
        return energies_mev + step[:modes], fwhm_mev + step[modes:], areas / max(sums.n_positions[kept].sum(), 1.0)

    blocks = np.arange(len(sums.score))
    energies, widths, areas = solve(blocks)
    replicates = (
        [np.stack(solve(np.delete(blocks, b))) for b in blocks] if blocks.size > 1 else [np.stack(solve(blocks))]
    )
    covariance = design @ np.linalg.pinv(normal(blocks)) @ design.T
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    total = max(sums.n_positions.sum(), 1.0)
    return Pooled(
        energies,
        widths,
        areas,
        std[:modes],
        std[modes:],
        np.sqrt(sums.area_variance.sum(axis=0)) / total,
        np.stack(replicates),
    )
