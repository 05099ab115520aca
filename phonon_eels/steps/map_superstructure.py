"""Wavevector, amplitude and phase of the superstructure from the displacements of the BiO planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.lattice.intensity_wave import intensity_wave
from phonon_eels.lattice.phase_lock import LocalWave, lock_in
from phonon_eels.lattice.superstructure import NoSuperstructureError, Superstructure, phase_offset
from phonon_eels.lattice.twins import NO_WAVE, SlabWave, find_in_slabs
from phonon_eels.lattice.wave import Samples
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.maps import count_status, quantity, scan_dataset
from phonon_eels.steps.spec import StepContext, StepSpec

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.config.settings import MapSuperstructure

STATUS_MEANINGS = ("ok", "no_layers", "low_amplitude", "phase_slip", "extrapolated", "turned_slab")


def map_superstructure(image: SpectrumImage, settings: MapSuperstructure, context: StepContext) -> StepResult:
    """Map the phase of the superstructure.

    Parameters
    ----------
    image
        Spectrum image; only its scan axes are used.
    settings
        Section `map_superstructure`.
    context
        Material; maps, tables and summary of `assign_layers`.

    Returns
    -------
    StepResult
        Maps of lateral and outward phase, local amplitude; table `planes` with the phase of each plane, `slabs` with the wave in
        each (90° twins show none); summary with
        the wavevector and the check of the phase rule. Skipped, with the reason, where there is no wave.
    """
    import pandas as pd

    if not settings.enabled:
        return StepResult(skipped="switched off (map_superstructure.enabled: false)")
    wanted = context.material.superstructure
    if wanted is None:
        return StepResult(skipped=f"material {context.material.name} has no superstructure")
    if "assign_layers" not in context.maps or "planes" not in context.tables.get("assign_layers", {}):
        return StepResult(skipped="no layers were assigned: the superstructure is measured on their displacement")
    layers = context.maps["assign_layers"]
    planes = context.tables["assign_layers"]["planes"]
    samples, side = _samples(context.tables["assign_layers"]["displacements"], planes)
    # The period counts in scan nm; if the scan step is off, c tells by how much.
    scale = float(context.summaries.get("assign_layers", {}).get("scan_nm_per_crystal_nm", 1.0))
    low, high = wanted.period_bounds_nm
    try:
        samples, found, slabs = find_in_slabs(
            samples,
            side,
            (low * min(1.0, scale), high * max(1.0, scale)),
            antiphase_slabs=wanted.antiphase_slabs,
            period_nm=settings.period_nm,
        )
    except NoSuperstructureError as problem:
        return StepResult(skipped=str(problem))
    local = lock_in(samples, found.sign, found.wave, settings.lowpass_periods * found.wave.period_nm)
    outward = wanted.antiphase_planes if settings.antiphase_planes is None else settings.antiphase_planes
    turned = tuple(entry.slab for entry in slabs if entry.verdict == NO_WAVE)
    maps = _maps(image, layers, found, local, outward, turned)
    slab, plane_side = planes["slab"].to_numpy(), planes["side"].to_numpy()
    table = planes.assign(phase_offset_rad=phase_offset(slab, plane_side, found, outward))
    summary = _summary(found, local, maps, context, scale, outward)
    if image.haadf is not None:
        summary["intensity_wave"] = _intensity(image.haadf, maps, layers, context)
    summary["slabs_without_wave"] = list(turned)
    return StepResult(
        maps=maps,
        tables={"planes": table, "slabs": pd.DataFrame([vars(entry) for entry in slabs])},
        summary=summary,
        messages=(*_messages(found, local), *_twin_messages(slabs)),
    )


def _intensity(haadf: np.ndarray, maps: xr.Dataset, layers: xr.Dataset, context: StepContext) -> dict[str, Any]:
    """Relative modulation of the brightness of the heaviest planes, counted along their outward normals."""
    heaviest = max(context.material.layers, key=lambda layer: layer.atomic_number).name
    names = str(layers["layer"].attrs["flag_meanings"]).split()
    on_plane = np.asarray(layers["layer"].values) == names.index(heaviest)
    shows_it = maps["status"].values != STATUS_MEANINGS.index("turned_slab")
    phase = np.where(shows_it, maps["phase_rad"].values, np.nan)
    half_slab = np.asarray(layers["half_slab"].values)
    mean, n_planes = intensity_wave(np.asarray(haadf, dtype=float), phase, half_slab, on_plane)
    status = "ok" if mean.p_value < 0.05 else "not distinguished from none"
    return {
        "layer": heaviest,
        "amplitude": quantity(mean.amplitude, mean.amplitude_std, "1", status),
        "phase_rad": quantity(mean.phase_rad, mean.phase_std_rad, "rad", status),
        "p_value": mean.p_value,
        "n_planes": n_planes,
    }


def _twin_messages(slabs: tuple[SlabWave, ...]) -> tuple[str, ...]:
    turned = [str(entry.slab) for entry in slabs if entry.verdict == NO_WAVE]
    if not turned:
        return ()
    return (
        f"slab{'s' if len(turned) > 1 else ''} {', '.join(turned)} of {len(slabs)} show no wave where the others do: 90° twins "
        "with [010] along the beam, or disorder; their planes take no part in the modulation and serve as its control (table slabs)",
    )


def _samples(displacements: pd.DataFrame, planes: pd.DataFrame) -> tuple[Samples, np.ndarray]:
    plane = displacements["plane"].to_numpy().astype(int)
    samples = Samples(
        plane,
        displacements["slab"].to_numpy().astype(int),
        *(
            displacements[name].to_numpy(dtype=float)
            for name in ("c_scan_nm", "b_nm", "displacement_nm", "displacement_std_nm")
        ),
    )
    return samples, planes["side"].to_numpy()[plane]


def _maps(
    image: SpectrumImage, layers: xr.Dataset, found: Superstructure, local: LocalWave, outward: bool,
    turned: tuple[int, ...] = (),
) -> xr.Dataset:  # fmt: skip
    s, t = layers["c_scan_nm"].values, layers["b_scan_nm"].values
    wave = found.wave
    lateral = wave.phase_at(s, t) + local.kept * local.sample(np.unwrap(local.phase_rad, axis=1), s, t)
    half_slab = layers["half_slab"].values
    side = np.where(half_slab % 2 == 1, 1, -1)
    phase = lateral + phase_offset(half_slab // 2, side, found, outward)
    amplitude = local.sample(local.amplitude_nm, s, t)
    amplitude_std = local.sample(local.amplitude_std_nm, s, t)
    # The phase at a place far from the middle also carries the error of the period.
    gradient = np.stack([2.0 * np.pi * t, s, *(part * np.ones_like(t) for part in _phase_gradient(found))])
    global_var = np.einsum("i...,ij,j...->...", gradient, wave.covariance, gradient)
    phase_std = np.sqrt(np.maximum(global_var, 0.0) + (local.kept * local.sample(local.phase_std_rad, s, t)) ** 2)
    status = np.zeros(s.shape, dtype=np.int16)
    measured = (s > local.s_nm[0] - wave.period_nm) & (s < local.s_nm[-1] + wave.period_nm)
    status[~measured] = STATUS_MEANINGS.index("extrapolated")
    status[local.nearest(local.slip, s, t)] = STATUS_MEANINGS.index("phase_slip")
    status[amplitude < 3.0 * amplitude_std] = STATUS_MEANINGS.index("low_amplitude")
    status[np.isin(layers["slab"].values, turned)] = STATUS_MEANINGS.index("turned_slab")
    missing = ~np.isfinite(layers["quality"].values)
    status[missing] = STATUS_MEANINGS.index("no_layers")

    def known(values: np.ndarray) -> np.ndarray:
        return np.where(missing, np.nan, values)

    turn = 2.0 * np.pi
    return scan_dataset(
        image,
        {
            "phase_rad": (known(np.mod(phase, turn)), "rad"),
            "phase_rad_std": (known(phase_std), "rad"),
            "lateral_phase_rad": (known(np.mod(lateral, turn)), "rad"),
            "lateral_phase_rad_std": (known(phase_std), "rad"),
            "amplitude_nm": (known(amplitude), "nm"),
            "amplitude_nm_std": (known(amplitude_std), "nm"),
        },
        status,
        STATUS_MEANINGS,
    )


def _phase_gradient(found: Superstructure) -> tuple[float, float]:
    """Change of the phase with the cos and sin parts of the wave."""
    wave = found.wave
    return -float(np.sin(wave.phase_rad)) / wave.amplitude_nm, -float(np.cos(wave.phase_rad)) / wave.amplitude_nm


def _summary(
    found: Superstructure, local: LocalWave, maps: xr.Dataset, context: StepContext, scale: float, outward: bool
) -> dict[str, Any]:
    wave = found.wave
    k = 2.0 * np.pi / wave.period_nm
    off_b = float(np.arctan2(wave.tilt_rad_per_nm, k))
    several = len(local.s_nm) > 1
    # One slab shows no phase along c: the wavevector is taken to lie along b.
    tilt_std = wave.tilt_std_rad_per_nm if several else float("nan")
    off_b_std = tilt_std / k
    c_angle = float(context.summaries.get("assign_layers", {}).get("c_angle_rad", 0.0))
    c_row, c_column = np.cos(c_angle), np.sin(c_angle)
    sign = 1.0 if abs(c_row) >= abs(c_column) else -1.0
    q_row = k * -sign * c_column + wave.tilt_rad_per_nm * c_row
    q_column = k * sign * c_row + wave.tilt_rad_per_nm * c_column
    c_scan = context.material.crystal.c_nm * scale if context.material.crystal is not None else float("nan")
    base = 1.0 if found.antiphase_slabs else 0.0
    by_b = context.summaries.get("assign_layers", {}).get("scan_nm_per_crystal_nm_b") or {}
    along_b = float(by_b["value"]) if by_b.get("status") == "ok" else float("nan")
    fixed = wave.covariance[0, 0] < 1e-18
    breathing = found.breathing
    summary: dict[str, Any] = {
        "period_nm": quantity(wave.period_nm, wave.period_std_nm, "nm", "fixed" if fixed else "ok"),
        "period_by_c_nm": quantity(wave.period_nm / scale, wave.period_std_nm / scale, "nm"),
        "period_by_b_nm": quantity(
            wave.period_nm / along_b,
            wave.period_std_nm / along_b,
            "nm",
            "ok" if np.isfinite(along_b) else "not measured",
        ),
        "direction_rad": quantity(float(np.arctan2(q_row, q_column)), off_b_std, "rad"),
        "off_b_rad": quantity(off_b, off_b_std, "rad", "ok" if several else "assumed"),
        "c_component": quantity(
            base + wave.tilt_rad_per_nm * c_scan / (2.0 * np.pi),
            tilt_std * c_scan / (2.0 * np.pi),
            "c*",
            "ok" if several else "assumed",
        ),
        "displacement_nm": quantity(wave.amplitude_nm, wave.amplitude_std_nm, "nm"),
        "p_value": wave.p_value,
        "periods_in_view": wave.periods_in_view,
        "pattern": found.pattern,
        "outward_normals": outward,
        "scatter": wave.scatter,
        "local_phase_kept": local.kept,
        "phase_slips": int(np.count_nonzero(np.diff(local.slip.astype(int), axis=1, prepend=0) == 1)),
        "status_counts": count_status(maps["status"].values, STATUS_MEANINGS),
    }
    if breathing is not None:
        summary["phase_rule"] = {
            "gap_breathing_nm": quantity(breathing.gap_nm, breathing.gap_std_nm, "nm"),
            "slab_breathing_nm": quantity(breathing.slab_nm, breathing.slab_std_nm, "nm"),
            "common_wave_nm": quantity(breathing.common_nm, breathing.common_std_nm, "nm"),
            "verdict": breathing.verdict,
        }
    return summary


def _messages(found: Superstructure, local: LocalWave) -> tuple[str, ...]:
    messages = []
    rule = found.breathing
    if found.pattern == "breathing":
        messages.append(
            "the slabs breathe and the van der Waals gap keeps its width, against the symmetry of the material: "
            "outward phases follow what the image shows; set map_superstructure.antiphase_planes to overrule"
        )
    elif rule is not None and rule.verdict == "not distinguished":
        messages.append(
            f"the image does not tell whether gap or slab breathes ({1e3 * rule.gap_nm:.1f} ± "
            f"{1e3 * rule.gap_std_nm:.1f} against {1e3 * rule.slab_nm:.1f} ± {1e3 * rule.slab_std_nm:.1f} pm): "
            f"outward phases rest on the material's symmetry"
        )
    elif rule is None:
        messages.append("only one side of the slabs is in view: outward phases rest on the material's symmetry")
    if local.slip.any():
        messages.append("the phase of the superstructure slips inside the scan; those positions are flagged")
    if found.wave.periods_in_view < 1.5:
        messages.append(
            f"{found.wave.periods_in_view:.2f} periods of the superstructure are in view: "
            f"wave and drift along b are hard to tell apart"
        )
    return tuple(messages)


MAP_SUPERSTRUCTURE = StepSpec(
    name="map_superstructure",
    run=map_superstructure,
    makes={"phase_rad": "rad", "lateral_phase_rad": "rad", "amplitude_nm": "nm"},
    needs=("assign_layers",),
    reference="phase lock-in after doi:10.1073/pnas.0706795105 on least-squares plane displacements",
)
