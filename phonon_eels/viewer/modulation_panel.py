"""The modulation panel: energy against the phase of the superstructure, the gap on top, p-value, period scan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from phonon_eels.errors import DataError
from phonon_eels.figures.marks import Panel as Description
from phonon_eels.figures.marks import Points, label_of
from phonon_eels.figures.phase_panels import amplitude_of, gap_panel, p_text, period_panel, phase_panel, ranked_pairs
from phonon_eels.figures.style import subscripts
from phonon_eels.rounding import plus_minus
from phonon_eels.viewer import regions
from phonon_eels.viewer.linking import Place
from phonon_eels.viewer.notices import guarded, slot, tell
from phonon_eels.viewer.panel import MARK_DELAY_MS, Latest, Panel
from phonon_eels.viewer.plots import PALETTE, Painter, pen, pg, plot, plots, save_as, vertical
from phonon_eels.viewer.sessions import Session

CHOSEN = PALETTE[5]
HEIGHTS = {"gap": 82.0, "energies": 10_000.0, "periods": 124.0}
"""Largest heights in pixels: what room there is belongs to the energies."""
STEP = "measure_modulation"


class ModulationPanel(Panel):
    """Docked at the right."""

    def __init__(self, napari_viewer: Any) -> None:
        """Show the modulation of the scan that is open."""
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self.chosen: int | None = None
        self._phases = self._energies = np.zeros(0)
        self._build()
        self.link = self.follow(
            napari_viewer, self._layers_changed, on_move=Latest(self, MARK_DELAY_MS, self._mark_place).give
        )
        self._layers_changed()

    def _build(self) -> None:
        self.pair = QComboBox()
        self.pair.currentIndexChanged.connect(lambda _: self._draw())
        self.words = QLabel("")
        self.words.setWordWrap(True)
        self.words.setTextFormat(Qt.TextFormat.RichText)
        self.area = plots(self)
        self.gap, self.energies, self.periods = (plot(self.area, row, 0) for row in range(3))
        for row, stretch in enumerate((3, 7, 4)):
            self.area.ci.layout.setRowStretchFactor(row, stretch)
        self.painters = {
            "gap": Painter(self.gap), "energies": Painter(self.energies, title=False), "periods": Painter(self.periods),
        }  # fmt: skip
        self.gap.getAxis("bottom").setStyle(showValues=False)
        self.gap.setXLink(self.energies)
        self.energies.scene().sigMouseClicked.connect(self._plot_clicked)
        self.mark = vertical(self.energies, CHOSEN, "-", 2.0)
        self._highlight = pg.ScatterPlotItem(size=17, brush=None, pen=pen(CHOSEN, 3.0))
        self.energies.addItem(self._highlight, ignoreBounds=True)
        top = QHBoxLayout()
        top.addWidget(QLabel("mode in layer"))
        top.addWidget(self.pair, 1)
        save = QPushButton("save figure …")
        save.clicked.connect(slot(self.save))
        top.addWidget(save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(3)
        layout.addLayout(top)
        layout.addWidget(self.words)
        layout.addWidget(self.area, 1)
        self.setMinimumWidth(330)
        self.opaque = (self.area.viewport(),)

    @guarded
    def _layers_changed(self) -> None:
        session = self.link.session()
        if session is self.session and self.pair.count():
            return
        self._choose(None)
        self.session = session
        bins = None if session is None else session.table(STEP, "phase_bins")
        pairs = [] if bins is None or not len(bins) else ranked_pairs(session.table(STEP, "amplitudes"), bins, 64)  # type: ignore[union-attr]
        blocked = self.pair.blockSignals(True)
        self.pair.clear()
        for mode, layer in pairs:
            self.pair.addItem(f"{mode} in {subscripts(layer)}", (mode, layer))
        self.pair.blockSignals(blocked)
        self._draw()

    @guarded
    def _draw(self) -> None:
        self._choose(None)
        self.mark.setVisible(False)
        session = self.session
        shown = {} if session is None or self.pair.currentData() is None else self.describe(session)
        for name, painter in self.painters.items():
            painter.item.setVisible(name in shown)
            painter.item.setMaximumHeight(HEIGHTS[name] if name in shown else 0.0)
            if name in shown:
                painter.paint(shown[name])
            else:
                painter.clear()
        if not shown or session is None:
            self._phases = self._energies = np.zeros(0)
            result = None if session is None else session.results.get(STEP)
            reason = "run measure_modulation in the panel Analyse" if result is None else result.skipped
            self.words.setText(f"No modulation was measured: {reason or 'no mode has energies by phase'}.")
            return
        points = next(mark for mark in shown["energies"].marks if isinstance(mark, Points))
        self._phases, self._energies = points.x, points.y
        self.words.setText(self._sentence(session, amplitude_of(session.table(STEP, "amplitudes"), *self._pair())))

    def _pair(self) -> tuple[str, str]:
        mode, layer = self.pair.currentData()
        return str(mode), str(layer)

    def describe(self, session: Session) -> dict[str, Description]:
        """Return what the three plots show, as the figures of report and notebooks do."""
        amplitudes, curve = session.table(STEP, "amplitudes"), session.table(STEP, "gap_curve")
        scan = session.table(STEP, "period_scan")
        shown = {"energies": phase_panel(session.table(STEP, "phase_bins"), amplitudes, *self._pair())}
        if curve is not None:
            shown["gap"] = gap_panel(curve, session.table(STEP, "gap"))
        if scan is not None and len(scan):
            wave = session.results.get("map_superstructure")
            found = wave.summary.get("period_nm") if wave is not None else None
            known = found if isinstance(found, Mapping) else {}
            shown["periods"] = period_panel(scan, period_nm=known.get("value"), period_std_nm=known.get("std"))
        return shown

    def _sentence(self, session: Session, row: Mapping[str, Any]) -> str:
        """What stands beside the plots: amplitude, phase, p-value, replication and verdict, and where the gap is from."""
        p_value = float(row.get("p_value", math.nan))
        test = p_text(p_value) if math.isfinite(p_value) else "not testable"
        if row.get("role") == "secondary" and math.isfinite(float(row.get("p_value_holm", math.nan))):
            test += f" (for all secondary tests together: {p_text(float(row['p_value_holm']))})"
        amplitude = plus_minus(row.get("amplitude_mev"), row.get("amplitude_mev_std"), "meV")
        phase = plus_minus(row.get("phase_rad"), row.get("phase_rad_std"), "rad")
        gap = [label_of(mark) for mark in self.painters["gap"].panel.marks if label_of(mark)]
        verdict = session.results[STEP].summary.get("verdict", "")
        return (
            f"amplitude <b>{amplitude}</b>, phase {phase}, <b>{escape(test).replace(' ', '&nbsp;', 2)}</b>, "
            f"{int(row.get('n_units', 0))}&nbsp;planes.<br>"
            + (f"Primary test: <b>{verdict}</b>. " if row.get("role") == "primary" else "")
            + (f"Gap: {escape(', '.join(gap))}. " if gap else "")
            + "Click a point: its positions light up."
        )

    @guarded
    def save(self) -> None:
        """Ask for a file and write the figure that is shown."""
        if not len(self._phases) or self.session is None:
            raise DataError("there is no modulation to save; run measure_modulation in the panel Analyse")
        shown = self.describe(self.session)
        panels = [shown[name] for name in self.painters if name in shown]
        written = save_as(self, panels, f"{self.session.name}_modulation.png")
        if written is not None:
            tell(f"written: {written}")

    # --- links --------------------------------------------------------------------------------------------------

    def _plot_clicked(self, event: Any) -> None:
        view = self.energies.vb
        if not len(self._phases) or not self.energies.sceneBoundingRect().contains(event.scenePos()):
            return
        phase = float(view.mapSceneToView(event.scenePos()).x())
        self.choose_bin(int(np.argmin(np.abs(np.angle(np.exp(1j * (self._phases - phase)))))))

    @guarded
    def choose_bin(self, number: int) -> None:
        """Light up the positions of a phase bin; the same once more takes the light away."""
        self._choose(None if number == self.chosen else number)

    def _choose(self, number: int | None) -> None:
        before, self.chosen = self.chosen, number
        if self.session is None or (number is None and before is None):
            return
        if number is None:
            self._highlight.setData([], [])
            self.link.show_selection(self.session, np.zeros(self.session.shape, bool))
            return
        mask = regions.phase_bin_mask(self.session, self._pair()[1], self._phases.tolist(), number)
        self._highlight.setData([self._phases[number]], [self._energies[number]])
        self.link.show_selection(self.session, mask)

    @guarded
    def _mark_place(self, place: Place) -> None:
        """Mark the phase of the position under the mouse, where it belongs to the layer that is shown."""
        if not self.isVisible() or place.session is not self.session or self.pair.currentData() is None:
            return
        wave = self.session.maps("map_superstructure") if self.session else None
        phase = math.nan if wave is None else float(wave["phase_rad"].values[place.row, place.column])
        inside = bool(regions.layer_mask(place.session, self._pair()[1])[place.row, place.column])
        shown = math.isfinite(phase) and inside
        self.mark.setVisible(shown)
        if shown:
            self.mark.setPos(math.remainder(phase, 2.0 * math.pi))
