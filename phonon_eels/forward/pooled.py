"""Scan-wide estimates of mode energies from the per-position scores, with deviations that include what varies between places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phonon_eels.forward.scan import ScanFit

MIN_BLOCKS = 4
MAX_BLOCKS = 16


@dataclass(frozen=True)
class BlockSums:
    """Sums over blocks of neighbouring rows; a block is what is left out in the jackknife.

    Attributes
    ----------
    score, information
        (blocks, modes), (blocks, modes, modes): energies only.
    areas, slopes
        (blocks, modes) summed areas at the linearisation, (blocks, modes, modes) their derivatives to the energies.
    n_positions
        (blocks,).
    """

    score: np.ndarray
    information: np.ndarray
    areas: np.ndarray
    slopes: np.ndarray
    n_positions: np.ndarray


def block_sums(fit: ScanFit, usable: np.ndarray) -> BlockSums:
    """Sum scores, information and areas over blocks of neighbouring rows (of columns if there is one row)."""
    assert fit.score is not None and fit.information is not None and fit.area_slope is not None
    modes = fit.n_modes
    axis = 0 if usable.shape[0] > 1 else 1
    n = usable.shape[axis]
    n_blocks = int(np.clip(n // 4, min(MIN_BLOCKS, n), MAX_BLOCKS))
    edges = np.linspace(0, n, n_blocks + 1).astype(int)

    def summed(values: np.ndarray) -> np.ndarray:
        kept = np.where(usable.reshape(*usable.shape, *[1] * (values.ndim - 2)), values, 0.0)
        pieces = [np.take(kept, range(low, high), axis=axis) for low, high in zip(edges[:-1], edges[1:], strict=True)]
        return np.stack([piece.sum(axis=1).sum(axis=0) for piece in pieces])

    return BlockSums(
        summed(fit.score)[:, :modes],
        summed(fit.information)[:, :modes, :modes],
        summed(np.nan_to_num(fit.areas())),
        summed(fit.area_slope)[:, :, :modes],
        summed(usable.astype(float)),
    )


@dataclass(frozen=True)
class PooledEnergies:
    """Mode energies shared by all positions.

    Attributes
    ----------
    energies_mev, fisher_std_mev
        (modes,), and the deviations from counting statistics alone.
    replicates_mev, replicate_areas_e
        (blocks, modes): leave-one-block-out values of energies and mean areas.
    areas_e
        (modes,) mean areas per position.
    """

    energies_mev: np.ndarray
    fisher_std_mev: np.ndarray
    replicates_mev: np.ndarray
    areas_e: np.ndarray
    replicate_areas_e: np.ndarray

    def jackknife(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return a function of (energies, areas) and its jackknife standard deviation over blocks."""
        value = np.asarray(function(self.energies_mev, self.areas_e))
        replicates = np.stack(
            [function(e, a) for e, a in zip(self.replicates_mev, self.replicate_areas_e, strict=True)]
        )
        blocks = len(replicates)
        variance = (blocks - 1) / blocks * ((replicates - replicates.mean(axis=0)) ** 2).sum(axis=0)
        return value, np.sqrt(variance)


def pooled_energies(sums: BlockSums, linearised_mev: np.ndarray) -> PooledEnergies:
    """Solve the score equations of shared energies, once for all blocks and once without each.

    Parameters
    ----------
    linearised_mev
        (modes,) energies at which the scores were taken.
    """

    def solve(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        information = sums.information[kept].sum(axis=0)
        shift = np.linalg.lstsq(information, sums.score[kept].sum(axis=0), rcond=None)[0]
        areas = sums.areas[kept].sum(axis=0) + sums.slopes[kept].sum(axis=0) @ shift
        return linearised_mev + shift, areas / max(sums.n_positions[kept].sum(), 1.0)

    blocks = np.arange(len(sums.score))
    energies, areas = solve(blocks)
    replicates = [solve(np.delete(blocks, b)) for b in blocks] if blocks.size > 1 else [(energies, areas)]
    covariance = np.linalg.pinv(sums.information.sum(axis=0))
    return PooledEnergies(
        energies,
        np.sqrt(np.maximum(np.diag(covariance), 0.0)),
        np.stack([r[0] for r in replicates]),
        areas,
        np.stack([r[1] for r in replicates]),
    )
