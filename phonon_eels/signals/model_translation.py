"""HyperSpy's components in the words of the component fit, and back: exact, or refused with the name of the component.

HyperSpy's functions are densities over the axis where it is binned, else values at the channels; the fit's areas are sums over
channels, its widths full ones, its energies meV. An exponential and a power law have their amplitude at the middle of the window
here and at 0 or 1 unit there, so both parameters of such a component and their covariance make HyperSpy's amplitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phonon_eels.component_fit.model import Component
from phonon_eels.errors import ConfigError
from phonon_eels.units import FWHM_PER_SIGMA

SUPPORTED = ("Gaussian", "Lorentzian", "Voigt", "PowerLaw", "Exponential", "Offset", "Polynomial")


@dataclass(frozen=True)
class Axis:
    """The axis that both speak of.

    Attributes
    ----------
    mev_per_unit
        1000 for an axis in eV.
    step
        Width of a channel, in units of the axis.
    middle, half
        Middle and half width of the fitted window, in units of the axis.
    lowest
        First fitted channel, in units of the axis.
    electrons_per_value
        What 1 of a HyperSpy function is in electrons per channel.
    dark_level
        Detector counts per channel without electrons, as electrons.
    """

    mev_per_unit: float
    step: float
    middle: float
    half: float
    lowest: float
    electrons_per_value: float
    dark_e: float = 0.0


Back = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass
class Translation:
    """One component in both languages.

    Attributes
    ----------
    alone
        HyperSpy's parameter → (the fit's parameter, factor, offset): fit = factor · HyperSpy + offset.
    together
        HyperSpy's parameters that only all of the fit's together give, in the order in which `back` returns them.
    back
        Values (…, parameters of the fit) → HyperSpy's values and their derivatives (…, HyperSpy's, the fit's).
    constants
        HyperSpy's parameters that must not be fitted, and keep their value.
    """

    theirs: Any
    kind: str
    alone: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    together: tuple[str, ...] = ()
    ours_together: tuple[str, ...] = ()
    back: Back | None = None
    forth: Callable[[np.ndarray], np.ndarray] | None = None
    constants: tuple[str, ...] = ()
    degree: int = 1


def translation(component: Any, axis: Axis) -> Translation:
    """Return the translation of a component of a HyperSpy model.

    Raises
    ------
    ConfigError
        If the fit has no such component, or not with these parameters.
    """
    made = _TRANSLATIONS.get(type(component).__name__)
    if made is None or not type(component).__module__.startswith("hyperspy._components"):
        raise ConfigError(
            f"the component {component.name!r} is a {type(component).__name__}, which the fit does not know; it knows HyperSpy's "
            f"{', '.join(SUPPORTED)}. Set its `active` to False, replace it, or fit with model.multifit()"
        )
    return made(component, axis)


def _area(axis: Axis) -> float:
    return axis.electrons_per_value / axis.step


def _gaussian(component: Any, axis: Axis) -> Translation:
    wide = FWHM_PER_SIGMA * axis.mev_per_unit
    return Translation(component, "gaussian", {
        "A": ("area", _area(axis), 0.0), "centre": ("centre", axis.mev_per_unit, 0.0), "sigma": ("fwhm", wide, 0.0),
    })  # fmt: skip


def _lorentzian(component: Any, axis: Axis) -> Translation:
    return Translation(component, "lorentzian", {
        "A": ("area", _area(axis), 0.0), "centre": ("centre", axis.mev_per_unit, 0.0),
        "gamma": ("fwhm", 2.0 * axis.mev_per_unit, 0.0),
    })  # fmt: skip


def _voigt(component: Any, axis: Axis) -> Translation:
    return Translation(component, "voigt", {
        "area": ("area", _area(axis), 0.0), "centre": ("centre", axis.mev_per_unit, 0.0),
        "sigma": ("fwhm_gauss", FWHM_PER_SIGMA * axis.mev_per_unit, 0.0),
        "gamma": ("fwhm_lorentz", 2.0 * axis.mev_per_unit, 0.0),
    })  # fmt: skip


def _offset(component: Any, axis: Axis) -> Translation:
    return Translation(component, "offset", {"offset": ("value", axis.electrons_per_value, -axis.dark_e)})


def _power_law(component: Any, axis: Axis) -> Translation:
    if component.origin.free or component.origin.twin is not None or component.origin.value != 0.0:
        raise ConfigError(
            f"{component.name}.origin must be fixed at 0: the fit's power law begins there; set origin.value = 0 and "
            "origin.free = False"
        )
    if component.left_cutoff.value >= axis.lowest or axis.lowest <= 0.0:
        raise ConfigError(
            f"{component.name} begins at {max(component.left_cutoff.value, 0.0):g}, inside the fitted range that begins at {axis.lowest:g}; "
            "cut the range with model.set_signal_range"
        )
    size, log_middle = axis.electrons_per_value, float(np.log(axis.middle))

    def back(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        amplitude, exponent = values[..., 0], values[..., 1]
        grown = np.exp(exponent * log_middle) / size
        slopes = [[grown, amplitude * grown * log_middle], [np.zeros_like(grown), np.ones_like(grown)]]
        return np.stack([amplitude * grown, exponent], -1), _matrix(slopes)

    def forth(values: np.ndarray) -> np.ndarray:
        return np.array([values[0] * size * np.exp(-values[1] * log_middle), values[1]])

    return Translation(component, "power_law", {}, ("A", "r"), ("amplitude", "exponent"), back, forth,
                       constants=("origin", "left_cutoff"))  # fmt: skip


def _exponential(component: Any, axis: Axis) -> Translation:
    size, unit, middle = axis.electrons_per_value, axis.mev_per_unit, axis.middle

    def back(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        amplitude, rate = values[..., 0], values[..., 1] * unit
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            grown, tau = np.exp(rate * middle) / size, 1.0 / rate
            slopes = [[grown, amplitude * grown * middle * unit], [np.zeros_like(grown), -unit * tau**2]]
            return np.stack([amplitude * grown, tau], -1), _matrix(slopes)

    def forth(values: np.ndarray) -> np.ndarray:
        rate = 1.0 / values[1]
        return np.array([values[0] * size * np.exp(-rate * middle), rate / unit])

    return Translation(component, "exponential", {}, ("A", "tau"), ("amplitude", "rate"), back, forth)


def _polynomial(component: Any, axis: Axis) -> Translation:
    names = sorted((parameter.name for parameter in component.parameters), key=lambda name: int(name[1:]))
    degree = len(names) - 1
    if degree > 6:
        raise ConfigError(f"{component.name} has order {degree}; the fit takes polynomials up to order 6")
    # Σ c_k ((x - middle) / half)^k = size Σ a_k x^k, so a = matrix c.
    matrix = np.zeros((degree + 1, degree + 1))
    for k in range(degree + 1):
        power = np.polynomial.Polynomial([-axis.middle / axis.half, 1.0 / axis.half]) ** k
        matrix[: k + 1, k] = np.asarray(power.coef, dtype=float) / axis.electrons_per_value

    def back(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values @ matrix.T, np.broadcast_to(matrix, (*values.shape, degree + 1))

    def forth(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.solve(matrix, values))

    ours = tuple(f"c{k}" for k in range(degree + 1))
    return Translation(component, "polynomial", {}, tuple(names), ours, back, forth, degree=degree)


def _matrix(rows: list[list[np.ndarray]]) -> np.ndarray:
    return np.stack([np.stack(row, -1) for row in rows], -2)


_TRANSLATIONS: dict[str, Callable[[Any, Axis], Translation]] = {
    "Gaussian": _gaussian,
    "Lorentzian": _lorentzian,
    "Voigt": _voigt,
    "PowerLaw": _power_law,
    "Exponential": _exponential,
    "Offset": _offset,
    "Polynomial": _polynomial,
}


def component_of(told: Translation, name: str, ties: dict[str, Any]) -> Component:
    """Return the fit's component: values as starts, bounds, fixed parameters; those in `ties` follow others.

    Raises
    ------
    ConfigError
        If its bounds or fixed parameters cannot be said of the fit's parameters.
    """
    start: dict[str, float] = {}
    bounds: dict[str, tuple[float, float]] = {}
    fixed: list[str] = []
    for theirs, (ours, factor, offset) in told.alone.items():
        parameter = getattr(told.theirs, theirs)
        value = factor * _value(parameter) + offset
        limits = _limits(parameter, ours, factor, offset)
        if limits is not None:
            bounds[ours] = limits
        if ours in ties:
            continue
        if not parameter.free:
            start[ours] = value
            fixed.append(ours)
        elif ours not in ("area", "value"):
            # Widths may come with a sign, and a value outside its bounds is no start.
            low, high = limits or (-np.inf, np.inf)
            start[ours] = min(max(abs(value) if ours.startswith("fwhm") else value, low), high)
    if told.together:
        _together(told, start, bounds, fixed)
    return Component(told.kind, name, start, bounds, tuple(fixed), ties, told.degree)


def _together(
    told: Translation, start: dict[str, float], bounds: dict[str, tuple[float, float]], fixed: list[str]
) -> None:
    component, forth = told.theirs, told.forth
    assert forth is not None
    parameters = [getattr(component, name) for name in told.together]
    for parameter in parameters:
        if parameter.twin is not None:
            raise ConfigError(
                f"{component.name}.{parameter.name} is a twin, which the fit can have of peaks and offsets only; set twin = None"
            )
    free = [bool(parameter.free) for parameter in parameters]
    values = forth(np.array([_value(parameter) for parameter in parameters], dtype=float))
    if not any(free):
        start.update(zip(told.ours_together, map(float, values), strict=True))
        fixed.extend(told.ours_together)
        return
    if told.kind == "polynomial":
        if not all(free) or any(_bounded(parameter) for parameter in parameters):
            raise ConfigError(
                f"{component.name}: the fit takes a Polynomial with all coefficients free and without bounds, or all of them fixed"
            )
        return
    size, shape = parameters
    if size.bmax is not None or size.bmin not in (None, 0, 0.0):
        raise ConfigError(
            f"{component.name}.A: the fit can keep an amplitude positive, but no other bounds of it; set bmin = 0 or None and "
            f"bmax = None, they are {size.bmin} and {size.bmax}"
        )
    if not size.free:
        raise ConfigError(f"{component.name}.A is fixed and {shape.name} is not; fix both or let A be free")
    if np.isfinite(values[1]):
        start[told.ours_together[1]] = float(values[1])
    if not shape.free:
        fixed.append(told.ours_together[1])
    elif told.kind == "power_law":
        bounds["exponent"] = _ordered(shape.bmin, shape.bmax, -30.0, 30.0)
    elif _bounded(shape):
        bounds["rate"] = _rate_bounds(component, shape, values[1])
    if not shape.free or told.ours_together[1] not in bounds:
        return
    low, high = bounds[told.ours_together[1]]
    start[told.ours_together[1]] = min(max(start.get(told.ours_together[1], low), low), high)


def _rate_bounds(component: Any, tau: Any, rate: float) -> tuple[float, float]:
    low, high = tau.bmin, tau.bmax
    if low is None or low < 0.0 or (high is not None and high <= low):
        raise ConfigError(
            f"{component.name}.tau: bounds must be positive, for its inverse is fitted; they are {low} and {high}"
        )
    # In the fit's unit: rate is that of the starting value.
    unit = rate * tau.value
    return (0.0 if high is None else unit / high), (100.0 * abs(rate) if low == 0.0 else unit / low)


def _bounded(parameter: Any) -> bool:
    return parameter.bmin is not None or parameter.bmax is not None


def _limits(parameter: Any, ours: str, factor: float, offset: float) -> tuple[float, float] | None:
    """Return the bounds in the fit's unit, None where the fit's own hold: no zero is a width."""
    low = None if parameter.bmin is None else factor * parameter.bmin + offset
    high = None if parameter.bmax is None else factor * parameter.bmax + offset
    if ours.startswith("fwhm"):
        least = 0.0 if ours == "fwhm_lorentz" else None
        if low is None or low <= 0.0:
            return None if high is None else (1e-3 * high if least is None else least, high)
        return low, np.inf if high is None else high
    if low is None and high is None and ours != "area":
        return None
    return _ordered(low, high, -np.inf, np.inf)  # HyperSpy lets a peak without bounds be negative


def _ordered(low: float | None, high: float | None, lowest: float, highest: float) -> tuple[float, float]:
    return (lowest if low is None else float(low)), (highest if high is None else float(high))


def _value(parameter: Any) -> float:
    """Return the one value of a parameter; a fixed one may have no other at some positions."""
    if parameter.free or parameter.twin is not None or parameter.map is None or not parameter.map["is_set"].any():
        return float(parameter.value)
    values = parameter.map["values"][parameter.map["is_set"]]
    if not np.all(values == values[0]):
        raise ConfigError(
            f"{parameter.component.name}.{parameter.name} is fixed at different values at different positions; the fit knows one "
            "value for the scan: let it be free, or assign one with parameter.assign_current_value_to_all()"
        )
    return float(values[0])
