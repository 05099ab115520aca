"""The whole chain on a small scan with four half-slab planes, and on its null twin."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from phonon_eels.config import Settings, SimulationSettings
from phonon_eels.errors import ConfigError
from phonon_eels.simulate import simulate
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.assign_layers import assign_layers
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.map_superstructure import map_superstructure
from phonon_eels.steps.measure_modulation import measure_modulation
from tests.unit.forward.spectra import BI2212, context_of, with_results

STEPS = {f.__name__: f for f in (align_zlp, fit_peaks, assign_layers, map_superstructure)}


def prepared(planted):
    """Return image and context with everything that `measure_modulation` reads."""
    tree = {
        "seed": 1, "scan": {"rows": 56, "columns": 40, "column_step_nm": 0.16}, "detector": {"spike_rate": 0.0},
        "modulation": {"primary_energy_mev": 1.0, "energy_enabled": planted},
    }  # fmt: skip
    image, context = simulate(SimulationSettings.model_validate(tree), BI2212).image, context_of()
    for name, step in STEPS.items():
        context = with_results(context, **{name: step(image, getattr(Settings(), name), context)})
    return image, context


def measure(image, context, **settings):
    changes = {"min_units": 3, **settings}
    return measure_modulation(image, Settings().measure_modulation.model_copy(update=changes), context)


@pytest.fixture(scope="module")
def planted():
    return prepared(True)


@pytest.fixture(scope="module")
def measured(planted):
    return measure(*planted)


def test_planted_amplitude_and_phase_come_back(measured):
    primary = measured.summary["primary"]
    amplitude = primary["amplitude_mev"]
    assert (primary["mode"], primary["layer"], primary["n_units"]) == ("CuO78", "CuO2", 4)
    assert amplitude["low"] < 1.0 < amplitude["high"]
    assert amplitude["low"] < amplitude["low_68"] < amplitude["value"] < amplitude["high_68"] < amplitude["high"]
    assert amplitude["value"] == pytest.approx(1.0, abs=0.1)
    assert abs(primary["phase_rad"]["value"]) < 0.15
    assert primary["p_value"] < 0.05
    assert measured.summary["claim"]
    assert abs(primary["mean_energy_mev"]["value"] - 78.0) < 0.1


def test_tables_are_whole(measured):
    table = measured.tables["amplitudes"]
    joint = table[table["method"] == "joint"]
    assert (joint["role"] == "primary").sum() == 1
    secondary = joint[joint["role"] == "secondary"]
    assert (secondary["p_value_holm"].dropna() >= secondary["p_value"].dropna()).all()
    units = measured.tables["units"]
    assert len(units[(units["mode"] == "CuO78") & units["used"]]) == 4
    assert {"defences", "phase_bins", "period_scan", "localisation", "modulation_spectrum"} <= set(measured.tables)
    defences = measured.tables["defences"]
    assert set(defences["verdict"]) <= {"pass", "fail", "no power", "not distinguished"}
    assert len(defences) == 16
    assert not (defences["verdict"] == "fail").any()
    spectrum = measured.tables["modulation_spectrum"]
    near = spectrum[(spectrum["energy_loss_mev"] > 65) & (spectrum["energy_loss_mev"] < 95)]
    assert np.corrcoef(near["cos_e"], near["cos_shift_template_e"])[0, 1] > 0.7


def test_layers_of_the_modes_and_the_gap(measured):
    shares = measured.tables["mode_layers"].set_index(["mode", "layer"])["share"]
    assert shares["CuO78", "CuO2"] > 0.95
    assert abs(shares["CuO78", "SrO"]) < 0.05
    assert shares["BiO57", "BiO"] > 0.95
    profile = measured.tables["profiles"]
    copper = profile[profile["mode"] == "CuO78"]
    assert abs(copper.loc[copper["area_e"].idxmax(), "from_middle_nm"] - 0.1645) < 0.07
    row = measured.tables["gap"].set_index("quantity").loc["phase of energy less phase of gap"]
    assert row["low"] < 0.0 < row["high"]
    assert "one bit" in row["sentence"]


def test_estimators_stand_side_by_side_and_agree(measured):
    table = measured.tables["estimators"].set_index("estimator")
    assert set(table.index) == {"joint", "modulation_spectrum", "regression", "phase_bins"}
    np.testing.assert_allclose(table["cos_mev"], 1.0, atol=0.12)
    for name in ("modulation_spectrum", "regression", "phase_bins"):
        assert abs(table.loc[name, "difference_cos_mev"]) < 0.08
    ends = ["amplitude_low_mev", "amplitude_low_68_mev", "amplitude_mev", "amplitude_high_68_mev", "amplitude_high_mev"]
    assert (np.diff(table[ends].to_numpy(dtype=float), axis=1) > 0.0).all()
    assert (table["phase_rad"].abs() < 4 * table["phase_rad_std"] + 0.05).all()


def test_systematic_parts_are_apart_from_the_statistical_one(measured):
    table, kinds = measured.tables["amplitudes"], ("window", "model", "zero_loss")
    joint = table[table["method"] == "joint"]
    assert len(joint) >= 4
    for _, row in joint.iterrows():
        parts = row[[f"syst_{kind}_mev" for kind in ("leakage", *kinds)]].astype(float)
        assert (parts > 0.0).all()
        assert row["amplitude_mev_syst"] == pytest.approx(np.sqrt((parts**2).sum()))
        energies = row[[f"energy_syst_{kind}_mev" for kind in kinds]].astype(float)
        assert (energies > 0.0).all()
        assert row["mean_energy_mev_syst"] == pytest.approx(np.sqrt((energies**2).sum()))
    assert table.loc[table["method"] == "regression", "syst_window_mev"].isna().all()
    systematics = measured.tables["systematics"]
    assert systematics.groupby("mode").size().eq(5).all()
    assert set(systematics["mode"]) == set(joint["mode"])


def test_one_progress_counts_all_fits_of_the_scan(planted):
    told = []
    image, context = planted
    measure(image, replace(context, progress=lambda done, total: told.append((done, total))))
    done, totals = [entry[0] for entry in told], {entry[1] for entry in told}
    assert len(totals) == 1
    assert done == sorted(done)
    assert done[-1] == totals.pop()


def test_second_harmonic_areas_and_widths_are_exploratory(planted):
    table = measure(*planted, harmonics=2, variants=False).tables["other_quantities"]
    assert set(table["role"]) == {"exploratory"}
    known = table[["amplitude_low", "amplitude_low_68", "amplitude_high_68", "amplitude_high"]].to_numpy(dtype=float)
    assert (np.diff(known, axis=1) >= 0.0).all()
    assert set(table["quantity"]) == {"relative area", "intrinsic width", "second harmonic of the energy"}
    second = table[(table["mode"] == "CuO78") & (table["quantity"] == "second harmonic of the energy")].iloc[0]
    assert second["amplitude"] < 5 * second["amplitude_std"] + 0.05
    assert second["amplitude"] < 0.2


def test_weights_that_do_not_follow_the_wave_are_told_so_although_planes_undulate(measured):
    """The BiO planes move by 0.035 nm under fixed rows: their raw areas follow the wave by 0.16."""
    table = measured.tables["other_quantities"].query("quantity == 'relative area'").set_index("mode")
    for mode in ("BiO38", "BiO57", "CuO42", "CuO78", "SrO67"):
        assert table.loc[mode, "amplitude"] < 0.02 + 3.0 * table.loc[mode, "amplitude_std"]
        assert table.loc[mode, "amplitude"] < 0.05


def test_defences_that_need_frames_or_a_turned_slab_say_so(measured):
    lines = measured.tables["defences"].set_index("defence")
    for name in (
        "odd against even frames",
        "first against last half of the dose",
        "predicted artefact of HAADF, frame to frame",
    ):
        assert lines.loc[name, "verdict"] == "no power"
        assert lines.loc[name, "sentence"] == "one frame: there are no halves to compare"
    assert lines.loc["90° twin without the superstructure", "sentence"] == "no turned slab is in view"


def test_null_twin_makes_no_claim():
    result = measure(*prepared(False), variants=False)
    primary = result.summary["primary"]
    assert primary["p_value"] > 0.01
    assert primary["amplitude_mev"]["low"] == 0.0
    assert primary["amplitude_mev"]["high"] < 0.4


def test_too_few_planes_are_not_testable(planted):
    result = measure(*planted, min_units=6, variants=False)
    assert result.summary["verdict"] == "not testable"
    assert not result.summary["claim"]
    said = "not testable: 4 half-slab planes show CuO78, 6 are asked for"
    assert any(said in message and "pool 2 scans like this one" in message for message in result.messages)


@pytest.mark.parametrize(
    ("missing", "reason", "said"),
    [
        ("assign_layers", "the image has no HAADF", "no layers were assigned: the image has no HAADF"),
        ("map_superstructure", "no superstructure in the image", "no superstructure was mapped: no superstructure"),
    ],
)
def test_skipped_with_the_reason(planted, missing, reason, said):
    image, context = planted
    maps = {name: values for name, values in context.maps.items() if name != missing}
    without = with_results(replace(context, maps=maps), **{missing: StepResult(skipped=reason)})
    assert measure(image, without).skipped.startswith(said)


def test_skipped_without_peaks_or_when_switched_off(planted):
    image, context = planted
    summaries = {name: values for name, values in context.summaries.items() if name != "fit_peaks"}
    assert "no peaks were fitted" in measure(image, replace(context, summaries=summaries)).skipped
    assert "measure_modulation.enabled: false" in measure(image, context, enabled=False).skipped


def test_wrong_names_are_refused(planted):
    with pytest.raises(ConfigError, match=r"measure_modulation\.mode = 'CuO79' is no mode of bi2212; it has Sr22"):
        measure(*planted, mode="CuO79")
    with pytest.raises(ConfigError, match=r"measure_modulation\.layer = 'TiO' is no layer of bi2212; it has Ca"):
        measure(*planted, layer="TiO")


def test_noise_that_channels_share_widens_counting_deviations_alone(planted, measured):
    """Maps of a classic fit say by how much; intervals rest on the scatter between planes and stay."""
    image, context = planted
    peaks = context.maps["fit_peaks"]
    naive = peaks["energy_mev_std"]
    factor = xr.where(peaks["mode"] == "CuO78", 1.5, 1.0)
    shared = peaks.assign(apparent_energy_mev_naive_std=naive, apparent_energy_mev_std=factor * naive)
    told = measure(image, replace(context, maps={**context.maps, "fit_peaks": shared}))
    for mode, wider in (("CuO78", 1.5), ("BiO38", 1.0)):
        for table, column in (("units", "cos_mev_std"), ("units", "sin_mev_std"), ("phase_bins", "energy_mev_std")):
            before, after = (r.tables[table].set_index("mode")[column].loc[mode].to_numpy() for r in (measured, told))
            np.testing.assert_allclose(after, wider * before, rtol=1e-9)
    for key in ("amplitude_mev", "p_value", "phase_rad"):
        assert told.summary["primary"][key] == measured.summary["primary"][key]
