"""The spectrum panel in a real napari window: hover, click, pin, region, window, export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phonon_eels.viewer.linking import PINS, Place
from phonon_eels.viewer.sessions import Session
from tests.viewer.conftest import let_qt_work, wait_until
from tests.viewer.hands import add, canvas_click, click, dock, move, world


@pytest.fixture
def spectrum(opened: Any) -> Any:
    from phonon_eels.viewer.spectrum_panel import SpectrumPanel

    return dock(opened, SpectrumPanel(opened), "bottom")


def test_hover_shows_the_position(spectrum: Any, opened: Any, session: Session) -> None:
    move(opened, world(session, 20, 12))
    assert (spectrum.place.row, spectrum.place.column) == (20, 12)
    shown = spectrum.plot.last
    assert shown.fit.mode_names == ("Sr22", "BiO38", "CuO42", "BiO57", "SrO67", "CuO78")
    assert np.array_equal(shown.counts_e, session.spectra.at(20, 12)[0], equal_nan=True)
    assert "row 20, column 12" in spectrum.values.text()
    assert "±" in spectrum.values.text()
    move(opened, (-5.0, 0.0))
    assert (spectrum.place.row, spectrum.place.column) == (20, 12), "outside of the scan nothing changes"


def test_the_hint_goes_with_the_fit(viewer: Any, session: Session) -> None:
    from phonon_eels.viewer.spectrum_panel import SpectrumPanel

    panel = dock(viewer, SpectrumPanel(viewer), "bottom")
    add(viewer, dataclasses.replace(session, results={}))
    wait_until(lambda: "No fit yet" in panel.values.text())
    viewer.layers.clear()
    add(viewer, session)
    wait_until(lambda: "No fit yet" not in panel.values.text())


def test_click_holds_and_lets_go(spectrum: Any, opened: Any, session: Session) -> None:
    click(opened, world(session, 5, 6))
    assert spectrum.held
    move(opened, world(session, 30, 30))
    assert (spectrum.place.row, spectrum.place.column) == (5, 6)
    assert len(opened.layers[PINS].data) == 1
    click(opened, world(session, 5, 6))
    assert not spectrum.held
    assert PINS not in opened.layers
    move(opened, world(session, 30, 30))
    assert (spectrum.place.row, spectrum.place.column) == (30, 30)


def test_a_drag_is_no_click(spectrum: Any, opened: Any, session: Session) -> None:
    event = SimpleNamespace(position=world(session, 5, 6), type="mouse_press", modifiers=(), button=1)
    generator = spectrum.link._pressed(opened, event)
    next(generator)
    event.type, event.position = "mouse_move", world(session, 15, 6)
    next(generator, None)
    event.type = "mouse_release"
    next(generator, None)
    assert not spectrum.held


def test_pins_are_compared_and_marked(spectrum: Any, opened: Any, session: Session) -> None:
    active = opened.layers.selection.active
    for column in range(8):
        click(opened, world(session, 10, column), "Shift")
    assert len(spectrum.pins) == 6, "there are six colours"
    assert len({colour for _, colour in spectrum.pins}) == 6
    assert [place.column for place, _ in spectrum.pins] == [2, 3, 4, 5, 6, 7]
    layer = opened.layers[PINS]
    assert np.allclose(layer.data[-1], world(session, 10, 7))
    assert str(layer.units[0]) == "nanometer"
    assert opened.layers.selection.active is active
    drawn = {mark.colour for mark in spectrum.plot.panels[0].marks if type(mark).__name__ == "Line"}
    assert {colour for _, colour in spectrum.pins} <= drawn
    spectrum.clear_pins()
    assert PINS not in opened.layers
    assert not spectrum.plot.last.pins


def test_region_of_a_layer_and_of_a_shape(spectrum: Any, opened: Any, session: Session) -> None:
    spectrum.region.setCurrentText("CuO2")
    spectrum.fit_region()
    wait_until(lambda: "sum of" in spectrum.values.text())
    assert spectrum.plot.last.fit.good
    spectrum.draw_region()
    layer = opened.layers["regions"]
    assert layer.mode == "add_rectangle"
    corners = [world(session, r, c) for r, c in ((9.6, 4.6), (9.6, 14.4), (19.4, 14.4), (19.4, 4.6))]
    layer.add_rectangles([corners])
    wait_until(lambda: "drawn shape: sum of 100 positions" in spectrum.values.text())
    layer.add_paths([[world(session, 3, 3), world(session, 3, 12)]], edge_width=0.01)
    layer.selected_data = {1}
    spectrum.fit_region()
    wait_until(lambda: "drawn shape: sum of 10 positions" in spectrum.values.text())
    opened.layers.remove(layer)


def test_control_click_sums_the_layer_there(spectrum: Any, opened: Any, session: Session) -> None:
    maps = session.maps("assign_layers")
    assert maps is not None
    row, column = np.argwhere(maps["layer"].values == 3)[0]
    click(opened, world(session, int(row), int(column)), "Control")
    wait_until(lambda: "BiO: sum of" in spectrum.values.text())


def test_energy_window_updates_its_map(spectrum: Any, opened: Any, session: Session) -> None:
    spectrum.window_button.setChecked(True)
    wait_until(lambda: isinstance(opened.layers["window 73.0 … 83.0 meV (e⁻)"].data, np.ndarray))
    for high in (50.0, 48.0, 46.0):
        spectrum.plot.span.setRegion((35.0, high))
    wait_until(lambda: "window 35.0 … 46.0 meV (e⁻)" in opened.layers)
    layer = opened.layers["window 35.0 … 46.0 meV (e⁻)"]
    from phonon_eels.backends.select import select_backend

    assert np.array_equal(layer.data, session.window_map(35.0, 46.0, select_backend("cpu")))
    assert layer.visible
    assert sum(name.name.startswith("window") for name in opened.layers) == 1
    shown: list[str] = []
    layer.events.data.connect(lambda _: shown.append(layer.name))
    for step in range(120):
        spectrum.plot.span.setRegion((35.0, 46.0 + 0.1 * step))
        let_qt_work(0.02)
    assert len(shown) > 1, "it follows while the span is dragged"
    move(opened, world(session, 20, 12))
    last = spectrum.plot.last.energy_loss_mev[-1]
    spectrum.plot.span.setRegion((50.0, last + 500.0))
    assert spectrum.plot.span.getRegion() == pytest.approx((50.0, last)), "the window stays on the channels"


def test_ways_to_draw_a_spectrum(spectrum: Any, opened: Any, session: Session) -> None:
    spectrum.show_place(Place(session, 20, 12))
    x0, x1 = spectrum.plot.main.vb.viewRange()[0]
    assert 0 < x0 < x1
    assert spectrum.plot.view == "log"
    spectrum.side.setCurrentText("gain side")
    assert spectrum.plot.main.vb.viewRange()[0][1] < 0
    spectrum.side.setCurrentText("both sides")
    spectrum.log_button.click()
    assert spectrum.plot.view == "linear"
    top = spectrum.plot.main.vb.viewRange()[1][1]
    assert top > np.nanmax(spectrum.plot.last.counts_e)
    spectrum.subtract_button.click()
    fit = spectrum.plot.last.fit
    total = spectrum.plot.panels[0].marks[-1]
    drawn = spectrum.plot.above.items(total)[0].getData()
    wanted = fit.model_e - fit.components_e["zlp"] - fit.components_e["background"]
    assert np.allclose(drawn[1], wanted[np.isin(fit.energy_loss_mev, drawn[0])])
    assert spectrum.plot.main.vb.viewRange()[1][1] < top


def test_export_from_the_panel(
    spectrum: Any, opened: Any, session: Session, tmp_path: Path, notices: list[str]
) -> None:
    spectrum.show_place(Place(session, 20, 12))
    spectrum.pin(Place(session, 21, 12))
    written = spectrum.export_to(tmp_path / "spectrum.csv")
    assert [path.name for path in written] == ["spectrum.csv", "spectrum_values.csv"]
    assert "pin: row 21" in written[0].read_text("utf-8")
    assert any("written" in notice for notice in notices)


def test_the_panel_paints_without_the_image(spectrum: Any, opened: Any, session: Session) -> None:
    """Its own window within napari's (X11), and nothing below its plot and table is painted with them: half of the latency."""
    from qtpy.QtCore import QEvent, QObject, Qt
    from qtpy.QtGui import QGuiApplication
    from qtpy.QtWidgets import QApplication, QDockWidget

    from phonon_eels.viewer.panel import OWN_WINDOW_PLATFORMS

    class Painted(QObject):
        def eventFilter(self, widget: Any, event: Any) -> bool:
            if event.type() == QEvent.Type.Paint:
                seen.append(widget)
            return False

    seen: list[Any] = []
    papers = {spectrum.plot.canvas, spectrum.values.viewport()}

    def painted_by_a_move(column: int) -> set[Any]:
        let_qt_work(0.5)
        seen.clear()
        spectrum.show_place(Place(session, 20, column))
        let_qt_work(0.05)
        # what napari has to paint elsewhere is its own affair
        return {widget for widget in seen if widget in {*papers, spectrum, spectrum.plot, spectrum.values, dock_widget}}

    def is_white() -> bool:
        shot = QApplication.primaryScreen().grabWindow(int(spectrum.winId())).toImage()
        corner = spectrum.values.mapTo(spectrum, spectrum.values.rect().topRight())  # the bottom may be off the screen
        return bool(shot.pixelColor(corner.x() - 4, corner.y() + 3).name() == "#ffffff")

    watch, dock_widget = Painted(), next(
        d for d in opened.window._qt_window.findChildren(QDockWidget) if d.isAncestorOf(spectrum)
    )  # fmt: skip
    app = QApplication.instance()
    assert app is not None
    app.installEventFilter(watch)
    try:
        own = QGuiApplication.platformName() in OWN_WINDOW_PLATFORMS
        assert spectrum.testAttribute(Qt.WidgetAttribute.WA_NativeWindow) is own
        assert painted_by_a_move(10) == papers
        assert is_white()
        opened.theme = "light"
        assert painted_by_a_move(11) == papers, "another theme"
        for floating in (True, False):
            dock_widget.setFloating(floating)
            assert painted_by_a_move(12 + floating) == papers, f"floating: {floating}"
            assert is_white()
    finally:
        app.removeEventFilter(watch)
        opened.theme = "dark"


def test_the_mouse_over_the_canvas(spectrum: Any, opened: Any, session: Session, notices: list[str]) -> None:
    """Events of the window system through Qt, VisPy and napari: hover, click, shift-click, control-click, a drawn rectangle."""
    opened.reset_view()
    let_qt_work(0.3)
    canvas_click(opened, world(session, 20, 12))
    assert (spectrum.held, spectrum.place.row, spectrum.place.column) == (True, 20, 12)
    canvas_click(opened, world(session, 20, 12))
    assert not spectrum.held
    canvas_click(opened, world(session, 25, 14), "Shift")
    canvas_click(opened, world(session, 30, 16), "Shift")
    assert [(place.row, place.column) for place, _ in spectrum.pins] == [(25, 14), (30, 16)]
    maps = session.maps("assign_layers")
    assert maps is not None
    row, column = np.argwhere(maps["layer"].values == 3)[0]
    canvas_click(opened, world(session, int(row), int(column)), "Control")
    wait_until(lambda: "BiO: sum of" in spectrum.values.text())
    spectrum.draw_region()
    spectrum._region_timer.setInterval(0)  # as a hand that draws slowly
    canvas_click(opened, world(session, 9.6, 4.6), drag_to=world(session, 19.4, 14.4))
    wait_until(lambda: "drawn shape: sum of 100 positions" in spectrum.values.text())
    assert not notices, "nothing is said of a shape that is not drawn to its end"
