"""What the plots of all panels share: white paper, our palette, axes with units, and a line that is cheap to move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QFont

from phonon_eels.figures.style import INK, MUTED, PALETTE

# pyqtgraph takes the Qt that is there already, the one that napari has chosen.

__all__ = ["INK", "MUTED", "PALETTE", "error_bars", "line", "pen", "pg", "plot", "plots", "pretty", "vertical"]

PIN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FONT_PX = 11


def plots(parent: Any = None) -> Any:
    """Return an empty white area for plots, without menus of its own."""
    area = pg.GraphicsLayoutWidget(parent)
    area.setBackground("w")
    area.ci.layout.setContentsMargins(2, 2, 6, 2)
    area.ci.layout.setSpacing(2)
    return area


def plot(area: Any, row: int, column: int, *, x: str = "", y: str = "", x_unit: str = "", y_unit: str = "") -> Any:
    """Add a plot with labelled axes to an area; the mouse shifts and zooms it, a double click shows all."""
    item = area.addPlot(row, column, enableMenu=False)
    item.hideButtons()
    font = QFont()
    font.setPixelSize(FONT_PX)
    for side, words, unit in (("bottom", x, x_unit), ("left", y, y_unit)):
        axis = item.getAxis(side)
        axis.setPen(pg.mkPen(INK, width=1))
        axis.setTextPen(INK)
        axis.setTickFont(font)
        axis.enableAutoSIPrefix(False)
        axis.setStyle(tickLength=-4, tickTextOffset=3)
        label = f"{words} ({unit})" if unit else words
        if label:
            axis.setLabel(label, color=INK, **{"font-size": f"{FONT_PX}px"})
    item.getAxis("left").setWidth(62)
    return item


def pen(colour: str, width: float = 1.0, style: str = "-") -> Any:
    """Return a pen; widths up to 1 are drawn fast."""
    kinds = {"-": Qt.PenStyle.SolidLine, "--": Qt.PenStyle.DashLine, ":": Qt.PenStyle.DotLine}
    return pg.mkPen(colour, width=width, style=kinds[style])


def line(item: Any, colour: str, width: float = 1.0, style: str = "-", **more: Any) -> Any:
    """Add a curve without data to a plot; gaps at NaN."""
    curve = pg.PlotDataItem(pen=pen(colour, width, style), connect="finite", skipFiniteCheck=False, **more)
    item.addItem(curve)
    return curve


def error_bars(item: Any, x: np.ndarray, y: np.ndarray, std: np.ndarray, colour: str = INK) -> Any:
    """Add error bars; where there is no deviation, none is drawn."""
    bars = pg.ErrorBarItem(x=x, y=y, height=2.0 * np.nan_to_num(std), beam=0.0, pen=pen(colour))
    item.addItem(bars)
    return bars


def vertical(item: Any, colour: str, style: str = "--", width: float = 1.0) -> Any:
    """Add a hidden vertical line."""
    mark = pg.InfiniteLine(angle=90, pen=pen(colour, width, style))
    mark.setVisible(False)
    item.addItem(mark, ignoreBounds=True)
    return mark


def pretty(name: str) -> str:
    """Return a layer's name with chemical subscripts."""
    from phonon_eels.figures.style import layer_text

    return layer_text(name).replace("\\$", "$")
