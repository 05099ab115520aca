"""How long the spectrum panel takes from a mouse move to the painted spectrum, on 256 × 256 positions × 1024 channels.

The window is napari's with the whole workbench, 1366 × 768. Every move is a mouse event given to the canvas, to another, random
position: napari's own work on it, reading from disk, fitting six modes, drawing, painting and flushing to the screen are all in
it. The peer, in the same run, is what a plot by matplotlib costs: the same curves drawn anew by its fast renderer (Agg), without
reading, fitting or putting them on the screen.

    python benchmarks/bench_viewer_hover.py [--quick]

Needs a screen (or `xvfb-run -s "-screen 0 1366x768x24"` before it).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

warnings.simplefilter("ignore")

TARGET_MS = 50.0
MOVES = 200


def make_results(folder: Path, rows: int, columns: int, channels: int) -> Any:
    """Write a scan of that size and return its session, with the sample's own model put over it.

    The fit of the whole scan would take minutes and is not what is timed; the model of the sample's mean spectrum is the
    one that a run would hand over.
    """
    from phonon_eels import simulate
    from phonon_eels.backends.select import select_backend
    from phonon_eels.config import Settings, SimulationSettings, load_material
    from phonon_eels.io.cubes import read_image, write_image
    from phonon_eels.steps.align_zlp import align_zlp
    from phonon_eels.steps.fit_peaks import fit_peaks
    from phonon_eels.steps.spec import StepContext
    from phonon_eels.viewer.sessions import Session

    settings, material, backend = Settings(), load_material("bi2212"), select_backend("cpu")
    energy = {"offset_mev": -62.0, "dispersion_mev": 0.2, "channels": channels}
    small = simulate.simulate(
        SimulationSettings.model_validate({"scan": {"rows": 16, "columns": 16}, "energy": energy}), material
    ).image
    context = StepContext(material=material, backend=backend)
    peaks = align_zlp(small, settings.align_zlp, context)
    fitted = fit_peaks(
        small,
        settings.fit_peaks,
        StepContext(
            material=material, backend=backend, maps={"align_zlp": peaks.maps}, summaries={"align_zlp": peaks.summary}
        ),
    )
    repeat = (-(-rows // 16), -(-columns // 16))
    counts = np.tile(np.asarray(small.counts), (*repeat, 1))[:rows, :columns]
    scan = tuple(type(axis)(axis.name, axis.step_nm, n) for axis, n in zip(small.scan, (rows, columns), strict=True))
    write_image(small.with_(counts=counts, scan=scan, haadf=None, bad=None), folder)

    def whole(maps: Any) -> Any:
        return tile_maps(maps, repeat, rows, columns)

    from phonon_eels.spectrum_image import StepResult

    results = {
        "align_zlp": StepResult(maps=whole(peaks.maps), summary=peaks.summary),
        "fit_peaks": StepResult(maps=whole(fitted.maps), tables=fitted.tables, summary=fitted.summary),
    }
    return Session("bench", read_image(folder), None, folder, settings, material, results)


def tile_maps(maps: Any, repeat: tuple[int, int], rows: int, columns: int) -> Any:
    """Repeat maps over a larger scan."""
    import xarray as xr

    tiled = {}
    for name, array in maps.data_vars.items():
        reps = (1,) * (array.ndim - 2) + repeat
        tiled[name] = (array.dims, np.tile(array.values, reps)[..., :rows, :columns], array.attrs)
    scan = {dimension for array in maps.data_vars.values() for dimension in array.dims[-2:]}
    return xr.Dataset(tiled, {name: c for name, c in maps.coords.items() if not scan & set(c.dims)})


class Paints:
    """Counts how often the plot was painted to its end."""

    def __init__(self, area: Any) -> None:
        from pyqtgraph import GraphicsView

        self.number, original = 0, GraphicsView.paintEvent

        def paint(view: Any, event: Any) -> None:
            original(view, event)
            self.number += view is area

        GraphicsView.paintEvent = paint


class Hand:
    """Moves the mouse over the canvas of a viewer."""

    def __init__(self, viewer: Any, session: Any) -> None:
        self.qt = viewer.window._qt_viewer.canvas
        corner, far = (np.array(self.qt._map_canvas2world((x, x), self.qt.view)[-2:]) for x in (0, 100))
        self.corner_nm, self.nm_per_pixel = corner, (far - corner) / 100.0
        self.session = session

    def move(self, row: int, column: int) -> None:
        """Give the canvas the event of a mouse at a position of the scan."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        native, scale = self.qt.native, self.session.scale_nm
        y, x = (np.array([row * scale[0], column * scale[1]]) - self.corner_nm) / self.nm_per_pixel
        assert 0 <= x < native.width()
        assert 0 <= y < native.height()
        where = QPointF(x, y)
        nothing = (Qt.MouseButton.NoButton, Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier)
        event = QMouseEvent(QEvent.Type.MouseMove, where, native.mapToGlobal(where), *nothing)
        QApplication.sendEvent(native, event)


def time_moves(viewer: Any, panel: Any, session: Any, moves: int) -> tuple[np.ndarray, np.ndarray]:
    """Return milliseconds, and milliseconds of processors, of every move: from the mouse event until the plot is on the screen."""
    from qtpy.QtGui import QGuiApplication
    from qtpy.QtWidgets import QApplication

    rng, paints, hand = np.random.default_rng(1), Paints(panel.plot._area), Hand(viewer, session)
    taken, used = [], []
    for row, column in rng.integers((0, 0), session.shape, (moves + 5, 2)):
        rest = time.perf_counter() + 0.06  # what the last move left to napari, such as the words in its status bar
        while time.perf_counter() < rest:
            QApplication.processEvents()
            time.sleep(0.002)
        start, processors, drawn = time.perf_counter(), time.process_time(), panel.plot.last
        hand.move(row, column)
        while panel.plot.last is drawn:
            QApplication.processEvents()
        before = paints.number
        while paints.number == before:
            QApplication.processEvents()
        QGuiApplication.sync()  # until the screen has it
        taken.append(1e3 * (time.perf_counter() - start))
        used.append(1e3 * (time.process_time() - processors))
        assert (panel.place.row, panel.place.column) == (row, column)
    return np.array(taken[5:]), np.array(used[5:])  # the first ones load compiled code


def time_napari(viewer: Any, panel: Any, session: Any, moves: int) -> np.ndarray:
    """Return the milliseconds of processors that napari itself spends on a move, status bar included, with our panel hidden."""
    from qtpy.QtWidgets import QApplication

    panel.parentWidget().hide()
    settle()
    used, hand = [], Hand(viewer, session)
    for row, column in np.random.default_rng(3).integers((0, 0), session.shape, (moves, 2)):
        processors, rest = time.process_time(), time.perf_counter() + 0.1
        hand.move(row, column)
        while time.perf_counter() < rest:
            QApplication.processEvents()
            time.sleep(0.002)
        used.append(1e3 * (time.process_time() - processors))
    panel.parentWidget().show()
    return np.array(used)


def time_matplotlib(shown: Any, moves: int) -> np.ndarray:
    """Return the milliseconds that matplotlib's Agg takes to draw the same curves, residuals included."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.1), dpi=100)
    canvas = FigureCanvasAgg(figure)
    main, below = figure.subplots(2, 1, sharex=True, height_ratios=(7, 3))
    fit, taken = shown.fit, []
    main.set_yscale("log")
    for _ in range(moves):
        start = time.perf_counter()
        for axes in (main, below):
            while axes.lines:
                axes.lines[0].remove()
        main.step(shown.energy_loss_mev, np.maximum(shown.counts_e, 0.3), "gray")
        for values in (fit.model_e, *fit.components_e.values()):
            main.plot(fit.energy_loss_mev, np.maximum(values, 1e-3))
        below.step(fit.energy_loss_mev, fit.residual_sigma)
        canvas.draw()
        taken.append(1e3 * (time.perf_counter() - start))
    return np.array(taken)


def words(name: str, taken: np.ndarray) -> str:
    """Return a line of the table."""
    values = [*np.percentile(taken, [0, 50, 95]), taken.max()]
    return f"{name:46s} " + " ".join(f"{value:7.1f}" for value in values)


def settle(ready: Callable[[], bool] = lambda: True, seconds: float = 1.0) -> None:
    """Let Qt work until something is so, and a while longer."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not ready() or time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def main() -> int:
    """Time it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 × 64 positions and few moves")
    size, moves = ((64, 64), 40) if (quick := parser.parse_args().quick) else ((256, 256), MOVES)
    try:
        import napari

        from phonon_eels.viewer.layers import layers_of
        from phonon_eels.viewer.workbench import Workbench
    except ImportError as problem:
        print(f"not run: {problem}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        session = make_results(Path(name), *size, 1024)
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1366, 768)
        bench = Workbench(viewer)
        viewer.window.add_dock_widget(bench, area="right")
        settle(lambda: bench.spectrum is not None and bench.spectrum.isVisible())
        for data, keywords, kind in layers_of(session):
            getattr(viewer, f"add_{kind}")(data, **keywords)
        settle()
        viewer.reset_view()
        settle()
        panel = bench.spectrum
        session.fitter  # noqa: B018 (built once, when the first spectrum is shown)
        taken, used = time_moves(viewer, panel, session, moves)
        bench.tabs.setCurrentWidget(bench.distributions)
        settle()
        beside, _ = time_moves(viewer, panel, session, moves)
        assert panel.plot.last.fit is not None
        alone = time_napari(viewer, panel, session, max(moves // 4, 5))
        peer = time_matplotlib(panel.plot.last, max(moves // 4, 5))
        read = [
            timed(lambda p=p: session.spectra.at(*p)) for p in np.random.default_rng(2).integers(0, size, (moves, 2))
        ]
        fit = [
            timed(lambda p=p: session.fit_position(*p)) for p in np.random.default_rng(2).integers(0, size, (moves, 2))
        ]
        viewer.close()
    print(
        f"{size[0]} x {size[1]} positions x 1024 channels, six modes; milliseconds, {moves} moves to random positions"
    )
    print(f"{'':46s} {'min':>7s} {'median':>7s} {'95 %':>7s} {'max':>7s}")
    print(words("move to painted spectrum", taken))
    print(words("  the same in processor time, all threads", used))
    print(words("the same with Distributions in view", beside))
    print(words("napari alone, processor time until it is idle", alone))
    print(words("  of it reading", np.array(read)))
    print(words("  of it reading (again) and fitting", np.array(fit)))
    print(words("matplotlib Agg, drawing alone", peer))
    print(f"ratio of minima, matplotlib's drawing / all of ours: {peer.min() / taken.min():.1f}")
    if not quick:
        print(f"95 % of the moves within {TARGET_MS:g} ms: {'yes' if np.percentile(taken, 95) < TARGET_MS else 'NO'}")
    return 0


def timed(work: Any) -> float:
    """Return the milliseconds that something takes."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
