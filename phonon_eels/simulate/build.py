"""A spectrum image from settings: whole rows, each with its own random numbers, so blocks cannot change the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config import Material, SimulationSettings
from phonon_eels.simulate.crystal import crystal_scene
from phonon_eels.simulate.detector import channel_gains, detect_row, noise_correlation
from phonon_eels.simulate.haadf import haadf
from phonon_eels.simulate.seeds import Stream, generator
from phonon_eels.simulate.spectra import ForwardModel, forward_model
from phonon_eels.simulate.truth import true_maps, truth_tree
from phonon_eels.spectrum_image import Acquisition, NoiseModel, ScanAxis, SpectrumImage

if TYPE_CHECKING:
    import xarray as xr

LAZY_BLOCK_BYTES = 16_000_000


@dataclass(frozen=True)
class Simulation:
    """A simulated spectrum image and what was planted in it.

    Attributes
    ----------
    image
        Detector numbers, (rows, columns, channels), with HAADF; with several frames also the raw frames.
    truth
        JSON-ready tree; see `truth.truth_tree`.
    truth_maps
        True maps; see `truth.true_maps`.
    """

    image: SpectrumImage
    truth: dict[str, Any]
    truth_maps: xr.Dataset


def _silent(done: int, total: int) -> None:
    """Report no progress."""


def simulate(
    settings: SimulationSettings,
    material: Material,
    *,
    lazy: bool = False,
    progress: Callable[[int, int], None] = _silent,
) -> Simulation:
    """Make a spectrum image with known truth.

    Parameters
    ----------
    settings
        What it is made of.
    material
        Crystal and modes.
    lazy
        Leave the counts as a dask array that makes rows when they are asked for, so that a file larger than memory
        can be written. The numbers are the same.
    progress
        Called with (rows done, rows in all); not used by lazy counts.

    Returns
    -------
    Simulation
        Image, truth and true maps.

    Raises
    ------
    ConfigError
        If the material has no crystal, or the settings name a mode that it does not have.
    """
    scene = crystal_scene(settings, material)
    model = forward_model(scene)
    scan = settings.scan
    dark_field = np.stack(
        [haadf(scene, generator(settings.seed, Stream.HAADF, frame), frame) for frame in range(scan.frames)]
    )
    frames = _lazy_frames(model) if lazy else _frames(model, progress)
    maps = true_maps(model)
    several = scan.frames > 1
    detector, microscope = settings.detector, settings.acquisition
    image = SpectrumImage(
        counts=_sum_of_frames(frames) if several else frames[0],
        energy=model.axis,
        scan=(ScanAxis("row", scan.row_step_nm, scan.rows), ScanAxis("column", scan.column_step_nm, scan.columns)),
        noise=NoiseModel(
            gain=detector.gain,
            dark_level=detector.dark_level * scan.frames,
            read_noise_e=detector.read_noise_e * scan.frames**0.5,
            noise_correlation=noise_correlation(settings),
            source=dict.fromkeys(("gain", "dark_level", "read_noise_e", "noise_correlation"), "given"),
        ),
        acquisition=Acquisition(
            beam_energy_kev=microscope.beam_energy_kev,
            convergence_semi_angle_mrad=microscope.convergence_semi_angle_mrad,
            collection_semi_angle_mrad=microscope.collection_semi_angle_mrad,
            geometry=microscope.geometry,
            temperature_k=settings.phonons.temperature_k,
            dwell_time_s=microscope.dwell_time_s,
            n_frames=scan.frames,
            instrument="phonon_eels simulation",
        ),
        haadf=dark_field.mean(axis=0, dtype=np.float64).astype(np.float32),
        frames=frames if several else None,
        haadf_frames=dark_field if several else None,
        title=settings.title,
    )
    return Simulation(image, truth_tree(model, maps), maps)


def detected_rows(model: ForwardModel, frame: int, first: int, last: int) -> np.ndarray:
    """Detector numbers of rows first … last − 1 of one frame, (rows, columns, channels)."""
    settings = model.scene.settings
    gains = channel_gains(settings)
    block = np.empty((last - first, settings.scan.columns, settings.energy.channels), dtype=settings.detector.dtype)
    for row in range(first, last):
        block[row - first] = detect_row(settings, model.expected_row(frame, row), gains, frame, row)
    return block


def _frames(model: ForwardModel, progress: Callable[[int, int], None]) -> np.ndarray:
    settings = model.scene.settings
    scan = settings.scan
    cube = np.empty((scan.frames, scan.rows, scan.columns, settings.energy.channels), dtype=settings.detector.dtype)
    for frame in range(scan.frames):
        for row in range(scan.rows):
            cube[frame, row] = detected_rows(model, frame, row, row + 1)[0]
            progress(frame * scan.rows + row + 1, scan.frames * scan.rows)
    return cube


def _lazy_frames(model: ForwardModel) -> Any:
    """All frames as a dask array of blocks of whole rows, (frames, rows, columns, channels)."""
    import dask.array as da
    from dask import delayed

    settings = model.scene.settings
    scan, channels, dtype = settings.scan, settings.energy.channels, np.dtype(settings.detector.dtype)
    per_block = max(1, LAZY_BLOCK_BYTES // (scan.columns * channels * 8))
    make = delayed(detected_rows, pure=True)
    frames = []
    for frame in range(scan.frames):
        blocks = []
        for first in range(0, scan.rows, per_block):
            last = min(first + per_block, scan.rows)
            shape = (last - first, scan.columns, channels)
            name = f"simulated-{settings.seed}-{frame}-{first}"
            blocks.append(da.from_delayed(make(model, frame, first, last, dask_key_name=name), shape, dtype=dtype))
        frames.append(da.concatenate(blocks, axis=0))
    return da.stack(frames)


def _sum_of_frames(frames: Any) -> Any:
    """Plain sum of the frames, without registration, in a type that holds it."""
    dtype = np.dtype(np.uint32) if frames.dtype == np.uint16 else frames.dtype
    total = frames[0].astype(dtype)
    for frame in range(1, frames.shape[0]):
        total = total + frames[frame].astype(dtype)
    return total
