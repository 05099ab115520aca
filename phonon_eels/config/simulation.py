"""What a simulated spectrum image is made of. Every effect has a size, and size 0 switches it off."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from phonon_eels.config.base import Fraction, Frozen, NonNegative, Positive
from phonon_eels.config.load import _check, apply_overrides, read_yaml

TailExponent = Annotated[float, Field(gt=0.6, le=50.0)]
"""A Pearson VII with exponent 0.5 or less has no area."""


class SimulatedScan(Frozen):
    """Grid of the scan and how the probe really went. Lengths across (b) belong to columns, along c to rows."""

    rows: int = Field(default=96, ge=1)
    columns: int = Field(default=64, ge=1)
    row_step_nm: Positive = 0.055
    column_step_nm: Positive = 0.09
    frames: int = Field(default=1, ge=1)
    c_origin_nm: float = 0.0335
    """Crystal coordinate along c of the first row; 0 is the middle of a van der Waals gap."""
    b_origin_nm: float = 0.0
    """Crystal coordinate along b of the first column."""
    rotation_rad: float = 0.0
    """Angle by which the crystal is turned in the scan, about the middle of the field of view."""
    drift_row_nm: float = 0.02
    """Linear drift along the rows' direction during one frame."""
    drift_column_nm: float = 0.03
    """Linear drift along the columns' direction during one frame."""
    wander_nm: NonNegative = 0.004
    """Standard deviation of the slow wander of the probe (first-order autoregressive, one step a row)."""
    wander_memory: Fraction = 0.95
    """Correlation of the wander between neighbouring rows."""
    line_jitter_nm: NonNegative = 0.002
    """Standard deviation of the start of each row, along the row."""
    flyback_nm: float = 0.0
    """Displacement of the first column while the scan still recovers from the fly-back."""
    flyback_columns: Positive = 3.0
    """Columns after which that displacement has fallen to 1/e."""
    frame_jump_nm: NonNegative = 0.03
    """Standard deviation of the jump between frames, beside the drift."""
    wave_c_nm: float = 0.0
    """Amplitude of a wave of the scan that moves the probe along c; an artefact at the period of the superstructure."""
    wave_b_nm: float = 0.0
    """The same along b."""
    wave_period_nm: Positive | None = None
    """Period of both waves along b; default: that of the superstructure."""


class SimulatedEnergy(Frozen):
    """Energy axis, and how the spectrum moves on it."""

    offset_mev: float = -60.0
    """Energy loss at the centre of channel 0."""
    dispersion_mev: Positive = 0.5
    channels: int = Field(default=352, ge=8)
    zero_mev: float = 0.3
    """Where the zero-loss peak lies on the axis at the start."""
    drift_mev: NonNegative = 1.0
    """Standard deviation of the random walk of the energy at the end of a frame."""
    jitter_mev: NonNegative = 0.05
    """Standard deviation from position to position (mains, high tension)."""


class SimulatedZeroLoss(Frozen):
    """Zero-loss peak, which is also the response every loss is seen through."""

    electrons: Positive = 2e5
    """Electrons in the peak per position and frame, at mean HAADF."""
    shape: Literal["split_pearson7", "pseudo_voigt", "gaussian_exponential", "split_gaussian"] = "split_pearson7"
    fwhm_mev: Positive = 7.5
    tail_loss: TailExponent = 1.6
    """Split Pearson VII: exponent of the loss side (small: long tail)."""
    tail_gain: TailExponent = 1.9
    """Split Pearson VII: exponent of the gain side."""
    lorentzian_share: Fraction = 0.05
    """Pseudo-Voigt: area of the Lorentzian."""
    skirt_share: Fraction = 0.05
    """Gaussian with exponential skirts: area of the skirts."""
    skirt_loss_mev: Positive = 12.0
    """Gaussian with exponential skirts: decay length on the loss side (scaled with the width where that wanders)."""
    skirt_gain_mev: Positive = 8.0
    """Gaussian with exponential skirts: decay length on the gain side."""
    asymmetry: float = Field(default=0.1, gt=-0.9, lt=0.9)
    """Split Gaussian: half width on the loss side over the mean half width, less 1."""
    width_wander: NonNegative = 0.015
    """Standard deviation of the relative width over the scan."""
    tail_wander: NonNegative = 0.005
    """Standard deviation of the relative tail exponents over the scan."""
    wander_smooth_share: Fraction = 0.8
    """Share of that variance which changes slowly; the rest changes from position to position."""
    wander_positions: Positive = 150.0
    """Correlation length of the slow part, in positions."""
    haadf_slope: float = 0.05
    """Relative change of the peak's area per relative change of the HAADF (elastic scattering); 0: none."""


class SimulatedPhonons(Frozen):
    """Loss spectrum before the instrument."""

    area_e: NonNegative = 2e3
    """Electrons on the loss side per position and frame of a mode of relative area 1 at one lone plane."""
    temperature_k: Positive = 293.0
    shape: Literal["oscillator", "skewed", "table"] = "oscillator"
    """oscillator: damped harmonic; skewed: its width falls or grows through the line; table: a density of states."""
    skew: float = Field(default=0.5, ge=-3.0, le=3.0)
    """Skewed: change of the width over one width, positive for a tail to low energies."""
    table: Path | None = None
    """Table: text file with two columns, (energy − mode energy) / width and density; default: a flat optical band."""
    energies_mev: dict[str, Positive] = Field(default_factory=dict)
    """Mode → energy where the truth is to differ from the material file."""
    fwhms_mev: dict[str, Positive] = Field(default_factory=dict)
    """Mode → intrinsic width where the truth is to differ from the material file."""
    relative_areas: dict[str, NonNegative] = Field(default_factory=dict)
    """Mode → relative area where the truth is to differ from the material file."""
    localisation_fwhm_nm: Positive | None = None
    """Region around a plane that its modes are excited from, without the probe; default: the material's."""
    dechannelled_fraction: Fraction = 0.1
    """Share of the impact signal that comes from all planes alike, wherever the probe stands."""
    dipole_fraction: Fraction = 0.0
    """Share of the signal that is constant over the field of view; about 0 off-axis."""
    multiphonon: NonNegative = 0.0
    """1: two losses one after the other as often as independent events would; 0: none."""
    background_e_per_mev: NonNegative = 2.0
    """Electronic background at zero loss, per position and frame."""
    background_slope: float = 0.0
    """Its growth per meV (electrons / meV²); the background never falls below 0."""


class ModeModulation(Frozen):
    """How one mode follows the superstructure: value · cos(phase counted outward − its own phase)."""

    energy_mev: float = 0.0
    """Amplitude of the mode energy."""
    energy_phase_rad: float = 0.0
    second_harmonic_mev: float = 0.0
    """Amplitude at twice the wavevector."""
    second_phase_rad: float = 0.0
    weight: float = Field(default=0.0, gt=-1.0, lt=1.0)
    """Relative amplitude of the intensity."""
    weight_phase_rad: float = 0.0
    width: float = Field(default=0.0, gt=-1.0, lt=1.0)
    """Relative amplitude of the intrinsic width."""
    width_phase_rad: float = 0.0


class SimulatedModulation(Frozen):
    """Modulation of the phonons by the superstructure."""

    energy_enabled: bool = True
    """False: no mode energy is modulated, whatever else says; weights and widths stay. This makes the null twin."""
    primary_energy_mev: float = 1.0
    """Amplitude of the material's primary mode, unless `modes` names it."""
    modes: dict[str, ModeModulation] = Field(default_factory=dict)
    phase_rule: Literal["material", "outward", "slab", "in_phase"] = "material"
    """outward: along each plane's outward normal; slab: alike in all planes of a slab, neighbouring slabs as the wavevector's
    c component says (a material without antiphase planes); in_phase: the impostor, equal in all planes at equal b."""


class SimulatedStructure(Frozen):
    """Displacements of the atoms by the superstructure."""

    corrugation: float = 1.0
    """Factor on the material's displacements along c; 0: flat planes."""
    breathing: bool = False
    """False: slabs undulate rigidly and the gap between them breathes. True: the other way round."""
    period_nm: Positive | None = None
    """Period; default: the material's."""
    phase_rad: float = 0.6
    """Phase of the wave at b = 0."""
    turned_slabs: tuple[int, ...] = ()
    """Numbers of slabs turned by 90° about c ([010] along the beam): the lattice looks the same, without displacement or modulation."""
    bunching_nm: dict[str, float] = Field(default_factory=lambda: {"BiO": 0.035, "SrO": 0.03})
    """Layer → amplitude of the displacement along b, a quarter period from that along c (drawn in the HAADF)."""
    lateral_offset: dict[str, float] = Field(default_factory=dict)
    """Layer → offset of its columns as a fraction of b. Along [100] all cations share their places: 0."""


class SimulatedThickness(Frozen):
    """Thickness relative to the mean: phonons, background and HAADF are proportional to it."""

    wedge_rows: float = Field(default=0.1, gt=-1.9, lt=1.9)
    """Relative change from the first to the last row."""
    wedge_columns: float = Field(default=0.2, gt=-1.9, lt=1.9)
    """Relative change from the first to the last column."""


class SimulatedHaadf(Frozen):
    """Simultaneous dark-field image."""

    electrons: Positive = 500.0
    """Mean electrons per position and frame."""
    exponent: Positive = 1.7
    """Intensity of a column goes as atomic number to this power."""
    vibration_nm: NonNegative = 0.009
    """Root mean square displacement of the atoms across the beam."""
    background: Fraction = 0.3
    """Share of the mean intensity that shows no columns."""
    noise: bool = True


class SimulatedDetector(Frozen):
    """From electrons to detector numbers."""

    poisson: bool = True
    gain: Positive = 2.5
    """Detector counts per electron."""
    dark_level: float = 0.0
    """Detector counts per channel and frame without electrons."""
    read_noise_e: NonNegative = 1.0
    """Standard deviation per channel and frame, in electrons."""
    psf_fwhm_channels: NonNegative = 0.0
    """Spread of each electron over the channels: correlates the noise."""
    fixed_pattern: NonNegative = 0.002
    """Standard deviation of the relative gain from channel to channel, the same at all positions."""
    spike_rate: Fraction = 1e-5
    """Cosmic rays per position, frame and channel."""
    spike_minimum_counts: Positive = 400.0
    spike_exponent: Positive = 1.5
    """Exponent of the Pareto distribution of their counts."""
    saturation_counts: Positive | None = None
    """Detector counts at which a channel saturates; uint16 ends at 65535 in any case."""
    dtype: Literal["float32", "uint16"] = "float32"


class SimulatedAcquisition(Frozen):
    """What the file says of the microscope."""

    beam_energy_kev: Positive = 60.0
    convergence_semi_angle_mrad: Positive = 35.0
    collection_semi_angle_mrad: Positive = 25.0
    geometry: Literal["on-axis", "off-axis"] = "off-axis"
    dwell_time_s: Positive = 0.2
    probe_fwhm_nm: Positive = 0.10
    """Probe including the source size."""


class SimulationSettings(Frozen):
    """A simulated spectrum image."""

    schema_version: Literal[1] = 1
    title: str = "simulated"
    seed: int = Field(default=1, ge=0)
    scan: SimulatedScan = SimulatedScan()
    energy: SimulatedEnergy = SimulatedEnergy()
    zero_loss: SimulatedZeroLoss = SimulatedZeroLoss()
    phonons: SimulatedPhonons = SimulatedPhonons()
    modulation: SimulatedModulation = SimulatedModulation()
    structure: SimulatedStructure = SimulatedStructure()
    thickness: SimulatedThickness = SimulatedThickness()
    haadf: SimulatedHaadf = SimulatedHaadf()
    detector: SimulatedDetector = SimulatedDetector()
    acquisition: SimulatedAcquisition = SimulatedAcquisition()


def load_simulation(path: str | Path | None = None, overrides: Iterable[str] = ()) -> SimulationSettings:
    """Read simulation settings from a YAML file, then apply overrides of the form ``scan.rows=128``.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or a value is not allowed; the message names the key.
    """
    tree = {} if path is None else read_yaml(Path(path))
    return _check(SimulationSettings, apply_overrides(tree, overrides), str(path) if path else "simulation")
