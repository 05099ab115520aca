"""Spikes on the zero-loss peak: what leaves a fit of that very peak, once the scan's common misfit is taken off.

On the steep peak neither the neighbouring channels nor the neighbouring positions tell what a channel should hold: a shift of
a hundredth of a channel is worth many standard deviations. The peak's own fit does. A channel is suspected where it stands
out of the fit, and condemned where it stands out of a fit made without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.forward.information import model_at
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit, electrons
from phonon_eels.forward.zero_loss import PeakSearch, estimate_shape, fit_zero_loss, search_peaks
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import ScanAxis, SpectrumImage

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend
    from phonon_eels.kernels.response import ZeroLossShape

HALF_WIDTH_FWHM = 2.75
"""Half width of the fitted window; beyond it the tests of `remove_spikes` find what there is."""
SUSPECT_SIGMA = 3.3
"""Standard deviations of a residual that are looked at again without the channel."""
MIN_LEFT = 0.15
"""A channel that the fit follows by more than 85 % cannot be judged by it."""
SAMPLE = 4000
"""Positions that the common misfit and the scatter are measured on."""
MIN_POSITIONS = 16
ROUNDS = 3


@dataclass(frozen=True)
class PeakSpikes:
    """Condemned channels as lists: place, detector counts found, electrons expected there."""

    row: np.ndarray
    column: np.ndarray
    channel: np.ndarray
    counts: np.ndarray
    expected_e: np.ndarray


@dataclass(frozen=True)
class _Judge:
    """The model, and for every channel of its window the common misfit, the scatter and what a fit leaves of a spike."""

    model: ForwardModel
    shape: ZeroLossShape
    misfit: np.ndarray
    scatter: np.ndarray
    left: np.ndarray

    def expected(self, params: np.ndarray) -> np.ndarray:
        """Electrons in the window, (positions, channels)."""
        return peak_counts(self.model, params) * (1.0 + self.misfit)


@dataclass(frozen=True)
class _Suspects:
    """Channels to be looked at, and the window around each zero-loss peak: whole spectra of a large scan would fill the memory.

    Attributes
    ----------
    row, column, channel
        (positions,) place.
    low
        (positions,) channel of the axis that the window begins at.
    counts, bad
        (positions, channels) of the window; NaN and True beyond the axis.
    """

    row: np.ndarray
    column: np.ndarray
    channel: np.ndarray
    low: np.ndarray
    counts: np.ndarray
    bad: np.ndarray

    def next(self, kept: np.ndarray, channel: np.ndarray) -> _Suspects:
        """Return other channels of some of the positions."""
        return _Suspects(self.row[kept], self.column[kept], channel, self.low[kept], self.counts[kept], self.bad[kept])


def spikes_on_peak(image: SpectrumImage, untouched: np.ndarray, level: float, backend: Backend) -> PeakSpikes:
    """Find spikes within 2.75 FWHM of the zero-loss peak.

    Parameters
    ----------
    image
        Counts after the spikes elsewhere were repaired and marked in `bad`.
    untouched
        Channels that are not to be judged, (channels,) of bool.
    level
        Standard deviations that condemn.

    Returns
    -------
    PeakSpikes
        Empty where there is no zero-loss peak, or are too few positions to know the misfit common to all.
    """
    none = np.empty(0, dtype=np.int64)
    nothing = PeakSpikes(none, none, none, np.empty(0), np.empty(0))
    search = search_peaks(image, slice(0, image.energy.n_channels), backend)
    if image.masked is not None:
        search = search.without(image.masked)
    try:
        shape = estimate_shape(image, search, backend)
    except DataError:
        return nothing
    model, alignment, fit = fit_zero_loss(image, search, shape, HALF_WIDTH_FWHM, False, backend)
    judge = _judge(image, model, shape, alignment, fit)
    if judge is None:
        return nothing
    found: list[tuple[np.ndarray, ...]] = []
    suspects = _suspects(image, judge, alignment, fit, untouched, backend)
    for _ in range(ROUNDS):
        if not suspects.row.size:
            break
        guilty, suspects = _without(image, judge, search, suspects, untouched, level, backend)
        found.append(guilty)
    return PeakSpikes(*(np.concatenate(part) for part in zip(*found, strict=True))) if found else nothing


def peak_counts(model: ForwardModel, params: np.ndarray) -> np.ndarray:
    """Return the zero-loss peaks of many fits, (positions, channels), averaged over channels as the fit has them."""
    assert model.zero_loss is not None
    reference, half = model.zero_loss, model.dispersion_mev / (2.0 * np.sqrt(3.0))
    height, shift, width, loss, gain = (params[:, k, None] for k in range(5))
    fwhm = reference.fwhm_mev * np.exp(width)
    tails = reference.tail_loss * np.exp(loss), reference.tail_gain * np.exp(gain)
    peaks = [split_pearson7(model.energies_mev - shift + away, fwhm, *tails) for away in (-half, half)]
    return np.asarray(0.5 * height * (peaks[0] + peaks[1]))


def _judge(
    image: SpectrumImage, model: ForwardModel, shape: ZeroLossShape, alignment: Alignment, fit: ScanFit
) -> _Judge | None:
    """Measure misfit and scatter on a sample of the positions; None where there are too few."""
    good = np.flatnonzero(np.isin(fit.status, (CONVERGED, AT_BOUND)).ravel())
    if good.size < MIN_POSITIONS:
        return None
    chosen = good[np.unique(np.linspace(0, good.size - 1, min(good.size, SAMPLE)).astype(int))]
    rows, columns = np.unravel_index(chosen, image.shape[:2])
    used = np.unique(rows)[:: max(np.unique(rows).size // 64, 1)]  # whole rows are read
    kept = np.isin(rows, used)
    rows, columns = rows[kept], columns[kept]
    windows = []
    for row in used:
        line = np.asarray(image.counts[int(row)])
        windows += [_window(line[c], alignment.channel[row, c], model) for c in columns[rows == row]]
    z = _electrons(np.stack(windows), image)
    expected = peak_counts(model, fit.params[rows, columns])
    with np.errstate(invalid="ignore", divide="ignore"):
        misfit = np.nan_to_num(np.nanmedian(z / np.maximum(expected, 1e-9) - 1.0, axis=0))
    misfit = np.where(np.median(expected, axis=0) > 20.0, np.clip(misfit, -0.5, 2.0), 0.0)
    typical = np.median(fit.params[rows, columns], axis=0)
    left = _left(model, typical)
    sigmas = deviance_sigmas(z, expected * (1.0 + misfit), image.noise.read_noise_e**2) / np.sqrt(left)
    finite = np.where(np.isfinite(sigmas), sigmas, 0.0)
    middle = np.median(np.abs(finite), axis=0) * 1.4826
    far = np.quantile(finite, 0.95, axis=0) / 1.645  # spikes are rarer than that
    least = image.noise.noise_correlation**-0.5  # channels that share noise are quieter than counting makes them
    return _Judge(model, shape, misfit, np.maximum(np.maximum(middle, far), least), left)


def _left(model: ForwardModel, params: np.ndarray) -> np.ndarray:
    """Share of a channel's deviation that the fit does not follow: one less the leverage, (channels,)."""
    values, jacobian = model_at(model, params)
    weight = 1.0 / np.maximum(values + model.shift_e, 1e-3)
    free = np.flatnonzero(model.free(False))
    rows = jacobian[free]
    fisher = (rows * weight) @ rows.T + np.diag(model.prior_precision()[free])
    return np.asarray(np.clip(1.0 - weight * np.einsum("ac,ac->c", rows, np.linalg.solve(fisher, rows)), 1e-3, 1.0))


def deviance_sigmas(z: np.ndarray, expected: np.ndarray, read_variance_e: float) -> np.ndarray:
    """Return deviations from expectations in standard deviations (`kernels.expectations.deviance_sigma`), any shape."""
    x, m = np.maximum(z + read_variance_e, 0.0), np.maximum(expected + read_variance_e, 1e-9)
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.where(x > 0.0, x * np.log(x / m), 0.0)
    return np.asarray(np.sign(x - m) * np.sqrt(np.maximum(2.0 * (log - (x - m)), 0.0)))


def _window(spectrum: np.ndarray, zero: int, model: ForwardModel) -> np.ndarray:
    """Counts in the window of one spectrum; NaN beyond the axis."""
    channels = int(zero) + model.first_channel + np.arange(model.energies_mev.size)
    inside = (channels >= 0) & (channels < spectrum.size)
    return np.where(inside, spectrum[np.clip(channels, 0, spectrum.size - 1)], np.nan)


def _electrons(counts: np.ndarray, image: SpectrumImage) -> np.ndarray:
    gain, dark = electrons(image)
    return (counts - dark) / gain


def _outstanding(judge: _Judge, z: np.ndarray, params: np.ndarray, read_variance_e: float) -> np.ndarray:
    """Residuals of fits in standard deviations of what is left of one, (positions, channels)."""
    sigmas = deviance_sigmas(z, judge.expected(params), read_variance_e) / (judge.scatter * np.sqrt(judge.left))
    return np.where(np.isfinite(sigmas) & (judge.left > MIN_LEFT), sigmas, 0.0)


def _suspects(
    image: SpectrumImage, judge: _Judge, alignment: Alignment, fit: ScanFit, untouched: np.ndarray, backend: Backend
) -> _Suspects:
    """Find the most outstanding channel of every position that has one."""
    read = image.noise.read_noise_e**2
    usable = np.isin(fit.status, (CONVERGED, AT_BOUND))
    n = judge.model.energies_mev.size

    def block(first: int, counts: np.ndarray, bad: np.ndarray | None) -> tuple[np.ndarray, ...]:
        rows, columns = np.nonzero(usable[first : first + counts.shape[0]])
        low = alignment.channel[rows + first, columns] + judge.model.first_channel
        zero = alignment.channel[rows + first, columns]
        pairs = list(zip(rows, columns, zero, strict=True))
        window = np.stack([_window(counts[r, c], at, judge.model) for r, c, at in pairs]) if pairs else np.empty((0, n))
        channels = np.clip(low[:, None] + np.arange(n), 0, counts.shape[2] - 1)
        known = np.isnan(window)
        if bad is not None:
            known |= bad[rows[:, None], columns[:, None], channels]
        sigmas = _outstanding(judge, _electrons(window, image), fit.params[rows + first, columns], read)
        sigmas[untouched[channels] | known] = 0.0
        worst = sigmas.argmax(axis=1)
        hit = np.take_along_axis(sigmas, worst[:, None], axis=1)[:, 0] > SUSPECT_SIGMA
        return rows[hit] + first, columns[hit], (low + worst)[hit], low[hit], window[hit], known[hit]

    parts = backend.map_rows(block, [image.counts, image.bad])
    return _Suspects(*(np.concatenate([part[k] for part in parts]) for k in range(6)))


def _without(
    image: SpectrumImage,
    judge: _Judge,
    search: PeakSearch,
    suspects: _Suspects,
    untouched: np.ndarray,
    level: float,
    backend: Backend,
) -> tuple[tuple[np.ndarray, ...], _Suspects]:
    """Fit the suspected positions without the channel; return the condemned ones (as `PeakSpikes`) and the next suspects."""
    row, column, channel, low = suspects.row, suspects.column, suspects.channel, suspects.low
    own = np.clip(channel - low, 0, judge.model.energies_mev.size - 1)
    at = np.arange(row.size), own
    bad = suspects.bad.copy()
    bad[at] = True
    part = _as_column(image, suspects.counts, bad)
    taken = PeakSearch(
        *(
            np.asarray(values)[row, column][:, None]
            for values in (search.channel, search.fwhm_channels, search.height, search.at_edge)
        )
    )
    taken = replace(taken, channel=taken.channel - low[:, None])
    _, _, fit = fit_zero_loss(part, taken, judge.shape, HALF_WIDTH_FWHM, False, backend)
    ended = np.isin(fit.status, (CONVERGED, AT_BOUND))[:, 0]
    expected = judge.expected(fit.params[:, 0])
    z = _electrons(suspects.counts, image)
    read = image.noise.read_noise_e**2
    # The prediction of a left-out channel is uncertain: 1/(1 - leverage) of the channel's own variance in all.
    sigma = deviance_sigmas(z[at], expected[at], read) * np.sqrt(judge.left[own]) / judge.scatter[own]
    guilty = ended & (sigma > level)
    again = _outstanding(judge, z, fit.params[:, 0], read)
    channels = np.clip(low[:, None] + np.arange(z.shape[1]), 0, image.energy.n_channels - 1)
    again[untouched[channels] | bad] = 0.0
    worst = again.argmax(axis=1)
    more = guilty & (np.take_along_axis(again, worst[:, None], axis=1)[:, 0] > SUSPECT_SIGMA)
    following = replace(suspects, bad=bad).next(more, (low + worst)[more])
    return (
        row[guilty], column[guilty], channel[guilty], suspects.counts[at][guilty], expected[at][guilty]
    ), following  # fmt: skip


def _as_column(image: SpectrumImage, windows: np.ndarray, bad: np.ndarray) -> SpectrumImage:
    """The windows of some positions as a scan of one column, in memory."""
    scan = (ScanAxis("row", image.scan[0].step_nm, len(windows)), ScanAxis("column", image.scan[1].step_nm, 1))
    return image.with_(
        counts=np.nan_to_num(windows)[:, None], bad=bad[:, None], scan=scan, energy=replace(image.energy, n_channels=windows.shape[1]),
        haadf=None, haadf_frames=None, frames=None, halves=None, regions=None,
    )  # fmt: skip
