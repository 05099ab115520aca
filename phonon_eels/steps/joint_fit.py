"""The joint fit of all counts: energies that follow the superstructure, plane by plane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.config import Mode
from phonon_eels.errors import DataError
from phonon_eels.forward.model import ForwardModel
from phonon_eels.forward.scan import Alignment, ScanFit, fit_scan, without_slopes
from phonon_eels.forward.seen_lines import SeenLines
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED
from phonon_eels.lattice.inference import MeanAmplitude, antiphase_and_inphase
from phonon_eels.lattice.leakage_matrix import LeakageMatrix, with_matrix
from phonon_eels.lattice.localisation import Localisation, Sources, fit_localisation, total_fwhm_nm
from phonon_eels.lattice.mixture import mixture_response
from phonon_eels.lattice.modulation import Scores, UnitFit, basis, fit_unit, mode_sources, modelled_energies
from phonon_eels.spectrum_image import SpectrumImage
from phonon_eels.steps.spec import StepContext

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from phonon_eels.config.settings import MeasureModulation

PASSES = 3
VARIANTS = 5
MIN_EXPECTED = 0.05
"""Positions that are to show less than this share of a mode's largest area say nothing about its weight."""
MIN_UNIT_INFORMATION = 0.4
"""Planes that show less than this share of the median plane's information (cut by the edge of the scan) are no unit."""
MIXTURE_MATTERS_MEV = 0.05
"""Planes of opposite phase that differ by less are seen as their centroid."""
DEFAULT_LOCALISATION_NM = (0.2, 0.1)


@dataclass(frozen=True)
class Geometry:
    """What layers and superstructure say about every position and plane.

    Attributes
    ----------
    lateral_phase_rad
        NaN outside the planes and in turned slabs.
    turned, turned_phase_rad
        Half slabs turned by 90°, which show no superstructure, and the phase that their neighbours' wave would have there.
    leakage
        Leakage matrix of a file with the probability of each layer at every position, or None: from the distances.
    """

    planes: pd.DataFrame
    lateral_phase_rad: np.ndarray
    phase_rad: np.ndarray
    half_slab: np.ndarray
    b_nm: np.ndarray
    layer: np.ndarray
    layer_names: tuple[str, ...]
    source_plane: np.ndarray
    source_weight: np.ndarray
    source_fwhm_nm: float
    probe_fwhm_nm: float
    period_nm: float
    turned: tuple[int, ...] = ()
    turned_phase_rad: np.ndarray | None = None
    leakage: LeakageMatrix | None = None


@dataclass(frozen=True)
class JointFit:
    """The joint fit of all positions, and of each plane.

    Attributes
    ----------
    signed_share
        (M, rows, columns) share of a plane's amplitude that a mode's fitted energy follows; 0 for modes without layers.
    first_order_share
        The same for modulations too small to tell two lines apart.
    params
        (rows, columns, parameters) where the scores were taken.
    lines
        The modes' lines in the mean spectrum.
    noise_factor
        (M,) by which noise that channels share widens what the scores say of a mode; the units' covariances hold it.
    """

    model: ForwardModel
    scores: Scores
    localisation: tuple[Localisation | None, ...]
    signed_share: np.ndarray
    regressors: np.ndarray
    reference_mev: np.ndarray
    common: UnitFit
    units: dict[int, UnitFit]
    areas: np.ndarray
    first_order_share: np.ndarray
    params: np.ndarray
    lines: SeenLines
    noise_factor: np.ndarray

    def relative_area(self, mode: int) -> np.ndarray:
        """Return a mode's area over what its planes and its constant part give at each position, (rows, columns).

        A plane that undulates under a fixed row of positions is seen from further away at every crest, and the edge of a
        half slab in a breathing gap moves too: the area itself follows the wave although no weight does.
        """
        area, found = self.areas[..., mode], self.localisation[mode]
        expected = np.full(area.shape, np.nanmean(area[self.scores.usable])) if found is None else found.expected
        known = expected > MIN_EXPECTED * np.nanmax(expected)
        return np.where(known, area / np.where(known, expected, 1.0), np.nan)


def read_geometry(context: StepContext) -> Geometry:
    """Collect layers and superstructure from the results of their steps."""
    layers, wave = context.maps["assign_layers"], context.maps["map_superstructure"]
    summary = context.summaries["assign_layers"]
    names = tuple(str(layers["layer"].attrs["flag_meanings"]).split())
    probe = float(summary["probe_fwhm_nm"])
    planes = context.tables["map_superstructure"]["planes"]
    slabs = context.summaries["map_superstructure"].get("slabs_without_wave", [])
    turned = tuple(int(half) for half in np.unique(planes.loc[planes["slab"].isin(slabs), "half_slab"]))
    in_turned = np.isin(layers["half_slab"].values, turned)
    phase = np.asarray(wave["lateral_phase_rad"].values, dtype=float)
    return Geometry(
        planes=planes,
        lateral_phase_rad=np.where(in_turned, np.nan, phase),
        phase_rad=np.where(in_turned, np.nan, np.asarray(wave["phase_rad"].values, dtype=float)),
        half_slab=np.asarray(layers["half_slab"].values),
        b_nm=np.asarray(layers["b_scan_nm"].values, dtype=float),
        layer=np.asarray(layers["layer"].values),
        layer_names=names,
        source_plane=np.asarray(layers["source_plane"].values),
        source_weight=np.asarray(layers["source_weight"].values, dtype=float),
        source_fwhm_nm=total_fwhm_nm(float(summary["localisation_fwhm_nm"]), probe),
        probe_fwhm_nm=probe,
        period_nm=float(context.summaries["map_superstructure"]["period_nm"]["value"]),
        turned=turned,
        turned_phase_rad=np.where(in_turned, phase, np.nan) if turned else None,
        leakage=_leakage_of_file(layers, context),
    )


def _leakage_of_file(layers: xr.Dataset, context: StepContext) -> LeakageMatrix | None:
    """Return the leakage matrix that `assign_layers` read from a file, or None where it is that of the distances."""
    table = context.tables.get("assign_layers", {}).get("leakage")
    if table is None or not len(table) or (table["origin"] == "haadf").all():
        return None
    names = tuple(dict.fromkeys(table["probe"]))
    share, std = (
        table.pivot(index="probe", columns="source", values=column).loc[list(names), list(names)].to_numpy(dtype=float)
        for column in ("share", "share_std")
    )
    kept = [list(layers["layer_name"].values).index(name) for name in names]
    return LeakageMatrix(names, share, std, np.asarray(layers["layer_probability"].values, dtype=float)[kept])


def fit_joint(
    image: SpectrumImage,
    model: ForwardModel,
    geometry: Geometry,
    alignment: Alignment,
    context: StepContext,
    harmonics: int = 1,
    passes: int = PASSES,
) -> JointFit:
    """Fit all counts together, linearised anew at the fitted wave until it stands still.

    Parameters
    ----------
    passes
        Fits of the whole scan that the progress counts, those that follow included.
    """
    by_name = {mode.name: mode for mode in context.material.modes}
    modes = [by_name[name] for name in model.mode_names]
    reference = model.mode_energies_mev.copy()
    energies = np.broadcast_to(reference, (*image.shape[:2], model.n_modes)).copy()
    starts = _starts(context, model, image)
    held: ScanFit | None
    scores: Scores | None
    common: UnitFit | None = None
    inside = np.isfinite(geometry.lateral_phase_rad)
    for k in range(PASSES):
        starts[..., N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes] = np.clip(
            energies, model.bounds_mev[:, 0], model.bounds_mev[:, 1]
        )
        held = scores = None  # the pass before is as large as the one to come
        held = fit_scan(
            image, model, alignment, starts, context.backend, free_energies=False, profile=True, max_iterations=15,
            progress=partial(progress_of_pass, context, k, passes), reduce=without_slopes,
        )  # fmt: skip
        assert held.score is not None
        assert held.information is not None
        usable = np.isin(held.status, (CONVERGED, AT_BOUND))
        taken_at = starts[..., N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes].copy()
        scores = Scores(held.score, held.information, taken_at, usable)
        localisation = localise(modes, geometry, held, context)
        shares = np.stack([np.zeros(usable.shape) if entry is None else entry.signed_share for entry in localisation])
        lines = _mean_lines(model, held, usable)
        first_order = shares
        if common is not None:
            shares = _followed(shares, common, geometry, lines)
        regressors = basis(geometry.lateral_phase_rad, shares, harmonics)
        common = fit_unit(scores, reference, regressors, inside, model.fwhm_mev)
        energies = modelled_energies(reference, common, regressors)
        starts = np.where(np.isfinite(held.params), held.params, starts)
    starts[..., N_LOCAL + model.n_modes : N_LOCAL + 2 * model.n_modes] = taken_at
    assert held is not None
    assert scores is not None
    assert common is not None
    factor = shared_noise(model.mode_names, context)
    units = {
        int(unit): widened(
            fit_unit(scores, reference, regressors, inside & (geometry.half_slab == unit), model.fwhm_mev), factor
        )
        for unit in np.unique(geometry.half_slab[inside])
    }
    return JointFit(
        model,
        scores,
        localisation,
        shares,
        regressors,
        reference,
        widened(common, factor),
        units,
        held.areas(),
        first_order,
        starts,
        lines,
        factor,
    )


def shared_noise(mode_names: tuple[str, ...], context: StepContext) -> np.ndarray:
    """Return by how much noise that channels share widens a mode's energy, (M,); 1 where they share none, or nobody knows.

    The classic route resamples and deconvolves; its fits of single positions carry that noise through and keep beside it
    what independent channels would give. Sums of positions are widened alike, since the noise of positions is independent.
    """
    maps = context.maps["fit_peaks"]
    if "apparent_energy_mev_naive_std" not in maps:
        return np.ones(len(mode_names))
    factors = []
    for name in mode_names:
        found = maps.sel(mode=name)
        held, naive = (
            np.asarray(found[f"apparent_energy_mev_{key}"].values, dtype=float) for key in ("std", "naive_std")
        )
        known = np.isfinite(held) & np.isfinite(naive) & (naive > 0.0)
        factors.append(float(np.median(held[known] / naive[known])) if known.any() else 1.0)
    return np.array(factors)


def widened(fit: UnitFit, factor: np.ndarray) -> UnitFit:
    """Return a fit with the covariances of energies and widths widened, `factor` of a mode for both."""
    return replace(fit, covariance=fit.covariance * np.tile(factor, 2)[:, None, None] ** 2)


def _mean_lines(model: ForwardModel, held: ScanFit, usable: np.ndarray) -> SeenLines:
    params = held.params[usable & np.isfinite(held.params).all(axis=2)]
    if not len(params):
        raise DataError("measure_modulation: no position could be fitted; look at the status map of fit_peaks")
    return SeenLines(model, params.mean(axis=0))


def _followed(shares: np.ndarray, common: UnitFit, geometry: Geometry, lines: SeenLines) -> np.ndarray:
    """Return the shares that fitted energies follow, (M, rows, columns), at the amplitudes found so far."""
    expected = lines.expected()
    result = shares.copy()
    for m in range(len(shares)):
        cosine, sine = common.value[m, 1:3]
        amplitude = float(np.hypot(cosine, sine))
        reach = min(amplitude, float(np.abs(lines.model.bounds_mev[m] - lines.energies_mev[m]).min()))
        if not shares[m].any() or reach < MIXTURE_MATTERS_MEV:
            continue
        response = mixture_response(
            partial(lines.line, m), lines.nuisances(m), expected, float(lines.energies_mev[m]), reach
        )
        phase = geometry.lateral_phase_rad
        result[m] = response.at(shares[m], cosine * np.cos(phase) + sine * np.sin(phase))
    return result


def passes_of(settings: MeasureModulation, image: SpectrumImage) -> int:
    """Return how many fits of the whole scan the step makes: linearisations, variants, halves of the frames."""
    halves = 0 if image.halves is None else int(image.halves.shape[0])
    return PASSES + (VARIANTS if settings.variants else 0) + halves


def progress_of_pass(context: StepContext, number: int, passes: int, done: int, total: int) -> None:
    """Tell the progress of one of several fits of the whole scan."""
    context.progress(number * total + done, passes * total)


def _starts(context: StepContext, model: ForwardModel, image: SpectrumImage) -> np.ndarray:
    """Start every position from the results of `fit_peaks`."""
    maps = context.maps["fit_peaks"]
    start = np.zeros((*image.shape[:2], model.n_params))
    if model.zero_loss is not None:
        found = context.maps["align_zlp"]
        counts = np.nan_to_num(np.asarray(found["zlp_counts"].values))
        width = np.nan_to_num(np.asarray(found["zlp_fwhm_mev"].values), nan=model.zero_loss.fwhm_mev)
        start[..., 0] = 0.85 * counts * image.energy.dispersion_mev / width
        start[..., 2] = np.clip(np.log(width / model.zero_loss.fwhm_mev), -0.3, 0.3)
    start[..., 5] = np.nan_to_num(np.asarray(maps["background_e"].values)) * model.free_local[5]
    areas = np.nan_to_num(np.asarray(maps["area_e"].values))
    start[..., N_LOCAL : N_LOCAL + model.n_modes] = np.moveaxis(areas, 0, 2)
    return start


def localise(
    modes: list[Mode], geometry: Geometry, held: ScanFit, context: StepContext
) -> tuple[Localisation | None, ...]:
    """Fit how sharply each mode is tied to its planes; None for modes without layers."""
    declared = context.material.localisation
    prior = (declared.fwhm_nm, declared.std_nm) if declared is not None else DEFAULT_LOCALISATION_NM
    total = total_fwhm_nm(prior[0], geometry.probe_fwhm_nm)
    results: list[Localisation | None] = []
    for m, mode in enumerate(modes):
        sources = sources_of(mode, geometry)
        if not (sources.strength > 0.0).any():
            results.append(None)
            continue
        area, std = held.areas()[..., m], held.areas(held.std)[..., m]
        found = fit_localisation(sources, area, std, total, max(prior[1], 0.01) * prior[0] / total)
        if geometry.leakage is not None:
            weight = (held.information[..., m, m] if held.information is not None else std**-2.0) * np.isfinite(area)
            layer = geometry.planes["layer"].to_numpy()
            found = with_matrix(found, sources, geometry.leakage, layer, area, std, np.nan_to_num(weight))
        results.append(found)
    return tuple(results)


def sources_of(mode: Mode, geometry: Geometry, nominal: bool = False) -> Sources:
    """Return the planes that carry a mode; those of turned slabs without a phase, unless `nominal`."""
    planes = geometry.planes
    offset = planes["phase_offset_rad"].to_numpy(dtype=float)
    if not nominal:
        offset = np.where(planes["half_slab"].isin(geometry.turned), np.nan, offset)
    return mode_sources(
        geometry.source_plane, geometry.source_weight, planes["layer"].to_numpy(), offset, dict(mode.layers),
        geometry.source_fwhm_nm,
    )  # fmt: skip


def whole_units(joint: JointFit, mode: int) -> list[int]:
    """Return the units that show a mode well enough to count."""
    information = {unit: fit.information[mode] for unit, fit in joint.units.items()}
    median = float(np.median([value for value in information.values() if value > 0.0] or [0.0]))
    return [unit for unit, value in information.items() if value > MIN_UNIT_INFORMATION * median > 0.0]


def outward_signs(geometry: Geometry, layer: str) -> dict[int, float]:
    """Return unit → +1 or -1, the sign that the outward normal puts on a layer's plane."""
    planes = geometry.planes[geometry.planes["layer"] == layer]
    pairs = zip(planes["half_slab"].astype(int), planes["phase_offset_rad"], strict=True)
    return {int(unit): 1.0 if np.cos(offset) >= 0.0 else -1.0 for unit, offset in pairs}


def unit_amplitudes(
    joint: JointFit, geometry: Geometry, mode: int, layer: str
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return units, their amplitudes (n, 2) along the outward normal, and the sign of their phase offsets (n,)."""
    signs = outward_signs(geometry, layer)
    units = [unit for unit in whole_units(joint, mode) if unit in signs]
    values = np.array([joint.units[unit].value[mode, 1:3] for unit in units]).reshape(len(units), 2)
    sign = np.array([signs[unit] for unit in units])
    return units, values, sign


def mean_amplitude(
    joint: JointFit, geometry: Geometry, mode: int, layer: str, min_units: int
) -> tuple[MeanAmplitude, MeanAmplitude, int]:
    """Return the outward and the in-phase mean amplitude of a mode over its units, and their number."""
    units, values, sign = unit_amplitudes(joint, geometry, mode, layer)
    antiphase, inphase = antiphase_and_inphase(values, sign)
    if len(units) < min_units:
        antiphase = replace(antiphase, p_value=float("nan"))
    return antiphase, inphase, len(units)
