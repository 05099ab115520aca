"""The analyse panel in a real napari window: form, run, cancel, configuration, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phonon_eels.config import Settings
from phonon_eels.viewer import forms
from phonon_eels.viewer.layers import session_of
from phonon_eels.viewer.opening import open_path
from tests.viewer.conftest import wait_until
from tests.viewer.hands import add, dock, world


@pytest.fixture
def analyse(viewer: Any, scan: Path, tmp_path: Path) -> Any:
    from phonon_eels.viewer.analyse_panel import AnalysePanel

    add(viewer, open_path(scan)[0])
    panel = dock(viewer, AnalysePanel(viewer))
    panel.output.setText(str(tmp_path / "results"))
    return panel


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


@pytest.mark.slow
def test_what_was_found_by_hand_runs_in_the_batch_unchanged(analyse: Any, scan: Path, tmp_path: Path) -> None:
    """A setting changed in the form, the step run there; what is copied, given to the command line, gives the same bytes."""
    from qtpy.QtWidgets import QApplication

    from phonon_eels.cli import main
    from phonon_eels.io.results import read_maps

    analyse.forms["fit_peaks"].widgets["fit_peaks", "background"].set("linear")
    analyse.run_to_step()
    wait_until(lambda: analyse.run_all_button.isEnabled())
    analyse.copy_config()
    (tmp_path / "config.yaml").write_text(QApplication.clipboard().text(), "utf-8")
    words = [
        "run",
        str(scan),
        "--output",
        str(tmp_path / "batch"),
        "--config",
        str(tmp_path / "config.yaml"),
        "--quiet",
    ]
    assert main(words) == 0
    by_hand, batch = (
        read_maps(tmp_path / where / "corner" / "fit_peaks" / "maps.nc") for where in ("results", "batch")
    )
    assert set(by_hand) == set(batch)
    for name in batch:
        assert by_hand[name].values.tobytes() == batch[name].values.tobytes(), name


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


@pytest.mark.slow
def test_the_whole_chain_runs_to_its_end(analyse: Any, viewer: Any, notices: list[str]) -> None:
    from phonon_eels.steps.registry import steps_of_route

    seen: list[str] = []
    progressed = analyse._progressed
    analyse._progressed = lambda *words: (seen.append(words[0]), progressed(*words))
    analyse.run_all()
    wait_until(lambda: analyse.run_all_button.isEnabled(), 900.0)
    steps = [entry.name for entry in steps_of_route("forward")]
    assert list(dict.fromkeys(seen)) == steps, "the bar says which step runs"
    session = session_of(viewer.layers["CuO78 energy (meV)"])
    assert session is not None
    assert session.folder is not None
    assert sorted(session.results) == sorted(steps)
    assert (session.folder / "report" / "report.html").is_file()
    assert "superstructure phase (rad)" in viewer.layers
    assert "done" in analyse.words.text()
    assert not notices


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
    assert "is no folder of results" in notices[-1]
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
