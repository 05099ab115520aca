"""Brightness of the planes in a dark-field image: background, strengths, width, wedge and lattice columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.lattice.rows import View, flatten_image
from phonon_eels.lattice.stack import Planes, Stack

SIGMA_BOUNDS_NM = (0.025, 0.16)
SIGMA_PRIOR_NM = (0.055, 0.03)
COLUMN_VARIANCE = 0.25
"""Columns of the lattice vary by about half in brightness."""
STRENGTH_PRIOR = 0.3  # relative trust in the strengths from the atomic numbers


@dataclass(frozen=True)
class Pixels:
    """The finite positions of an image, sorted into strips along b.

    Attributes
    ----------
    s, t
        Coordinates along c and b in nm, (positions,).
    value
        Image without its mean plane, in units of its standard deviation.
    order
        Index into the flattened image.
    strip
        Strip of each position.
    edges
        First position of each strip and the end, (strips + 1,).
    bins_nm
        Middle of each strip, evenly spaced.
    """

    s: np.ndarray
    t: np.ndarray
    value: np.ndarray
    order: np.ndarray
    strip: np.ndarray
    edges: np.ndarray
    bins_nm: np.ndarray


@dataclass(frozen=True)
class Intensity:
    """A fitted brightness model; residual and local factors follow the order of `Pixels`.

    Attributes
    ----------
    strengths
        Of each layer kind (contrast sign included), in units of the image's standard deviation.
    sigma_nm
        Gaussian width of the planes.
    wedge
        Growth of the signal over the image at each position, mean about 1.
    columns
        Brightness of each half-slab (`unit_of`) in each strip, mean about 1: the columns of the lattice,
        (units, strips).
    model, residual
        Modelled image and what it leaves.
    noise
        Standard deviation of the residual.
    """

    strengths: np.ndarray
    sigma_nm: float
    wedge: np.ndarray
    columns: np.ndarray
    model: np.ndarray
    residual: np.ndarray
    noise: float

    def plane_strength(self, pixels: Pixels, planes: Planes, index: np.ndarray) -> np.ndarray:
        """Return the strength of the planes in `index` (k, positions) where the positions are; a gap has none."""
        kind = np.append(self.strengths, 0.0)[planes.kind[index]]
        strength: np.ndarray = kind * self.columns[unit_of(planes)[index], pixels.strip[None, :]] * self.wedge
        return strength


def unit_of(planes: Planes) -> np.ndarray:
    """Return a number from 0 for each half-slab of the planes; a middle plane counts to the upper half."""
    unit = 2 * planes.slab + (planes.side >= 0)
    number: np.ndarray = unit - unit.min()
    return number


def gaussians(distance_nm: np.ndarray, sigma_nm: float) -> np.ndarray:
    """Return exp(-d²/2σ²)."""
    value: np.ndarray = np.exp(-0.5 * (distance_nm / sigma_nm) ** 2)
    return value


def gather_pixels(haadf: np.ndarray, view: View) -> Pixels:
    """Sort the finite positions of an image into strips along b, about one scan step wide."""
    flat, finite = flatten_image(haadf)
    where = np.flatnonzero(finite.ravel())
    s, t, value = view.s.ravel()[where], view.t.ravel()[where], flat.ravel()[where]
    width = max(_step(view.t), 0.03)
    low = float(t.min())
    n = max(1, int(np.ceil((float(t.max()) - low) / width + 1e-9 - 0.5)) + 1)
    strip = np.clip(np.rint((t - low) / width).astype(np.intp), 0, n - 1)
    order = np.argsort(strip, kind="stable")
    edges = np.searchsorted(strip[order], np.arange(n + 1))
    return Pixels(s[order], t[order], value[order], where[order], strip[order], edges, low + width * np.arange(n))


def _step(t: np.ndarray) -> float:
    """Scan step along b: the larger change of t from position to position."""
    along_rows = abs(float(t[1, 0] - t[0, 0])) if t.shape[0] > 1 else 0.0
    along_columns = abs(float(t[0, 1] - t[0, 0])) if t.shape[1] > 1 else 0.0
    return max(along_rows, along_columns)


def fit_intensity(
    pixels: Pixels,
    planes: Planes,
    index: np.ndarray,
    distance: np.ndarray,
    stack: Stack,
    sigma_nm: float,
    contrast: float,
    before: Intensity | None,
) -> Intensity:
    """Fit the brightness model for planes at given distances.

    Parameters
    ----------
    index, distance
        Nearest planes and distance to them in nm, (k, positions).
    before
        Model of the round before, if any.
    """
    kinds = planes.kind[index]
    units = unit_of(planes)[index]
    shape = gaussians(distance, sigma_nm)
    ramp = _ramps(pixels)
    n_strips, n_units = len(pixels.edges) - 1, int(units.max()) + 1
    wedge = np.ones(len(pixels.s)) if before is None else before.wedge
    columns = np.ones((n_units, n_strips)) if before is None else before.columns
    strengths = stack.weights * contrast if before is None else before.strengths
    noise = 1.0 if before is None else before.noise
    for _ in range(2):
        column = columns[units, pixels.strip[None, :]]
        plane = np.append(strengths, 0.0)[kinds] * shape
        wedge = _fit_wedge(pixels.value, ramp, (plane * column).sum(axis=0))
        columns = _fit_columns(pixels, ramp, plane * wedge, units, columns, noise)
        local = shape * columns[units, pixels.strip[None, :]] * wedge
        parts = [np.where(kinds == kind, local, 0.0).sum(axis=0) for kind in range(len(stack.names))]
        wider = (np.append(strengths, 0.0)[kinds] * local * distance**2).sum(axis=0) / sigma_nm**3
        design = np.concatenate([ramp, np.stack([*parts, wider], axis=1)], axis=1)
        expected = stack.weights * float(np.abs(strengths[stack.anchor])) * contrast
        strengths, new_sigma, background = _solve(design, ramp.shape[1], pixels.value, expected, sigma_nm, noise)
        model = background + strengths @ np.stack(parts)
        residual = pixels.value - model
        noise = max(float(np.sqrt(np.mean(residual**2))), 1e-6)
    return Intensity(strengths, new_sigma, wedge, columns, model, residual, noise)


def _ramps(pixels: Pixels) -> np.ndarray:
    def scaled(x: np.ndarray) -> np.ndarray:
        half = 0.5 * float(np.ptp(x))
        return (x - 0.5 * float(x.max() + x.min())) / half if half > 0.0 else np.zeros_like(x)

    x, y = scaled(pixels.s), scaled(pixels.t)
    return np.stack([np.ones_like(x), x, y], axis=1)


def _fit_wedge(value: np.ndarray, ramp: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Linear growth of the signal over the image (thickness), at most by half either way."""
    design = np.concatenate([ramp, ramp * signal[:, None]], axis=1)
    found = np.linalg.lstsq(design, value, rcond=None)[0][3:]
    if found[0] <= 0.0:
        return np.ones_like(value)
    slope = np.clip(found[1:] / found[0], -0.5, 0.5)
    return np.asarray(1.0 + ramp[:, 1:] @ slope)


def _fit_columns(
    pixels: Pixels, ramp: np.ndarray, signal: np.ndarray, units: np.ndarray, columns: np.ndarray, noise: float
) -> np.ndarray:
    """Brightness of each half-slab in each strip: lattice columns, bunched by the wave, or their moiré."""
    n_strips = columns.shape[1]
    cell = units * n_strips + pixels.strip[None, :]
    factor = columns.ravel().copy()
    for _ in range(2):  # neighbours across a gap overlap a little
        total = (signal * factor[cell]).sum(axis=0)
        amplitude = np.linalg.lstsq(np.concatenate([ramp, total[:, None]], axis=1), pixels.value, rcond=None)[0]
        gain = max(float(amplitude[3]), 1e-6)
        left = pixels.value - ramp @ amplitude[:3] - gain * total
        xx = np.bincount(cell.ravel(), weights=(gain * signal).ravel() ** 2, minlength=len(factor))
        xr = np.bincount(cell.ravel(), weights=(gain * signal * left).ravel(), minlength=len(factor))
        pull = noise**2 / COLUMN_VARIANCE
        factor = np.clip(factor + (xr - pull * (factor - 1.0)) / (xx + pull), 0.0, 3.0)
        mean = float(np.sum(factor * xx) / max(float(xx.sum()), 1e-12))
        factor = factor / max(mean, 0.1)
    return factor.reshape(columns.shape)


def _solve(
    design: np.ndarray, n_background: int, value: np.ndarray, expected: np.ndarray, sigma_nm: float, noise: float
) -> tuple[np.ndarray, float, np.ndarray]:
    """Strengths and width by ridge regression towards the material's strengths and a usual probe."""
    n_kinds = len(expected)
    prior_mean = np.concatenate([np.zeros(n_background), expected, [SIGMA_PRIOR_NM[0] - sigma_nm]])
    spread = STRENGTH_PRIOR * np.abs(expected) + 0.03 * float(np.abs(expected).max())
    # The strongest kind sets the scale and is free.
    spread[int(np.argmax(np.abs(expected)))] = 1e3 * float(np.abs(expected).max())
    spreads = np.append(spread, SIGMA_PRIOR_NM[1])
    penalty = np.concatenate([np.zeros(n_background), 4.0 * noise**2 / spreads**2])
    normal = design.T @ design + np.diag(penalty + 1e-12)
    found = np.linalg.solve(normal, design.T @ value + penalty * prior_mean)
    new = found[n_background : n_background + n_kinds]
    width = float(np.clip(sigma_nm + np.clip(found[-1], -0.01, 0.01), *SIGMA_BOUNDS_NM))
    sign = np.sign(expected[int(np.argmax(np.abs(expected)))])
    new = np.where(new * sign < 0.0, 0.0, new)
    return new, width, np.asarray(design[:, :n_background] @ found[:n_background])
