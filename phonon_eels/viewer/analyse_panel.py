"""The analyse panel: the settings as a form, steps run beside the window, settings to and from configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
)

from phonon_eels.backends.select import select_backend
from phonon_eels.config import STEP_NAMES, Settings
from phonon_eels.errors import ConfigError, DataError, PhononEELSError
from phonon_eels.viewer import forms, regions
from phonon_eels.viewer.background import Background
from phonon_eels.viewer.filling import fill
from phonon_eels.viewer.form_widgets import SectionForm
from phonon_eels.viewer.notices import guarded, slot, tell, tell_problem
from phonon_eels.viewer.panel import Panel
from phonon_eels.viewer.running import Job, Stopped, run_job
from phonon_eels.viewer.sessions import Session

FIRST_SHOWN = "fit_peaks"
SHORTCUTS = (
    ("Ctrl+Alt+R", "run_to_step", "run the steps up to this one, as far as they are not up to date"),
    ("Ctrl+Alt+A", "run_all", "run every step"),
    ("Ctrl+Alt+K", "cancel", "stop at the next block; results of finished steps stay"),
    ("Ctrl+Alt+C", "copy_config", "copy the settings, for pipelines/config.yaml"),
    ("Ctrl+Alt+I", "load_config", "read settings from a file, or from pipelines/config.yaml"),
    ("Ctrl+Alt+Y", "save_settings", "write the settings, for `phonon-eels run --config`"),
)


class AnalysePanel(Panel):
    """Docked at the right."""

    def __init__(self, napari_viewer: Any) -> None:
        """Show the settings of the scan that is open, else the defaults."""
        super().__init__()
        self.viewer = napari_viewer
        self._work = Background(self)
        self._loaded: Settings = Settings()
        self._session: Session | None = None
        self._build()
        self.link = self.follow(napari_viewer, self._layers_changed)
        self._layers_changed()

    # --- building -----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.section = QComboBox()
        self.section.setToolTip("Step whose settings are shown, and up to which `Run to step` runs")
        self.pages = QStackedWidget()
        self.forms: dict[str, SectionForm] = {}
        for part in forms.sections():
            form = SectionForm(part)
            form.edited.connect(self._mark)
            self.forms[part.name] = form
            self.section.addItem(part.name, part.name)
            area = QScrollArea()
            area.setWidgetResizable(True)
            area.setWidget(form)
            self.pages.addWidget(area)
        self.section.currentIndexChanged.connect(self.pages.setCurrentIndex)
        self.section.setCurrentIndex(self.section.findData(FIRST_SHOWN))
        self.output = QLineEdit("results")
        self.output.setToolTip("Folder of results, for a scan that has none yet, and for regions")
        self.only_region = QCheckBox("only the box around the drawn region")
        self.run_step_button = self._button("run to step", "run_to_step")
        self.run_all_button = self._button("run all", "run_all")
        self.cancel_button = self._button("cancel", "cancel")
        self.cancel_button.setEnabled(False)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.bar.setFormat("")
        self.words = QLabel("")
        self.words.setWordWrap(True)
        top = QHBoxLayout()
        top.addWidget(QLabel("step"))
        top.addWidget(self.section, 1)
        where = QHBoxLayout()
        where.addWidget(QLabel("results in"))
        where.addWidget(self.output, 1)
        runs = QHBoxLayout()
        for button in (self.run_step_button, self.run_all_button, self.cancel_button):
            runs.addWidget(button)
        files = QGridLayout()
        files.addWidget(self._button("copy as config.yaml", "copy_config"), 0, 0)
        files.addWidget(self._button("load config …", "load_config"), 0, 1)
        files.addWidget(self._button("save settings …", "save_settings"), 1, 0)
        defaults = QPushButton("defaults")
        defaults.setToolTip("every setting at its default")
        defaults.clicked.connect(slot(lambda: self.set_settings(Settings())))
        files.addWidget(defaults, 1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addWidget(self.pages, 1)
        layout.addLayout(where)
        layout.addWidget(self.only_region)
        layout.addLayout(runs)
        layout.addWidget(self.bar)
        layout.addWidget(self.words)
        layout.addLayout(files)

    def _button(self, text: str, action: str) -> QPushButton:
        keys, words = next((k, w) for k, name, w in SHORTCUTS if name == action)
        button = QPushButton(text)
        button.setToolTip(f"{words}  ({keys})")
        button.clicked.connect(slot(getattr(self, action)))
        QShortcut(QKeySequence(keys), self).activated.connect(getattr(self, action))
        return button

    # --- settings -----------------------------------------------------------------------------------------------

    def settings(self) -> Settings:
        """Return the settings of the form.

        Raises
        ------
        ConfigError
            If a value is not allowed; the message names the key, and its section is shown.
        """
        values = {}
        for name, form in self.forms.items():
            for key, widget in form.widgets.items():
                try:
                    values[key] = widget.value()
                except ConfigError:
                    self.section.setCurrentIndex(self.section.findData(name))
                    raise
        return forms.settings_of(values)

    def set_settings(self, settings: Settings) -> None:
        """Show settings in the form."""
        for key, value in forms.values_of(settings).items():
            name = key[0] if len(key) > 1 else forms.GENERAL
            self.forms[name].widgets[key].set(value)
        self._loaded = settings
        self._mark()

    def _mark(self) -> None:
        """Put a dot at sections that differ from the defaults."""
        for index in range(self.section.count()):
            name = self.section.itemData(index)
            changed = any(_differs(widget) for widget in self.forms[name].widgets.values())
            self.section.setItemText(index, f"{name} ●" if changed else name)

    @guarded
    def _layers_changed(self) -> None:
        """Show what the results of a newly opened scan were made with, unless the user has changed something."""
        session = self.link.session()
        if session is None or session is self._session:
            return
        self._session = session
        for note in session.notes:
            tell(note)
        try:
            untouched = self.settings() == self._loaded
        except ConfigError:
            untouched = False
        if untouched:
            self.set_settings(session.settings)
            self.words.setText(f"Settings of {session.name}." if session.folder else "")
        elif session.settings != self._loaded:
            self.words.setText(f"The form keeps what you changed; {session.name} was made with other settings.")

    @guarded
    def copy_config(self) -> None:
        """Put the settings on the clipboard, as they stand in pipelines/config.yaml."""
        clipboard = QApplication.clipboard()
        assert clipboard is not None  # there is one as soon as there is a window
        clipboard.setText(forms.config_text(self.settings()))
        tell("copied: paste it into pipelines/config.yaml in place of the keys of the same name")

    @guarded
    def load_config(self) -> None:
        """Ask for a file of settings and show it."""
        path, _ = QFileDialog.getOpenFileName(self, "Load settings", "", "YAML (*.yaml *.yml)")
        if path:
            self.load_from(Path(path))

    def load_from(self, path: Path) -> None:
        """Show the settings of a file."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigError(f"{path}: cannot be read ({problem}); give an existing YAML file") from problem
        self.set_settings(forms.read_config(text, str(path), path.parent))
        self.words.setText(f"Settings of {path.name}.")

    @guarded
    def save_settings(self) -> None:
        """Ask for a file and write the settings for the command line."""
        settings = self.settings()
        path, _ = QFileDialog.getSaveFileName(self, "Save settings", "settings.yaml", "YAML (*.yaml)")
        if path:
            try:
                Path(path).write_text(forms.settings_text(settings), "utf-8")
            except OSError as problem:
                raise ConfigError(f"{path} cannot be written ({problem}); choose another folder") from problem
            tell(f"written: {path}; use it as `phonon-eels run FILE --config {Path(path).name}`")

    # --- running ------------------------------------------------------------------------------------------------

    @guarded
    def run_to_step(self) -> None:
        """Run the steps up to the one that is shown."""
        name = self.section.currentData()
        settings = self.settings()
        if name not in STEP_NAMES:
            raise ConfigError(f"{name} is no step; choose one, or run all")
        if name not in forms.steps_named(settings.route):
            raise ConfigError(f"{name} does not belong to route = {settings.route}; set general: route to classic")
        self._run(settings, name)

    @guarded
    def run_all(self) -> None:
        """Run every step."""
        self._run(self.settings(), None)

    def _run(self, settings: Settings, last_step: str | None) -> None:
        session = self.link.session()
        if session is None:
            raise DataError("no scan is open; drag a file onto the window, or use File → Open sample")
        output = Path(self.output.text().strip() or "results").expanduser().absolute()
        region = self._region(session) if self.only_region.isChecked() else None
        job = Job(session, settings, last_step, output, region)
        self._set_running(True)
        self.words.setText("")
        self._work.submit(
            lambda stop, report: run_job(job, select_backend("auto"), stop, report),
            self._finished, self._failed, self._progressed,
        )  # fmt: skip

    def _region(self, session: Session) -> np.ndarray:
        layer = next((layer for layer in self.viewer.layers if type(layer).__name__ == "Shapes"), None)
        if layer is None or not len(layer.data):
            raise DataError(
                "no region is drawn; press `draw` in the panel Spectrum, and drag a rectangle over the image"
            )
        chosen = sorted(layer.selected_data) or [len(layer.data) - 1]
        masks = [
            regions.shape_mask(
                session, [tuple(layer.data_to_world(v))[-2:] for v in layer.data[k]], str(layer.shape_type[k])
            )
            for k in chosen
        ]
        return np.asarray(np.any(masks, axis=0))

    @guarded
    def cancel(self) -> None:
        """Ask the run to stop."""
        if self._work.busy:
            self.words.setText("stopping …")
            self._work.cancel()

    def _set_running(self, running: bool) -> None:
        for button in (self.run_step_button, self.run_all_button):
            button.setEnabled(not running)
        self.cancel_button.setEnabled(running)
        if not running:
            self.bar.setValue(0)
            self.bar.setFormat("")

    def _progressed(self, step: str, done: int, total: int) -> None:
        self.bar.setFormat(step.replace("_", " "))
        self.bar.setValue(int(1000 * done / max(total, 1)))

    @guarded
    def _finished(self, session: Session) -> None:
        self._set_running(False)
        skipped = [f"{name}: {result.skipped}" for name, result in session.results.items() if result.skipped]
        told = [f"{name}: {text}" for name, result in session.results.items() for text in result.messages]
        self.words.setText(
            f"{session.name}: done. " + (f"{len(told)} remarks, {len(skipped)} skipped." if told or skipped else "")
        )
        self.words.setToolTip("\n".join([*told, *skipped]))
        self._loaded = session.settings
        self._session = session
        self.link.show_session(session)
        fill(session, self.viewer)

    def _failed(self, problem: BaseException) -> None:
        self._set_running(False)
        if isinstance(problem, Stopped):
            self.words.setText("Cancelled; results of the steps that had ended stay.")
            return
        self.words.setText(str(problem) if isinstance(problem, PhononEELSError) else "")
        tell_problem(problem)


def _differs(widget: Any) -> bool:
    try:
        value = widget.value()
    except ConfigError:
        return True
    default = widget.field.default
    plain = [list(v) if isinstance(v, list | tuple) else v for v in (value, default)]
    return bool(plain[0] != plain[1])
