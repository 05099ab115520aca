"""Spectra along a line scan, their zero-loss peaks on top of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phonon_eels.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRACES = 5
"""Spectra that are drawn as lines: means of as many neighbouring parts of the scan."""


@style.styled
def plot_line_spectra(
    energies_mev: np.ndarray,
    spectra_e: np.ndarray,
    positions_nm: np.ndarray,
    *,
    loss_from_mev: float,
    width_mm: float = style.PAGE_MM,
) -> Figure:
    """Return the aligned spectra of a line scan, as an image and as means over a few parts of the line.

    Parameters
    ----------
    energies_mev
        Energy loss from each position's own zero-loss peak, (channels,).
    spectra_e
        Electrons per channel, (positions, channels); NaN where nothing was measured.
    positions_nm
        Places along the line, (positions,), evenly spaced.
    loss_from_mev
        Colours and the vertical scale follow the spectra beyond this energy loss; the zero-loss peak goes over them.
    """
    figure = style.new_figure(width_mm, 62)
    left, right = figure.subplots(1, 2)
    beyond = spectra_e[:, energies_mev > loss_from_mev]
    top = 1.1 * float(np.nanpercentile(beyond, 99.5)) if np.isfinite(beyond).any() else 1.0
    step = abs(positions_nm[-1] - positions_nm[0]) / max(len(positions_nm) - 1, 1)
    extent = (energies_mev[0], energies_mev[-1], positions_nm[-1] + step / 2, positions_nm[0] - step / 2)
    image = left.imshow(spectra_e, aspect="auto", extent=extent, vmin=0.0, vmax=top, interpolation="nearest")
    bar = figure.colorbar(image, ax=left, extend="max")
    bar.set_label("e⁻ per channel")
    left.set(xlabel="energy loss (meV)", ylabel="position along the scan (nm)")
    parts = np.array_split(np.arange(len(positions_nm)), min(TRACES, len(positions_nm)))
    for part, shade in zip(parts, np.linspace(0.0, 0.85, len(parts)), strict=True):
        measured = np.isfinite(spectra_e[part])
        total = np.where(measured, spectra_e[part], 0.0).sum(axis=0)
        mean = np.divide(total, measured.sum(axis=0), out=np.full(total.shape, np.nan), where=measured.any(axis=0))
        label = f"{positions_nm[part[0]]:.3g}–{positions_nm[part[-1]]:.3g} nm"
        right.plot(energies_mev, mean, color=_shade(shade), linewidth=0.8, label=label)
    right.set_ylim(min(0.0, float(np.nanpercentile(beyond, 0.5))) if np.isfinite(beyond).any() else 0.0, top)
    right.set_xlim(energies_mev[0], energies_mev[-1])
    right.set(xlabel="energy loss (meV)", ylabel="e⁻ per channel")
    right.legend(loc="upper right", fontsize=6.0)
    style.panel_letters(figure, (left, right))
    return figure


def _shade(value: float) -> tuple[float, ...]:
    from matplotlib import colormaps

    return tuple(colormaps["viridis"](value))
