"""HyperSpy models fitted by the component fit: the same components, every position, values and deviations stored in the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phonon_eels.component_fit.fit import fit_components
from phonon_eels.component_fit.model import Tie
from phonon_eels.component_fit.result import ComponentFit
from phonon_eels.errors import ConfigError
from phonon_eels.signals.model_translation import Axis, Translation, component_of, translation
from phonon_eels.units import MEV_PER_ENERGY_UNIT

if TYPE_CHECKING:
    from hyperspy.models.model1d import Model1D

    from phonon_eels.backends.base import Backend, Progress


def fit_model(
    model: Model1D,
    *,
    likelihood: Literal["poisson", "least_squares"] = "poisson",
    gain: float = 1.0,
    dark_level: float = 0.0,
    read_noise_e: float = 0.0,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> ComponentFit:
    """Fit a HyperSpy model at every position, in place of ``model.multifit()``.

    Read from the model are its active components (Gaussian, Lorentzian, Voigt, PowerLaw, Exponential, Offset, Polynomial) with values,
    bounds (always kept; where HyperSpy has none, energies stay in the fitted range and widths between half a channel and
    that range), fixed and twinned parameters, and the signal range. Values and deviations are written into the maps of the
    parameters, as `multifit` does, so that ``model.plot()``, ``model.as_signal()`` and ``parameter.plot()`` work.

    Parameters
    ----------
    likelihood
        poisson: counts, with the three numbers below. least_squares: as `multifit` fits; with the variance of the signal's
        metadata where there is one, else all channels weigh alike and deviations come from the scatter around the fit.
    gain, dark_level, read_noise_e
        Counts per electron, counts per channel without electrons (an Offset must hold them), electrons.

    Returns
    -------
    ComponentFit
        The same in electrons and meV, with status, deviance and p-value at every position; `status_words` are
        `phonon_eels.component_fit.result.STATUS_WORDS`. Positions without a usable fit are NaN in the model, `is_set` False.

    Raises
    ------
    ConfigError
        If the model holds what the fit does not know; the message names the component.
    DataError
        If the mean spectrum has too few usable channels.

    Examples
    --------
    >>> model = s.create_model(); model.extend([Gaussian(), Offset()])  # doctest: +SKIP
    >>> fit = phonon_eels.fit_model(model); model.plot()  # doctest: +SKIP
    """
    _check_model(model)
    told = [component for component in model if component.active]
    used = np.flatnonzero(model._channel_switches)
    if not told or used.size < 2:
        raise ConfigError(
            "the model has no active component or no channel to fit; append one, or model.reset_signal_range()"
        )
    axis, energies = _axis(model, used, gain, dark_level)
    translations = [translation(component, axis) for component in told]
    _check_dark(translations, dark_level)
    names = {id(entry.theirs): f"k{number}" for number, entry in enumerate(translations)}
    components = [
        component_of(entry, names[id(entry.theirs)], _ties(entry, translations, names)) for entry in translations
    ]
    counts, variance = _counts(model)
    bad = None if used.size == used[-1] - used[0] + 1 else np.broadcast_to(~model._channel_switches, counts.shape)
    edges = (energies[used[0]], energies[used[-1]])
    arguments: dict[str, Any] = {"gain": gain, "dark_level": dark_level}
    if likelihood == "poisson":
        arguments |= {"read_noise_e": read_noise_e}
    else:
        arguments |= {"likelihood": "gaussian", "variance": gain**2 if variance is None else variance}
    fit = fit_components(
        counts, energies, components, bad=bad, window_mev=edges, covariance=any(entry.back is not None for entry in translations), backend=backend, progress=progress,
        rescale=likelihood == "least_squares" and variance is None, **arguments,
    )  # fmt: skip
    for entry in translations:
        _store(model, fit, entry, names[id(entry.theirs)])
    _store_figures(model, fit)
    model.fetch_stored_values()
    return fit


def _check_model(model: Model1D) -> None:
    axis = model.axis
    if not axis.is_uniform:
        raise ConfigError(
            "the model's signal axis is not uniform; interpolate the signal first (signal.interpolate_on_axis)"
        )
    if axis.scale <= 0.0:
        raise ConfigError(f"the model's signal axis descends (scale {axis.scale:g}); reverse it first, as s.isig[::-1]")
    if getattr(model, "_convolved", False):
        raise ConfigError(
            "the model is convolved with a low-loss spectrum, which the fit is not; set model.convolved = False"
        )
    for component in model:
        if component.active_is_multidimensional:
            raise ConfigError(
                f"{component.name} is active at some positions only; set its active_is_multidimensional to False"
            )


def _axis(model: Model1D, used: np.ndarray, gain: float, dark_level: float) -> tuple[Axis, np.ndarray]:
    """Return what both languages share, and the energies of all channels in meV (units of the axis, if it is none of energy)."""
    axis = model.axis
    unit = MEV_PER_ENERGY_UNIT.get(str(axis.units), 1.0)
    energies = np.asarray(axis.axis, dtype=float) * unit
    first, last = energies[used[0]] / unit, energies[used[-1]] / unit
    per_value = (float(axis.scale) if axis.is_binned else 1.0) / gain
    middle, half = 0.5 * (first + last), 0.5 * (last - first)
    return Axis(unit, float(axis.scale), middle, half, first, per_value, dark_level / gain), energies


def _check_dark(translations: list[Translation], dark_level: float) -> None:
    offsets = [entry for entry in translations if entry.kind == "offset"]
    if dark_level != 0.0 and len(offsets) != 1:
        raise ConfigError(
            f"dark_level = {dark_level:g}: one Offset of the model must hold it, there are {len(offsets)}"
        )


def _counts(model: Model1D) -> tuple[Any, Any]:
    """Return (positions, channels) of counts, and of their variance (or a number, or None)."""
    signal = model.signal
    where = signal.axes_manager.signal_axes[0].index_in_array

    def spectra(array: Any) -> Any:
        moved = array if where == array.ndim - 1 else np.moveaxis(array, where, -1)
        if hasattr(moved, "rechunk"):
            moved = moved.rechunk({moved.ndim - 1: -1})
        return moved if moved.ndim in (2, 3) else moved.reshape(-1, moved.shape[-1])

    variance = signal.get_noise_variance()
    if hasattr(variance, "data"):
        variance = spectra(variance.data)
    return spectra(signal.data), variance


def _ties(entry: Translation, every: list[Translation], names: dict[int, str]) -> dict[str, Tie]:
    """Return the parameters of a component that are twins, and what they follow."""
    places = {
        id(getattr(other.theirs, theirs)): (names[id(other.theirs)], ours, factor, offset)
        for other in every
        for theirs, (ours, factor, offset) in other.alone.items()
    }
    ties = {}
    for theirs, (ours, factor, offset) in entry.alone.items():
        parameter = getattr(entry.theirs, theirs)
        root, slope, shift = parameter, 1.0, 0.0
        while root.twin is not None:
            own_slope, own_shift = _straight(root)
            slope, shift, root = slope * own_slope, slope * own_shift + shift, root.twin
        if root is parameter:
            continue
        if id(root) not in places:
            raise ConfigError(
                f"{entry.theirs.name}.{theirs} is a twin of {root.component.name}.{root.name}, which the fit cannot tie to; twins are "
                "of peaks and offsets that are active"
            )
        name, word, their_factor, their_offset = places[id(root)]
        # fit = factor (slope · root + shift) + offset, and root = (fit's root - its offset) / its factor.
        grown = factor * slope / their_factor
        ties[ours] = Tie(f"{name}.{word}", grown, factor * shift + offset - grown * their_offset)
    return ties


def _straight(parameter: Any) -> tuple[float, float]:
    """Return slope and shift of a parameter's twin function.

    Raises
    ------
    ConfigError
        If it is no straight line.
    """
    function = parameter._twin_function
    if function is None:
        return 1.0, 0.0
    low, one, two, far = (float(function(x)) for x in (0.0, 1.0, 2.0, -7.5))
    slope = one - low
    if not np.allclose([two, far], [low + 2.0 * slope, low - 7.5 * slope], rtol=1e-9, atol=1e-12):
        raise ConfigError(
            f"{parameter.component.name}.{parameter.name}: the twin function {parameter.twin_function_expr!r} is no straight line, as "
            "'2 * x + 1' is"
        )
    return slope, low


def _store(model: Model1D, fit: ComponentFit, entry: Translation, name: str) -> None:
    for theirs, (ours, factor, offset) in entry.alone.items():
        values = (fit.value(f"{name}.{ours}") - offset) / factor
        _store_one(model, fit, getattr(entry.theirs, theirs), values, fit.value_std(f"{name}.{ours}") / abs(factor))
    if entry.back is not None:
        numbers = [fit.model.number(f"{name}.{ours}") for ours in entry.ours_together]
        values, slopes = entry.back(fit.values[..., numbers])
        std = _together_std(fit, numbers, slopes)
        for k, theirs in enumerate(entry.together):
            _store_one(model, fit, getattr(entry.theirs, theirs), values[..., k], std[..., k])
    for theirs in entry.constants:
        parameter = getattr(entry.theirs, theirs)
        _store_one(
            model, fit, parameter, np.full(fit.status.shape, float(parameter.value)), np.full(fit.status.shape, np.nan)
        )


def _together_std(fit: ComponentFit, numbers: list[int], slopes: np.ndarray) -> np.ndarray:
    """Return the deviations of what several parameters give together; NaN where one of them has none."""
    assert fit.covariance is not None
    place = {int(p): k for k, p in enumerate(fit.model.free)}
    chosen = [k for k, number in enumerate(numbers) if number in place]
    if not chosen:
        return np.full(slopes.shape[:-1], np.nan)
    rows = [place[numbers[k]] for k in chosen]
    matrix = fit.covariance[..., rows, :][..., rows]
    used = slopes[..., chosen]
    counted = np.where(used[..., :, None] * used[..., None, :] == 0.0, 0.0, matrix[..., None, :, :])
    variance = np.einsum("...ia,...iab,...ib->...i", used, counted, used)
    with np.errstate(invalid="ignore"):
        std = np.sqrt(variance)
    return np.where((used != 0.0).any(axis=-1), std, np.nan)


def _store_one(model: Model1D, fit: ComponentFit, parameter: Any, values: np.ndarray, std: np.ndarray) -> None:
    shape = tuple(model.axes_manager._navigation_shape_in_array) or (1,)
    usable = (fit.usable & np.isfinite(values)).reshape(shape)
    parameter._create_array()
    parameter.map["values"] = np.where(usable, values.reshape(shape), np.nan)
    parameter.map["std"] = np.where(usable, std.reshape(shape), np.nan)
    parameter.map["is_set"] = usable


def _store_figures(model: Model1D, fit: ComponentFit) -> None:
    """Fill HyperSpy's maps of chi-squared and of the number of fitted parameters."""
    shape = model.chisq.data.shape
    model.chisq.data = fit.pearson_chi2.reshape(shape)
    model.dof.data = np.full(shape, fit.model.free.size, dtype=model.dof.data.dtype)
