"""Spectra of a line on a common energy axis."""

import numpy as np
import pytest

from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.line_spectra import along_line

AXIS = EnergyAxis(-10.0, 0.5, 80)
CENTER = np.array([0.0, 0.7, 1.4, np.nan, -2.1])


def image(**changes):
    peak = 100.0 * np.exp(-((AXIS.energies_mev - np.nan_to_num(CENTER)[:, None]) ** 2) / 8.0)
    counts = 2.0 * peak[None] + 7.0
    line = SpectrumImage(counts, AXIS, (ScanAxis("row", 0.1, 1), ScanAxis("column", 0.3, 5)), NoiseModel(2.0, 7.0, 0.0))
    return line.with_(**changes)


def test_peaks_lie_on_top_of_each_other_in_electrons():
    energies, spectra, positions = along_line(image(), CENTER[None], (-5.0, 12.0))
    assert energies[0] == -5.0
    assert energies[-1] < 12.0
    np.testing.assert_allclose(positions, 0.3 * np.arange(5))
    good = [0, 1, 2, 4]
    np.testing.assert_allclose(spectra[good], np.broadcast_to(spectra[0], (4, energies.size)), atol=1.0)
    assert spectra[0].max() == pytest.approx(100.0)
    assert np.isnan(spectra[3]).all()


def test_masked_channels_and_the_ends_of_the_axis_are_missing():
    bad = np.zeros((1, 5, 80), bool)
    bad[0, 0, 30] = True
    energies, spectra, _ = along_line(image(bad=bad), CENTER[None], (-50.0, 50.0))
    assert np.isnan(spectra[0, np.searchsorted(energies, AXIS.energies_mev[30])])
    assert energies[0] >= AXIS.offset_mev - 1.4
    assert np.isnan(spectra[2, -1])  # its peak lies highest on the axis, so its losses end first


def test_resampled_images_and_columns():
    turned = image().with_(
        counts=np.moveaxis(image().counts, 0, 1),
        variance=np.ones((5, 1, 80)),
        scan=(ScanAxis("row", 0.3, 5), ScanAxis("column", 0.1, 1)),
    )
    energies, spectra, positions = along_line(turned, CENTER[:, None], (-5.0, 12.0))
    np.testing.assert_allclose(positions, 0.3 * np.arange(5))
    # In electrons already, and at 0 by now: neither gain nor centre is taken off again.
    np.testing.assert_allclose(spectra[1], turned.counts[1, 0, 10 : 10 + energies.size])
