"""What a user drops, chooses in dialogs and types: files, folders, samples, configurations, keys; and what is not ours."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from phonon_eels.config import Settings
from phonon_eels.viewer import analyse_panel, filling, spectrum_panel
from phonon_eels.viewer.linking import Place
from phonon_eels.viewer.sessions import Session
from tests.viewer.conftest import let_qt_work, wait_until
from tests.viewer.hands import dock, workbench


@pytest.fixture
def drop(viewer: Any, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Drops paths on the viewer, as the window system does it."""
    from npe2 import PluginManager, PluginManifest
    from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
    from qtpy.QtGui import QDropEvent

    manager = PluginManager.instance()
    manifest = PluginManifest.from_file(repository / "phonon_eels" / "viewer" / "napari.yaml")
    if manifest.name not in manager:
        manager.register(manifest)

    # For folders napari asks which of the readers that take folders it shall be: the user chooses ours.
    ours = (manifest.display_name, False)
    monkeypatch.setattr("napari._qt.dialogs.qt_reader_dialog.QtReaderDialog.get_user_choices", lambda _: ours)

    def drop_paths(*paths: Path) -> None:
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
        nothing = (Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
        event = QDropEvent(QPointF(9.0, 9.0), Qt.DropAction.CopyAction, data, *nothing)
        viewer.window._qt_viewer.dropEvent(event)
        let_qt_work()

    return drop_paths


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_a_raw_file_is_dropped(drop: Callable[..., None], viewer: Any, scan: Path) -> None:
    drop(scan)
    assert names(viewer) == ["HAADF", "window 73.0 … 83.0 meV (e⁻)"]
    assert viewer.layers[0].scale == pytest.approx((0.055, 0.09), rel=1e-6)
    assert {str(unit) for layer in viewer.layers for unit in layer.units} == {"nanometer"}


def test_zspy_and_emd_are_dropped(
    drop: Callable[..., None], viewer: Any, scan: Path, results: Path, tmp_path: Path, notices: list[str]
) -> None:
    import hyperspy.api as hs

    drop(results / "ingest" / "image.zspy")
    assert names(viewer) == ["HAADF", "window 73.0 … 83.0 meV (e⁻)"]
    viewer.layers.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HyperSpy's, of metadata that this format has no place for
        hs.load(scan).save(tmp_path / "ncem.emd")
    drop(tmp_path / "ncem.emd")
    assert names(viewer) == ["window 73.0 … 83.0 meV (e⁻)"]
    assert viewer.layers[0].visible
    assert viewer.layers[0].scale == pytest.approx((0.055, 0.09), rel=1e-6)
    assert not notices


def test_a_file_with_several_scans_opens_each(
    drop: Callable[..., None], viewer: Any, shared_data: Path, notices: list[str]
) -> None:
    """A Velox file: none of its three spectrum images is the one that is meant."""
    from phonon_eels.viewer.layers import session_of
    from phonon_eels.viewer.running import Job, _place

    drop(shared_data / "velox" / "velox_EELS_EDS.zip")
    sessions = {session.name: session for layer in viewer.layers if (session := session_of(layer)) is not None}
    assert list(sessions) == [f"velox_EELS_EDS_signal{number}" for number in (14, 15, 16)]
    assert [session.settings.ingest.signal for session in sessions.values()] == [14, 15, 16]
    jobs = [Job(session, session.settings, "ingest", Path("results")) for session in sessions.values()]
    assert len({_place(job)[0] for job in jobs}) == 3, "each has its own results"
    assert not notices


def test_a_results_folder_is_dropped(
    drop: Callable[..., None], viewer: Any, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "PAUSE_MS", 3000)
    drop(results)
    assert names(viewer) == [
        "HAADF", "window 73.0 … 83.0 meV (e⁻)", "superstructure phase (rad)", "layers", "status of the fit",
        "CuO78 area (e⁻)", "CuO78 energy σ (meV)", "CuO78 energy (meV)",
    ]  # fmt: skip
    assert [layer.name for layer in viewer.layers if layer.visible] == ["HAADF"]
    wait_until(lambda: len(viewer.layers) == 9)  # the others follow


def test_the_sample_is_opened_from_the_menu(drop: Callable[..., None], viewer: Any, repository: Path) -> None:
    """What File → Open Sample → Phonon EELS runs: the actions that napari makes of the manifest."""
    from napari._qt._qplugins._qnpe2 import _build_samples_submenu_actions
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(repository / "phonon_eels" / "viewer" / "napari.yaml")
    _, actions = _build_samples_submenu_actions(manifest)
    assert [action.title for action in actions] == [
        "Bi2212 with a modulation (simulated)", "Bi2212 without a modulation (simulated)",
    ]  # fmt: skip
    actions[0].callback(viewer.window._qt_viewer)
    assert names(viewer)[0] == "HAADF"
    assert viewer.layers[0].data.shape == (112, 64)


def test_every_map_can_be_had(drop: Callable[..., None], viewer: Any, session: Session, results: Path) -> None:
    from phonon_eels.viewer.layers import layers_of
    from phonon_eels.viewer.maps_panel import TICKED, UNTICKED, MapsPanel

    drop(results)
    panel = dock(viewer, MapsPanel(viewer))
    assert set(panel.rows) == {keywords["name"] for _, keywords, _ in layers_of(session)}
    assert [name for name, row in panel.rows.items() if row.checkState(0) == TICKED] == ["HAADF"]
    panel.rows["BiO38 energy (meV)"].setCheckState(0, TICKED)
    assert viewer.layers["BiO38 energy (meV)"].visible
    above = names(viewer).index("BiO38 energy (meV)")
    assert not any(layer.visible for layer in viewer.layers[above + 1 :])
    panel.rows["BiO38 energy (meV)"].setCheckState(0, UNTICKED)
    assert not viewer.layers["BiO38 energy (meV)"].visible
    # The eye in napari's list and the tick are one.
    viewer.layers["BiO38 energy (meV)"].visible = True
    wait_until(lambda: panel.rows["BiO38 energy (meV)"].checkState(0) == TICKED)
    panel.remove(*panel.rows)
    assert not viewer.layers
    let_qt_work()
    panel.add("HAADF", "SrO67 area σ (e⁻)")
    let_qt_work()
    assert panel.rows["SrO67 area σ (e⁻)"].checkState(0) == UNTICKED
    assert f"2 of {len(panel.rows)} maps" in panel.words.text()


def test_what_cannot_be_read_is_said_in_our_words(
    drop: Callable[..., None], viewer: Any, scan: Path, results: Path, tmp_path: Path, notices: list[str]
) -> None:
    cut = tmp_path / "cut.hspy"
    cut.write_bytes(scan.read_bytes()[:5000])
    foreign = tmp_path / "picture.dm4"
    foreign.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    older = tmp_path / "older"
    shutil.copytree(results, older)
    record = json.loads((older / "fit_peaks" / "summary.json").read_text("utf-8"))
    record["schema_version"] = 0
    (older / "fit_peaks" / "summary.json").write_text(json.dumps(record), "utf-8")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, word in ((cut, "cut.hspy"), (foreign, "picture.dm4"), (older, "older"), (empty, "holds no results")):
        notices.clear()
        drop(path)
        assert len(notices) == 1, notices
        assert word in notices[0]
        assert "did not expect" not in notices[0]
        assert not viewer.layers
    notices.clear()
    drop(cut, scan)
    assert "cut.hspy" in notices[0]
    assert names(viewer)[0] == "HAADF", "the file that can be read is opened"


def test_dialogs_of_the_spectrum(
    opened: Any, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[str]
) -> None:
    import hyperspy.api as hs

    panel = dock(opened, spectrum_panel.SpectrumPanel(opened), "bottom")
    answers: list[str] = []
    monkeypatch.setattr(spectrum_panel.QFileDialog, "getSaveFileName", lambda *_: (answers.pop(), ""))
    panel.export()
    assert "there is no spectrum to export" in notices[-1], "it is said before a file is asked for"
    panel.show_place(Place(session, 20, 12))
    for ending in ("csv", "png", "svg", "hspy"):
        answers.append(str(tmp_path / f"spectrum.{ending}"))
        panel.export()
        assert (tmp_path / f"spectrum.{ending}").stat().st_size > 1000
    assert imread(tmp_path / "spectrum.png").shape[1] > 900
    signal = hs.load(tmp_path / "spectrum.hspy")
    assert signal.data.size == session.image.energy.n_channels
    answers.append("")
    panel.export()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "spectrum.csv", "spectrum.hspy", "spectrum.png", "spectrum.svg", "spectrum_values.csv",
    ]  # fmt: skip
    answers.append(str(tmp_path / "spectrum.xyz"))
    panel.export()
    assert "the ending says the format" in notices[-1]
    answers.append(str(tmp_path / "missing" / "spectrum.png"))
    panel.export()
    assert "choose another folder" in notices[-1]


def test_dialogs_of_the_settings(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[str]
) -> None:
    panel = dock(viewer, analyse_panel.AnalysePanel(viewer))
    path = tmp_path / "settings.yaml"
    monkeypatch.setattr(analyse_panel.QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    monkeypatch.setattr(analyse_panel.QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    panel.forms["general"].widgets["seed",].set(11)
    panel.save_settings()
    panel.set_settings(Settings())
    panel.load_config()
    assert panel.settings().seed == 11
    path.write_text("fit_peaks: {tail_sdt: 0.1}\n", "utf-8")
    panel.load_config()
    assert "tail_sdt" in notices[-1]
    path.unlink()
    panel.load_config()
    assert "cannot be read" in notices[-1]
    assert panel.settings().seed == 11


def test_figures_are_saved(
    opened: Any, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[str]
) -> None:
    from phonon_eels.viewer import plots

    bench = workbench(opened)
    answers: list[str] = []
    monkeypatch.setattr(plots.QFileDialog, "getSaveFileName", lambda *_: (answers.pop(), ""))
    for panel, name in ((bench.modulation, "modulation.svg"), (bench.distributions, "distributions.png")):
        answers.append(str(tmp_path / name))
        panel.save()
        assert (tmp_path / name).stat().st_size > 5000
    answers.append(str(tmp_path / "figure.txt"))
    bench.modulation.save()
    assert "use one of .png, .svg, .pdf" in notices[-1]


def test_every_key_does_what_its_button_says(opened: Any, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys as they are typed; those that open dialogs, run or draw are looked at for being called."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    called: list[str] = []
    for panel, actions in (
        (spectrum_panel.SpectrumPanel, ("fit_region", "draw_region", "clear_pins", "export", "release")),
        (analyse_panel.AnalysePanel, [action for _, action, _ in analyse_panel.SHORTCUTS]),
    ):
        for action in actions:
            monkeypatch.setattr(panel, action, lambda self, action=action: called.append(action))
    bench = workbench(opened)
    bench.tabs.setCurrentWidget(bench.analyse)
    window = opened.window._qt_window
    window.activateWindow()
    wait_until(window.isActiveWindow, 20.0)
    shown = bench.spectrum

    def press(keys: str) -> None:
        modifiers = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
        QTest.keyClick(window, getattr(Qt.Key, f"Key_{keys[-1]}"), modifiers)
        let_qt_work(0.02)

    before = (shown.log_button.isChecked(), shown.subtract_button.isChecked(), shown.side.currentText())
    for key in ("Ctrl+Alt+L", "Ctrl+Alt+B", "Ctrl+Alt+G"):
        press(key)
    after = (shown.log_button.isChecked(), shown.subtract_button.isChecked(), shown.side.currentText())
    assert all(a != b for a, b in zip(before, after, strict=True))
    press("Ctrl+Alt+W")
    assert shown.window_button.isChecked()
    for keys, action, _ in (*spectrum_panel.SHORTCUTS, *analyse_panel.SHORTCUTS):
        if action not in ("log", "subtract", "next_side", "window"):
            press(keys)
            assert called[-1] == action, keys
