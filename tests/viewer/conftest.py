"""A screen for napari, a small scan with its results, and a viewer that must leave nothing behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.threaded
import pytest

ROWS, COLUMNS = 56, 40


def wait_until(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    """Let Qt work until something is so; kernels may have to be compiled before."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        QApplication.processEvents()
        time.sleep(0.005)


def let_qt_work(seconds: float = 0.1) -> None:
    """Let Qt do what is due."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A screen: the one that is there, else one of our own. Qt's "offscreen" has no OpenGL, which napari draws with."""
    os.environ["NAPARI_CONFIG"] = str(tmp_path_factory.mktemp("napari") / "settings.yaml")
    if os.environ.get("DISPLAY"):
        yield
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("no screen: set DISPLAY, or install Xvfb (Debian: apt-get install xvfb)")
    reader, writer = os.pipe()
    # It ends with its last client: ended by us, it would take Qt, and with it the tests, down.
    words = f"Xvfb -displayfd {writer} -terminate -screen 0 1366x768x24 -nolisten tcp >/dev/null 2>&1 & echo $!"
    started = subprocess.run(["sh", "-c", words], pass_fds=(writer,), stdout=subprocess.PIPE, text=True, check=True)
    os.close(writer)
    with os.fdopen(reader) as answer:
        number = answer.readline().strip()
    if not number:
        pytest.skip("no screen: Xvfb did not start")
    os.environ["DISPLAY"] = f":{number}"
    yield
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:  # nobody connected, so nobody leaves
        os.kill(int(started.stdout), signal.SIGTERM)
    del os.environ["DISPLAY"]


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A corner of the modulated sample as a file."""
    from phonon_eels.io.export import write_hspy
    from phonon_eels.io.read import read
    from phonon_eels.viewer.sessions import crop

    image = read(repository / "sample_data" / "bi2212_modulated.hspy")
    path = tmp_path_factory.mktemp("scan") / "corner.hspy"
    return write_hspy(crop(image, (0, ROWS), (0, COLUMNS)), path)


@pytest.fixture(scope="session")
def results(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of that scan, report left out."""
    from phonon_eels import pipeline

    folder = tmp_path_factory.mktemp("results") / "corner"
    for step in (
        *("ingest", "register_frames", "remove_spikes", "align_zlp", "calibrate", "fit_peaks"),
        *("assign_layers", "map_superstructure", "measure_modulation"),
    ):
        pipeline.run_step(folder, step, input_path=scan if step == "ingest" else None)
    return folder


@pytest.fixture(scope="session")
def session(results: Path) -> Any:
    """The results, opened; nothing in it can be changed."""
    from phonon_eels.viewer.opening import open_path

    return open_path(results)[0]


@pytest.fixture
def notices() -> Iterator[list[str]]:
    """What napari was asked to show."""
    from napari.utils.notifications import notification_manager

    told: list[str] = []

    def listen(notification: Any) -> None:
        told.append(notification.message)

    notification_manager.notification_ready.connect(listen)
    yield told
    notification_manager.notification_ready.disconnect(listen)


@pytest.fixture
def viewer(screen: None, qapp: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A napari viewer; after the test no widget of it, no callback and no thread of ours may be left, nor a connection made.

    napari's own fixture comes with a plugin for all tests, which is switched off here.
    """
    import napari
    from qtpy.QtWidgets import QApplication

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"the viewer went to the network: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = set(map(id, QApplication.topLevelWidgets()))
    made = napari.Viewer(show=False, show_welcome_screen=False)
    monkeypatch.setattr(made.window._qt_window, "_save_current_window_settings", lambda: None)
    yield made
    made.close()
    del made
    for _ in range(3):
        let_qt_work(0.05)
        gc.collect()
    left = [type(w).__name__ for w in QApplication.topLevelWidgets() if id(w) not in before]
    ours = [name for name in left if name in OUR_WIDGETS]
    assert not ours, f"widgets were left behind: {ours}"
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("phonon-eels")]
    assert not threads, f"threads were left behind: {threads}"
    pools = [thread.name for thread in dask.threaded.pools if not thread.is_alive()]
    assert not pools, f"Dask keeps threads for threads that are gone: {pools}"


OUR_WIDGETS = {
    "SpectrumPanel",
    "MapsPanel",
    "AnalysePanel",
    "ModulationPanel",
    "DistributionsPanel",
    "Workbench",
    "SpectrumPlot",
}


@pytest.fixture
def opened(viewer: Any, session: Any) -> Any:
    """The viewer with the results in it, as they are opened."""
    from tests.viewer.hands import add

    add(viewer, session)
    return viewer
