"""Fit the material's modes at every position: energies, areas, widths, with standard deviations and a status each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.config import Material
from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import DataError
from phonon_eels.forward.information import sensitivities, vacuum_deviations
from phonon_eels.forward.mean import MeanFit, MeanModel, fit_mean
from phonon_eels.forward.model import ForwardModel, build_forward_model, describe, fit_window
from phonon_eels.forward.position_temperature import TemperatureMap
from phonon_eels.forward.scan import SHOWN_SIGMA, STATUS_MEANINGS, Alignment, ScanFit
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.vacuum import VacuumReference
from phonon_eels.forward.zero_loss import NARROW_CHANNELS
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.align_zlp import alignment_of
from phonon_eels.steps.chi2_scale import SENTENCE, scaled_by_chi2, tell_scale
from phonon_eels.steps.covariance_maps import Told
from phonon_eels.steps.maps import add_flags, count_status, flag_summary, quantity, scan_dataset
from phonon_eels.steps.peak_maps import PeakMaps, from_zero, limit_maps, peak_maps, with_bins
from phonon_eels.steps.peak_tables import (
    from_true_zero,
    local_maps,
    mean_table,
    mode_table,
    pair_table,
    sensitivity_summary,
    true_zero,
)
from phonon_eels.steps.position_covariance import position_covariance
from phonon_eels.steps.position_fits import Prepared, fit_positions, pool, pooled_settings, prior_stds
from phonon_eels.steps.reproducibility import compare_halves
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.steps.thermometry import (
    add_temperatures,
    measure_temperature,
    position_temperatures,
)
from phonon_eels.steps.vacuum_response import joint_response, response_sentence, vacuum_response
from phonon_eels.units import thermal_energy_mev

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

ROOM_TEMPERATURE_K = 293.0
PLASMON_MEV = 3000.0
"""Modes above this are plasmons, which an electron may excite more than once."""


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
    settings = from_zero_loss(settings, context)
    shared_settings = pooled_settings(settings) if classic else settings
    prepared = prepare(image, shared_settings, context)
    usable_prior = prior_stds(prepared.model, context.material)
    temperatures, temperature, warmth = measure_temperature(
        image, prepared.mean_model, prepared.mean, prepared.alignment, settings.thermometry_tiles, context
    )
    warm = _model_at_own_temperature(image, temperature, settings, context)
    model, by_rows, by_columns, held, starts = pool(image, prepared, shared_settings, context)
    single: TemperatureMap | None = None
    meanings: tuple[str, ...]
    if classic:
        found, told, good, fit_status, meanings, noise_told, sentence = _classic(
            image, model, held, usable_prior, settings, context
        )
    else:
        fit = fit_positions(image, model, prepared, held, starts, usable_prior, settings, context)
        del starts  # here a large scan takes most memory
        good, fit_status, meanings = np.isin(fit.status, (CONVERGED, AT_BOUND)), fit.status, STATUS_MEANINGS
        if settings.thermometry_positions:
            single = position_temperatures(
                image, warm or model, prepared.alignment, fit, held, temperature, settings, context
            )
        found = peak_maps(fit, held, model, context.material, good, usable_prior)
        found.values.update(local_maps(fit, model, prepared.alignment, image.energy, good))
        told = position_covariance(
            image, model, prepared.alignment, fit.without_intervals(), context.material, good, found.identifiability,
            usable_prior, context.backend, whole=settings.covariance_maps,
        )  # fmt: skip
        del fit
        found = from_zero(with_bins(found, held, model, good, settings), true_zero(context)[0])
        noise_told, sentence = {}, ""
    if not good.any():
        raise DataError("no position could be fitted; look at the mean spectrum and at fit_peaks.window_mev")
    if settings.scale_std_by_chi2:
        found, told = scaled_by_chi2(found, told)
    values = found.values | told.bounds
    maps = scan_dataset(image, values, fit_status, meanings, modes=model.mode_names)
    add_flags(maps, found.flags, "mode")
    told.add_to(maps, true_zero(context)[0])
    if settings.scale_std_by_chi2:
        tell_scale(maps)
    warm_told, warm_words = _add_temperatures(maps, single, warm or model, settings)
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
        **flag_summary(found.flags, model.mode_names),
        **told.counts(),
        "sensitivities": sensitivity_summary(model.mode_names, follows),
        "mean_chi2_per_dof": prepared.mean.chi2_per_dof,
        "median_p_value": float(np.nanmedian(values["p_value"][0])),
        "zlp_fwhm_mev": quantity(model.reference[0], prepared.mean.zlp_fwhm_std_mev, "meV"),
        "temperature_k": image.acquisition.temperature_k or ROOM_TEMPERATURE_K,
        "measured_temperature_k": temperature,
        **(warm_told | _line_share(prepared.mean, settings)),
    }
    said = (*warmth, *warm_words, *([sentence] if sentence else []))
    messages = (*_messages(image, model, good, prepared, settings, context), *said)
    return StepResult(maps=maps, tables=tables, summary=summary | noise_told, messages=messages)


def _classic(
    image: SpectrumImage,
    model: ForwardModel,
    held: ScanFit,
    prior_std_mev: np.ndarray,
    settings: FitPeaks,
    context: StepContext,
) -> tuple[PeakMaps, Told, np.ndarray, np.ndarray, tuple[str, ...], dict[str, object], str]:
    """Return the maps of the classic route, where it could be fitted, the statuses with their words, and what is said of the noise."""
    # Imported here, because the forward route needs none of its kernels.
    from phonon_eels.component_fit.result import STATUS_WORDS
    from phonon_eels.steps import classic_peaks
    from phonon_eels.steps.classic_covariance import classic_covariance, kept_parameters

    problem = classic_peaks.classic_problem(image, model, prior_std_mev, settings, context)
    kept = kept_parameters(problem.model, model, context.material, settings.covariance_maps)
    lines = classic_peaks.fit_classic_positions(problem, context, kept)
    values, mode_status = classic_peaks.classic_maps(lines, model, prior_std_mev, SHOWN_SIGMA, context)
    found = limit_maps(held, model, context.material, lines.fit.usable, values, mode_status)
    told = classic_covariance(
        lines, model, context.material, found.identifiability, classic_peaks.electrons_per_unit(context),
        whole=settings.covariance_maps,
    )  # fmt: skip
    noise_told, sentence = classic_peaks.noise_summary(values, lines)
    return found, told, lines.fit.usable, lines.fit.status, STATUS_WORDS, noise_told, sentence


def _model_at_own_temperature(
    image: SpectrumImage, scan: dict[str, Any], settings: FitPeaks, context: StepContext
) -> ForwardModel | None:
    """Return the model whose zero-loss shape, shared energies and widths belong to the temperature of the scan; None: the stage's.

    Widths and tails that were fitted at a wrong temperature have taken up part of what it does to the spectrum and would pull the
    positions back to it: where scan and stage differ by more than a deviation they are fitted again, before anything else of the
    size of the scan is held.
    """
    stage = image.acquisition.temperature_k or ROOM_TEMPERATURE_K
    if not settings.thermometry_positions or scan["status"] != "ok" or abs(scan["value"] - stage) <= scan["std"]:
        return None
    own = image.with_(acquisition=replace(image.acquisition, temperature_k=scan["value"]))
    return pool(own, prepare(own, settings, context), settings, context)[0]


def _add_temperatures(
    maps: xr.Dataset, single: TemperatureMap | None, warm: ForwardModel, settings: FitPeaks
) -> tuple[dict[str, Any], tuple[str, ...]]:
    if single is None:
        return {}, ()
    told, words = add_temperatures(maps, single)
    # Each temperature has tables of its own: the one that is written is of no account.
    return {**told, "temperature_model": describe(warm, settings, thermal_energy_mev(ROOM_TEMPERATURE_K))}, words


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

    def with_response(vacuum: VacuumReference | None) -> Prepared:
        mean_model = MeanModel(
            settings, material, channels, image.energy.dispersion_mev, response, thermal, places, vacuum
        )
        mean = fit_mean(mean_model, total[0] / n, np.maximum(squares[0], 1e-12) / n**2)
        model = build_forward_model(
            settings, material, channels, image.energy.dispersion_mev, mean.zero_loss, thermal,
            energies_mev=mean.energies_fit_mev, fwhm_mev=mean.fwhm_mev,
            shift_e=0.0 if classic else image.noise.read_noise_e**2, background_shape=(mean.ramp_e, mean.bend),
            noise_correlation=image.noise.noise_correlation, vacuum=vacuum, lorentzian_share=mean.lorentzian_share,
        )  # fmt: skip
        return Prepared(model, mean_model, mean, alignment, _relative_counts(mean, context, image.shape[:2]), thermal)

    prepared = with_response(vacuum)
    if vacuum is None or settings.vacuum_fit == "before":
        return prepared
    return with_response(joint_response(image, prepared, settings, context))


def from_zero_loss(settings: FitPeaks, context: StepContext) -> FitPeaks:
    """Return the settings with fixed energies counted from the zero-loss centre, as the fit does, and not from a calibrated zero."""
    zero = true_zero(context)[0]
    energies = {name: energy + zero for name, energy in settings.fixed_energies_mev.items()}
    return settings.model_copy(update={"fixed_energies_mev": energies})


def _line_share(mean: MeanFit, settings: FitPeaks) -> dict[str, Any]:
    """Return what the summary says of the Lorentzian share of lines that have one, on the forward route."""
    if mean.zero_loss is None or settings.line_shape not in ("pseudo_voigt", "voigt"):
        return {}
    held, std = settings.lorentzian_share is not None, mean.lorentzian_share_std
    status = "fixed" if held else ("fitted" if np.isfinite(std) else "at bound")
    return {"lorentzian_share": quantity(mean.lorentzian_share, std, "1", status)}


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


def _relative_counts(mean: MeanFit, context: StepContext, shape: tuple[int, int]) -> np.ndarray:
    """Return each position's zero-loss counts over their mean; ones where the zero-loss peak is not fitted."""
    if mean.zero_loss is None:
        return np.ones(shape)
    counts = np.asarray(context.maps["align_zlp"]["zlp_counts"].values)
    return np.asarray(np.nan_to_num(counts / np.nanmean(counts), nan=1.0))


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
    if settings.thermometry_positions and context.route == "classic":
        messages.append("fit_peaks.thermometry_positions is of the forward route: no temperature was measured")
    if settings.scale_std_by_chi2:
        messages.append(f"deviations of positions are {SENTENCE}; statuses, bounds and tables are not")
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
