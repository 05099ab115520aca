"""What a user's hands do: open, dock, move the mouse, click."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

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
