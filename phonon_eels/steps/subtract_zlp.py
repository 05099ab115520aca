"""Subtract the tail of the zero-loss peak (and any smooth background) from under the phonons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.errors import DataError
from phonon_eels.kernels.background_shapes import MAX_PARAMETERS
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.background_ensemble import Member, differences, make_members, spread
from phonon_eels.steps.background_models import (
    NEED_LOSS_SIDE,
    SHAPES,
    Background,
    compare,
    make_background,
)
from phonon_eels.steps.background_reference import Reference, measured_reference
from phonon_eels.steps.background_windows import fit_windows, loss_image, output_channels, overlap_messages
from phonon_eels.steps.carried_noise import enough_draws, moved_fractions, resampled_noise, with_draws
from phonon_eels.steps.instrument import (
    block_variance,
    count_unit,
    half_width_channels,
    mean_spectrum,
    mean_variance,
    zero_loss_fwhm_mev,
)
from phonon_eels.steps.maps import count_status, scan_dataset
from phonon_eels.steps.mirrored_gain import subtract_mirrored_gain
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.config.settings import SubtractZlp
    from phonon_eels.spectrum_image import SpectrumImage

MEANINGS = ("ok", "ok_parameter_at_bound", "not_converged", "too_few_channels", "no_counts")
COMPARED_POSITIONS = 100
"""Positions, spread evenly over the scan, on which shapes are compared."""

PARAMETER_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "pearson7": (("height", ""), ("width_mev", "meV"), ("exponent", "1"), ("centre_mev", "meV")),
    "log_quadratic": (("log_height", "1"), ("slope", "1"), ("curvature", "1")),
    "power_law": (("height", ""), ("exponent", "1")),
    "exponential": (("height", ""), ("rate_per_mev", "1/meV")),
    "double_exponential": (
        ("height", ""), ("rate_per_mev", "1/meV"), ("second_height", ""), ("second_rate_per_mev", "1/meV"),
    ),
    **{f"exp_polynomial{d}": tuple((f"log_term{k}", "1") for k in range(d + 1)) for d in (2, 3, 4)},
    "reference": (("height", ""), ("shift_mev", "meV"), ("log_width", "1")),
}  # fmt: skip
"""Parameter and unit by method; an empty unit is that of the image per channel."""


@dataclass(frozen=True)
class BackgroundFit:
    """Parameters (rows, columns, 5), their covariances (rows, columns, 25), the rest (rows, columns).

    `area_syst` is what other windows and shapes make of the area, NaN without an ensemble.
    """

    parameters: np.ndarray
    covariance: np.ndarray
    status: np.ndarray
    area: np.ndarray
    area_std: np.ndarray
    area_syst: np.ndarray


@dataclass(frozen=True)
class Plan:
    """What all positions share."""

    background: Background
    members: tuple[Member, ...]
    out: slice
    half_width: int
    reference: Reference | None

    @property
    def shown_mev(self) -> np.ndarray:
        """Energies of the loss spectrum."""
        return np.ascontiguousarray(self.background.energies_mev[self.out])


def subtract_zlp(image: SpectrumImage, settings: SubtractZlp, context: StepContext) -> StepResult:
    """Fit a background to windows of every spectrum and subtract it; negative values are kept.

    Parameters
    ----------
    image
        Aligned spectra (zero-loss peak at 0 meV), (rows, columns, channels).

    Returns
    -------
    StepResult
        Loss spectrum in ``output_window_mev`` with the variance of the counts plus that of the background (their
        covariance inside the windows is neglected), plus, with an ensemble, what other windows and shapes change. Maps:
        parameters with std, ``background_counts`` (sum over the output channels) with std and the systematic part apart,
        ``status``. Table ``models``: how well each shape describes and predicts the windows.

    Raises
    ------
    DataError
        If the spectra are not aligned, or the windows or the reference do not fit the energy axis.

    Notes
    -----
    ``pearson7`` follows the published group recipe with its one-sided weights: where noise counts, the background comes
    out below the truth. That is the recipe, not a fault of the fit; the other shapes are weighted by the variance.
    """
    if context.summaries.get("align_zlp", {}).get("alignment") == "coordinate":
        raise DataError(
            "subtract_zlp needs spectra whose zero-loss peak is at 0 meV, but align_zlp.alignment was coordinate "
            "(counts untouched); set align_zlp.alignment to resample"
        )
    if settings.method == "mirrored_gain":
        return subtract_mirrored_gain(image, settings, context)
    windows, messages = fit_windows(image.energy, settings)
    messages += overlap_messages(windows, image.energy, context.material)
    fwhm = zero_loss_fwhm_mev(image, context)
    half_width = half_width_channels(fwhm, image)
    reference = measured_reference(image, settings, half_width, context) if settings.method == "reference" else None
    energies = image.energy.energies_mev
    background = make_background(settings.method, energies, windows, None if reference is None else reference.table)
    models = None
    if settings.compare_models or settings.ensemble == "windows_and_models":
        models = _compare(image, background, windows, half_width, fwhm)
        messages.append(_verdict(models, settings.method))
    members = make_members(background, windows, settings.ensemble, models)
    plan = Plan(background, members, output_channels(image.energy, settings), half_width, reference)
    fit = _fit(image, context, plan)
    counts, variance = _subtracted(image, context, plan, fit)
    result = loss_image(image, counts, variance, plan.out)
    messages += _messages(fit, plan)
    maps = scan_dataset(image, _map_values(settings.method, fit, count_unit(context)), fit.status, MEANINGS)
    maps = _with_noise(maps, image, plan, fwhm, context)
    maps.attrs["reference_mev"] = background.reference_mev
    summary: dict[str, Any] = {
        "method": settings.method,
        "windows_mev": [[float(energies[w.start]), float(energies[w.stop - 1])] for w in windows],
        "output_window_mev": [result.energy.offset_mev, result.energy.last_mev],
        "reference_mev": background.reference_mev,
        "ensemble": {"scope": settings.ensemble, "members": len(members)},
        "status_counts": count_status(fit.status, MEANINGS),
    }
    if models is not None:
        summary["best_model"] = str(models["method"].iloc[0])
    tables = {} if models is None else {"models": models}
    return StepResult(image=result, maps=maps, tables=tables, summary=summary, messages=tuple(messages))


def _with_noise(
    maps: xr.Dataset, image: SpectrumImage, plan: Plan, fwhm_mev: float, context: StepContext
) -> xr.Dataset:
    """Add draws of the noise of a loss spectrum: that of the counts, less the background that each draw lets fit.

    The noise of the background is common to many channels, and inside the windows it is that of the counts themselves; neither is
    in a variance per channel. Differences of an ensemble enter with either sign.
    """
    mean, carried = mean_spectrum(image, context) - image.noise.dark_level, mean_variance(image, fwhm_mev)
    if image.noise.denoised or not np.isfinite(mean).all():
        return maps
    status, parameters, covariance = plan.background.fit(mean, carried, None)
    if status > 1:
        return maps
    shown, rng = plan.shown_mev, np.random.default_rng([context.seed, 22])
    value, own, _ = plan.background.curve(parameters, covariance, shown)
    total = carried[plan.out] + own
    draws = []
    moved, number = moved_fractions(context, image), enough_draws(shown.size)
    correlated = image.noise.noise_correlation
    for noise in resampled_noise(rng, carried, moved, number, correlated, backend=context.backend):
        status, found, _ = plan.background.fit(mean + noise, carried, None)
        if status <= 1:
            draws.append(noise[plan.out] - plan.background.curve(found, covariance, shown)[0] + value)
    after = np.array(draws)
    if plan.reference is not None:  # common to all positions, in the variance of each
        common = parameters[0] ** 2 * plan.reference.variance_at(shown)
        after, total = after + np.sqrt(common) * rng.standard_normal(after.shape), total + common
    others = differences(plan.members, mean, carried, None, value, shown)
    if others:
        worst = max((own.rows for own in others.values()), key=lambda rows: float(np.mean(rows**2)))
        signs = rng.choice((-1.0, 1.0), (after.shape[0], 1))
        after = after + signs * worst[rng.integers(len(worst), size=after.shape[0])]
        total = total + spread(plan.members, mean, carried, None, value, shown)[0]
    return with_draws(maps, after, total)


def _compare(
    image: SpectrumImage, background: Background, windows: list[slice], half_width: int, fwhm_mev: float
) -> pd.DataFrame:
    """Compare all shapes that the windows allow on positions spread evenly over the scan."""
    rows, columns = image.shape[:2]
    places = np.unique(np.linspace(0, rows * columns - 1, min(COMPARED_POSITIONS, rows * columns)).astype(int))
    spectra, variances = [], []
    for row in np.unique(places // columns):
        inside = places[places // columns == row] % columns
        counts = np.asarray(image.counts[row : row + 1])[:, inside]
        given = None if image.variance is None else np.asarray(image.variance[row : row + 1])[:, inside]
        variances.append(block_variance(counts, given, image.noise, half_width)[0])
        spectra.append(np.asarray(counts[0], dtype=np.float64) - image.noise.dark_level)
    positive = background.energies_mev[background.channels].min() > 0.0
    shapes = {
        method: make_background(method, background.energies_mev, windows, background.table)
        for method in SHAPES
        if (positive or method not in NEED_LOSS_SIDE) and (method != "reference" or background.method == "reference")
    }
    block = max(round(fwhm_mev / image.energy.dispersion_mev), 2)
    return compare(shapes, np.concatenate(spectra), np.concatenate(variances), block)


def _verdict(models: pd.DataFrame, method: str) -> str:
    best = models.iloc[0]
    own = models[models["method"] == method].iloc[0]
    held = "held_out_chi2_per_channel"
    sentence = (
        f"background {method}: chi-squared {own['chi2_per_dof']:.2f} per degree of freedom in its windows, {own[held]:.3g} per "
        f"channel on channels held out"
    )
    if best["method"] == method:
        return f"{sentence}; the best of {len(models)} shapes by AIC"
    return (
        f"{sentence}; by AIC {best['method']} describes the windows better (by {own['delta_aic']:.1f} per spectrum, "
        f"{best[held]:.3g} per channel held out): see the table models"
    )


def _messages(fit: BackgroundFit, plan: Plan) -> list[str]:
    messages = []
    bad = int((fit.status > 1).sum())
    if bad:
        messages.append(f"the background could not be fitted at {bad} of {fit.status.size} positions: NaN there")
    at_bound = int((fit.status == 1).sum())
    if at_bound:
        messages.append(
            f"at {at_bound} of {fit.status.size} positions a parameter of the background ended on its bound; "
            f"far from the peak these shapes leave their parameters undetermined, the background itself is used"
        )
    if plan.reference is not None:
        messages.append(plan.reference.message)
    if plan.members and np.isfinite(fit.area_syst).any():
        ratio = float(np.nanmedian(fit.area_syst / fit.area_std))
        messages.append(
            f"other windows and shapes ({len(plan.members)} fits per position) change the background's area by "
            f"{ratio:.1f} of its counting std (median); this is in the variance, and apart in background_counts_syst"
        )
    return messages


def _fit(image: SpectrumImage, context: StepContext, plan: Plan) -> BackgroundFit:
    """Fit every position; positions do not know of each other."""
    shown, dark = plan.shown_mev, image.noise.dark_level

    def block(_first: int, counts: np.ndarray, variance: np.ndarray | None, bad: np.ndarray | None) -> BackgroundFit:
        rows, columns, n = counts.shape
        spreads = block_variance(counts, variance, image.noise, plan.half_width)
        spectra = np.asarray(counts, dtype=np.float64) - dark
        status, parameters, covariance, area = plan.background.fit_block(
            context.backend, shown, spectra.reshape(-1, n), np.asarray(spreads).reshape(-1, n),
            None if bad is None else bad.reshape(-1, n),
        )  # fmt: skip
        whole = area[:, 0].reshape(rows, columns)
        area_syst = np.full((rows, columns), np.nan)
        for at in np.ndindex(rows, columns) if plan.members else ():
            if np.isfinite(whole[at]):
                mask = None if bad is None else bad[at]
                k = at[0] * columns + at[1]
                value = plan.background.curve(parameters[k], covariance[k], shown)[0]
                area_syst[at] = np.sqrt(spread(plan.members, spectra[at], spreads[at], mask, value, shown)[1])
        return BackgroundFit(
            parameters.reshape(rows, columns, -1), covariance.reshape(rows, columns, -1),
            status.reshape(rows, columns).astype(np.int16), whole, np.sqrt(area[:, 1]).reshape(rows, columns), area_syst,
        )  # fmt: skip

    blocks = context.backend.map_rows(block, [image.counts, image.variance, image.bad], progress=context.progress)
    names = ("parameters", "covariance", "status", "area", "area_std", "area_syst")
    return BackgroundFit(*(np.concatenate([getattr(part, name) for part in blocks]) for name in names))


def _subtracted(image: SpectrumImage, context: StepContext, plan: Plan, fit: BackgroundFit) -> tuple[Any, Any]:
    """Return the lazy cubes of the loss spectrum and its variance."""
    dark, shown, out = image.noise.dark_level, plan.shown_mev, plan.out

    def counts_block(counts: np.ndarray, parameters: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        result = np.empty((*counts.shape[:2], shown.size), dtype=np.float32)
        for at in np.ndindex(counts.shape[:2]):
            value = plan.background.curve(parameters[at], covariance[at], shown)[0]
            result[at] = np.asarray(counts[at][out], dtype=np.float64) - dark - value
        return result

    def variance_block(
        counts: np.ndarray,
        variance: np.ndarray | None,
        bad: np.ndarray | None,
        parameters: np.ndarray,
        covariance: np.ndarray,
    ) -> np.ndarray:
        spreads = block_variance(counts, variance, image.noise, plan.half_width)
        result = np.empty((*counts.shape[:2], shown.size), dtype=np.float32)
        for at in np.ndindex(counts.shape[:2]):
            value, own, _ = plan.background.curve(parameters[at], covariance[at], shown)
            total = spreads[at][out] + own
            if plan.reference is not None:
                total = total + parameters[at][0] ** 2 * plan.reference.variance_at(shown)
            if plan.members and np.isfinite(value).all():
                spectrum = np.asarray(counts[at], dtype=np.float64) - dark
                mask = None if bad is None else bad[at]
                total = total + spread(plan.members, spectrum, spreads[at], mask, value, shown)[0]
            result[at] = total
        return result

    map_cube, n = context.backend.map_cube, shown.size
    fitted = [fit.parameters, fit.covariance]
    counts = map_cube(counts_block, [image.counts, *fitted], dtype=np.float32, n_channels=n)
    cubes = [image.counts, image.variance, image.bad if plan.members else None, *fitted]
    variance = map_cube(variance_block, cubes, dtype=np.float32, n_channels=n)
    return counts, variance


def _map_values(method: str, fit: BackgroundFit, unit: str) -> dict[str, tuple[np.ndarray, str]]:
    """Return the maps; the logarithms that the Pearson VII is fitted with are turned back."""
    values: dict[str, tuple[np.ndarray, str]] = {}
    for number, (name, own_unit) in enumerate(PARAMETER_NAMES[method]):
        value = fit.parameters[..., number]
        std = np.sqrt(np.maximum(fit.covariance[..., (MAX_PARAMETERS + 1) * number], 0.0))
        if method == "pearson7" and number < 2:
            value = np.exp(value)
            std = std * value
        # A parameter held on its bound has no variance of its own: unknown, not exactly known.
        values[f"background_{name}"] = (value, own_unit or f"{unit}/channel")
        values[f"background_{name}_std"] = (np.where(std > 0.0, std, np.nan), own_unit or f"{unit}/channel")
    values["background_counts"] = (fit.area, unit)
    values["background_counts_std"] = (fit.area_std, unit)
    if np.isfinite(fit.area_syst).any():
        values["background_counts_syst"] = (fit.area_syst, unit)
    return values


SUBTRACT_ZLP = StepSpec(
    name="subtract_zlp",
    run=subtract_zlp,
    routes=("classic",),
    makes={"background_counts": "detector counts, or 1 after normalise"},
    needs=("align_zlp", "normalise"),
    bytes_per_channel=48.0,
    reference="two-window fit: doi:10.1038/s41467-021-21452-5 and its public code (ruishiqi/EELS)",
)
