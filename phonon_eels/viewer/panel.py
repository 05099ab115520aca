"""What all panels are: widgets that go when their dock is taken away."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QWidget


class Panel(QWidget):
    """A docked widget. napari only lets go of it when the dock is closed; without a parent it ends itself."""

    def changeEvent(self, event: Any) -> None:
        """Go when the dock is gone, and with it the links to the image and the thread."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.deleteLater()
