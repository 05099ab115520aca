"""All panels at once: the spectrum below the image, the others as tabs beside it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QMainWindow, QTabWidget, QVBoxLayout

from phonon_eels.viewer.analyse_panel import AnalysePanel
from phonon_eels.viewer.distributions_panel import DistributionsPanel
from phonon_eels.viewer.maps_panel import MapsPanel
from phonon_eels.viewer.modulation_panel import ModulationPanel
from phonon_eels.viewer.notices import guarded
from phonon_eels.viewer.panel import Panel
from phonon_eels.viewer.spectrum_panel import SpectrumPanel

SPECTRUM = "Spectrum (phonon-eels)"
WIDTH = 350


class Workbench(Panel):
    """Tabs Maps, Analyse, Modulation and Distributions; it docks the spectrum below the image, and a scale bar in it."""

    def __init__(self, napari_viewer: Any) -> None:
        """Make all panels."""
        super().__init__()
        self.viewer = napari_viewer
        self.tabs = QTabWidget()
        self.maps = MapsPanel(napari_viewer)
        self.analyse = AnalysePanel(napari_viewer)
        self.modulation = ModulationPanel(napari_viewer)
        self.distributions = DistributionsPanel(napari_viewer)
        for name, panel in (
            ("Maps", self.maps), ("Analyse", self.analyse), ("Modulation", self.modulation), ("Distributions", self.distributions),
        ):  # fmt: skip
            self.tabs.addTab(panel, name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tabs)
        self.setMinimumWidth(WIDTH)
        self.spectrum: SpectrumPanel | None = None
        # After this panel was docked itself: the window is not to be rearranged while it docks.
        QTimer.singleShot(0, self._complete)

    @guarded
    def _complete(self) -> None:
        self.viewer.canvas.overlays.scale_bar.visible = True
        main = self.window()
        if isinstance(main, QMainWindow):  # the list of layers is long: it keeps the whole height
            main.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea)
        if SPECTRUM not in self.viewer.window.dock_widgets:
            self.spectrum = SpectrumPanel(self.viewer)
            self.viewer.window.add_dock_widget(self.spectrum, name=SPECTRUM, area="bottom")
