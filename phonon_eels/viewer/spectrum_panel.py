"""The spectrum panel: the spectrum under the mouse with its fit, pinned positions, regions, energy window, export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout

from phonon_eels.backends.select import select_backend
from phonon_eels.figures.spectrum_panels import SIDES
from phonon_eels.figures.style import robust_limits
from phonon_eels.viewer import regions
from phonon_eels.viewer.background import Background, later
from phonon_eels.viewer.layers import default_window, image_layer, window_title
from phonon_eels.viewer.linking import Place
from phonon_eels.viewer.notices import guarded, slot, tell, tell_problem
from phonon_eels.viewer.panel import Panel, Paper
from phonon_eels.viewer.plots import PICTURES, PIN_COLOURS
from phonon_eels.viewer.running import Stoppable, Stopped
from phonon_eels.viewer.sessions import Session
from phonon_eels.viewer.spectrum_plot import Shown, SpectrumPlot
from phonon_eels.viewer.spectrum_words import export, values_html

WINDOW_DELAY_MS, REGION_DELAY_MS = 120, 250
WINDOW_PATIENCE_S = 1.0
"""A map that takes longer gives way to that of a newer window."""
HEIGHT, VALUES_WIDTH = 240, 370
DRAWN, WHOLE = "drawn shape", "whole scan"
HINT = "Move the mouse over the image. Click: hold the position. Shift-click: pin it. Ctrl-click: sum its layer."
SHORTCUTS = (
    ("Ctrl+Alt+L", "log", "logarithmic or linear"),
    ("Ctrl+Alt+B", "subtract", "without zero-loss peak and background"),
    ("Ctrl+Alt+G", "next_side", "loss side, gain side, both"),
    ("Ctrl+Alt+W", "window", "energy window on or off"),
    ("Ctrl+Alt+F", "fit_region", "sum and fit the chosen region"),
    ("Ctrl+Alt+D", "draw_region", "draw a region"),
    ("Ctrl+Alt+X", "clear_pins", "remove the pins"),
    ("Ctrl+Alt+E", "export", "export"),
    ("Ctrl+Alt+H", "release", "follow the mouse again"),
)


class SpectrumPanel(Panel):
    """Docked below the image."""

    def __init__(self, napari_viewer: Any) -> None:
        """Listen to the viewer; nothing is read before the mouse moves."""
        super().__init__()
        self.viewer = napari_viewer
        self.place: Place | None = None
        self.held = False
        self.pins: list[tuple[Place, str]] = []
        self._waiting: Place | None = None
        self._region: tuple[Session, Any, str] | None = None
        self._shapes: Any = None
        self._work, self._windows = Background(self), Background(self)
        self._build()
        self.link = self.follow(
            napari_viewer,
            self._layers_changed,
            on_move=self._moved,
            on_click=self._clicked,
            on_label=self._label_clicked,
        )
        self._move_timer = later(self, 0, self._show_waiting)
        self._window_timer = later(self, WINDOW_DELAY_MS, self._make_window_map)
        self._region_timer = later(self, REGION_DELAY_MS, self._refit_shape)
        self._window_since = 0.0
        self.plot.window_changed.connect(lambda *_: self._window_timer.isActive() or self._window_timer.start())
        self._layers_changed()

    # --- building -----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.plot = SpectrumPlot(self)
        self.values = Paper(HINT)
        self.values.setFixedWidth(VALUES_WIDTH)
        self.values.setStyleSheet("background: white; color: #1a1a1a; font-size: 11px;")
        self.log_button = self._button("log", "log", True, True)
        self.subtract_button = self._button("− zero-loss", "subtract", True, False)
        self.side = QComboBox()
        self.side.addItems(SIDES)
        self.side.currentTextChanged.connect(lambda _: self._restyle())
        self.window_button = self._button("energy window", "window", True, False)
        self.region = QComboBox()
        self.region.setToolTip("What `Sum and fit` adds up: a drawn shape, a layer of the crystal, or the whole scan")
        self.region.addItems((DRAWN, WHOLE))
        self.region.setMinimumContentsLength(10)
        bar = QHBoxLayout()
        bar.setSpacing(4)
        self.follow_button = self._button("follow mouse", "release", False, False)
        for widget in (
            self.log_button, self.subtract_button, self.side, self.window_button, self._button("draw", "draw_region"),
            self.region, self._button("sum and fit", "fit_region"), self.follow_button,
            self._button("clear pins", "clear_pins"), self._button("export …", "export"),
        ):  # fmt: skip
            bar.addWidget(widget)
        bar.addStretch(1)
        middle = QHBoxLayout()
        middle.addWidget(self.plot, 1)
        middle.addWidget(self.values)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.setSpacing(2)
        layout.addLayout(bar)
        layout.addLayout(middle, 1)
        self.setMinimumHeight(HEIGHT)
        self.opaque = (self.plot.canvas, self.values.viewport())
        self._restyle()

    def _button(self, text: str, action: str, checkable: bool = False, checked: bool = False) -> QPushButton:
        """Return a button with its shortcut; a checkable one restyles, the others call the method of that name."""
        keys, words = next((k, w) for k, name, w in SHORTCUTS if name == action)
        button = QPushButton(text)
        button.setToolTip(f"{words}  ({keys})")
        button.setCheckable(checkable)
        button.setChecked(checked)
        shortcut = QShortcut(QKeySequence(keys), self)
        if checkable:
            button.toggled.connect(slot(self._toggle_window if action == "window" else self._restyle))
            shortcut.activated.connect(button.toggle)
        else:
            button.clicked.connect(slot(getattr(self, action)))
            shortcut.activated.connect(getattr(self, action))
        if action == "export":
            self._next_side = QShortcut(QKeySequence("Ctrl+Alt+G"), self)
            self._next_side.activated.connect(
                lambda: self.side.setCurrentIndex((self.side.currentIndex() + 1) % len(SIDES))
            )
        return button

    def _restyle(self) -> None:
        self.plot.set_style(
            log=self.log_button.isChecked(), subtracted=self.subtract_button.isChecked(), side=self.side.currentText()
        )

    @guarded
    def _layers_changed(self) -> None:
        session = self.link.session()
        wanted = [DRAWN, WHOLE, *(regions.layer_names(session) if session else [])]
        if wanted != [self.region.itemText(k) for k in range(self.region.count())]:
            chosen = self.region.currentText()
            self.region.clear()
            self.region.addItems(wanted)
            self.region.setCurrentText(chosen if chosen in wanted else DRAWN)
        if self.place is None and self._region is None and not self._work.busy:
            missing = "<br>No fit yet: run fit_peaks in the panel Analyse, or sum and fit a region."
            self.values.setText(HINT if session is None or session.fitter is not None else HINT + missing)

    # --- positions ----------------------------------------------------------------------------------------------

    def _moved(self, place: Place) -> None:
        if self.held or not self.isVisible():
            return
        self._waiting = place
        if not self._move_timer.isActive():
            self._move_timer.start()

    @guarded
    def _show_waiting(self) -> None:
        place, self._waiting = self._waiting, None
        if place is None:
            return
        same = self.place is not None and (self.place.session, self.place.row, self.place.column) == (
            place.session, place.row, place.column,
        )  # fmt: skip
        if not same or self._region is not None:
            self.show_place(place)

    def show_place(self, place: Place) -> None:
        """Draw the spectrum of a position, with its fit where there is a model."""
        self.place, self._region = place, None
        session, row, column = place.session, place.row, place.column
        energy = session.energy_loss_mev(row, column)
        counts, _ = session.spectra.at(row, column)
        fit = session.fit_position(row, column)
        title = self._title(place)
        self.plot.draw(Shown(energy, counts, fit, title, self._pinned()))
        remark = "Held here: another click on it follows the mouse again." if self.held else ""
        if fit is None:
            remark = "no zero-loss peak was found here" if session.fitter is not None else "not fitted yet"
        self.values.setText(values_html(fit, session.stored(row, column), title, remark))

    def _title(self, place: Place) -> str:
        row, column = place.session.image.scan
        scale = place.session.scale_nm
        where = (row.offset_nm + place.row * scale[0], column.offset_nm + place.column * scale[1])
        return f"row {place.row}, column {place.column} ({where[0]:.2f}, {where[1]:.2f} nm)"

    @guarded
    def _clicked(self, place: Place, shift: bool) -> None:
        if shift:
            self.pin(place)
            return
        again = (
            self.held and self.place is not None and (place.row, place.column) == (self.place.row, self.place.column)
        )
        self.held = not again
        self.show_place(place)
        self._show_marks()

    @guarded
    def release(self) -> None:
        """Follow the mouse again."""
        self.held = False
        self._show_marks()

    def _show_marks(self) -> None:
        """Mark pinned positions, and the held one in white, on the image."""
        held = [(self.place, "white")] if self.held and self.place is not None and self._region is None else []
        self.link.show_points([*self.pins, *held])

    def pin(self, place: Place) -> None:
        """Keep a position's spectrum for comparison; the oldest goes when there is no colour left."""
        if self.pins and self.pins[0][0].session is not place.session:
            self.pins.clear()
        used = {colour for _, colour in self.pins[-len(PIN_COLOURS) + 1 :]}
        free = next(colour for colour in PIN_COLOURS if colour not in used)
        self.pins = [*self.pins[-len(PIN_COLOURS) + 1 :], (place, free)]
        self._show_marks()
        self.show_place(place)

    @guarded
    def clear_pins(self) -> None:
        """Remove all pins."""
        self.pins.clear()
        self._show_marks()
        if self.place is not None:
            self.show_place(self.place)

    def _pinned(self) -> tuple[tuple[str, np.ndarray, np.ndarray], ...]:
        return tuple(
            (colour, p.session.energy_loss_mev(p.row, p.column), p.session.spectra.at(p.row, p.column)[0])
            for p, colour in self.pins
        )

    # --- regions ------------------------------------------------------------------------------------------------

    @guarded
    def draw_region(self) -> None:
        """Make the layer of regions the active one, ready to draw a rectangle; what is drawn is fitted at once."""
        session = self._session()
        layer = self.link.regions_layer(session)
        self._follow_shapes(layer)
        self.viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"
        self.region.setCurrentText(DRAWN)

    def _follow_shapes(self, layer: Any) -> None:
        if layer is not self._shapes:
            self._shapes = layer
            layer.events.data.connect(self._shape_changed)

    def _shape_changed(self, event: Any) -> None:
        if not str(event.action.value).endswith(
            "ing"
        ):  # "adding" comes when the mouse is pressed: nothing is drawn yet
            self._region_timer.start()

    @guarded
    def _refit_shape(self) -> None:
        if self._shapes is not None and self._shapes in self.viewer.layers and len(self._shapes.data):
            self.fit_region()

    @guarded
    def fit_region(self) -> None:
        """Sum the spectra of the chosen region and fit the sum, beside the window."""
        session = self._session()
        choice = self.region.currentText()
        mask = self.region_mask(session, choice)
        self.values.setText(f"<b>{choice}</b><br>adding up {int(mask.sum())} positions …")

        def work(stop: Any, report: Any) -> Any:
            return session.region_spectrum(mask, Stoppable(select_backend("auto"), stop))

        self._work.submit(work, lambda fit: self._show_region(session, fit, choice), self._failed)

    def region_mask(self, session: Session, choice: str) -> np.ndarray:
        """Return the positions of a region by its name in the list."""
        if choice == WHOLE:
            return np.ones(session.shape, bool)
        if choice != DRAWN:
            return regions.layer_mask(session, choice)
        layer = self.link.regions_layer(session)
        self._follow_shapes(layer)
        chosen = sorted(layer.selected_data) or ([len(layer.data) - 1] if len(layer.data) else [])
        masks = [
            regions.shape_mask(
                session,
                [tuple(layer.data_to_world(vertex))[-2:] for vertex in layer.data[k]],
                str(layer.shape_type[k]),
                float(layer.edge_width[k]) * float(layer.scale[-1]),
            )
            for k in chosen
        ]
        if not masks:
            raise regions.DataError(
                "no shape is drawn; press `draw`, drag a rectangle over the image, or choose a layer"
            )
        return np.asarray(np.any(masks, axis=0))

    @guarded
    def _label_clicked(self, place: Place, word: str) -> None:
        if self.isVisible() and word in regions.layer_names(place.session):
            self.region.setCurrentText(word)
            self.fit_region()

    @guarded
    def _show_region(self, session: Session, fit: Any, choice: str) -> None:
        title = f"{choice}: sum of {fit.n_positions} positions"
        self._region = (session, fit, title)
        self.held = True
        self.plot.draw(Shown(fit.energy_loss_mev, fit.counts_e, fit, title))
        remark = "σ: counting alone. Widths are those of the scan, held."
        self._show_marks()
        self.values.setText(values_html(fit, {}, title, remark))

    def _session(self) -> Session:
        session = self.link.session()
        if session is None:
            raise regions.DataError("no scan is open; drag a file or a results folder onto the window")
        return session

    def _failed(self, problem: BaseException) -> None:
        if not isinstance(problem, Stopped):
            self.values.setText("")
            tell_problem(problem)

    # --- energy window ------------------------------------------------------------------------------------------

    @guarded
    def _toggle_window(self) -> None:
        shown = self.window_button.isChecked()
        if shown and self.link.session() is None:
            self.window_button.setChecked(False)
        self.plot.show_window(shown, default_window(self._session()) if shown else None)
        if shown:
            self._window_timer.start()

    @guarded
    def _make_window_map(self) -> None:
        session = self.link.session()
        if session is None:
            return
        if self._windows.busy and time.monotonic() - self._window_since < WINDOW_PATIENCE_S:
            self._window_timer.start()  # the map of a moment ago is about to come: while the span is dragged it shall be seen
            return
        self._window_since = time.monotonic()
        low, high = (float(end) for end in self.plot.span.getRegion())

        def work(stop: Any, report: Any) -> Any:
            return session.window_map(low, high, Stoppable(select_backend("auto"), stop))

        self._windows.submit(work, lambda values: self._show_window(session, values, low, high), self._failed)

    @guarded
    def _show_window(self, session: Session, values: np.ndarray, low: float, high: float) -> None:
        title = f"{window_title(low, high)} (e⁻)"
        layer = self.link.layer(session, "window", "window")
        limits = robust_limits(values)
        if layer is None:
            made = image_layer(
                session, values, window_title(low, high), unit="e⁻", limits=limits, colormap="inferno", step="window",
                name="window", window_mev=(low, high),
            )  # fmt: skip
            layer = self.link.show(made)
        layer.data, layer.contrast_limits_range, layer.contrast_limits = values, limits, limits
        layer.name, layer.visible = title, True
        self.link.raise_map(layer)

    # --- export -------------------------------------------------------------------------------------------------

    @guarded
    def export(self) -> None:
        """Ask for a file and write what is shown."""
        self._shown()
        kinds = f"Table (*.csv);;{PICTURES};;HyperSpy signal (*.hspy)"
        path, _ = QFileDialog.getSaveFileName(self, "Export the spectrum", "spectrum.csv", kinds)
        if path:
            self.export_to(Path(path))

    def _shown(self) -> Shown:
        if self.plot.last is None:
            raise regions.DataError("there is no spectrum to export; move the mouse over the image first")
        return self.plot.last

    def export_to(self, path: Path) -> list[Path]:
        """Write the spectrum that is shown, and in a table the pinned ones too."""
        shown = self._shown()
        spectra = [(shown.title, shown.energy_loss_mev, shown.counts_e, shown.fit)]
        for (place, _), (_, energy, counts) in zip(self.pins, self._pinned(), strict=True):
            fit = place.session.fit_position(place.row, place.column)
            spectra.append((f"pin: {self._title(place)}", energy, counts, fit))
        written = export(path, spectra, self.plot.panels)
        tell("written: " + ", ".join(str(one) for one in written))
        return written
