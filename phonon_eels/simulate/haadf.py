"""Dark-field image of the scene: atom columns seen through the probe."""

from __future__ import annotations

import numpy as np

from phonon_eels.config import Material
from phonon_eels.simulate.crystal import Scene, crystal_of
from phonon_eels.units import FWHM_PER_SIGMA

REACH_SIGMA = 5.0
"""Columns further than this from the probe add less than 4e-6 of their height."""


def haadf_signal(scene: Scene, frame: int = 0) -> np.ndarray:
    """Return the noise-free image of one frame, mean 1, (rows, columns).

    Columns have height Z^exponent and the width of the probe and of the vibrations together; intensity is
    proportional to thickness.
    """
    settings = scene.settings
    crystal = crystal_of(scene.material)
    b_nm, c_nm = scene.path.b_nm[frame], scene.path.c_nm[frame]
    sigma = np.hypot(settings.acquisition.probe_fwhm_nm / FWHM_PER_SIGMA, settings.haadf.vibration_nm)
    image = np.zeros(b_nm.shape)
    spacing = 0.5 * crystal.b_nm
    # Columns next to the probe on both sides, and as many more as the probe's tails and the bunching reach.
    around = int(np.ceil((REACH_SIGMA * sigma + max(settings.structure.bunching_nm.values(), default=0.0)) / spacing))
    for p in range(len(scene.planes.layer)):
        name, number = _layer(scene.material, int(scene.planes.layer[p]))
        reach = REACH_SIGMA * sigma + abs(scene.planes.amplitude_nm[p])
        near = np.abs(c_nm - scene.planes.height_nm[p]) < reach
        if not near.any():
            continue
        origin = crystal.b_nm * settings.structure.lateral_offset.get(name, 0.0)
        # The wave along b runs a quarter period behind the one along c and changes sign with the slab as that does.
        sign = -1.0 if scene.planes.slab[p] % 2 == 1 and _antiphase(scene.material) else 1.0
        bunching = (
            sign * settings.structure.bunching_nm.get(name, 0.0) if _wavy(scene) and not scene.planes.turned[p] else 0.0
        )
        nearest = np.round((b_nm[near] - origin) / spacing)
        profile = np.zeros(nearest.shape)
        for step in range(-around, around + 1):
            site = origin + (nearest + step) * spacing
            theta = scene.lateral_phase(site)
            away_b = b_nm[near] - site - bunching * np.sin(theta)
            away_c = c_nm[near] - scene.planes.height_nm[p] - scene.planes.amplitude_nm[p] * np.cos(theta)
            profile += np.exp(-(away_b**2 + away_c**2) / (2.0 * sigma**2))
        image[near] += number**settings.haadf.exponent * profile
    background = settings.haadf.background
    columns = image / image.mean() if image.mean() > 0 else image
    return scene.thickness * (background + (1.0 - background) * columns)


def haadf(scene: Scene, rng: np.random.Generator, frame: int = 0) -> np.ndarray:
    """Return the image of one frame in detected electrons, float32, (rows, columns).

    Parameters
    ----------
    rng
        Generator of the noise; not used where the settings switch noise off.
    """
    expected = scene.settings.haadf.electrons * haadf_signal(scene, frame)
    image = rng.poisson(expected) if scene.settings.haadf.noise else expected
    return image.astype(np.float32)


def _layer(material: Material, index: int) -> tuple[str, int]:
    return material.layers[index].name, material.layers[index].atomic_number


def _antiphase(material: Material) -> bool:
    return material.superstructure is None or material.superstructure.antiphase_slabs


def _wavy(scene: Scene) -> bool:
    """Without a superstructure, or with its displacements switched off, columns stand straight."""
    return scene.material.superstructure is not None and scene.settings.structure.corrugation != 0.0
