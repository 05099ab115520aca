"""Classic route: lines of the chosen shape and a background, fitted to the loss spectrum of every position."""

from __future__ import annotations

import numpy as np

from phonon_eels.component_fit.fit import fit_problem
from phonon_eels.component_fit.model import Component, Tie, build_model
from phonon_eels.component_fit.passes import TOLERANCE, Problem, mean_spectrum
from phonon_eels.component_fit.result import ComponentFit
from phonon_eels.component_fit.start import fit_mean
from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import ConfigError, DataError
from phonon_eels.forward.model import ForwardModel
from phonon_eels.kernels.likelihood import GAUSSIAN
from phonon_eels.kernels.lineshapes import voigt_widths
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.classic_noise import NoisyFit, SpectrumNoise, spectrum_noise, with_noise
from phonon_eels.steps.position_fits import pooled_settings
from phonon_eels.steps.spec import StepContext

MODE_OK, MODE_PRIOR, MODE_VANISHED, MODE_FAILED, MODE_FIXED = 0, 1, 2, 3, 4
BACKGROUNDS = {"constant": ("offset", 0), "linear": ("polynomial", 1), "exp_polynomial": ("exp_polynomial", 2)}
SHAPE_PARAMETERS = ("fwhm", "fwhm_gauss", "fwhm_lorentz", "fraction")


def classic_components(
    model: ForwardModel, settings: FitPeaks, prior_std_mev: np.ndarray, held: dict[str, float] | None
) -> list[Component]:
    """Return one peak per mode and the background.

    Parameters
    ----------
    model
        Its energies and widths, pooled over the scan, are where the fit starts.
    held
        Shape parameters that every position keeps, "mode.parameter" → value; None: they are fitted.
    """
    kind = settings.line_shape
    parameters = Component(kind, "any").parameters
    components = []
    parts = (0.6, 0.6) if settings.lorentzian_share is None else voigt_widths(1.0, settings.lorentzian_share)
    priors = prior_std_mev if model.recipe is None else model.recipe.own_prior_std(prior_std_mev)
    for m, name in enumerate(model.mode_names):
        width, energy = float(model.fwhm_mev[m]), float(model.mode_energies_mev[m])
        start = {
            "centre": energy,
            "fwhm": width,
            "fwhm_gauss": parts[1] * width,
            "fwhm_lorentz": parts[0] * width,
            "fraction": 0.5,
        }
        bounds = {
            "area": (-np.inf, np.inf),  # clipping would bias every sum over positions
            "centre": (float(model.bounds_mev[m, 0]), float(model.bounds_mev[m, 1])),
            "fwhm": (0.3 * width, 3.0 * width),
            "fwhm_gauss": (min(0.1, 0.5 * parts[1]) * width, 3.0 * width),
            "fwhm_lorentz": (0.0, 5.0 * parts[0] * width),
        }
        shapes = {p: held[f"{name}.{p}"] for p in parameters if p in SHAPE_PARAMETERS} if held is not None else {}
        values, ties = _held_energy(model, m)
        if held is None:
            shapes, tied_shapes = _held_shape(kind, name, model, settings)
            ties |= tied_shapes
        values |= shapes
        start |= values
        prior = float(priors[m])
        components.append(
            Component(
                kind, name, {p: v for p, v in start.items() if p in parameters},
                {p: b for p, b in bounds.items() if p in parameters}, tuple(values), ties,
                priors={"centre": (energy, prior)} if np.isfinite(prior) else {},
            )
        )  # fmt: skip
    if settings.background != "none":
        shape, degree = BACKGROUNDS.get(settings.background, (settings.background, 0))
        components.append(Component(shape, "background", degree=degree))
    return components


def _held_energy(model: ForwardModel, mode: int) -> tuple[dict[str, float], dict[str, Tie]]:
    """Return what a recipe fixes, parameter → value, and what it ties, of a mode's energy."""
    recipe = model.recipe
    if recipe is None or recipe.owner[mode] == mode:
        return {}, {}
    distance = float(recipe.offset_mev[mode])
    if recipe.fixed[mode]:
        return {"centre": distance}, {}
    return {}, {"centre": Tie(f"{model.mode_names[recipe.owner[mode]]}.centre", offset=distance)}


def _held_shape(
    kind: str, name: str, model: ForwardModel, settings: FitPeaks
) -> tuple[dict[str, float], dict[str, Tie]]:
    """Return what a recipe fixes and what it ties of a line's width and shape, where they are fitted.

    Raises
    ------
    ConfigError
        If a Voigt line's width is fixed without its Lorentzian share.
    """
    share, fixed = settings.lorentzian_share, settings.fixed_fwhm_mev.get(name)
    group = next((group for group in settings.same_fwhm if name in group), ())
    leader = next((other for other in group if other in model.mode_names), name)
    if kind != "voigt":
        values = {"fraction": share} if kind == "pseudo_voigt" and share is not None else {}
        values |= {} if fixed is None else {"fwhm": fixed}
        return values, {} if leader == name else {"fwhm": Tie(f"{leader}.fwhm")}
    if fixed is not None:
        if share is None:
            raise ConfigError(
                f"fit_peaks.fixed_fwhm_mev of the Voigt line {name} needs fit_peaks.lorentzian_share on the classic route, which fits "
                "the widths of its two parts"
            )
        lorentzian, gaussian = voigt_widths(fixed, share)
        return {"fwhm_lorentz": lorentzian, "fwhm_gauss": gaussian}, {}
    ties = {} if leader == name else {p: Tie(f"{leader}.{p}") for p in ("fwhm_lorentz", "fwhm_gauss")}
    if share is not None:
        lorentzian, gaussian = voigt_widths(1.0, share)
        ties["fwhm_gauss"] = Tie(f"{leader}.fwhm_lorentz", factor=gaussian / lorentzian)
    return {}, ties


def classic_problem(
    image: SpectrumImage, model: ForwardModel, prior_std_mev: np.ndarray, settings: FitPeaks, context: StepContext
) -> Problem:
    """Return what is fitted at every position: least squares with the variance that the steps before have carried.

    Widths and other shape parameters are the scan's, unless `position_widths` asks for them at every position: those pooled
    over the positions where that pass knows the line shape and the background, else those of the mean spectrum.
    Raises
    ------
    DataError
        If the image carries no variance.
    """
    if image.variance is None:
        raise DataError(
            "fit_peaks on the classic route needs a loss spectrum with its variance, as subtract_zlp writes it; "
            "run subtract_zlp, or set align_zlp.alignment to resample"
        )
    zero = round(image.energy.channel(0.0))
    first = model.first_channel + zero
    energies = image.energy.energies_mev[first : first + model.energies_mev.size]
    free = build_model(classic_components(model, settings, prior_std_mev, None), energies)
    bad = image.bad
    if image.masked is not None:
        masked = image.masked[..., None]
        bad = np.broadcast_to(masked, image.counts.shape) if bad is None else bad | masked
    problem = Problem(
        free, image.counts, bad, image.variance, np.ones(energies.size), first, image.noise.gain,
        image.noise.dark_level, 0.0, GAUSSIAN, TOLERANCE, 5 * settings.max_iterations,
    )  # fmt: skip
    if not settings.position_widths:
        mean, spread = mean_spectrum(problem, context.backend)
        found = dict(zip(free.names, fit_mean(free, mean, spread), strict=True))
        pooled = {f"{name}.fwhm": float(model.fwhm_mev[m]) for m, name in enumerate(model.mode_names)}
        if pooled_settings(settings) == settings:
            found |= pooled
        held = build_model(classic_components(model, settings, prior_std_mev, found), energies)
        problem = Problem(**{**vars(problem), "model": held})
    return problem


def fit_classic_positions(problem: Problem, context: StepContext, kept: np.ndarray) -> NoisyFit:
    """Fit every position; deviations are those of the noise that the steps before have left, shared between channels.

    Parameters
    ----------
    kept
        Numbers of the parameters whose covariance is kept.
    """
    alone = known_noise(problem, context) is None  # else the covariance is made anew with the noise
    fit = fit_problem(problem, context.backend, covariance=alone and kept.size > 0, progress=context.progress)
    return noisy(fit, problem, context, kept)


def known_noise(problem: Problem, context: StepContext) -> SpectrumNoise | None:
    """Return what is known of the noise of the fitted channels."""
    return spectrum_noise(context, slice(problem.first, problem.first + problem.mask.size))


def noisy(fit: ComponentFit, problem: Problem, context: StepContext, kept: np.ndarray) -> NoisyFit:
    """Return a fit with the deviations that hold for its spectra."""
    return with_noise(fit, problem, known_noise(problem, context), context.backend, kept)


def electrons_per_unit(context: StepContext) -> float:
    """Return what turns areas into electrons: after `normalise`, those of the scan's typical zero-loss peak; else 1."""
    told = context.summaries.get("normalise", {}).get("normaliser_median")
    value = float(told["value"]) if told else 1.0
    return value if np.isfinite(value) and value > 0.0 else 1.0


def classic_maps(
    found: NoisyFit, model: ForwardModel, prior_std_mev: np.ndarray, vanished_sigma: float, context: StepContext
) -> tuple[dict[str, tuple[np.ndarray, str]], np.ndarray]:
    """Return maps of energies, areas and shapes with deviations, and the status of every mode at every position.

    Areas of normalised spectra are given in electrons at the scan's typical zero-loss peak, so that what normalising has taken
    away between positions stays away. Beside each deviation stands what a fit of independent channels would quote
    (``_naive_std``), and what the deconvolution does to a peak put in at each mode (``_syst``).
    """
    fit, per_unit = found.fit, electrons_per_unit(context)
    good = fit.usable

    def maps_of(word: str, source: np.ndarray | None = None) -> np.ndarray:
        places = [fit.model.number(f"{name}.{word}") for name in model.mode_names]
        return np.moveaxis((fit.values if source is None else source)[..., places], 2, 0)

    energy, energy_std, naive = (maps_of("centre", source) for source in (None, fit.std, found.naive_std))
    area, area_std, area_naive = (per_unit * maps_of("area", source) for source in (None, fit.std, found.naive_std))
    significant = (area > vanished_sigma * area_std) & np.isfinite(energy_std)
    prior = prior_std_mev if model.recipe is None else model.recipe.prior_std(prior_std_mev)
    by_prior = energy_std > 0.5 * prior[:, None, None]
    status = np.where(significant, np.where(by_prior, MODE_PRIOR, MODE_OK), MODE_VANISHED)
    if model.recipe is not None:
        status[(area > vanished_sigma * area_std) & model.recipe.fixed[:, None, None]] = MODE_FIXED
    status = np.where(good & np.isfinite(area), status, MODE_FAILED)
    shown = (status <= MODE_PRIOR) | (status == MODE_FIXED)
    bias, lost = _deconvolution_bias(model, context)
    values = {
        "apparent_energy_mev": (np.where(shown, energy, np.nan), "meV"),
        "apparent_energy_mev_std": (np.where(shown, energy_std, np.nan), "meV"),
        "apparent_energy_mev_naive_std": (np.where(shown, naive, np.nan), "meV"),
        "apparent_energy_mev_syst": (np.where(shown, bias[:, None, None], np.nan), "meV"),
        "area_e": (np.where(good, area, np.nan), "electrons"),
        "area_e_std": (np.where(good, area_std, np.nan), "electrons"),
        "area_e_naive_std": (np.where(good, area_naive, np.nan), "electrons"),
        "area_e_syst": (np.where(good, lost[:, None, None] * np.abs(area), np.nan), "electrons"),
    }
    units = {"fwhm": "meV", "fwhm_gauss": "meV", "fwhm_lorentz": "meV", "fraction": "1"}
    for word, unit in units.items():
        if f"{model.mode_names[0]}.{word}" in fit.names:
            key = "lorentzian_fraction" if word == "fraction" else f"{word}_mev"
            for suffix, source in (("", None), ("_std", fit.std)):
                values[f"{key}{suffix}"] = (np.where(shown, maps_of(word, source), np.nan), unit)
    middle = _background_at_middle(fit)
    values["background_e"] = (np.where(good, per_unit * middle[0], np.nan), "electrons/channel")
    values["background_e_std"] = (np.where(good, per_unit * middle[1], np.nan), "electrons/channel")
    dof = np.maximum(fit.n_channels - fit.model.free.size, 1)
    values["deviance_per_dof"] = (np.where(good, fit.pearson_chi2 / dof, np.nan), "1")
    values["p_value"] = (np.where(good, fit.p_value, np.nan), "1")
    if found.known:
        values["apparent_energy_mev_crb"] = (_finite(maps_of("centre", found.bound), good), "meV")
        values["area_e_crb"] = (_finite(per_unit * maps_of("area", found.bound), good), "electrons")
    return values, status


def _finite(bound: np.ndarray, good: np.ndarray) -> np.ndarray:
    return np.where(good & np.isfinite(bound), bound, np.nan)


def _deconvolution_bias(model: ForwardModel, context: StepContext) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much the injected peaks were displaced (meV) and which share of their areas was lost, (modes,); NaN if unknown."""
    table = context.tables.get("deconvolve", {}).get("injected_peak")
    rows = {} if table is None else {str(row["mode"]): row for row in table.to_dict("records")}
    unknown = {"position_bias_mev": np.nan, "area_ratio": np.nan}
    found = [rows.get(name, unknown) for name in model.mode_names]
    bias = np.array([abs(float(row["position_bias_mev"])) for row in found])
    return bias, np.array([abs(1.0 - float(row["area_ratio"])) for row in found])


def noise_summary(values: dict[str, tuple[np.ndarray, str]], found: NoisyFit) -> tuple[dict[str, object], str]:
    """Return what the summary and the messages say of the deviations."""
    if not found.known:
        return {"std": "naive: channels taken as independent"}, (
            "no step has told how channels share noise: deviations and p-values take them as independent, so after a resampling or "
            "a deconvolution they are too small"
        )
    with np.errstate(invalid="ignore"):
        ratio = values["apparent_energy_mev_std"][0] / values["apparent_energy_mev_naive_std"][0]
    told = [float(np.median(own[np.isfinite(own)])) for own in ratio if np.isfinite(own).any()]
    summary: dict[str, object] = {"std": "noise shared between channels propagated", "std_over_naive": told}
    if not told:
        return summary, "deviations hold the noise that channels share"
    return summary, (
        f"deviations hold the noise that resampling, subtraction and deconvolution made channels share: those of energies are "
        f"{min(told):.2f} to {max(told):.2f} times what independent channels would give (kept in _naive_std). They say nothing of the "
        f"bias of this route: _syst holds that of the deconvolution, none that of the background's windows"
    )


def _background_at_middle(fit: ComponentFit) -> tuple[np.ndarray, np.ndarray]:
    """Return the background in the middle of the window, and its deviation where one parameter makes it."""
    for word in ("value", "c0", "amplitude"):
        if f"background.{word}" not in fit.names:
            continue
        value, std = fit.value(f"background.{word}"), fit.value_std(f"background.{word}")
        if "background.amplitude_2" in fit.names:
            return value + fit.value("background.amplitude_2"), np.full_like(std, np.nan)
        logarithm = word == "c0" and fit.model.amplitude[fit.model.number("background.c0"), 0] == 2
        return (np.exp(value), np.exp(value) * std) if logarithm else (value, std)
    return np.zeros(fit.status.shape), np.zeros(fit.status.shape)
