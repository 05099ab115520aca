"""The plot of a spectrum as `figures.spectrum_panels` describes it, redrawn while the mouse moves; and the energy window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from phonon_eels.figures.marks import Panel
from phonon_eels.figures.spectrum_panels import SIDES, View, side_limits, spectrum_panels
from phonon_eels.steps.spectrum_fit import SpectrumFit
from phonon_eels.viewer.background import later
from phonon_eels.viewer.plots import Painter, pen, pg, plot, plots
from phonon_eels.viewer.spectrum_words import spectrum_columns

WINDOW_COLOUR = (230, 159, 0, 45)
ZOOM_DELAY_MS = 60


@dataclass(frozen=True)
class Shown:
    """A spectrum as it is drawn.

    Attributes
    ----------
    energy_loss_mev, counts_e
        (n,) of all channels.
    fit
        Its fit, or None.
    title
        What it is, in a few words.
    pins
        (colour, energy_loss_mev, counts_e) of spectra to compare with.
    """

    energy_loss_mev: np.ndarray
    counts_e: np.ndarray
    fit: SpectrumFit | None
    title: str
    pins: tuple[tuple[str, np.ndarray, np.ndarray], ...] = field(default=())


class SpectrumPlot(QWidget):
    """Counts and fit above, residuals below."""

    window_changed = Signal(float, float)
    """Ends of the energy window, meV, while it is dragged."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Make an empty plot."""
        super().__init__(parent)
        self._area = plots(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._area)
        self.main, self.residual = plot(self._area, 0, 0), plot(self._area, 1, 0)
        self._area.ci.layout.setRowStretchFactor(0, 7)
        self._area.ci.layout.setRowStretchFactor(1, 3)
        self.main.getAxis("bottom").setStyle(showValues=False)
        self.residual.setXLink(self.main)
        for item in (self.main, self.residual):
            item.setMouseEnabled(x=True, y=False)
        # Colours are explained by the table of values beside the plot: no legend, which would cover data here.
        self.above, self.below = Painter(self.main), Painter(self.residual)
        self.span = pg.LinearRegionItem((70.0, 85.0), brush=WINDOW_COLOUR, pen=pen("#B87800", 1.0))
        self.span.setZValue(-105)
        self.span.setVisible(False)
        self.main.addItem(self.span, ignoreBounds=True)
        self.span.sigRegionChanged.connect(self._window_moved)
        self.view: View = "log"
        self.side = SIDES[0]
        self._last: Shown | None = None
        self._viewed: tuple[object, ...] = ()
        self._zoomed = later(self, ZOOM_DELAY_MS, self._redraw)
        self.main.vb.sigRangeChangedManually.connect(lambda *_: self._zoomed.start())

    @property
    def canvas(self) -> QWidget:
        """What is painted on."""
        viewport: QWidget = self._area.viewport()
        return viewport

    @property
    def last(self) -> Shown | None:
        """What is drawn."""
        return self._last

    @property
    def panels(self) -> tuple[Panel, Panel]:
        """What is seen, for the same figure on paper."""
        return self.above.panel, self.below.panel

    def set_style(self, *, log: bool, subtracted: bool, side: str) -> None:
        """Choose logarithmic or linear, with or without zero-loss peak and background, and the side of the axis."""
        self.view, self.side = "loss" if subtracted else "log" if log else "linear", side
        self._viewed = ()
        self._redraw()

    def _redraw(self) -> None:
        if self._last is not None:
            self.draw(self._last)

    def draw(self, shown: Shown) -> None:
        """Draw a spectrum; energies that the user has zoomed to stay until side or axis are others."""
        self._last = shown
        energy, counts = shown.energy_loss_mev, shown.counts_e
        table = spectrum_columns(energy, counts, shown.fit)
        whole = (float(energy[0]), float(energy[-1]))
        key = (self.side, self.view, *(round(end) for end in whole))
        again = key == self._viewed
        self._viewed = key
        if not again:
            self.span.setBounds(whole)  # a window beyond the channels would show nothing
        left, right = self.main.vb.viewRange()[0] if again else side_limits(table, self.view, self.side, whole)
        above, below = spectrum_panels(
            table, view=self.view, limits_mev=(left, right), counts=(energy, counts), pins=shown.pins
        )
        self.above.paint(above)
        self.below.paint(below)

    def show_window(self, shown: bool, ends: tuple[float, float] | None = None) -> None:
        """Show or hide the span of the energy window."""
        if ends is not None:
            blocked = self.span.blockSignals(True)
            self.span.setRegion(ends)
            self.span.blockSignals(blocked)
        self.span.setVisible(shown)

    def _window_moved(self) -> None:
        low, high = self.span.getRegion()
        self.window_changed.emit(float(low), float(high))
