"""Run the forward model over all positions of a spectrum image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np

from phonon_eels.backends.base import Backend, Progress
from phonon_eels.backends.spectra import NO_CHANNEL, fit_block
from phonon_eels.errors import DataError
from phonon_eels.forward.model import ForwardModel
from phonon_eels.kernels.forward import N_LOCAL, N_SHAPE
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, NO_DATA
from phonon_eels.spectrum_image import SpectrumImage

NO_ZERO_LOSS = 5
SHOWN_SIGMA = 3.0
"""A mode whose area is below this many standard deviations has no energy at that position."""
INTERVAL_MEANINGS = ("none", "fisher", "profile", "open", "unsteady")
"""Kinds of interval by number: no energy there; energy ± deviations; profile likelihood; one that ends at a bound of the
energy; one on which a second minimum lies, then the bounds themselves."""
STATUS_MEANINGS = ("converged", "max_iterations", "singular", "no_data", "at_bound", "no_zero_loss")
"""Meaning of each status of a fitted position, by number."""


@dataclass(frozen=True)
class Alignment:
    """Where the zero-loss peak of each position lies.

    Attributes
    ----------
    channel
        Channel nearest to the peak, (rows, columns); `NO_CHANNEL` where there is none, and off the axis where it was cut off.
    shift_mev
        Peak from the centre of that channel.
    frames
        Where the peaks of the frames lay that were added there, (rows, columns, 4) of `forward.frames` in meV; None for one frame.
    """

    channel: np.ndarray
    shift_mev: np.ndarray
    frames: np.ndarray | None = None

    @classmethod
    def from_center(cls, center_mev: np.ndarray, image: SpectrumImage) -> Alignment:
        """Make it from a map of zero-loss centres; NaN means none."""
        fractional = (center_mev - image.energy.offset_mev) / image.energy.dispersion_mev
        nearest = np.floor(np.nan_to_num(fractional, nan=-1.0) + 0.5)
        found = np.isfinite(center_mev) & (nearest >= 0) & (nearest < image.energy.n_channels)
        channel = np.where(found, nearest, NO_CHANNEL).astype(np.int64)
        shift = np.where(found, (fractional - nearest) * image.energy.dispersion_mev, 0.0)
        return cls(channel, shift)

    @classmethod
    def at_zero(cls, image: SpectrumImage) -> Alignment:
        """Make it for an image whose zero-loss peaks have been brought to 0 meV."""
        fractional = image.energy.channel(0.0)
        nearest = int(np.floor(fractional + 0.5))
        shift = (fractional - nearest) * image.energy.dispersion_mev
        return cls(np.full(image.shape[:2], nearest, dtype=np.int64), np.full(image.shape[:2], shift))

    @property
    def found(self) -> np.ndarray:
        """Where there is a zero-loss peak, (rows, columns)."""
        return np.asarray(self.channel != NO_CHANNEL)


@dataclass(frozen=True)
class ScanFit:
    """Estimates at every position.

    Attributes
    ----------
    params, std
        (rows, columns, parameters) in the order of `kernels.forward`; NaN where there is none.
    objective, pearson_chi2, n_channels, iterations
        (rows, columns).
    chi2_mean, chi2_variance, chi2_taken
        What the noise alone lets Pearson's chi-squared be, and what the fit takes from its mean, (rows, columns).
    intervals, interval_kind
        (rows, columns, modes, 4) ends of the modes' energies at 68 % and at 95 %, and (rows, columns, modes) kinds as
        `INTERVAL_MEANINGS`; or None.
    status
        (rows, columns), see `STATUS_MEANINGS`.
    score, information, area_slope
        Of the modes' energies and widths with everything else marginalised: (rows, columns, 2M), (…, 2M, 2M), (…, M, 2M); or of
        the energies alone, (rows, columns, M), (…, M, M), (…, M, M); or None.
    sums
        (rows, …) what a caller summed up of each row while everything was at hand (`fit_scan(reduce=…)`); or None.
    """

    params: np.ndarray
    std: np.ndarray
    objective: np.ndarray
    pearson_chi2: np.ndarray
    n_channels: np.ndarray
    iterations: np.ndarray
    chi2_mean: np.ndarray
    chi2_variance: np.ndarray
    chi2_taken: np.ndarray
    status: np.ndarray
    score: np.ndarray | None = None
    information: np.ndarray | None = None
    area_slope: np.ndarray | None = None
    intervals: np.ndarray | None = None
    interval_kind: np.ndarray | None = None
    sums: np.ndarray | None = None

    def of_energies(self) -> ScanFit:
        """Return the fit with score, information and slopes of the energies alone: a quarter of their memory."""
        assert self.score is not None
        assert self.information is not None
        assert self.area_slope is not None
        m = slice(self.n_modes)
        return replace(
            self,
            score=self.score[..., m].copy(),
            information=self.information[..., m, m].copy(),
            area_slope=self.area_slope[..., m].copy(),
        )

    def without_intervals(self) -> ScanFit:
        """Return the fit without the intervals, a third of its memory."""
        return replace(self, intervals=None, interval_kind=None)

    def at(self, rows: slice) -> ScanFit:
        """Return some rows of it, as views."""
        arrays: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        arrays.update({name: array[rows] for name, array in arrays.items() if array is not None})
        return ScanFit(**arrays)

    def replaced(self, where: np.ndarray, other: ScanFit) -> ScanFit:
        """Return the fit with the positions `where`, (rows, columns), taken from another."""
        parts: dict[str, np.ndarray] = {}
        for part in fields(self):
            mine, theirs = getattr(self, part.name), getattr(other, part.name)
            if mine is not None and theirs is not None:
                own = where.reshape(*where.shape, *[1] * (mine.ndim - 2))
                parts[part.name] = np.where(own, theirs, mine)
        return replace(self, **parts)

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return (self.params.shape[2] - N_LOCAL) // 3

    def areas(self, values: np.ndarray | None = None) -> np.ndarray:
        """Return areas (or, given `std`, their deviations), (rows, columns, modes)."""
        return (self.params if values is None else values)[:, :, N_LOCAL : N_LOCAL + self.n_modes]

    def energies(self, values: np.ndarray | None = None) -> np.ndarray:
        """Return energies (or, given `std`, their deviations), (rows, columns, modes)."""
        first = N_LOCAL + self.n_modes
        return (self.params if values is None else values)[:, :, first : first + self.n_modes]


Reduce = Callable[[slice, ScanFit], ScanFit]
"""Makes less of a block of rows: called with the rows and their fit."""


def without_slopes(here: slice, fit: ScanFit) -> ScanFit:
    """Let go of the areas' slopes, a third of a profile, where only scores are asked for."""
    return replace(fit, area_slope=None)


def electrons(image: SpectrumImage) -> tuple[float, float]:
    """Return gain and dark level that turn the image's numbers into electrons; images with a variance are in electrons already."""
    return (1.0, 0.0) if image.variance is not None else (image.noise.gain, image.noise.dark_level)


def fit_scan(
    image: SpectrumImage,
    model: ForwardModel,
    alignment: Alignment,
    starts: np.ndarray,
    backend: Backend,
    *,
    free_energies: bool | np.ndarray,
    energy_prior_std_mev: np.ndarray | None = None,
    prior_energies_mev: np.ndarray | None = None,
    profile: bool = False,
    profile_below: float | None = None,
    max_iterations: int = 40,
    progress: Progress | None = None,
    reduce: Reduce | None = None,
    retry_starts: Callable[[slice], np.ndarray] | None = None,
) -> ScanFit:
    """Fit every position.

    Parameters
    ----------
    starts
        Starting parameters, (parameters,) or (rows, columns, parameters).
    free_energies
        Fit the modes' energies per position; otherwise they stay at their starts. One bool, or (rows, columns, modes).
    energy_prior_std_mev, prior_energies_mev
        (modes,) prior on the energies, infinite deviation for none; its centre defaults to the model's energies.
    profile
        Also return score and information of energies and widths.
    profile_below
        Also return intervals of the energies, by profile likelihood where an area is below this many of its deviations;
        None for none.
    reduce
        What to keep of each block of rows, applied where the block was fitted: all of a profile takes 2 kB a position.
    retry_starts
        Gives starts, (rows, columns, parameters), of rows: positions that end badly are tried once more from there, with three
        times the iterations.

    Raises
    ------
    DataError
        If denoised spectra are to be fitted as counts.
    """
    if model.poisson and image.noise.denoised:
        raise DataError(
            "the spectra were denoised, which correlates their noise: they cannot be fitted as counts; give the raw ones, "
            "or fit them on the classic route, where denoising carries a variance"
        )
    rows, columns = image.shape[:2]
    n_params, modes = model.n_params, model.n_modes
    start = np.broadcast_to(starts, (rows, columns, n_params))
    (lower, upper), precision = model.bounds(), model.prior_precision(energy_prior_std_mev)
    mean = model.prior_mean(prior_energies_mev)
    lags, background, (gain, dark) = model.lags, model.background, electrons(image)
    reference = zero_loss_references(model, alignment)
    free = _free(model, np.asarray(free_energies), (rows, columns))

    def fit_rows(first_row: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None) -> ScanFit:
        n = counts.shape[0] * columns
        here = slice(first_row, first_row + counts.shape[0])
        data = (flat_block(counts, float), flat_block(bad, bool), flat_block(variance, float))

        def fit_from(starts: np.ndarray, channel: np.ndarray, iterations: int) -> ScanFit:
            params = np.array(starts, dtype=float).reshape(n, n_params)
            params[:, 1] = alignment.shift_mev[here].ravel()
            std, outcome, status = np.empty((n, n_params)), np.empty((n, 7)), np.empty(n, np.int64)
            kept, told = n if profile else 0, n if profile_below is not None else 0
            score, information = np.empty((kept, 2 * modes)), np.empty((kept, 2 * modes, 2 * modes))
            slope = np.empty((kept, modes, 2 * modes))
            ends, kinds = np.empty((told, modes, 4)), np.empty((told, modes), np.int64)
            own_free = _hold(model, free[here].reshape(n, n_params), params, ends[:0], kinds[:0])
            backend.run(
                fit_block, *data, channel.ravel(), gain, dark,
                model.shift_e, lags, model.likelihood, model.first_channel, model.energies_mev, model.dispersion_mev,
                own_reference(reference, here), background.rows, background.code, model.factor, model.tables.values, model.tables.first_node_mev, model.tables.node_step_mev, own_free, lower, upper,
                np.ascontiguousarray(np.broadcast_to(mean, (n, n_params))), precision, iterations, params, std, outcome, status,
                score, information, slope, profile_below or 0.0, SHOWN_SIGMA, ends, kinds,
            )  # fmt: skip
            _hold(model, own_free, params, ends, kinds)
            status[~alignment.found[here].ravel()] = NO_ZERO_LOSS
            params[status == NO_DATA] = np.nan
            flat = [
                params,
                std,
                *outcome.T,
                status.astype(np.int16),
                score,
                information,
                slope,
                ends,
                kinds.astype(np.int16),
            ]
            shaped = [a.reshape(-1, columns, *a.shape[1:]) if a.size else None for a in flat]
            return ScanFit(*cast("list[np.ndarray]", shaped))

        fit = fit_from(start[here], alignment.channel[here], max_iterations)
        again = ~np.isin(fit.status, (CONVERGED, AT_BOUND, NO_ZERO_LOSS))
        if retry_starts is not None and again.any():
            channel = np.where(again, alignment.channel[here], NO_CHANNEL)
            second = fit_from(retry_starts(here), channel, 3 * max_iterations)
            fit = fit.replaced(again & np.isin(second.status, (CONVERGED, AT_BOUND)), second)
        return fit if reduce is None else reduce(here, fit)

    whole = _Whole(rows)
    backend.map_rows(fit_rows, [image.counts, image.bad, image.variance], progress=progress, take=whole.take)
    return whole.fit()


def zero_loss_references(model: ForwardModel, alignment: Alignment) -> np.ndarray:
    """Return the model's zero-loss reference, or one for each position where frames were added at their own origins."""
    if alignment.frames is None:
        return model.reference
    shape = np.broadcast_to(model.reference[:N_SHAPE], (*alignment.channel.shape, N_SHAPE))
    return np.concatenate([shape, alignment.frames], axis=2)


def _free(model: ForwardModel, free_energies: np.ndarray, scan: tuple[int, int]) -> np.ndarray:
    """Return which parameters are fitted where, (rows, columns, parameters)."""
    return model.free_where(np.broadcast_to(free_energies, (*scan, model.n_modes)))


def _hold(model: ForwardModel, free: np.ndarray, params: np.ndarray, ends: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Set energies that follow another one, and their intervals, to the last bit where that one is fitted; return `free`.

    `free` and `params` are (positions, parameters), `ends` and `kinds` intervals of (positions or none, modes).
    """
    first = N_LOCAL + model.n_modes
    if model.recipe is None:
        return free
    for mode in model.recipe.followers:
        own, where = int(model.recipe.owner[mode]), free[:, first + mode] < 0
        distance = model.recipe.offset_mev[mode]
        params[where, first + mode] = params[where, first + own] + distance
        if len(ends):
            ends[where, mode], kinds[where, mode] = ends[where, own] + distance, kinds[where, own]
    return free


class _Whole:
    """A scan's fit, filled block by block as they come, so that nothing is held twice."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._arrays: dict[str, Any] = {}

    def take(self, first_row: int, block: ScanFit) -> None:
        """Write a block of rows."""
        for part in fields(block):
            array = getattr(block, part.name)
            if array is not None:
                if part.name not in self._arrays:
                    self._arrays[part.name] = np.empty((self._rows, *array.shape[1:]), array.dtype)
                self._arrays[part.name][first_row : first_row + len(array)] = array

    def fit(self) -> ScanFit:
        """Return the whole."""
        return ScanFit(**self._arrays)


def own_reference(reference: np.ndarray, here: slice) -> np.ndarray:
    """Return the reference of a block of rows, (positions, …) where each position has one of its own."""
    return reference if reference.ndim == 1 else np.ascontiguousarray(reference[here]).reshape(-1, reference.shape[2])


def flat_block(block: np.ndarray | None, kind: type) -> np.ndarray:
    """Return the spectra of a block of rows, (positions, channels), or (0, 0) for None."""
    if block is None:
        return np.empty((0, 0), dtype=kind)
    return np.ascontiguousarray(block, dtype=kind).reshape(-1, block.shape[-1])
