"""All maps of results become layers, without the window having to wait for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phonon_eels.viewer import filling
from phonon_eels.viewer.layers import layers_of, session_of
from phonon_eels.viewer.linking import ViewerLink
from phonon_eels.viewer.maps_panel import MapsPanel
from phonon_eels.viewer.opening import open_results
from phonon_eels.viewer.reading import read_layers
from phonon_eels.viewer.sessions import Session
from tests.viewer.conftest import wait_until
from tests.viewer.hands import dock


@pytest.fixture
def coming(viewer: Any, results: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The results as napari opens them, the first maps shown."""
    monkeypatch.setattr(filling, "PAUSE_MS", 20)
    for data, keywords, kind in read_layers(str(results)):
        getattr(viewer, f"add_{kind}")(data, **keywords)
    found = session_of(viewer.layers[0])
    assert found is not None
    return found


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers]


def fillings() -> list[Any]:
    from qtpy.QtWidgets import QApplication

    return QApplication.instance().findChildren(filling._Filling)


def test_every_map_arrives_in_its_place_and_again_with_new_results(viewer: Any, coming: Session, results: Path) -> None:
    first, active = names(viewer), viewer.layers.selection.active
    shown = [layer.name for layer in viewer.layers if layer.visible]
    wanted = [keywords["name"] for _, keywords, _ in layers_of(coming)]
    assert len(first) < 10 < len(wanted)
    wait_until(lambda: not coming.to_come)
    assert names(viewer) == wanted
    assert viewer.layers.selection.active is active
    assert [layer.name for layer in viewer.layers if layer.visible] == shown
    wait_until(lambda: not fillings())

    # What was visible is so at once, what was there comes again, what was taken away does not.
    gone, visible = wanted[12], wanted[20]
    viewer.layers.remove(gone)
    viewer.layers[visible].visible = True
    again, link = open_results(results), ViewerLink(viewer)
    link.show_session(again)
    link.close()
    assert len(viewer.layers) < 12
    assert viewer.layers[visible].visible
    assert sorted([*names(viewer), *again.to_come]) == sorted(name for name in wanted if name != gone)
    filling.fill(again, viewer)
    wait_until(lambda: len(viewer.layers) > 14)
    assert names(viewer) == [name for name in wanted if name in names(viewer)]
    assert {session_of(layer) for layer in viewer.layers} == {again}


def test_what_the_user_takes_away_stays_away(viewer: Any, coming: Session) -> None:
    panel = dock(viewer, MapsPanel(viewer))
    wait_until(lambda: len(viewer.layers) > 11)
    wait_until(lambda: "follow" in panel.words.text())
    gone, soon = viewer.layers[-1].name, coming.to_come[2]
    panel.remove(gone, soon)
    wait_until(lambda: len(viewer.layers) > 14)
    assert not {gone, soon} & set(names(viewer))
    panel.remove(*panel.rows)
    wait_until(lambda: not fillings())
    assert not viewer.layers


def test_closing_the_scan_ends_it(viewer: Any, coming: Session) -> None:
    assert fillings()
    viewer.layers.clear()
    wait_until(lambda: not fillings())
    assert not coming.to_come
