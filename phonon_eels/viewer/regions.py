"""Regions of a scan: shapes and layer labels as masks of positions. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.viewer.sessions import Session


def shape_mask(session: Session, vertices_nm: Any, kind: str, width_nm: float = 0.0) -> np.ndarray:
    """Return the positions that a shape covers, (rows, columns) of bool.

    Parameters
    ----------
    vertices_nm
        (n, 2) rows and columns in nm; of an ellipse the corners of the box around it.
    kind
        "rectangle", "polygon", "ellipse", "path" or "line".
    width_nm
        Of paths and lines: positions nearer than half of it belong to the region, at least the ones passed through.

    Raises
    ------
    DataError
        If the shape is of another kind.
    """
    place = np.stack(
        [
            (np.asarray(vertices_nm, float)[:, k] - session.image.scan[k].offset_nm) / session.scale_nm[k]
            for k in range(2)
        ],
        axis=1,
    )
    rows, columns = np.mgrid[: session.shape[0], : session.shape[1]]
    points = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(float)
    if kind in ("path", "line"):
        inside = _near_path(points, place, width_nm / min(session.scale_nm))
    elif kind == "ellipse":
        inside = _in_ellipse(points, place)
    elif kind in ("rectangle", "polygon"):
        from skimage.measure import points_in_poly

        inside = points_in_poly(points, place)
    else:
        raise DataError(f"a {kind} cannot be a region; draw a rectangle, polygon, ellipse, path or line")
    return np.asarray(inside, bool).reshape(session.shape)


def _near_path(points: np.ndarray, corners: np.ndarray, width: float) -> np.ndarray:
    reach = max(0.5 * width, 0.5)
    inside = np.zeros(len(points), bool)
    for start, end in pairwise(corners):
        along = end - start
        length = float(along @ along)
        share = np.clip((points - start) @ along / length, 0.0, 1.0) if length > 0.0 else np.zeros(len(points))
        inside |= np.hypot(*(points - start - share[:, None] * along).T) <= reach
    return inside


def _in_ellipse(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    center = corners.mean(axis=0)
    axes = np.stack([corners[1] - corners[0], corners[3] - corners[0]]) / 2.0
    try:
        scaled = np.linalg.solve(axes.T, (points - center).T)
    except np.linalg.LinAlgError:
        return np.zeros(len(points), bool)
    return np.asarray((scaled**2).sum(axis=0) <= 1.0)


def layer_names(session: Session) -> list[str]:
    """Return the crystal's layers that the scan shows, in the order of their labels."""
    from phonon_eels.figures.maps import flag_names

    maps = session.maps("assign_layers")
    if maps is None or "layer" not in maps:
        return []
    here = {int(v) for v in np.unique(maps["layer"].values[np.isfinite(maps["layer"].values)])}
    return [word for flag, word in flag_names(maps["layer"]).items() if flag in here]


def layer_mask(session: Session, name: str) -> np.ndarray:
    """Return the positions of a layer, (rows, columns) of bool.

    Raises
    ------
    DataError
        If the scan has no such layer.
    """
    from phonon_eels.figures.maps import flag_names

    maps = session.maps("assign_layers")
    if name not in layer_names(session) or maps is None:
        known = ", ".join(layer_names(session)) or "none; run assign_layers first"
        raise DataError(f"layer {name!r} is not in this scan; its layers are: {known}")
    flag = next(flag for flag, word in flag_names(maps["layer"]).items() if word == name)
    return np.asarray(maps["layer"].values == flag)


def phase_bin_mask(session: Session, layer: str, phase_rad: Sequence[float], chosen: int) -> np.ndarray:
    """Return the positions of a layer whose outward phase is nearest to one of several phases.

    The table of energies by phase also asks how much of a mode's signal comes from the plane; positions of the layer stand
    for that here, so that their number may differ from the table's by those in between.
    """
    wave = session.maps("map_superstructure")
    if wave is None or "phase_rad" not in wave:
        return np.zeros(session.shape, bool)
    phase = np.asarray(wave["phase_rad"].values, dtype=float)
    away = np.abs(np.angle(np.exp(1j * (phase[..., None] - np.asarray(phase_rad, dtype=float)))))
    nearest = np.argmin(np.where(np.isfinite(away), away, np.inf), axis=-1)
    return np.asarray(layer_mask(session, layer) & np.isfinite(phase) & (nearest == chosen))


def bounding_box(inside: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the half-open ranges of rows and columns that a region needs.

    Raises
    ------
    DataError
        If the region holds no position.
    """
    if not inside.any():
        raise DataError("the region holds no position of the scan; draw it over the image")
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)
