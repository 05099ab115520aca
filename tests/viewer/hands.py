"""What a user's hands do: open, dock, move the mouse, click."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from phonon_eels.viewer.layers import first_layers
from phonon_eels.viewer.sessions import Session
from tests.viewer.conftest import let_qt_work, wait_until


def add(viewer: Any, session: Session) -> None:
    for data, keywords, kind in first_layers(session):
        getattr(viewer, f"add_{kind}")(data, **keywords)


def dock(viewer: Any, panel: Any, area: str = "right") -> Any:
    viewer.window.add_dock_widget(panel, area=area, name=type(panel).__name__)
    viewer.window._qt_window.show()
    wait_until(panel.isVisible)
    let_qt_work()
    return panel


def workbench(viewer: Any) -> Any:
    """All panels, once they can be seen: a panel that cannot be seen does not follow the mouse."""
    from phonon_eels.viewer.workbench import Workbench

    bench = dock(viewer, Workbench(viewer))
    wait_until(lambda: bench.spectrum is not None and bench.spectrum.isVisible())
    return bench


def world(session: Session, row: float, column: float) -> tuple[float, float]:
    scale, axes = session.scale_nm, session.image.scan
    return (axes[0].offset_nm + row * scale[0], axes[1].offset_nm + column * scale[1])


def move(viewer: Any, place: tuple[float, float]) -> None:
    event = SimpleNamespace(position=place, type="mouse_move", modifiers=())
    for callback in list(viewer.mouse_move_callbacks):
        callback(viewer, event)
    let_qt_work(0.12)


def click(viewer: Any, place: tuple[float, float], *modifiers: str) -> None:
    event = SimpleNamespace(position=place, type="mouse_press", modifiers=modifiers, button=1)
    running = [g for callback in list(viewer.mouse_drag_callbacks) if hasattr(g := callback(viewer, event), "__next__")]
    for generator in running:
        next(generator, None)
    event.type = "mouse_release"
    for generator in running:
        next(generator, None)
    let_qt_work(0.12)


def canvas_click(viewer: Any, place: tuple[float, float], modifier: str = "No", drag_to: Any = None) -> None:
    """Move the mouse to a place and click there, as the window system says it to the canvas; or drag from there."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    canvas = viewer.window._qt_viewer.canvas
    corner, far = (np.array(canvas._map_canvas2world((x, x), canvas.view)[-2:]) for x in (0, 100))
    keys = getattr(Qt.KeyboardModifier, f"{modifier}Modifier")
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton

    def send(kind: Any, where: Any, button: Any, buttons: Any) -> None:
        y, x = (np.array(where) - corner) / ((far - corner) / 100)
        point = QPointF(float(x), float(y))
        assert canvas.native.rect().contains(point.toPoint())
        event = QMouseEvent(kind, point, canvas.native.mapToGlobal(point), button, buttons, keys)
        QApplication.sendEvent(canvas.native, event)
        let_qt_work(0.05)

    send(QEvent.Type.MouseMove, place, none, none)
    send(QEvent.Type.MouseButtonPress, place, left, left)
    if drag_to is not None:
        for part in (0.3, 0.7, 1.0):
            send(QEvent.Type.MouseMove, np.array(place) + part * (np.array(drag_to) - place), none, left)
    send(QEvent.Type.MouseButtonRelease, place if drag_to is None else drag_to, left, none)
    let_qt_work(0.12)
