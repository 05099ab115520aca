"""What all panels are: widgets that go when their dock is taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QWidget

from phonon_eels.viewer.background import later
from phonon_eels.viewer.linking import LAYERS_DELAY_MS, ViewerLink


class Panel(QWidget):
    """A docked widget. napari only lets go of it when the dock is closed; without a parent it ends itself."""

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
