"""napari opens what the manifest promises; modulation, distributions and the workbench in a real window."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonon_eels.viewer.linking import SELECTION
from phonon_eels.viewer.opening import open_path
from phonon_eels.viewer.sessions import Session
from tests.viewer.conftest import let_qt_work, wait_until
from tests.viewer.hands import add, click, dock, move, workbench, world


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
    assert len(panel.describe()[0].marks) == 1


def test_workbench_has_everything_and_leaves_nothing(opened: Any, session: Session) -> None:
    bench = workbench(opened)
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
    bench = workbench(opened)
    bench.spectrum.window_button.setChecked(True)
    bench.spectrum.region.setCurrentText("whole scan")
    bench.spectrum.fit_region()


def test_panels_wait_for_a_scan(viewer: Any, notices: list[str]) -> None:
    bench = workbench(viewer)
    viewer.add_image(np.zeros((5, 5)), name="of others")
    move(viewer, (2.0, 2.0))
    click(viewer, (2.0, 2.0))
    bench.spectrum.fit_region()
    assert "no scan is open" in notices[-1]
    notices.clear()
    bench.spectrum.window_button.setChecked(True)
    assert "no scan is open" in notices[-1]
    assert not bench.spectrum.window_button.isChecked()
    assert bench.spectrum.place is None
    for panel, words in (
        (bench.modulation, "run measure_modulation in the panel Analyse"), (bench.distributions, "open a results folder"),
    ):  # fmt: skip
        panel.save()
        assert words in notices[-1]


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
    sessions = open_path(tmp_path / "results")
    assert [session.name for session in sessions] == ["modulated"]
    assert sessions[0].settings.seed == 3
    add(viewer, sessions[0])
    bench = workbench(viewer)
    move(viewer, world(sessions[0], 40, 20))
    assert bench.spectrum.plot.last.fit.good
    assert "Primary test: <b>claim" in bench.modulation.words.text()
    assert bench.analyse.settings().seed == 3
