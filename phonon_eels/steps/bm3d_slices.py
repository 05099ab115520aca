"""BM3D on the two-dimensional slice of every energy channel, as the published group does; BM4D on the whole cube."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy import fft, ndimage

from phonon_eels.errors import ConfigError
from phonon_eels.steps.denoise_check import CHECK_RUNS, CROP
from phonon_eels.steps.instrument import block_variance, half_width_channels, zero_loss_fwhm_mev

if TYPE_CHECKING:
    from phonon_eels.spectrum_image import SpectrumImage
    from phonon_eels.steps.spec import StepContext

_LOGGER = logging.getLogger("phonon_eels")
SLICE_BYTES = 16_000_000
VOLUME_BYTES = 1_000_000_000
SMALLEST_SLICE = 8
"""BM3D compares blocks of 8 × 8 positions."""

MOST_MISSING = 0.5
"""Share of a slice's positions that may be missing."""

SLICE_COST_S, VOLUME_COST_S = (1.0, 8e-5), (3.0, 1.8e-4)
"""Processor time of bm3d 4.0.3 for a slice and of bm4d 4.2.5 for a cube: of any, and for each value, as measured on slices of 16 × 16 to
128 × 128 and on cubes of 8 × 8 × 64 to 16 × 16 × 160."""

Smoother = Callable[[np.ndarray, float], np.ndarray]


def denoise_slices(image: SpectrumImage, strength: float, context: StepContext) -> tuple[Any, Any]:
    """Return the lazy cubes of the smoothed counts and of the variance before.

    Raises
    ------
    ConfigError
        If the package bm3d is not installed, or the scan is smaller than BM3D's blocks.
    """
    smoother = _smoother("bm3d")
    n_rows, n_columns, _ = image.shape
    if min(n_rows, n_columns) < SMALLEST_SLICE:
        raise ConfigError(
            f"denoise.method = bm3d needs at least {SMALLEST_SLICE} rows and columns, the scan has "
            f"{n_rows} × {n_columns}; use denoise.method = pca"
        )
    half_width = half_width_channels(zero_loss_fwhm_mev(image, context), image)
    map_cube = context.backend.map_cube

    def variances(counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        return block_variance(counts, variance, image.noise, half_width).astype(np.float32)

    def slices(block: np.ndarray) -> np.ndarray:
        out = np.empty(block.shape, dtype=np.float32)
        for channel in range(block.shape[2]):
            out[:, :, channel] = _smoothed(np.asarray(block[:, :, channel], dtype=np.float64), strength, smoother)
        return out

    # Slices need all positions of a channel, so the cube is cut along the energies; every slice stands for itself.
    import dask.array

    da: Any = dask.array
    counts = da.asarray(map_cube(np.asarray, [image.counts], dtype=image.counts.dtype))
    per_block = max(1, SLICE_BYTES // (8 * n_rows * n_columns))
    counts = counts.rechunk((n_rows, n_columns, per_block)).map_blocks(slices, dtype=np.float32)
    return counts, map_cube(variances, [image.counts, image.variance], dtype=np.float32)


def denoise_volume(image: SpectrumImage, strength: float, context: StepContext) -> tuple[Any, Any]:
    """Return the counts smoothed by BM4D (doi:10.1109/TIP.2012.2210725) and the lazy cube of the variance before.

    The cube is divided by its noise first, so that one level holds everywhere. It is smoothed whole, in memory.

    Raises
    ------
    ConfigError
        If the package bm4d is not installed, or the scan is smaller than its blocks or larger than 1 GB.
    """
    smoother = _smoother("bm4d")
    n_rows, n_columns, n_channels = image.shape
    if min(n_rows, n_columns) < SMALLEST_SLICE or 8 * n_rows * n_columns * n_channels > VOLUME_BYTES:
        raise ConfigError(
            f"denoise.method = bm4d needs at least {SMALLEST_SLICE} rows and columns and at most "
            f"{VOLUME_BYTES // 8} values, the scan has {n_rows} × {n_columns} × {n_channels}; use denoise.method = pca"
        )
    half_width = half_width_channels(zero_loss_fwhm_mev(image, context), image)
    map_cube = context.backend.map_cube

    def variances(counts: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        return block_variance(counts, variance, image.noise, half_width).astype(np.float32)

    variance = map_cube(variances, [image.counts, image.variance], dtype=np.float32)
    counts, spread = np.asarray(image.counts, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    usable = np.isfinite(counts) & np.isfinite(spread) & (spread > 0.0)
    scale = np.sqrt(np.where(usable, spread, 1.0))
    smooth = smoother(np.where(usable, counts / scale, 0.0), strength) * scale
    return np.where(usable, smooth, counts).astype(np.float32), variance


def expected_minutes(method: str, shape: tuple[int, int, int]) -> float:
    """Return about how long bm3d or bm4d take for a cube of (rows, columns, channels), minutes of one processor.

    The middle of the scan is smoothed a few times more, to tell what that does (`denoise_check`).
    """
    rows, columns, channels = shape
    seconds = 0.0
    for times, n in ((1, rows * columns), (CHECK_RUNS, min(rows, CROP) * min(columns, CROP))):
        each = SLICE_COST_S[0] + SLICE_COST_S[1] * n if method == "bm3d" else VOLUME_COST_S[1] * n
        seconds += times * (each * channels + (VOLUME_COST_S[0] if method == "bm4d" else 0.0))
    return seconds / 60.0


def affordable(image: SpectrumImage, method: str, longest_min: float) -> float:
    """Return how many minutes the smoothing will take, and say so beforehand.

    Raises
    ------
    ConfigError
        If that is longer than asked for.
    """
    minutes = expected_minutes(method, image.shape)
    size = " × ".join(str(n) for n in image.shape)
    if minutes > longest_min:
        raise ConfigError(
            f"denoise.method = {method} would take about {minutes:.0f} minutes for {size} values, more than denoise.longest_min = "
            f"{longest_min:g}; raise that, cut the scan or its energies, or use denoise.method = pca"
        )
    _LOGGER.info("denoise: %s of %s values takes about %.2g minutes", method, size, minutes)
    return minutes


def slice_noise(values: np.ndarray) -> float:
    """Return the noise of a slice, √2 × rms of its fast part in the central 80 %, as the group's readable code does.

    Fast are spatial frequencies with f_row² + f_column² of 0.05 or more, in cycles per position.
    """
    rows, columns = values.shape
    frequency = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.fftfreq(columns)[None, :] ** 2
    fast = np.asarray(fft.ifft2(np.where(frequency < 0.05, 0.0, fft.fft2(values)))).real
    row_edge, column_edge = round(0.1 * rows), round(0.1 * columns)
    centre = fast[row_edge : rows - row_edge, column_edge : columns - column_edge]
    return math.sqrt(2.0) * float(np.sqrt(np.mean(centre**2)))


def _smoothed(values: np.ndarray, strength: float, smoother: Smoother) -> np.ndarray:
    """Smooth one slice on the scale 0 … 255; flat ones stay as they are, and those that most positions lack.

    Positions without a spectrum, or whose spectrum ends before, are given their nearest neighbour's value for the smoothing.
    """
    missing = ~np.isfinite(values)
    if missing.mean() > MOST_MISSING:
        return values
    if missing.any():
        nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
        return np.where(missing, values, _smoothed(values[tuple(nearest)], strength, smoother))
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return values
    scaled = 255.0 * (values - low) / (high - low)
    noise = slice_noise(scaled)
    if not noise > 0.0:
        return values
    return np.asarray(smoother(scaled, strength * noise) * (high - low) / 255.0 + low)


def _smoother(name: str) -> Smoother:
    try:
        package = importlib.import_module(name)
    except ImportError as problem:
        raise ConfigError(
            f"denoise.method = {name} needs the Python package {name}, which is not installed (its licence allows only "
            "non-commercial use, so it is never installed unasked); install phonon-eels[bm3d], or use denoise.method = pca"
        ) from problem
    return cast(Smoother, getattr(package, name))
