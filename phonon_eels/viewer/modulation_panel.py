"""The modulation panel: energy against the phase of the superstructure, the gap on top, p-value, period scan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout

from phonon_eels.figures.modulation import amplitude_of, p_text, ranked_pairs
from phonon_eels.steps.report_numbers import plus_minus
from phonon_eels.viewer import regions
from phonon_eels.viewer.background import later
from phonon_eels.viewer.linking import LAYERS_DELAY_MS, Place, ViewerLink
from phonon_eels.viewer.notices import guarded
from phonon_eels.viewer.panel import Panel
from phonon_eels.viewer.plots import INK, PALETTE, error_bars, line, pen, pg, plot, plots, pretty, vertical
from phonon_eels.viewer.sessions import Session

GAP_COLOUR = PALETTE[2]
CHOSEN = PALETTE[5]
UNLIMITED = 10_000.0
TICKS = [[(-np.pi, "−π"), (-np.pi / 2, "−π/2"), (0.0, "0 (crest)"), (np.pi / 2, "π/2"), (np.pi, "π")]]
STEP = "measure_modulation"
GAP_COLUMNS = ("phase_rad", "gap_mev", "gap_std_mev")


class ModulationPanel(Panel):
    """Docked at the right."""

    def __init__(self, napari_viewer: Any) -> None:
        """Show the modulation of the scan that is open."""
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self.chosen: int | None = None
        self._phases = np.zeros(0)
        self._build()
        layers = later(self, LAYERS_DELAY_MS, self._layers_changed)
        self.link = ViewerLink(napari_viewer, on_move=self._moved, on_layers=layers.start)
        self.destroyed.connect(self.link.close)
        self._layers_changed()

    def _build(self) -> None:
        self.pair = QComboBox()
        self.pair.currentIndexChanged.connect(lambda _: self._draw())
        self.words = QLabel("")
        self.words.setWordWrap(True)
        self.words.setTextFormat(Qt.TextFormat.RichText)
        self.area = plots(self)
        self.gap = plot(self.area, 0, 0, y="Δ", y_unit="meV")
        self.energies = plot(self.area, 1, 0, x="phase of the superstructure", x_unit="rad", y="E", y_unit="meV")
        self.periods = plot(self.area, 2, 0, x="assumed period", x_unit="nm", y="statistic")
        for row, stretch in enumerate((2, 5, 3)):
            self.area.ci.layout.setRowStretchFactor(row, stretch)
        self.gap.setXLink(self.energies)
        self.gap.getAxis("bottom").setStyle(showValues=False)
        self.energies.getAxis("bottom").setTicks(TICKS)
        self.energies.scene().sigMouseClicked.connect(self._plot_clicked)
        top = QHBoxLayout()
        top.addWidget(QLabel("mode in layer"))
        top.addWidget(self.pair, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(3)
        layout.addLayout(top)
        layout.addWidget(self.words)
        layout.addWidget(self.area, 1)
        hint = QLabel("Click a point: its positions light up; click again: they go out.")
        hint.setWordWrap(True)
        layout.addWidget(hint)
        self.setMinimumWidth(330)

    @guarded
    def _layers_changed(self) -> None:
        session = self.link.session()
        if session is self.session and self.pair.count():
            return
        self.session = session
        bins = None if session is None else session.table(STEP, "phase_bins")
        pairs = [] if bins is None or not len(bins) else ranked_pairs(session.table(STEP, "amplitudes"), bins, 64)  # type: ignore[union-attr]
        blocked = self.pair.blockSignals(True)
        self.pair.clear()
        for mode, layer in pairs:
            self.pair.addItem(f"{mode} in {pretty(layer)}", (mode, layer))
        self.pair.blockSignals(blocked)
        self.chosen = None
        self._draw()

    @guarded
    def _draw(self) -> None:
        for item in (self.gap, self.energies, self.periods):
            item.clear()
        self.mark = vertical(self.energies, CHOSEN, "-", 2.0)
        self._highlight = pg.ScatterPlotItem(size=17, brush=None, pen=pen(CHOSEN, 3.0))
        self.energies.addItem(self._highlight)
        self._choose(None)
        session = self.session
        if session is None or self.pair.currentData() is None:
            self._phases = np.zeros(0)
            result = None if session is None else session.results.get(STEP)
            reason = "run measure_modulation in the panel Analyse" if result is None else result.skipped
            self.words.setText(f"No modulation was measured: {reason or 'no mode has energies by phase'}.")
            return
        mode, layer = self.pair.currentData()
        bins = session.table(STEP, "phase_bins")
        part = bins[(bins["mode"] == mode) & (bins["layer"] == layer)]
        phase = np.angle(np.exp(1j * part["phase_rad"].to_numpy(float)))
        energy, std = (part[name].to_numpy(float) for name in ("energy_mev", "energy_mev_std"))
        self._phases, self._energies = phase, energy
        row = amplitude_of(session.table(STEP, "amplitudes"), mode, layer)
        self._draw_energies(row, phase, energy, std)
        self._draw_gap(session)
        self._draw_periods(session)
        self.words.setText(self._sentence(session, row))

    def _draw_energies(self, row: Mapping[str, Any], phase: np.ndarray, energy: np.ndarray, std: np.ndarray) -> None:
        cos, sin = (float(row.get(name, math.nan)) for name in ("cos_mev", "sin_mev"))
        if math.isfinite(cos) and math.isfinite(sin):
            weight = 1.0 / np.maximum(np.nan_to_num(std, nan=np.inf), 1e-12) ** 2
            mean = float((weight * (energy - cos * np.cos(phase) - sin * np.sin(phase))).sum() / weight.sum())
            dense = np.linspace(-np.pi, np.pi, 181)
            curve = mean + cos * np.cos(dense) + sin * np.sin(dense)
            width = np.hypot(*(float(row[f"{n}_mev_std"]) * f(dense) for n, f in (("cos", np.cos), ("sin", np.sin))))
            edges = [pg.PlotCurveItem(dense, curve + sign * width, pen=None) for sign in (-1, 1)]
            for edge in edges:
                self.energies.addItem(edge)
            self.energies.addItem(pg.FillBetweenItem(*edges, brush=PALETTE[1] + "40"))
            line(self.energies, PALETTE[1], 1.5).setData(dense, curve)
        error_bars(self.energies, phase, energy, std)
        points = pg.ScatterPlotItem(phase, energy, size=8, brush=INK, pen=None)
        self.energies.addItem(points)
        self.energies.setXRange(-np.pi, np.pi, padding=0.03)
        self.energies.autoRange(padding=0.08) if not len(phase) else self._fit_heights(energy, std)

    def _fit_heights(self, energy: np.ndarray, std: np.ndarray) -> None:
        reach = np.nan_to_num(std)
        self.energies.setYRange(float(np.nanmin(energy - reach)), float(np.nanmax(energy + reach)), padding=0.12)

    def _draw_gap(self, session: Session) -> None:
        """Draw the gap against the same phase, as `measure_modulation` compared it; the results say where it is from."""
        table = session.table(STEP, "gap_curve")
        self.gap.setVisible(table is not None)
        self.gap.setMaximumHeight(0.0 if table is None else UNLIMITED)
        if table is None:
            return
        parts = {kind: part.sort_values("phase_rad") for kind, part in table.groupby("kind")}
        phase, gap, std = (parts["harmonic"][name].to_numpy(float) for name in GAP_COLUMNS)
        edges = [pg.PlotCurveItem(phase, gap + sign * std, pen=None) for sign in (-1, 1)]
        for edge in edges:
            self.gap.addItem(edge)
        self.gap.addItem(pg.FillBetweenItem(*edges, brush=GAP_COLOUR + "40"))
        line(self.gap, GAP_COLOUR, 1.5).setData(phase, gap)
        low, high = (gap - std).min(), (gap + std).max()
        measured = "measured" in parts
        if measured:
            phase, gap, std = (parts["measured"][name].to_numpy(float) for name in GAP_COLUMNS)
            phase = np.angle(np.exp(1j * phase))
            error_bars(self.gap, phase, gap, std, GAP_COLOUR)
            self.gap.addItem(pg.ScatterPlotItem(phase, gap, size=6, brush=GAP_COLOUR, pen=None))
            low, high = min(low, (gap - std).min()), max(high, (gap + std).max())
        self.gap.setYRange(float(low), float(high), padding=0.15)
        words = "gap (your curve)" if measured else "gap (literature, not measured here)"
        self.gap.setTitle(words, color=GAP_COLOUR, size="9pt")

    def _draw_periods(self, session: Session) -> None:
        table = session.table(STEP, "period_scan")
        self.periods.setVisible(table is not None and len(table) > 0)
        if table is None or not len(table):
            return
        line(self.periods, PALETTE[0], 1.5).setData(
            table["period_nm"].to_numpy(float), table["statistic"].to_numpy(float)
        )
        found = (
            session.results["map_superstructure"].summary.get("period_nm")
            if "map_superstructure" in session.results
            else None
        )
        if isinstance(found, Mapping) and found.get("value") is not None:
            mark = vertical(self.periods, PALETTE[1], "--", 1.5)
            mark.setPos(float(found["value"]))
            mark.setVisible(True)
            self.periods.setTitle(
                f"HAADF: {plus_minus(found['value'], found.get('std'), 'nm')}", color=PALETTE[1], size="9pt"
            )
        self.periods.enableAutoRange()

    def _sentence(self, session: Session, row: Mapping[str, Any]) -> str:
        result = session.results[STEP]
        amplitude = plus_minus(row.get("amplitude_mev"), row.get("amplitude_mev_std"), "meV")
        phase = plus_minus(row.get("phase_rad"), row.get("phase_rad_std"), "rad")
        p_value = float(row.get("p_value", math.nan))
        test = p_text(p_value) if math.isfinite(p_value) else "not testable"
        if row.get("role") == "secondary" and math.isfinite(float(row.get("p_value_holm", math.nan))):
            test += f" (for all secondary tests together: {p_text(float(row['p_value_holm']))})"
        verdict = (
            f"<br>Primary test: <b>{result.summary.get('verdict', '')}</b>" if row.get("role") == "primary" else ""
        )
        test = test.replace("<", "&lt;")
        return (
            f"amplitude <b>{amplitude}</b>, phase {phase}, <b>{test}</b>, {int(row.get('n_units', 0))} planes{verdict}"
        )

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
        _, layer = self.pair.currentData()
        mask = regions.phase_bin_mask(self.session, layer, self._phases.tolist(), number)
        self._highlight.setData([self._phases[number]], [self._energies[number]])
        self.link.show_selection(self.session, mask)

    def _moved(self, place: Place) -> None:
        """Mark the phase of the position under the mouse, where it belongs to the layer that is shown."""
        if not self.isVisible() or place.session is not self.session or self.pair.currentData() is None:
            return
        wave = self.session.maps("map_superstructure") if self.session else None
        layer = self.pair.currentData()[1]
        phase = math.nan if wave is None else float(wave["phase_rad"].values[place.row, place.column])
        inside = bool(regions.layer_mask(place.session, layer)[place.row, place.column])
        shown = math.isfinite(phase) and inside
        self.mark.setVisible(shown)
        if shown:
            self.mark.setPos(math.remainder(phase, 2.0 * math.pi))
