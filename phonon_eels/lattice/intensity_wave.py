"""Lock-in on the brightness of the heavy planes, beside that on their displacement."""

from __future__ import annotations

import numpy as np

from phonon_eels.lattice.inference import MeanAmplitude, balanced_weights, weighted_mean

MIN_POSITIONS = 12


def intensity_wave(
    image: np.ndarray, phase_rad: np.ndarray, half_slab: np.ndarray, on_plane: np.ndarray
) -> tuple[MeanAmplitude, int]:
    """Return the mean relative modulation of the brightness, outward phase, over the half slabs, and their number.

    Every half slab has a mean and a slope of its own; what is left of occupation, channelling and bunching of columns follows
    the wave. Planes are the units, as for energies.

    Parameters
    ----------
    image, phase_rad, half_slab
        (rows, columns): dark-field image, phase along the outward normal, number of the half slab.
    on_plane
        (rows, columns) True on the heavy planes.
    """
    units, sides = [], []
    usable = on_plane & np.isfinite(image) & np.isfinite(phase_rad)
    columns = np.broadcast_to(np.linspace(-1.0, 1.0, image.shape[1]), image.shape)
    rows = np.broadcast_to(np.linspace(-1.0, 1.0, image.shape[0])[:, None], image.shape)
    for number in np.unique(half_slab[usable]):
        here = usable & (half_slab == number)
        if here.sum() < MIN_POSITIONS:
            continue
        phase = phase_rad[here]
        design = np.column_stack([np.ones_like(phase), rows[here], columns[here], np.cos(phase), np.sin(phase)])
        found = np.linalg.lstsq(design, image[here], rcond=None)[0]
        if image[here].mean() > 0.0:
            units.append(found[3:] / image[here].mean())
            sides.append(1.0 if number % 2 else -1.0)
    vectors = np.array(units).reshape(len(units), 2)
    return weighted_mean(vectors, balanced_weights(np.array(sides))), len(units)
