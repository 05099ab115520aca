"""Style: sizes, limits, literal text, deterministic files, nothing left behind."""

import matplotlib
import numpy as np
import pytest

from phonon_eels import figures
from phonon_eels.figures import style
from tests.unit.figures import made_up


def test_limits_ignore_outliers_and_nan() -> None:
    values = np.concatenate([np.linspace(0, 1, 1001), [1e9, np.nan]])
    low, high = style.robust_limits(values)
    assert low == pytest.approx(0.02, abs=0.005)
    assert high == pytest.approx(0.98, abs=0.005)


@pytest.mark.parametrize("values", [[np.nan], [3.0, 3.0], [0.0, 0.0], [-2.0]])
def test_limits_are_never_empty(values: list[float]) -> None:
    low, high = style.robust_limits(values)
    assert low < high


def test_std_limits_of_a_constant_map_leave_it_grey() -> None:
    low, high = style.std_limits(np.full((3, 3), 2.0))
    assert 0 <= low < 2.0 < high


def test_symmetric_limits_have_the_centre_in_the_middle() -> None:
    low, high = style.symmetric_limits([1.0, 2.0, 7.0], centre=2.0)
    assert high - 2.0 == pytest.approx(2.0 - low)


def test_layer_names_get_subscripts_and_mode_names_do_not() -> None:
    assert style.layer_text("CuO2") == "CuO₂"
    assert style.layer_text("CuO78") == "CuO78"


def test_dollar_signs_are_no_formula() -> None:
    maps = made_up.scan(12, 12).maps["align_zlp"]
    figure = figures.plot_map(maps, "zlp_fwhm_mev", title=r"run $\frac{ of $5")
    figure.draw_without_rendering()


def test_global_style_is_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    figures.plot_period_scan(made_up.tables(np.random.default_rng(0))["measure_modulation"]["period_scan"])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_same_figure_same_bytes(tmp_path, ending: str) -> None:
    table = made_up.tables(np.random.default_rng(0))["measure_modulation"]["period_scan"]
    for name in ("a", "b"):
        figures.save_figure(figures.plot_period_scan(table), tmp_path / f"{name}.{ending}", 80)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_vector_files_need_no_fonts(tmp_path) -> None:
    table = made_up.tables(np.random.default_rng(0))["measure_modulation"]["period_scan"]
    figure = figures.plot_period_scan(table)
    figures.save_figure(figure, tmp_path / "a.svg")
    figures.save_figure(figure, tmp_path / "a.pdf")
    assert "<text" not in (tmp_path / "a.svg").read_text("utf-8")
    assert b"/FontFile2" in (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()


def test_size_is_that_of_a_column() -> None:
    figure = style.new_figure(figures.COLUMN_MM, 50)
    assert figure.get_figwidth() * 25.4 == pytest.approx(85)
    assert figures.PAGE_MM == 178
