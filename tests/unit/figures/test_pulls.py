"""The figure of pulls says what share lies within one standard deviation, and counts what lies outside its axis."""

import numpy as np
import xarray as xr

from phonon_eels import figures


def test_shares_are_those_of_the_data() -> None:
    honest = xr.DataArray(
        np.linspace(-2, 2, 100).reshape(1, 10, 10), dims=("mode", "row", "column"), coords={"mode": ["A"]}
    )
    wild = (10 * honest).where(honest > 0)
    figure = figures.plot_pulls({"honest": honest, "wild": wild})
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ["50% inside ±1 std", f"{np.mean(wild.values[wild.values > 0] < 1):.0%} inside ±1 std"]
    heights, _, _ = figure.axes[0].patches[-1].get_data()
    assert heights[-1] == heights.max() > 1.0, "pulls beyond the axis are counted in its last bin"


def test_no_value_is_said() -> None:
    nothing = xr.DataArray(np.full((1, 2, 2), np.nan), dims=("mode", "row", "column"), coords={"mode": ["A"]})
    assert figures.plot_pulls({"forward": nothing}).axes[0].texts[0].get_text() == "no value"
