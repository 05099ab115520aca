"""The report's figures of layers, superstructure and gap."""

from __future__ import annotations

from typing import Any

from phonon_eels.steps.report_sources import Sources, haadf_of, mode_energies, mode_window, scan_edges


def unmixed(sources: Sources) -> Any:
    """Draw leakage and the layers' own spectra."""
    from phonon_eels import figures

    leakage, spectra = (sources.table("assign_layers", name) for name in ("leakage", "unmixed_spectra"))
    energies = mode_energies(sources.context)
    return figures.plot_unmixed(leakage, spectra, window_mev=mode_window(sources), mode_energies_mev=energies)


def profiles(sources: Sources) -> Any:
    """Draw the modes' profiles across the unit cell."""
    from phonon_eels import figures

    table, shares = (sources.table("measure_modulation", name) for name in ("profiles", "mode_layers"))
    return figures.plot_profiles(table, shares, {e.name: e.height_nm for e in sources.context.material.layers})


def gap(sources: Sources) -> Any:
    """Draw energy and gap against phase."""
    from phonon_eels import figures

    bins, amplitudes, curve, comparison = (
        sources.table("measure_modulation", name) for name in ("phase_bins", "amplitudes", "gap_curve", "gap")
    )
    return figures.plot_gap(bins, amplitudes, curve, comparison)


def lattice(sources: Sources) -> Any:
    """Draw layers and superstructure over the HAADF."""
    from phonon_eels import figures

    layers, superstructure = sources.maps_or_none("assign_layers"), sources.maps_or_none("map_superstructure")
    return figures.plot_lattice(haadf_of(sources), layers, superstructure, extent=scan_edges(sources.image))
