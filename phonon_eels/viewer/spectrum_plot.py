"""The plot of a spectrum: counts, background, every peak, their sum, residual in σ, pinned spectra, energy window."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from phonon_eels.figures.style import colours
from phonon_eels.steps.spectrum_fit import SpectrumFit
from phonon_eels.viewer.plots import INK, MUTED, line, pen, pg, plot, plots

COUNTS_COLOUR = "#8a8a8a"
BACKGROUND_COLOUR = "#8C4F1F"
WINDOW_COLOUR = (230, 159, 0, 45)
RANGES = ("loss side", "gain side", "both sides")
EMPTY = np.zeros(0)


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
        self.main = plot(self._area, 0, 0, y="counts", y_unit="e⁻")
        self.residual = plot(self._area, 1, 0, x="energy loss", x_unit="meV", y="residual", y_unit="σ")
        self._area.ci.layout.setRowStretchFactor(0, 7)
        self._area.ci.layout.setRowStretchFactor(1, 3)
        self.main.getAxis("bottom").setStyle(showValues=False)
        self.residual.setXLink(self.main)
        self.residual.setYRange(-5, 5, padding=0)
        self.residual.getAxis("left").setTicks([[(-3, "−3"), (0, "0"), (3, "3")]])
        band = pg.LinearRegionItem(
            (-2, 2), orientation="horizontal", movable=False, brush="#ececec", pen=pen("#ececec")
        )
        band.setZValue(-10)
        self.residual.addItem(band, ignoreBounds=True)
        for item in (self.main, self.residual):
            item.disableAutoRange()
            item.setMouseEnabled(x=True, y=False)
        self._counts = line(self.main, COUNTS_COLOUR, stepMode="center", fillLevel=None)
        self._background = line(self.main, BACKGROUND_COLOUR, 1.5, ":")
        self._zero_loss = line(self.main, MUTED, 1.0, "--")
        self._sum = line(self.main, INK, 1.0)
        self._modes: dict[str, Any] = {}
        self._pins: list[Any] = []
        self._bars = line(self.residual, "#0072B2", stepMode="center", fillLevel=0.0, fillBrush="#0072B255")
        self.span = pg.LinearRegionItem((70.0, 85.0), brush=WINDOW_COLOUR, pen=pen("#B87800", 1.0))
        self.span.setZValue(-5)
        self.span.setVisible(False)
        self.main.addItem(self.span, ignoreBounds=True)
        self.span.sigRegionChanged.connect(self._window_moved)
        self.log, self.subtracted, self.side = True, False, RANGES[0]
        self._last: Shown | None = None
        self._viewed: tuple[Any, ...] = ()

    @property
    def last(self) -> Shown | None:
        """What is drawn."""
        return self._last

    def set_style(self, *, log: bool, subtracted: bool, side: str) -> None:
        """Choose logarithmic or linear, with or without zero-loss peak and background, and the side of the axis."""
        self.log, self.subtracted, self.side = log and not subtracted, subtracted, side
        self._viewed = ()
        self.main.setLogMode(False, self.log)
        words = "phonons" if subtracted else "counts"
        self.main.getAxis("left").setLabel(f"{words} (e⁻)", color=INK, **{"font-size": "11px"})
        if self._last is not None:
            self.draw(self._last)

    def draw(self, shown: Shown) -> None:
        """Draw a spectrum; curves are kept and only get new data, which is what makes it fast."""
        self._last = shown
        fit = shown.fit
        energy, counts = self._counts_of(shown)
        self._counts.setData(_edges(energy), self._value(counts))
        drawn = self._draw_fit(fit)
        self._draw_pins(shown)
        self._set_view(energy, counts, drawn)

    def _counts_of(self, shown: Shown) -> tuple[np.ndarray, np.ndarray]:
        if self.subtracted and shown.fit is not None:
            fit = shown.fit
            return fit.energy_loss_mev, fit.counts_e - fit.components_e["zlp"] - fit.components_e["background"]
        return shown.energy_loss_mev, shown.counts_e

    def _draw_fit(self, fit: SpectrumFit | None) -> np.ndarray:
        """Draw model and parts; return the sum that is drawn."""
        names = fit.mode_names if fit is not None else ()
        for name in [name for name in self._modes if name not in names]:
            self.main.removeItem(self._modes.pop(name))
        if fit is None:
            for curve in (self._background, self._zero_loss, self._sum, self._bars):
                curve.setData(EMPTY, EMPTY) if curve is not self._bars else curve.setData(np.zeros(2), np.zeros(1))
            return EMPTY
        x, parts = fit.energy_loss_mev, fit.components_e
        under = parts["zlp"] + parts["background"] if self.subtracted else np.zeros(x.size)
        total = fit.model_e - under
        for name, colour in colours(names).items():
            if name not in self._modes:
                self._modes[name] = line(self.main, colour, 1.5)
            self._modes[name].setData(x, self._value(parts[name]))
        self._zero_loss.setData(x, self._value(parts["zlp"]) if not self.subtracted else np.full(x.size, np.nan))
        self._background.setData(
            x, self._value(parts["background"]) if not self.subtracted else np.full(x.size, np.nan)
        )
        self._sum.setData(x, self._value(total))
        self._bars.setData(_edges(x), np.nan_to_num(np.clip(fit.residual_sigma, -5, 5)))
        return np.asarray(total)

    def _draw_pins(self, shown: Shown) -> None:
        pins = () if self.subtracted else shown.pins
        while len(self._pins) > len(pins):
            self.main.removeItem(self._pins.pop())
        while len(self._pins) < len(pins):
            self._pins.append(line(self.main, INK))
        for curve, (colour, energy, counts) in zip(self._pins, pins, strict=True):
            curve.setPen(pen(colour, 1.0))
            curve.setData(energy, self._value(counts))

    def _value(self, values: np.ndarray) -> np.ndarray:
        return np.where(values > 0.0, values, np.nan) if self.log else values

    def _set_view(self, energy: np.ndarray, counts: np.ndarray, drawn: np.ndarray) -> None:
        """Set the limits; along the energies only when the side or the axis is another, so that a zoom stays."""
        low, high = float(energy[0]), float(energy[-1])
        if self._last is not None and self._last.fit is not None and self.subtracted:
            low, high = max(low, self._first_mode(self._last.fit)), high
        left, right = {RANGES[0]: (max(low, 10.0), high), RANGES[1]: (low, min(high, -10.0))}.get(
            self.side, (low, high)
        )
        if left >= right:
            left, right = low, high
        key = (self.side, self.subtracted, round(low), round(high))
        if key != self._viewed:
            self._viewed = key
            self.main.setXRange(left, right, padding=0.01)
        left, right = self.main.vb.viewRange()[0]
        top, bottom = self._heights(energy, counts, drawn, left, right)
        self.main.setYRange(bottom, top, padding=0.0)

    @staticmethod
    def _first_mode(fit: SpectrumFit) -> float:
        centers = [float(fit.energy_loss_mev[int(np.nanargmax(fit.components_e[name]))]) for name in fit.mode_names[:1]
                   if np.isfinite(fit.components_e[name]).any()]  # fmt: skip
        return 0.6 * centers[0] if centers else 15.0

    def _heights(
        self, energy: np.ndarray, counts: np.ndarray, drawn: np.ndarray, left: float, right: float
    ) -> tuple[float, float]:
        """Return the limits of the counts within the energies that are seen, in the plot's own scale."""
        inside = (energy >= left) & (energy <= right) & np.isfinite(counts)
        values = counts[inside] if inside.any() else np.array([0.0, 1.0])
        if self.subtracted and self._last is not None and self._last.fit is not None:
            x = self._last.fit.energy_loss_mev
            seen = drawn[(x >= left) & (x <= right)]
            # The model and what scatters about it set the scale, not the noise left of a steep zero-loss tail.
            spread = 3.0 * float(np.nanmedian(self._last.fit.std_e[(x >= left) & (x <= right)]))
            top = max(float(np.nanmax(seen, initial=0.0)), 0.0) + spread
            return 1.15 * top, -1.2 * spread
        if self.log:
            positive = values[values > 0.0]
            if positive.size == 0:
                return 1.0, -1.0
            return float(np.log10(positive.max())) + 0.15, float(np.log10(max(positive.min(), 0.3))) - 0.2
        clear = values[energy[inside] > 16.0] if (energy[inside] > 16.0).any() and self.side == RANGES[0] else values
        return 1.2 * max(float(clear.max()), 1.0), min(float(clear.min()), 0.0) * 1.1

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


def _edges(centres: np.ndarray) -> np.ndarray:
    """Return the edges of channels from their centres, one more than those."""
    if centres.size < 2:
        return np.array([0.0, 1.0]) if centres.size == 0 else np.array([centres[0] - 0.5, centres[0] + 0.5])
    step = centres[1] - centres[0]
    return np.append(centres - 0.5 * step, centres[-1] + 0.5 * step)
