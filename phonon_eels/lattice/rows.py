"""Where the layers lie in a dark-field image: direction of c, offset and scale of the stack.

The image is projected onto many directions and every profile is matched with the known stack of planes at
every offset, a few scales and widths. A profile match needs no whole period in view, unlike a power spectrum,
and it knows the phases between the harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from phonon_eels.lattice.stack import Stack, periodic_profile

TILT_RAD = np.deg2rad(20.0)
SCALES = (0.95, 1.05)
BIN_NM = 0.04
MATCHED_NM = 10.0
WIDTHS_NM = (0.07, 0.11, 0.16, 0.26)  # Gaussian widths on top of the blur; superstructure and drift widen the profile
CONTRAST_SIGNS = {"auto": (1.0, -1.0), "bright": (1.0,), "dark": (-1.0,)}


@dataclass(frozen=True)
class View:
    """Scan positions in a frame along c and b; all arrays (rows, columns), in nm of the scan.

    Attributes
    ----------
    angle_rad
        From the direction of increasing row towards that of increasing column, of the direction of increasing c.
    s, t
        Coordinates along c and along b, from the middle of the scan.
    """

    angle_rad: float
    s: np.ndarray
    t: np.ndarray


@dataclass(frozen=True)
class RowMatch:
    """The stack in the image, all lengths in nm of the scan.

    Attributes
    ----------
    angle_rad
        Direction of c, see `View`.
    origin_nm
        s of a van der Waals gap.
    scale
        Scan nm per crystal nm along c.
    scale_fixed
        True where too little of c is in view to measure the scale.
    width_nm
        Gaussian width of the planes in the image, the superstructure's smear included.
    contrast
        +1 where heavy layers are bright, -1 where dark.
    explained
        Share of the variance of the mean profile along c that the stack explains.
    runner_up
        Misfit of the next best offset over that of the best one (large: no doubt which layer is which).
    significance
        Amplitude over its standard error between strips across the image.
    extent_nm
        Length of the field of view along c.
    """

    angle_rad: float
    origin_nm: float
    scale: float
    scale_fixed: bool
    width_nm: float
    contrast: float
    explained: float
    runner_up: float
    significance: float
    extent_nm: float


def view_along(rows_nm: np.ndarray, columns_nm: np.ndarray, angle_rad: float) -> View:
    """Return the coordinates of all scan positions along c and b for a direction of c.

    Parameters
    ----------
    rows_nm, columns_nm
        Positions of the rows and columns of the scan.
    """
    x = rows_nm - rows_nm.mean()
    y = columns_nm - columns_nm.mean()
    along = (np.cos(angle_rad), np.sin(angle_rad))
    # b points towards increasing columns (c near the rows' direction) or increasing rows (c near the columns')
    sign = 1.0 if abs(along[0]) >= abs(along[1]) else -1.0
    across = (-sign * along[1], sign * along[0])
    return View(
        angle_rad,
        along[0] * x[:, None] + along[1] * y[None, :],
        across[0] * x[:, None] + across[1] * y[None, :],
    )


def flatten_image(haadf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image without its mean plane, in units of its standard deviation, and where it is finite.

    Positions that are not finite hold 0 and False.
    """
    finite = np.isfinite(haadf)
    i, j = np.mgrid[0 : haadf.shape[0], 0 : haadf.shape[1]]
    design = np.stack([np.ones(haadf.size), i.ravel() - i.mean(), j.ravel() - j.mean()], axis=1)
    keep = finite.ravel()
    values = np.where(finite, haadf, 0.0).astype(float)
    coefficients = np.linalg.lstsq(design[keep], values.ravel()[keep], rcond=None)[0]
    flat = np.where(finite, values - (design @ coefficients).reshape(haadf.shape), 0.0)
    spread = float(np.sqrt(np.mean(flat[finite] ** 2))) if finite.any() else 0.0
    rounding = 1e-10 * float(np.abs(values).max(initial=0.0))
    return (flat / spread if spread > rounding else np.zeros_like(flat)), finite


def smooth_image(flat: np.ndarray, finite: np.ndarray, steps_nm: tuple[float, float], sigma_nm: float) -> np.ndarray:
    """Return the image smoothed with a Gaussian of `sigma_nm`, positions that are not finite left out."""
    if sigma_nm <= 0.0:
        return flat
    sigma = (sigma_nm / steps_nm[0], sigma_nm / steps_nm[1])
    share = gaussian_filter(finite.astype(float), sigma, mode="constant")
    total = gaussian_filter(np.where(finite, flat, 0.0), sigma, mode="constant")
    return np.where(finite, total / np.maximum(share, 1e-3), 0.0)


def match_rows(
    haadf: np.ndarray,
    rows_nm: np.ndarray,
    columns_nm: np.ndarray,
    stack: Stack,
    *,
    c_direction: str = "auto",
    contrast: str = "auto",
) -> RowMatch | None:
    """Find the stack of layers in a dark-field image.

    Parameters
    ----------
    haadf
        Image, (rows, columns); NaN where there is none.
    rows_nm, columns_nm
        Positions of the rows and columns of the scan.
    c_direction
        "rows": c runs from row to row, "columns": from column to column, "auto": find out. Tilts up to 20° are
        searched either way.
    contrast
        "bright", "dark" or "auto".

    Returns
    -------
    The best match, good or bad (its figures tell), or None if the image has no contrast at all or is too small along c.
    """
    flat, finite = flatten_image(haadf)
    if finite.sum() < 16 or not flat.any():
        return None
    inner = tuple(_middle(axis) for axis in (rows_nm, columns_nm))
    flat, finite = flat[inner], finite[inner]
    rows_nm, columns_nm = rows_nm[inner[0]], columns_nm[inner[1]]
    if finite.sum() < 16 or not flat.any():
        return None
    steps = tuple(abs(float(np.diff(axis).mean())) if len(axis) > 1 else 1.0 for axis in (rows_nm, columns_nm))
    blur = 0.05 if max(steps) < 0.1 else 0.0
    image = smooth_image(flat, finite, (steps[0], steps[1]), blur)
    stride = tuple(max(1, int(0.06 / step)) for step in steps)
    image, mask = image[:: stride[0], :: stride[1]], finite[:: stride[0], :: stride[1]]
    rows, columns = rows_nm[:: stride[0]], columns_nm[:: stride[1]]
    best: tuple[float, _Candidate] | None = None
    half = 0.5 * float(np.hypot(np.ptp(rows), np.ptp(columns)))
    bank = _template_bank(stack, half, blur)
    for angle in _angles(rows, columns, c_direction):
        view = view_along(rows, columns, angle)
        if np.ptp(view.s[mask]) < 0.45 * stack.repeat_nm:
            continue
        found = _match_profile(image, mask, view, stack, bank, CONTRAST_SIGNS[contrast])
        if found is not None and (best is None or found.gain > best[0]):
            best = (found.gain, found)
    if best is None:
        return None
    found = best[1]
    view = view_along(rows, columns, found.angle_rad)
    significance = _strip_significance(image, mask, view, stack, found)
    return RowMatch(
        found.angle_rad,
        found.origin_nm,
        found.scale,
        found.scale_fixed,
        found.width_nm,
        found.contrast,
        found.explained,
        found.runner_up,
        significance,
        float(np.ptp(view.s[mask])),
    )


def _middle(axis_nm: np.ndarray) -> slice:
    """The middle `MATCHED_NM` of an axis: a first match needs no more, the slow field follows outwards from it."""
    n = len(axis_nm)
    step = abs(float(axis_nm[1] - axis_nm[0])) if n > 1 else 1.0
    cut = max(0, (n - max(int(MATCHED_NM / step), 16)) // 2)
    return slice(cut, n - cut)


@dataclass(frozen=True)
class _Candidate:
    gain: float
    angle_rad: float
    origin_nm: float
    scale: float
    scale_fixed: bool
    width_nm: float
    contrast: float
    explained: float
    runner_up: float
    blur_nm: float


def _angles(rows: np.ndarray, columns: np.ndarray, c_direction: str) -> list[float]:
    """Directions to try: within 20° of either axis, so close that a row shifts by less than a third of its width."""
    angles: list[float] = []
    for name, centre, across in (("rows", 0.0, np.ptp(columns)), ("columns", 0.5 * np.pi, np.ptp(rows))):
        if c_direction not in ("auto", name):
            continue
        step = float(np.clip(0.08 / max(across, 1e-9), 0.004, np.deg2rad(4.0)))
        half = int(np.ceil(TILT_RAD / step))
        angles += [centre + step * k for k in range(-half, half + 1)]
    return angles


@dataclass(frozen=True)
class _Bank:
    """Profiles of the stack at all trial scales, widths and offsets on one grid along s."""

    low_nm: float
    centres_nm: np.ndarray
    scales: np.ndarray
    offsets_nm: np.ndarray
    templates: np.ndarray  # (scales, widths, offsets, bins)
    blur_nm: float


def _template_bank(stack: Stack, half_nm: float, blur_nm: float) -> _Bank:
    n_bins = int(np.ceil(2.0 * half_nm / BIN_NM)) + 2
    low = -BIN_NM * (n_bins // 2)
    centres = low + BIN_NM * (np.arange(n_bins) + 0.5)
    steps = max(1, int(np.ceil((SCALES[1] - 1.0) / (0.12 / max(2.0 * half_nm, 1.0)))))
    scales = np.linspace(*SCALES, 2 * steps + 1)
    offsets = np.arange(0.0, stack.repeat_nm, 0.04)
    templates = np.empty((len(scales), len(WIDTHS_NM), len(offsets), n_bins), dtype=np.float32)
    for w, width in enumerate(WIDTHS_NM):
        profile = periodic_profile(stack, float(np.hypot(width, blur_nm))).astype(np.float32)
        for k, scale in enumerate(scales):
            phase = (centres[None, :] / scale - offsets[:, None]) / stack.repeat_nm % 1.0 * len(profile)
            templates[k, w] = profile[phase.astype(np.intp) % len(profile)]
    return _Bank(low, centres, scales, offsets, templates, blur_nm)


def _match_profile(
    image: np.ndarray, mask: np.ndarray, view: View, stack: Stack, bank: _Bank, signs: tuple[float, ...]
) -> _Candidate | None:
    index = ((view.s[mask] - bank.low_nm) / BIN_NM).astype(np.intp)
    number = np.bincount(index, minlength=len(bank.centres_nm)).astype(float)
    used = number > 0
    if used.sum() < 6:
        return None
    mean = np.bincount(index, weights=image[mask], minlength=len(number))[used] / number[used]
    extent = float(np.ptp(view.s[mask]))
    scale_fixed = extent < 1.2 * stack.repeat_nm
    chosen = slice(len(bank.scales) // 2, len(bank.scales) // 2 + 1) if scale_fixed else slice(None)
    scales, offsets = bank.scales[chosen], bank.offsets_nm
    root = np.sqrt(number[used])
    nuisance = np.linalg.qr(np.stack([root, root * bank.centres_nm[used]], axis=1))[0]
    target = root * mean
    target = target - nuisance @ (nuisance.T @ target)
    total = float(target @ target)
    if total <= 0.0:
        return None
    templates = (bank.templates[chosen][..., used] * root.astype(np.float32)).reshape(-1, int(used.sum()))
    inside = templates @ nuisance.astype(np.float32)
    norm = np.einsum("ij,ij->i", templates, templates) - np.einsum("ij,ij->i", inside, inside)
    overlap = (templates @ target.astype(np.float32)).astype(float)
    gains = (np.sign(overlap) * overlap**2 / np.maximum(norm, 1e-12)).reshape(len(scales), len(WIDTHS_NM), len(offsets))
    signed = gains[..., None] * np.array(signs)
    k, w, o, which = (int(i) for i in np.unravel_index(int(np.argmax(signed)), signed.shape))
    gain = float(signed[k, w, o, which])
    if gain <= 0.0:
        return None
    apart = np.abs((offsets - offsets[o] + 0.5 * stack.repeat_nm) % stack.repeat_nm - 0.5 * stack.repeat_nm)
    others = float(np.delete(signed, which, axis=-1).max(initial=0.0))
    rival = max(float(signed[:, :, apart > 0.12, which].max()), others)
    return _Candidate(
        gain,
        view.angle_rad,
        float(offsets[o] * scales[k]),
        float(scales[k]),
        scale_fixed,
        WIDTHS_NM[w],
        signs[which],
        gain / total,
        (total - rival) / max(total - gain, 1e-9 * total),
        bank.blur_nm,
    )


def _strip_significance(image: np.ndarray, mask: np.ndarray, view: View, stack: Stack, found: _Candidate) -> float:
    """Amplitude of the stack over its standard error, from strips across the image: noise alone gives about 1 to 4."""
    profile = periodic_profile(stack, float(np.hypot(found.width_nm, found.blur_nm)))
    phase = (view.s / found.scale - found.origin_nm / found.scale) / stack.repeat_nm % 1.0
    template = found.contrast * profile[(phase * len(profile)).astype(np.intp) % len(profile)]
    t = view.t[mask]
    n_strips = int(np.clip(np.ptp(t) / 0.5, 1, 24))
    if n_strips < 3:
        return float("nan")
    edges = np.linspace(t.min(), t.max(), n_strips + 1)
    which = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, n_strips - 1)
    amplitudes = []
    for strip in range(n_strips):
        use = which == strip
        if use.sum() < 8:
            continue
        design = np.stack([np.ones(use.sum()), view.s[mask][use], template[mask][use]], axis=1)
        amplitudes.append(float(np.linalg.lstsq(design, image[mask][use], rcond=None)[0][2]))
    values = np.array(amplitudes)
    if len(values) < 3:
        return float("nan")
    return float(values.mean() / max(values.std(ddof=1) / np.sqrt(len(values)), 1e-12))
