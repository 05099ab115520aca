"""The settings of every step and of the whole run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from phonon_eels.config.base import Fraction, Frozen, NonNegative, Positive, Window
from phonon_eels.config.frames import RegisterFrames
from phonon_eels.config.recipe import PeakRecipe


class AcquisitionSettings(Frozen):
    """What the file does not say, or says wrongly. A value given here wins over the file."""

    beam_energy_kev: Positive | None = None
    convergence_semi_angle_mrad: Positive | None = None
    collection_semi_angle_mrad: Positive | None = None
    geometry: Literal["on-axis", "off-axis"] | None = None
    temperature_k: Positive | None = None
    dwell_time_s: Positive | None = None
    gain: Positive | None = None
    """Detector counts per electron."""
    dark_level: float | None = None
    """Detector counts per channel without electrons."""
    read_noise_e: NonNegative | None = None
    """Standard deviation in electrons per channel and frame."""
    energy_unit: Literal["eV", "meV"] | None = None
    """Only where the file has no unit."""
    scan_unit: Literal["nm", "Å", "µm", "pm"] | None = None
    """Only where the file has no unit."""
    scan_step_nm: Positive | None = None
    """Step of the scan where the file has none; the same along rows and columns."""
    saturation_counts: Positive | None = None
    """Detector counts at and above which a channel is saturated."""
    dipole_fraction: Fraction | None = None
    """Share of the phonon signal that is delocalised (dipole). Unknown: modulation amplitudes are lower bounds."""


Region = Literal["vacuum", "hole", "contamination", "edge", "excluded"]


class MarkedFile(Frozen):
    """A file in which positions are marked: a label image, a picture, or polygons."""

    path: str
    """.tif .png .npy of the scan's shape, napari Shapes saved as .csv, or polygons in .yaml or .json; a relative path counts from the settings file."""
    kind: Region = "excluded"
    """What the marked positions are, where the file does not say it itself."""
    labels: dict[int, Region] = Field(default_factory=dict)
    """For label images: value → what it means; empty: every value but 0 means `kind`."""


class Masks(Frozen):
    """Positions that are not the sample: they are not fitted and not averaged, and every map says "masked" there."""

    files: tuple[MarkedFile, ...] = ()
    """Where files overlap the later one wins."""
    vacuum_file: str | None = None
    """A scan of vacuum alone, taken at the same settings: the reference for the zero-loss peak, instead of a marked region."""


class Ingest(Frozen):
    """Read the file, check it, write it as .zspy with energies in meV and the scan in nm."""

    signal: int | None = Field(default=None, ge=0)
    """Which spectrum image of a file that holds several (as `inspect` numbers them)."""
    chunk_megabytes: Positive = 8.0
    """Size of a chunk of whole spectra on disk."""
    quality: Literal["stop", "warn"] = "stop"
    """What a failed quality check does."""
    estimate_noise: bool = True
    """Measure gain, dark level and read noise on the data where they are not given."""


class RemoveSpikes(Frozen):
    """Find cosmic rays and hot channels against neighbouring channels and positions."""

    enabled: bool = True
    threshold_sigma: Positive = 8.0
    """Excess over the expected counts, in standard deviations of the noise, that makes a spike."""
    protect_mev: Window | None = None
    """Never touch channels in this window."""
    on_zero_loss: bool = True
    """Look for spikes on the zero-loss peak too, by a fit of every peak without the suspected channel."""
    grow_channels: int = Field(default=1, ge=0, le=10)
    """Neighbouring channels masked with each spike."""


class AlignZlp(Frozen):
    """Fit the zero-loss peak at every position: centre, FWHM, tails."""

    alignment: Literal["auto", "coordinate", "resample"] = "auto"
    """coordinate: counts untouched, an energy origin per position. resample: counts conserved, variance carried. auto: by route."""
    search_window_mev: Window | None = None
    """Where the zero-loss peak may be; default the whole axis."""
    fit_half_width_fwhm: Positive = 1.5
    """Half width of the fitted window around the peak, in FWHM of the mean zero-loss peak."""
    line_shape: Literal["split_pearson7", "gaussian"] = "split_pearson7"
    """Shape of the peak: the split Pearson VII has two tails of their own."""
    estimator: Literal["maximum_likelihood", "fast"] = "maximum_likelihood"
    """fast: moments and one step of scoring from the scan's own shape, for previews; shapes far from it to first order."""


class KnownLine(Frozen):
    """A line of known energy for the calibration."""

    mode: str
    energy_mev: Positive
    energy_std_mev: NonNegative = 0.0


class Calibrate(Frozen):
    """Dispersion and zero from gain/loss pairs or known lines. Off unless asked."""

    method: Literal["off", "zero", "gain_loss", "lines"] = "off"
    lines: tuple[KnownLine, ...] = ()

    @field_validator("method", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        """YAML reads a bare `off` as false."""
        return "off" if value is False else value


class Normalise(Frozen):
    """Classic route: divide by the zero-loss or the total counts, variance carried."""

    method: Literal["zero_loss", "total", "none"] = "zero_loss"


class Denoise(Frozen):
    """Classic route: off by default. Denoised data are marked and refused by likelihood fits."""

    method: Literal["none", "pca", "nmf", "bm3d", "bm4d"] = "none"
    """bm3d and bm4d need packages of that name, whose licences allow only non-commercial use; they are not installed with this one."""
    components: int | None = Field(default=None, ge=1)
    """Number of components of pca and nmf; default: chosen by the noise level (Marchenko-Pastur edge)."""
    strength: Positive = 1.0
    """Factor on the noise level handed to BM3D and BM4D."""
    longest_min: Positive = 60.0
    """bm3d and bm4d: refuse cubes that would take longer than this, in minutes of one processor."""


class SubtractZlp(Frozen):
    """Classic route: zero-loss tail and background under the phonons."""

    method: Literal[
        "pearson7", "log_quadratic", "power_law", "exponential", "double_exponential",
        "exp_polynomial2", "exp_polynomial3", "exp_polynomial4", "reference", "mirrored_gain",
    ] = "pearson7"  # fmt: skip
    windows_mev: tuple[Window, ...] = ((26.0, 43.0), (188.0, 236.0))
    """Windows the background is fitted in; the defaults are those of the published group recipe."""
    clip_windows: bool = True
    """Cut windows that leave the energy axis (said in the log); false: that is an error."""
    output_window_mev: Window = (20.0, 200.0)
    """Range of the loss spectrum that is kept (cut at the axis)."""
    reference_region: tuple[int, int, int, int] | None = None
    """reference: vacuum part of the scan whose mean is the zero-loss peak: first and last row, first and last column. Default: the
    vacuum that `masks` marks or names."""
    reference_file: str | None = None
    """reference: text file of a vacuum spectrum, two columns: energy in meV, counts."""
    ensemble: Literal["none", "windows", "windows_and_models"] = "none"
    """Fit with other windows (and other shapes) too and carry the differences into the variance."""
    compare_models: bool = True
    """Compare all shapes on the same windows: AIC, BIC, deviance of channels held out."""

    @model_validator(mode="after")
    def _reference_is_given_once(self) -> SubtractZlp:
        if self.method == "reference" and self.reference_region is not None and self.reference_file is not None:
            raise ValueError(
                "subtract_zlp.method = reference takes either subtract_zlp.reference_region (rows and columns of vacuum in the "
                "scan) or subtract_zlp.reference_file (a vacuum spectrum), and not both; without either, the vacuum of `masks`"
            )
        return self


class Deconvolve(Frozen):
    """Classic route: remove the instrument response. For display; splits seen only here are no evidence."""

    method: Literal["richardson_lucy", "fourier_ratio", "fourier_log", "none"] = "richardson_lucy"
    """fourier_log removes plural scattering and leaves the resolution as it is."""
    iterations: int = Field(default=10, ge=1, le=1000)
    """Number of iterations, or the largest number."""
    stop: Literal["fixed", "discrepancy", "held_out"] = "fixed"
    """discrepancy: stop each spectrum when chi-squared per channel falls below 1. held_out: the number for the whole scan that best predicts noise kept apart."""
    accelerate: bool = False
    """Richardson-Lucy: extrapolate between iterations; needs fewer of them."""
    psf_half_width_mev: Positive = 100.0
    """Half width of the zero-loss peak used as response (cut at the axis)."""
    regulariser: Literal["gaussian", "wiener"] = "gaussian"
    """Fourier ratio: a Gaussian in place of the response, or Wiener's filter from the noise and signal of the mean spectrum."""
    regularisation_fwhm_mev: Positive = 4.0
    """Fourier ratio: FWHM of the Gaussian the result is seen through."""


class FitPeaks(PeakRecipe):
    """Energies, areas and widths of the material's modes at every position, with standard deviations."""

    window_mev: Window | None = None
    """Fitted energy range; default: forward −60 … 115 meV cut at the axis, classic the range the modes need."""
    line_shape: Literal["oscillator", "lorentzian", "gaussian", "pseudo_voigt", "voigt"] = "oscillator"
    """Intrinsic shape. oscillator: damped harmonic. Forward: the thermal occupation inside the model, whatever the shape."""
    background: Literal[
        "none", "constant", "linear", "exponential", "power_law", "double_exponential", "exp_polynomial"
    ] = "constant"
    """Fitted together with the peaks. Forward, exponential, power_law and exp_polynomial: level free at every position, shape near that
    of the mean spectrum. double_exponential: classic route only."""
    background_gain_side: Literal["detailed_balance", "none"] = "detailed_balance"
    """Forward: exponential, power_law and exp_polynomial on the energy-gain side: tied to the loss side, or nothing."""
    position_widths: bool = False
    """Classic: fit the widths (of Voigt lines: all shape parameters) at every position instead of once for the scan."""
    intrinsic_widths: Literal["shared", "material"] = "shared"
    """shared: one width per mode, fitted to the whole scan; material: as the material file says."""
    tail_std: Positive = 0.02
    """Forward: prior standard deviation of the logarithm of the tail exponents around the scan's own."""
    log_width_std: Positive = 0.05
    """Forward: prior standard deviation of the logarithm of the zero-loss width around the scan's own."""
    profile_below_sigma: NonNegative = 10.0
    """Modes whose area is below this many of its standard deviations have intervals by profile likelihood; 0: none has."""
    covariance_maps: bool = False
    """Also write the covariance matrix of all fitted parameters of every position: 8 bytes times their number squared, 2 to 3 kB."""
    scale_std_by_chi2: bool = False
    """Multiply deviations, intervals and covariances of every position by the root of its chi-squared per degree of freedom (covariances by
    the whole of it): only where the noise is known in proportion alone, for it takes misfit of the model for noise."""
    max_iterations: int = Field(default=40, ge=1, le=1000)
    gain_side: bool = True
    """Forward: include the energy-gain side, tied by detailed balance."""
    vacuum_region: tuple[int, int, int, int] | None = None
    """Forward: part of the scan that is vacuum (first row, row after the last, first column, column after the last), at least
    2 µm from any edge or with its aloof phonons negligible: its zero-loss peak is the response, with its own noise."""
    response: Literal["auto", "vacuum", "peak"] = "auto"
    """Forward: what lines are seen through. vacuum: the zero-loss peak of `vacuum_region`, else of the vacuum that `masks` marks or
    names, with its own noise; peak: the fitted split Pearson VII; auto: vacuum where there is one that is nowhere nearer than 2 µm."""
    vacuum_fit: Literal["joint", "before"] = "joint"
    """Forward: joint: the vacuum reference and up to 8192 spectra of the scan in one minimisation, so that they tell its shape together;
    before: the reference alone tells it, which costs precision where it has few electrons."""
    bin_to_std_mev: Positive | None = None
    """Forward: put positions together until each mode's energy is known to this, in maps of their own (`binned_energy_mev`)."""
    bin_along: Literal["both", "rows", "columns"] = "both"
    """Bins grow along both directions of the scan, or along its rows or columns only, so that they stay inside a layer."""
    thermometry_tiles: tuple[int, int] = Field(default=(1, 1))
    """Forward: temperature from gain and loss side for the scan and for so many parts of its rows and columns."""
    thermometry_positions: bool = False
    """Forward: also at every single position (maps `temperature_k` …), by nine to fifteen more fits of each."""

    @field_validator("vacuum_region")
    @classmethod
    def _some_vacuum(cls, value: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if value is not None and not (0 <= value[0] < value[1] and 0 <= value[2] < value[3]):
            raise ValueError(
                "vacuum_region must be [first row, row after the last, first column, column after the last]"
            )
        return value

    @field_validator("thermometry_tiles")
    @classmethod
    def _at_least_one_tile(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 1 or max(value) > 64:
            raise ValueError(
                "thermometry_tiles must be two numbers from 1 to 64: parts of the rows, parts of the columns"
            )
        return value


class AssignLayers(Frozen):
    """Layer label and coordinate of every position from the HAADF."""

    enabled: bool = True
    c_direction: Literal["auto", "rows", "columns"] = "auto"
    """Direction of the c axis in the image."""
    contrast: Literal["auto", "bright", "dark"] = "auto"
    """Are heavy layers bright (HAADF) or dark?"""
    localisation_fwhm_nm: Positive | None = None
    """Region a plane's modes are excited from; default: fitted to the data, prior from the material."""
    min_probability: Fraction = 0.5
    """Positions whose best layer has less are labelled mixed in the layer averages."""
    columns_file: str | None = None
    """Positions of columns of atoms (from Atomap, say) to follow the planes on instead of the HAADF itself: CSV with row, column and perhaps intensity in positions of the scan, or NPZ with arrays of these names or x_position, y_position."""
    leakage_file: str | None = None
    """Leakage matrix of a multislice calculation, CSV with probe, source, share, share_std or NetCDF with share and share_std over (probe, source); default: from the distances to the planes in the HAADF."""


class MapSuperstructure(Frozen):
    """Wavevector and phase of the superstructure from the HAADF."""

    enabled: bool = True
    period_nm: Positive | None = None
    """Fixed period; default: fitted inside the material's bounds."""
    antiphase_planes: bool | None = None
    """Phase counted along each plane's outward normal; default: as the material says."""
    lowpass_periods: Positive = 1.5
    """Width of the lock-in window in superstructure periods."""


class GapComparison(Frozen):
    """What the modulation's phase is compared with: the material's template, or a gap of the user's own."""

    template_modulation: Fraction | None = None
    """Relative modulation p of the template; default: the material's (Slezak 2008: 0.09)."""
    template_is_peak_to_peak: bool | None = None
    """Is p peak to peak (gap = mean · [1 + (p/2) cos φ]) or an amplitude? Default: as the material says."""
    template_phase_rad: float | None = None
    """Superstructure phase of the template's largest gap, 0 at the outward crest; default: the material's."""
    curve_file: str | None = None
    """CSV with phase_rad, gap_mev, gap_std_mev in place of the template."""
    map_file: str | None = None
    """Gap on the grid of the scan, compared plane by plane: CSV with row, column, gap_mev, gap_std_mev, or NetCDF with gap_mev and gap_mev_std."""


class MeasureModulation(Frozen):
    """Energies against superstructure phase: amplitude, phase, interval, p-value per layer and mode."""

    enabled: bool = True
    phase_bins: int = Field(default=8, ge=4, le=64)
    harmonics: Literal[1, 2] = 1
    """2: energies and widths may carry the second harmonic too; its amplitude is exploratory."""
    variants: bool = True
    """Measure the primary amplitude again with other windows, line shape and zero-loss prior: its systematic parts."""
    min_units: int = Field(default=6, ge=3)
    """Fewer half-slab planes than this: not testable."""
    mode: str | None = None
    """Mode of the primary test; default: as the material says."""
    layer: str | None = None
    """Layer of the primary test; default: as the material says."""
    confidence: Fraction = 0.95
    """Confidence level of the intervals."""
    gap: GapComparison = GapComparison()


class Report(Frozen):
    """Figures, tables and one self-contained HTML file."""

    figure_formats: tuple[Literal["png", "svg", "pdf"], ...] = ("png", "svg")
    dpi: int = Field(default=150, ge=50, le=600)


class Settings(Frozen):
    """A whole run."""

    schema_version: Literal[1] = 1
    material: str = "bi2212"
    """Name of a shipped material, or path of a user's own YAML file."""
    route: Literal["forward", "classic"] = "forward"
    """forward: fit raw counts; classic: subtract, deconvolve, fit."""
    seed: int = Field(default=0, ge=0)
    acquisition: AcquisitionSettings = AcquisitionSettings()
    masks: Masks = Masks()
    ingest: Ingest = Ingest()
    register_frames: RegisterFrames = RegisterFrames()
    remove_spikes: RemoveSpikes = RemoveSpikes()
    align_zlp: AlignZlp = AlignZlp()
    calibrate: Calibrate = Calibrate()
    normalise: Normalise = Normalise()
    denoise: Denoise = Denoise()
    subtract_zlp: SubtractZlp = SubtractZlp()
    deconvolve: Deconvolve = Deconvolve()
    fit_peaks: FitPeaks = FitPeaks()
    assign_layers: AssignLayers = AssignLayers()
    map_superstructure: MapSuperstructure = MapSuperstructure()
    measure_modulation: MeasureModulation = MeasureModulation()
    report: Report = Report()

    @model_validator(mode="after")
    def _route_knows_the_shapes(self) -> Settings:
        if self.route == "forward" and self.fit_peaks.background == "double_exponential":
            raise ValueError(
                "fit_peaks.background = double_exponential belongs to route = classic; on the forward route the "
                "zero-loss tail is in the model, choose exponential, exp_polynomial or a simpler one"
            )
        return self

    @model_validator(mode="after")
    def _calibration_has_lines(self) -> Settings:
        if self.calibrate.method == "lines" and len(self.calibrate.lines) < 1:
            raise ValueError("calibrate.method = lines needs calibrate.lines: at least one {mode, energy_mev}")
        return self


STEP_NAMES: tuple[str, ...] = (
    "ingest", "register_frames", "remove_spikes", "align_zlp", "calibrate", "normalise", "denoise", "subtract_zlp",
    "deconvolve", "fit_peaks", "assign_layers", "map_superstructure", "measure_modulation", "report",
)  # fmt: skip
"""All steps, in order."""
