"""A list of components made into the table that the kernels read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from phonon_eels.backends.components import LANES
from phonon_eels.errors import ConfigError
from phonon_eels.kernels import components as kinds

LARGEST_DEGREE = 6
MOST_PEAKS = 8

_PEAK = {
    "gaussian": (kinds.GAUSSIAN, ("area", "centre", "fwhm")),
    "lorentzian": (kinds.LORENTZIAN, ("area", "centre", "fwhm")),
    "pseudo_voigt": (kinds.PSEUDO_VOIGT, ("area", "centre", "fwhm", "fraction")),
    "voigt": (kinds.VOIGT, ("area", "centre", "fwhm_gauss", "fwhm_lorentz")),
    "oscillator": (kinds.OSCILLATOR, ("area", "centre", "fwhm")),
}
_BACKGROUND = {
    "offset": ((kinds.POLYNOMIAL, ("value",)),),
    "power_law": ((kinds.POWER_LAW, ("amplitude", "exponent")),),
    "exponential": ((kinds.EXPONENTIAL, ("amplitude", "rate")),),
    "double_exponential": (
        (kinds.EXPONENTIAL, ("amplitude", "rate")),
        (kinds.EXPONENTIAL, ("amplitude_2", "rate_2")),
    ),
}
_BY_DEGREE = {"polynomial": kinds.POLYNOMIAL, "exp_polynomial": kinds.EXP_POLYNOMIAL}
KINDS = (*_PEAK, *_BACKGROUND, *_BY_DEGREE)
"""Names of all kinds of component."""

AMPLITUDES = ("area", "amplitude", "amplitude_2", "value")
WIDTHS = ("fwhm", "fwhm_gauss", "fwhm_lorentz")


@dataclass(frozen=True)
class Tie:
    """A parameter that follows another: factor · other + offset.

    Attributes
    ----------
    to
        "component.parameter" it follows: the same FWHM is ``Tie("a.fwhm")``, a fixed separation of 4 meV
        ``Tie("a.centre", offset=4.0)``, a fixed ratio ``Tie("a.area", factor=2.0)``.
    """

    to: str
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Component:
    """One peak or one background.

    Attributes
    ----------
    kind
        gaussian, lorentzian, pseudo_voigt, voigt, oscillator; offset, polynomial, power_law, exponential, double_exponential,
        exp_polynomial. Their formulas are in `phonon_eels.kernels.components`.
    name
        Name of the component; its parameters are called ``name.parameter``.
    start
        Starting values. Peaks need `centre` and their FWHM; areas, amplitudes and coefficients are found from the data.
    bounds
        Parameter → (low, high), always kept. Default: areas and amplitudes ≥ 0, centres in the window, widths from half
        a channel to the window.
    fixed
        Parameters that keep their start.
    tied
        Parameters that follow another one.
    degree
        Of a polynomial or of the exponential of one.
    priors
        Parameter → (mean, standard deviation) of a Gaussian prior.
    """

    kind: str
    name: str
    start: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    fixed: Sequence[str] = ()
    tied: Mapping[str, Tie] = field(default_factory=dict)
    degree: int = 1
    priors: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def pieces(self) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Rows of the kernels' table: kind and parameters of each."""
        if self.kind in _PEAK:
            return (_PEAK[self.kind],)
        if self.kind in _BACKGROUND:
            return _BACKGROUND[self.kind]
        if self.kind not in _BY_DEGREE:
            raise ConfigError(f"component {self.name}: kind = {self.kind!r} is none of {', '.join(KINDS)}")
        if not 0 <= self.degree <= LARGEST_DEGREE:
            raise ConfigError(f"component {self.name}: degree = {self.degree} must be 0 to {LARGEST_DEGREE}")
        return ((_BY_DEGREE[self.kind], tuple(f"c{k}" for k in range(self.degree + 1))),)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters, without the component's."""
        return tuple(name for _, names in self.pieces for name in names)

    @property
    def is_peak(self) -> bool:
        """True of peaks, False of backgrounds."""
        return self.kind in _PEAK


@dataclass(frozen=True)
class ComponentModel:
    """Components on one energy axis, as the kernels take them.

    Attributes
    ----------
    names
        "component.parameter" of every parameter.
    table, owner, affine
        As `kernels.components.evaluate_components` takes them.
    bounds
        (4, parameters): lower, upper, mean and precision of the prior.
    start
        (parameters,); NaN where the data must tell.
    amplitude
        (parameters, 2): 1 for areas and amplitudes, 2 for the logarithm of one, else 0, as where it is fixed: it must not follow the
        counts of a position; and the parameter that scales it, or -1.
    energies_mev
        Centres of the channels, (channels,).
    reference_mev, scale_mev
        u = (E - reference) / scale.
    channel_mev
        Width of a channel: areas are in counts, so that their sum over the channels is the area.
    peaks
        Index of every peak's area.
    """

    names: tuple[str, ...]
    table: np.ndarray
    owner: np.ndarray
    affine: np.ndarray
    bounds: np.ndarray
    start: np.ndarray
    amplitude: np.ndarray
    energies_mev: np.ndarray
    reference_mev: float
    scale_mev: float
    channel_mev: float
    peaks: tuple[int, ...]

    @property
    def free(self) -> np.ndarray:
        """Indices of the free parameters."""
        return np.flatnonzero(self.owner == np.arange(self.owner.size))

    @property
    def free_names(self) -> tuple[str, ...]:
        """Names of the free parameters."""
        return tuple(self.names[p] for p in self.free)

    @property
    def index(self) -> np.ndarray:
        """Rows of the free parameters, filled up to a multiple of four with the zero row, one group to spare."""
        free = self.free
        return np.concatenate([free, np.full((-free.size) % 4 + 4, self.owner.size)]).astype(np.int64)

    @property
    def axis(self) -> np.ndarray:
        """Energy, distance, u and logarithm of every channel, filled up to a multiple of `LANES`."""
        x = self.energies_mev
        beyond = np.arange(1, (-x.size) % LANES + 1)  # on the same steps, so that an even axis stays even
        x = np.concatenate([x, x[-1] + beyond * (x[-1] - x[0]) / max(x.size - 1, 1)])
        distance = x - self.reference_mev
        with np.errstate(invalid="ignore", divide="ignore"):
            logarithm = np.log(x / self.reference_mev) if self.has(kinds.POWER_LAW) else np.zeros_like(x)
        return np.stack([x, distance, distance / self.scale_mev, logarithm])

    def has(self, kind: int) -> bool:
        """Return whether a component of this kind is in the table."""
        return bool((self.table[:, 0] == kind).any())

    def with_tied(self, values: np.ndarray) -> np.ndarray:
        """Return values, (…, parameters), with those of tied parameters set."""
        out = np.array(values)
        for p in np.flatnonzero((self.owner >= 0) & (self.owner != np.arange(self.owner.size))):
            out[..., p] = self.affine[p, 0] * out[..., self.owner[p]] + self.affine[p, 1]
        return out

    def holding(self, parameter: int) -> ComponentModel:
        """Return the model with one more parameter fixed; those tied to it still follow."""
        owner = self.owner.copy()
        owner[parameter] = -1
        return replace(self, owner=owner)

    def number(self, name: str) -> int:
        """Return the index of a parameter.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        if name not in self.names:
            raise ConfigError(f"parameter {name!r} is none of {', '.join(self.names)}")
        return self.names.index(name)


def build_model(
    components: Sequence[Component],
    energies_mev: np.ndarray,
    reference_mev: float | None = None,
    scale_mev: float | None = None,
) -> ComponentModel:
    """Make the table of a list of components.

    Parameters
    ----------
    energies_mev
        Centres of the channels, ascending; need not be evenly spaced (then areas are integrals over energy).
    reference_mev
        Reference energy of the backgrounds; default the middle of the axis.
    scale_mev
        Scale of u; default half the axis.

    Raises
    ------
    ConfigError
        If a name, a bound or a tie makes no sense; the message says which.
    """
    energies = np.asarray(energies_mev, dtype=float)
    steps = np.diff(energies)
    if energies.ndim != 1 or energies.size < 2 or not (steps > 0.0).all():
        raise ConfigError("energies_mev must be ascending numbers, one per channel")
    even = bool(np.ptp(steps) < 1e-6 * steps.mean())
    channel = float(steps.mean()) if even else 1.0
    middle, half = 0.5 * (energies[0] + energies[-1]), 0.5 * (energies[-1] - energies[0])
    _check_names(components)
    names = [f"{c.name}.{p}" for c in components for p in c.parameters]
    table, peaks, bounds, amplitude = [], [], [], []
    start: list[float] = []
    for component in components:
        if component.is_peak:
            peaks.append(len(start))
        for kind, parameters in component.pieces:
            first = len(start)
            table.append((kind, first, len(parameters)))
            for p in parameters:
                mean, std = component.priors.get(p, (0.0, np.inf))
                bounds.append((*_bounds(component, p, energies, float(steps.mean())), mean, std**-2.0))
                start.append(_start(component, p))
                amplitude.append(_amplitude(kind, p, first))
    limits = np.array(bounds, dtype=float).T.copy()
    owner, affine = _ties(components, names)
    kinds_of_amplitude = np.array(amplitude, dtype=np.int64)
    kinds_of_amplitude[owner == -1] = 0, -1
    model = ComponentModel(
        names=tuple(names), table=np.array(table, dtype=np.int64), owner=owner, affine=affine, bounds=limits,
        start=np.array(start, dtype=float), amplitude=kinds_of_amplitude, energies_mev=energies,
        reference_mev=middle if reference_mev is None else reference_mev,
        scale_mev=half if scale_mev is None else scale_mev, channel_mev=channel, peaks=tuple(peaks),
    )  # fmt: skip
    if model.has(kinds.POWER_LAW) and not (energies[0] > 0.0 and model.reference_mev > 0.0):
        raise ConfigError(
            f"a power law needs positive energies, but the window starts at {energies[0]:g} meV; cut it, or choose an exponential"
        )
    return model


def _check_names(components: Sequence[Component]) -> None:
    names = [c.name for c in components]
    if not names:
        raise ConfigError("components is empty; give at least one peak or background")
    if len(set(names)) < len(names):
        raise ConfigError(f"component names must differ, got {', '.join(names)}")
    if sum(c.is_peak for c in components) > MOST_PEAKS:
        raise ConfigError(
            f"{sum(c.is_peak for c in components)} peaks were given; at most {MOST_PEAKS} are fitted at once"
        )
    for c in components:
        for what in (c.start, c.bounds, c.fixed, c.tied, c.priors):
            for p in what:
                if p not in c.parameters:
                    raise ConfigError(
                        f"component {c.name}: {p!r} is none of its parameters ({', '.join(c.parameters)})"
                    )


def _bounds(component: Component, parameter: str, energies: np.ndarray, step: float) -> tuple[float, float]:
    span = energies[-1] - energies[0]
    if parameter in component.bounds:
        low, high = component.bounds[parameter]
        if not low < high:
            raise ConfigError(
                f"component {component.name}: bounds of {parameter} are {low:g} … {high:g}; low must be below high"
            )
        if parameter in component.fixed and not low <= component.start.get(parameter, low) <= high:
            raise ConfigError(
                f"component {component.name}: {parameter} is fixed at {component.start[parameter]:g}, outside its bounds {low:g} … {high:g}"
            )
        return float(low), float(high)
    if parameter in component.fixed:
        return -np.inf, np.inf
    if parameter == "value" or parameter[1:].isdigit():
        return -np.inf, np.inf
    default = {
        "centre": (energies[0], energies[-1]),
        "fwhm": (0.5 * step, span),
        "fwhm_gauss": (0.5 * step, span),
        "fwhm_lorentz": (0.0, span),
        "fraction": (0.0, 1.0),
        "exponent": (-30.0, 30.0),
        "rate": (-100.0 / span, 100.0 / span),
        "rate_2": (-100.0 / span, 100.0 / span),
    }
    return default.get(parameter, (0.0, np.inf))


def _start(component: Component, parameter: str) -> float:
    if parameter in component.start:
        return float(component.start[parameter])
    if parameter in component.tied:
        return np.nan
    if parameter in ("centre", *WIDTHS):
        raise ConfigError(f"component {component.name}: start needs {parameter}")
    if parameter in component.fixed:
        raise ConfigError(f"component {component.name}: {parameter} is fixed, so start must say at what")
    return {"fraction": 0.5, "exponent": 2.0}.get(parameter, np.nan)


def _amplitude(kind: int, parameter: str, first: int) -> tuple[int, int]:
    if parameter in AMPLITUDES or kind == kinds.POLYNOMIAL:
        return 1, -1
    if kind == kinds.EXP_POLYNOMIAL:
        return (2, -1) if parameter == "c0" else (0, -1)
    return 0, first


def _ties(components: Sequence[Component], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    owner = np.arange(len(names), dtype=np.int64)
    affine = np.tile([1.0, 0.0], (len(names), 1))
    for c in components:
        for p in c.fixed:
            owner[names.index(f"{c.name}.{p}")] = -1
    for c in components:
        for p, tie in c.tied.items():
            here = names.index(f"{c.name}.{p}")
            if tie.to not in names or tie.to == names[here]:
                raise ConfigError(f"{names[here]} is tied to {tie.to!r}, which is none of {', '.join(names)}")
            there = names.index(tie.to)
            if owner[there] not in (-1, there) or any(tie.to == f"{o.name}.{q}" for o in components for q in o.tied):
                raise ConfigError(f"{names[here]} is tied to {tie.to}, which is itself tied; tie both to the same one")
            owner[here] = there
            affine[here] = tie.factor, tie.offset
    return owner, affine
