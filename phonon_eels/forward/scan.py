"""Run the forward model over all positions of a spectrum image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from phonon_eels.backends.base import Backend, Progress
from phonon_eels.backends.spectra import NO_CHANNEL, fit_block
from phonon_eels.errors import DataError
from phonon_eels.forward.model import ForwardModel
from phonon_eels.kernels.forward import N_LOCAL, N_SHAPE
from phonon_eels.kernels.likelihood import NO_DATA
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
        Of the modes' energies and widths with everything else marginalised: (rows, columns, 2M), (…, 2M, 2M), (…, M, 2M); or None.
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
    lower, upper = model.bounds()
    precision = model.prior_precision(energy_prior_std_mev)
    mean = model.prior_mean(prior_energies_mev)
    lags, background = model.lags, model.background
    gain, dark = electrons(image)
    reference = model.reference
    if alignment.frames is not None:
        if backend.name == "cuda":
            raise DataError(
                "sums of frames at their own zero-loss origins are fitted on the processor only: use device cpu, or "
                "register_frames.fast_path=true"
            )
        shape = np.broadcast_to(reference[:N_SHAPE], (rows, columns, N_SHAPE))
        reference = np.concatenate([shape, alignment.frames], axis=2)
    fitted = np.broadcast_to(np.asarray(free_energies), (rows, columns, modes))
    common = np.broadcast_to(model.free(False), (rows, columns, n_params))
    free = np.concatenate([common[..., : N_LOCAL + modes], fitted, np.zeros_like(fitted)], axis=2).astype(np.int8)

    def fit_rows(
        first_row: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None
    ) -> list[np.ndarray]:
        n = counts.shape[0] * columns
        here = slice(first_row, first_row + counts.shape[0])
        params = np.array(start[here], dtype=float).reshape(n, n_params)
        params[:, 1] = alignment.shift_mev[here].ravel()
        std, outcome = np.empty((n, n_params)), np.empty((n, 7))
        status = np.empty(n, np.int64)
        kept = n if profile else 0
        score, information = np.empty((kept, 2 * modes)), np.empty((kept, 2 * modes, 2 * modes))
        slope = np.empty((kept, modes, 2 * modes))
        ends = np.empty((0 if profile_below is None else n, modes, 4))
        kinds = np.empty((0 if profile_below is None else n, modes), np.int64)
        backend.run(
            fit_block, _flat(counts, float), _flat(bad, bool), _flat(variance, float), alignment.channel[here].ravel(), gain, dark,
            model.shift_e, lags, model.likelihood, model.first_channel, model.energies_mev, model.dispersion_mev,
            _own(reference, here), background.rows, background.code, model.factor, model.tables.values, model.tables.first_node_mev, model.tables.node_step_mev, free[here].reshape(n, n_params), lower, upper,
            np.ascontiguousarray(np.broadcast_to(mean, (n, n_params))), precision, max_iterations, params, std, outcome, status,
            score, information, slope, profile_below or 0.0, SHOWN_SIGMA, ends, kinds,
        )  # fmt: skip
        status[~alignment.found[here].ravel()] = NO_ZERO_LOSS
        return [params, std, outcome, status, ends, kinds, score, information, slope]

    parts = backend.map_rows(fit_rows, [image.counts, image.bad, image.variance], progress=progress)
    whole = [np.concatenate([part[k] for part in parts]) for k in range(9)]
    shaped = [array.reshape(rows, columns, *array.shape[1:]) if array.size else None for array in whole]
    params, std, outcome, status = whole[0], whole[1], whole[2], whole[3]
    params, std, outcome, status = (a.reshape(rows, columns, *a.shape[1:]) for a in (params, std, outcome, status))
    params[status == NO_DATA] = np.nan
    o = outcome
    return ScanFit(
        params, std, o[..., 0], o[..., 1], o[..., 2], o[..., 3], o[..., 4], o[..., 5], o[..., 6], status.astype(np.int16),
        score=shaped[6], information=shaped[7], area_slope=shaped[8], intervals=shaped[4],
        interval_kind=None if shaped[5] is None else shaped[5].astype(np.int16),
    )  # fmt: skip


def _own(reference: np.ndarray, here: slice) -> np.ndarray:
    """The reference of a block of rows, (positions, …), where each position has one of its own."""
    return reference if reference.ndim == 1 else np.ascontiguousarray(reference[here]).reshape(-1, reference.shape[2])


def _flat(block: np.ndarray | None, kind: type) -> np.ndarray:
    if block is None:
        return np.empty((0, 0), dtype=kind)
    return np.ascontiguousarray(block, dtype=kind).reshape(-1, block.shape[-1])


def aligned_sums(
    image: SpectrumImage,
    alignment: Alignment,
    first_channel: int,
    n_channels: int,
    weights: np.ndarray,
    backend: Backend,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum spectra over positions with weights, each moved by whole channels to its zero-loss channel.

    Parameters
    ----------
    weights
        (groups, rows, columns) of non-negative or signed weights.

    Returns
    -------
    sums, squares
        (groups, channels) weighted sums of electrons, and the sums of weights² · electrons' variance.
        Sums are formed per row and added in row order, so blocks and threads leave no trace.
        A channel missing at a position (spike, axis end) takes the row's mean of that channel, weighted alike.
    """
    gain, dark = electrons(image)
    shift_e = 0.0 if image.variance is not None else image.noise.read_noise_e**2

    def sum_rows(
        first_row: int, counts: np.ndarray, bad: np.ndarray | None, variance: np.ndarray | None
    ) -> list[np.ndarray]:
        results = []
        for r in range(counts.shape[0]):
            row = first_row + r
            z, var = np.full((2, counts.shape[1], n_channels), np.nan)
            for c in range(counts.shape[1]):
                zero = alignment.channel[row, c]
                if zero == NO_CHANNEL:
                    continue
                low = zero + first_channel
                inside = slice(max(low, 0), min(low + n_channels, counts.shape[2]))
                if inside.stop <= inside.start:
                    continue
                target = slice(inside.start - low, inside.stop - low)
                z[c, target] = (counts[r, c, inside] - dark) / gain
                if variance is not None:
                    var[c, target] = variance[r, c, inside]
                if bad is not None:
                    z[c, target][bad[r, c, inside]] = np.nan
            results.append(_weighted(z, var if variance is not None else None, weights[:, row], shift_e))
        return results

    parts = [
        row
        for block in backend.map_rows(sum_rows, [image.counts, image.bad, image.variance], progress=progress)
        for row in block
    ]
    stacked = np.stack(parts)  # (rows, 2, groups, channels)
    total = np.zeros(stacked.shape[1:])
    for row in stacked:
        total += row
    return total[0], total[1]


def _weighted(z: np.ndarray, var: np.ndarray | None, weights: np.ndarray, shift_e: float) -> np.ndarray:
    usable = np.isfinite(z)
    present = usable.any(axis=1)
    counted = np.where(usable, z, 0.0)
    n_usable = usable.sum(axis=0)
    mean = np.divide(counted.sum(axis=0), n_usable, out=np.zeros(z.shape[1]), where=n_usable > 0)
    filled = np.where(usable, counted, mean) * present[:, None]
    variance = np.where(usable, counted, mean) + shift_e if var is None else np.where(np.isfinite(var), var, 0.0)
    return np.stack([weights @ filled, (weights**2) @ (np.maximum(variance, 0.0) * present[:, None])])
