"""Where the probe really was: the nominal grid, drift, jitter, fly-back and scan waves, in crystal coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.config import SimulationSettings
from phonon_eels.simulate.seeds import Stream, generator


@dataclass(frozen=True)
class ProbePath:
    """Places of the probe, every array (frames, rows, columns).

    Attributes
    ----------
    b_nm, c_nm
        Coordinates of the probe in the crystal.
    row_offset_nm, column_offset_nm
        How far the probe was from its nominal place, along the directions of the scan.
    """

    b_nm: np.ndarray
    c_nm: np.ndarray
    row_offset_nm: np.ndarray
    column_offset_nm: np.ndarray


def probe_path(settings: SimulationSettings, superstructure_period_nm: float) -> ProbePath:
    """Return where the probe stood at every position of every frame.

    Parameters
    ----------
    superstructure_period_nm
        Period of the scan waves where the settings give none.
    """
    scan = settings.scan
    row_offset, column_offset = _offsets(settings)
    row_nm = scan.row_step_nm * np.arange(scan.rows)[None, :, None] + row_offset
    column_nm = scan.column_step_nm * np.arange(scan.columns)[None, None, :] + column_offset
    b_nm, c_nm = to_crystal(settings, row_nm, column_nm)
    wave = np.cos(2.0 * np.pi * b_nm / (scan.wave_period_nm or superstructure_period_nm))
    wave_b, wave_c = scan.wave_b_nm * wave, scan.wave_c_nm * wave
    cosine, sine = np.cos(scan.rotation_rad), np.sin(scan.rotation_rad)
    return ProbePath(
        b_nm=b_nm + wave_b,
        c_nm=c_nm + wave_c,
        row_offset_nm=row_offset + cosine * wave_c + sine * wave_b,
        column_offset_nm=column_offset + cosine * wave_b - sine * wave_c,
    )


def to_crystal(
    settings: SimulationSettings, row_nm: np.ndarray, column_nm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn scan coordinates into the crystal's (b, c) in nm; the crystal is turned about the middle of the scan."""
    scan = settings.scan
    middle_row = 0.5 * scan.row_step_nm * (scan.rows - 1)
    middle_column = 0.5 * scan.column_step_nm * (scan.columns - 1)
    cosine, sine = np.cos(scan.rotation_rad), np.sin(scan.rotation_rad)
    down, across = row_nm - middle_row, column_nm - middle_column
    b_nm = scan.b_origin_nm + middle_column + cosine * across + sine * down
    c_nm = scan.c_origin_nm + middle_row + cosine * down - sine * across
    return b_nm, c_nm


def _offsets(settings: SimulationSettings) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the probe from its nominal place in nm, along the rows' and the columns' direction."""
    scan = settings.scan
    shape = (scan.frames, scan.rows, scan.columns)
    time = np.arange(scan.rows * scan.columns).reshape(shape[1:]) / (scan.rows * scan.columns)
    row_offset, column_offset = np.empty(shape), np.empty(shape)
    start = np.zeros(2)
    for frame in range(scan.frames):
        rng = generator(settings.seed, Stream.SCAN, frame)
        if frame:
            start = start + scan.frame_jump_nm * rng.standard_normal(2)
        walk = _wander(rng, scan.rows, scan.wander_memory) * scan.wander_nm
        jitter = scan.line_jitter_nm * rng.standard_normal(scan.rows)
        settling = scan.flyback_nm * np.exp(-np.arange(scan.columns) / scan.flyback_columns)
        row_offset[frame] = start[0] + scan.drift_row_nm * time + walk[:, :1]
        column_offset[frame] = start[1] + scan.drift_column_nm * time + walk[:, 1:] + jitter[:, None] + settling
        start = start + np.array([scan.drift_row_nm, scan.drift_column_nm])
    return row_offset, column_offset


def _wander(rng: np.random.Generator, n_rows: int, memory: float) -> np.ndarray:
    """First-order autoregressive walk of unit variance in both directions that starts at 0, (rows, 2)."""
    noise = rng.standard_normal((n_rows, 2))
    walk = np.zeros((n_rows, 2))
    kick = np.sqrt(1.0 - memory**2)
    for row in range(1, n_rows):
        walk[row] = memory * walk[row - 1] + kick * noise[row]
    return walk
