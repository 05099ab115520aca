"""Curves and dots that follow the mouse: where they are drawn, and what a move of the mouse paints anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from phonon_eels.figures.marks import Panel
from phonon_eels.viewer.linking import Place
from phonon_eels.viewer.sessions import Session
from tests.viewer.conftest import let_qt_work, wait_until
from tests.viewer.hands import dock


@pytest.fixture
def drawn(screen: None, qapp: Any) -> Any:
    """Draw one item on white, 0 to 10 by 0 to 10; return (rows, columns, 3) of the view, the first row at the top."""
    from phonon_eels.viewer.plots import plot, plots

    areas = []

    def draw(item: Any) -> np.ndarray:
        area = plots()
        areas.append(area)
        area.resize(400, 300)
        seen = plot(area, 0, 0)
        seen.vb.setRange(xRange=(0.0, 10.0), yRange=(0.0, 10.0), padding=0.0)
        seen.addItem(item, ignoreBounds=True)
        area.show()
        wait_until(area.isVisible)
        picture = area.grab().toImage().convertToFormat(area.grab().toImage().Format.Format_RGB32)
        bits = picture.constBits()
        bits.setsize(picture.sizeInBytes())
        pixels = np.frombuffer(bits, np.uint8).reshape(picture.height(), picture.bytesPerLine() // 4, 4)[..., 2::-1]
        frame = seen.vb.sceneBoundingRect().toAlignedRect()
        return pixels[frame.top() + 2 : frame.bottom() - 1, frame.left() + 2 : frame.right() - 1].copy()

    yield draw
    for area in areas:
        area.close()


def share(pixels: np.ndarray, x: float, y: float) -> float:
    """Return how much red there is in the pixels about a place, 0 to 1."""
    row, column = round((1.0 - y / 10.0) * pixels.shape[0]), round(x / 10.0 * pixels.shape[1])
    near = pixels[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4].astype(int)
    return float(np.max(near[..., 0] - near[..., 1], initial=0) / 255.0)


def test_curve_is_where_its_data_are_with_gaps(drawn: Any) -> None:
    from phonon_eels.viewer.plots import pen
    from phonon_eels.viewer.strokes import Stroke

    x = np.linspace(0.0, 10.0, 201)
    y = 2.0 + 0.6 * x
    y[(x > 4.0) & (x < 6.0)] = np.nan
    stroke = Stroke(pen("#ff0000", 1.5))
    stroke.setData(x, y)
    pixels = drawn(stroke)
    assert [share(pixels, at, 2.0 + 0.6 * at) > 0.9 for at in (1.0, 3.0, 5.0, 7.0, 9.0)] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert share(pixels, 3.0, 7.0) == 0.0
    thick = (pixels[..., 1] < 128).sum(axis=0)[: pixels.shape[1] // 3]
    assert np.median(thick) == 2, "a bold line is two pixels high"


def test_steps_are_shaded_down_to_zero(drawn: Any) -> None:
    from phonon_eels.viewer.plots import _shade, pen
    from phonon_eels.viewer.strokes import Stroke

    stroke = Stroke(pen("#ff0000"), fill=_shade("#ff0000", 0.4))
    stroke.setData(np.array([1.0, 4.0, 9.0]), np.array([8.0, 3.0]))
    pixels = drawn(stroke)
    assert share(pixels, 2.5, 8.0) > 0.9
    assert share(pixels, 2.5, 4.0) == pytest.approx(0.4, abs=0.02)
    assert share(pixels, 6.5, 1.5) == pytest.approx(0.4, abs=0.02)
    assert share(pixels, 6.5, 5.0) == 0.0


def test_dots_are_round_and_where_their_data_are(drawn: Any) -> None:
    from phonon_eels.viewer.plots import _shade
    from phonon_eels.viewer.strokes import Dots, disc
    from phonon_eels.viewer.strokes import dots as cloud

    dots = Dots(_shade("#ff0000", 1.0), 4.0)
    x, y = np.array([2.0, 5.0, 8.0, 1e12, np.nan]), np.array([3.0, 9.0, 6.0, 5.0, 5.0])
    dots.setData(x, y)
    pixels = drawn(dots)
    assert [share(pixels, *at) > 0.9 for at in zip(x[:3], y[:3], strict=True)] == [True] * 3
    assert [share(pixels, a, 10.0 - b) for a, b in zip(x[:3], y[:3], strict=True)] == [0.0] * 3
    covered = (pixels[..., 0].astype(float) - pixels[..., 1]).sum() / 255.0
    assert covered == pytest.approx(3 * np.pi * 4.0, rel=0.02)
    near = cloud((9, 9), np.array([4.1]), np.array([6.9]), 3.0)
    assert near[4, 6] == near.max()
    assert near[3, 6] == near[5, 6] == near[4, 5] == near[4, 7]
    assert disc(4.0, 2).sum() == pytest.approx(np.pi * 4.0, rel=0.01)


def test_heights_hold_still_while_a_spectrum_fits() -> None:
    from phonon_eels.viewer.spectrum_plot import held

    def panel(low: float, high: float, log: bool = False) -> Panel:
        return Panel((None,), "", "", (0.0, 1.0), (low, high), log)  # type: ignore[arg-type]

    assert held(panel(0.0, 10.0), panel(0.0, 9.0)) == (0.0, 10.0)
    assert held(panel(0.0, 10.0), panel(-1.0, 11.0)) == (-1.0, 11.0)
    assert held(panel(0.0, 10.0), panel(0.0, 5.0)) == (0.0, 5.0), "what fills half of it only gets its own"
    assert held(panel(0.0, 10.0), panel(0.0, 500.0)) == (0.0, 500.0)
    assert held(panel(0.1, 1000.0, True), panel(0.2, 500.0, True)) == (0.1, 1000.0)
    assert held(panel(0.1, 1000.0, True), panel(1.0, 10.0, True)) == (1.0, 10.0)
    assert held(panel(0.1, 1000.0), panel(0.2, 500.0, True)) == (0.2, 500.0), "another kind of axis"
    assert held(replace(panel(0.0, 10.0), marks=()), panel(0.0, 9.0)) == (0.0, 9.0), "nothing was drawn"


def test_a_move_paints_no_axis_and_cuts_nothing(opened: Any, session: Session) -> None:
    from phonon_eels.viewer.spectrum_panel import SpectrumPanel

    panel = dock(opened, SpectrumPanel(opened), "bottom")
    wait_until(panel.isVisible)
    plots = (panel.plot.main, panel.plot.above), (panel.plot.residual, panel.plot.below)
    changed: list[Any] = []
    panel.plot.main.scene().changed.connect(changed.extend)
    labelled = [panel.plot.main.getAxis("left"), *(panel.plot.residual.getAxis(side) for side in ("left", "bottom"))]
    axes = [axis.sceneBoundingRect() for axis in labelled]
    quiet = 0
    for row, column in ((4, 3), (11, 12), (19, 20), *((row, column) for row in (30, 37, 44) for column in (5, 16, 27))):
        let_qt_work(0.15)
        changed.clear()
        before = [item.vb.viewRange() for item, _ in plots]
        panel.show_place(Place(session, row, column))
        wait_until(lambda: changed)
        let_qt_work(0.05)
        for item, painter in plots:
            low, high = item.vb.viewRange()[1]
            values = [v for mark in painter.panel.marks if hasattr(mark, "y") for v in mark.y[inside(mark.x, item)]]
            seen = np.log10([v for v in values if v > 0]) if painter.panel.log_y else np.array(values)
            assert high >= seen.max(initial=low)
        if [item.vb.viewRange() for item, _ in plots] == before:
            quiet += 1
            touched = [rect for rect in changed for axis in axes if rect.contains(axis.center())]
            assert not touched
    assert quiet >= 4, "heights hold still"


def inside(x: np.ndarray, item: Any) -> np.ndarray:
    low, high = item.vb.viewRange()[0]
    return (x >= low) & (x <= high)
