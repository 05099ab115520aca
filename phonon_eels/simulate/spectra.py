"""Forward model: electrons expected in every channel at every position (SCIENCE.md §6, without the detector).

Expected electrons per channel are the integral over the channel of ``R ⊗ [I0 δ(E) + P(E) + multiphonon] + background``
on an axis that moves with the energy drift. P and R live on a fine grid with E = 0 on a grid point; R is sampled about
its own shifted mode, so no spectrum is ever interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft

from phonon_eels.config import Material, SimulationSettings
from phonon_eels.config.simulation import ModeModulation
from phonon_eels.errors import ConfigError
from phonon_eels.simulate import lines
from phonon_eels.simulate.crystal import Scene, crystal_of
from phonon_eels.simulate.haadf import haadf_signal
from phonon_eels.simulate.seeds import Stream
from phonon_eels.simulate.wander import energy_shift_mev, relative_wander
from phonon_eels.spectrum_image import EnergyAxis
from phonon_eels.units import FWHM_PER_SIGMA, thermal_energy_mev

FINE_STEP_MEV = 0.125
"""Largest step of the fine grid: 60 points over the FWHM of the zero-loss peak."""

PAD_MEV = 40.0
"""The fine grid goes this far beyond the axis and the modes: losses there still reach the axis through the tails."""

DEFAULT_LOCALISATION_NM = 0.2
RESPONSES = {"split_pearson7": 0, "pseudo_voigt": 1, "gaussian_exponential": 2, "split_gaussian": 3}
LINES = {"oscillator": 0, "skewed": 1, "table": 2}


@dataclass(frozen=True)
class PhononTerms:
    """Numbers of the phonon part in the order the kernels take them; see `lines.collect_lines`."""

    planes: np.ndarray
    weights: np.ndarray
    modes: np.ndarray
    excitation: np.ndarray


@dataclass(frozen=True)
class FineGrid:
    """Energies the loss spectrum is made on: ``step · (index − zero)``, and the FFT that convolves it."""

    step_mev: float
    per_channel: int
    zero: int
    n: int
    n_out: int

    @property
    def energies_mev(self) -> np.ndarray:
        """Energy loss at the grid points."""
        return self.step_mev * (np.arange(self.n) - self.zero)

    @cached_property
    def n_fft(self) -> int:
        """Length of the FFT: long enough that nothing wraps around into the axis."""
        return int(scipy.fft.next_fast_len(self.n + self.n_out - 1, real=True))


def localisation_fwhm_nm(settings: SimulationSettings, material: Material) -> float:
    """Width of the region around a plane that its modes are excited from, without the probe."""
    if settings.phonons.localisation_fwhm_nm is not None:
        return settings.phonons.localisation_fwhm_nm
    return material.localisation.fwhm_nm if material.localisation else DEFAULT_LOCALISATION_NM


def modulation_of(settings: SimulationSettings, material: Material) -> dict[str, ModeModulation]:
    """Return the modulation of every mode that the simulation plants, by name.

    Raises
    ------
    ConfigError
        If the settings name a mode that the material does not have.
    """
    names = [mode.name for mode in material.modes]
    phonons, wanted = settings.phonons, settings.modulation
    _known("modulation.modes", wanted.modes, names, material)
    _known("phonons.energies_mev", phonons.energies_mev, names, material)
    _known("phonons.fwhms_mev", phonons.fwhms_mev, names, material)
    _known("phonons.relative_areas", phonons.relative_areas, names, material)
    result = {name: ModeModulation() for name in names}
    if material.primary_test is not None:
        result[material.primary_test.mode] = ModeModulation(energy_mev=wanted.primary_energy_mev)
    result.update(wanted.modes)
    if not wanted.energy_enabled:
        off = {"energy_mev": 0.0, "second_harmonic_mev": 0.0}
        result = {name: mode.model_copy(update=off) for name, mode in result.items()}
    return result


def _known(key: str, table: Mapping[str, object], names: list[str], material: Material) -> None:
    for name in table:
        if name not in names:
            raise ConfigError(
                f"{key} names the mode {name!r}, which material {material.name} does not have; use {', '.join(names)}"
            )


def phonon_terms(scene: Scene) -> PhononTerms:
    """Collect planes, weights and modulated modes of a scene."""
    settings, material, planes = scene.settings, scene.material, scene.planes
    phonons = settings.phonons
    modulation = modulation_of(settings, material)
    modes, weights = [], np.zeros((len(material.layers), len(material.modes)))
    for m, mode in enumerate(material.modes):
        wave = modulation[mode.name]
        energy = phonons.energies_mev.get(mode.name, mode.energy_mev)
        width = phonons.fwhms_mev.get(mode.name, mode.fwhm_mev)
        by_energy = (wave.energy_mev, wave.energy_phase_rad, wave.second_harmonic_mev, wave.second_phase_rad)
        by_line = (wave.weight, wave.weight_phase_rad, wave.width, wave.width_phase_rad)
        modes.append([energy, width, *by_energy, *by_line])
        for index, layer in enumerate(material.layers):
            area = phonons.relative_areas.get(mode.name, mode.relative_area) * phonons.area_e
            weights[index, m] = area * mode.layers.get(layer.name, 0.0)
    sigma = np.hypot(localisation_fwhm_nm(settings, material), settings.acquisition.probe_fwhm_nm) / FWHM_PER_SIGMA
    per_slab = np.array([1.0 if layer.height_nm == 0.0 else 2.0 for layer in material.layers])
    mean = per_slab @ weights * np.sqrt(2.0 * np.pi) * sigma / (0.5 * crystal_of(material).c_nm)
    antiphase = 1.0 if planes.modulation_shift_rad.any() else 0.0
    head = [sigma, phonons.dechannelled_fraction, phonons.dipole_fraction, antiphase]
    stack = [planes.height_nm, planes.amplitude_nm, planes.modulation_shift_rad, planes.layer, ~planes.turned]
    return PhononTerms(
        planes=np.ascontiguousarray(np.stack(stack, axis=1).astype(float)),
        weights=weights,
        modes=np.array(modes),
        excitation=np.concatenate([head, mean]),
    )


def fine_grid(settings: SimulationSettings, modes: np.ndarray) -> FineGrid:
    """Return the grid of the loss spectrum for an energy axis and modes (as in `PhononTerms`)."""
    axis = settings.energy
    per_channel = int(np.ceil(axis.dispersion_mev / FINE_STEP_MEV - 1e-9))
    step = axis.dispersion_mev / per_channel
    last = axis.offset_mev + axis.dispersion_mev * (axis.channels - 1)
    reach = float(np.max(modes[:, 0] + 8.0 * modes[:, 1]))
    zero = int(np.ceil((max(-axis.offset_mev, reach) + PAD_MEV) / step))
    n = zero + int(np.ceil((max(last, reach) + PAD_MEV) / step)) + 1
    return FineGrid(step, per_channel, zero, n, per_channel * (axis.channels - 1) + 1)


@dataclass(frozen=True)
class ForwardModel:
    """Everything that one row of spectra is made from.

    Attributes
    ----------
    shift_mev, width_mev, tail_loss, tail_gain, zero_loss_e
        Mode, FWHM parameter, tail exponents and electrons of the zero-loss peak, (frames, rows, columns).
    """

    scene: Scene
    terms: PhononTerms
    grid: FineGrid
    shift_mev: np.ndarray
    width_mev: np.ndarray
    tail_loss: np.ndarray
    tail_gain: np.ndarray
    zero_loss_e: np.ndarray

    @property
    def axis(self) -> EnergyAxis:
        """Energy axis of the channels."""
        energy = self.scene.settings.energy
        return EnergyAxis(energy.offset_mev, energy.dispersion_mev, energy.channels)

    @cached_property
    def _occupied(self) -> np.ndarray:
        """``E / (1 − exp(−E/kT))`` on the fine grid; kT at E = 0."""
        kt = thermal_energy_mev(self.scene.settings.phonons.temperature_k)
        energies = self.grid.energies_mev
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            values = energies / -np.expm1(-energies / kt)
        values[self.grid.zero] = kt
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)

    @cached_property
    def _table(self) -> tuple[np.ndarray, float, float]:
        return density_table(self.scene.settings)

    @cached_property
    def _integrate(self) -> np.ndarray:
        """Fourier transform of one channel's width, times that width: density to electrons per channel."""
        frequencies = scipy.fft.rfftfreq(self.grid.n_fft, self.grid.step_mev)
        width = self.axis.dispersion_mev
        return width * np.sinc(frequencies * width)

    def mode_sums(self, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True electrons, mean energy and mean width of every mode: three arrays (modes, rows, columns)."""
        scan = self.scene.settings.scan
        n_modes = len(self.terms.modes)
        area, energy, width = (np.empty((scan.rows, scan.columns, n_modes)) for _ in range(3))
        work = self._line_buffer()
        for row in range(scan.rows):
            for column in range(scan.columns):
                n = self._collect(frame, row, column, work)
                lines.summarise_lines(work, n, area[row, column], energy[row, column], width[row, column])
        return np.moveaxis(area, 2, 0), np.moveaxis(energy, 2, 0), np.moveaxis(width, 2, 0)

    def loss_spectra(self, frame: int, row: int) -> np.ndarray:
        """Phonon part before the instrument in electrons / meV on the fine grid, (columns, n)."""
        phonons = self.scene.settings.phonons
        grid, (table, table_low, table_step) = self.grid, self._table
        spectra = np.zeros((self.scene.settings.scan.columns, grid.n))
        work, scratch = self._line_buffer(), np.empty(grid.n)
        for column in range(len(spectra)):
            for j in range(self._collect(frame, row, column, work)):
                _, energy, width, electrons = work[j]
                lines.add_line(
                    *(energy, width, electrons, LINES[phonons.shape], phonons.skew, table, table_low, table_step),
                    *(grid.step_mev, grid.zero, self._occupied, scratch, spectra[column]),
                )
        return spectra

    def expected_row(self, frame: int, row: int) -> np.ndarray:
        """Electrons expected in every channel of one row of one frame, (columns, channels)."""
        grid, settings = self.grid, self.scene.settings
        spectra = self.loss_spectra(frame, row)
        zero_loss = self.zero_loss_e[frame, row][:, None]
        phonons = scipy.fft.rfft(spectra, grid.n_fft, axis=1) * grid.step_mev
        # δ(E) sits on the grid point `zero`: a phase factor, exact.
        delta = np.exp(-2j * np.pi * np.arange(phonons.shape[1]) * (grid.zero / grid.n_fft))
        total = zero_loss * delta + phonons
        if settings.phonons.multiphonon:
            # P ⊗ P has its energy zero at 2 · zero; one factor δ* brings it back.
            total += settings.phonons.multiphonon * phonons**2 * delta.conj() / (2.0 * zero_loss)
        seen = scipy.fft.irfft(
            total * scipy.fft.rfft(self._responses(frame, row), axis=1) * self._integrate, grid.n_fft, axis=1
        )
        electrons = np.maximum(seen[:, : grid.n_out : grid.per_channel], 0.0)
        return electrons + self._background(frame, row)

    def _responses(self, frame: int, row: int) -> np.ndarray:
        """Zero-loss peaks of unit area in FFT order, (columns, n_fft)."""
        settings, grid = self.scene.settings, self.grid
        kind = RESPONSES[settings.zero_loss.shape]
        out = np.empty((settings.scan.columns, grid.n_fft))
        for column in range(len(out)):
            place = (frame, row, column)
            first, second, third = self._shape_parameters(place)
            start = settings.energy.offset_mev + grid.step_mev * grid.zero - self.shift_mev[place]
            lines.fill_response(
                *(kind, self.width_mev[place], first, second, third, start, grid.step_mev),
                *(grid.n - 1, grid.n_out, out[column]),
            )
        return out

    def _shape_parameters(self, place: tuple[int, int, int]) -> tuple[float, float, float]:
        zero_loss = self.scene.settings.zero_loss
        if zero_loss.shape == "split_pearson7":
            return float(self.tail_loss[place]), float(self.tail_gain[place]), 0.0
        if zero_loss.shape == "pseudo_voigt":
            return zero_loss.lorentzian_share, 0.0, 0.0
        if zero_loss.shape == "gaussian_exponential":
            widths = zero_loss.fwhm_mev
            return zero_loss.skirt_share, zero_loss.skirt_loss_mev / widths, zero_loss.skirt_gain_mev / widths
        return zero_loss.asymmetry, 0.0, 0.0

    def _background(self, frame: int, row: int) -> np.ndarray:
        phonons = self.scene.settings.phonons
        loss = self.axis.energies_mev[None, :] - self.shift_mev[frame, row][:, None]
        level = np.maximum(phonons.background_e_per_mev + phonons.background_slope * loss, 0.0)
        return self.scene.thickness[row][:, None] * level * self.axis.dispersion_mev

    def _line_buffer(self) -> np.ndarray:
        return np.empty((len(self.terms.modes) * (len(self.terms.planes) + 3), 4))

    def _collect(self, frame: int, row: int, column: int, work: np.ndarray) -> int:
        path, place = self.scene.path, (frame, row, column)
        theta = self.scene.lateral_phase(path.b_nm[place])
        return int(
            lines.collect_lines(
                *(path.c_nm[place], theta, self.scene.thickness[row, column]),
                *(self.terms.planes, self.terms.weights, self.terms.modes, self.terms.excitation, work),
            )
        )


def forward_model(scene: Scene) -> ForwardModel:
    """Prepare the forward model of a scene: where the zero-loss peak is, how wide, how strong."""
    settings = scene.settings
    scan, zero_loss = settings.scan, settings.zero_loss
    terms = phonon_terms(scene)
    width = zero_loss.fwhm_mev * relative_wander(settings, Stream.ZERO_LOSS_WIDTH, zero_loss.width_wander)
    tails = relative_wander(settings, Stream.ZERO_LOSS_TAILS, zero_loss.tail_wander)
    strength = np.ones((scan.frames, scan.rows, scan.columns))
    if zero_loss.haadf_slope:
        for frame in range(scan.frames):
            strength[frame] += zero_loss.haadf_slope * (haadf_signal(scene, frame) - 1.0)
    return ForwardModel(
        scene=scene,
        terms=terms,
        grid=fine_grid(settings, terms.modes),
        shift_mev=energy_shift_mev(settings),
        width_mev=width,
        tail_loss=zero_loss.tail_loss * tails,
        tail_gain=zero_loss.tail_gain * tails,
        zero_loss_e=zero_loss.electrons * np.maximum(strength, 0.0),
    )


def density_table(settings: SimulationSettings) -> tuple[np.ndarray, float, float]:
    """Density of states over (|E| − mode energy) / width on an even grid, with its start and step.

    The built-in one is a flat optical band with a sharp lower and a soft upper edge, full width at half maximum 1.

    Raises
    ------
    ConfigError
        If the file cannot be read as two columns of numbers.
    """
    low, step, n = -6.0, 0.02, 601
    places = low + step * np.arange(n)
    path = settings.phonons.table
    if path is None:
        return 0.25 * (1.0 + np.tanh((places + 0.5) / 0.08)) * (1.0 - np.tanh((places - 0.5) / 0.25)), low, step
    try:
        given = np.loadtxt(path, ndmin=2)
        if given.shape[1] != 2 or len(given) < 2 or not np.isfinite(given).all() or (given[:, 1] < 0).any():
            raise ValueError("it needs two columns of finite numbers, the second not negative")
    except (OSError, ValueError) as problem:
        raise ConfigError(f"phonons.table = {path}: cannot be used as a density of states ({problem})") from problem
    order = np.argsort(given[:, 0])
    return np.interp(places, given[order, 0], given[order, 1], left=0.0, right=0.0), low, step
