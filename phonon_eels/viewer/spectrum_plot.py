"""The plot of a spectrum as `figures.spectrum_panels` describes it, redrawn while the mouse moves; and the energy window."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from phonon_eels.figures.marks import Limits, Panel
from phonon_eels.figures.spectrum_panels import SIDES, View, side_limits, spectrum_panels
from phonon_eels.steps.spectrum_fit import SpectrumFit
from phonon_eels.viewer.background import later
from phonon_eels.viewer.plots import Painter, pen, pg, plot, plots
from phonon_eels.viewer.spectrum_words import spectrum_columns

WINDOW_COLOUR = (230, 159, 0, 45)
ZOOM_DELAY_MS = 60
SAME_ENDS = 0.1
"""Share of the axis by which its ends may differ between positions (their zero-loss peaks do) and be taken for the same."""
LEAST_FILLED = 0.6
"""Share of the height that a spectrum must fill, or the axis shrinks to it."""


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
        self._viewed: Limits | None = None
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
        self._viewed = None
        self._redraw()

    def _redraw(self) -> None:
        if self._last is not None:
            self.draw(self._last)

    def draw(self, shown: Shown) -> None:
        """Draw a spectrum; energies that the user has zoomed to stay until side or axis are others, heights while they fit."""
        self._last = shown
        energy, counts = shown.energy_loss_mev, shown.counts_e
        table = spectrum_columns(energy, counts, shown.fit)
        whole = (float(energy[0]), float(energy[-1]))
        again = self._viewed is not None and _near(whole, self._viewed)
        if not again:
            self._viewed = whole
            self.span.setBounds(whole)  # a window beyond the channels would show nothing
        left, right = self.main.vb.viewRange()[0] if again else side_limits(table, self.view, self.side, whole)
        panels = spectrum_panels(
            table, view=self.view, limits_mev=(left, right), counts=(energy, counts), pins=shown.pins
        )
        for painter, panel in zip((self.above, self.below), panels, strict=True):
            painter.paint(replace(panel, y_limits=held(painter.panel, panel)) if again else panel)

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


def held(before: Panel, now: Panel) -> Limits:
    """Return the ends of the vertical axis: those of before while the spectrum fits and fills them, so that the axis holds still.

    A spectrum that reaches beyond widens them, as long as it fills what then is seen.
    """
    if before.log_y != now.log_y or not before.marks:
        return now.y_limits
    (low, high), (bottom, top) = before.y_limits, now.y_limits
    wide = min(low, bottom), max(high, top)
    reach, needed = (np.ptp(np.log10(ends) if now.log_y else ends) for ends in (wide, (bottom, top)))
    return wide if needed >= LEAST_FILLED * reach else now.y_limits


def _near(ends: Limits, others: Limits) -> bool:
    return max(abs(a - b) for a, b in zip(ends, others, strict=True)) <= SAME_ENDS * (others[1] - others[0])
