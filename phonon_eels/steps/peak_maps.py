"""Maps of `fit_peaks`: energies, areas, their deviations and bounds, intervals, and what can be told where."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.binned import BIN_STATUS, binned_energies
from phonon_eels.forward.information import CramerRao, centroid_bound, cramer_rao
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import INTERVAL_MEANINGS, SHOWN_SIGMA, ScanFit

MODE_STATUS = ("ok", "prior_dominated", "vanished", "failed", "energy_fixed")
"""The last: the mode is seen, at an energy that the recipe holds and that has no deviation."""
IDENTIFIABILITY = ("identifiable", "centroid only", "not identifiable", "failed")
INTERVAL_ENDS = ("low68", "high68", "low95", "high95")
TOLD_SHARE = 0.5
"""An energy is told if its bound is below this share of what is known beforehand."""
STRIP_ROWS = 64
SPLIT_SIGMA = 2.0
"""Two modes of a pair are told apart where their splitting is this many of its bounds."""

Values = dict[str, tuple[np.ndarray, str]]


@dataclass(frozen=True)
class PeakMaps:
    """What `fit_peaks` says of every position.

    Attributes
    ----------
    values
        Name → (array, unit); arrays are (rows, columns) or (modes, rows, columns).
    flags
        Name → (numbers, their words); numbers are (modes, rows, columns).
    mode_status, identifiability
        (modes, rows, columns), numbers of `MODE_STATUS` and `IDENTIFIABILITY`.
    energy_bound_mev
        (modes, rows, columns) Cramér-Rao bounds, infinite where the data say nothing.
    """

    values: Values
    flags: dict[str, tuple[np.ndarray, tuple[str, ...]]]
    mode_status: np.ndarray
    identifiability: np.ndarray
    energy_bound_mev: np.ndarray


def _modes_first(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 2, 0)


def peak_maps(
    fit: ScanFit,
    held: ScanFit,
    model: ForwardModel,
    material: Material,
    good: np.ndarray,
    prior_std_mev: np.ndarray,
) -> PeakMaps:
    """Collect the maps.

    Parameters
    ----------
    fit, held
        The fit with free energies, and the one with energies held that kept its information.
    good
        Where the fit converged, (rows, columns).
    prior_std_mev
        (modes,) prior deviations that the energies had in the fit, infinite for none.
    """
    # In strips of rows, because the covariances of all positions at once would take more memory than the maps.
    whole: dict[str, np.ndarray] = {}
    for low in range(0, len(good), STRIP_ROWS):
        own = slice(low, low + STRIP_ROWS)
        strip = _maps_of(fit.at(own), held.at(own), model, material, good[own], prior_std_mev)
        found = {name: array for name, (array, _) in (*strip.values.items(), *strip.flags.items())}
        for name, array in (*found.items(), (_BOUND, strip.energy_bound_mev)):
            if name not in whole:
                whole[name] = np.empty((*array.shape[:-2], *good.shape), array.dtype)
            whole[name][..., own, :] = array
    values = {name: (whole[name], unit) for name, (_, unit) in strip.values.items()}
    flags = {name: (whole[name], words) for name, (_, words) in strip.flags.items()}
    return PeakMaps(values, flags, whole["mode_status"], whole["identifiability"], whole[_BOUND])


_BOUND = "bound"


def _maps_of(
    fit: ScanFit, held: ScanFit, model: ForwardModel, material: Material, good: np.ndarray, prior_std_mev: np.ndarray
) -> PeakMaps:
    energy, energy_std = (_modes_first(fit.energies(v)) for v in (fit.params, fit.std))
    area, area_std = (_modes_first(fit.areas(v)) for v in (fit.params, fit.std))
    significant = (area > SHOWN_SIGMA * area_std) & (np.isfinite(energy_std) | (energy_interval_kinds(fit) > 0))
    prior = (prior_std_mev if model.recipe is None else model.recipe.prior_std(prior_std_mev))[:, None, None]
    status = np.where(significant, np.where(energy_std > TOLD_SHARE * prior, 1, 0), 2)
    if model.recipe is not None:
        status[(area > SHOWN_SIGMA * area_std) & model.recipe.fixed[:, None, None]] = 4
    status = np.where(good & np.isfinite(area), status, 3).astype(np.int16)
    shown = (status <= 1) | (status == 4)
    bound = cramer_rao(held, model.recipe)
    told = identifiability(held, bound, model, material, good)
    dof = np.maximum(fit.chi2_mean - fit.chi2_taken, 1.0)
    widths = np.broadcast_to(model.fwhm_mev[:, None, None], energy.shape)
    values: Values = {
        "energy_mev": (np.where(shown, energy, np.nan), "meV"),
        "energy_mev_std": (np.where(shown, energy_std, np.nan), "meV"),
        "energy_mev_crb": (_finite(np.where(bound.energy_mev > 0.0, bound.energy_mev, np.nan), good), "meV"),
        "posterior_prior_ratio": (np.where(shown & np.isfinite(prior), energy_std / prior, np.nan), "1"),
        "fwhm_mev": (np.where(shown, widths, np.nan), "meV"),
        "fwhm_mev_std": (np.full(energy.shape, np.nan), "meV"),
        "area_e": (np.where(good, area, np.nan), "electrons"),
        "area_e_std": (np.where(good, area_std, np.nan), "electrons"),
        "area_e_crb": (_finite(bound.area_e, good), "electrons"),
        "background_e": (np.where(good, fit.params[..., 5], np.nan), "electrons/channel"),
        "background_e_std": (np.where(good, fit.std[..., 5], np.nan), "electrons/channel"),
        "deviance_per_dof": (np.where(good, fit.pearson_chi2 / dof, np.nan), "1"),
        "p_value": (np.where(good, goodness_of_fit(fit), np.nan), "1"),
    }
    flags: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
        "mode_status": (status, MODE_STATUS),
        "identifiability": (told, IDENTIFIABILITY),
    }
    if fit.intervals is not None:
        ends = np.moveaxis(fit.intervals, (3, 2), (0, 1))
        for k, name in enumerate(INTERVAL_ENDS):
            values[f"energy_mev_{name}"] = (np.where(shown, ends[k], np.nan), "meV")
        kinds = np.where(shown, energy_interval_kinds(fit), 0).astype(np.int16)
        flags["interval_kind"] = (kinds, INTERVAL_MEANINGS)
    return PeakMaps(values, flags, status, told, _modes_first(bound.energy_mev))


def limit_maps(
    held: ScanFit, model: ForwardModel, material: Material, good: np.ndarray, values: Values, mode_status: np.ndarray
) -> PeakMaps:
    """Return maps of the classic route with labels added.

    What can be told follows from the bounds with the noise that channels share, where these are known; `held` is a fit that takes
    channels as independent, and is more hopeful than that.
    """
    bound = cramer_rao(held, model.recipe)
    if "apparent_energy_mev_crb" in values:
        known = np.nan_to_num(np.moveaxis(values["apparent_energy_mev_crb"][0], 0, 2), nan=np.inf)
        with np.errstate(invalid="ignore"):
            factor = np.nan_to_num(np.clip(known / bound.energy_mev, 1.0, 1e6), nan=1.0)
        covariance = bound.energy_covariance * factor[..., :, None] * factor[..., None, :]
        bound = CramerRao(bound.energy_mev * factor, bound.area_e * factor, covariance)
    told = identifiability(held, bound, model, material, good)
    flags: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
        "mode_status": (mode_status, MODE_STATUS),
        "identifiability": (told, IDENTIFIABILITY),
    }
    return PeakMaps(dict(values), flags, mode_status, told, _modes_first(bound.energy_mev))


def with_bins(maps: PeakMaps, held: ScanFit, model: ForwardModel, good: np.ndarray, settings: FitPeaks) -> PeakMaps:
    """Return the maps with the energies of bins of positions, where `bin_to_std_mev` asks for them."""
    if settings.bin_to_std_mev is None:
        return maps
    bins = binned_energies(held, good, model.bounds_mev, settings.bin_to_std_mev, settings.bin_along, model.recipe)
    values: Values = {
        "binned_energy_mev": (bins.energy_mev, "meV"),
        "binned_energy_mev_std": (bins.std_mev, "meV"),
        "bin_positions": (bins.n_positions, "positions"),
    }
    return replace(maps, values=maps.values | values, flags=maps.flags | {"binned_status": (bins.status, BIN_STATUS)})


def from_zero(maps: PeakMaps, zero_mev: float) -> PeakMaps:
    """Return the maps with energies, and the ends of their intervals, counted from another zero."""
    names = ("energy_mev", "binned_energy_mev", *(f"energy_mev_{end}" for end in INTERVAL_ENDS))
    moved = {name: (maps.values[name][0] - zero_mev, "meV") for name in names if name in maps.values}
    return replace(maps, values={**maps.values, **moved})


def energy_interval_kinds(fit: ScanFit) -> np.ndarray:
    """Return the kinds of the energies' intervals, (modes, rows, columns); zeros if none were asked for."""
    if fit.interval_kind is None:
        return np.zeros((fit.n_modes, *fit.status.shape), np.int16)
    return _modes_first(fit.interval_kind)


def _finite(bound: np.ndarray, good: np.ndarray) -> np.ndarray:
    values = _modes_first(bound)
    return np.where(good & np.isfinite(values), values, np.nan)


def goodness_of_fit(fit: ScanFit) -> np.ndarray:
    """Return the p-value of Pearson's chi-squared at every position, (rows, columns).

    Chi-squared is compared with the scaled chi-squared law of the same mean and variance (Satterthwaite,
    doi:10.2307/3002019), because few electrons per channel widen it and channels that share noise lower and widen it.
    """
    from scipy.special import chdtrc  # survival of chi-squared; scipy.stats takes long to load

    mean = np.maximum(fit.chi2_mean - fit.chi2_taken, 1.0)
    variance = fit.chi2_variance * mean / np.maximum(fit.chi2_mean, 1.0)
    scale = 0.5 * variance / mean
    return np.asarray(chdtrc(mean / scale, fit.pearson_chi2 / scale))


def identifiability(
    held: ScanFit, bound: CramerRao, model: ForwardModel, material: Material, good: np.ndarray
) -> np.ndarray:
    """Return what the data alone, without priors, can tell of each mode at each position; numbers of `IDENTIFIABILITY`.

    A mode is identifiable where its area is seen (3 bounds) and the bound of its energy is below half the deviation of the
    material's prior. Modes of a pair that are not told apart (splitting below 2 bounds), or not each for itself, still have a
    centroid where that is known as well.
    """
    prior = np.array([{m.name: m.prior_energy_std_mev for m in material.modes}[name] for name in model.mode_names])
    seen = held.areas() > SHOWN_SIGMA * bound.area_e
    told = seen & (bound.energy_mev < TOLD_SHARE * prior)
    label = np.where(told, 0, 2)
    for names in material.pairs:
        if not all(name in model.mode_names for name in names):
            continue
        pair = (model.mode_names.index(names[0]), model.mode_names.index(names[1]))
        centroid, splitting = centroid_bound(held, bound, pair)
        apart = np.abs(np.diff(held.energies()[..., pair], axis=-1)[..., 0]) > SPLIT_SIGMA * splitting
        area = held.areas()[..., pair].sum(axis=-1)
        noise = np.sqrt((held.areas(held.std)[..., pair] ** 2).sum(axis=-1))
        common = (centroid < TOLD_SHARE * prior[list(pair)].min()) & (area > SHOWN_SIGMA * noise)
        own = told[..., pair].all(axis=-1) & apart
        for m in pair:
            label[..., m] = np.where(own, 0, np.where(common, 1, 2))
    return _modes_first(np.where(good[..., None], label, 3).astype(np.int16))
