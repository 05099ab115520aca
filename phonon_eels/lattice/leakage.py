"""From which planes the signal at a position comes: a Gaussian share for each of its neighbours."""

from __future__ import annotations

import numpy as np

from phonon_eels.units import FWHM_PER_SIGMA


def plane_leakage(
    distance_nm: np.ndarray, plane: np.ndarray, localisation_fwhm_nm: float, probe_fwhm_nm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return how strongly modes localised at neighbouring planes are seen at each position.

    A mode of equal strength at every plane is seen with exp(-d²/2σ²), σ that of localisation and probe together:
    1 on top of the plane. For the modes of one layer pick the planes of that layer; only ratios matter then.

    Parameters
    ----------
    distance_nm
        Distance from the displaced planes, (k, positions).
    plane
        Number of those planes, -1 where there is none, same shape.
    localisation_fwhm_nm, probe_fwhm_nm
        Full widths at half maximum of the region a plane's modes are excited from and of the probe.

    Returns
    -------
    Planes, strongest first, -1 behind the last, and their weights (0 there), both (k, positions).
    """
    sigma = float(np.hypot(localisation_fwhm_nm, probe_fwhm_nm)) / FWHM_PER_SIGMA
    weight = np.where(plane >= 0, np.exp(-0.5 * (distance_nm / sigma) ** 2), 0.0)
    order = np.argsort(-weight, axis=0, kind="stable")
    source = np.take_along_axis(plane, order, axis=0)
    weight = np.take_along_axis(weight, order, axis=0)
    # Padding last, also where a plane is so far away that its weight underflows to 0.
    order = np.argsort(source < 0, axis=0, kind="stable")
    return np.take_along_axis(source, order, axis=0), np.take_along_axis(weight, order, axis=0)
