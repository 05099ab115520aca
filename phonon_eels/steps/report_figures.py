"""Which figures a report shows, what each says, and the sentence that stands where one cannot be drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phonon_eels.rounding import number
from phonon_eels.steps import report_captions as captions
from phonon_eels.steps import report_lattice_figures as lattice_figures
from phonon_eels.steps.report_frames import checks_figure, quality_figure, regions_figure
from phonon_eels.steps.report_numbers import peak_word, primary_row, short_facts, table_of
from phonon_eels.steps.report_sources import (
    NotDrawn,
    Recipe,
    Shown,
    Sources,
    mode_energies,
    mode_window,
    scan_edges,
)

if TYPE_CHECKING:
    from phonon_eels.config.settings import Report
    from phonon_eels.steps.spec import StepContext


WITH_FACTS = frozenset(
    {"overview", "mean_spectrum", "layer_spectra", "classic_route", "mode_maps", "width_maps", "modulation_spectrum"}
    | {"phase_dependence", "zero_loss", "unmixed", "profiles"}
)
"""Figures of spectra: what their angles and beam energy are belongs into the caption."""


def recipes(sources: Sources) -> list[Recipe]:
    """Return the figures of a report in order; those of the other route are left out."""
    word = peak_word(sources.image.acquisition, sources.context.material)
    plural = "peaks" if word == "peak" else "peaks of the projected phonon density"
    shown_mode = _shown_mode(sources.context) or "the first mode"
    entries = [
        Recipe("lattice", "Crystal in the scan", captions.LATTICE, lattice_figures.lattice),
        Recipe("mean_spectrum", "Mean spectrum and fit", captions.MEAN_SPECTRUM.format(plural=plural), _mean_spectrum),
        Recipe("layer_spectra", "Spectra of the layers", captions.LAYER_SPECTRA, _layer_spectra),
        Recipe("unmixed", "Layers taken apart", captions.UNMIXED, lattice_figures.unmixed),
        Recipe(
            "profiles",
            "Profiles across the unit cell",
            captions.PROFILES.format(plural=plural),
            lattice_figures.profiles,
        ),
        Recipe("mode_maps", "Maps of energy and area", captions.MODE_MAPS.format(word=word), _mode_maps),
        Recipe("limit_maps", "What the data can tell where", captions.LIMIT_MAPS, _limit_maps),
        Recipe("width_maps", "Maps of the intrinsic width", captions.WIDTH_MAPS, _width_maps),
        Recipe(
            "modulation_spectrum",
            "What oscillates with the superstructure",
            captions.MODULATION_SPECTRUM,
            _modulation_spectrum,
        ),
        Recipe("phase_dependence", "Energy against superstructure phase", captions.PHASE_DEPENDENCE, _phase_dependence),
        Recipe("units", "Plane by plane", captions.UNITS, _units),
        Recipe("estimators", "Do the estimators agree?", captions.ESTIMATORS, _estimators),
        Recipe("gap", "Superconducting gap", captions.GAP, lattice_figures.gap),
        Recipe("period_scan", "Other periods", captions.PERIOD_SCAN, _period_scan),
        Recipe("zero_loss", "Zero-loss peak", captions.ZERO_LOSS, _zero_loss),
    ]
    entries.append(Recipe("quality", "Checks of the data as they came", captions.QUALITY, quality_figure))
    entries.append(Recipe("checks", "Every check in a picture", captions.CHECKS, checks_figure))
    if sources.image.regions is not None:
        entries.append(Recipe("regions", "What was left out", captions.REGIONS, _regions))
    peaks = sources.maps_or_none("fit_peaks")
    if peaks is not None and "binned_energy_mev" in peaks:
        place = next(k for k, entry in enumerate(entries) if entry.name == "limit_maps")
        entries.insert(place, Recipe("binned_maps", "Energies of bins", captions.BINNED_MAPS, _binned_maps))
    if peaks is not None and "temperature_k" in peaks:
        place = next(k for k, entry in enumerate(entries) if entry.name == "limit_maps")
        entries.insert(place, Recipe("temperature_map", "Temperature", captions.TEMPERATURE_MAP, _temperature_map))
    if 1 in sources.image.shape[:2] and sources.image.shape[:2] != (1, 1):
        entries.insert(2, Recipe("line_spectra", "Spectra along the line", captions.LINE_SPECTRA, _line_spectra))
    if sources.context.route == "classic":
        entries.insert(2, Recipe("classic_route", "Background and deconvolution", captions.CLASSIC, _classic))
    entries += [
        Recipe(f"status_{step}", f"Status of every position: {step}", captions.STATUS, _status_of(step))
        for step, maps in sources.context.maps.items()
        if "status" in maps
    ]
    if sources.context.truth is not None:
        entries.insert(0, Recipe("truth", "Measured against truth", captions.TRUTH, _truth))
    entries.insert(
        0,
        Recipe("overview", "At a glance", captions.OVERVIEW.format(mode=shown_mode), _overview),
    )
    return entries


def _regions(sources: Sources) -> Any:
    return regions_figure(sources.image, sources.context, scan_edges(sources.image))


def _mean_spectrum(sources: Sources) -> Any:
    from phonon_eels import figures

    return figures.plot_mean_spectrum(sources.table("fit_peaks", "mean_spectrum"))


def _layer_spectra(sources: Sources) -> Any:
    from phonon_eels import figures

    table = sources.table("assign_layers", "layer_spectra")
    energies = mode_energies(sources.context)
    return figures.plot_layer_spectra(table, window_mev=mode_window(sources), mode_energies_mev=energies)


def _line_spectra(sources: Sources) -> Any:
    from phonon_eels import figures
    from phonon_eels.steps.line_spectra import along_line

    center = sources.maps("align_zlp", "zlp_center_mev")["zlp_center_mev"].values
    table = table_of(sources.context, "fit_peaks", "mean_spectrum")
    window = mode_window(sources) if table is None else tuple(table["energy_loss_mev"].iloc[[0, -1]])
    loss_from = min(mode.bounds_mev[0] for mode in sources.context.material.modes)
    return figures.plot_line_spectra(*along_line(sources.image, np.asarray(center), window), loss_from_mev=loss_from)


def _mode_maps(sources: Sources) -> Any:
    from phonon_eels import figures

    maps = sources.maps("fit_peaks", "energy_mev", "apparent_energy_mev")
    energy = "energy_mev" if "energy_mev" in maps else "apparent_energy_mev"
    labels = {mode.name: mode.label for mode in sources.context.material.modes}
    return figures.plot_mode_maps(maps, (energy, "area_e"), labels=labels)


def _limit_maps(sources: Sources) -> Any:
    from phonon_eels import figures

    maps = sources.maps("fit_peaks", "energy_mev_crb", "apparent_energy_mev_crb")
    bound = "energy_mev_crb" if "energy_mev_crb" in maps else "apparent_energy_mev_crb"
    # Where nothing can be told the bound is a hundred meV and would take all colours.
    values = np.asarray(maps[bound].values, dtype=float)
    best = [np.quantile(mode[np.isfinite(mode)], 0.05) if np.isfinite(mode).any() else np.nan for mode in values]
    shown = np.where(values <= 4.0 * np.reshape(best, (-1, 1, 1)), values, np.nan)
    told = maps.assign({bound: maps[bound].copy(data=shown)})
    return figures.plot_mode_maps(told, (bound, "area_e_crb"), width_mm=figures.PAGE_MM * 0.7)


def _binned_maps(sources: Sources) -> Any:
    from phonon_eels import figures

    maps = sources.maps("fit_peaks", "binned_energy_mev")
    return figures.plot_mode_maps(maps, ("binned_energy_mev", "bin_positions"), width_mm=figures.PAGE_MM * 0.7)


def _temperature_map(sources: Sources) -> Any:
    from phonon_eels import figures

    maps = sources.maps("fit_peaks", "temperature_k")
    if not np.isfinite(maps["temperature_k"].values).any():
        raise NotDrawn("No position has enough electrons on the gain side to determine its temperature.")
    shown = ("temperature_k", "temperature_pull_to_stage")
    return figures.plot_mode_maps(maps.drop_dims("mode"), shown, width_mm=figures.PAGE_MM * 0.8)


def _width_maps(sources: Sources) -> Any:
    from phonon_eels import figures

    maps = sources.maps("fit_peaks", "fwhm_mev")
    widths = np.asarray(maps["fwhm_mev"].values, dtype=float)
    highest = np.where(np.isfinite(widths), widths, -np.inf).max(axis=(-2, -1))
    spread = highest - np.where(np.isfinite(widths), widths, np.inf).min(axis=(-2, -1))  # -inf where a mode has none
    if not np.any(spread > 1e-6):
        raise NotDrawn(
            "The widths are shared by all positions (fit_peaks.intrinsic_widths): they stand in the table of modes, "
            "a map of them would be of one colour."
        )
    return figures.plot_mode_maps(maps, ("fwhm_mev",), width_mm=figures.PAGE_MM * 0.6)


def _modulation_spectrum(sources: Sources) -> Any:
    from phonon_eels import figures

    table = sources.table("measure_modulation", "modulation_spectrum")
    return figures.plot_modulation_spectrum(table, mode_energies_mev=mode_energies(sources.context))


def _phase_dependence(sources: Sources) -> Any:
    from phonon_eels import figures

    bins = sources.table("measure_modulation", "phase_bins")
    return figures.plot_phase_dependence(bins, table_of(sources.context, "measure_modulation", "amplitudes"))


def _units(sources: Sources) -> Any:
    from phonon_eels import figures

    units = sources.table("measure_modulation", "units")
    return figures.plot_units(units, table_of(sources.context, "measure_modulation", "amplitudes"))


def _estimators(sources: Sources) -> Any:
    from phonon_eels import figures

    return figures.plot_estimators(sources.table("measure_modulation", "estimators"))


def _period_scan(sources: Sources) -> Any:
    from phonon_eels import figures

    table = sources.table("measure_modulation", "period_scan")
    period = sources.context.summaries.get("map_superstructure", {}).get("period_nm")
    period = period if isinstance(period, Mapping) else {}
    return figures.plot_period_scan(
        table, period_nm=number(period.get("value")), period_std_nm=number(period.get("std"))
    )


def _zero_loss(sources: Sources) -> Any:
    from phonon_eels import figures

    return figures.plot_zero_loss(sources.maps("align_zlp", "zlp_center_mev", "zlp_fwhm_mev"))


def _classic(sources: Sources) -> Any:
    from phonon_eels import figures

    tables = {
        f"{step}: {name.replace('_', ' ')}": table
        for step in ("subtract_zlp", "deconvolve")
        for name, table in sources.context.tables.get(step, {}).items()
        if "energy_loss_mev" in table and len(table)
    }
    if not tables:
        raise NotDrawn(sources.reason("subtract_zlp", "it made no table of spectra"))
    windows = sources.context.summaries.get("subtract_zlp", {}).get("windows_mev", ())
    pairs = [(float(w[0]), float(w[1])) for w in windows if isinstance(w, list | tuple) and len(w) == 2]
    return figures.plot_classic_route(tables, windows_mev=pairs)


def _status_of(step: str) -> Callable[[Sources], Any]:
    def draw(sources: Sources) -> Any:
        from phonon_eels import figures

        maps = sources.maps(step, "status")
        counts = [(name, count) for name, count in figures.status_counts(maps) if count]
        if len(counts) == 1:
            raise NotDrawn(f"All {counts[0][1]} positions have the same status: {counts[0][0]}.")
        return figures.plot_status(maps)

    return draw


def _truth(sources: Sources) -> Any:
    from phonon_eels import figures

    if sources.truth_table is None or len(sources.truth_table) == 0:
        raise NotDrawn("A truth file lies beside the data, but nothing identifiable was measured that it speaks of.")
    return figures.plot_truth(sources.truth_table)


def _shown_mode(context: StepContext) -> str | None:
    """Return the mode of the primary test: as it was made, else as the material declares it."""
    declared = context.material.primary_test
    return primary_row(context).get("mode") or (declared.mode if declared else None)


def _overview(sources: Sources) -> Any:
    from phonon_eels import figures

    spectrum = table_of(sources.context, "fit_peaks", "mean_spectrum")
    if sources.image.haadf is None and spectrum is None and "fit_peaks" not in sources.context.maps:
        raise NotDrawn("There is no HAADF image and no fit to show.")
    return figures.plot_overview(
        haadf=sources.image.haadf,
        extent=scan_edges(sources.image),
        layers=sources.maps_or_none("assign_layers"),
        mean_spectrum=spectrum,
        peaks=sources.maps_or_none("fit_peaks"),
        mode=_shown_mode(sources.context),
        phase_bins=table_of(sources.context, "measure_modulation", "phase_bins"),
        amplitudes=table_of(sources.context, "measure_modulation", "amplitudes"),
    )


def draw_all(sources: Sources, settings: Report, folder: Path | None) -> list[Shown]:
    """Draw every figure, save it in every format, and return them for the page.

    A figure that cannot be drawn does not cost the reader the others: the reason stands in its place.

    Parameters
    ----------
    folder
        Where the files go; None keeps them in memory only.
    """
    facts = short_facts(sources.image.acquisition)
    shown = []
    plan = recipes(sources)
    for done, recipe in enumerate(plan):
        sources.context.progress(done, len(plan))
        try:
            shown.append(_draw_one(recipe, sources, settings, folder, facts))
        except NotDrawn as reason:
            shown.append(Shown(recipe.name, recipe.title, recipe.caption, sentence=str(reason)))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as problem:
            words = f"This figure could not be drawn from the results ({type(problem).__name__}: {problem})."
            shown.append(Shown(recipe.name, recipe.title, recipe.caption, sentence=words, failed=True))
    sources.context.progress(len(plan), len(plan))
    return shown


def _draw_one(recipe: Recipe, sources: Sources, settings: Report, folder: Path | None, facts: str) -> Shown:
    from phonon_eels.figures import save_figure

    figure = recipe.draw(sources)
    buffer = io.BytesIO()
    save_figure(figure, buffer, settings.dpi, "png")
    if folder is not None:
        for ending in settings.figure_formats:
            path = folder / f"{recipe.name}.{ending}"
            if ending == "png":
                path.write_bytes(buffer.getvalue())
            else:
                save_figure(figure, path, settings.dpi)
    width = int(figure.get_figwidth() * 96)  # CSS pixels: the size that it has in print
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    caption = f"{recipe.caption} {facts}." if recipe.name in WITH_FACTS else recipe.caption
    return Shown(recipe.name, recipe.title, caption, data, width)
