"""Whole chain on modes whose lines are skewed: the bias of the amplitude stands in its systematic part."""

import sys
from pathlib import Path

import pytest

from phonon_eels.config.simulation import SimulationSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "validation"))

from chain import measure, recipe
from whole_scans import scan_of

pytestmark = [pytest.mark.statistics, pytest.mark.slow]


def measured(shape):
    """Return the result of a small scan at four times the signal, 1 meV planted."""
    tree = scan_of(31, 6, "usual sizes", 1.0).model_dump()
    tree["phonons"] |= {"area_e": 8000.0, "shape": shape, "skew": 0.5}
    return measure(SimulationSettings.model_validate(tree), recipe({"fit_peaks": {"profile_below_sigma": 0.0}}))


def test_the_bias_of_skewed_lines_is_in_the_systematic_part():
    result = measured("skewed")
    amplitude, energy = (result.summary["primary"][key] for key in ("amplitude_mev", "mean_energy_mev"))
    # Without its systematic part the number would be wrong by ten deviations.
    assert abs(amplitude["value"] - 1.0) > 5 * amplitude["std"]
    assert abs(amplitude["value"] - 1.0) < amplitude["syst"] + 2 * amplitude["std"]
    assert abs(energy["value"] - 78.0) < energy["syst"] + 2 * energy["std"]


def test_lines_of_the_fits_own_shape_have_a_small_one():
    result = measured("oscillator")
    amplitude, energy = (result.summary["primary"][key] for key in ("amplitude_mev", "mean_energy_mev"))
    assert amplitude["syst"] < 0.03
    assert energy["syst"] < 0.2
    assert abs(amplitude["value"] - 1.0) < 2 * (amplitude["syst"] + amplitude["std"])
