"""Period and phase of the superstructure over seeded scans of the package's simulator."""

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.steps.map_superstructure import map_superstructure
from tests.statistics.test_layers import _scan
from tests.unit.lattice.scan_steps import assign, phase_difference

pytestmark = pytest.mark.statistics


def _map(scene, image):
    step = scene.settings.scan.row_step_nm
    spectra, context, layers = assign(image, step)
    assert layers.skipped is None
    return layers, map_superstructure(spectra, Settings().map_superstructure, context)


def test_period_within_half_a_percent_and_phase_within_a_tenth_radian():
    periods, phases, pulls = [], [], []
    for seed in range(6):
        scene, image = _scan(seed, columns=128, rows=80)
        layers, result = _map(scene, image)
        period = result.summary["period_nm"]
        periods.append(period["value"] / scene.period_nm - 1.0)
        pulls.append((period["value"] - scene.period_nm) / period["std"])
        lateral = phase_difference(result.maps["lateral_phase_rad"], scene.truth["lateral_phase_rad"])
        lateral = phase_difference(lateral, np.pi * np.rint(np.median(np.abs(lateral)) / np.pi))
        phases.append(np.sqrt(np.mean(lateral**2)))
        away = (layers.maps["outward"].values != 0) & (scene.truth["outward"].values != 0)
        outward = phase_difference(result.maps["phase_rad"], scene.truth["phase_rad"])[away]
        assert np.sqrt(np.mean(outward**2)) < 0.1
    assert np.abs(periods).max() < 0.005
    assert np.max(phases) < 0.1
    assert np.sqrt(np.mean(np.square(pulls))) < 2.0


def test_scan_without_wave_makes_no_claim():
    from phonon_eels.config import SimulationSettings
    from phonon_eels.simulate.crystal import crystal_scene
    from phonon_eels.simulate.haadf import haadf
    from tests.unit.lattice.scan_steps import BI2212

    for seed in range(5):
        tree = _scan(seed)[0].settings.model_dump()
        tree["structure"]["corrugation"] = 0.0
        scene = crystal_scene(SimulationSettings.model_validate(tree), BI2212)
        _layers, result = _map(scene, haadf(scene, np.random.default_rng(seed)).astype(float))
        assert result.skipped is not None
        assert "superstructure" in result.skipped
