"""Controls on simulated scans: halves of the frames, a slab turned by 90°, and what a leakage matrix of a file changes.

A scan of four good half slabs and a turned one in the middle is simulated three times with the same geometry: twice with a
modulation of 1 meV, once without. Their sums stand for frames that agree, and for a specimen that the beam has damaged.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.config import Settings, SimulationSettings
from phonon_eels.simulate import simulate
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.registry import find_step
from tests.unit.forward.spectra import BI2212, context_of, with_results

pytestmark = pytest.mark.slow

STEPS = ("align_zlp", "fit_peaks", "assign_layers", "map_superstructure")


def scan(seed, amplitude_mev):
    """Return a scan whose noise alone depends on the seed."""
    still = {"drift_row_nm": 0.0, "drift_column_nm": 0.0, "wander_nm": 0.0, "line_jitter_nm": 0.0}
    tree = {
        "seed": seed, "scan": {"rows": 84, "columns": 32, "column_step_nm": 0.16, **still},
        "energy": {"drift_mev": 0.0, "jitter_mev": 0.0}, "zero_loss": {"width_wander": 0.0, "tail_wander": 0.0},
        "detector": {"spike_rate": 0.0, "fixed_pattern": 0.0}, "structure": {"turned_slabs": [1]},
        "modulation": {"primary_energy_mev": amplitude_mev},
    }  # fmt: skip
    return simulate(SimulationSettings.model_validate(tree), BI2212).image


@functools.cache
def one_scan(seed, amplitude_mev):
    return scan(seed, amplitude_mev)


@functools.cache
def measured(second_mev, kind):
    """Return the result for two scans as halves, the second with another amplitude."""
    first, second = one_scan(1, 1.0), one_scan(2, second_mev)
    counts = np.stack([np.asarray(first.counts), np.asarray(second.counts)])
    noise = replace(first.noise, read_noise_e=first.noise.read_noise_e * 2**0.5)
    image = first.with_(counts=counts.sum(axis=0), halves=counts, noise=noise)
    image = image.with_(acquisition=replace(image.acquisition, n_frames=2))
    context = with_results(
        context_of(), register_frames=StepResult(summary={"halves": {"kind": kind, "n_frames": [1, 1, 2]}})
    )
    for name in STEPS:
        result = find_step(name).load().run(image, getattr(Settings(), name), context)
        context = with_results(context, **{name: result})
    return image, context, modulation(image, context)


def modulation(image, context):
    settings = Settings().measure_modulation.model_copy(update={"min_units": 3, "variants": False})
    return find_step("measure_modulation").load().run(image, settings, context)


def test_frames_that_agree_pass_and_a_turned_slab_shows_nothing():
    _, context, result = measured(1.0, "first_last")
    lines = result.tables["defences"].set_index("defence")
    halves = lines.loc["first against last half of the dose"]
    assert halves["verdict"] == "pass"
    assert halves["value"] < 4.0 * halves["std"]
    assert lines.loc["odd against even frames", "verdict"] == "no power"
    assert context.summaries["map_superstructure"]["slabs_without_wave"] == [1]
    control = lines.loc["90° twin without the superstructure"]
    assert control["verdict"] == "pass"
    assert control["value"] < 4.0 * control["std"]
    assert control["std"] < 0.1
    primary = result.summary["primary"]
    assert primary["n_units"] == 4  # the turned planes take no part
    assert primary["amplitude_mev"]["value"] == pytest.approx(1.0, abs=0.1)


def test_a_modulation_that_only_half_of_the_dose_shows_fails():
    _, _, result = measured(0.0, "first_last")
    line = result.tables["defences"].set_index("defence").loc["first against last half of the dose"]
    assert line["verdict"] == "fail"
    assert line["value"] == pytest.approx(1.0, abs=0.15)
    assert not result.summary["claim"]


def test_a_leakage_matrix_enters_the_amplitude_with_its_deviation():
    """Twice as much of what is seen on CuO2 from elsewhere: the same counts mean a larger amplitude."""
    image, context, by_distance = measured(1.0, "first_last")
    names = ["Ca", "CuO2", "SrO", "BiO"]
    share = np.full((4, 4), 0.02) + 0.92 * np.eye(4)
    table = [
        {"probe": a, "source": b, "share": share[i, j], "share_std": 0.02, "origin": "multislice.csv"}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    import pandas as pd

    tables = {**context.tables["assign_layers"], "leakage": pd.DataFrame(table)}
    other = modulation(image, replace(context, tables={**context.tables, "assign_layers": tables}))
    found = other.tables["amplitudes"].query("role == 'primary'").iloc[0]
    plain = by_distance.tables["amplitudes"].query("role == 'primary'").iloc[0]
    assert found["amplitude_mev"] != plain["amplitude_mev"]
    assert found["amplitude_mev"] == pytest.approx(plain["amplitude_mev"], rel=0.3)
    assert found["syst_leakage_mev"] > plain["syst_leakage_mev"]
