"""The outlier kernels over rows of the scan on the processor."""

from __future__ import annotations

import math

import numpy as np

from phonon_eels.kernels.device import kernel
from phonon_eels.kernels.expectations import deviance_sigma, expect, expect_from_channels
from phonon_eels.kernels.outliers import clean_spectrum, find_outliers

NEIGHBOURS = 3
"""Positions on each side, along the row, that a spectrum is compared with."""


@kernel
def clean_rows(
    spectra: np.ndarray,  # (rows, columns, channels), electrons
    state: np.ndarray,  # (channels,), 0 = usable
    read_variance_e: float,
    level: float,
    narrow: bool,
    cleaned: np.ndarray,  # out
) -> int:
    """Take a first guess without spikes.

    With `narrow` lines, which a running median would take out like spikes, what the neighbouring positions show too stays.
    """
    # Loops instead of NumPy's functions, here and below: a kernel that uses those loads Numba's whole NumPy with it.
    usable = np.empty(state.shape[0], np.uint8)
    for c in range(state.shape[0]):
        usable[c] = state[c] == 0
    scratch = np.empty(8)
    replaced = 0
    for r in range(spectra.shape[0]):
        for p in range(spectra.shape[1]):
            replaced += clean_spectrum(spectra[r, p], usable, read_variance_e, level, scratch, cleaned[r, p])
            if narrow:
                replaced -= restore_lines(spectra[r], p, usable, cleaned[r, p])
    return replaced


@kernel
def restore_lines(row: np.ndarray, p: int, usable: np.ndarray, cleaned: np.ndarray) -> int:
    """Put back what a neighbouring position has at least half of, one channel aside at most; a cosmic ray is alone.

    Without a neighbour the highest channel and the two beside it stay.
    """
    n_columns, n = row.shape
    top, highest = 0, -math.inf
    for c in range(n):
        if row[p, c] > highest:
            top, highest = c, row[p, c]
    restored = 0
    for c in range(n):
        if not usable[c] or cleaned[c] == row[p, c] or not math.isfinite(row[p, c]):
            continue
        seen = n_columns == 1 and abs(c - top) <= 1
        for q in (p - 1, p + 1):
            if 0 <= q < n_columns:
                for k in range(max(c - 1, 0), min(c + 2, n)):
                    seen = seen or row[q, k] >= 0.5 * row[p, c] > 0.0
        if seen:
            cleaned[c] = row[p, c]
            restored += 1
    return restored


@kernel
def find_in_rows(
    spectra: np.ndarray,  # (rows, columns, channels), electrons
    cleaned: np.ndarray,  # as `clean_rows` gives it; not changed
    state: np.ndarray,  # (rows, columns, channels) of uint8
    read_variance_e: float,
    noise_scale: float,
    level: float,
    half: int,
    zero_loss_half: float,
    grow: int,
    flags: np.ndarray,  # out, (rows, columns, channels) of uint8
    expected: np.ndarray,  # out, electrons at the flagged channels
) -> int:
    """Find the outliers of every spectrum, comparing it with its neighbours along the row."""
    n_columns, n = spectra.shape[1], spectra.shape[2]
    own = np.empty(n)
    mean = np.empty(n)
    found = 0
    for r in range(spectra.shape[0]):
        for p in range(n_columns):
            own[:] = cleaned[r, p]
            mean[:] = 0.0
            used = 0
            for q in range(max(p - NEIGHBOURS, 0), min(p + NEIGHBOURS + 1, n_columns)):
                if q != p:
                    used += 1
                    for c in range(n):
                        mean[c] += cleaned[r, q, c]
            for c in range(n):
                mean[c] /= max(used, 1)
            here = find_outliers(
                spectra[r, p], own, mean, used, state[r, p], read_variance_e, noise_scale, level, half, zero_loss_half,
                flags[r, p], expected[r, p],
            )  # fmt: skip
            found += here
            if here == 0 or grow == 0:
                continue
            for c in range(n):
                # 1, 2, 3: spike, dead, hot
                if 1 <= flags[r, p, c] <= 3:
                    for k in range(max(c - grow, 0), min(c + grow + 1, n)):
                        if flags[r, p, k] == 0 and state[r, p, k] == 0:
                            flags[r, p, k] = 5
                            expected[r, p, k] = expect(own, mean, used, k, half, read_variance_e)
    return found


@kernel
def residual_sigmas(
    cleaned: np.ndarray,  # (spectra, channels), electrons
    half: int,
    read_variance_e: float,
    out: np.ndarray,  # (spectra, channels): standard deviations from the parabola through the neighbours
    scatter: np.ndarray,  # (spectra, channels): excess scatter of those neighbours
    expected: np.ndarray,  # (spectra, channels)
) -> int:
    """Compare every channel with its neighbouring channels."""
    for p in range(cleaned.shape[0]):
        for c in range(cleaned.shape[1]):
            value, share, excess = expect_from_channels(cleaned[p], c, half, read_variance_e)
            out[p, c] = deviance_sigma(cleaned[p, c], value, read_variance_e) / (1.0 + share) ** 0.5
            scatter[p, c] = excess
            expected[p, c] = value
    return 0
