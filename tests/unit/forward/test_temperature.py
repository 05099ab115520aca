"""Temperature from gain and loss sides: right, with an honest deviation, and silent where there is nothing to see."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.forward.mean import MeanModel, fit_mean
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.forward.temperature import estimate_temperature
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.steps.thermometry import measure_temperature
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, alignment_of, context_of, material_of, simulated

MATERIAL = material_of(*SEPARATED)
STAGE_K = 293.0


def _scan(kelvin, seed=1):
    simulation = simulated(
        4, 5, seed=seed, material=MATERIAL, phonons={"temperature_k": kelvin, "area_e": 2e4},
        energy={"offset_mev": -100.0, "channels": 430}, detector={"poisson": True},
    )  # fmt: skip
    channels = np.arange(-190, 225)
    model = MeanModel(
        Settings().fit_peaks, MATERIAL, channels, 0.5, ZeroLossShape(7.5, 1.6, 1.9), thermal_energy_mev(STAGE_K)
    )
    place = alignment_of(simulation)
    total, square = aligned_sums(simulation.image, place, -190, channels.size, np.ones((1, 4, 5)), CpuBackend(1))
    return simulation, model, place, total[0] / 20, square[0] / 400


@pytest.mark.parametrize("kelvin", [220.0, 293.0, 420.0])
def test_temperature_comes_back_whatever_the_stage_says(kelvin):
    _, model, _, mean, variance = _scan(kelvin)
    found = estimate_temperature(model, fit_mean(model, mean, variance), mean, variance)
    assert found.status == "ok"
    assert 1.0 < found.std_k < 40.0
    assert abs(found.value_k - kelvin) < 3.5 * found.std_k


def test_a_background_tied_to_its_gain_side_follows_the_temperature():
    """A background as strong as the modes, seen at 420 K under a stage of 293 K, without noise."""
    settings = Settings().fit_peaks.model_copy(update={"background": "exponential"})
    channels = np.arange(-190, 225)

    def model_at(kelvin):
        return MeanModel(settings, MATERIAL, channels, 0.5, ZeroLossShape(7.5, 1.6, 1.9), thermal_energy_mev(kelvin))

    truth, model = model_at(420.0), model_at(STAGE_K)
    x, _, _ = truth.start_and_bounds(False)
    _, columns = truth.solve(x, np.ones(channels.size), np.ones(channels.size))
    *_, peak, background = columns
    sizes = np.array([*[2e4] * len(truth.modes), 3e6 / peak.sum(), 6e4 / background.sum()])
    mean = sizes @ columns
    found = estimate_temperature(model, fit_mean(model, mean, mean), mean, mean)
    assert found.status == "ok"
    assert found.value_k == pytest.approx(420.0, abs=0.3 * found.std_k)


@pytest.mark.slow
def test_pulls_of_temperatures():
    pulls = []
    for seed in range(40):
        _, model, _, mean, variance = _scan(340.0, seed)
        found = estimate_temperature(model, fit_mean(model, mean, variance), mean, variance)
        pulls.append((found.value_k - 340.0) / found.std_k)
    assert abs(np.mean(pulls)) < 3.0 / np.sqrt(40)
    assert np.std(pulls) < 1.3  # the model's own 0.3 % are part of the deviation: narrower is allowed


def test_stage_that_disagrees_is_told():
    simulation, model, place, mean, variance = _scan(420.0)
    fit = fit_mean(model, mean, variance)
    image = simulation.image.with_(acquisition=replace(simulation.image.acquisition, temperature_k=STAGE_K))
    table, summary, messages = measure_temperature(image, model, fit, place, (2, 1), context_of(MATERIAL))
    assert table["region"].tolist() == ["the scan", "rows 0 to 1, columns 0 to 4", "rows 2 to 3, columns 0 to 4"]
    assert summary["unit"] == "K"
    assert summary["value"] == pytest.approx(420.0, abs=4.0 * summary["std"])
    assert table["pull_to_stage"].iloc[0] > 3.0
    assert any("stage of 293 K" in message for message in messages)
    halves = table["temperature_k_std"].iloc[1:]
    assert (halves > table["temperature_k_std"].iloc[0]).all()


def test_window_without_gain_side_has_no_temperature():
    simulation, model, place, mean, variance = _scan(STAGE_K)
    short = MeanModel(
        Settings().fit_peaks, MATERIAL, np.arange(-40, 225), 0.5, model.zero_loss, thermal_energy_mev(STAGE_K)
    )
    table, summary, messages = measure_temperature(
        simulation.image, short, fit_mean(short, mean[150:], variance[150:]), place, (1, 1), context_of(MATERIAL)
    )
    assert table.empty
    assert summary["status"] == "no gain side"
    assert messages == ()
