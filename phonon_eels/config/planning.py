"""What `phonon-eels plan` is told before the beam time: beam, spectrum, detector, scan, specimen, question."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from phonon_eels.config.base import Fraction, Frozen, NonNegative, Positive, Window
from phonon_eels.config.load import _check, apply_overrides, read_yaml
from phonon_eels.config.settings import FitPeaks

Share = Annotated[float, Field(gt=0, le=1)]
Level = Annotated[float, Field(gt=0, lt=1)]
TailExponent = Annotated[float, Field(gt=0.6, le=50.0)]


class PlannedBeam(Frozen):
    """Electrons per position: given as such, or as current and time."""

    zero_loss_electrons: Positive | None = None
    """Electrons in the zero-loss peak per position, all frames of a scan together; wins over current and time."""
    current_pa: Positive = 5.0
    """Beam current on the specimen."""
    dwell_time_s: Positive = 0.2
    """Time per position and frame."""
    frames: int = Field(default=1, ge=1)
    """Frames that are added up to one scan; each brings its own read noise."""
    zero_loss_share: Share = 0.032
    """Share of the beam that ends in the zero-loss peak seen by the spectrometer; off-axis 0.01 to 0.05."""


class PlannedSpectrum(Frozen):
    """Energy axis and zero-loss peak."""

    dispersion_mev: Positive = 0.5
    """Energy per channel."""
    range_mev: Window = (-60.0, 115.0)
    """First and last energy loss on the detector."""
    resolution_mev: Positive = 7.5
    """Full width at half maximum of the zero-loss peak."""
    tail_loss: TailExponent = 1.6
    """Pearson exponent of the loss side (small: long tail)."""
    tail_gain: TailExponent = 1.9
    """The same of the gain side."""


class PlannedDetector(Frozen):
    """Noise beside the counting noise."""

    read_noise_e: NonNegative = 1.0
    """Standard deviation per channel and frame, in electrons."""


class PlannedScan(Frozen):
    """Positions: c along the rows' direction, the superstructure along the columns'."""

    c_step_nm: Positive = 0.055
    """Step along c."""
    b_step_nm: Positive = 0.09
    """Step along b, the direction of the superstructure."""
    c_length_nm: Positive = 6.2
    """Field of view along c: how many planes are seen."""
    b_length_nm: Positive = 5.8
    """Field of view along b: how many periods are seen."""
    scans: int = Field(default=1, ge=1)
    """Scans (regions) that are pooled."""


class PlannedSpecimen(Frozen):
    """How strongly the specimen scatters; measure these on a first scan."""

    mode_share: Positive = 0.01
    """Loss-side electrons of a mode of relative area 1 at one lone plane, over those in the zero-loss peak. Off-axis 1e-3 to 1e-2, on-axis 1e-4 to 1e-3."""
    background_share_per_mev: NonNegative = 1e-5
    """Electronic background per meV over the electrons in the zero-loss peak."""
    dechannelled_fraction: Fraction = 0.1
    """Share of the impact signal that comes from all planes alike, wherever the probe stands."""
    dipole_fraction: Fraction = 0.0
    """Delocalised share of the signal; about 0 off-axis."""
    probe_fwhm_nm: Positive = 0.1
    """Full width at half maximum of the probe, source size included."""
    localisation_fwhm_nm: Positive | None = None
    """Region around a plane that its modes are excited from, without the probe; default: the material's."""
    temperature_k: Positive = 293.0
    """Temperature of the specimen; it sets the occupation."""
    plane_scatter_mev: NonNegative = 0.0
    """Standard deviation of a component of the amplitude between planes beyond counting noise (strain, dopants, drift). 0 is the best case."""


class PlannedQuestion(Frozen):
    """What is to be shown."""

    mode: str | None = None
    """Default: the material's primary test."""
    layer: str | None = None
    """Layer of the mode; default: the material's primary test."""
    amplitude_mev: Positive = 1.0
    """Modulation amplitude whose chance of detection is told."""
    power: Level = 0.8
    """Wanted chance to detect."""
    confidence: Level = 0.95
    """Confidence level of the test."""
    min_units: int = Field(default=6, ge=4)
    """Fewer half-slab planes than this: not testable."""


class PlanSettings(Frozen):
    """An experiment that has not been done yet."""

    schema_version: int = Field(default=1, ge=1, le=1)
    material: str = "bi2212"
    """Name of a shipped material, or path of a user's own YAML file."""
    beam: PlannedBeam = PlannedBeam()
    spectrum: PlannedSpectrum = PlannedSpectrum()
    detector: PlannedDetector = PlannedDetector()
    scan: PlannedScan = PlannedScan()
    specimen: PlannedSpecimen = PlannedSpecimen()
    question: PlannedQuestion = PlannedQuestion()
    fit: FitPeaks = FitPeaks()
    """How the spectra will be fitted, as in the settings of a run."""

    @model_validator(mode="after")
    def _axis_holds_the_peak(self) -> PlanSettings:
        low, high = self.spectrum.range_mev
        if not low < -self.spectrum.resolution_mev or not high > self.spectrum.resolution_mev:
            raise ValueError(
                f"spectrum.range_mev = {low:g} … {high:g} must hold the zero-loss peak and "
                f"{self.spectrum.resolution_mev:g} meV on either side of it"
            )
        return self


def load_plan(path: str | Path | None = None, overrides: Iterable[str] = ()) -> PlanSettings:
    """Read a plan from a YAML file, then apply overrides of the form ``scan.scans=3``.

    A relative path of a material in the file counts from the file's folder.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or a value is not allowed; the message names the key.
    """
    tree = {} if path is None else read_yaml(Path(path))
    material = tree.get("material")
    if path is not None and isinstance(material, str) and material.endswith((".yaml", ".yml")):
        given = Path(material).expanduser()
        tree["material"] = str(given if given.is_absolute() else Path(path).parent / given)
    return _check(PlanSettings, apply_overrides(tree, overrides), str(path) if path else "plan")
