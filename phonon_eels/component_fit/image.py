"""Components fitted to a spectrum image: maps with units, a table of means, and what there is to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phonon_eels.backends.base import Backend, Progress
from phonon_eels.component_fit.fit import fit_components, refit_components
from phonon_eels.component_fit.model import AMPLITUDES, WIDTHS, Component, Tie, build_model
from phonon_eels.component_fit.result import STATUS_WORDS, ComponentFit
from phonon_eels.component_fit.where import positions_where
from phonon_eels.config.components import FitSettings, TieSettings
from phonon_eels.errors import ConfigError, DataError
from phonon_eels.kernels.likelihood import AT_BOUND
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.maps import count_status, mark_masked, scan_dataset

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FIGURES = ("deviance", "pearson_chi2", "p_value", "n_channels", "evaluations")


def components_of(settings: FitSettings) -> list[Component]:
    """Return the components that settings describe."""
    found = []
    for name, told in settings.components.items():
        ties = {
            parameter: Tie(tie.to, tie.factor, tie.offset) if isinstance(tie, TieSettings) else Tie(tie)
            for parameter, tie in told.tied.items()
        }
        found.append(
            Component(told.kind, name, told.start, told.bounds, told.fixed, ties, told.degree, priors=told.priors)
        )
    return found


def fit_image(
    image: SpectrumImage,
    components: Sequence[Component],
    *,
    likelihood: Literal["poisson", "least_squares"] = "poisson",
    window_mev: tuple[float, float] | None = None,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> StepResult:
    """Fit components to every position of a spectrum image.

    Parameters
    ----------
    image
        Counts, (rows, columns, channels). Masked channels and positions take no part.
    likelihood
        poisson: with the image's gain, dark level and read noise (where the image carries variances: chi-squared with these).
        least_squares: channels weigh alike, and deviations are scaled by the scatter around the fit.

    Returns
    -------
    StepResult
        Maps ``<component>_<parameter>`` with ``_std``, figures of the fit and ``status``; table ``parameters`` with means.

    Raises
    ------
    ConfigError, DataError
        As `fit_components`.
    """
    fit = fit_components(image.counts, image.energy.energies_mev, components, backend=backend, progress=progress,
                         **_arguments(image, likelihood, window_mev), rescale=likelihood == "least_squares")  # fmt: skip
    return _result(image, fit, components, likelihood)


def refit_image(
    image: SpectrumImage,
    components: Sequence[Component],
    before: StepResult,
    where: str,
    *,
    likelihood: Literal["poisson", "least_squares"] = "poisson",
    window_mev: tuple[float, float] | None = None,
    backend: Backend | None = None,
) -> tuple[StepResult, int, int]:
    """Fit the positions of an earlier result that an expression chooses again, from several starts; the others keep their bits.

    Parameters
    ----------
    before
        What `fit_image` returned for the same image and components.
    where
        Such as ``status != converged``; see `phonon_eels.component_fit.where.positions_where`.

    Returns
    -------
    result, chosen, changed
        The new result, and numbers of positions.

    Raises
    ------
    ConfigError
        If the expression cannot be read, or the fit was by least squares.
    DataError
        If the earlier result is of another scan or of other components.
    """
    if likelihood == "least_squares":
        raise ConfigError(
            "where: deviations of a fit by least_squares are scaled by its own scatter; fit it again as a whole"
        )
    fit = _fit_of(before, image, components, window_mev)
    chosen = positions_where(fit, where)
    if image.masked is not None:
        chosen &= ~image.masked
    again = refit_components(fit, where, image.counts, image.energy.energies_mev, components, backend=backend,
                             **_arguments(image, likelihood, window_mev))  # fmt: skip
    changed = int((again.deviance != fit.deviance)[chosen].sum())
    return _result(image, again, components, likelihood), int(chosen.sum()), changed


def map_name(parameter: str) -> str:
    """Return the name of a parameter's map: ``peak.centre`` is ``peak_centre_mev``."""
    component, _, word = parameter.rpartition(".")
    unit = "_mev" if word == "centre" or word in WIDTHS else "_per_mev" if word in ("rate", "rate_2") else ""
    return f"{component}_{word}{unit}"


def _arguments(image: SpectrumImage, likelihood: str, window_mev: tuple[float, float] | None) -> dict[str, Any]:
    noise = image.noise
    if likelihood == "poisson" and noise.denoised:
        raise DataError(
            "the spectra were denoised, their noise is not Poisson any more; fit raw counts, or say least_squares"
        )
    bad = image.bad
    if image.masked is not None:
        masked = np.broadcast_to(image.masked[..., None], image.shape)
        bad = masked if bad is None else bad | masked
    told: dict[str, Any] = {"bad": bad, "window_mev": window_mev}
    if likelihood == "least_squares":
        return {**told, "likelihood": "gaussian", "variance": noise.gain**2, "gain": noise.gain,
                "dark_level": noise.dark_level}  # fmt: skip
    if image.variance is not None:
        return {**told, "likelihood": "gaussian", "variance": image.variance, "gain": noise.gain,
                "dark_level": noise.dark_level}  # fmt: skip
    return {**told, "gain": noise.gain, "dark_level": noise.dark_level, "read_noise_e": noise.read_noise_e}


def _result(image: SpectrumImage, fit: ComponentFit, components: Sequence[Component], likelihood: str) -> StepResult:
    maps, units = _maps(image, fit, components)
    usable = fit.usable if image.masked is None else fit.usable & ~image.masked
    model = fit.model
    summary = {
        "status_counts": count_status(fit.status, STATUS_WORDS),
        "likelihood": likelihood,
        "free_parameters": list(model.free_names),
        "window_mev": [float(model.energies_mev[0]), float(model.energies_mev[-1])],
        "reference_mev": model.reference_mev,
        "scale_mev": model.scale_mev,
        "noise": {"gain": image.noise.gain, "dark_level": image.noise.dark_level,
                  "read_noise_e": image.noise.read_noise_e},
    }  # fmt: skip
    tables = {"parameters": _means(fit, usable, units)}
    result = StepResult(maps=maps, tables=tables, summary=summary, messages=_messages(image, fit, usable, likelihood))
    return mark_masked(result, image)


def _maps(image: SpectrumImage, fit: ComponentFit, components: Sequence[Component]) -> tuple[xr.Dataset, list[str]]:
    """Return the maps, and the unit of every parameter."""
    counts = "electrons" if image.noise.source.get("gain", "assumed") != "assumed" else "counts"
    kinds = {component.name: component.kind for component in components}
    units = [_unit(name, kinds[name.rpartition(".")[0]], counts) for name in fit.names]
    values: dict[str, tuple[np.ndarray, str]] = {}
    for k, name in enumerate(fit.names):
        values[map_name(name)] = fit.values[..., k], units[k]
        values[f"{map_name(name)}_std"] = fit.std[..., k], units[k]
    values |= {name: (np.asarray(getattr(fit, name)), "1") for name in FIGURES}
    dataset = scan_dataset(image, values, fit.status, STATUS_WORDS)
    for name in fit.names:
        dataset[map_name(name)].attrs["long_name"] = name
    for name, kind in kinds.items():
        dataset.attrs[f"component_{name}"] = f"{kind}: {_formula(kind, fit)}"
    return dataset, units


def _unit(name: str, kind: str, counts: str) -> str:
    word = name.rpartition(".")[2]
    if word == "area":
        return counts
    if word in AMPLITUDES or (kind == "polynomial"):
        return f"{counts} per channel"
    if word == "centre" or word in WIDTHS:
        return "meV"
    return "1/meV" if word in ("rate", "rate_2") else "1"


def _formula(kind: str, fit: ComponentFit) -> str:
    reference, scale = f"{fit.model.reference_mev:.10g} meV", f"{fit.model.scale_mev:.10g} meV"
    exponential = f"amplitude exp(-rate (E - {reference}))"
    u = f"u = (E - {reference}) / {scale}"
    words = {
        "power_law": f"amplitude (E / {reference})^-exponent",
        "exponential": exponential,
        "double_exponential": f"{exponential} + the same with amplitude_2, rate_2",
        "polynomial": f"sum of c_k u^k, {u}",
        "exp_polynomial": f"exp of the sum of c_k u^k, {u}",
        "offset": "value",
    }
    return words.get(kind, "area is the sum over all channels")


def _means(fit: ComponentFit, usable: np.ndarray, units: Sequence[str]) -> pd.DataFrame:
    """Return a row per parameter: mean over the usable positions, its counting deviation, the scatter between positions.

    The deviation of the mean is made of those positions that have one, all others (at a bound) taken for as uncertain.
    """
    import pandas as pd

    rows = []
    owner = fit.model.owner
    for k, name in enumerate(fit.names):
        values, std = fit.values[usable, k], fit.std[usable, k]
        known = np.isfinite(std)
        n = values.size
        role = "fixed" if owner[k] < 0 else "free" if owner[k] == k else f"tied to {fit.names[owner[k]]}"
        rows.append(
            {
                "parameter": map_name(name),
                "unit": units[k],
                "role": role,
                "mean": float(values.mean()) if n else np.nan,
                "mean_std": float(np.sqrt(np.square(std[known]).mean() / known.sum())) if known.any() else np.nan,
                "scatter": float(values.std(ddof=1)) if n > 1 else np.nan,
                "median": float(np.median(values)) if n else np.nan,
                "median_std_of_a_position": float(np.median(std[known])) if known.any() else np.nan,
                "positions": n,
                "positions_with_std": int(known.sum()),
            }
        )
    return pd.DataFrame(rows)


def _messages(image: SpectrumImage, fit: ComponentFit, usable: np.ndarray, likelihood: str) -> tuple[str, ...]:
    messages = []
    if likelihood == "poisson" and image.variance is None and image.noise.source.get("gain", "assumed") == "assumed":
        messages.append(
            "the detector's gain is not known: counts are taken for electrons, so deviations are right only if they are; set "
            "acquisition.gain (and dark_level, read_noise_e), or likelihood: least_squares"
        )
    if likelihood == "poisson" and image.noise.noise_correlation > 1.05:
        messages.append(
            f"neighbouring channels share noise (true gain {image.noise.noise_correlation:.2f} times that of a single channel): "
            "deviations of this fit do not know that, those of fit_peaks do"
        )
    free = fit.model.free.size
    if likelihood == "poisson" and usable.any():
        per_dof = float(np.median(fit.pearson_chi2[usable] / np.maximum(fit.n_channels[usable] - free, 1.0)))
        if per_dof > 1.5:
            messages.append(
                f"the components do not describe the spectra: median chi-squared {per_dof:.3g} per degree of freedom; deviations are "
                "too small; look at the window, the shapes and the noise model"
            )
    lost = int((~usable).sum()) - (0 if image.masked is None else int(image.masked.sum()))
    if lost:
        messages.append(f"{lost} of {usable.size} positions have no usable fit; the map status says why")
    held = int(((fit.status == AT_BOUND) & usable).sum())
    if held:
        messages.append(
            f"{held} of {usable.size} positions end with a parameter at its bound, without a deviation of it: no such peak there, or "
            "bounds that are too narrow"
        )
    return tuple(messages)


def _fit_of(
    before: StepResult, image: SpectrumImage, components: Sequence[Component], window_mev: tuple[float, float] | None
) -> ComponentFit:
    """Return the fit that maps were made of."""
    energies = image.energy.energies_mev
    if window_mev is not None:
        energies = energies[(energies >= window_mev[0]) & (energies <= window_mev[1])]
    model = build_model(components, energies)
    maps: Mapping[Any, Any] = {} if before.maps is None else before.maps
    wanted = [map_name(name) for name in model.names]
    if any(name not in maps for name in (*wanted, "status")) or maps["status"].shape != image.shape[:2]:
        raise DataError("the earlier result is of another scan or of other components; fit it again as a whole")
    values, std = (np.stack([np.asarray(maps[f"{name}{end}"].values) for name in wanted], -1) for end in ("", "_std"))
    figures = {name: np.asarray(maps[name].values) for name in FIGURES}
    status = np.asarray(maps["status"].values).astype(np.int16)
    status = np.where(status < len(STATUS_WORDS), status, STATUS_WORDS.index("no_data")).astype(np.int16)
    return ComponentFit(model=model, values=values, std=std, covariance=None, status=status, **figures)
