"""Figures: results in, matplotlib Figures out. One function per figure, shared by report, notebooks and viewer."""

from phonon_eels.figures.distributions import plot_distributions
from phonon_eels.figures.estimators import plot_estimators
from phonon_eels.figures.gap import plot_gap
from phonon_eels.figures.lattice import plot_lattice
from phonon_eels.figures.layers import plot_profiles, plot_unmixed
from phonon_eels.figures.line_scan import plot_line_spectra
from phonon_eels.figures.maps import plot_map, plot_mode_maps, plot_status, status_counts
from phonon_eels.figures.modulation import plot_modulation_spectrum, plot_period_scan, plot_phase_dependence, plot_units
from phonon_eels.figures.overview import plot_overview
from phonon_eels.figures.paint import plot_panels
from phonon_eels.figures.plan import plot_plan
from phonon_eels.figures.pulls import plot_pulls
from phonon_eels.figures.quality import plot_quality
from phonon_eels.figures.quality_checks import plot_checks
from phonon_eels.figures.regions import plot_regions
from phonon_eels.figures.spectra import plot_classic_route, plot_layer_spectra, plot_mean_spectrum
from phonon_eels.figures.style import COLUMN_MM, PAGE_MM, save_figure
from phonon_eels.figures.truth import plot_truth
from phonon_eels.figures.zero_loss import plot_zero_loss

__all__ = [
    "COLUMN_MM",
    "PAGE_MM",
    "plot_checks",
    "plot_classic_route",
    "plot_distributions",
    "plot_estimators",
    "plot_gap",
    "plot_lattice",
    "plot_layer_spectra",
    "plot_line_spectra",
    "plot_map",
    "plot_mean_spectrum",
    "plot_mode_maps",
    "plot_modulation_spectrum",
    "plot_overview",
    "plot_panels",
    "plot_period_scan",
    "plot_phase_dependence",
    "plot_plan",
    "plot_profiles",
    "plot_pulls",
    "plot_quality",
    "plot_regions",
    "plot_status",
    "plot_truth",
    "plot_units",
    "plot_unmixed",
    "plot_zero_loss",
    "save_figure",
    "status_counts",
]
