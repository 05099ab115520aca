"""Fit some positions of a finished `fit_peaks` again, from other starts; all others keep their bits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.backends.spectra import NO_CHANNEL
from phonon_eels.component_fit.passes import mean_spectrum, retry
from phonon_eels.component_fit.result import USABLE, summarise
from phonon_eels.component_fit.start import START_SEED
from phonon_eels.component_fit.start import fit_mean as fit_components_mean
from phonon_eels.component_fit.where import Known, where_true
from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import DataError
from phonon_eels.forward.model import ForwardModel, model_from_description
from phonon_eels.forward.position_temperature import TEMPERATURE_STATUS
from phonon_eels.forward.scan import INTERVAL_MEANINGS, SHOWN_SIGMA, ScanFit, fit_scan
from phonon_eels.kernels.component_fit import OUTCOMES
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, SINGULAR
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.align_zlp import alignment_of
from phonon_eels.steps.chi2_scale import scaled_by_chi2
from phonon_eels.steps.classic_covariance import classic_covariance, kept_parameters
from phonon_eels.steps.classic_peaks import classic_maps, classic_problem, electrons_per_unit, known_noise, noisy
from phonon_eels.steps.maps import count_status
from phonon_eels.steps.pair_maps import PAIR_STATUS, RATIO_STATUS
from phonon_eels.steps.peak_maps import IDENTIFIABILITY, MODE_STATUS, PeakMaps, Values, from_zero, peak_maps
from phonon_eels.steps.peak_tables import local_maps, true_zero
from phonon_eels.steps.position_covariance import position_covariance
from phonon_eels.steps.position_fits import SEEN_SIGMA, prior_stds
from phonon_eels.steps.spec import StepContext
from phonon_eels.steps.thermometry import position_temperatures, temperature_values

if TYPE_CHECKING:
    import xarray as xr

STARTS = 5
LONGER = 3
"""So many times the iterations that `fit_peaks` allows."""


def chosen_positions(maps: xr.Dataset, where: str) -> np.ndarray:
    """Return where an expression on the maps of `fit_peaks` holds, (rows, columns) of bool.

    Parameters
    ----------
    where
        Comparisons joined by and, or, not, as `positions_where` reads them: ``status != converged``, ``p_value < 0.001``,
        for a mode ``CuO78.mode_status == failed`` or ``CuO78.energy_mev_std > 0.5``, for a close pair
        ``BiO38_CuO42.pair_status == no_deviation``.
    """
    numbers, flags, shape = {}, {}, maps["status"].shape
    for name, variable in maps.data_vars.items():
        if variable.dims[-2:] != ("row", "column"):
            continue
        if variable.ndim > 3:  # the covariance matrix has no word
            continue
        planes = {str(name): variable.values}
        if variable.ndim == 3:
            owners = [str(owner).replace("+", "_") for owner in maps[variable.dims[0]].values]
            planes = {f"{owner}.{name}": variable.values[k] for k, owner in enumerate(owners)}
        for word, plane in planes.items():
            if "flag_meanings" in variable.attrs:
                flags[word] = (plane, tuple(str(variable.attrs["flag_meanings"]).split()))
            else:
                numbers[word] = np.asarray(plane, dtype=float)
    modes = [str(mode) for mode in maps["mode"].values]
    about = ", ".join(word for word in (*flags, *numbers) if word.partition(".")[0] not in modes[1:])
    return where_true(where, Known(numbers, flags, shape, f"{about} (and so for {', '.join(modes[1:])})"))


def refit_peaks(
    before: StepResult, image: SpectrumImage, settings: FitPeaks, context: StepContext, where: str
) -> tuple[StepResult, int, int]:
    """Fit the positions that an expression chooses again, from starts that no neighbour has a part in.

    The model (energies and widths that all positions share, tables of lines) is the one of the fit before. Forward, each position
    starts from its stored energies, from the scan's, and from three energies and areas around these; the lowest objective
    stays. Classic, from four starts around the fit of the mean spectrum; a new fit stands where it ended well and the one before did
    not, or where its chi-squared is lower.

    Parameters
    ----------
    before
        What `fit_peaks` has left.
    image, settings, context
        What it was given.

    Returns
    -------
    result, chosen, changed
        The result with new maps and counts at the chosen positions, how many these are, and how many changed.
    """
    maps = before.maps
    if maps is None or "model" not in before.summary:
        raise DataError("refit needs the maps and the model of fit_peaks; run `phonon-eels fit_peaks` first")
    chosen = chosen_positions(maps, where)
    if image.masked is not None:
        chosen &= ~image.masked
    if not chosen.any():
        return before, 0, 0
    model = model_from_description(before.summary["model"], context.material)
    again = _classic if context.route == "classic" else _forward
    values, flags, status, better = again(before, image, model, settings, context, chosen)
    return _merged(before, values, flags, status, better), int(chosen.sum()), int(better.sum())


Flags = dict[str, np.ndarray]
Found = tuple[Values, Flags, np.ndarray, np.ndarray]


def _forward(
    before: StepResult,
    image: SpectrumImage,
    model: ForwardModel,
    settings: FitPeaks,
    context: StepContext,
    chosen: np.ndarray,
) -> Found:
    assert before.maps is not None
    everywhere = alignment_of(image, context)
    alignment = replace(everywhere, channel=np.where(chosen, everywhere.channel, NO_CHANNEL))
    prior = prior_stds(model, context.material)
    starts = _forward_starts(before, image.shape[:2], model, context)
    held = fit_scan(image, model, alignment, starts[1], context.backend, free_energies=False, profile=True)
    seen = held.areas() > SEEN_SIGMA * held.areas(held.std)
    below = settings.profile_below_sigma if settings.profile_below_sigma > 0.0 else None
    best: ScanFit | None = None
    for start in starts:
        fit = fit_scan(
            image, model, alignment, start, context.backend, free_energies=seen, energy_prior_std_mev=prior, profile_below=below,
            max_iterations=LONGER * settings.max_iterations,
        )  # fmt: skip
        if best is None:
            best = fit
            continue
        good, was_good = (np.isin(f.status, (CONVERGED, AT_BOUND)) for f in (fit, best))
        with np.errstate(invalid="ignore"):
            lower = fit.objective < best.objective - 1e-6 * np.abs(best.objective)
        best = best.replaced(good & (~was_good | lower), fit)
    assert best is not None
    good = np.isin(best.status, (CONVERGED, AT_BOUND)) & chosen
    found = peak_maps(best, held, model, context.material, good, prior)
    found.values.update(local_maps(best, model, everywhere, image.energy, good))
    told = position_covariance(
        image, model, alignment, best, context.material, good, found.identifiability, prior, context.backend,
        whole="covariance" in before.maps,
    )  # fmt: skip
    if settings.scale_std_by_chi2:
        found, told = scaled_by_chi2(found, told)
    found = from_zero(found, true_zero(context)[0])
    found.values.update(told.arrays(true_zero(context)[0]))
    flags = {name: numbers for name, (numbers, _) in (found.flags | told.flags).items()}
    if "temperature_k" in before.maps:
        scan = before.summary["measured_temperature_k"]
        warm = model_from_description(before.summary["temperature_model"], context.material)
        single = position_temperatures(image, warm, alignment, best, held, scan, settings, context)
        found.values.update(temperature_values(single))
        flags["temperature_status"] = single.status
    return found.values, flags, best.status, good


def _forward_starts(
    before: StepResult, shape: tuple[int, ...], model: ForwardModel, context: StepContext
) -> list[np.ndarray]:
    """Return starts, (rows, columns, parameters) each: the stored energies, the scan's, and others around these."""
    assert before.maps is not None
    modes, first = model.n_modes, N_LOCAL + model.n_modes
    mean, table = before.tables["mean_spectrum"], before.tables["modes"]
    counts = np.asarray(context.maps["align_zlp"]["zlp_counts"].values, dtype=float)
    scale = np.nan_to_num(counts / np.nanmean(counts), nan=1.0)
    area = np.nan_to_num(np.asarray(table["area_e"], dtype=float), nan=1.0)
    local = [
        float(mean["zlp_e"].max()),
        0.0,
        0.0,
        0.0,
        0.0,
        float(mean["background_e"].median()),
        *model.background_shape,
    ]
    scan = np.broadcast_to(
        np.concatenate([local, area, model.mode_energies_mev, np.zeros(modes)]), (*shape, model.n_params)
    ).copy()
    scan[..., [0, *range(N_LOCAL, first)]] *= scale[..., None]
    stored = scan.copy()
    fitted = np.moveaxis(np.asarray(before.maps["fitted_energy_mev"].values, dtype=float), 0, 2)
    low, high = model.bounds_mev.T
    stored[..., first : first + modes] = np.clip(
        np.where(np.isfinite(fitted), fitted, model.mode_energies_mev), low, high
    )
    random, starts = np.random.default_rng(START_SEED), [stored, scan]
    while len(starts) < STARTS:
        other = scan.copy()
        energies = model.mode_energies_mev + 0.3 * random.uniform(-1.0, 1.0, modes) * model.fwhm_mev
        other[..., first : first + modes] = np.clip(energies, low, high)
        other[..., N_LOCAL:first] *= 2.0 ** random.uniform(-1.0, 1.0, modes)
        starts.append(other)
    return starts


def _classic(
    before: StepResult,
    image: SpectrumImage,
    model: ForwardModel,
    settings: FitPeaks,
    context: StepContext,
    chosen: np.ndarray,
) -> Found:
    assert before.maps is not None
    prior = prior_stds(model, context.material)
    problem = classic_problem(image, model, prior, settings, context)
    mean, spread = mean_spectrum(problem, context.backend)
    n_params, n_free = len(problem.model.names), problem.model.free.size
    maps = before.maps
    kept = kept_parameters(problem.model, model, context.material, "covariance" in maps)
    alone = known_noise(problem, context) is None and kept.size > 0
    outcome = np.full((*chosen.shape, OUTCOMES), np.nan)
    status = np.full(chosen.shape, SINGULAR, np.int64)
    results = [
        np.full((*chosen.shape, n_params), np.nan),
        np.full((*chosen.shape, n_params), np.nan),
        outcome,
        status,
        np.full((*chosen.shape, n_free, n_free), np.nan) if alone else np.empty((0, 0, 0)),
    ]
    ended = retry(problem, context.backend, results, chosen, fit_components_mean(problem.model, mean, spread), mean)
    found = noisy(summarise(problem.model, results), problem, context, kept)
    values, mode_status = classic_maps(found, model, prior, SHOWN_SIGMA, context)
    label = np.asarray(maps["identifiability"].values)  # of the bounds, which stay
    told = classic_covariance(
        found, model, context.material, label, electrons_per_unit(context), whole="covariance" in maps
    )  # fmt: skip
    if settings.scale_std_by_chi2:
        plain = PeakMaps(values, {}, mode_status, label, np.empty(0))
        scaled, told = scaled_by_chi2(plain, told)
        values = scaled.values
    values |= told.arrays(0.0)
    was_good = np.isin(np.asarray(maps["status"].values), USABLE)
    old = np.asarray(maps["deviance_per_dof"].values, dtype=float)
    new = values["deviance_per_dof"][0]
    with np.errstate(invalid="ignore"):
        better = ended & (~was_good | ~np.isfinite(old) | (new < old * (1.0 - 1e-6)))
    flags = {name: numbers for name, (numbers, _) in told.flags.items()}
    return values, {"mode_status": mode_status, **flags}, found.fit.status, better


def _merged(
    before: StepResult, values: dict[str, tuple[np.ndarray, str]], flags: Flags, status: np.ndarray, better: np.ndarray
) -> StepResult:
    """Return the result before with the better positions replaced, counted anew."""
    assert before.maps is not None
    maps = before.maps.copy(deep=True)
    arrays = {name: array for name, (array, _) in values.items()} | flags | {"status": status}
    for name, array in arrays.items():
        if name in maps:
            kept = np.asarray(maps[name].values)
            maps[name].values = np.where(better, array, kept).astype(kept.dtype)
    summary: dict[str, Any] = dict(before.summary)
    words = str(maps["status"].attrs["flag_meanings"]).split()
    summary["status_counts"] = count_status(maps["status"].values, words)
    summary["median_p_value"] = float(np.nanmedian(maps["p_value"].values))
    if "temperature_status" in maps:
        summary["temperature_status_counts"] = count_status(maps["temperature_status"].values, TEMPERATURE_STATUS)
    counted = {"mode_status": MODE_STATUS, "identifiability": IDENTIFIABILITY, "interval_kind": INTERVAL_MEANINGS}
    counted |= {"pair_status": PAIR_STATUS, "area_ratio_status": RATIO_STATUS}
    for name, known in counted.items():
        if name not in maps:
            continue
        planes = zip(maps[maps[name].dims[0]].values, maps[name].values, strict=True)
        extra = tuple(str(maps[name].attrs["flag_meanings"]).split())[len(known) :]
        summary[f"{name}_counts"] = {str(mode): count_status(plane, (*known, *extra)) for mode, plane in planes}
    return replace(before, maps=maps, summary=summary)
