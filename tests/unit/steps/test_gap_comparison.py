"""The table `gap`: sentences by case, conventions as options, the user's own files."""

import numpy as np
import pandas as pd
import pytest

from phonon_eels.config import Settings
from phonon_eels.errors import InputFileError
from phonon_eels.figures import plot_gap
from phonon_eels.lattice.inference import MeanAmplitude
from phonon_eels.steps.gap_comparison import gap_tables
from phonon_eels.steps.report_lattice import gap_table
from tests.unit.figures.made_up import tables as made_up_tables
from tests.unit.forward.spectra import BI2212, context_of

DIFFERENCE = "phase of energy less phase of gap"
UNITS = pd.DataFrame({
    "mode": "CuO78", "half_slab": range(6), "used": True, "cos_mev": [1.0, 0.9, 1.1, 1.0, 1.05, 0.95],
    "sin_mev": [0.1, -0.1, 0.08, -0.08, 0.05, -0.04],
})  # fmt: skip
UNIT = np.repeat(np.arange(6), 8)[:, None] * np.ones(30, int)
PHASE = np.broadcast_to(np.linspace(0, 13, 30), UNIT.shape)


def mean_at(phase, amplitude=1.0, p_value=1e-4, std=0.02):
    value = amplitude * np.array([np.cos(phase), np.sin(phase)])
    return MeanAmplitude(value, std**2 * np.eye(2), 7, p_value)


def compared(mean, material=BI2212, **gap):
    settings = Settings().measure_modulation
    settings = settings.model_copy(update={"gap": settings.gap.model_copy(update=gap)})
    return gap_tables(mean, ("CuO78", "CuO2"), 78.0, UNITS, PHASE, UNIT, settings, material)


def said(tables):
    return tables["gap"].set_index("quantity").loc[DIFFERENCE]


def test_agreement_is_one_bit():
    row = said(compared(mean_at(np.pi - 0.01)))
    assert row["value"] == pytest.approx(np.pi - 0.01)
    assert row["low"] < np.pi < row["high"]
    assert "lowest where the gap is largest" in row["sentence"]
    assert "is one bit" in row["sentence"]
    assert "a lamella has none of its own" in row["sentence"]
    assert "highest where the gap is largest" in said(compared(mean_at(0.01)))["sentence"]


def test_without_the_mirror_it_is_more_than_a_bit():
    free = BI2212.model_copy(
        update={"superstructure": BI2212.superstructure.model_copy(update={"phases_0_or_pi": False})}
    )
    assert "one bit" not in said(compared(mean_at(0.0), free))["sentence"]


def test_between_the_two_phases_something_is_broken():
    assert "broken mirror, or a systematic error" in said(compared(mean_at(1.5)))["sentence"]


def test_no_modulation_no_phase():
    row = said(compared(mean_at(0.3, 0.03, p_value=0.4)))
    assert "its phase says nothing about the gap" in row["sentence"]
    assert row["high"] - row["low"] >= 2 * np.pi - 1e-9


def test_conventions_are_options():
    usual, doubled, turned = (
        compared(mean_at(0.0), **change)["gap"].set_index("quantity")["value"]
        for change in ({}, {"template_is_peak_to_peak": False}, {"template_phase_rad": np.pi / 2})
    )
    assert doubled["amplitude of the template"] == pytest.approx(2 * usual["amplitude of the template"])
    assert turned[DIFFERENCE] == pytest.approx(-np.pi / 2)
    # 1 meV of 78 against 4.5 % of the gap.
    assert usual["relative modulation, energy over gap"] == pytest.approx((1 / 78) / 0.045)


def test_users_curve_replaces_the_template(tmp_path):
    path = tmp_path / "gap.csv"
    phase = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    lines = [f"{p:.6f},{40 + 2 * np.cos(p - 1.0):.6f},0.1" for p in phase]
    path.write_text("phase_rad,gap_mev,gap_std_mev\n" + "\n".join(lines))
    tables = compared(mean_at(1.0), curve_file=str(path))
    row = said(tables)
    assert row["value"] == pytest.approx(0.0, abs=1e-3)
    assert "lamella has none" not in row["sentence"]
    assert (tables["gap_curve"]["kind"] == "measured").sum() == 12
    path.write_text("phase_rad,gap_mev,gap_std_mev\n0,40,1\n0.1,40,1\n")
    with pytest.raises(InputFileError, match=r"gap\.csv: 2 phases do not determine"):
        compared(mean_at(1.0), curve_file=str(path))


def test_users_map_is_compared_plane_by_plane(tmp_path):
    path = tmp_path / "map.csv"
    size = np.array([2.0, 1.8, 2.2, 2.0, 2.1, 1.9])[UNIT]
    gap = 38 - size * np.cos(PHASE)
    rows, columns = np.indices(gap.shape)
    table = pd.DataFrame({"row": rows.ravel(), "column": columns.ravel(), "gap_mev": gap.ravel(), "gap_std_mev": 0.5})
    table.to_csv(path, index=False)
    found = compared(mean_at(0.0), map_file=str(path))["gap"].set_index("quantity")
    assert "in antiphase" in found.loc["lag of the map", "sentence"]
    assert found.loc["correlation with the map", "value"] < -0.95
    assert found.loc["correlation with the map", "high"] < 0
    few = compared(mean_at(0.0), map_file=str(_some_rows(table, path)))["gap"].set_index("quantity")
    assert "fewer than 4 half-slab planes" in few.loc["lag of the map", "sentence"]


def _some_rows(table, path):
    table[table["row"] < 20].to_csv(path, index=False)
    return path


def test_material_without_a_gap_has_no_table():
    assert compared(mean_at(0.0), BI2212.model_copy(update={"gap": None})) == {}


def test_report_and_figure():
    tables = compared(mean_at(0.02))
    context = context_of()
    context = type(context)(**{**vars(context), "tables": {"measure_modulation": tables}})
    shown = gap_table(context)
    assert [row[0] for row in shown.rows][:2] == ["mean gap of the template", "amplitude of the template"]
    assert any("one bit" in row[3] for row in shown.rows)
    made = made_up_tables(np.random.default_rng(0))["measure_modulation"]
    figure = plot_gap(made["phase_bins"], made["amplitudes"], tables["gap_curve"], tables["gap"])
    assert "interval" in figure.axes[1].get_title()
    assert gap_table(context_of()) is None
