"""False alarms, missed spikes and harm done, from half an electron to ten thousand, gains from 0.13 to 5."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.config.settings import RemoveSpikes
from phonon_eels.kernels.expectations import deviance_sigma
from phonon_eels.spectrum_image import EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.remove_spikes import remove_spikes
from phonon_eels.steps.spec import StepContext

pytestmark = pytest.mark.statistics
AXIS = EnergyAxis(-50.0, 0.5, 360)
ENERGY = AXIS.energies_mev
GIVEN = dict.fromkeys(("gain", "dark_level", "read_noise_e", "noise_correlation"), "given")


def expected_electrons(level, shape, rng, zlp=1.0):
    """Electrons per channel: `level` away from the peak, phonon lines, a wandering peak whose width varies."""
    zero = 0.2 * rng.normal(size=(*shape, 1)).cumsum(axis=1)
    width = 4.0 * (1.0 + 0.03 * rng.normal(size=(*shape, 1)))
    peak = (1.0 + (2 ** (1 / 1.8) - 1) * ((ENERGY - zero) / width) ** 2) ** -1.8
    lines = sum(a * np.exp(-0.5 * ((ENERGY - zero - e) / 3.8) ** 2) for a, e in ((1.0, 40.0), (0.6, 78.0)))
    contrast = 1.0 + 0.3 * rng.normal(size=(*shape, 1)).clip(-2, 2)
    return zlp * 300.0 * level * peak + level * (1.0 + contrast * lines)


def measure(mean, gain, read, rng):
    electrons = rng.poisson(mean) + rng.normal(0.0, read, mean.shape)
    scan = (ScanAxis("row", 0.1, mean.shape[0]), ScanAxis("column", 0.1, mean.shape[1]))
    return SpectrumImage(electrons * gain + 3.0, AXIS, scan, NoiseModel(gain, 3.0, read, 1.0, GIVEN))


def run(image, **settings):
    context = StepContext(material=load_material("bi2212"), backend=CpuBackend(2))
    return remove_spikes(image, RemoveSpikes(grow_channels=0, **settings), context)


@pytest.mark.parametrize(("gain", "read"), [(0.13, 0.0), (1.0, 2.0), (5.0, 0.0)])
@pytest.mark.parametrize("level", [0.5, 10.0, 1e4])
def test_false_alarms_are_rarer_than_1e_5_per_channel(level, gain, read):
    rng = np.random.default_rng(int(level) + int(10 * gain))
    image = measure(expected_electrons(level, (30, 50), rng), gain, read, rng)
    summary = run(image).summary
    # 540,000 channels: 5.4 expected at the limit, so 3 or fewer speak for a true rate below it.
    assert summary["spikes"] + summary["dead"] <= 3
    assert summary["hot_channels"] == []


def smallest_spike(mean, read, sigma=8.0):
    """Electrons to add so that the channel stands `sigma` above its mean, in the Poisson sense."""
    low, high = 0.0, 100.0 + 20.0 * sigma * np.sqrt(mean + read**2)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if deviance_sigma(mean + middle, mean, read**2) < sigma else (low, middle)
    return high


@pytest.mark.parametrize(("gain", "read"), [(0.13, 0.0), (1.0, 2.0), (5.0, 0.0)])
@pytest.mark.parametrize("level", [0.5, 10.0, 1e4])
def test_99_of_100_spikes_above_8_sigma_are_found(level, gain, read):
    rng = np.random.default_rng(7 + int(level))
    mean = expected_electrons(level, (24, 40), rng)
    image = measure(mean, gain, read, rng)
    n = 1000
    zero = int(np.argmax(mean.mean(axis=(0, 1))))
    # From 2.5 FWHM on: nearer the steep zero-loss peak less is found.
    channels = np.flatnonzero(np.abs(np.arange(360) - zero) > 40)
    # At most one spike per spectrum and neighbourhood of channels, as in real data.
    position = rng.permutation(24 * 40).repeat(2)[:n]
    row, column, channel = position // 40, position % 40, rng.choice(channels, n)
    # From 8 σ upwards with the heavy tail of cosmic rays.
    size = np.array([smallest_spike(m, read) for m in mean[row, column, channel]]) * (1.0 + rng.pareto(1.0, n))
    counts = image.counts.copy()
    counts[row, column, channel] += gain * size
    flagged = np.asarray(run(image.with_(counts=counts)).image.bad)
    assert flagged[row, column, channel].mean() >= 0.99
    others = flagged.copy()
    others[row, column, channel] = False
    assert others.mean() < 1e-5


def test_peak_energy_is_not_moved():
    """Centroid of the 78 meV line with spikes removed against the same data without spikes: below 0.05 σ."""
    rng = np.random.default_rng(11)
    mean = expected_electrons(100.0, (40, 40), rng, zlp=0.0)
    mean[:] = mean.mean(axis=(0, 1))
    image = measure(mean, 1.0, 0.0, rng)
    window = AXIS.window(68.0, 88.0, "line")
    counts = image.counts.copy()
    hit = rng.random(counts.shape) < 1e-3
    counts[hit] += 200.0 + 1000.0 * rng.pareto(1.0, int(hit.sum())).clip(0, 50)
    result = run(image.with_(counts=counts))
    repaired = np.asarray(result.image.counts, dtype=float)

    def energies(cube):
        weights = cube[..., window] - 3.0 - 100.0
        return (weights * (ENERGY[window] - 78.0)).sum(-1) / weights.sum(-1)

    clean = energies(image.counts)
    difference = energies(repaired) - clean
    assert abs(difference.mean()) < 0.05 * clean.std()
    # Without the repair they would be off by far more.
    assert np.abs(energies(counts) - clean).max() > 10.0 * np.abs(difference).max()


@pytest.mark.parametrize(
    ("gain", "read", "level"), [(1.0, 2.0, 0.5), (0.13, 0.0, 10.0), (5.0, 0.0, 10.0), (1.0, 2.0, 1e3)]
)
def test_spikes_on_the_zero_loss_peak_are_found_and_the_peak_is_spared(gain, read, level):
    """Within 2.5 FWHM of the peak, from 8 σ of the channel upwards; peaks of 150 to 300,000 electrons."""
    rng = np.random.default_rng(70 + int(level) + int(gain))
    mean = expected_electrons(level, (40, 60), rng)
    image = measure(mean, gain, read, rng)
    n = 240
    position = rng.permutation(2400)[:n]
    row, column = position // 60, position % 60
    zero = mean.argmax(axis=2)[row, column]
    channel = zero + rng.integers(0, 21, n) * rng.choice([-1, 1], n)
    size = np.array([smallest_spike(m, read) for m in mean[row, column, channel]]) * (1.0 + rng.pareto(1.0, n))
    counts = image.counts.copy()
    counts[row, column, channel] += gain * size
    result = run(image.with_(counts=counts))
    flagged = np.asarray(result.image.bad)
    assert flagged[row, column, channel].mean() >= 0.99
    others = flagged.copy()
    others[row, column, channel] = False
    assert others.sum() <= 6  # of 864,000: a rate of 1e-5 gives 8.6
    # What is put there is what was expected, not what the spike has made of the fit.
    repaired = np.asarray(result.image.counts, dtype=float)[row, column, channel]
    found = flagged[row, column, channel]
    pull = ((repaired - 3.0) / gain - mean[row, column, channel]) / np.sqrt(mean[row, column, channel] + read**2)
    assert abs(pull[found].mean()) < 4.0 * pull[found].std() / np.sqrt(found.sum())
    # The peak's shape is known to a quarter of a per cent, which is more than the noise of 300,000 electrons.
    assert pull[found].std() < (1.0 if level < 100.0 else 2.0)
    # Without the fit of the peak most of them stay.
    blind = np.asarray(run(image.with_(counts=counts), on_zero_loss=False).image.bad)
    assert blind[row, column, channel].mean() < 0.9
