"""Small scans with known truth for the engine's tests; the simulator is written apart from the model that is fitted."""

from dataclasses import replace

import numpy as np

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, SimulationSettings, load_material
from phonon_eels.forward.model import build_forward_model
from phonon_eels.forward.scan import Alignment, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.lineshapes import split_pearson7_area
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.simulate import simulate
from phonon_eels.steps.spec import StepContext
from phonon_eels.units import thermal_energy_mev

BI2212 = load_material("bi2212")
SEPARATED = ("BiO38", "BiO57", "CuO78")
"""Modes farther apart than the resolution: no prior on their energies."""

# Every position sees the same modes at the same energies; nothing wanders and nothing is counted.
QUIET = {
    "scan": dict.fromkeys(("drift_row_nm", "drift_column_nm", "wander_nm", "line_jitter_nm", "frame_jump_nm"), 0.0),
    "energy": {"zero_mev": 0.1, "drift_mev": 0.0, "jitter_mev": 0.0, "channels": 340, "offset_mev": -55.0},
    "zero_loss": {"width_wander": 0.0, "tail_wander": 0.0, "haadf_slope": 0.0, "wander_smooth_share": 0.0},
    "phonons": {"dechannelled_fraction": 1.0},
    "modulation": {"energy_enabled": False},
    "structure": {"corrugation": 0.0},
    "thickness": {"wedge_rows": 0.0, "wedge_columns": 0.0},
    "detector": {
        "poisson": False, "read_noise_e": 0.0, "fixed_pattern": 0.0, "spike_rate": 0.0, "gain": 1.0, "dark_level": 0.0,
    },
}  # fmt: skip


def material_of(*names):
    """Return Bi2212 with some of its modes only."""
    modes = tuple(mode for mode in BI2212.modes if mode.name in names)
    return BI2212.model_copy(update={"modes": modes, "pairs": ()}) if names else BI2212


def simulated(rows, columns, *, seed=1, material=BI2212, **sections):
    """Return a simulation; `sections` change settings of `QUIET`."""
    tree = {key: dict(value) for key, value in QUIET.items()}
    for key, values in sections.items():
        tree.setdefault(key, {}).update(values)
    tree["scan"] |= {"rows": rows, "columns": columns}
    return simulate(SimulationSettings.model_validate({"seed": seed, **tree}), material)


def model_of(simulation, material=BI2212, **changes):
    """Return the forward model with the true zero-loss shape and widths."""
    settings = Settings().fit_peaks.model_copy(update=changes)
    axis, loss = simulation.image.energy, simulation.truth["zlp"]
    zero = round(axis.channel(0.0))
    channels = np.arange(8 - zero, axis.n_channels - 8 - zero)
    return build_forward_model(
        settings, material, channels, axis.dispersion_mev,
        ZeroLossShape(loss["fwhm_mev"], loss["tail_loss"], loss["tail_gain"]),
        thermal_energy_mev(simulation.truth["temperature_k"]), shift_e=simulation.image.noise.read_noise_e**2,
    )  # fmt: skip


def alignment_of(simulation):
    """Return the true places of the zero-loss peaks."""
    return Alignment.from_center(simulation.truth_maps["zlp_center_mev"].values, simulation.image)


def true_params(simulation, model):
    """Return the true parameters of every position, (rows, columns, parameters)."""
    maps = simulation.truth_maps
    params = np.zeros((*simulation.image.shape[:2], model.n_params))
    fwhm, loss, gain = (maps[name].values for name in ("zlp_fwhm_mev", "zlp_tail_loss", "zlp_tail_gain"))
    area = np.vectorize(split_pearson7_area)(fwhm, loss, gain)
    params[..., 0] = maps["zlp_counts"].values / area * model.dispersion_mev
    params[..., 1] = alignment_of(simulation).shift_mev
    params[..., 2:5] = np.log(np.stack([fwhm, loss, gain], axis=-1) / model.reference)
    background = simulation.truth["settings"]["phonons"]["background_e_per_mev"]
    params[..., 5] = background * model.dispersion_mev
    modes = model.n_modes
    params[..., N_LOCAL : N_LOCAL + modes] = np.moveaxis(maps["area_e"].values, 0, 2)
    params[..., N_LOCAL + modes : N_LOCAL + 2 * modes] = np.moveaxis(maps["energy_mev"].values, 0, 2)
    return params


def start_params(simulation, model):
    """Return starts that know heights and areas, but the nominal energies and the reference shape only."""
    start = true_params(simulation, model)
    start[..., 2:5] = 0.0
    modes = model.n_modes
    start[..., N_LOCAL + modes : N_LOCAL + 2 * modes] = model.mode_energies_mev
    return start


def fit(simulation, model, backend=None, **changes):
    """Fit every position from `start_params`."""
    arguments = {"free_energies": True, **changes}
    return fit_scan(
        simulation.image, model, alignment_of(simulation), start_params(simulation, model), backend or CpuBackend(1),
        **arguments,
    )  # fmt: skip


def context_of(material=BI2212, threads=1, route="forward", **results):
    """Return a context; `results` are step names with their results."""
    return with_results(StepContext(material=material, backend=CpuBackend(threads), route=route), **results)


def with_results(context, **results):
    """Return the context with results of earlier steps."""
    found = {name: result for name, result in results.items() if result.skipped is None}
    skipped = {name: {"skipped": r.skipped} for name, r in results.items() if r.skipped is not None}
    return replace(
        context,
        maps={**context.maps, **{name: r.maps for name, r in found.items() if r.maps is not None}},
        tables={**context.tables, **{name: r.tables for name, r in found.items()}},
        summaries={**context.summaries, **{name: r.summary for name, r in found.items()}, **skipped},
    )
