"""The maps of a scan that are not among its first layers follow one by one, whenever the window has nothing else to do.

napari makes controls and graphics for every layer that it is given, 0.1 to 0.2 s each without a GPU, and results have nearly
fifty: all at once the window would not answer for that long.
"""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.QtCore import QObject, QTimer
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QApplication

from phonon_eels.viewer.layers import Layer, layers_of, session_of
from phonon_eels.viewer.linking import find_layer
from phonon_eels.viewer.notices import guarded
from phonon_eels.viewer.sessions import Session

PAUSE_MS = 200
"""Between layers, in which the window answers; a mouse that moves or a button that is held makes it longer."""


def fill(session: Session, viewer: Any = None) -> None:
    """Add those maps of a session that `Session.to_come` names, in the order of `layers_of`, hidden.

    Parameters
    ----------
    viewer
        Default: the window that is in front; without one nothing happens.
    """
    import napari

    viewer = viewer or napari.current_viewer()
    if viewer is not None and session.to_come:
        _Filling(viewer, session)


class _Filling(QObject):
    """Ends itself when nothing is left to come, and when the scan or the window is closed."""

    def __init__(self, viewer: Any, session: Session) -> None:
        super().__init__(QApplication.instance())
        self._viewer, self._session = weakref.ref(viewer), session
        self._layers: list[Layer] = []
        self._mouse = QCursor.pos()
        self._timer = QTimer(self)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(self._next)
        self._timer.start()

    @guarded
    def _next(self) -> None:
        import napari

        viewer = self._viewer()
        if (
            viewer is None
            or not self._session.to_come
            or all(session_of(x) is not self._session for x in viewer.layers)
        ):
            self._timer.stop()
            self._session.to_come.clear()  # where the scan is in another window: its panel must not promise them
            self.deleteLater()
            return
        mouse, before, self._mouse = QCursor.pos(), self._mouse, QCursor.pos()
        busy = mouse != before or QApplication.mouseButtons()
        if busy or napari.current_viewer() is not viewer:  # also so when it was closed
            return
        self._layers = self._layers or layers_of(self._session)
        self._add(viewer, self._session.to_come.pop(0))

    def _add(self, viewer: Any, name: str) -> None:
        from napari.layers import Layer as NapariLayer

        names = [keywords["name"] for _, keywords, _ in self._layers]
        if name not in names or find_layer(viewer, self._layers[names.index(name)]) is not None:
            return
        data, keywords, kind = self._layers[names.index(name)]
        above = [find_layer(viewer, layer) for layer in self._layers[names.index(name) + 1 :]]
        mine = [k for k, layer in enumerate(viewer.layers) if session_of(layer) is self._session]
        at = min((viewer.layers.index(layer) for layer in above if layer is not None), default=mine[-1] + 1)
        selected = set(viewer.layers.selection)
        active = viewer.layers.selection.active
        viewer.layers.insert(at, NapariLayer.create(data, {**keywords, "visible": False}, kind))
        viewer.layers.selection = selected
        viewer.layers.selection.active = active
