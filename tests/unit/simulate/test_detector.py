"""Detector numbers have the statistics that the noise model says."""

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings
from phonon_eels.simulate.detector import channel_gains, detect_row, noise_correlation, spikes_of_row

QUIET = {"read_noise_e": 0.0, "fixed_pattern": 0.0, "spike_rate": 0.0, "dtype": "float32"}


def detect(level=40.0, n=(400, 500), row=0, seed=3, **detector):
    settings = SimulationSettings.model_validate(
        {
            "seed": seed,
            "scan": {"columns": n[0]},
            "energy": {"channels": n[1]},
            "detector": {**QUIET, **detector},
        }
    )
    return detect_row(settings, np.full(n, level), channel_gains(settings), 0, row), settings


def test_variance_over_mean_is_the_gain():
    counts, _ = detect(gain=2.5)
    assert counts.mean() == pytest.approx(100.0, rel=2e-3)
    assert counts.var() / counts.mean() == pytest.approx(2.5, rel=0.015)


def test_dark_level_and_read_noise():
    counts, _ = detect(gain=2.0, dark_level=30.0, read_noise_e=4.0)
    electrons = (counts - 30.0) / 2.0
    assert electrons.mean() == pytest.approx(40.0, rel=2e-3)
    assert electrons.var() == pytest.approx(40.0 + 16.0, rel=0.015)


def test_spread_correlates_channels_and_the_noise_model_says_how_much():
    counts, settings = detect(gain=2.0, psf_fwhm_channels=1.5)
    inner = counts[:, 20:-20].astype(float)
    single = inner.var() / inner.mean()
    assert noise_correlation(settings) * single == pytest.approx(2.0, rel=0.02)
    binned = inner[:, :460].reshape(400, 23, 20).sum(axis=2)
    assert binned.var() / binned.mean() == pytest.approx(2.0, rel=0.08), "the plateau over binned channels is the gain"
    assert inner.mean() == pytest.approx(80.0, rel=2e-3)
    assert np.corrcoef(inner[:, 1:].ravel(), inner[:, :-1].ravel())[0, 1] > 0.3


def test_fixed_pattern_is_the_same_everywhere():
    counts, _ = detect(level=1e6, poisson=False, fixed_pattern=0.01, gain=1.0)
    assert np.ptp(counts, axis=0) == pytest.approx(0.0)
    assert counts[0].std() / counts[0].mean() == pytest.approx(0.01, rel=0.15)
    assert np.array_equal(counts, detect(level=1e6, poisson=False, fixed_pattern=0.01, gain=1.0, row=5)[0])


def test_spikes_are_those_of_the_truth():
    clean, _ = detect(poisson=False)
    struck, settings = detect(poisson=False, spike_rate=1e-3, spike_minimum_counts=500.0)
    spikes = spikes_of_row(settings, 0, 0)
    added = np.zeros(clean.shape)
    np.add.at(added, (spikes.column, spikes.channel), spikes.counts)
    assert struck - clean == pytest.approx(added, rel=1e-5, abs=1e-2)
    assert (added > 0).sum() == pytest.approx(2 * 200, rel=0.2)
    assert spikes.counts[: len(spikes.counts) // 2].min() >= 500.0


def test_saturation_and_integers():
    counts, _ = detect(level=1000.0, saturation_counts=2400.0, gain=2.5)
    assert counts.max() == 2400.0
    counts, _ = detect(level=1e6, dtype="uint16")
    assert counts.dtype == np.uint16
    assert counts.min() == counts.max() == 65535
    counts, _ = detect(level=0.0, dtype="uint16", read_noise_e=5.0)
    assert counts.min() == 0
    whole, _ = detect(level=40.0, dtype="uint16", gain=1.0)
    assert np.array_equal(whole, detect(level=40.0, gain=1.0)[0])


def test_seed_and_row_decide():
    assert np.array_equal(detect()[0], detect()[0])
    assert not np.array_equal(detect()[0], detect(row=1)[0])
    assert not np.array_equal(detect()[0], detect(seed=4)[0])
