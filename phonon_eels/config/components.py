"""What `phonon-eels fit` is told: peaks and backgrounds, the window, what the file does not say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from phonon_eels.config.base import Frozen, Window
from phonon_eels.config.load import _check, apply_overrides, read_yaml
from phonon_eels.config.settings import AcquisitionSettings

Kind = Literal[
    "gaussian",
    "lorentzian",
    "pseudo_voigt",
    "voigt",
    "oscillator",
    "offset",
    "polynomial",
    "power_law",
    "exponential",
    "double_exponential",
    "exp_polynomial",
]


class TieSettings(Frozen):
    """A parameter that follows another one: factor · other + offset."""

    to: str
    """The other parameter, as component.parameter."""
    factor: float = 1.0
    """What the other one is multiplied by."""
    offset: float = 0.0
    """What is added; meV for energies and widths."""


class ComponentSettings(Frozen):
    """One peak or one background. Energies and widths are in meV."""

    kind: Kind
    """Peaks: gaussian, lorentzian, pseudo_voigt, voigt, oscillator. Backgrounds: the others."""
    start: dict[str, float] = Field(default_factory=dict)
    """Parameter → value to start from. Peaks need centre and fwhm (a voigt fwhm_gauss and fwhm_lorentz); areas and amplitudes are found from the data."""
    bounds: dict[str, Window] = Field(default_factory=dict)
    """Parameter → (lowest, highest), always kept."""
    fixed: tuple[str, ...] = ()
    """Parameters that keep their start."""
    tied: dict[str, str | TieSettings] = Field(default_factory=dict)
    """Parameter → the one it follows: "other.fwhm", or {to: other.centre, factor: 1, offset: 4}."""
    priors: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Parameter → (mean, standard deviation) of a Gaussian prior."""
    degree: int = Field(default=1, ge=0, le=6)
    """Of polynomial and exp_polynomial."""

    @field_validator("priors")
    @classmethod
    def _priors_have_a_width(cls, priors: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (_, std) in priors.items():
            if not std > 0.0:
                raise ValueError(f"the standard deviation of the prior of {name} must be positive")
        return priors


class FitSettings(Frozen):
    """A sum of peaks and backgrounds for every spectrum of a file."""

    schema_version: int = Field(default=1, ge=1, le=1)
    components: dict[str, ComponentSettings]
    """Name → component, at least one, at most eight of them peaks. Names are letters, digits and underscores."""
    window_mev: Window | None = None
    """Channels that are fitted; default: all."""
    likelihood: Literal["poisson", "least_squares"] = "poisson"
    """poisson: counts with the gain, dark level and read noise of the detector. least_squares: every channel weighs alike, deviations come from the scatter around the fit."""
    signal: int | None = Field(default=None, ge=0)
    """Which spectrum image of a file that holds several (as `inspect` numbers them)."""
    acquisition: AcquisitionSettings = AcquisitionSettings()
    """What the file does not say: gain, dark_level, read_noise_e, energy_unit …, as in the settings of a run."""

    @model_validator(mode="after")
    def _names_can_be_written(self) -> FitSettings:
        if not self.components:
            raise ValueError("components is empty; give at least one peak or background")
        for name in self.components:
            if not name.isidentifier():
                raise ValueError(f"the component name {name!r} must be letters, digits and underscores, no digit first")
        return self


def load_fit(path: str | Path, overrides: Iterable[str] = ()) -> FitSettings:
    """Read components from a YAML file, then apply overrides of the form ``components.peak.start.centre=78``.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or a value is not allowed; the message names the key.
    """
    return _check(FitSettings, apply_overrides(read_yaml(Path(path)), overrides), str(path))
