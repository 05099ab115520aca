"""Fit the zero-loss peak at every position of a scan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.backends.base import Backend, Progress
from phonon_eels.backends.zero_loss import find_peaks_block, score_block
from phonon_eels.errors import DataError
from phonon_eels.forward.background import make_background
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit, electrons, fit_scan
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, NO_DATA
from phonon_eels.kernels.lineshapes import split_pearson7, split_pearson7_area
from phonon_eels.kernels.response import ModeTables, ZeroLossShape
from phonon_eels.kernels.zero_loss import FOUND
from phonon_eels.kernels.zero_loss_tables import score_tables
from phonon_eels.spectrum_image import SpectrumImage

GAUSSIAN_TAIL = 30.0
"""A Pearson VII with this exponent is a Gaussian for every purpose here."""
MIN_HALF_CHANNELS = 4
NARROW_CHANNELS = 4.0
"""Below this FWHM the width of a channel can no longer be left out of the first guess."""


@dataclass(frozen=True)
class PeakSearch:
    """Fast start: channel, half-height width in channels and height of each position's highest peak; NaN where none."""

    channel: np.ndarray
    fwhm_channels: np.ndarray
    height: np.ndarray
    at_edge: np.ndarray

    def without(self, positions: np.ndarray) -> PeakSearch:
        """Return the search with nothing found where `positions` is True, (rows, columns)."""

        def kept(values: np.ndarray) -> np.ndarray:
            return np.asarray(np.where(positions, np.nan, values))

        return PeakSearch(kept(self.channel), kept(self.fwhm_channels), kept(self.height), self.at_edge & ~positions)


def search_peaks(
    image: SpectrumImage, channels: slice, backend: Backend, progress: Progress | None = None
) -> PeakSearch:
    """Find the highest peak of every spectrum within a range of channels."""
    dark = electrons(image)[1]

    def search(first_row: int, counts: np.ndarray, bad: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        rows, columns, n = counts.shape
        flat = np.ascontiguousarray(counts, dtype=float).reshape(-1, n)
        if (
            bad is not None
        ):  # the median of a channel and its neighbours must not take what is masked for one of the three
            flat = np.where(np.asarray(bad, dtype=bool).reshape(-1, n), np.nan, flat)
        mask = np.empty((0, 0), bool)
        out = np.full((rows * columns, 3), np.nan)
        status = np.empty(rows * columns, np.int64)
        backend.run(find_peaks_block, flat, mask, channels.start, channels.stop, 1, dark, out, status)
        return out.reshape(rows, columns, 3), status.reshape(rows, columns)

    parts = backend.map_rows(search, [image.counts, image.bad], progress=progress)
    found = np.concatenate([part[0] for part in parts])
    status = np.concatenate([part[1] for part in parts])
    found[status != 0] = np.nan
    return PeakSearch(found[..., 0], found[..., 1], found[..., 2], status == 2)


def zero_loss_model(
    shape: ZeroLossShape, half_width_mev: float, dispersion_mev: float, shift_e: float, gaussian: bool, poisson: bool,
    noise_correlation: float = 1.0,
) -> ForwardModel:  # fmt: skip
    """Return the model of the zero-loss peak alone, in a window around it."""
    half = max(round(half_width_mev / dispersion_mev), MIN_HALF_CHANNELS)
    channels = np.arange(-half, half + 1)
    none = ModeTables(np.zeros((0, 5, 4, 1, channels.size + 12)), np.zeros(0), 1.0)
    if gaussian:
        shape = replace(shape, tail_loss=GAUSSIAN_TAIL, tail_gain=GAUSSIAN_TAIL)
    return ForwardModel(
        first_channel=-half, energies_mev=channels * dispersion_mev, dispersion_mev=dispersion_mev, zero_loss=shape,
        tables=none, mode_names=(), mode_energies_mev=np.zeros(0), bounds_mev=np.zeros((0, 2)), fwhm_mev=np.zeros(0),
        free_local=np.array([1, 1, 1, not gaussian, not gaussian, 0, 0, 0], dtype=np.int8),
        log_width_std=1.0, log_tail_std=0.3, poisson=poisson, shift_e=shift_e,
        background=make_background("none", channels * dispersion_mev, shape.fwhm_mev, None),
        noise_correlation=noise_correlation,
    )  # fmt: skip


def estimate_shape(image: SpectrumImage, search: PeakSearch, backend: Backend) -> ZeroLossShape:
    """Estimate the scan-wide zero-loss shape from the mean of all spectra, moved by whole channels.

    Raises
    ------
    DataError
        If no position has a peak.
    """
    dispersion = image.energy.dispersion_mev
    width = float(np.nanmedian(search.fwhm_channels)) if np.isfinite(search.fwhm_channels).any() else np.nan
    if not np.isfinite(width):
        raise DataError(
            f"no zero-loss peak was found between {image.energy.offset_mev:g} and {image.energy.last_mev:g} meV; "
            "check the energy axis, or give align_zlp.search_window_mev"
        )
    alignment = Alignment.from_center(image.energy.offset_mev + dispersion * search.channel, image)
    half = max(int(np.ceil(2.5 * width)), MIN_HALF_CHANNELS)
    weights = alignment.found.astype(float)[None]
    total, _ = aligned_sums(image, alignment, -half, 2 * half + 1, weights, backend)
    mean = total[0] / max(weights.sum(), 1.0)
    energies = dispersion * np.arange(-half, half + 1)
    fwhm = _half_height_width(energies, mean)
    if fwhm < NARROW_CHANNELS * dispersion:
        return _narrow_shape(energies, mean, fwhm)

    def misfit(log_tails: np.ndarray) -> float:
        trial = split_pearson7(energies, fwhm, *np.exp(log_tails))
        inside = np.abs(energies) < 1.5 * fwhm
        scale = trial[inside] @ mean[inside] / (trial[inside] @ trial[inside])
        return float((((mean - scale * trial)[inside]) ** 2).sum())

    grid = np.log(np.array([1.0, 1.3, 1.6, 1.9, 2.3, 3.0, 5.0]))
    best = min(((misfit(np.array([a, b])), a, b) for a in grid for b in grid), key=lambda item: item[0])
    return ZeroLossShape(fwhm, float(np.exp(best[1])), float(np.exp(best[2])))


def _narrow_shape(energies: np.ndarray, mean: np.ndarray, seen_fwhm_mev: float) -> ZeroLossShape:
    """Shape of a peak few channels wide, which a channel and the alignment by whole channels have each smeared by one."""
    from scipy.optimize import least_squares  # few peaks are that narrow

    dispersion = energies[1] - energies[0]
    places = np.arange(-0.9, 1.0, 0.2)
    weights = 1.0 - np.abs(places)
    weights /= weights.sum()

    def misfit(x: np.ndarray) -> np.ndarray:
        trial = sum(
            weight * split_pearson7(energies - x[0] - place * dispersion, *np.exp(x[1:]))
            for weight, place in zip(weights, places, strict=True)
        )
        return np.asarray(mean - trial * (trial @ mean) / (trial @ trial)) / mean.max()

    start = [0.0, np.log(0.8 * seen_fwhm_mev), np.log(1.8), np.log(1.8)]
    low = [-dispersion, np.log(0.2 * seen_fwhm_mev), *np.log([1.0, 1.0])]
    high = [dispersion, np.log(1.1 * seen_fwhm_mev), *np.log([5.0, 5.0])]
    found = least_squares(misfit, start, bounds=(low, high), x_scale=[dispersion, 1.0, 1.0, 1.0]).x
    return ZeroLossShape(*map(float, np.exp(found[1:])))


def _half_height_width(energies: np.ndarray, mean: np.ndarray) -> float:
    top = int(np.argmax(mean))
    half = 0.5 * mean[top]
    edges = []
    for direction in (-1, 1):
        i = top
        while 0 < i < mean.size - 1 and mean[i] > half:
            i += direction
        before, here = mean[i - direction], mean[i]
        step = 1.0 if before <= half else (before - half) / max(before - here, 1e-300)
        edges.append(energies[i - direction] + direction * step * (energies[1] - energies[0]))
    return float(edges[1] - edges[0])


def fit_zero_loss(
    image: SpectrumImage,
    search: PeakSearch,
    shape: ZeroLossShape,
    half_width_fwhm: float,
    gaussian: bool,
    backend: Backend,
    progress: Progress | None = None,
    frames: np.ndarray | None = None,
) -> tuple[ForwardModel, Alignment, ScanFit]:
    """Fit centre, FWHM and both tails at every position by maximum likelihood.

    The tails keep a weak prior (30 % of the exponent) around the scan's own, since the core alone tells little of them.
    `frames` are those of `Alignment`.
    """
    dispersion = image.energy.dispersion_mev
    alignment = Alignment.from_center(image.energy.offset_mev + dispersion * search.channel, image)
    alignment = replace(alignment, frames=frames)
    shift_e = image.noise.read_noise_e**2
    half_width = half_width_fwhm * shape.fwhm_mev
    model = zero_loss_model(
        shape, half_width, dispersion, shift_e, gaussian, image.variance is None, image.noise.noise_correlation
    )
    gain = electrons(image)[0]
    starts = np.zeros((*image.shape[:2], model.n_params))
    starts[..., 0] = np.nan_to_num(search.height) / gain
    fit = fit_scan(image, model, alignment, starts, backend, free_energies=False, progress=progress)
    return model, alignment, fit


def refined_shape(
    image: SpectrumImage,
    search: PeakSearch,
    shape: ZeroLossShape,
    half_width_fwhm: float,
    gaussian: bool,
    backend: Backend,
) -> ZeroLossShape:
    """Return the shape that the single peaks of a scan have in the median, starting from a guess.

    The mean spectrum of a scan is a guess that peaks cut off by saturation, or aligned badly for want of counts, spoil.
    """
    for _ in range(SHAPE_PASSES):
        fit = fit_zero_loss(image, search, shape, half_width_fwhm, gaussian, backend)[2]
        usable = fit.params[np.isin(fit.status, (CONVERGED, AT_BOUND))]
        if not usable.size:
            return shape
        changes = np.median(usable[:, 2:5], axis=0)
        shape = shape.changed(*(float(change) for change in changes))
    return shape


SHAPE_PASSES = 3
LOG_TAIL_STD = 0.3
"""Prior deviation of the logarithm of a tail's exponent about the scan's own."""


def score_zero_loss(
    image: SpectrumImage,
    channels: slice,
    shape: ZeroLossShape,
    height_e: float,
    half_width_fwhm: float,
    backend: Backend,
    progress: Progress | None = None,
) -> ScanFit:
    """Estimate height, centre and shape at every position by moments and one step of scoring (`score_peak`).

    Parameters
    ----------
    channels
        Where the peak may be.
    height_e
        Typical height in electrons, for the weight of the read noise.

    Returns
    -------
    ScanFit
        Parameters in the order of the zero-loss model; the second is the centre as a *channel number times the dispersion*,
        counted from channel 0. Neither background nor goodness of fit is estimated (NaN).
    """
    dispersion = image.energy.dispersion_mev
    gain, dark = electrons(image)
    half = max(round(half_width_fwhm * shape.fwhm_mev / dispersion), MIN_HALF_CHANNELS)
    shift = image.noise.read_noise_e**2 / max(height_e, 1e-9)
    tables = score_tables(shape.fwhm_mev / dispersion, shape.tail_loss, shape.tail_gain, half, shift)
    precision = np.array([0.0, 0.0, LOG_TAIL_STD**-2, LOG_TAIL_STD**-2])

    def score(_: int, counts: np.ndarray, bad: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        rows, columns, n = counts.shape
        flat = np.ascontiguousarray(counts, dtype=counts.dtype.newbyteorder("=")).reshape(-1, n)
        mask = np.empty((0, 0), bool) if bad is None else np.ascontiguousarray(bad, dtype=bool).reshape(-1, n)
        out, status = np.empty((rows * columns, 9)), np.empty(rows * columns, np.int64)
        backend.run(
            score_block, flat, mask, channels.start, channels.stop, gain, dark, *tables, shift, precision, out, status
        )
        return out.reshape(rows, columns, 9), status.reshape(rows, columns)

    parts = backend.map_rows(score, [image.counts, image.bad], progress=progress)
    out = np.concatenate([part[0] for part in parts])
    found = np.concatenate([part[1] for part in parts]) == FOUND
    params, std = np.full((*found.shape, N_LOCAL), np.nan), np.full((*found.shape, N_LOCAL), np.nan)
    out[..., 1] *= dispersion
    out[..., 5] *= dispersion
    params[..., :5], std[..., 1:5] = out[..., :5], out[..., 5:]
    std[..., 0] = np.sqrt(
        np.maximum(out[..., 0], 0.0) / (half * 0.5)
    )  # of a plateau of half the window: an upper bound
    unknown = np.full(found.shape, np.nan)
    n_channels = np.full(found.shape, 2 * half + 1)
    status = np.where(found, CONVERGED, NO_DATA)
    return ScanFit(
        params, std, unknown, unknown, n_channels, np.ones(found.shape, dtype=int), unknown, unknown, unknown, status
    )  # fmt: skip


def saturation_seen(image: SpectrumImage, backend: Backend) -> float | None:
    """Return the count at which spectra are cut off, None if they are not: the scan's highest value, thrice in many spectra.

    A peak of counted electrons hardly ever has its highest value in three channels, and not the same one elsewhere.
    """

    def tops(_: int, counts: np.ndarray) -> np.ndarray:
        flat = np.asarray(counts).reshape(-1, counts.shape[2])
        top = np.nanmax(np.where(np.isfinite(flat), flat, -np.inf), axis=1)
        return np.stack([top, (flat == top[:, None]).sum(axis=1)])

    top, number = np.concatenate(backend.map_rows(tops, [image.counts]), axis=1)
    highest = float(top.max())
    cut = (top == highest) & (number >= FLAT_CHANNELS)
    enough = max(FLAT_POSITIONS, 0.002 * top.size)
    return highest if highest > 100.0 and np.count_nonzero(cut) >= min(enough, top.size) else None


FLAT_CHANNELS, FLAT_POSITIONS = 3, 3


def without_saturated(image: SpectrumImage, level: float | None, backend: Backend) -> SpectrumImage:
    """Return the image with channels at and above a level masked, and every masked run of three or more grown by one.

    The next channel is one that just missed the level: leaving it in would keep it only where noise held it low. Saturated
    channels that were masked before (`acquisition.saturation_counts`) are such runs too.
    """

    def mask(counts: np.ndarray, bad: np.ndarray | None) -> np.ndarray:
        cut = np.zeros(counts.shape, dtype=bool) if bad is None else np.array(bad, dtype=bool)
        if level is not None:
            cut |= np.asarray(counts) >= level
        inner = cut[..., :-2] & cut[..., 1:-1] & cut[..., 2:]
        cut[..., 3:] |= inner[..., :-1]
        cut[..., :-3] |= inner[..., 1:]
        return cut

    return image.with_(bad=backend.map_cube(mask, [image.counts, image.bad], dtype=bool))


def counts_in_peak(
    fit: ScanFit, shape: ZeroLossShape, dispersion_mev: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return FWHM (meV), area (electrons) and the area's standard deviation at every position.

    The deviation is that of the height and the width; their correlation (about -0.6 in the core) is not used, so it is
    an upper bound.
    """
    height, log_width, log_loss, log_gain = (fit.params[..., k] for k in (0, 2, 3, 4))
    fwhm = shape.fwhm_mev * np.exp(log_width)
    area = np.zeros_like(fwhm)
    for log_tail, reference in ((log_loss, shape.tail_loss), (log_gain, shape.tail_gain)):
        tail = np.maximum(reference * np.exp(log_tail), 0.55)
        area += 0.5 * fwhm * _unit_half_area(tail)
    area *= height / dispersion_mev
    relative = np.hypot(fit.std[..., 0] / height, fit.std[..., 2])
    return fwhm, area, np.abs(area) * relative


def _unit_half_area(tail: np.ndarray) -> np.ndarray:
    """Area of one side of a unit-height, unit-FWHM Pearson VII, times two."""
    reference = np.array([split_pearson7_area(1.0, float(t), float(t)) for t in _AREA_TAILS])
    return np.asarray(np.interp(np.log(tail), np.log(_AREA_TAILS), reference))


_AREA_TAILS = np.exp(np.linspace(np.log(0.55), np.log(60.0), 400))
