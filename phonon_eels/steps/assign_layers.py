"""Layer label and coordinate along c of every position, from the dark-field image; spectra averaged by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.io.column_file import read_columns
from phonon_eels.lattice.columns import drawn_image
from phonon_eels.lattice.layer_spectra import LayerSpectra, average_layers
from phonon_eels.lattice.layers import (
    STATUS_MEANINGS,
    Labels,
    LayerModel,
    NoLayersError,
    find_layers,
    label_positions,
    planes_inside,
)
from phonon_eels.lattice.leakage import plane_leakage
from phonon_eels.lattice.stack import GAP
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.maps import count_status, quantity, scan_dataset
from phonon_eels.steps.scan_scale import scale_messages, scan_scale
from phonon_eels.steps.spec import StepContext, StepSpec
from phonon_eels.steps.unmixing import components_in, leakage_table, tables_from_file, unmixed_table
from phonon_eels.units import FWHM_PER_SIGMA

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.config.settings import AssignLayers

DEFAULT_LOCALISATION_NM = 0.2  # impact scattering, 1.5 to 3 Å, where the material file says nothing

C_BINS = 32
"""Parts of the unit cell along c that spectra are averaged in, each about as wide as a probe."""


def assign_layers(image: SpectrumImage, settings: AssignLayers, context: StepContext) -> StepResult:
    """Assign every position to a layer of the crystal.

    Parameters
    ----------
    image
        Spectrum image with HAADF.
    settings
        Section `assign_layers`.
    context
        Material and backend; maps of `align_zlp`, if there, put the layer spectra on a common zero.

    Returns
    -------
    StepResult
        Maps of layer, probabilities, coordinate along c, slab, outward normal and source planes; tables `planes`,
        `displacements`, `layer_spectra`, `c_spectra`, `leakage` and `unmixed_spectra`. Skipped, with the reason, where the layers cannot be seen.
    """
    if not settings.enabled:
        return StepResult(skipped="switched off (assign_layers.enabled: false)")
    reasons = ["no HAADF: layers cannot be assigned"] if image.haadf is None else []
    crystal = context.material.crystal
    if not context.material.layers or crystal is None:
        reasons.append(f"material {context.material.name} has no crystal or no layers: nothing to assign")
    if reasons or image.haadf is None or crystal is None:
        return StepResult(skipped="; ".join(reasons))
    rows, columns = (axis.positions_nm for axis in image.scan)
    haadf = _contrast(image, settings)
    try:
        model = find_layers(
            haadf, rows, columns, context.material, c_direction=settings.c_direction, contrast=settings.contrast
        )
    except NoLayersError as problem:
        return StepResult(skipped=str(problem))
    labels = label_positions(model)
    scale = scan_scale(haadf, model, 0.5 * crystal.b_nm)
    numbers = _plane_numbers(model)
    declared = context.material.localisation
    localisation = settings.localisation_fwhm_nm or (declared.fwhm_nm if declared else DEFAULT_LOCALISATION_NM)
    maps = _maps(image, model, labels, numbers, localisation)
    sure = _sure_labels(labels, settings.min_probability)
    spectra = _spectra(image, sure, len(model.stack.names) + 1, context)
    planes = _planes_table(model, numbers)
    tables = {
        "planes": planes,
        "displacements": _displacements_table(model, numbers),
        "layer_spectra": _spectra_table((*model.stack.names, GAP), spectra),
    }
    split = next((c.removesuffix(" upper") for c in components_in(planes, model.stack).names if " upper" in c), None)
    if split is not None:
        # The two planes of a layer apart, beside their common mean: 0 where the outward normal points down, 1 up.
        side = np.where(sure == model.stack.names.index(split), np.where(labels.outward > 0, 1, 0), -1)
        apart = _spectra_table((f"{split} lower", f"{split} upper"), _spectra(image, side, 2, context))
        tables["layer_spectra"] = tables["layer_spectra"].join(apart.drop(columns="energy_loss_mev"))
    tables["c_spectra"] = _c_spectra(image, sure, np.asarray(maps["c_fraction"].values, dtype=float), context)
    tables |= _unmixed(image, model, maps, tables["planes"], spectra, localisation, settings, context)
    return StepResult(
        maps=maps,
        tables=tables,
        summary=_summary(model, labels, localisation, spectra) | scale,
        messages=(
            *_messages(model, labels),
            *scale_messages(model, scale, model.stack.c_nm, _step_along_c(image, model)),
        ),
    )


def _step_along_c(image: SpectrumImage, model: LayerModel) -> float:
    """Scan step of the direction that c is nearer to, nm."""
    along_rows = abs(np.cos(model.match.angle_rad)) >= abs(np.sin(model.match.angle_rad))
    return image.scan[0 if along_rows else 1].step_nm


def _contrast(image: SpectrumImage, settings: AssignLayers) -> np.ndarray:
    """Return the image that layers are looked for in: the HAADF, or what columns of atoms from a file draw."""
    haadf = np.asarray(image.haadf, dtype=float)
    if settings.columns_file is not None:
        places, intensity = read_columns(Path(settings.columns_file).expanduser(), haadf.shape)
        haadf = drawn_image(places, intensity, haadf, (image.scan[0].step_nm, image.scan[1].step_nm))
    if image.masked is not None:  # no lattice in vacuum, and none to be trusted under contamination
        haadf = np.where(image.masked, np.nan, haadf)
    return haadf


def _unmixed(
    image: SpectrumImage, model: LayerModel, maps: xr.Dataset, planes: pd.DataFrame, spectra: LayerSpectra,
    localisation_nm: float, settings: AssignLayers, context: StepContext,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Return the tables `leakage` and `unmixed_spectra`."""
    if settings.leakage_file is not None:
        leakage, pure = tables_from_file(Path(settings.leakage_file).expanduser(), spectra, model.stack.names)
        return {"leakage": leakage, "unmixed_spectra": pure}
    declared = context.material.localisation
    std_nm = declared.std_nm if declared is not None and settings.localisation_fwhm_nm is None else 0.0
    probe = model.warp.sigma_nm * FWHM_PER_SIGMA / model.match.scale
    # The probe's width adds in quadrature, so an error of the localisation counts for less in the whole.
    relative_std = localisation_nm * std_nm / (localisation_nm**2 + probe**2)
    usable = np.isin(maps["status"].values, (STATUS_MEANINGS.index("ok"), STATUS_MEANINGS.index("extrapolated")))
    components = components_in(planes, model.stack)
    return {
        "leakage": leakage_table(maps, components, usable, relative_std),
        "unmixed_spectra": unmixed_table(image, maps, components, usable, relative_std, context),
    }


def _plane_numbers(model: LayerModel) -> np.ndarray:
    """Row in the table of planes of each plane of the warp; -1 for gaps, which hold no atoms."""
    atoms = model.warp.planes.kind < len(model.stack.names)
    numbers: np.ndarray = np.where(atoms, np.cumsum(atoms) - 1, -1)
    return numbers


def _maps(
    image: SpectrumImage, model: LayerModel, labels: Labels, numbers: np.ndarray, localisation_nm: float
) -> xr.Dataset:
    names = [*model.stack.names, GAP]
    probe = model.warp.sigma_nm * FWHM_PER_SIGMA / model.match.scale
    source, weight = plane_leakage(labels.near_distance_nm, numbers[labels.near_plane], localisation_nm, probe)
    data = scan_dataset(
        image,
        {
            "c_fraction": (np.mod(labels.c_position_nm / model.stack.c_nm, 1.0), "1"),
            "c_position_nm": (labels.c_position_nm, "nm"),
            "slab": (labels.slab.astype(np.int32), "1"),
            "half_slab": (labels.half_slab.astype(np.int32), "1"),
            "outward": (labels.outward.astype(np.int16), "1"),
            "quality": (model.quality, "1"),
            "b_scan_nm": (model.view.t, "nm"),
            "c_scan_nm": (model.view.s, "nm"),
        },
        labels.status,
        STATUS_MEANINGS,
    )
    cube = ("row", "column")
    flags = {"units": "1", "flag_values": np.arange(len(names), dtype=np.int16), "flag_meanings": " ".join(names)}
    data = data.assign(
        layer=(cube, labels.layer.astype(np.int16), flags),
        layer_probability=(("layer_name", *cube), labels.probability, {"units": "1"}),
        source_plane=(
            ("source", *cube),
            source.astype(np.int32),
            {"units": "1", "long_name": "row in the table planes"},
        ),
        source_weight=(("source", *cube), weight, {"units": "1"}),
    )
    return data.assign_coords(layer_name=("layer_name", names))


def _sure_labels(labels: Labels, min_probability: float) -> np.ndarray:
    """Return the layer of each position, -1 where it is not known well enough."""
    usable = np.isin(labels.status, (STATUS_MEANINGS.index("ok"), STATUS_MEANINGS.index("extrapolated")))
    sure = np.take_along_axis(labels.probability, labels.layer[None], axis=0)[0] >= min_probability
    return np.where(usable & sure, labels.layer, -1)


def _spectra(image: SpectrumImage, chosen: np.ndarray, n_kinds: int, context: StepContext) -> LayerSpectra:
    center = None
    if image.variance is None and "align_zlp" in context.maps:  # resampled images have it at 0 already
        # A calibration changes the energy axis, and writes the centres on the new one.
        calibrated = "zlp_center_mev" in context.maps.get("calibrate", {})
        center = np.asarray(context.maps["calibrate" if calibrated else "align_zlp"]["zlp_center_mev"].values)
    return average_layers(image, chosen, n_kinds, center, context.backend, context.progress)


def _c_spectra(image: SpectrumImage, sure: np.ndarray, c_fraction: np.ndarray, context: StepContext) -> pd.DataFrame:
    """Return mean spectra against the fractional c coordinate, all cells of the scan folded into one."""
    import pandas as pd

    known = (sure >= 0) & np.isfinite(c_fraction)
    part = np.where(known, np.floor(np.mod(np.where(known, c_fraction, 0.0), 1.0) * C_BINS), -1).astype(np.intp)
    spectra = _spectra(image, part, C_BINS, context)
    n = spectra.energy_loss_mev.size
    table = pd.DataFrame(
        {
            "c_fraction": np.repeat((np.arange(C_BINS) + 0.5) / C_BINS, n),
            "energy_loss_mev": np.tile(spectra.energy_loss_mev, C_BINS),
            "mean_e": spectra.mean_e.ravel(),
            "std_e": spectra.std_e.ravel(),
            "n_positions": np.repeat(spectra.n_positions, n),
        }
    )
    return table[table["n_positions"] > 0].reset_index(drop=True)


def _spectra_table(names: tuple[str, ...], spectra: LayerSpectra) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {"energy_loss_mev": spectra.energy_loss_mev}
    for kind, name in enumerate(names):
        columns[f"{name}_e"] = spectra.mean_e[kind]
        columns[f"{name}_std_e"] = spectra.std_e[kind]
    return pd.DataFrame(columns)


def _planes_table(model: LayerModel, numbers: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    warp, stack = model.warp, model.stack
    atoms = np.flatnonzero(numbers >= 0)
    planes = warp.planes.select(atoms)
    inside = planes_inside(model)[atoms]
    slab_start = planes.slab * stack.repeat_nm
    upper = planes.position_nm - slab_start >= 0.5 * stack.repeat_nm - 1e-9
    return pd.DataFrame(
        {
            "plane": np.arange(len(atoms)),
            "layer": [stack.names[kind] for kind in planes.kind],
            "slab": planes.slab,
            "side": planes.side,
            "half_slab": 2 * planes.slab + upper,
            "outward": planes.side,
            "c_position_nm": planes.position_nm,
            "c_fraction": np.mod(planes.position_nm / stack.c_nm, 1.0),
            "c_scan_nm": warp.nominal_nm[atoms] + warp.shift_nm[atoms].mean(axis=1),
            "inside_share": inside,
            "whole": inside >= 0.95,
            "measured": np.isin(atoms, warp.anchors),
        }
    )


def _displacements_table(model: LayerModel, numbers: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    warp = model.warp
    samples = warp.samples
    strip = np.rint((samples.t_nm - warp.t_nm[0]) / warp.step_nm).astype(int)
    return pd.DataFrame(
        {
            "plane": numbers[samples.plane.astype(int)],
            "slab": samples.slab.astype(int),
            "column": strip,
            "b_nm": samples.t_nm,
            "c_scan_nm": samples.s_nm,
            "displacement_nm": samples.u_nm / model.match.scale,
            "displacement_std_nm": samples.std_nm / model.match.scale,
        }
    )


def _summary(model: LayerModel, labels: Labels, localisation_nm: float, spectra: LayerSpectra) -> dict[str, Any]:
    match, stack, warp = model.match, model.stack, model.warp
    names = [*stack.names, GAP]
    measured = not match.scale_fixed and np.isfinite(model.scale_std)
    strongest = model.intensity.strengths[stack.anchor]
    return {
        "status": "ok" if len(warp.anchors) >= 2 else "partial",
        "c_angle_rad": match.angle_rad,
        "c_period_nm": quantity(
            match.scale * stack.c_nm,
            model.scale_std * stack.c_nm if measured else float("nan"),
            "nm",
            "ok" if measured else "assumed",
        ),
        "scan_nm_per_crystal_nm": match.scale,
        "probe_fwhm_nm": warp.sigma_nm * FWHM_PER_SIGMA / model.match.scale,
        "localisation_fwhm_nm": localisation_nm,
        "contrast": "bright" if match.contrast > 0 else "dark",
        "explained": match.explained,
        "runner_up": match.runner_up,
        "significance": match.significance,
        "field_along_c_nm": match.extent_nm,
        "layer_strengths": {
            name: float(model.intensity.strengths[k] / strongest) for k, name in enumerate(stack.names)
        },
        "wave_ratios": {
            name: quantity(
                warp.wave_ratio[k], warp.wave_ratio_std[k], "1", "ok" if warp.wave is not None else "assumed"
            )
            for k, name in enumerate(stack.names)
        },
        "positions": {name: int(np.count_nonzero(labels.layer == k)) for k, name in enumerate(names)},
        "averaged_positions": {name: int(spectra.n_positions[k]) for k, name in enumerate(names)},
        "status_counts": count_status(labels.status, STATUS_MEANINGS),
        "median_quality": float(np.nanmedian(model.quality)),
    }


def _messages(model: LayerModel, labels: Labels) -> tuple[str, ...]:
    messages = []
    match, stack = model.match, model.stack
    if match.scale_fixed:
        messages.append(
            f"only {match.extent_nm:.2f} nm along c are in view ({match.extent_nm / stack.c_nm:.2f} unit cells): "
            f"labels are given, the period along c is taken from the material"
        )
    poor = int(np.count_nonzero(labels.status == STATUS_MEANINGS.index("poor_match")))
    if poor:
        messages.append(f"the layer model explains little of the HAADF at {poor} positions; their labels are doubtful")
    missing = int(np.count_nonzero(labels.status == STATUS_MEANINGS.index("no_haadf")))
    if missing:
        messages.append(f"{missing} positions have no HAADF; their labels come from the planes next to them")
    return tuple(messages)


ASSIGN_LAYERS = StepSpec(
    name="assign_layers",
    run=assign_layers,
    makes={"layer": "1", "layer_probability": "1", "c_fraction": "1", "c_position_nm": "nm", "quality": "1"},
    needs=("align_zlp",),
    reference="matched stack profile and least-squares plane positions (this package)",
)
