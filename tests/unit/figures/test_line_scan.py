"""The figure of a line scan's spectra."""

import numpy as np

from phonon_eels import figures


def spectra():
    energies = np.arange(-8.0, 75.0, 0.5) * 1e3
    shape = 2e4 * np.exp(-((energies / 500.0) ** 2)) + 200.0 * np.exp(-(((energies - 29e3) / 4e3) ** 2))
    return energies, np.tile(shape, (40, 1)), 3.2 * np.arange(40)


def test_scale_follows_the_losses():
    energies, values, positions = spectra()
    values[7] = np.nan
    figure = figures.plot_line_spectra(energies, values, positions, loss_from_mev=4000.0)
    left, right = figure.axes[:2]
    assert 150.0 < left.images[0].norm.vmax < 400.0
    assert left.images[0].get_array().shape == values.shape
    assert left.images[0].get_extent()[2] > left.images[0].get_extent()[3]  # the first position on top
    assert len(right.lines) == 5
    assert all(np.isfinite(line.get_ydata()).all() for line in right.lines)
    assert right.get_ylim()[1] < 400.0


def test_few_positions_and_no_losses():
    energies, values, positions = spectra()
    figure = figures.plot_line_spectra(energies[:20], values[:2, :20], positions[:2], loss_from_mev=1e6)
    assert len(figure.axes[1].lines) == 2
    figure.draw_without_rendering()
