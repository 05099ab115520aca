"""Label and coordinate of every position from the dark-field image alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from phonon_eels.lattice.drift import fit_slow_field
from phonon_eels.lattice.intensity import Intensity, gather_pixels
from phonon_eels.lattice.row_offsets import row_offsets
from phonon_eels.lattice.rows import RowMatch, View, match_rows, view_along
from phonon_eels.lattice.stack import Stack, stack_of
from phonon_eels.lattice.warp import Wanted, Warp, follow_planes

if TYPE_CHECKING:
    from phonon_eels.config import Material

MIN_RUNNER_UP = 1.6
"""The next best offset must misfit this much more. Noise and lattice fringes give up to 1.4, Bi2212 from 5 to 100."""
MIN_EXPLAINED = 0.5
MIN_SIGNIFICANCE = 6.0  # noise reaches 5, because offset, direction and scale are searched
MAX_SCALE_ERROR = 0.12
POOR_QUALITY = 0.25
JITTER_ROUNDS = 2

STATUS_MEANINGS = ("ok", "no_haadf", "poor_match", "extrapolated")


class NoLayersError(Exception):
    """The image does not show the layers; the message says by which figure. Steps turn it into a skipped result."""


@dataclass(frozen=True)
class LayerModel:
    """The stack of layers in an image.

    Attributes
    ----------
    stack
        Planes of the material.
    match
        Direction, offset and scale, with the figures that say how sure they are.
    scale_std
        Standard deviation of the scale.
    view
        Coordinates of all positions.
    warp
        Every plane along b.
    intensity
        Brightness model.
    quality
        Share of the local contrast that the model explains, 0 … 1, (rows, columns); NaN without image.
    """

    stack: Stack
    match: RowMatch
    scale_std: float
    view: View
    warp: Warp
    intensity: Intensity
    quality: np.ndarray


@dataclass(frozen=True)
class Labels:
    """What every position is, arrays (rows, columns) unless said.

    Attributes
    ----------
    layer
        Index of the layer kind; the last one is the gap, -1 where there is no image.
    probability
        (layers + 1, rows, columns).
    c_position_nm
        Coordinate along c in crystal nm, in the frame where planes are flat.
    slab, half_slab, outward
        Slab; 2 slab, + 1 on its upper side; direction of the outward normal, 0 at the middle plane.
    status
        Index into `STATUS_MEANINGS`.
    near_plane, near_distance_nm
        Neighbouring planes (index into the warp's) and distance from them in crystal nm, (k, rows, columns).
    """

    layer: np.ndarray
    probability: np.ndarray
    c_position_nm: np.ndarray
    slab: np.ndarray
    half_slab: np.ndarray
    outward: np.ndarray
    status: np.ndarray
    near_plane: np.ndarray
    near_distance_nm: np.ndarray


def wanted_superstructure(material: Material) -> Wanted | None:
    """Return what a material says of its superstructure, or None."""
    wave = material.superstructure
    return None if wave is None else Wanted(wave.period_bounds_nm, wave.antiphase_slabs)


def find_layers(
    haadf: np.ndarray,
    rows_nm: np.ndarray,
    columns_nm: np.ndarray,
    material: Material,
    *,
    c_direction: str = "auto",
    contrast: str = "auto",
) -> LayerModel:
    """Find the layers of a material in a dark-field image.

    Parameters
    ----------
    haadf
        Image, (rows, columns); NaN where there is none.
    rows_nm, columns_nm
        Positions of rows and columns of the scan.
    c_direction, contrast
        See `phonon_eels.config.settings.AssignLayers`.

    Raises
    ------
    NoLayersError
        If the material has no layers or the image does not show them.
    """
    stack = stack_of(material)
    if stack is None:
        raise NoLayersError(f"material {material.name} has no crystal or no layers in its file: nothing to assign")
    finite = np.isfinite(haadf)
    if finite.mean() < 0.5:
        raise NoLayersError(
            f"the HAADF is finite at only {100 * finite.mean():.0f} % of the positions; layers need at least half"
        )
    match = match_rows(haadf, rows_nm, columns_nm, stack, c_direction=c_direction, contrast=contrast)
    if match is None:
        raise NoLayersError(
            f"the HAADF has no contrast, or less than {0.45 * stack.repeat_nm:.2f} nm along c: "
            f"layers cannot be told apart"
        )
    first_guess = match
    slow = fit_slow_field(haadf, rows_nm, columns_nm, stack, match)
    match = slow.match
    _refuse_doubt(match, first_guess)
    view = view_along(rows_nm, columns_nm, match.angle_rad)
    # Slab 0 is the first in view.
    low = float(view.s[finite].min())
    repeat = stack.repeat_nm * match.scale
    match = replace(match, origin_nm=match.origin_nm + repeat * np.floor((low - match.origin_nm) / repeat + 1e-6))
    slow = replace(slow, match=match)
    wanted = wanted_superstructure(material)
    warp, intensity = follow_planes(haadf, view, stack, slow, wanted)
    for _ in range(JITTER_ROUNDS):
        offsets = row_offsets(gather_pixels(haadf, view), view, warp, intensity)
        if not offsets.any():
            break
        view = replace(view, s=view.s + offsets[:, None])
        warp, intensity = follow_planes(haadf, view, stack, slow, wanted)
    match, scale_std = _measured_scale(warp, match, slow.scale_std)
    return LayerModel(stack, match, scale_std, view, warp, intensity, _quality(haadf, view, intensity))


def _refuse_doubt(match: RowMatch, first_guess: RowMatch) -> None:
    if match.explained < MIN_EXPLAINED:
        raise NoLayersError(
            f"no layer contrast in the HAADF: the stack explains {100 * match.explained:.0f} % of the profile along c "
            f"(at least {100 * MIN_EXPLAINED:.0f} % needed)"
        )
    if not match.runner_up > MIN_RUNNER_UP:
        raise NoLayersError(
            f"layers cannot be told apart in the HAADF: the next best offset of the stack misfits only "
            f"{match.runner_up:.2f} times as much as the best (at least {MIN_RUNNER_UP:g} needed); "
            f"{match.extent_nm:.2f} nm along c are in view"
        )
    if first_guess.significance < MIN_SIGNIFICANCE:
        raise NoLayersError(
            f"no layer contrast in the HAADF: the stack's amplitude is {first_guess.significance:.1f} standard errors "
            f"(at least {MIN_SIGNIFICANCE:g} needed)"
        )
    if abs(match.scale - 1.0) > MAX_SCALE_ERROR:
        raise NoLayersError(
            f"the rows in the HAADF repeat every {match.scale:.2f} times the material's spacing: check the scan step "
            f"(acquisition.scan_step_nm) and the material's c_nm"
        )


def _measured_scale(warp: Warp, match: RowMatch, fitted_std: float) -> tuple[RowMatch, float]:
    """Scale from where the anchor planes are found, the wave taken off, with the scatter of the planes as its error."""
    if match.scale_fixed or len(warp.anchors) < 3:
        return match, fitted_std
    shift = warp.shift_nm[warp.anchors].mean(axis=1)
    if warp.wave is not None:
        sign = np.where(warp.planes.slab[warp.anchors] % 2 == 0, 1.0, -1.0)
        phase = warp.wave.phase_at(warp.nominal_nm[warp.anchors][:, None], warp.t_nm[None, :])
        shift = shift - sign * warp.wave.amplitude_nm * np.cos(phase).mean(axis=1)
    x = warp.planes.position_nm[warp.anchors]
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    found, *_ = np.linalg.lstsq(design, warp.nominal_nm[warp.anchors] + shift, rcond=None)
    left = warp.nominal_nm[warp.anchors] + shift - design @ found
    std = float(np.sqrt(left @ left / max(len(x) - 2, 1) / np.sum(design[:, 1] ** 2)))
    return replace(match, scale=float(found[1])), max(std, 1e-6)


def _quality(haadf: np.ndarray, view: View, intensity: Intensity) -> np.ndarray:
    """Local share of the contrast that the model explains, over about 0.8 nm."""
    pixels = gather_pixels(haadf, view)
    sigma = (0.4 / max(_step(view, 0), 1e-6), 0.4 / max(_step(view, 1), 1e-6))

    def local_mean(values: np.ndarray) -> np.ndarray:
        image, share = np.zeros(haadf.size), np.zeros(haadf.size)
        image[pixels.order], share[pixels.order] = values, 1.0
        smooth = [gaussian_filter(array.reshape(haadf.shape), sigma, mode="constant") for array in (image, share)]
        return np.asarray(smooth[0] / np.maximum(smooth[1], 1e-6))

    mean = local_mean(pixels.value)
    spread = local_mean(pixels.value**2) - mean**2
    quality = np.clip(1.0 - local_mean(intensity.residual**2) / np.maximum(spread, 1e-12), 0.0, 1.0)
    return np.where(np.isfinite(haadf), quality, np.nan)


def _step(view: View, axis: int) -> float:
    """Scan step along an axis in nm."""
    if view.s.shape[axis] < 2:
        return 0.0
    return float(np.hypot(np.diff(view.s, axis=axis).flat[0], np.diff(view.t, axis=axis).flat[0]))


def label_positions(model: LayerModel) -> Labels:
    """Label every position by the displaced planes next to it.

    The probability of a layer is the Gaussian share, in the fitted width of the planes, of the planes of that kind
    among all planes, the middle of the van der Waals gap counted as a plane.
    """
    stack, warp, view = model.stack, model.warp, model.view
    shape = view.s.shape
    index, distance = warp.nearest(view.s.ravel(), view.t.ravel())
    n_kinds = len(stack.names) + 1
    kind = warp.planes.kind[index]
    # Subtracting the smallest exponent keeps the shares finite far from all planes.
    exponent = 0.5 * (distance / warp.sigma_nm) ** 2
    glow = np.exp(exponent.min(axis=0) - exponent)
    probability = np.stack([np.where(kind == k, glow, 0.0).sum(axis=0) for k in range(n_kinds)])
    probability /= probability.sum(axis=0)
    closest = np.abs(distance).argmin(axis=0)[None]
    layer = np.take_along_axis(kind, closest, axis=0)[0]
    c_position = _flat_coordinate(warp, index, distance)
    slab = np.floor(c_position / stack.repeat_nm).astype(int)
    upper = c_position >= (slab + 0.5) * stack.repeat_nm
    side_of_plane = np.take_along_axis(warp.planes.side[index], closest, axis=0)[0]
    middle = (side_of_plane == 0) & (layer < len(stack.names))
    outward = np.where(middle, 0, np.where(upper, 1, -1))
    measured = np.isin(slab, warp.planes.slab[warp.anchors])
    status = np.where(measured, 0, STATUS_MEANINGS.index("extrapolated"))
    poor = (model.quality < POOR_QUALITY).ravel()
    status[poor] = STATUS_MEANINGS.index("poor_match")
    missing = ~np.isfinite(model.quality.ravel())
    status[missing] = STATUS_MEANINGS.index("no_haadf")
    # Without image a position still lies between planes; it is labelled, and its status says how.
    k = len(index)
    return Labels(
        layer.reshape(shape),
        probability.reshape(n_kinds, *shape),
        c_position.reshape(shape),
        slab.reshape(shape),
        (2 * slab + upper).reshape(shape),
        outward.reshape(shape),
        status.reshape(shape),
        index.reshape(k, *shape),
        (distance / model.match.scale).reshape(k, *shape),
    )


def _flat_coordinate(warp: Warp, index: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Coordinate along c in the crystal, linear between the displaced planes, rigid beyond the outermost."""
    below = np.clip((distance >= 0.0).sum(axis=0) - 1, 0, len(index) - 2)[None]
    d0 = np.take_along_axis(distance, below, axis=0)[0]
    d1 = np.take_along_axis(distance, below + 1, axis=0)[0]
    z0 = warp.planes.position_nm[np.take_along_axis(index, below, axis=0)[0]]
    z1 = warp.planes.position_nm[np.take_along_axis(index, below + 1, axis=0)[0]]
    share = d0 / np.maximum(d0 - d1, 1e-9)
    inner = z0 + share * (z1 - z0)
    value: np.ndarray = np.where(share < 0.0, z0 + d0 / warp.scale, np.where(share > 1.0, z1 + d1 / warp.scale, inner))
    return value


def planes_inside(model: LayerModel) -> np.ndarray:
    """Return the share of the width of the scan over which each plane lies inside it, (planes,)."""
    t = model.view.t.ravel()
    strip = np.clip(np.rint((t - model.warp.t_nm[0]) / model.warp.step_nm).astype(np.intp), 0, len(model.warp.t_nm) - 1)
    low = np.full(len(model.warp.t_nm), np.inf)
    high = np.full(len(model.warp.t_nm), -np.inf)
    np.minimum.at(low, strip, model.view.s.ravel())
    np.maximum.at(high, strip, model.view.s.ravel())
    displaced = model.warp.nominal_nm[:, None] + model.warp.shift_nm
    used = np.isfinite(low)
    inside: np.ndarray = ((displaced >= low) & (displaced <= high))[:, used].mean(axis=1)
    return inside
