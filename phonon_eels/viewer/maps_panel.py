"""The list of all maps of a scan, by mode: what is ticked is shown in the image."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QTreeWidget, QTreeWidgetItem, QVBoxLayout

from phonon_eels.viewer.layers import KEY, Layer, layers_of
from phonon_eels.viewer.linking import find_layer
from phonon_eels.viewer.notices import guarded, slot
from phonon_eels.viewer.panel import Panel
from phonon_eels.viewer.sessions import Session

GROUPS = {
    "ingest": "image",
    "window": "image",
    "align_zlp": "zero-loss peak",
    "assign_layers": "crystal",
    "map_superstructure": "crystal",
    "fit_peaks": "fit",
}
TICKED, UNTICKED = Qt.CheckState.Checked, Qt.CheckState.Unchecked


class MapsPanel(Panel):
    """Docked at the right."""

    def __init__(self, napari_viewer: Any) -> None:
        """List the maps of the scan that is open."""
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self.rows: dict[str, QTreeWidgetItem] = {}
        self._layers: dict[str, Layer] = {}
        self._build()
        self.link = self.follow(napari_viewer, self._layers_changed, visibility=True)
        self._layers_changed()

    def _build(self) -> None:
        self.words = QLabel("")
        self.words.setWordWrap(True)
        self.tree = QTreeWidget()
        self.tree.setHeaderHidden(True)
        # In napari's dark theme a box without a tick cannot be told from the ground.
        self.tree.setStyleSheet("QTreeView::indicator:unchecked { border: 1px solid #8a8f94; border-radius: 2px; }")
        self.tree.itemChanged.connect(self._ticked)
        self.every = QPushButton("add all")
        self.every.setToolTip("every map as a layer, at once; without a GPU napari takes a while for so many")
        self.every.clicked.connect(slot(lambda: self.add(*self.rows)))
        self.none = QPushButton("remove all")
        self.none.setToolTip("take the layers of all maps away; they can be added again")
        self.none.clicked.connect(slot(lambda: self.remove(*self.rows)))
        buttons = QHBoxLayout()
        for button in (self.every, self.none):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(3)
        layout.addWidget(self.words)
        layout.addWidget(self.tree, 1)
        layout.addLayout(buttons)
        self.setMinimumWidth(330)

    @guarded
    def _layers_changed(self) -> None:
        # Without a layer there is no scan to ask: the list stays, so that what was taken away can come back.
        session = self.link.session() or self.session
        if session is not self.session:
            self.session = session
            self._list_maps(session)
        blocked = self.tree.blockSignals(True)
        for name, row in self.rows.items():
            layer = self.layer(name)
            row.setCheckState(0, TICKED if layer is not None and layer.visible else UNTICKED)
        self.tree.blockSignals(blocked)
        here = sum(self.layer(name) is not None for name in self.rows)
        known = session is not None and bool(self.rows)
        words = ""
        if known and session:
            words = f"{session.name}: {here} of {len(self.rows)} maps are layers"
            words += ", the others follow. " if session.to_come else ". "
            words += "Tick one: it is shown on top."
        self.words.setText(words or "No scan is open: drag a file or a results folder onto the window.")

    def _list_maps(self, session: Session | None) -> None:
        self.tree.clear()
        self.rows.clear()
        layers = [] if session is None else layers_of(session)
        self._layers = {layer[1]["name"]: layer for layer in layers}
        parents: dict[str, QTreeWidgetItem] = {}
        blocked = self.tree.blockSignals(True)
        for name, (_, keywords, _) in reversed(self._layers.items()):
            entry = keywords["metadata"][KEY]
            group = entry.get("mode") or GROUPS[entry["step"]]
            if group not in parents:
                parents[group] = QTreeWidgetItem(self.tree, [group])
                parents[group].setFlags(Qt.ItemFlag.ItemIsEnabled)
            row = QTreeWidgetItem(parents[group], [name])
            row.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            self.rows[name] = row
        self.tree.blockSignals(blocked)
        self.tree.expandAll()

    def layer(self, name: str) -> Any:
        """Return the layer of a map, None where it was not added."""
        return find_layer(self.viewer, self._layers[name])

    @guarded
    def _ticked(self, row: QTreeWidgetItem, _: int) -> None:
        name = row.text(0)
        if name not in self.rows:
            return
        if row.checkState(0) == TICKED:
            self.show_map(name)
        elif (layer := self.layer(name)) is not None:
            layer.visible = False

    def show_map(self, name: str) -> None:
        """Show a map above the other maps."""
        self.add(name)
        layer = self.layer(name)
        layer.visible = True
        self.link.raise_map(layer)

    def add(self, *names: str) -> None:
        """Make layers of maps that are none yet."""
        for name in names:
            if self.layer(name) is None:
                self.link.show(self._layers[name])

    def remove(self, *names: str) -> None:
        """Take the layers of maps away, and those that are still to come."""
        if self.session is not None:
            self.session.to_come[:] = [name for name in self.session.to_come if name not in names]
        for name in names:
            layer = self.layer(name)
            if layer is not None:
                self.viewer.layers.remove(layer)
