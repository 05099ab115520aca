"""Histograms by layer of the crystal, and any map against any other; what is chosen there lights up in the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from phonon_eels.errors import DataError
from phonon_eels.figures.distributions import EVERYWHERE, histogram_panel, scatter_panel
from phonon_eels.figures.marks import Panel as Description
from phonon_eels.figures.style import robust_limits
from phonon_eels.viewer import regions
from phonon_eels.viewer.background import later
from phonon_eels.viewer.layers import maps_of
from phonon_eels.viewer.linking import Place
from phonon_eels.viewer.notices import guarded, slot, tell
from phonon_eels.viewer.panel import MARK_DELAY_MS, Latest, Panel
from phonon_eels.viewer.plots import INK, Painter, pen, pg, plot, plots, save_as
from phonon_eels.viewer.sessions import Session

SELECT_DELAY_MS = 60


class DistributionsPanel(Panel):
    """Docked at the right."""

    def __init__(self, napari_viewer: Any) -> None:
        """Offer the maps of the scan that is open."""
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self._user_chose = False
        self._maps: dict[str, np.ndarray] = {}
        self._x = self._y = np.zeros((0, 0))
        self._build()
        self.link = self.follow(
            napari_viewer, self._layers_changed, on_move=Latest(self, MARK_DELAY_MS, self._mark_place).give
        )
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
        self.histogram, self.scatter = plot(self.area, 0, 0), plot(self.area, 1, 0)
        self.painters = (Painter(self.histogram, legend=(4, 1)), Painter(self.scatter))
        self.span = pg.LinearRegionItem(brush=(230, 159, 0, 50), pen=pen("#B87800"))
        self.box = pg.RectROI((0, 0), (1, 1), pen=pen("#B87800", 2.0), rotatable=False)
        self._here = pg.ScatterPlotItem(size=13, brush=None, pen=pen(INK, 2.0))
        for item, tool in ((self.histogram, self.span), (self.scatter, self.box), (self.scatter, self._here)):
            item.addItem(tool, ignoreBounds=True)
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
        buttons = QHBoxLayout()
        save = QPushButton("save figure …")
        save.clicked.connect(slot(self.save))
        for button in (self.clear, save):
            buttons.addWidget(button)
        layout.addLayout(buttons)
        self.setMinimumWidth(330)
        self.opaque = (self.area.viewport(),)

    @guarded
    def _layers_changed(self) -> None:
        session = self.link.session()
        if session is self.session:
            return
        self.clear_selection()
        self.session = session
        self._maps = {} if session is None else maps_of(session)
        names = list(reversed(self._maps))
        for box, preferred in ((self.map_x, "energy (meV)"), (self.map_y, "area (e⁻)")):
            blocked = box.blockSignals(True)
            kept = box.currentText()
            box.clear()
            box.addItems(names)
            first = next((name for name in names if name.endswith(preferred)), names[0] if names else "")
            box.setCurrentText(kept if kept in names and self._user_chose else first)
            box.blockSignals(blocked)
        self._draw()

    def _groups(self, session: Session) -> dict[str, np.ndarray]:
        names = regions.layer_names(session) if self.by_layer.isChecked() else []
        if not names:
            return {EVERYWHERE: np.ones(session.shape, bool)}
        return {name: regions.layer_mask(session, name) for name in names}

    def describe(self) -> tuple[Description, Description] | None:
        """Return what the two plots show, as `figures.plot_distributions` does; None where there is no map."""
        session, x, y = self.session, self._maps.get(self.map_x.currentText()), self._maps.get(self.map_y.currentText())
        if session is None or x is None or y is None:
            return None
        groups = self._groups(session)
        labels = self.map_x.currentText(), self.map_y.currentText()
        return histogram_panel(x, groups, labels[0]), scatter_panel(x, y, groups, *labels)

    @guarded
    def _draw(self) -> None:
        self.clear_selection()
        self._here.setData([], [])
        described = self.describe()
        for tool in (self.span, self.box, self.area):
            tool.setVisible(described is not None)
        if described is None:
            self.words.setText("No maps yet: open a results folder, or run steps in the panel Analyse.")
            return
        for painter, panel in zip(self.painters, described, strict=True):
            painter.paint(panel)
        x = self._x = self._maps[self.map_x.currentText()]
        self._y = self._maps[self.map_y.currentText()]
        self._place_tools(*described)
        low, high = robust_limits(x, 0.5, 99.5)
        outside, shown = np.count_nonzero((x < low) | (x > high)), np.count_nonzero(np.isfinite(x))
        self.words.setText(
            f"{shown} of {x.size} positions have a value; {outside} lie beyond the histogram. Drag the span or the box: "
            f"what is inside lights up."
        )

    def _place_tools(self, histogram: Description, scatter: Description) -> None:
        """Put span and box at the edge of the plots, holding nothing yet."""
        (x0, x1), (y0, y1) = scatter.x_limits, scatter.y_limits
        end = histogram.x_limits[1]
        width = end - histogram.x_limits[0]
        self._by = "placing"
        self.span.setRegion((end - 0.05 * width, end - 0.01 * width))
        self.box.setPos((x1 - 0.08 * (x1 - x0), y0 + 0.02 * (y1 - y0)))
        self.box.setSize((0.07 * (x1 - x0), 0.15 * (y1 - y0)))
        self._by = ""

    @guarded
    def save(self) -> None:
        """Ask for a file and write the figure that is shown."""
        described = self.describe()
        if described is None or self.session is None:
            raise DataError("there is no map to save; open a results folder, or run steps in the panel Analyse")
        written = save_as(self, described, f"{self.session.name}_distributions.png")
        if written is not None:
            tell(f"written: {written}")

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

    @guarded
    def _mark_place(self, place: Place) -> None:
        """Ring the point of the position under the mouse."""
        if not self.isVisible() or place.session is not self.session or not self._maps:
            return
        values = self._x[place.row, place.column], self._y[place.row, place.column]
        known = all(np.isfinite(values))
        self._here.setData([values[0]] if known else [], [values[1]] if known else [])
