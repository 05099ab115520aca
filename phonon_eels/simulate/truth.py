"""What was planted, in words a program can read: the JSON tree and the maps that go beside a simulated file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.simulate.crystal import Scene
from phonon_eels.simulate.detector import noise_correlation, spikes_of_row
from phonon_eels.simulate.lines import REACH_SIGMA
from phonon_eels.simulate.spectra import ForwardModel, localisation_fwhm_nm, modulation_of

if TYPE_CHECKING:
    import xarray as xr

SCHEMA_VERSION = 1
MOST_SPIKES = 20_000
"""More cosmic rays than this are counted but not listed."""


def true_maps(model: ForwardModel) -> xr.Dataset:
    """Return the maps of an ideal analysis over (row, column), with mode maps over (mode, row, column).

    Positions are those of frame 0. Electrons (`zlp_counts`, `area_e`) are those of all frames together; what differs
    between the frames stands over (frame, row, column) under names that begin with `frame_`.
    """

    scene = model.scene
    n_frames = scene.settings.scan.frames
    area, energy, width = model.mode_sums(0)
    flat, modes, frames = ("row", "column"), ("mode", "row", "column"), ("frame", "row", "column")
    pearson = scene.settings.zero_loss.shape == "split_pearson7"

    def tail(values: np.ndarray) -> np.ndarray:
        return values[0] if pearson else np.full(values.shape[1:], np.nan)

    fwhm = model.width_mev * (response_fwhm_mev(model) / scene.settings.zero_loss.fwhm_mev)
    added = {
        "zlp_center_mev": (flat, model.shift_mev[0], _unit("meV", "mode of the zero-loss peak on the energy axis")),
        "zlp_fwhm_mev": (flat, fwhm[0], _unit("meV", "full width at half maximum of the zero-loss peak")),
        "zlp_counts": (flat, model.zero_loss_e.sum(axis=0), _unit("e", "electrons in the zero-loss peak")),
        "zlp_tail_loss": (flat, tail(model.tail_loss), _unit("1", "Pearson exponent of the loss side")),
        "zlp_tail_gain": (flat, tail(model.tail_gain), _unit("1", "Pearson exponent of the gain side")),
        "energy_mev": (modes, energy, _unit("meV", "mode energy, mean over all planes that the probe sees")),
        "fwhm_mev": (modes, width, _unit("meV", "intrinsic width, the same mean")),
        "area_e": (modes, n_frames * area, _unit("e", "electrons on the loss side")),
        "frame_zlp_center_mev": (frames, model.shift_mev, _unit("meV", "mode of the zero-loss peak, by frame")),
        "frame_zlp_fwhm_mev": (frames, fwhm, _unit("meV", "width of the zero-loss peak, by frame")),
        "frame_row_offset_nm": (frames, scene.path.row_offset_nm, _unit("nm", "probe off its place, along rows")),
        "frame_column_offset_nm": (frames, scene.path.column_offset_nm, _unit("nm", "the same along columns")),
    }
    names = np.array([mode.name for mode in scene.material.modes], dtype=object)
    return scene.truth.assign(added).assign_coords(mode=("mode", names), frame=("frame", np.arange(n_frames)))


def _unit(unit: str, meaning: str) -> dict[str, str]:
    return {"units": unit, "long_name": meaning}


def response_fwhm_mev(model: ForwardModel) -> float:
    """Full width at half maximum of the zero-loss peak at its nominal width, found numerically where it has skirts."""
    from scipy.optimize import brentq

    from phonon_eels.simulate.lines import response

    zero_loss = model.scene.settings.zero_loss
    if zero_loss.shape != "gaussian_exponential":
        return zero_loss.fwhm_mev
    widths = zero_loss.fwhm_mev
    skirts = (zero_loss.skirt_share, zero_loss.skirt_loss_mev / widths, zero_loss.skirt_gain_mev / widths)
    top = response(0.0, 2, widths, *skirts)
    right = brentq(lambda x: response(x, 2, widths, *skirts) - 0.5 * top, 0.0, 20.0 * widths)
    left = brentq(lambda x: response(-x, 2, widths, *skirts) - 0.5 * top, 0.0, 20.0 * widths)
    return float(right + left)


def truth_tree(model: ForwardModel, maps: xr.Dataset) -> dict[str, Any]:
    """Return everything that was planted as plain numbers and words, ready for JSON.

    Parameters
    ----------
    maps
        The true maps, for the means over the scan.
    """
    scene = model.scene
    settings, material = scene.settings, scene.material
    crystal, scan = material.crystal, settings.scan
    loss = settings.zero_loss
    pearson = loss.shape == "split_pearson7"
    localisation = localisation_fwhm_nm(settings, material)
    spikes = _spike_list(scene)
    return {
        "schema_version": SCHEMA_VERSION,
        "title": settings.title,
        "seed": settings.seed,
        "material": material.name,
        "primary_test": material.primary_test.model_dump() if material.primary_test else None,
        "modes": _modes(model, maps),
        "superstructure": _superstructure(scene),
        "layers": [{"name": layer.name, "height_nm": layer.height_nm} for layer in material.layers],
        "crystal": crystal.model_dump() if crystal else None,
        "planes": _planes_inside(scene),
        "zlp": {
            "shape": loss.shape,
            "fwhm_mev": response_fwhm_mev(model),
            "tail_loss": loss.tail_loss if pearson else None,
            "tail_gain": loss.tail_gain if pearson else None,
            "mean_fwhm_mev": float(maps["frame_zlp_fwhm_mev"].mean()),
            "mean_tail_loss": float(model.tail_loss.mean()) if pearson else None,
            "mean_tail_gain": float(model.tail_gain.mean()) if pearson else None,
            "electrons": loss.electrons,
        },
        "localisation": {
            "fwhm_nm": localisation,
            "probe_fwhm_nm": settings.acquisition.probe_fwhm_nm,
            "total_fwhm_nm": float(np.hypot(localisation, settings.acquisition.probe_fwhm_nm)),
            "dechannelled_fraction": settings.phonons.dechannelled_fraction,
            "dipole_fraction": settings.phonons.dipole_fraction,
        },
        "attenuation": attenuation(model),
        "temperature_k": settings.phonons.temperature_k,
        "detector": {**settings.detector.model_dump(), "noise_correlation": noise_correlation(settings)},
        "frames": {
            "n": scan.frames,
            "row_offset_nm": scene.path.row_offset_nm.mean(axis=(1, 2)).tolist(),
            "column_offset_nm": scene.path.column_offset_nm.mean(axis=(1, 2)).tolist(),
            "zlp_center_mev": model.shift_mev.mean(axis=(1, 2)).tolist(),
        },
        "spikes": {
            "n": len(spikes),
            "columns": ["frame", "row", "column", "channel", "counts"],
            "list": spikes[:MOST_SPIKES],
        },
        "settings": settings.model_dump(mode="json"),
    }


def _modes(model: ForwardModel, maps: xr.Dataset) -> list[dict[str, Any]]:
    scene = model.scene
    modulation = modulation_of(scene.settings, scene.material)
    area = maps["area_e"].values
    energy = np.where(area > 0, maps["energy_mev"].values, 0.0)
    found = []
    for m, mode in enumerate(scene.material.modes):
        wave = modulation[mode.name]
        total = float(area[m].sum())
        found.append(
            {
                "name": mode.name,
                "energy_mev": float(model.terms.modes[m, 0]),
                "fwhm_mev": float(model.terms.modes[m, 1]),
                "layers": dict(mode.layers),
                "plane_area_e": {
                    layer.name: float(model.terms.weights[index, m])
                    for index, layer in enumerate(scene.material.layers)
                },
                "modulation_amplitude_mev": wave.energy_mev,
                "modulation_phase_rad": wave.energy_phase_rad,
                "second_harmonic_mev": wave.second_harmonic_mev,
                "second_phase_rad": wave.second_phase_rad,
                "weight_modulation": wave.weight,
                "weight_phase_rad": wave.weight_phase_rad,
                "width_modulation": wave.width,
                "width_phase_rad": wave.width_phase_rad,
                # Planes cut by the edge of the scan leave the mean energy a little off the nominal one.
                "scan_mean_energy_mev": float((area[m] * energy[m]).sum() / total) if total > 0 else None,
                "scan_mean_area_e": total / area[m].size,
            }
        )
    return found


def _superstructure(scene: Scene) -> dict[str, Any]:
    settings, wave = scene.settings, scene.material.superstructure
    factor = settings.structure.corrugation
    planes = scene.planes
    outward = bool(np.array_equal(planes.modulation_shift_rad, planes.outward_shift_rad))
    rule = "outward" if outward else ("slab" if planes.modulation_shift_rad.any() else "in_phase")
    return {
        "period_nm": scene.period_nm,
        "phase_rad": settings.structure.phase_rad,
        "direction_rad": settings.scan.rotation_rad,
        "antiphase_slabs": wave.antiphase_slabs if wave else None,
        "breathing": settings.structure.breathing,
        "modulation_phase_rule": rule,
        "displacement_nm": {name: factor * value for name, value in wave.displacement_nm.items()} if wave else {},
    }


def _planes_inside(scene: Scene) -> list[dict[str, Any]]:
    """Planes that lie inside the field of view, with whether they do so at every column of frame 0."""
    path, planes = scene.path, scene.planes
    theta = scene.lateral_phase(path.b_nm[0])
    found = []
    for p in range(len(planes.layer)):
        away = path.c_nm[0] - planes.height_nm[p] - planes.amplitude_nm[p] * np.cos(theta)
        inside = (away.min(axis=0) <= 0) & (away.max(axis=0) >= 0)
        if inside.any():
            found.append(
                {
                    "layer": scene.material.layers[planes.layer[p]].name,
                    "slab": int(planes.slab[p]),
                    "outward": int(planes.side[p]),
                    "half_slab": int(planes.half_slab[p]),
                    "height_nm": float(planes.height_nm[p]),
                    "outward_shift_rad": float(planes.outward_shift_rad[p]),
                    "whole": bool(inside.all()),
                }
            )
    return found


def attenuation(model: ForwardModel) -> dict[str, float]:
    """Share of each mode's amplitude that one energy per position can show at the mode's own strongest plane.

    Leakage from planes of the other phase, the dechannelled tail and the dipole part each take their share; planes
    are taken as flat, and the field of view as endless.
    """
    scene, terms = model.scene, model.terms
    sigma, tail, dipole, antiphase = terms.excitation[:4]
    planes, names = scene.planes, [mode.name for mode in scene.material.modes]
    result = {}
    for m, name in enumerate(names):
        weights = terms.weights[planes.layer, m]
        if not weights.any():
            continue
        middle = np.median(planes.height_nm)
        strongest = np.flatnonzero(weights == weights.max())
        own = strongest[np.argmin(np.abs(planes.height_nm[strongest] - middle))]
        away = (planes.height_nm - planes.height_nm[own]) / sigma
        local = np.where(np.abs(away) < REACH_SIGMA, weights * np.exp(-0.5 * away**2), 0.0)
        sign = np.cos(planes.modulation_shift_rad - planes.modulation_shift_rad[own])
        mean = terms.excitation[4 + m]
        coherent = (1.0 - tail) * float(local @ sign) + (0.0 if antiphase else tail * mean)
        everything = (1.0 - dipole) * ((1.0 - tail) * float(local.sum()) + tail * mean) + dipole * mean
        result[name] = (1.0 - dipole) * coherent / everything
    return result


def _spike_list(scene: Scene) -> list[list[float]]:
    settings = scene.settings
    if settings.detector.spike_rate == 0.0:
        return []
    found = []
    for frame in range(settings.scan.frames):
        for row in range(settings.scan.rows):
            spikes = spikes_of_row(settings, frame, row)
            for column, channel, counts in zip(spikes.column, spikes.channel, spikes.counts, strict=True):
                found.append([frame, row, int(column), int(channel), round(float(counts), 1)])
    return found
