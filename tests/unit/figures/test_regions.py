"""The figure of marked regions: every region that occurs is named with its number of positions."""

import numpy as np
import pytest

from phonon_eels.figures import plot_regions
from phonon_eels.spectrum_image import REGIONS


@pytest.mark.parametrize("shape", [(12, 20), (1, 20)])
def test_regions_are_named_and_counted(shape):
    regions = np.zeros(shape, np.uint8)
    regions[..., :3], regions[0, 7] = 1, 3
    figure = plot_regions(np.random.default_rng(0).random(shape), regions, REGIONS, extent=(0.0, 2.0, 1.0, 0.0))
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [f"vacuum ({3 * shape[0]})", "contamination (1)"]
    drawn = axes.images[-1].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(drawn), regions == 0)
    assert "marked regions" in axes.get_title()


def test_nothing_marked_has_no_legend():
    figure = plot_regions(np.zeros((4, 5)), np.zeros((4, 5), np.uint8), REGIONS)
    assert figure.axes[0].get_legend() is None
