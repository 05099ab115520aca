"""What a figure shows is decided in `figures`: paper (Matplotlib) and screen (pyqtgraph) draw the same description."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colors

from phonon_eels import figures
from phonon_eels.figures.distributions import histogram_panel, scatter_panel
from phonon_eels.figures.marks import Panel, Points, label_of
from phonon_eels.figures.paint import paint, plot_panels
from phonon_eels.figures.phase_panels import gap_panel, period_panel, phase_panel
from phonon_eels.figures.spectrum_panels import spectrum_panels
from phonon_eels.viewer.linking import Place
from phonon_eels.viewer.sessions import Session
from phonon_eels.viewer.spectrum_words import spectrum_columns
from tests.unit.figures import made_up
from tests.viewer.hands import dock

Curve = tuple[str, np.ndarray]
"""Colour and (2, n) finite points of something that is drawn."""


def described() -> dict[str, Panel]:
    """Every panel that is drawn both on paper and on the screen."""
    tables = made_up.tables(np.random.default_rng(0))["measure_modulation"]
    phases = np.linspace(-3.0, 3.0, 7)
    gap = tables["phase_bins"].iloc[:0].reindex(range(14)).assign(
        kind=["harmonic"] * 7 + ["measured"] * 7, phase_rad=[*phases, *phases + 6.0], gap_mev=np.linspace(30, 40, 14), gap_std_mev=1.0
    )  # fmt: skip
    table = made_up.mean_spectrum()
    counts = np.linspace(-60.0, 120.0, 400), np.random.default_rng(1).normal(20.0, 10.0, 400)
    pins = [("#0072B2", *counts)]
    energy, area = np.random.default_rng(2).normal(70.0, 1.0, (2, 20, 30))
    energy[3, 4] = np.nan
    groups = {"CuO2": area > np.nanmedian(area), "gap": area <= np.nanmedian(area)}
    return {
        "log": spectrum_panels(table, counts=counts, pins=pins)[0],
        "linear": spectrum_panels(table, view="linear", counts=counts, limits_mev=(10.0, 100.0))[0],
        "loss": spectrum_panels(table, view="loss")[0],
        "residual": spectrum_panels(table)[1],
        "phase": phase_panel(tables["phase_bins"], tables["amplitudes"], "CuO78", "CuO2"),
        "gap": gap_panel(gap),
        "period": period_panel(tables["period_scan"], period_nm=2.6, period_std_nm=0.1),
        "histogram": histogram_panel(energy, groups, "energy (meV)"),
        "scatter": scatter_panel(energy, area, groups, "energy (meV)", "area (e⁻)"),
    }


def on_paper(panel: Panel) -> tuple[list[Curve], dict[str, Any]]:
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    paint(ax, panel)
    rules = [line for line in ax.lines if len(line.get_xdata()) == 2]
    curves = [
        (colors.to_hex(line.get_color()), finite(line.get_xdata(), line.get_ydata(), panel.log_y))
        for line in ax.lines
        if line not in rules
    ]
    for patch in ax.patches:
        if type(patch).__name__ == "StepPatch" and not patch.get_fill():
            values, edges, _ = patch.get_data()
            middle = 0.5 * (edges[1:] + edges[:-1])
            curves.append((colors.to_hex(patch.get_edgecolor()), finite(middle, values, False)))
    legend = ax.get_legend()
    words = {
        "labels": [text.get_text() for text in legend.get_texts()] if legend else [],
        "axes": (ax.get_xlabel(), ax.get_ylabel()),
        "limits": (*ax.get_xlim(), *(np.log10(ax.get_ylim()) if panel.log_y else ax.get_ylim())),
        "ticks": [text.get_text() for text in ax.get_xticklabels()] if panel.x_ticks else [],
        "rules": sorted(float(line.get_xdata()[0] + line.get_ydata()[0] - line.get_ydata()[0]) if line.get_xdata()[0] == line.get_xdata()[1]
                        else float(line.get_ydata()[0]) for line in rules),
        "title": ax.get_title(),
    }  # fmt: skip
    return curves, words


def on_screen(panel: Panel) -> tuple[list[Curve], dict[str, Any]]:
    from phonon_eels.viewer.plots import Painter, pg, plot, plots
    from phonon_eels.viewer.strokes import Dots

    area = plots()
    item = plot(area, 0, 0)
    painter = Painter(item, legend=(0, 0))
    painter.paint(replace(panel, marks=panel.marks[:-1]))  # so that painting anew is in the test
    painter.paint(panel)
    curves: list[Curve] = []
    rules = []
    for mark in panel.marks:
        drawn = painter.items(mark)[-1]
        if isinstance(drawn, pg.InfiniteLine):
            rules.append(float(drawn.value()))
        elif isinstance(drawn, (pg.ScatterPlotItem, Dots)):
            curves.append((drawn.opts["brush"].color().name(), finite(*drawn.getData(), False)))
        elif isinstance(drawn, pg.PlotCurveItem):
            x, y = drawn.getData()
            x = 0.5 * (x[1:] + x[:-1]) if len(x) > len(y) else x
            curves.append((drawn.opts["pen"].color().name(), finite(x, y, False)))
    (x0, x1), (y0, y1) = item.vb.viewRange()
    ticks = item.getAxis("bottom")._tickLevels
    words = {
        "labels": [label.text for _, label in item.legend.items],
        "axes": (item.getAxis("bottom").labelText, item.getAxis("left").labelText),
        "limits": (x0, x1, y0, y1),
        "ticks": [word for _, word in ticks[0]] if ticks else [],
        "rules": sorted(rules),
        "title": item.titleLabel.text.replace("<br>", "\n") if item.titleLabel.isVisible() else "",
    }
    area.close()
    return curves, words


def finite(x: Any, y: Any, log: bool) -> np.ndarray:
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = np.isfinite(x) & np.isfinite(y) & (y > 0 if log else True)
    return np.stack([x[known], np.log10(y[known]) if log else y[known]])


def ordered(curves: list[Curve]) -> list[Curve]:
    """A description's order is that of drawing; an artist's kind may change the order in which it is found."""
    return sorted(curves, key=lambda one: (one[0].lower(), one[1].shape[1], tuple(one[1][1, :3])))


@pytest.mark.parametrize(
    "name", ["log", "linear", "loss", "residual", "phase", "gap", "period", "histogram", "scatter"]
)
def test_paper_and_screen_show_the_same(name: str, screen: None, qapp: Any) -> None:
    panel = described()[name]
    (paper, words), (here, said) = on_paper(panel), on_screen(panel)
    assert len(paper) == len(here) > 0
    for (colour, points), (shade, dots) in zip(ordered(paper), ordered(here), strict=True):
        assert colour.lower() == shade.lower()
        assert points.shape == dots.shape
        assert np.allclose(points, dots)
    # A rule's words stand in the title of the screen, where a legend entry would cover the data.
    rules = [label_of(mark) for mark in panel.marks if type(mark).__name__ == "Rule" and label_of(mark)]
    assert words["labels"] == [*said["labels"], *rules]
    assert "\n".join([part for part in (words["title"], *rules) if part]) == said["title"]
    assert words["axes"] == said["axes"]
    assert words["ticks"] == said["ticks"]
    assert words["limits"] == pytest.approx(said["limits"])
    assert words["rules"] == pytest.approx(said["rules"])


def test_bars_reach_as_far_on_the_screen(screen: None, qapp: Any) -> None:
    from phonon_eels.viewer.plots import Painter, plot, plots

    panel = described()["phase"]
    area = plots()
    painter = Painter(plot(area, 0, 0))
    painter.paint(panel)
    points = next(mark for mark in panel.marks if isinstance(mark, Points))
    assert points.std is not None
    ends = painter.items(points)[0].getData()[1].reshape(-1, 2)
    assert np.allclose(ends, np.stack([points.y - points.std, points.y + points.std], axis=1))
    area.close()


def same(one: Panel, other: Panel) -> bool:
    """Whether two descriptions are equal in everything."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, np.ndarray):
            return isinstance(b, np.ndarray) and np.array_equal(a, b, equal_nan=True)
        return bool(a == b)

    rest = all(equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one) if f.name != "marks")
    pairs = zip(one.marks, other.marks, strict=True)
    return rest and all(
        type(a) is type(b) and all(equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)) for a, b in pairs
    )


def test_panels_show_the_figures_of_the_report(opened: Any, session: Session) -> None:
    """What the docks show is what `plot_gap`, `plot_phase_dependence`, `plot_period_scan`, `plot_distributions` draw."""
    from phonon_eels.viewer.distributions_panel import DistributionsPanel
    from phonon_eels.viewer.modulation_panel import ModulationPanel

    panel = dock(opened, ModulationPanel(opened))
    tables = session.results["measure_modulation"].tables
    drawn = figures.plot_phase_dependence(tables["phase_bins"], tables["amplitudes"], limit=1).axes[0]
    shown = panel.painters["energies"].panel
    assert same(shown, phase_panel(tables["phase_bins"], tables["amplitudes"], "CuO78", "CuO2"))
    assert drawn.get_ylim() == shown.y_limits
    assert drawn.get_title() == shown.title
    assert same(panel.painters["gap"].panel, gap_panel(tables["gap_curve"], tables["gap"]))
    assert figures.plot_gap(*(tables[n] for n in ("phase_bins", "amplitudes", "gap_curve", "gap"))).axes[1].get_title()
    assert "HAADF" in panel.periods.titleLabel.text
    distributions = dock(opened, DistributionsPanel(opened))
    x, y = (distributions._maps[box.currentText()] for box in (distributions.map_x, distributions.map_y))
    groups = distributions._groups(session)
    paper = figures.plot_distributions(
        x, y, groups, labels=(distributions.map_x.currentText(), distributions.map_y.currentText())
    )
    assert [ax.get_xlim() for ax in paper.axes] == [painter.panel.x_limits for painter in distributions.painters]
    assert same(distributions.painters[0].panel, histogram_panel(x, groups, distributions.map_x.currentText()))


def test_exported_picture_is_the_figure_that_is_shown(
    opened: Any, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phonon_eels.viewer.spectrum_panel import SpectrumPanel

    panel = dock(opened, SpectrumPanel(opened), "bottom")
    panel.show_place(Place(session, 20, 12))
    panel.subtract_button.setChecked(True)
    shown = panel.plot.panels
    fit = panel.plot.last.fit
    table = spectrum_columns(fit.energy_loss_mev, fit.counts_e, fit)
    assert same(shown[0], spectrum_panels(table, view="loss", limits_mev=shown[0].x_limits)[0])
    for ending in ("png", "svg"):
        (written,) = panel.export_to(tmp_path / f"spectrum.{ending}")
        figures.save_figure(plot_panels(shown, title=panel.plot.last.title), tmp_path / f"same.{ending}")
        assert written.read_bytes() == (tmp_path / f"same.{ending}").read_bytes()


def test_labels_above_each_other_never_touch(screen: None, qapp: Any) -> None:
    from phonon_eels.viewer.plots import LINE_PX, UprightAxis

    axis = UprightAxis("left")
    for size in (20.0, 28.0, 45.0, 90.0, 300.0):
        for high in (0.03, 1.0, 7.3, 18_000.0):
            ticks = axis.tickSpacing(0.0, high, size)
            assert ticks
            assert min(distance for distance, _ in ticks) * size / high >= LINE_PX
    assert len(axis.tickSpacing(0.0, 1.0, 300.0)) > 1, "where there is room there are finer ticks"
