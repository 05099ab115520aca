"""Draws the panels that `figures` describes with pyqtgraph, fast enough to follow the mouse; decides nothing of what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtGui import QFont
from qtpy.QtWidgets import QFileDialog

from phonon_eels.errors import OutputError
from phonon_eels.figures.marks import Band, Line, Mark, Panel, Points, Rule, Span, Steps, label_of
from phonon_eels.figures.style import INK, PALETTE
from phonon_eels.viewer.strokes import Dots, Stroke

# pyqtgraph takes the Qt that is there already, the one that napari has chosen.

__all__ = ["INK", "PALETTE", "PICTURES", "Painter", "pen", "pg", "plot", "plots", "save_as", "vertical"]

PICTURES = "Picture (*.png);;Vector graphics (*.svg);;PDF (*.pdf)"
LOOKS = frozenset({"width_pt", "size_pt", "fill", "opacity"})

PIN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FONT_PX = 11
SMALL_PX = 4.0
"""Dots up to this size are drawn as a cloud, unless they are to be darker where they overlap."""
LINE_PX = 15
"""Least distance of two labels above each other."""
ONE_LINE_PX, TWO_LINES_PX, TITLE_LINE_PX = 34, 46, 17
"""Height of the words under a plot: values in one or two lines, and what they are."""


def plots(parent: Any = None) -> Any:
    """Return an empty white area for plots, without menus of its own."""
    area = pg.GraphicsLayoutWidget(parent)
    area.setBackground("w")
    area.ci.layout.setContentsMargins(2, 2, 6, 2)
    area.ci.layout.setSpacing(2)
    return area


def plot(area: Any, row: int, column: int) -> Any:
    """Add a plot to an area; the mouse shifts and zooms it."""
    item = area.addPlot(row, column, enableMenu=False, axisItems={"left": UprightAxis("left")})
    item.hideButtons()
    font = QFont()
    font.setPixelSize(FONT_PX)
    for side in ("bottom", "left"):
        axis = item.getAxis(side)
        axis.setPen(pg.mkPen(INK, width=1))
        axis.setTextPen(INK)
        axis.setTickFont(font)
        axis.enableAutoSIPrefix(False)
        axis.setStyle(tickLength=-4, tickTextOffset=3)
    item.getAxis("left").setWidth(62)
    item.getAxis("left").setStyle(hideOverlappingLabels=True)  # those at an end would touch the plot above or below
    return item


class UprightAxis(pg.AxisItem):  # type: ignore[misc]
    """An axis whose labels never touch, however low the plot is."""

    def tickSpacing(self, low: float, high: float, size: float) -> list[tuple[float, float]]:
        """Return (distance, first) of coarse and finer ticks, those with labels at least a line apart."""
        levels = super().tickSpacing(low, high, size)
        if not levels or not high > low or not size > 0.0:
            return levels
        least = LINE_PX / size * (high - low)
        coarsest, first = levels[0]
        while coarsest < least:
            coarsest *= 2.0
        return [(coarsest, first), *(level for level in levels[1:] if least <= level[0] < coarsest)]


def pen(colour: str, width: float = 1.0, style: str = "-") -> Any:
    """Return a pen; widths up to 1 are drawn fast."""
    kinds = {"-": Qt.PenStyle.SolidLine, "--": Qt.PenStyle.DashLine, ":": Qt.PenStyle.DotLine}
    return pg.mkPen(colour, width=width, style=kinds[style])


def vertical(item: Any, colour: str, style: str = "--", width: float = 1.0) -> Any:
    """Add a hidden vertical line."""
    mark = pg.InfiniteLine(angle=90, pen=pen(colour, width, style))
    mark.setVisible(False)
    item.addItem(mark, ignoreBounds=True)
    return mark


class Painter:
    """Draws panels into one plot; as long as the same marks come, their items are kept and only get new data."""

    def __init__(self, item: Any, *, legend: tuple[float, float] | None = None, title: bool = True) -> None:
        """Draw into a plot that `plot` made.

        Parameters
        ----------
        legend
            Where the legend begins, in pixels from the corner of the plot; None for no legend.
        title
            Whether the title of the panels is shown.
        """
        self.item, self.panel = item, Panel((), "", "", (0.0, 1.0), (0.0, 1.0))
        self._items: list[list[Any]] = []
        self._looks: list[tuple[Any, ...]] = []
        self._shows_title = title
        self._words: tuple[Any, ...] = ()
        self._legend = None
        if legend is not None:
            self._legend = item.addLegend(offset=legend, labelTextColor=INK, labelTextSize="8pt", verSpacing=-4)
        item.disableAutoRange()

    def items(self, mark: Mark) -> list[Any]:
        """Return what draws a mark of the panel that is shown."""
        return self._items[next(k for k, one in enumerate(self.panel.marks) if one is mark)]

    def paint(self, panel: Panel, *, x_limits: bool = True) -> None:
        """Draw a panel; without `x_limits` the energies that are seen stay as they are."""
        self.panel = panel
        looks = [look(mark) for mark in panel.marks]
        if looks != self._looks:
            self._make(panel, looks)
        for mark, items in zip(panel.marks, self._items, strict=True):
            _set_data(mark, items, panel.log_y)
        rules = tuple(mark.label for mark in panel.marks if isinstance(mark, Rule) and mark.label)
        words = (panel.x_label, panel.y_label, panel.title, panel.title_colour, panel.log_y, panel.x_ticks, rules)
        if words != self._words:
            self._words = words
            self._set_words(panel, rules)
        heights = tuple(np.log10(panel.y_limits)) if panel.log_y else panel.y_limits
        seen = self.item.vb.viewRange()
        if x_limits and tuple(seen[0]) != panel.x_limits:
            self.item.setXRange(*panel.x_limits, padding=0.0)
        if tuple(seen[1]) != heights:
            self.item.setYRange(*heights, padding=0.0)

    def clear(self) -> None:
        """Take away what was drawn."""
        self.paint(Panel((), self.panel.x_label, self.panel.y_label, (0.0, 1.0), (0.0, 1.0)))

    def _make(self, panel: Panel, looks: list[tuple[Any, ...]]) -> None:
        for items in self._items:
            for one in items:
                self.item.removeItem(one)
        self._items, self._looks = [_items_of(mark) for mark in panel.marks], looks
        for depth, (mark, items) in enumerate(zip(panel.marks, self._items, strict=True)):
            for one in items:
                one.setZValue(depth - 100)
                self.item.addItem(one, ignoreBounds=True)
            if self._legend is not None and label_of(mark) and not isinstance(mark, Rule):
                self._legend.addItem(items[-1], label_of(mark))
        if self._legend is not None:
            self._legend.setColumnCount(panel.legend_columns)

    def _set_words(self, panel: Panel, rules: Sequence[str]) -> None:
        for side, words in (("bottom", panel.x_label), ("left", panel.y_label)):
            axis = self.item.getAxis(side)
            if words and axis.style["showValues"]:
                axis.setLabel(words, color=INK, **{"font-size": f"{FONT_PX}px"})
        bottom = self.item.getAxis("bottom")
        if bottom.style["showValues"]:
            bottom.setHeight(TWO_LINES_PX if any("\n" in word for _, word in panel.x_ticks) else ONE_LINE_PX)
        self.item.getAxis("left").setLogMode(False, panel.log_y)
        self.item.getAxis("bottom").setTicks([list(panel.x_ticks)] if panel.x_ticks else None)
        title = "\n".join([part for part in (panel.title, *rules) if part]) if self._shows_title else ""
        if title:
            self.item.setTitle(escape(title).replace("\n", "<br>"), color=panel.title_colour, size="8pt")
            height = TITLE_LINE_PX * (1 + title.count("\n"))
            self.item.titleLabel.setMaximumHeight(height)
            self.item.layout.setRowFixedHeight(0, height)
        else:
            self.item.setTitle(None)


def look(mark: Mark) -> tuple[Any, ...]:
    """Return all of a mark that is not its data."""
    values = ((field.name, getattr(mark, field.name)) for field in fields(mark))
    barred = isinstance(mark, Points) and mark.std is not None
    return (type(mark), barred, *(pair for pair in values if isinstance(pair[1], str) or pair[0] in LOOKS))


def _items_of(mark: Mark) -> list[Any]:
    """Return items without data that look as a mark does; the one that stands for it in the legend last."""
    match mark:
        case Line():
            fill = _shade(mark.colour, mark.fill) if mark.fill else None
            return [Stroke(pen(mark.colour, _px(mark.width_pt), mark.dash), fill=fill)]
        case Steps():
            return [Stroke(pen(mark.colour), fill=_shade(mark.colour, mark.fill) if mark.fill else None)]
        case Points():
            size, brush = 1.7 * mark.size_pt, _shade(mark.colour, mark.opacity)
            small = size <= SMALL_PX and mark.opacity == 1.0
            dots = Dots(brush, size) if small else pg.ScatterPlotItem(size=size, brush=brush, pen=None)
            return [Stroke(pen(mark.colour), pairs=True), dots] if mark.std is not None else [dots]
        case Band():
            edges = pg.PlotCurveItem(pen=None), pg.PlotCurveItem(pen=None)
            return [*edges, pg.FillBetweenItem(*edges, brush=_shade(mark.colour, mark.opacity))]
        case Rule():
            angle = 90 if mark.axis == "x" else 0
            return [pg.InfiniteLine(angle=angle, pen=pen(mark.colour, _px(mark.width_pt), mark.dash))]
        case Span():
            upright = "vertical" if mark.axis == "x" else "horizontal"
            shade = _shade(mark.colour, mark.opacity)
            return [pg.LinearRegionItem(orientation=upright, movable=False, brush=shade, pen=pg.mkPen(None))]


def _set_data(mark: Mark, items: list[Any], log: bool) -> None:
    match mark:
        case Line():
            items[0].setData(mark.x, _value(mark.y, log))
        case Steps():
            items[0].setData(mark.edges, np.nan_to_num(mark.heights))
        case Points():
            y = _value(mark.y, log)
            known = np.isfinite(y)
            items[-1].setData(mark.x[known], y[known])
            if mark.std is not None:
                known &= np.isfinite(mark.std)
                ends = np.stack([mark.y - mark.std, mark.y + mark.std], axis=1)[known].ravel()
                items[0].setData(np.repeat(mark.x[known], 2), _value(ends, log))
        case Band():
            for item, values in zip(items, (mark.low, mark.high), strict=False):
                item.setData(mark.x, _value(values, log))
        case Rule():
            items[0].setValue(mark.at)
        case Span():
            items[0].setRegion((mark.low, mark.high))


def _value(values: np.ndarray, log: bool) -> np.ndarray:
    """Return values as the plot counts them: logarithms where its axis is logarithmic."""
    if not log:
        return values
    return np.log10(values, where=values > 0.0, out=np.full(values.shape, np.nan))


def _px(width_pt: float) -> float:
    """Return a width of paper as one of the screen; up to 1 pixel is drawn fast."""
    return 1.0 if width_pt < 0.85 else 1.5 * width_pt


def _shade(colour: str, opacity: float) -> Any:
    return pg.mkBrush(f"{colour}{round(255 * opacity):02x}")


def save_as(parent: Any, panels: Sequence[Panel], name: str) -> Path | None:
    """Ask for a file and write panels as the figure that they describe; None where the user changed their mind."""
    from phonon_eels.figures import plot_panels, save_figure

    path, _ = QFileDialog.getSaveFileName(parent, "Save the figure", name, PICTURES)
    if not path:
        return None
    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{path}: the ending says the format; use one of .png, .svg, .pdf")
    try:
        save_figure(plot_panels(panels), Path(path))
    except OSError as problem:
        raise OutputError(f"{path} cannot be written ({problem}); choose another folder") from problem
    return Path(path)
