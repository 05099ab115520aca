"""Histograms by layer of the crystal, and any map against any other; what is chosen there lights up in the image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QPushButton, QVBoxLayout

from phonon_eels.figures.style import layer_colours, robust_limits
from phonon_eels.viewer import regions
from phonon_eels.viewer.background import later
from phonon_eels.viewer.layers import KEY
from phonon_eels.viewer.linking import LAYERS_DELAY_MS, Place, ViewerLink
from phonon_eels.viewer.notices import guarded, slot
from phonon_eels.viewer.panel import Panel
from phonon_eels.viewer.plots import INK, PALETTE, pen, pg, plot, plots, pretty
from phonon_eels.viewer.sessions import Session

BINS = 40
SELECT_DELAY_MS = 60
MOST_POINTS = 20_000


class DistributionsPanel(Panel):
    """Docked at the right."""

    def __init__(self, napari_viewer: Any) -> None:
        """Offer the maps of the scan that is open."""
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self._user_chose = False
        self._build()
        layers = later(self, LAYERS_DELAY_MS, self._layers_changed)
        self.link = ViewerLink(napari_viewer, on_move=self._moved, on_layers=layers.start)
        self.destroyed.connect(self.link.close)
        self._timer = later(self, SELECT_DELAY_MS, self._select)
        self._layers_changed()

    def _build(self) -> None:
        self.map_x, self.map_y = QComboBox(), QComboBox()
        for box in (self.map_x, self.map_y):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(18)
            box.currentIndexChanged.connect(lambda _: self._draw())
            box.activated.connect(lambda _: setattr(self, "_user_chose", True))
        self.by_layer = QCheckBox("by layer of the crystal")
        self.by_layer.setChecked(True)
        self.by_layer.toggled.connect(lambda _: self._draw())
        self.clear = QPushButton("clear selection")
        self.clear.clicked.connect(slot(self.clear_selection))
        self.words = QLabel("")
        self.words.setWordWrap(True)
        self.area = plots(self)
        self.histogram = plot(self.area, 0, 0, y="positions")
        self.scatter = plot(self.area, 1, 0)
        self.legend = self.histogram.addLegend(offset=(4, 1), colCount=5, labelTextColor=INK, labelTextSize="8pt")
        self.span = pg.LinearRegionItem(brush=(230, 159, 0, 50), pen=pen("#B87800"))
        self.box = pg.RectROI((0, 0), (1, 1), pen=pen("#B87800", 2.0), rotatable=False)
        self.span.sigRegionChanged.connect(lambda *_: self._chosen_by("span"))
        self.box.sigRegionChanged.connect(lambda *_: self._chosen_by("box"))
        self._by = ""
        grid = QGridLayout()
        for row, (word, widget) in enumerate((("map", self.map_x), ("against", self.map_y))):
            grid.addWidget(QLabel(word), row, 0)
            grid.addWidget(widget, row, 1)
        grid.setColumnStretch(1, 1)
        grid.addWidget(self.by_layer, 2, 0, 1, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(3)
        layout.addLayout(grid)
        layout.addWidget(self.area, 1)
        layout.addWidget(self.words)
        layout.addWidget(self.clear)
        self.setMinimumWidth(330)

    def _maps(self) -> dict[str, Any]:
        """Return the image layers of the scan, by name."""
        found = {}
        for layer in self.viewer.layers:
            entry = getattr(layer, "metadata", {}).get(KEY)
            if (
                entry
                and entry["session"] is self.session
                and type(layer).__name__ == "Image"
                and entry["step"] != "window"
            ):
                found[layer.name] = layer
        return found

    @guarded
    def _layers_changed(self) -> None:
        session = self.link.session()
        self.session = session
        names = list(reversed(self._maps()))
        if names == [self.map_x.itemText(k) for k in range(self.map_x.count())]:
            return
        wanted = []
        for box, preferred in ((self.map_x, "energy (meV)"), (self.map_y, "area (e⁻)")):
            blocked = box.blockSignals(True)
            kept = box.currentText()
            box.clear()
            box.addItems(names)
            first = next((name for name in names if name.endswith(preferred)), names[0] if names else "")
            wanted.append(kept if kept in names and self._user_chose else first)
            box.setCurrentText(wanted[-1])
            box.blockSignals(blocked)
        self._draw()

    def _values(self, box: QComboBox) -> np.ndarray | None:
        layer = self._maps().get(box.currentText())
        return None if layer is None else np.asarray(layer.data, dtype=float)

    def _groups(self, session: Session) -> dict[str, tuple[str, np.ndarray]]:
        """Return name → (colour, mask) of what is drawn apart."""
        names = regions.layer_names(session) if self.by_layer.isChecked() else []
        if not names:
            return {"all positions": (PALETTE[0], np.ones(session.shape, bool))}
        colours = layer_colours(names)
        return {name: (colours[name], regions.layer_mask(session, name)) for name in names}

    @guarded
    def _draw(self) -> None:
        self.histogram.clear()
        self.scatter.clear()
        self.legend.clear()
        session, x, y = self.session, self._values(self.map_x), self._values(self.map_y)
        self.clear_selection()
        if session is None or x is None or y is None or x.shape != session.shape:
            self.words.setText("No maps yet: open a results folder, or run steps in the panel Analyse.")
            return
        self._x, self._y = x, y
        limits = [robust_limits(values, 0.5, 99.5) for values in (x, y)]
        edges = np.linspace(*limits[0], BINS + 1)
        groups = self._groups(session)
        self._highest = 0.0
        for name, (colour, mask) in groups.items():
            counts, _ = np.histogram(x[mask & np.isfinite(x)], edges)
            self._highest = max(self._highest, float(counts.max()))
            curve = pg.PlotDataItem(edges, counts, stepMode="center", pen=pen(colour, 1.5))
            self.histogram.addItem(curve)
            self.legend.addItem(curve, pretty(name))
        self._draw_points(groups, x, y)
        self._place_tools(limits)
        outside = int(np.count_nonzero(np.isfinite(x) & ((x < limits[0][0]) | (x > limits[0][1]))))
        shown = int(np.count_nonzero(np.isfinite(x)))
        self.words.setText(
            f"{shown} of {x.size} positions have a value; {outside} lie beyond the histogram. Drag the span or the box: "
            f"what is inside lights up."
        )

    def _draw_points(self, groups: dict[str, tuple[str, np.ndarray]], x: np.ndarray, y: np.ndarray) -> None:
        every = max(math.ceil(x.size / MOST_POINTS), 1)
        some = np.zeros(x.size, bool)
        some[::every] = True
        some = some.reshape(x.shape) & np.isfinite(x) & np.isfinite(y)
        for colour, mask in groups.values():
            here = mask & some
            self.scatter.addItem(
                pg.ScatterPlotItem(x[here], y[here], size=3, pen=None, brush=pg.mkBrush(colour + "90"))
            )
        if every > 1:
            self.scatter.setTitle(f"every {every}th position", color=INK, size="8pt")
        self._here = pg.ScatterPlotItem(size=13, brush=None, pen=pen(INK, 2.0))
        self.scatter.addItem(self._here)
        self.histogram.setLabel("bottom", self.map_x.currentText(), color=INK, **{"font-size": "11px"})
        self.scatter.setLabel("bottom", self.map_x.currentText(), color=INK, **{"font-size": "11px"})
        self.scatter.setLabel("left", self.map_y.currentText(), color=INK, **{"font-size": "11px"})

    def _place_tools(self, limits: list[tuple[float, float]]) -> None:
        """Put span and box at the edge of the plots, holding nothing yet."""
        (x0, x1), (y0, y1) = limits
        self._by = "placing"
        self.span.setRegion((x1 + 0.02 * (x1 - x0), x1 + 0.06 * (x1 - x0)))
        self.box.setPos((x1 + 0.02 * (x1 - x0), y0))
        self.box.setSize((0.08 * (x1 - x0), 0.15 * (y1 - y0)))
        self._by = ""
        self.histogram.addItem(self.span)
        self.scatter.addItem(self.box)
        self.histogram.setXRange(x0, x1 + 0.07 * (x1 - x0), padding=0.02)
        self.histogram.setYRange(0.0, 1.5 * max(self._highest, 1.0), padding=0.0)  # room for the legend
        self.scatter.setXRange(x0, x1 + 0.11 * (x1 - x0), padding=0.02)
        self.scatter.setYRange(y0, y1, padding=0.04)

    # --- links --------------------------------------------------------------------------------------------------

    def _chosen_by(self, tool: str) -> None:
        if self._by != "placing":
            self._by = tool
            self._timer.start()

    def selected(self) -> np.ndarray:
        """Return the positions within the span or the box, whichever was dragged last, (rows, columns) of bool."""
        if self.session is None or self._by not in ("span", "box"):
            return np.zeros(self.session.shape if self.session else (0, 0), bool)
        if self._by == "span":
            low, high = self.span.getRegion()
            return np.asarray((self._x >= low) & (self._x <= high))
        corner, size = self.box.pos(), self.box.size()
        inside = (self._x >= corner.x()) & (self._x <= corner.x() + size.x())
        return np.asarray(inside & (self._y >= corner.y()) & (self._y <= corner.y() + size.y()))

    @guarded
    def _select(self) -> None:
        if self.session is not None:
            self.link.show_selection(self.session, self.selected())

    @guarded
    def clear_selection(self) -> None:
        """Take the light away."""
        self._by = ""
        if self.session is not None:
            self.link.show_selection(self.session, np.zeros(self.session.shape, bool))

    def _moved(self, place: Place) -> None:
        """Ring the point of the position under the mouse."""
        if not self.isVisible() or place.session is not self.session or not hasattr(self, "_here"):
            return
        values = self._x[place.row, place.column], self._y[place.row, place.column]
        known = all(np.isfinite(values))
        self._here.setData([values[0]] if known else [], [values[1]] if known else [])
