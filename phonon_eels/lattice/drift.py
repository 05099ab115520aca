"""Slow displacement of the whole stack along c: residual tilt and scale, drift and bending of the scan.

One smooth field for all planes, a polynomial in both coordinates, fitted to the image by Gauss-Newton steps from
a strongly blurred image (which catches shifts of several Å) to a sharp one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre

from phonon_eels.lattice.rows import RowMatch, View, flatten_image, smooth_image, view_along
from phonon_eels.lattice.stack import Stack, periodic_profile

BEND_PRIOR_NM = 0.15  # expected size of the terms beyond the plane; many positions overrule it
MAX_FITTED = 40_000  # positions; a polynomial of ten terms needs no more


@dataclass(frozen=True)
class SlowField:
    """D(s, t) in nm of the scan: a plane of the stack appears at its nominal s plus D.

    Attributes
    ----------
    coefficients
        Legendre coefficients, (order in s, order in t).
    centre_nm, half_nm
        Middle and half width of the fitted region, (s, t).
    """

    coefficients: np.ndarray
    centre_nm: tuple[float, float]
    half_nm: tuple[float, float]

    def at(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return D at coordinates s, t (clipped to the fitted region)."""
        x = np.clip((s - self.centre_nm[0]) / self.half_nm[0], -1.0, 1.0)
        y = np.clip((t - self.centre_nm[1]) / self.half_nm[1], -1.0, 1.0)
        value: np.ndarray = legendre.legval2d(x, y, self.coefficients)
        return value


@dataclass(frozen=True)
class SlowFit:
    """A refined match.

    Attributes
    ----------
    match
        With angle, origin and scale refined, and `explained`, `runner_up` for the straightened image.
    field
        What is left of the displacement.
    scale_std
        Standard deviation of the scale from the fit's own curvature and scatter.
    """

    match: RowMatch
    field: SlowField
    scale_std: float


def fit_slow_field(
    haadf: np.ndarray, rows_nm: np.ndarray, columns_nm: np.ndarray, stack: Stack, match: RowMatch
) -> SlowFit:
    """Refine direction, offset and scale of the stack, then follow drift and bending.

    Parameters
    ----------
    haadf
        Image, (rows, columns); NaN where there is none.
    match
        From `match_rows`.
    """
    flat, finite = flatten_image(haadf)
    steps = tuple(abs(float(np.diff(axis).mean())) if len(axis) > 1 else 1.0 for axis in (rows_nm, columns_nm))
    use = finite.copy()
    stride = int(np.ceil(np.sqrt(finite.size / MAX_FITTED)))
    use[np.arange(use.shape[0]) % stride != 0] = False
    use[:, np.arange(use.shape[1]) % stride != 0] = False
    width = min(match.width_nm, 0.09)
    std = float("nan")
    field = None
    for blur in (0.25, 0.12) if match.width_nm > 0.1 else (0.12,):
        blur = max(blur, 0.6 * max(steps))
        image = smooth_image(flat, finite, (steps[0], steps[1]), blur)
        for _ in range(2):  # tilt and scale change the frame itself
            view = view_along(rows_nm, columns_nm, match.angle_rad)
            plane, std = _fit(image, use, view, stack, match, float(np.hypot(width, blur)), 1, None)
            match = _fold_plane(match, plane, view, columns_first=_b_sign(match.angle_rad) < 0)
        view = view_along(rows_nm, columns_nm, match.angle_rad)
        order = _order(view, stack)
        field, std = _fit(image, use, view, stack, match, float(np.hypot(width, blur)), order, field)
    assert field is not None
    sharp = smooth_image(flat, finite, (steps[0], steps[1]), 0.05 if max(steps) < 0.1 else 0.0)
    field, std = _fit(sharp, use, view, stack, match, float(np.hypot(width, 0.05)), order, field)
    explained, runner_up = _check_profile(sharp, use, view, stack, match, field)
    return SlowFit(replace(match, explained=explained, runner_up=runner_up), field, std)


def _b_sign(angle_rad: float) -> float:
    return 1.0 if abs(np.cos(angle_rad)) >= abs(np.sin(angle_rad)) else -1.0


def _order(view: View, stack: Stack) -> int:
    """Order of the polynomial that the field of view carries."""
    along, across = np.ptp(view.s), np.ptp(view.t)
    if along < 1.2 * stack.repeat_nm or across < 1.0:
        return 1
    return 2 if along < 2.2 * stack.repeat_nm else 3


def _terms(order: int, free_scale: bool) -> list[tuple[int, int]]:
    terms = [(i, j) for i in range(order + 1) for j in range(order + 1) if i + j <= order]
    return terms if free_scale else [term for term in terms if term[0] == 0]


def _fit(
    image: np.ndarray,
    use: np.ndarray,
    view: View,
    stack: Stack,
    match: RowMatch,
    width_nm: float,
    order: int,
    start: SlowField | None,
) -> tuple[SlowField, float]:
    s, t, target = view.s[use], view.t[use], image[use]
    centre = (0.5 * float(s.min() + s.max()), 0.5 * float(t.min() + t.max()))
    half = (max(0.5 * float(np.ptp(s)), 1e-6), max(0.5 * float(np.ptp(t)), 1e-6))
    terms = _terms(order, not match.scale_fixed)
    coefficients = np.zeros((order + 1, order + 1))
    if start is not None:
        n = min(order + 1, start.coefficients.shape[0])
        coefficients[:n, :n] = start.coefficients[:n, :n]
    profile = periodic_profile(stack, width_nm) * match.contrast
    slope = np.gradient(np.concatenate([profile[-2:], profile, profile[:2]]))[2:-2] * (len(profile) / stack.repeat_nm)
    x, y = (s - centre[0]) / half[0], (t - centre[1]) / half[1]
    basis = np.stack([legendre.legval(x, _unit(i)) * legendre.legval(y, _unit(j)) for i, j in terms], axis=1)
    expected = {(0, 0): 0.5, (1, 0): 0.03 * half[0], (0, 1): 0.1 * half[1]}
    priors = np.array([expected.get(term, BEND_PRIOR_NM) for term in terms])
    flat_design = np.stack([np.ones_like(s), x, y], axis=1)
    covariance = np.zeros((len(terms), len(terms)))
    for _ in range(8):
        current = np.array([coefficients[term] for term in terms])
        z = (s - basis @ current - match.origin_nm) / match.scale / stack.repeat_nm % 1.0 * len(profile)
        index = z.astype(np.intp) % len(profile)
        template = profile[index] + (z - np.floor(z)) * (profile[(index + 1) % len(profile)] - profile[index])
        linear = np.concatenate([flat_design, template[:, None]], axis=1)
        strengths = np.linalg.lstsq(linear, target, rcond=None)[0]
        amplitude = max(float(strengths[-1]), 1e-6)
        residual = target - linear @ strengths
        jacobian = -amplitude * (slope[index] / match.scale)[:, None] * basis
        design = np.concatenate([linear, jacobian], axis=1)
        # Blur and lattice columns correlate the residuals: count four positions as one.
        noise = 4.0 * float(np.mean(residual**2))
        normal = design.T @ design
        normal[range(4, normal.shape[0]), range(4, normal.shape[0])] += noise / priors**2
        right = design.T @ residual
        right[4:] -= noise / priors**2 * current
        step = np.linalg.lstsq(normal, right, rcond=None)[0][4:]
        covariance = noise * np.linalg.pinv(normal)[4:, 4:]
        step *= min(1.0, 0.15 / max(float(np.abs(basis @ step).max()), 1e-12))
        for term, change in zip(terms, step, strict=True):
            coefficients[term] += change
        if float(np.abs(step).max()) < 2e-4:
            break
    scale_std = float("nan")
    if (1, 0) in terms:
        place = terms.index((1, 0))
        scale_std = float(np.sqrt(covariance[place, place])) / half[0] * match.scale
    return SlowField(coefficients, centre, half), scale_std


def _unit(order: int) -> np.ndarray:
    vector = np.zeros(order + 1)
    vector[order] = 1.0
    return vector


def _fold_plane(match: RowMatch, field: SlowField, view: View, *, columns_first: bool) -> RowMatch:
    """Put the constant and linear terms of the field into the frame: s' = s - D becomes the new nominal coordinate."""
    c = field.coefficients
    slope_s = float(c[1, 0]) / field.half_nm[0] if c.shape[0] > 1 else 0.0
    slope_t = float(c[0, 1]) / field.half_nm[1] if c.shape[1] > 1 else 0.0
    at_zero = float(c[0, 0]) - slope_s * field.centre_nm[0] - slope_t * field.centre_nm[1]
    # planes: s - D = origin + scale z, so s (1 - slope_s) - slope_t t - at_zero = origin + scale z
    stretch = 1.0 - slope_s
    tilt = np.arctan2(slope_t, stretch)
    norm = float(np.hypot(stretch, slope_t))
    angle = match.angle_rad + (tilt if columns_first else -tilt)
    return replace(
        match, angle_rad=float(angle), origin_nm=(match.origin_nm + at_zero) / norm, scale=match.scale / norm
    )


def _check_profile(
    image: np.ndarray, use: np.ndarray, view: View, stack: Stack, match: RowMatch, field: SlowField
) -> tuple[float, float]:
    """Return the share of the straightened profile that the stack explains, and how much worse the next offset is."""
    straight = view.s[use] - field.at(view.s[use], view.t[use]) - match.origin_nm
    index = ((straight - straight.min()) / 0.03).astype(np.intp)
    number = np.bincount(index).astype(float)
    used = number > 0
    mean = np.bincount(index, weights=image[use])[used] / number[used]
    place = np.bincount(index, weights=straight)[used] / number[used]
    root = np.sqrt(number[used])
    nuisance = np.linalg.qr(np.stack([root, root * place], axis=1))[0]
    target = root * mean
    target = target - nuisance @ (nuisance.T @ target)
    total = float(target @ target)
    shifts = np.arange(-0.5, 0.5, 0.02) * stack.repeat_nm
    best = rival = 0.0
    for width in (0.06, 0.085, 0.12):
        profile = periodic_profile(stack, width)
        phase = (place[None, :] / match.scale - shifts[:, None]) / stack.repeat_nm % 1.0 * len(profile)
        templates = profile[phase.astype(np.intp) % len(profile)] * root[None, :]
        templates = templates - (templates @ nuisance) @ nuisance.T
        overlap = match.contrast * (templates @ target)
        gain = np.sign(overlap) * overlap**2 / np.maximum(np.einsum("ij,ij->i", templates, templates), 1e-12)
        best = max(best, float(gain[np.abs(shifts) < 0.08].max()))
        rival = max(rival, float(gain[np.abs(shifts) > 0.12].max()), float(-gain.min()))
    return best / max(total, 1e-12), (total - rival) / max(total - best, 1e-9 * max(total, 1e-12))
