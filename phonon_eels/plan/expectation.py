"""What the planned spectra say: expected counts over half a slab, and the information on every mode in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Material
from phonon_eels.config.planning import PlanSettings
from phonon_eels.errors import ConfigError
from phonon_eels.forward.information import model_at
from phonon_eels.forward.model import ForwardModel, build_forward_model, fit_window
from phonon_eels.forward.scan import Alignment, ScanFit, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.lineshapes import split_pearson7_area
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.lattice.stack import Stack, planes_between, stack_of
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.position_fits import prior_stds
from phonon_eels.units import ELEMENTARY_CHARGE_C, FWHM_PER_SIGMA, thermal_energy_mev

C_SAMPLES = 40
"""Places over half a slab; the spectrum changes over 0.1 nm, half a slab is 0.77 nm."""
REACH_SIGMA = 6.0
DEFAULT_LOCALISATION_NM = 0.2


@dataclass(frozen=True)
class HalfSlab:
    """Half a slab, from the middle of the van der Waals gap to the middle of the slab, sampled evenly.

    Attributes
    ----------
    c_nm
        (places,) distance from the gap.
    areas_e
        (places, modes) expected electrons of each mode, per position.
    signed_share
        (modes, places) share of that signal which comes from planes, each with the sign of its phase.
    """

    c_nm: np.ndarray
    areas_e: np.ndarray
    signed_share: np.ndarray


@dataclass(frozen=True)
class Expectation:
    """Expected counts and their Fisher information.

    Attributes
    ----------
    model
        The model that will be fitted.
    half_slab
        Where its spectra come from.
    counts_e
        (places, channels) expected electrons in the window.
    held
        Fit of the expected counts with shared energies, with the information on energies and widths.
    free
        The same with energies free at each position, for the deviations of maps.
    """

    model: ForwardModel
    half_slab: HalfSlab
    counts_e: np.ndarray
    held: ScanFit
    free: ScanFit


def electrons_per_position(plan: PlanSettings) -> float:
    """Return the electrons in the zero-loss peak, all frames together."""
    beam = plan.beam
    if beam.zero_loss_electrons is not None:
        return beam.zero_loss_electrons
    return incident_electrons(plan) * beam.zero_loss_share


def incident_electrons(plan: PlanSettings) -> float:
    """Return the electrons that hit the specimen per position, all frames together."""
    beam = plan.beam
    if beam.zero_loss_electrons is not None:
        return beam.zero_loss_electrons / beam.zero_loss_share
    return beam.current_pa * 1e-12 * beam.dwell_time_s * beam.frames / ELEMENTARY_CHARGE_C


def stack_of_plan(material: Material) -> Stack:
    """Return the stack of the material.

    Raises
    ------
    ConfigError
        If it has no crystal, layers or superstructure: there is no modulation to plan for.
    """
    stack = stack_of(material)
    if stack is None or material.superstructure is None:
        raise ConfigError(
            f"material {material.name} has no crystal, layers or superstructure in its file; a plan needs them all "
            "(see phonon_eels/materials/bi2212.yaml for what they look like)"
        )
    return stack


def half_slab_of(plan: PlanSettings, material: Material, names: tuple[str, ...]) -> HalfSlab:
    """Return areas and signed shares of the modes over half a slab, planes flat as in the warped layer frame."""
    stack = stack_of_plan(material)
    specimen = plan.specimen
    localisation = specimen.localisation_fwhm_nm or (
        material.localisation.fwhm_nm if material.localisation is not None else DEFAULT_LOCALISATION_NM
    )
    sigma = float(np.hypot(localisation, specimen.probe_fwhm_nm)) / FWHM_PER_SIGMA
    half = 0.5 * stack.repeat_nm
    c = (np.arange(C_SAMPLES) + 0.5) * half / C_SAMPLES
    planes = planes_between(stack, -REACH_SIGMA * sigma, half + REACH_SIGMA * sigma)
    planes = planes.select(planes.kind < len(stack.names))
    near = np.exp(-0.5 * ((c[:, None] - planes.position_nm) / sigma) ** 2)
    # Phases count along each plane's outward normal, and neighbouring slabs are in antiphase.
    sign = planes.side * np.where(planes.slab % 2 == 0, 1.0, -1.0)
    per_slab = np.where(stack.heights_nm == 0.0, 1.0, 2.0)
    impact, tail = 1.0 - specimen.dipole_fraction, specimen.dechannelled_fraction
    areas, shares = np.empty((C_SAMPLES, len(names))), np.empty((len(names), C_SAMPLES))
    by_name = {mode.name: mode for mode in material.modes}
    for m, name in enumerate(names):
        mode = by_name[name]
        strength = np.array([mode.layers.get(layer, 0.0) for layer in stack.names])
        local = near * strength[planes.kind] * (1.0 - tail) * impact
        mean = float(per_slab @ strength) * np.sqrt(2.0 * np.pi) * sigma / stack.repeat_nm
        everywhere = mean * (tail * impact + specimen.dipole_fraction)
        total = local.sum(axis=1) + everywhere
        if not strength.any():  # a mode of no layer is the same everywhere
            total = np.ones(C_SAMPLES)
        areas[:, m] = electrons_per_position(plan) * specimen.mode_share * mode.relative_area * total
        shares[m] = (local @ sign) / total
    return HalfSlab(c, areas, shares)


def model_of_plan(plan: PlanSettings, material: Material) -> ForwardModel:
    """Return the model that the planned spectra will be fitted with."""
    spectrum = plan.spectrum
    n = int(np.floor((spectrum.range_mev[1] - spectrum.range_mev[0]) / spectrum.dispersion_mev + 1e-9)) + 1
    axis = EnergyAxis(spectrum.range_mev[0], spectrum.dispersion_mev, n)
    channels = fit_window(plan.fit, material, axis, axis.channel(0.0), spectrum.resolution_mev)
    return build_forward_model(
        plan.fit, material, channels, spectrum.dispersion_mev,
        ZeroLossShape(spectrum.resolution_mev, spectrum.tail_loss, spectrum.tail_gain),
        thermal_energy_mev(plan.specimen.temperature_k),
        shift_e=plan.detector.read_noise_e**2 * plan.beam.frames,
    )  # fmt: skip


def expect(plan: PlanSettings, material: Material, model: ForwardModel | None = None) -> Expectation:
    """Return what the planned scan will see.

    Parameters
    ----------
    model
        That of a plan with the same energy axis, zero-loss peak and read noise, to save making its tables again.
    """
    model = model_of_plan(plan, material) if model is None else model
    half_slab = half_slab_of(plan, material, model.mode_names)
    params = np.zeros((C_SAMPLES, model.n_params))
    spectrum, modes = plan.spectrum, model.n_modes
    peak_area = split_pearson7_area(spectrum.resolution_mev, spectrum.tail_loss, spectrum.tail_gain)
    params[:, 0] = electrons_per_position(plan) / peak_area * spectrum.dispersion_mev
    background = plan.specimen.background_share_per_mev * electrons_per_position(plan) * spectrum.dispersion_mev
    params[:, 5] = background
    params[:, 6:8] = model.background_shape
    params[:, N_LOCAL : N_LOCAL + modes] = half_slab.areas_e
    params[:, N_LOCAL + modes : N_LOCAL + 2 * modes] = model.mode_energies_mev
    counts = np.stack([model_at(model, row)[0] for row in params])
    image = SpectrumImage(
        counts[None],
        EnergyAxis(float(model.energies_mev[0]), model.dispersion_mev, model.energies_mev.size),
        (ScanAxis("row", 1.0, 1), ScanAxis("column", 1.0, C_SAMPLES)),
        NoiseModel(read_noise_e=float(np.sqrt(model.shift_e))),
    )
    alignment = Alignment(np.full((1, C_SAMPLES), -model.first_channel), np.zeros((1, C_SAMPLES)))
    params[:, 5] *= model.free_local[5]
    held, free = (
        fit_scan(
            image, model, alignment, params[None], CpuBackend(1), free_energies=energies, profile=not energies,
            energy_prior_std_mev=prior_stds(model, material) if energies else None,
        )
        for energies in (False, True)
    )  # fmt: skip
    return Expectation(model, half_slab, counts, held, free)
