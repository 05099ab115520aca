"""What all panels are: widgets that go when their dock is taken away, and paint without the image where they follow the mouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QGuiApplication, QPainter
from qtpy.QtWidgets import QTextEdit, QWidget

from phonon_eels.viewer.background import later
from phonon_eels.viewer.linking import LAYERS_DELAY_MS, ViewerLink

OWN_WINDOW_PLATFORMS = frozenset({"xcb"})
"""Where panels get a window of their own; measured with X11 only, so others stay as Qt makes them."""


MARK_DELAY_MS = 40
"""The spectrum comes first; what other panels show of the place under the mouse follows."""


class Latest:
    """Hands over the newest of what is given, at most once in a while."""

    def __init__(self, parent: QObject, delay_ms: int, then: Callable[[Any], Any]) -> None:
        self._then, self._waiting = then, None
        self._timer = later(parent, delay_ms, self._hand_over)

    def give(self, something: Any) -> None:
        """Take what is new; what waits is forgotten."""
        self._waiting = something
        if not self._timer.isActive():
            self._timer.start()

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._then(waiting)


class Paper(QTextEdit):
    """Words on white that change with the mouse. They are laid out once, where a label does so for each width that it might have."""

    def __init__(self, words: str) -> None:
        """Show words; HTML is taken as such."""
        super().__init__()
        self.setReadOnly(True)
        self.setFrameShape(QTextEdit.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setUndoRedoEnabled(False)
        self._words = ""
        self.setText(words)

    def setText(self, words: str | None) -> None:
        """Show other words, from their beginning."""
        if words != self._words:
            self._words = words or ""
            self.setHtml(self._words)

    def text(self) -> str:
        """Return the words that are shown."""
        return self._words

    def paintEvent(self, event: Any) -> None:
        """Fill all of it, then write: napari's style sheets would leave the filling to what lies below."""
        viewport = self.viewport()
        painter = QPainter(viewport)
        painter.fillRect(event.rect(), Qt.GlobalColor.white)
        painter.end()
        super().paintEvent(event)


class Panel(QWidget):
    """A docked widget. napari only lets go of it when the dock is closed; without a parent it ends itself.

    Attributes
    ----------
    opaque
        Widgets that fill all of their rectangle, and change with every move of the mouse. Qt composes the whole of a window
        that holds an OpenGL canvas anew whenever anything in it changes, and paints all that lies below what is not known to be
        opaque, napari's style sheets included: without a GPU that takes 40 ms, more than reading, fitting and drawing. A panel
        with such widgets therefore has a window of its own within napari's, and they are declared opaque.
    """

    opaque: tuple[Any, ...] = ()

    def follow(self, napari_viewer: Any, on_layers: Callable[[], None], **ears: Any) -> ViewerLink:
        """Return an ear on the image that is taken off when the panel goes.

        Parameters
        ----------
        on_layers
            Called once when layers came or went, however many.
        ears
            Others of `ViewerLink`.
        """
        link = ViewerLink(napari_viewer, on_layers=later(self, LAYERS_DELAY_MS, on_layers).start, **ears)
        self.destroyed.connect(link.close)
        return link

    def changeEvent(self, event: Any) -> None:
        """Go when the dock is gone, and with it the links to the image and the thread."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.deleteLater()
        if event.type() == QEvent.Type.StyleChange and self.opaque:  # another theme; style sheets reset the attribute
            later(self, 0, self._declare_opaque).start()

    def showEvent(self, event: Any) -> None:
        """Take a window of its own: docking, which comes before, would take it away again."""
        super().showEvent(event)
        if self.opaque and QGuiApplication.platformName() in OWN_WINDOW_PLATFORMS:
            self.setAttribute(Qt.WidgetAttribute.WA_DontCreateNativeAncestors)
            self.setAttribute(Qt.WidgetAttribute.WA_NativeWindow)
        self._declare_opaque()

    def _declare_opaque(self) -> None:
        for widget in self.opaque:
            widget.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
