"""Curves and small dots of a plot that is redrawn with every move of the mouse: drawn by the fast paths of Qt, nothing else redrawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QImage, QPainter, QPainterPath, QPen, QPolygonF, QTransform, qRgba

OVERSAMPLING = 8


class _InView:
    """What is drawn within the axes and as large as they are: new data is no new geometry, and leaves the axes alone.

    pyqtgraph's own items look for the bounds of their data and of their pens with each new data, and have all that they touch
    painted again, axes included; with nine curves that takes longer than painting them.
    """

    def boundingRect(self) -> QRectF:
        """Return what is seen of the plot."""
        seen = self.viewRect()  # type: ignore[attr-defined]
        return QRectF() if seen is None else seen

    def shape(self) -> QPainterPath:
        """Return nothing: the mouse is for the plot below."""
        return QPainterPath()

    def viewTransformChanged(self) -> None:
        """Follow the axes."""
        self.prepareGeometryChange()  # type: ignore[attr-defined]
        pg.GraphicsObject.viewTransformChanged(self)

    def dataBounds(self, ax: int, frac: float = 1.0, orthoRange: Any = None) -> tuple[None, None]:
        """Return nothing: the ends of the axes are given."""
        return None, None

    def pixelPadding(self) -> float:
        """Return what is drawn beyond the data."""
        return 0.0


class Stroke(_InView, pg.PlotCurveItem):  # type: ignore[misc]
    """A curve, with gaps at values that are not finite, in pens of whole pixels; filled down to zero where it has a brush."""

    def __init__(self, look: QPen, *, fill: Any = None, pairs: bool = False) -> None:
        """Begin without data.

        Parameters
        ----------
        look
            Pen; above a width of 1.25 pixels two are drawn.
        fill
            Brush, None for none.
        pairs
            Whether every two points are a line of their own.
        """
        self._drawn: tuple[list[QPolygonF], list[QPolygonF], QPainterPath] | None = None
        self._bold = look.widthF() > 1.25
        look = QPen(look)
        look.setWidthF(1.0)  # Qt draws no other width fast; a bold line is drawn twice
        look.setCosmetic(True)
        super().__init__(pen=look)
        self._fill, self._pairs = fill, pairs

    def setData(self, *args: Any, **options: Any) -> None:
        """Take (x, y), both (n,); or edges (n + 1,) and heights (n,) of steps."""
        if options:
            super().setData(*args, **options)
            return
        self.xData, self.yData = args
        self._drawn = None
        self.update()

    def paint(self, painter: QPainter, option: Any, widget: Any) -> None:
        """Draw."""
        if self._drawn is None:
            self._drawn = self._make()
        lines, areas, bars = self._drawn
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        if areas:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self._fill)
            for area in areas:
                painter.drawPolygon(area)
        painter.setPen(self.opts["pen"])
        painter.setBrush(Qt.BrushStyle.NoBrush)
        where = painter.worldTransform()
        for pixel in (0.0, 1.0) if self._bold else (0.0,):
            painter.setWorldTransform(where * QTransform.fromTranslate(0.0, pixel))
            for line in lines:
                painter.drawPolyline(line)
            painter.drawPath(bars)
        painter.setWorldTransform(where)

    def _make(self) -> tuple[list[QPolygonF], list[QPolygonF], QPainterPath]:
        if self._pairs:
            return [], [], pg.functions.arrayToQPath(self.xData, self.yData, connect="pairs")
        found = pieces(self.xData, self.yData)
        polygon = pg.functions.arrayToQPolygonF
        filled = found if self._fill is not None else []
        areas = [polygon(np.r_[x, x[-1], x[0]], np.r_[y, 0.0, 0.0]) for x, y in filled]
        return [polygon(x, y) for x, y in found], areas, QPainterPath()


class Dots(_InView, pg.GraphicsObject):  # type: ignore[misc]
    """Many small round dots of one colour, put into a picture of the plot all at once."""

    def __init__(self, brush: Any, size_px: float) -> None:
        """Begin without data; the brush says colour and opacity, the size is the diameter."""
        super().__init__()
        self.opts = {"brush": brush, "size": size_px}
        self._x = self._y = np.zeros(0)
        shade = brush.color()
        self._shades = [
            qRgba(shade.red(), shade.green(), shade.blue(), round(shade.alpha() * k / 255)) for k in range(256)
        ]

    def setData(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take (n,) x and y."""
        self._x, self._y = x, y
        self.update()

    def getData(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y."""
        return self._x, self._y

    def paint(self, painter: QPainter, option: Any, widget: Any) -> None:
        """Draw."""
        where = painter.worldTransform()
        device = painter.device()
        ratio = device.devicePixelRatioF() if device is not None else 1.0
        frame = where.mapRect(self.boundingRect()).toAlignedRect()
        shape = (round(frame.height() * ratio), round(frame.width() * ratio))
        if not (min(shape) > 0 and self._x.size):
            return
        columns = (where.m11() * self._x + where.dx() - frame.left()) * ratio
        rows = (where.m22() * self._y + where.dy() - frame.top()) * ratio
        covered = dots(shape, rows, columns, self.opts["size"] * ratio)
        pixels = np.rint(255.0 * covered).astype(np.uint8).tobytes()
        image = QImage(pixels, shape[1], shape[0], shape[1], QImage.Format.Format_Indexed8)
        image.setColorTable(self._shades)
        image.setDevicePixelRatio(ratio)
        painter.setWorldTransform(QTransform())
        painter.drawImage(frame.topLeft(), image)
        painter.setWorldTransform(where)


def dots(shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray, size_px: float) -> np.ndarray:
    """Return how much of every pixel is covered by dots about (n,) places, (rows, columns) of `shape`, 0 to 1.

    A dot is centred on the pixel that it lies in; of overlapping dots the one that covers more counts.
    """
    reach = int(np.ceil(size_px / 2.0))
    inside = np.abs(columns - shape[1] / 2.0) < shape[1]  # whole numbers of what lies far beyond would overflow
    inside &= np.abs(rows - shape[0] / 2.0) < shape[0]
    row, column = (np.floor(v[inside]).astype(int) + reach for v in (rows, columns))
    kept = (row >= 0) & (column >= 0) & (row < shape[0] + 2 * reach) & (column < shape[1] + 2 * reach)
    row, column = row[kept] + reach, column[kept] + reach
    covered = np.zeros((shape[0] + 4 * reach, shape[1] + 4 * reach), np.float32)
    stamp = disc(size_px, reach)
    for dr, dc in sorted(np.argwhere(stamp > 0.0), key=lambda at: stamp[tuple(at)]):  # what covers more comes later
        covered[row + dr - reach, column + dc - reach] = stamp[dr, dc]
    return covered[2 * reach : -2 * reach, 2 * reach : -2 * reach]


def disc(size_px: float, reach: int) -> np.ndarray:
    """Return how much a disc about the centre covers of each of (2 reach + 1)² pixels."""
    fine = (np.arange((2 * reach + 1) * OVERSAMPLING) + 0.5) / OVERSAMPLING - reach - 0.5
    inside = np.hypot(fine[:, None], fine) <= size_px / 2.0
    n = 2 * reach + 1
    return np.asarray(inside.reshape(n, OVERSAMPLING, n, OVERSAMPLING).mean(axis=(1, 3)))


def pieces(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pieces of a curve between values that are not finite.

    Parameters
    ----------
    x, y
        (n,) each, or edges (n + 1,) and heights (n,) of steps.
    """
    if x.size == y.size + 1:
        x, y = np.repeat(x, 2)[1:-1], np.repeat(y, 2)
    known = np.concatenate([[False], np.isfinite(x) & np.isfinite(y), [False]])
    ends = np.flatnonzero(known[1:] != known[:-1]).reshape(-1, 2)
    return [(x[first:last], y[first:last]) for first, last in ends]
