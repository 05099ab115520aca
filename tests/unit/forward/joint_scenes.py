"""Scans and vacuum spectra with counted electrons, for the joint fit of both."""

from dataclasses import dataclass, replace

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.forward.information import vacuum_deviations
from phonon_eels.forward.joint_vacuum import fit_jointly
from phonon_eels.forward.model import build_forward_model, rebuilt
from phonon_eels.forward.scan import fit_scan
from phonon_eels.forward.vacuum import fit_vacuum
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, alignment_of, material_of, simulated, true_params

MATERIAL = material_of(*SEPARATED)
SETTINGS = Settings().fit_peaks
THERMAL = thermal_energy_mev(293.0)
GUESS = ZeroLossShape(7.5, 2.0, 2.0)
NO_PRIOR = np.full(3, np.inf)


@dataclass(frozen=True)
class Scene:
    """A scan without noise, the mean vacuum spectrum of one position, and the window of both."""

    specimen: object
    channels: np.ndarray
    empty: np.ndarray
    zero: int
    truth_mev: np.ndarray

    def draw(self, random, times):
        """Count the scan, and a vacuum spectrum of `times` a position's electrons; return image and reference."""
        counts = np.array(self.specimen.image.counts)
        inside = self.zero + self.channels
        counts[..., inside] = random.poisson(counts[..., inside])
        noisy = random.poisson(times * self.empty).astype(float)
        return self.specimen.image.with_(counts=counts), self.reference(noisy)

    def reference(self, spectrum):
        return fit_vacuum(0.5 * self.channels, spectrum, np.maximum(spectrum, 1.0), GUESS)


def scene(rows=1, columns=1, **vacuum):
    shape = {"shape": "split_pearson7", "electrons": 4e6}
    specimen = simulated(rows, columns, material=MATERIAL, zero_loss=shape, phonons={"area_e": 8e3})
    empty = simulated(1, 1, material=MATERIAL, zero_loss={**shape, **vacuum}, phonons={"area_e": 0.0})
    zero = int(alignment_of(specimen).channel[0, 0])
    channels = np.arange(8 - zero, specimen.image.energy.n_channels - 8 - zero)
    spectrum = np.asarray(empty.image.counts[0, 0, zero + channels], dtype=float)
    return Scene(specimen, channels, spectrum, zero, np.moveaxis(specimen.truth_maps["energy_mev"].values, 0, 2))


def fitted(own, image, reference, threads=1):
    """Fit with the reference as vacuum alone has it and jointly; return (fit, model) of the first, the joint one, starts."""
    backend, place = CpuBackend(threads), alignment_of(own.specimen)
    model = build_forward_model(SETTINGS, MATERIAL, own.channels, 0.5, reference.shape, THERMAL, vacuum=reference)
    start = true_params(own.specimen, model)
    start[..., 0], start[..., 2:5] = own.empty.max(), 0.0
    before = fit_scan(image, model, place, start, backend, free_energies=True)

    def rebuild(new, fwhm_mev):
        return rebuilt(replace(model, vacuum=new), SETTINGS, MATERIAL, THERMAL, model.mode_energies_mev, fwhm_mev)

    joint = fit_jointly(image, model, place, start, backend, rebuild, energy_prior_std_mev=NO_PRIOR, log_width_std=0.0)
    return (before, model), joint, start


def finished(own, image, joint, threads=1):
    """Fit the positions with the joint reference."""
    place = alignment_of(own.specimen)
    return fit_scan(image, joint.model, place, joint.fit.params, CpuBackend(threads), free_energies=True)


def common_std(model, fit):
    """Return what the reference leaves of uncertainty in each mode's energy, common to all positions, meV."""
    return vacuum_deviations(model, np.nanmedian(fit.params, axis=(0, 1)))
