"""The panels in a real napari window: load, hover, click, pin, region, window, run, cancel, configuration, results."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.viewer import forms
from phonon_eels.viewer.layers import layers_of, session_of
from phonon_eels.viewer.linking import PINS, SELECTION, Place
from phonon_eels.viewer.sessions import Session, open_path
from tests.viewer.conftest import let_qt_work, wait_until


def add(viewer: Any, session: Session) -> None:
    for data, keywords, kind in layers_of(session):
        getattr(viewer, f"add_{kind}")(data, **keywords)


def dock(viewer: Any, panel: Any, area: str = "right") -> Any:
    viewer.window.add_dock_widget(panel, area=area, name=type(panel).__name__)
    viewer.window._qt_window.show()
    wait_until(panel.isVisible)
    let_qt_work()
    return panel


def world(session: Session, row: float, column: float) -> tuple[float, float]:
    scale, axes = session.scale_nm, session.image.scan
    return (axes[0].offset_nm + row * scale[0], axes[1].offset_nm + column * scale[1])


def move(viewer: Any, place: tuple[float, float]) -> None:
    event = SimpleNamespace(position=place, type="mouse_move", modifiers=())
    for callback in list(viewer.mouse_move_callbacks):
        callback(viewer, event)
    let_qt_work(0.05)


def click(viewer: Any, place: tuple[float, float], *modifiers: str) -> None:
    event = SimpleNamespace(position=place, type="mouse_press", modifiers=modifiers, button=1)
    running = [g for callback in list(viewer.mouse_drag_callbacks) if hasattr(g := callback(viewer, event), "__next__")]
    for generator in running:
        next(generator, None)
    event.type = "mouse_release"
    for generator in running:
        next(generator, None)
    let_qt_work(0.05)


@pytest.fixture
def spectrum(opened: Any) -> Any:
    from phonon_eels.viewer.spectrum_panel import SpectrumPanel

    return dock(opened, SpectrumPanel(opened), "bottom")


@pytest.fixture
def analyse(viewer: Any, scan: Path, tmp_path: Path) -> Any:
    from phonon_eels.viewer.analyse_panel import AnalysePanel

    add(viewer, open_path(scan)[0])
    panel = dock(viewer, AnalysePanel(viewer))
    panel.output.setText(str(tmp_path / "results"))
    return panel


# --- napari opens what the manifest promises -----------------------------------------------------------------------


def test_manifest_and_what_it_names(screen: None, repository: Path) -> None:
    from npe2 import PluginManifest
    from qtpy.QtWidgets import QWidget

    manifest = PluginManifest.from_file(repository / "phonon_eels" / "viewer" / "napari.yaml")
    manifest.validate_imports()
    commands = {command.id: command.python_name for command in manifest.contributions.commands or ()}
    for widget in manifest.contributions.widgets or ():
        module, _, name = str(commands[widget.command]).partition(":")
        assert issubclass(getattr(__import__(module, fromlist=[name]), name), QWidget)


def test_napari_opens_files_results_and_samples(viewer: Any, scan: Path, results: Path, repository: Path) -> None:
    from npe2 import PluginManager, PluginManifest

    manager = PluginManager.instance()
    manifest = PluginManifest.from_file(repository / "phonon_eels" / "viewer" / "napari.yaml")
    if manifest.name not in manager:
        manager.register(manifest)
    viewer.open(str(scan), plugin="phonon-eels")
    assert [layer.name for layer in viewer.layers] == ["HAADF", "window 73.0 … 83.0 meV (e⁻)"]
    assert str(viewer.layers[0].units[0]) == "nanometer"
    viewer.layers.clear()
    viewer.open(str(results), plugin="phonon-eels")
    assert "CuO78 energy (meV)" in viewer.layers
    viewer.layers.clear()
    viewer.open_sample("phonon-eels", "bi2212_null")
    assert viewer.layers["HAADF"].data.shape == (112, 64)
    # napari draws lazily: this reads the counts.
    viewer.layers[1].visible = True
    assert np.isfinite(np.asarray(viewer.layers[1].data)).all()


# --- the spectrum panel ---------------------------------------------------------------------------------------------


def test_hover_shows_the_position(spectrum: Any, opened: Any, session: Session) -> None:
    move(opened, world(session, 20, 12))
    assert (spectrum.place.row, spectrum.place.column) == (20, 12)
    shown = spectrum.plot.last
    assert shown.fit.mode_names == ("Sr22", "BiO38", "CuO42", "BiO57", "SrO67", "CuO78")
    assert np.array_equal(shown.counts_e, session.spectra.at(20, 12)[0], equal_nan=True)
    assert "row 20, column 12" in spectrum.values.text()
    assert "±" in spectrum.values.text()
    move(opened, (-5.0, 0.0))
    assert (spectrum.place.row, spectrum.place.column) == (20, 12), "outside of the scan nothing changes"


def test_click_holds_and_lets_go(spectrum: Any, opened: Any, session: Session) -> None:
    click(opened, world(session, 5, 6))
    assert spectrum.held
    move(opened, world(session, 30, 30))
    assert (spectrum.place.row, spectrum.place.column) == (5, 6)
    assert len(opened.layers[PINS].data) == 1
    click(opened, world(session, 5, 6))
    assert not spectrum.held
    assert PINS not in opened.layers
    move(opened, world(session, 30, 30))
    assert (spectrum.place.row, spectrum.place.column) == (30, 30)


def test_a_drag_is_no_click(spectrum: Any, opened: Any, session: Session) -> None:
    event = SimpleNamespace(position=world(session, 5, 6), type="mouse_press", modifiers=(), button=1)
    generator = spectrum.link._pressed(opened, event)
    next(generator)
    event.type, event.position = "mouse_move", world(session, 15, 6)
    next(generator, None)
    event.type = "mouse_release"
    next(generator, None)
    assert not spectrum.held


def test_pins_are_compared_and_marked(spectrum: Any, opened: Any, session: Session) -> None:
    active = opened.layers.selection.active
    for column in range(8):
        click(opened, world(session, 10, column), "Shift")
    assert len(spectrum.pins) == 6, "there are six colours"
    assert len({colour for _, colour in spectrum.pins}) == 6
    assert [place.column for place, _ in spectrum.pins] == [2, 3, 4, 5, 6, 7]
    layer = opened.layers[PINS]
    assert np.allclose(layer.data[-1], world(session, 10, 7))
    assert str(layer.units[0]) == "nanometer"
    assert opened.layers.selection.active is active
    assert len(spectrum.plot._pins) == 6
    spectrum.clear_pins()
    assert PINS not in opened.layers
    assert not spectrum.plot._pins


def test_region_of_a_layer_and_of_a_shape(spectrum: Any, opened: Any, session: Session) -> None:
    spectrum.region.setCurrentText("CuO2")
    spectrum.fit_region()
    wait_until(lambda: "sum of" in spectrum.values.text())
    assert spectrum.plot.last.fit.good
    spectrum.draw_region()
    layer = opened.layers["regions"]
    assert layer.mode == "add_rectangle"
    corners = [world(session, r, c) for r, c in ((9.6, 4.6), (9.6, 14.4), (19.4, 14.4), (19.4, 4.6))]
    layer.add_rectangles([corners])
    wait_until(lambda: "drawn shape: sum of 100 positions" in spectrum.values.text())
    layer.add_paths([[world(session, 3, 3), world(session, 3, 12)]], edge_width=0.01)
    layer.selected_data = {1}
    spectrum.fit_region()
    wait_until(lambda: "drawn shape: sum of 10 positions" in spectrum.values.text())
    opened.layers.remove(layer)


def test_control_click_sums_the_layer_there(spectrum: Any, opened: Any, session: Session) -> None:
    maps = session.maps("assign_layers")
    assert maps is not None
    row, column = np.argwhere(maps["layer"].values == 3)[0]
    click(opened, world(session, int(row), int(column)), "Control")
    wait_until(lambda: "BiO: sum of" in spectrum.values.text())


def test_energy_window_updates_its_map(spectrum: Any, opened: Any, session: Session) -> None:
    spectrum.window_button.setChecked(True)
    wait_until(lambda: isinstance(opened.layers["window 73.0 … 83.0 meV (e⁻)"].data, np.ndarray))
    for high in (50.0, 48.0, 46.0):
        spectrum.plot.span.setRegion((35.0, high))
    wait_until(lambda: "window 35.0 … 46.0 meV (e⁻)" in opened.layers)
    layer = opened.layers["window 35.0 … 46.0 meV (e⁻)"]
    from phonon_eels.backends.select import select_backend

    assert np.array_equal(layer.data, session.window_map(35.0, 46.0, select_backend("cpu")))
    assert layer.visible
    assert sum(name.name.startswith("window") for name in opened.layers) == 1


def test_ways_to_draw_a_spectrum(spectrum: Any, opened: Any, session: Session) -> None:
    spectrum.show_place(Place(session, 20, 12))
    x0, x1 = spectrum.plot.main.vb.viewRange()[0]
    assert 0 < x0 < x1
    assert spectrum.plot.log
    spectrum.side.setCurrentText("gain side")
    assert spectrum.plot.main.vb.viewRange()[0][1] < 0
    spectrum.side.setCurrentText("both sides")
    spectrum.log_button.click()
    assert not spectrum.plot.log
    top = spectrum.plot.main.vb.viewRange()[1][1]
    assert top > np.nanmax(spectrum.plot.last.counts_e)
    spectrum.subtract_button.click()
    fit = spectrum.plot.last.fit
    drawn = spectrum.plot._sum.getData()[1]
    assert np.allclose(drawn, fit.model_e - fit.components_e["zlp"] - fit.components_e["background"])
    assert spectrum.plot.main.vb.viewRange()[1][1] < top


def test_export_from_the_panel(
    spectrum: Any, opened: Any, session: Session, tmp_path: Path, notices: list[str]
) -> None:
    spectrum.show_place(Place(session, 20, 12))
    spectrum.pin(Place(session, 21, 12))
    written = spectrum.export_to(tmp_path / "spectrum.csv")
    assert [path.name for path in written] == ["spectrum.csv", "spectrum_values.csv"]
    assert "pin: row 21" in written[0].read_text("utf-8")
    assert any("written" in notice for notice in notices)


# --- the analyse panel ----------------------------------------------------------------------------------------------


def test_form_shows_and_returns_settings(analyse: Any) -> None:
    assert analyse.settings() == Settings()
    settings = Settings.model_validate(
        {
            "seed": 4, "fit_peaks": {"tail_std": 0.0123456789}, "align_zlp": {"search_window_mev": [-10, 12.5]},
            "map_superstructure": {"antiphase_planes": False}, "ingest": {"signal": 0, "quality": "warn"},
            "subtract_zlp": {"windows_mev": [[10.0, 20.0]]}, "acquisition": {"geometry": "on-axis", "dark_level": -3.5},
        }
    )  # fmt: skip
    analyse.set_settings(settings)
    assert analyse.settings() == settings
    assert "fit_peaks ●" in [analyse.section.itemText(k) for k in range(analyse.section.count())]


def test_wrong_entries_turn_red_and_are_told(analyse: Any, notices: list[str]) -> None:
    widget = analyse.forms["fit_peaks"].widgets["fit_peaks", "tail_std"]
    for text, words in (("-1", "above 0"), ("much", "is not a number"), ("nan", "is not a number")):
        widget._lines[0].setText(text)
        assert widget._lines[0].styleSheet()
        analyse.run_all()
        assert words in notices[-1]
    assert analyse.section.currentData() == "fit_peaks"
    widget._lines[0].setText("0.03")
    assert not widget._lines[0].styleSheet()
    assert analyse.settings().fit_peaks.tail_std == 0.03


def test_copied_config_is_what_is_loaded(analyse: Any, tmp_path: Path) -> None:
    from qtpy.QtWidgets import QApplication

    analyse.forms["fit_peaks"].widgets["fit_peaks", "background"].set("linear")
    analyse.forms["general"].widgets["route",].set("classic")
    wanted = analyse.settings()
    analyse.copy_config()
    text = QApplication.clipboard().text()
    assert forms.read_config(text, "clipboard") == wanted
    analyse.set_settings(Settings())
    (tmp_path / "config.yaml").write_text(text, "utf-8")
    analyse.load_from(tmp_path / "config.yaml")
    assert analyse.settings() == wanted


def test_a_step_runs_and_its_maps_arrive(analyse: Any, viewer: Any) -> None:
    analyse.section.setCurrentIndex(analyse.section.findData("align_zlp"))
    analyse.run_to_step()
    assert not analyse.run_all_button.isEnabled()
    wait_until(lambda: analyse.run_all_button.isEnabled())
    assert "zero-loss shift (meV)" in viewer.layers
    assert [layer.name for layer in viewer.layers].count("HAADF") == 1, "the file's own layers gave way to the results'"
    session = session_of(viewer.layers["HAADF"])
    assert session is not None
    assert session.folder is not None
    assert session.folder.parent == Path(analyse.output.text())
    assert "done" in analyse.words.text()


def test_a_run_is_cancelled(analyse: Any, viewer: Any) -> None:
    analyse.run_all()
    wait_until(lambda: analyse.bar.format() != "")
    analyse.cancel()
    wait_until(lambda: analyse.run_all_button.isEnabled())
    assert "Cancelled" in analyse.words.text()
    folder = Path(analyse.output.text()) / "corner"
    assert not (folder / "fit_peaks" / "summary.json").exists()
    assert not analyse.cancel_button.isEnabled()


def test_a_region_runs_alone(analyse: Any, viewer: Any) -> None:
    session = analyse.link.session()
    viewer.add_shapes(
        [[world(session, r, c) for r, c in ((9.6, 4.6), (9.6, 24.4), (29.4, 24.4), (29.4, 4.6))]],
        units=("nm", "nm"),
        name="regions",
    )
    analyse.only_region.setChecked(True)
    analyse.section.setCurrentIndex(analyse.section.findData("ingest"))
    analyse.run_to_step()
    wait_until(lambda: analyse.run_all_button.isEnabled())
    made = [found for layer in viewer.layers if (found := session_of(layer)) is not None and found is not session]
    assert {found.name for found in made} == {"corner_rows10-29_columns5-24"}
    assert viewer.layers[-1].translate == pytest.approx(world(session, 10, 5))


def test_what_goes_wrong_is_told_in_words(analyse: Any, viewer: Any, notices: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    analyse.output.setText(str(tmp_path / "file"))
    analyse.section.setCurrentIndex(analyse.section.findData("ingest"))
    analyse.run_to_step()
    wait_until(lambda: analyse.run_all_button.isEnabled())
    assert "choose another results folder" in notices[-1]
    analyse.section.setCurrentIndex(analyse.section.findData("deconvolve"))
    analyse.run_to_step()
    assert "does not belong to route = forward" in notices[-1]
    analyse.only_region.setChecked(True)
    analyse.run_all()
    assert "no region is drawn" in notices[-1]
    viewer.layers.clear()
    analyse.run_all()
    assert "no scan is open" in notices[-1]


def test_an_unexpected_error_does_not_reach_napari(analyse: Any, notices: list[str]) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by zero")

    analyse.settings = broken
    analyse.run_all()
    assert "did not expect this (ZeroDivisionError: by zero)" in notices[-1]


# --- modulation and distributions -----------------------------------------------------------------------------------


def test_phase_bins_light_up_and_the_image_answers(opened: Any, session: Session) -> None:
    from phonon_eels.viewer.modulation_panel import ModulationPanel
    from phonon_eels.viewer.regions import layer_mask

    panel = dock(opened, ModulationPanel(opened))
    assert panel.pair.currentData() == ("CuO78", "CuO2")
    assert "amplitude" in panel.words.text()
    panel.choose_bin(2)
    chosen = np.asarray(opened.layers[SELECTION].data).astype(bool)
    assert chosen.any()
    assert not (chosen & ~layer_mask(session, "CuO2")).any()
    wave = session.maps("map_superstructure")
    assert wave is not None
    away = np.angle(np.exp(1j * (wave["phase_rad"].values[chosen] - panel._phases[2])))
    assert np.abs(away).max() < np.pi / 4
    row, column = np.argwhere(chosen)[0]
    move(opened, world(session, int(row), int(column)))
    assert panel.mark.isVisible()
    assert abs(np.angle(np.exp(1j * (panel.mark.value() - panel._phases[2])))) < np.pi / 4
    panel.choose_bin(2)
    assert SELECTION not in opened.layers
    panel.pair.setCurrentIndex(panel.pair.findText("BiO57 in BiO"))
    assert "planes" in panel.words.text()


def test_modulation_says_why_there_is_none(viewer: Any, session: Session) -> None:
    from phonon_eels.viewer.modulation_panel import ModulationPanel

    panel = dock(viewer, ModulationPanel(viewer))
    assert "run measure_modulation" in panel.words.text()
    without = {step: result for step, result in session.results.items() if step != "measure_modulation"}
    material = session.material.model_copy(update={"gap": None})
    add(viewer, dataclasses.replace(session, results=without, material=material))
    let_qt_work()
    assert "run measure_modulation" in panel.words.text()


def test_histogram_and_scatter_select_positions(opened: Any, session: Session) -> None:
    from phonon_eels.viewer.distributions_panel import DistributionsPanel

    panel = dock(opened, DistributionsPanel(opened))
    assert (panel.map_x.currentText(), panel.map_y.currentText()) == ("CuO78 energy (meV)", "CuO78 area (e⁻)")
    maps = session.maps("fit_peaks")
    assert maps is not None
    energy = maps["energy_mev"].sel(mode="CuO78").values
    area = maps["area_e"].sel(mode="CuO78").values
    assert SELECTION not in opened.layers
    panel.span.setRegion((78.0, 78.5))
    wait_until(lambda: SELECTION in opened.layers)
    assert np.array_equal(np.asarray(opened.layers[SELECTION].data) == 1, (energy >= 78.0) & (energy <= 78.5))
    panel.box.setPos((77.0, 500.0))
    panel.box.setSize((1.0, 600.0))
    wanted = (energy >= 77.0) & (energy <= 78.0) & (area >= 500.0) & (area <= 1100.0)
    wait_until(lambda: np.array_equal(np.asarray(opened.layers[SELECTION].data) == 1, wanted))
    row, column = np.argwhere(np.isfinite(energy))[0]
    move(opened, world(session, int(row), int(column)))
    assert panel._here.getData()[0][0] == pytest.approx(energy[row, column])
    panel.map_y.setCurrentText("zero-loss FWHM (meV)")
    assert SELECTION not in opened.layers
    panel.by_layer.setChecked(False)
    assert len(panel.histogram.listDataItems()) == 1


def test_workbench_has_everything_and_leaves_nothing(opened: Any, session: Session) -> None:
    from phonon_eels.viewer.workbench import Workbench

    bench = dock(opened, Workbench(opened))
    wait_until(lambda: bench.spectrum is not None)
    assert opened.canvas.overlays.scale_bar.visible
    bench.spectrum.region.setCurrentText("whole scan")
    bench.spectrum.fit_region()
    wait_until(lambda: "whole scan: sum of" in bench.spectrum.values.text())
    before = len(opened.mouse_move_callbacks)
    assert before >= 3
    # Closing the docks takes the panels' ears off the image; that threads and widgets go, the fixture asserts.
    opened.window.remove_dock_widget("all")
    wait_until(lambda: not opened.mouse_move_callbacks, 5.0)


def test_the_viewer_closes_while_work_goes_on(opened: Any, session: Session) -> None:
    from phonon_eels.viewer.workbench import Workbench

    bench = dock(opened, Workbench(opened))
    wait_until(lambda: bench.spectrum is not None)
    bench.spectrum.window_button.setChecked(True)
    bench.spectrum.region.setCurrentText("whole scan")
    bench.spectrum.fit_region()


def test_panels_wait_for_a_scan(viewer: Any, notices: list[str]) -> None:
    from phonon_eels.viewer.workbench import Workbench

    bench = dock(viewer, Workbench(viewer))
    wait_until(lambda: bench.spectrum is not None)
    viewer.add_image(np.zeros((5, 5)), name="of others")
    move(viewer, (2.0, 2.0))
    click(viewer, (2.0, 2.0))
    bench.spectrum.fit_region()
    assert "no scan is open" in notices[-1]
    bench.spectrum.window_button.setChecked(True)
    assert bench.spectrum.place is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_results_of_the_snakemake_run_open(viewer: Any, repository: Path, tmp_path: Path) -> None:
    """What `make run` leaves, in a folder of its own."""
    import subprocess
    import sys

    import yaml

    sample = repository / "sample_data" / "bi2212_modulated.hspy"
    (tmp_path / "datasets.tsv").write_text(f"dataset\tpath\thaadf\tgroup\tnote\nmodulated\t{sample}\t\t\t\n")
    (tmp_path / "pipelines").mkdir()
    config = {"datasets": "datasets.tsv", "results": "results", "threads": 1, "settings": {"seed": 3}}
    (tmp_path / "pipelines" / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), "--cores", "2", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    from phonon_eels.viewer.workbench import Workbench

    sessions = open_path(tmp_path / "results")
    assert [session.name for session in sessions] == ["modulated"]
    assert sessions[0].settings.seed == 3
    add(viewer, sessions[0])
    bench = dock(viewer, Workbench(viewer))
    wait_until(lambda: bench.spectrum is not None)
    move(viewer, world(sessions[0], 40, 20))
    assert bench.spectrum.plot.last.fit.good
    assert "Primary test: <b>claim" in bench.modulation.words.text()
    assert bench.analyse.settings().seed == 3
