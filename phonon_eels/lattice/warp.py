"""Every plane of the stack followed along b: superstructure wave and scan distortion, from the dark-field image.

The image is modelled as background + strength of a kind × Gaussian in the distance to the displaced plane. Within
narrow strips along b one least-squares step gives the displacement of each anchor plane (BiO), independent between
strips; smooth curves through them move the model, four rounds in all. The other planes of a slab follow its anchors,
rigidly for drift and with their own share of the superstructure wave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import BSpline

from phonon_eels.lattice.drift import SlowFit
from phonon_eels.lattice.intensity import (
    COLUMN_VARIANCE,
    Intensity,
    Pixels,
    fit_intensity,
    gather_pixels,
    gaussians,
    unit_of,
)
from phonon_eels.lattice.rows import View
from phonon_eels.lattice.stack import Planes, Stack, planes_between
from phonon_eels.lattice.wave import Samples, Wave, fit_wave, slab_sign

MARGIN_NM = 0.35  # planes this far outside the field of view still shine into it
KNOTS_PER_PERIOD = 6.0
DEVIATION_STD_NM = 0.02  # expected wander of a plane about trend + wave; noisy images fall back to those
MAX_SAMPLE_STD_NM = 0.08
NEAREST = 8  # planes that a position is compared with


@dataclass(frozen=True)
class Wanted:
    """What is known of the superstructure before looking: allowed periods, and whether slabs alternate."""

    period_bounds_nm: tuple[float, float]
    antiphase_slabs: bool


@dataclass(frozen=True)
class Warp:
    """Where every plane lies, lengths in nm of the scan.

    Attributes
    ----------
    planes
        All planes and gaps in or near the field of view, in order along c.
    nominal_nm
        Their s without displacement, (planes,).
    t_nm
        Grid along b, (n,), evenly spaced.
    shift_nm
        Displacement along c of each plane at each t, (planes, n).
    origin_nm, scale
        nominal = origin + scale × crystal coordinate.
    sigma_nm
        Gaussian width that the planes are seen with (probe, thermal motion and columns together).
    anchors
        Indices into `planes` of the planes that were measured one by one.
    samples
        Their displacements, independent of each other; `plane` counts in `planes`, displacements in nm of the scan.
    wave
        Wave through the samples, if one was looked for and is significant.
    wave_ratio, wave_ratio_std
        Displacement of each layer kind over that of the anchors.
    noise
        Standard deviation of the residual in units of the image's own standard deviation.
    slow_nm
        Slow displacement of the whole stack that `shift_nm` started from, same shape.
    """

    planes: Planes
    nominal_nm: np.ndarray
    t_nm: np.ndarray
    shift_nm: np.ndarray
    origin_nm: float
    scale: float
    sigma_nm: float
    anchors: np.ndarray
    samples: Samples
    wave: Wave | None
    wave_ratio: np.ndarray
    wave_ratio_std: np.ndarray
    noise: float
    slow_nm: np.ndarray

    def shifts_at(self, t: np.ndarray) -> np.ndarray:
        """Return the displacement of all planes at coordinates t, (planes, *t.shape), linear between grid points."""
        place = np.clip((t - self.t_nm[0]) / self.step_nm, 0.0, len(self.t_nm) - 1.0)
        low = np.minimum(place.astype(np.intp), max(len(self.t_nm) - 2, 0))
        high = np.minimum(low + 1, len(self.t_nm) - 1)
        share = place - low
        shifts: np.ndarray = self.shift_nm[:, low] * (1.0 - share) + self.shift_nm[:, high] * share
        return shifts

    @property
    def step_nm(self) -> float:
        """Spacing of the grid along b."""
        return float(self.t_nm[1] - self.t_nm[0]) if len(self.t_nm) > 1 else 1.0

    def nearest(self, s: np.ndarray, t: np.ndarray, n: int = NEAREST) -> tuple[np.ndarray, np.ndarray]:
        """Return the n neighbouring planes of positions and the distances to them.

        Parameters
        ----------
        s, t
            Coordinates, one dimension.

        Returns
        -------
        Index of the planes (consecutive, in order along c) and signed distance s - plane in nm, both (n, positions).
        """
        n = min(n, len(self.nominal_nm))
        index = np.empty((n, len(s)), dtype=np.intp)
        distance = np.empty((n, len(s)))
        steps = np.arange(n)[:, None]
        for part in np.array_split(np.arange(len(s)), max(1, len(s) // 20_000)):
            displaced = self.nominal_nm[:, None] + self.shifts_at(t[part])
            below = (displaced <= s[part]).sum(axis=0)
            first = np.clip(below - n // 2, 0, len(self.nominal_nm) - n)
            index[:, part] = first + steps
            distance[:, part] = s[part] - np.take_along_axis(displaced, index[:, part], axis=0)
        return index, distance


def follow_planes(
    haadf: np.ndarray, view: View, stack: Stack, slow: SlowFit, wanted: Wanted | None, rounds: int = 4
) -> tuple[Warp, Intensity]:
    """Follow the planes of the stack along b.

    Parameters
    ----------
    haadf
        Image, (rows, columns); NaN where there is none.
    view
        Coordinates along c and b for the direction in `slow`.
    slow
        Offset, scale and slow displacement of the stack.
    wanted
        Superstructure to look for, or None.
    """
    pixels = gather_pixels(haadf, view)
    match = slow.match
    low, high = ((float(edge) - match.origin_nm) / match.scale for edge in (pixels.s.min(), pixels.s.max()))
    reach = MARGIN_NM + float(np.abs(slow.field.at(pixels.s, pixels.t)).max())
    planes = planes_between(stack, low - reach, high + reach)
    nominal = match.origin_nm + match.scale * planes.position_nm
    shift = np.broadcast_to(nominal[:, None], (len(nominal), len(pixels.bins_nm))).copy()
    for _ in range(3):  # the field is a function of where a plane appears, not of where it belongs
        moved = slow.field.at(shift, np.broadcast_to(pixels.bins_nm, shift.shape))
        shift = nominal[:, None] + moved
    shift = moved
    if wanted is not None:  # the period counts in scan nm, whose error is that of the scale
        bounds = wanted.period_bounds_nm
        wanted = replace(
            wanted, period_bounds_nm=(bounds[0] * min(1.0, match.scale), bounds[1] * max(1.0, match.scale))
        )
    empty = Samples(*(np.zeros(0) for _ in range(6)))
    ones = np.ones(len(stack.names))
    # A probe of 1.3 Å (Gaussian width 0.55 Å) is where the fit of the width starts.
    warp = Warp(
        planes,
        nominal,
        pixels.bins_nm,
        shift,
        match.origin_nm,
        match.scale,
        0.055,
        np.zeros(0, int),
        empty,
        None,
        stack.wave_ratio,
        0 * ones,
        1.0,
        shift,
    )
    anchors = _anchors(warp, stack, pixels)
    warp = replace(warp, anchors=anchors)
    intensity = None
    for turn in range(rounds):
        index, distance = warp.nearest(pixels.s, pixels.t)
        intensity = fit_intensity(pixels, warp.planes, index, distance, stack, warp.sigma_nm, match.contrast, intensity)
        warp = replace(warp, sigma_nm=intensity.sigma_nm, noise=intensity.noise)
        if not len(anchors):
            continue
        samples = _measure_anchors(pixels, warp, stack, index, distance, intensity)
        wave = _significant_wave(samples, wanted)
        if wave is not None and turn >= rounds - 2:
            warp = _measure_ratios(
                pixels, replace(warp, samples=samples, wave=wave), stack, index, distance, intensity, wanted
            )
        deviation = 0.05 if turn == 0 else DEVIATION_STD_NM
        warp = replace(
            warp, samples=samples, wave=wave, shift_nm=_smooth(warp, stack, samples, wave, wanted, deviation)
        )
    assert intensity is not None
    return warp, intensity


def _anchors(warp: Warp, stack: Stack, pixels: Pixels) -> np.ndarray:
    """Anchor planes that cross the field of view."""
    displaced = warp.nominal_nm[:, None] + warp.shift_nm
    low, high = float(pixels.s.min()), float(pixels.s.max())
    inside = ((displaced > low) & (displaced < high)).mean(axis=1) > 0.25
    return np.flatnonzero((warp.planes.kind == stack.anchor) & inside)


def _followers(warp: Warp) -> np.ndarray:
    """Return C (planes, anchors): displacement of a plane from its slab's anchors, linear in height between them."""
    share = np.zeros((len(warp.nominal_nm), len(warp.anchors)))
    for k in range(len(warp.nominal_nm)):
        own = np.flatnonzero(warp.planes.slab[warp.anchors] == warp.planes.slab[k])
        if len(own) == 1:
            share[k, own[0]] = 1.0
        elif len(own) == 2:
            a, b = warp.nominal_nm[warp.anchors[own]]
            x = float(np.clip((warp.nominal_nm[k] - a) / (b - a), 0.0, 1.0))
            share[k, own] = 1.0 - x, x
    return share


def _measure_anchors(
    pixels: Pixels, warp: Warp, stack: Stack, index: np.ndarray, distance: np.ndarray, intensity: Intensity
) -> Samples:
    """One least-squares step for the displacement of every anchor in every strip along b."""
    share = _followers(warp)
    n = len(warp.anchors)
    signal = intensity.plane_strength(pixels, warp.planes, index) * gaussians(distance, warp.sigma_nm)
    pull = signal * distance / warp.sigma_nm**2
    units = unit_of(warp.planes)
    of_unit = np.eye(int(units.max()) + 1)[units]
    # Planes outside the view stay where they are; 1 nm is far beyond any displacement that could be measured.
    prior = np.diag(np.concatenate([np.ones(n), np.full(of_unit.shape[1], 1.0 / COLUMN_VARIANCE)]))
    rows = []
    for first, last in zip(pixels.edges[:-1], pixels.edges[1:], strict=True):
        if last - first < 3:
            continue
        near = index[:, first:last]
        moved = np.einsum("kp,kpq->pq", pull[:, first:last], share[near])
        # Where few positions lie across a plane its brightness and its displacement look alike: both are free.
        brighter = np.einsum("kp,kpq->pq", signal[:, first:last], of_unit[near])
        jacobian = np.concatenate([moved, brighter], axis=1)
        inverse = np.linalg.inv(jacobian.T @ jacobian + prior * intensity.noise**2)
        step = (inverse @ (jacobian.T @ intensity.residual[first:last]))[:n]
        std = intensity.noise * np.sqrt(np.diag(inverse)[:n])
        t = float(pixels.t[first:last].mean())
        for q in np.flatnonzero(std < MAX_SAMPLE_STD_NM):
            k = warp.anchors[q]
            u = float(warp.shifts_at(np.array([t]))[k, 0]) + float(step[q])
            rows.append((k, warp.planes.slab[k], warp.nominal_nm[k], t, u, float(std[q])))
    table = np.array(rows).reshape(-1, 6)
    return Samples(
        table[:, 0].astype(int), table[:, 1].astype(int), *(table[:, column].copy() for column in range(2, 6))
    )


def _significant_wave(samples: Samples, wanted: Wanted | None) -> Wave | None:
    if wanted is None:
        return None
    wave = fit_wave(samples, slab_sign(samples.slab, wanted.antiphase_slabs), wanted.period_bounds_nm)
    return wave if wave is not None and wave.p_value < 1e-3 and not wave.at_bound else None


def _wave_shift(warp: Warp, wave: Wave | None, wanted: Wanted | None) -> np.ndarray:
    """Displacement by the wave that an anchor at the place of each plane would have, (planes, n)."""
    if wave is None or wanted is None:
        return np.zeros_like(warp.shift_nm)
    sign = slab_sign(warp.planes.slab, wanted.antiphase_slabs)
    shift: np.ndarray = (
        wave.amplitude_nm * sign[:, None] * np.cos(wave.phase_at(warp.nominal_nm[:, None], warp.t_nm[None, :]))
    )
    return shift


def _smooth(
    warp: Warp, stack: Stack, samples: Samples, wave: Wave | None, wanted: Wanted | None, deviation: float
) -> np.ndarray:
    """Smooth curves through the samples of each anchor, carried over to the other planes of its slab."""
    waves = _wave_shift(warp, wave, wanted)
    period = np.mean(wanted.period_bounds_nm) if wanted is not None else 2.5
    design_at = _spline_design(warp.t_nm, float(period) / KNOTS_PER_PERIOD)
    grid_design = design_at(warp.t_nm)
    slow = np.zeros((len(warp.anchors), len(warp.t_nm)))
    centre = float(warp.t_nm.mean())
    for q, k in enumerate(warp.anchors):
        own = samples.plane == k
        if own.sum() < 3:
            slow[q] = warp.shift_nm[k] - waves[k]
            continue
        t, weight = samples.t_nm[own], 1.0 / samples.std_nm[own]
        left = samples.u_nm[own] - np.interp(t, warp.t_nm, waves[k])
        trend = np.stack([np.ones_like(t), t - centre], axis=1)
        # 0.05 rad holds a badly seen plane's slope without biasing a well seen one
        normal = (trend * weight[:, None] ** 2).T @ trend + np.diag([0.0, 1.0 / 0.05**2])
        line = np.linalg.solve(normal, trend.T @ (weight**2 * left))
        left = left - trend @ line
        design = design_at(t)
        normal = (design * weight[:, None] ** 2).T @ design + np.eye(design.shape[1]) / deviation**2
        curve = np.linalg.solve(normal, design.T @ (weight**2 * left))
        slow[q] = line[0] + line[1] * (warp.t_nm - centre) + grid_design @ curve
    share = _followers(warp)
    atoms = warp.planes.kind < len(stack.names)
    ratio = np.where(atoms, np.append(warp.wave_ratio, 1.0)[warp.planes.kind], 1.0)
    # Between anchors the trend carries the bend of the drift; a straight line alone would cut it off.
    trend = _trend(warp, slow)
    shift = trend + share @ (slow - trend[warp.anchors]) + ratio[:, None] * waves
    for k in np.flatnonzero(~atoms):  # a gap lies midway between the planes that face it
        facing = [j for j in (k - 1, k + 1) if 0 <= j < len(atoms)]
        shift[k] = np.mean([shift[j] for j in facing], axis=0)
    return shift


def _trend(warp: Warp, slow: np.ndarray) -> np.ndarray:
    """Slow displacement of all planes, (planes, n), from that of the anchors.

    The field that the search began with knows the bend of the drift, but over few slabs part of the wave went into it:
    there it is dropped, elsewhere corrected by a plane through the anchors. Two anchors are too few for either.
    """
    if len(warp.anchors) < 3:
        return warp.slow_nm
    known = warp.slow_nm if len(warp.anchors) > 4 else np.zeros_like(warp.slow_nm)
    at = warp.nominal_nm[warp.anchors]
    middle, half = 0.5 * (at[0] + at[-1]), 0.5 * (at[-1] - at[0])
    t = (warp.t_nm - warp.t_nm.mean()) / max(float(np.ptp(warp.t_nm)), 1e-9)

    def design(s: np.ndarray) -> np.ndarray:
        powers = ((np.clip(s, at[0] - half, at[-1] + half) - middle) / half)[:, None] ** np.arange(2)
        return np.einsum("pi,tj->ptij", powers, np.stack([np.ones_like(t), t], axis=1)).reshape(len(s), len(t), -1)

    of_anchors = design(at)
    found = np.linalg.lstsq(
        of_anchors.reshape(-1, of_anchors.shape[-1]), (slow - known[warp.anchors]).ravel(), rcond=None
    )[0]
    trend: np.ndarray = known + design(warp.nominal_nm) @ found
    return trend


def _spline_design(t_nm: np.ndarray, spacing_nm: float):  # type: ignore[no-untyped-def]
    """Return a function that makes the design matrix of cubic splines over the range of `t_nm`."""
    low, high = float(t_nm[0]) - 1e-6, float(t_nm[-1]) + 1e-6
    n = max(1, int(np.ceil((high - low) / spacing_nm)))
    inner = np.linspace(low, high, n + 1)
    knots = np.concatenate([[low] * 3, inner, [high] * 3])
    return lambda t: BSpline.design_matrix(np.clip(t, low, high), knots, 3).toarray()


def _measure_ratios(
    pixels: Pixels,
    warp: Warp,
    stack: Stack,
    index: np.ndarray,
    distance: np.ndarray,
    intensity: Intensity,
    wanted: Wanted | None,
) -> Warp:
    """One least-squares step for each kind's share of the wave, with the material's as prior."""
    place = np.clip(((pixels.t - warp.t_nm[0]) / warp.step_nm).round().astype(np.intp), 0, len(warp.t_nm) - 1)
    waves = _wave_shift(warp, warp.wave, wanted)[index, place[None, :]]
    pull = (
        intensity.plane_strength(pixels, warp.planes, index)
        * gaussians(distance, warp.sigma_nm)
        * distance
        / warp.sigma_nm**2
    )
    kinds = warp.planes.kind[index]
    others = [kind for kind in range(len(stack.names)) if kind != stack.anchor]
    if not others:
        return warp
    design = np.stack([np.sum(np.where(kinds == kind, pull * waves, 0.0), axis=0) for kind in others], axis=1)
    prior_std = 0.25
    # Columns of the lattice correlate the residuals: count four positions as one, as the slow fit does.
    noise = 4.0 * intensity.noise**2
    normal = design.T @ design + np.eye(len(others)) * noise / prior_std**2
    current = warp.wave_ratio[others]
    step = np.linalg.solve(
        normal, design.T @ intensity.residual - noise / prior_std**2 * (current - stack.wave_ratio[others])
    )
    ratio, std = warp.wave_ratio.copy(), np.zeros(len(stack.names))
    ratio[others] = np.clip(current + step, 0.0, 1.5)
    std[others] = np.sqrt(noise * np.diag(np.linalg.inv(normal)))
    return replace(warp, wave_ratio=ratio, wave_ratio_std=std)
