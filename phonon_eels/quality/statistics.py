"""One pass over a spectrum image: totals, mean spectrum, and counts of everything suspicious."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.spectrum_image import SpectrumImage

_FLAT_CHANNELS = 3
_LEAST_CLIPPED_STEPS = 200.0
"""A flat top lower than this many steps of the counts may be chance: few electrons are often as many in each channel."""

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend


@dataclass(frozen=True)
class ScanStatistics:
    """What one pass over the counts shows; values that are no finite numbers are left out of every sum.

    Attributes
    ----------
    total_counts
        Sum over the channels, (rows, columns), NaN where no value is finite.
    not_finite
        Number of channels that are no finite number, (rows, columns).
    saturated
        Number of channels at or above the saturation level, (rows, columns).
    empty
        True where every finite value of a position is the same, (rows, columns).
    flat_top
        Highest value of a single exposure where three channels or more share it and it is high enough to be no chance,
        else NaN, (rows, columns).
    mean_spectrum
        Mean over the positions that are not masked, (channels,).
    minimum, maximum
        Of all finite values.
    n_at_maximum
        How many values equal the maximum.
    n_negative, n_not_finite, n_values
        Numbers of values.
    whole_numbers
        True if every finite value is a whole number.
    """

    total_counts: np.ndarray
    not_finite: np.ndarray
    saturated: np.ndarray
    empty: np.ndarray
    flat_top: np.ndarray
    mean_spectrum: np.ndarray
    minimum: float
    maximum: float
    n_at_maximum: int
    n_negative: int
    n_not_finite: int
    n_values: int
    whole_numbers: bool


def saturation_level(image: SpectrumImage, given: float | None) -> float | None:
    """Return the count at which a channel is saturated: as given, else the top of an unsigned integer type."""
    if given is not None:
        return float(given)
    dtype = np.dtype(image.counts.dtype if image.frames is None else image.frames.dtype)
    return float(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize <= 2 else None


def scan_statistics(
    image: SpectrumImage,
    backend: Backend,
    *,
    saturation: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScanStatistics:
    """Read the whole cube once, block by block.

    Parameters
    ----------
    saturation
        Counts at and above which a channel of a single exposure is saturated.
    """
    arrays = [image.counts, None if image.frames is None else _rows_first(image.frames), image.masked]

    def look(
        first_row: int, counts: np.ndarray, frames: np.ndarray | None, masked: np.ndarray | None
    ) -> dict[str, Any]:
        exposures = counts[None] if frames is None else np.moveaxis(frames, 1, 0)
        return _look_at_block(counts, exposures, saturation, masked)

    blocks = backend.map_rows(look, arrays, progress=progress)
    summed = np.zeros(image.energy.n_channels)
    number = np.zeros(image.energy.n_channels)
    for block in blocks:  # row by row in order, so that the sum does not depend on the blocks
        for row_sum, row_number in zip(block["row_sums"], block["row_numbers"], strict=True):
            summed += row_sum
            number += row_number
    maximum = max(block["maximum"] for block in blocks)
    names = ("total", "not_finite", "saturated", "empty", "flat_top")
    joined = {name: np.concatenate([b[name] for b in blocks]) for name in names}
    least = min(block["minimum"] for block in blocks)
    step = min(block["step"] for block in blocks)
    chance = ~(joined["flat_top"] - least > _LEAST_CLIPPED_STEPS * step)
    return ScanStatistics(
        total_counts=joined["total"],
        not_finite=joined["not_finite"],
        saturated=joined["saturated"],
        empty=joined["empty"],
        flat_top=np.where(chance, np.nan, joined["flat_top"]),
        mean_spectrum=np.divide(summed, number, out=np.full_like(summed, np.nan), where=number > 0),
        minimum=least,
        maximum=maximum,
        n_at_maximum=sum(block["n_at_maximum"] for block in blocks if block["maximum"] == maximum),
        n_negative=sum(block["n_negative"] for block in blocks),
        n_not_finite=int(joined["not_finite"].sum()),
        n_values=int(np.prod(image.shape, dtype=np.int64)),
        whole_numbers=all(block["whole"] for block in blocks),
    )


def _rows_first(frames: Any) -> Any:
    return frames.swapaxes(0, 1) if hasattr(frames, "dask") else np.swapaxes(frames, 0, 1)


def _look_at_block(
    counts: np.ndarray, exposures: np.ndarray, saturation: float | None, masked: np.ndarray | None
) -> dict[str, Any]:
    """Statistics of a block of rows; `exposures` is (frames, rows, columns, channels)."""
    integers = counts.dtype.kind in "iu"
    finite = np.ones(counts.shape, dtype=bool) if integers else np.isfinite(counts)
    values = counts if integers else np.where(finite, counts, 0)
    n_finite = finite.sum(axis=2)
    total = values.sum(axis=2, dtype=np.float64)
    low = np.where(finite, counts, np.inf).min(axis=2) if not integers else counts.min(axis=2)
    high = np.where(finite, counts, -np.inf).max(axis=2) if not integers else counts.max(axis=2)
    maximum = float(high.max())
    over = np.zeros(counts.shape[:2], dtype=np.int32)
    if saturation is not None:
        over = (exposures >= saturation).any(axis=0).sum(axis=2, dtype=np.int32)
    step, flat_top = _flat_tops(exposures)
    kept = True if masked is None else ~masked[..., None]
    return {
        "row_sums": values.sum(axis=1, dtype=np.float64, where=kept),
        "row_numbers": finite.sum(axis=1, dtype=np.int64, where=kept),
        "total": np.where(n_finite > 0, total, np.nan),
        "not_finite": (counts.shape[2] - n_finite).astype(np.int32),
        "saturated": over,
        "empty": low >= high,
        "flat_top": flat_top,
        "step": step,
        "minimum": float(low.min()),
        "maximum": maximum,
        "n_at_maximum": int(np.count_nonzero(counts == maximum)),
        "n_negative": int(np.count_nonzero(values < 0)),
        "whole": integers or bool(np.all(values == np.floor(values))),
    }


def _flat_tops(exposures: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the least step from a row's lowest value to its next, and per position the top that several channels share.

    Counts of electrons rise in steps (of one count, or of the detector's gain), corrected ones by any amount.
    """
    found = np.full(exposures.shape[1:3], np.nan)
    step = np.inf
    for exposure in exposures:
        high = np.fmax.reduce(exposure, axis=2)
        same = (exposure == high[..., None]).sum(axis=2)
        flat = (same >= _FLAT_CHANNELS) & (same < exposure.shape[2]) & np.isfinite(high) & np.isnan(found)
        found[flat] = high[flat]
        for row in exposure:
            low = np.fmin.reduce(row, axis=None)
            above = row[row > low]
            if above.size and np.isfinite(low):
                step = min(step, float(above.min()) - float(low))
    return step, found
