"""Fit the material's modes at every position: energies, areas, widths, with standard deviations and a status each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.backends.spectra import NO_CHANNEL
from phonon_eels.component_fit.result import STATUS_WORDS
from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import DataError
from phonon_eels.forward.information import sensitivities, vacuum_deviations
from phonon_eels.forward.mean import LOG_FWHM_STD, MeanFit, MeanModel, fit_mean, width_groups
from phonon_eels.forward.model import ForwardModel, build_forward_model, describe, fit_window, rebuilt
from phonon_eels.forward.pooled import COLUMNS, ROWS, Pooled, block_sums, local_energies, pool_scores, relative_to
from phonon_eels.forward.scan import SHOWN_SIGMA, STATUS_MEANINGS, Alignment, ScanFit, aligned_sums, fit_scan
from phonon_eels.forward.zero_loss import NARROW_CHANNELS
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.align_zlp import alignment_of
from phonon_eels.steps.classic_peaks import (
    classic_maps,
    classic_problem,
    fit_classic_positions,
    noise_summary,
    pooled_settings,
)
from phonon_eels.steps.maps import count_status, quantity, scan_dataset
from phonon_eels.steps.peak_maps import from_zero, limit_maps, peak_maps, with_bins
from phonon_eels.steps.peak_tables import (
    from_true_zero,
    local_maps,
    mean_table,
    mode_table,
    pair_table,
    sensitivity_summary,
    true_zero,
)
from phonon_eels.steps.reproducibility import compare_halves
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.steps.thermometry import measure_temperature
from phonon_eels.steps.vacuum_response import response_sentence, vacuum_response
from phonon_eels.units import thermal_energy_mev

if TYPE_CHECKING:
    import pandas as pd

ROOM_TEMPERATURE_K = 293.0
SEEN_SIGMA = 2.0
RELINEARISATIONS = 3
PLASMON_MEV = 3000.0
"""Modes above this are plasmons, which an electron may excite more than once."""


@dataclass(frozen=True)
class Prepared:
    """What all passes over the scan share."""

    model: ForwardModel
    mean_model: MeanModel
    mean: MeanFit
    alignment: Alignment
    starts: np.ndarray
    thermal_mev: float | None


def fit_peaks(image: SpectrumImage, settings: FitPeaks, context: StepContext) -> StepResult:
    """Fit every position, forward on raw counts or classically on a loss spectrum with known variance.

    First the aligned mean spectrum (several starts), then energies shared by all positions by maximum likelihood with
    everything else free at each position, then each position with its own energies. Positions never start from their
    neighbours, so order and chunks leave no trace.

    Returns
    -------
    StepResult
        Maps over (mode, row, column); energies count from the zero that `calibrate` found, else from the zero-loss centre
        (``fitted_energy_mev`` always from the latter); tables `modes`, `pairs`, `mean_spectrum`; the description of the model.

    Raises
    ------
    DataError
        If the window leaves the axis, the axis ends below the modes, or the data were denoised but the route is forward.
    """
    if image.noise.denoised and context.route == "forward":
        raise DataError(
            "fit_peaks on the forward route needs raw counts, but the image was denoised, which correlates its noise; "
            "set denoise.method to none"
        )
    classic = context.route == "classic"
    shared_settings = pooled_settings(settings) if classic else settings
    prepared = prepare(image, shared_settings, context)
    usable_prior = prior_stds(prepared.model, context.material)
    model, by_rows, by_columns, held, starts = pool(image, prepared, shared_settings, context)
    if classic:
        lines = fit_classic_positions(classic_problem(image, model, usable_prior, settings, context), context)
        good, fit_status = lines.fit.usable, lines.fit.status
        meanings: tuple[str, ...] = STATUS_WORDS
        values, mode_status = classic_maps(lines, model, usable_prior, SHOWN_SIGMA, context)
        found = limit_maps(held, model, context.material, good, values, mode_status)
        noise_told, sentence = noise_summary(values, lines)
    else:
        fit = fit_positions(image, model, prepared, held, starts, usable_prior, settings, context)
        good, fit_status, meanings = np.isin(fit.status, (CONVERGED, AT_BOUND)), fit.status, STATUS_MEANINGS
        found = peak_maps(fit, held, model, context.material, good, usable_prior)
        found.values.update(local_maps(fit, model, prepared.alignment, image.energy, good))
        found = from_zero(with_bins(found, held, model, good, settings), true_zero(context)[0])
        noise_told, sentence = {}, ""
    if not good.any():
        raise DataError("no position could be fitted; look at the mean spectrum and at fit_peaks.window_mev")
    values, mode_status = found.values, found.mode_status
    maps = scan_dataset(image, values, fit_status, meanings, modes=model.mode_names)
    for name, (numbers, words) in found.flags.items():
        joined = " ".join(word.replace(" ", "_") for word in words)
        flags = {"units": "1", "flag_values": np.arange(len(words), dtype=np.int16), "flag_meanings": joined}
        maps[name] = (("mode", "row", "column"), numbers.astype(np.int16), flags)
    temperatures, temperature, warmth = measure_temperature(
        image, prepared.mean_model, prepared.mean, prepared.alignment, settings.thermometry_tiles, context
    )
    typical = np.nanmedian(held.params[good], axis=0)
    follows, by_vacuum = sensitivities(model, typical), vacuum_deviations(model, typical)
    fitted = describe(model, shared_settings, prepared.thermal_mev)
    tables: dict[str, pd.DataFrame] = {
        "modes": mode_table(by_rows, by_columns, model, context, found, follows, by_vacuum),
        "pairs": pair_table(by_rows, by_columns, model, context.material),
        "mean_spectrum": mean_table(prepared.mean),
        "temperature": temperatures,
    }
    repeats = _reproducibility(image, model, prepared, held, context)
    if repeats is not None:
        tables["reproducibility"] = repeats
    tables = {name: from_true_zero(table, context) for name, table in tables.items()}
    summary: dict[str, Any] = {
        "model": fitted,
        "route": context.route,
        "status_counts": count_status(fit_status, meanings),
        **{
            f"{name}_counts": {n: count_status(numbers[m], words) for m, n in enumerate(model.mode_names)}
            for name, (numbers, words) in found.flags.items()
        },
        "sensitivities": sensitivity_summary(model.mode_names, follows),
        "mean_chi2_per_dof": prepared.mean.chi2_per_dof,
        "median_p_value": float(np.nanmedian(values["p_value"][0])),
        "zlp_fwhm_mev": quantity(model.reference[0], float("nan"), "meV"),
        "temperature_k": image.acquisition.temperature_k or ROOM_TEMPERATURE_K,
        "measured_temperature_k": temperature,
    }
    messages = (*_messages(image, model, good, prepared, settings, context), *warmth, *([sentence] if sentence else []))
    return StepResult(maps=maps, tables=tables, summary=summary | noise_told, messages=messages)


def _reproducibility(
    image: SpectrumImage, model: ForwardModel, prepared: Prepared, held: ScanFit, context: StepContext
) -> pd.DataFrame | None:
    """Compare the energies of the two halves of the frames, where `register_frames` has kept them."""
    told = context.summaries.get("register_frames", {}).get("halves")
    if image.halves is None or not told or context.route == "classic":
        return None
    return compare_halves(image, told["n_frames"], model, prepared.alignment, held, context.backend)[0]


def prepare(image: SpectrumImage, settings: FitPeaks, context: StepContext) -> Prepared:
    """Fit the mean spectrum and set up the model and the start of every position."""
    classic = context.route == "classic"
    reference = context.summaries["align_zlp"]["reference"]
    shape = ZeroLossShape(reference["fwhm_mev"], reference["tail_loss"], reference["tail_gain"])
    temperature = image.acquisition.temperature_k or ROOM_TEMPERATURE_K
    thermal = None if classic else thermal_energy_mev(temperature)
    material = _apparent(context.material, shape.fwhm_mev) if classic else context.material
    alignment = alignment_of(image, context)
    channels = _window(image, settings, material, alignment, shape, classic)
    response = None if classic else shape
    weights = alignment.found.astype(float)[None]
    total, squares = aligned_sums(image, alignment, int(channels[0]), channels.size, weights, context.backend)
    n = max(float(weights.sum()), 1.0)
    narrow = response is not None and shape.fwhm_mev < NARROW_CHANNELS * image.energy.dispersion_mev
    places = alignment.shift_mev[alignment.found] if narrow else None
    vacuum = None if classic else vacuum_response(image, settings, alignment, channels, shape, context)
    if vacuum is not None:
        response = vacuum.shape
    mean_model = MeanModel(settings, material, channels, image.energy.dispersion_mev, response, thermal, places, vacuum)
    mean = fit_mean(mean_model, total[0] / n, np.maximum(squares[0], 1e-12) / n**2)
    model = build_forward_model(
        settings, material, channels, image.energy.dispersion_mev, mean.zero_loss, thermal,
        energies_mev=mean.energies_fit_mev, fwhm_mev=mean.fwhm_mev,
        shift_e=0.0 if classic else image.noise.read_noise_e**2, background_shape=(mean.ramp_e, mean.bend),
        noise_correlation=image.noise.noise_correlation, vacuum=vacuum,
    )  # fmt: skip
    return Prepared(model, mean_model, mean, alignment, _starts(mean, context, image.shape[:2]), thermal)


def _apparent(material: Material, zero_loss_fwhm_mev: float) -> Material:
    """The classic route sees lines that still carry part of the instrument's width."""
    modes = [
        mode.model_copy(update={"fwhm_mev": float(np.hypot(mode.fwhm_mev, 0.7 * zero_loss_fwhm_mev))})
        for mode in material.modes
    ]
    return material.model_copy(update={"modes": tuple(modes)})


def _window(
    image: SpectrumImage,
    settings: FitPeaks,
    material: Material,
    alignment: Alignment,
    shape: ZeroLossShape,
    classic: bool,
) -> np.ndarray:
    found = alignment.channel[alignment.found]
    zero = float(np.median(found)) if found.size else image.energy.channel(0.0)
    if classic and settings.window_mev is None:
        low = max(material.modes[0].bounds_mev[0] - material.modes[0].fwhm_mev, image.energy.offset_mev)
        high = min(material.modes[-1].bounds_mev[1] + 1.5 * material.modes[-1].fwhm_mev, image.energy.last_mev)
        settings = settings.model_copy(update={"window_mev": (low, high)})
        zero = image.energy.channel(0.0)
    return fit_window(settings, material, image.energy, zero, shape.fwhm_mev)


def _starts(mean: MeanFit, context: StepContext, shape: tuple[int, int]) -> np.ndarray:
    """Start every position from the mean fit, scaled by its own zero-loss counts."""
    counts = np.asarray(context.maps["align_zlp"]["zlp_counts"].values)
    scale = np.nan_to_num(counts / np.nanmean(counts), nan=1.0)
    if mean.zero_loss is None:
        scale = np.ones(shape)
    start = np.broadcast_to(mean.starts(), (*shape, mean.starts().size)).copy()
    scaled = [0, *range(N_LOCAL, N_LOCAL + len(mean.areas_e))]
    start[..., scaled] *= scale[..., None]
    return start


def prior_stds(model: ForwardModel, material: Material) -> np.ndarray:
    """Return the prior deviation of each mode's energy: the material's where a neighbour is closer than the resolution, else none."""
    by_name = {mode.name: mode.prior_energy_std_mev for mode in material.modes}
    resolution = float(model.reference[0]) if model.zero_loss is not None else float(model.fwhm_mev.min())
    energies = model.mode_energies_mev
    stds = np.full(model.n_modes, np.inf)
    for m, name in enumerate(model.mode_names):
        others = np.delete(energies, m)
        if others.size and np.abs(others - energies[m]).min() < resolution:
            stds[m] = by_name[name]
    return stds


def pool(
    image: SpectrumImage, prepared: Prepared, settings: FitPeaks, context: StepContext
) -> tuple[ForwardModel, Pooled, Pooled, ScanFit, np.ndarray]:
    """Estimate energies and widths shared by all positions; areas, zero-loss shape and background stay free at each.

    Returns
    -------
    model, by_rows, by_columns
        The model at these energies and widths, and the estimates with blocks of rows and of columns to leave out.
    fit, starts
        The last pass with its energies held, and where the free fit of each position starts.
    """
    model = prepared.model
    by_name = {mode.name: mode for mode in context.material.modes}
    prior = np.array([by_name[name].fwhm_mev for name in model.mode_names])
    if context.route == "classic":
        prior = model.fwhm_mev
    groups = width_groups(model.mode_names, context.material.pairs)
    starts = _at_energies(prepared.starts, model.mode_energies_mev)
    for _ in range(RELINEARISATIONS):
        taken_at = starts[..., N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes]
        fit = fit_scan(
            image,
            model,
            prepared.alignment,
            starts,
            context.backend,
            free_energies=False,
            profile=True,
            max_iterations=15,
        )
        usable = np.isin(fit.status, (CONVERGED, AT_BOUND))
        shared = relative_to(fit, taken_at, model.mode_energies_mev)
        by_rows, by_columns = (
            pool_scores(
                block_sums(shared, usable, axis), model.mode_energies_mev, model.fwhm_mev, prior, LOG_FWHM_STD * prior, groups,
                settings.intrinsic_widths == "shared",
            )
            for axis in (ROWS, COLUMNS)
        )  # fmt: skip
        widths = np.clip(by_rows.fwhm_mev, 0.7 * model.fwhm_mev, 1.4 * model.fwhm_mev)
        energies = np.clip(by_rows.energies_mev, model.bounds_mev[:, 0], model.bounds_mev[:, 1])
        model = rebuilt(model, settings, context.material, prepared.thermal_mev, energies, widths)
        local = local_energies(fit, usable, taken_at, np.isinf(prior_stds(model, context.material)))
        starts = np.where(np.isfinite(fit.params), fit.params, starts)
        starts = _at_energies(starts, np.clip(local, model.bounds_mev[:, 0], model.bounds_mev[:, 1]))
    return model, by_rows, by_columns, fit, starts


def _at_energies(starts: np.ndarray, energies_mev: np.ndarray) -> np.ndarray:
    modes = energies_mev.shape[-1]
    moved = np.array(starts)
    moved[..., N_LOCAL + modes : N_LOCAL + 2 * modes] = energies_mev
    moved[..., N_LOCAL + 2 * modes :] = 0.0
    return moved


def fit_positions(
    image: SpectrumImage,
    model: ForwardModel,
    prepared: Prepared,
    held: ScanFit,
    starts: np.ndarray,
    prior_std_mev: np.ndarray,
    settings: FitPeaks,
    context: StepContext,
) -> ScanFit:
    """Fit each position with its own energies; those that end badly are tried once more from the shared ones.

    A mode that is not seen with its energy held (area below 2 standard deviations) keeps it held: it has no energy to fit.
    """
    seen = held.areas() > SEEN_SIGMA * held.areas(held.std)
    below = settings.profile_below_sigma if settings.profile_below_sigma > 0.0 else None
    fit = fit_scan(
        image, model, prepared.alignment, starts, context.backend, free_energies=seen, energy_prior_std_mev=prior_std_mev,
        profile_below=below, max_iterations=settings.max_iterations, progress=context.progress,
    )  # fmt: skip
    again = ~np.isin(fit.status, (CONVERGED, AT_BOUND)) & prepared.alignment.found
    if not again.any():
        return fit
    only = replace(prepared.alignment, channel=np.where(again, prepared.alignment.channel, NO_CHANNEL))
    retry = fit_scan(
        image, model, only, _at_energies(prepared.starts, model.mode_energies_mev), context.backend, free_energies=seen,
        energy_prior_std_mev=prior_std_mev, profile_below=below, max_iterations=3 * settings.max_iterations,
    )  # fmt: skip
    better = np.isin(retry.status, (CONVERGED, AT_BOUND))
    return fit.replaced(better, retry)


def _messages(
    image: SpectrumImage,
    model: ForwardModel,
    good: np.ndarray,
    prepared: Prepared,
    settings: FitPeaks,
    context: StepContext,
) -> tuple[str, ...]:
    messages = []
    if image.acquisition.temperature_k is None:
        messages.append(
            f"acquisition.temperature_k is not known: {ROOM_TEMPERATURE_K:g} K assumed for the occupation of the modes"
        )
    response = response_sentence(model.vacuum, context)
    if response is not None:
        messages.append(response)
    missing = [mode.name for mode in context.material.modes if mode.name not in model.mode_names]
    if missing:
        messages.append(f"modes beyond the end of the energy axis were left out: {', '.join(missing)}")
    if settings.bin_to_std_mev is not None and context.route == "classic":
        messages.append("fit_peaks.bin_to_std_mev is of the forward route: nothing was binned")
    bad = int(np.count_nonzero(~good if image.masked is None else ~good & ~image.masked))
    if bad:
        messages.append(f"{bad} of {good.size} positions could not be fitted; the status map says why")
    if prepared.mean.chi2_per_dof > 2.0:
        messages.append(
            f"the mean spectrum is fitted with chi-squared {prepared.mean.chi2_per_dof:.1f} per degree of freedom "
            "(1 expected, 0.3 % model error allowed): the shape of the zero-loss peak or the list of modes is not complete"
            + (
                ", and losses of several plasmons are not in the model"
                if model.mode_energies_mev.max() > PLASMON_MEV
                else ""
            )
        )
    return tuple(messages)


FIT_PEAKS = StepSpec(
    name="fit_peaks",
    run=fit_peaks,
    makes={"energy_mev": "meV", "fwhm_mev": "meV", "area_e": "electrons"},
    needs=("align_zlp", "normalise", "subtract_zlp", "deconvolve"),
    reference="maximum likelihood, Levenberg-Marquardt, Fisher covariance",
)
