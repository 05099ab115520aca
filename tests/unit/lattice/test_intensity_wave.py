"""Brightness of the heavy planes at the wave's period."""

import numpy as np
import pytest

from phonon_eels.lattice.intensity_wave import intensity_wave

SHAPE = (60, 80)
UNIT = np.repeat(np.arange(6), 10)[:, None] * np.ones(SHAPE[1], int)
PHASE = 2 * np.pi * np.arange(SHAPE[1]) * 0.08 / 2.578 + np.pi * (UNIT % 2)


def measured(depth, phase=0.7, seed=0, noise=5.0):
    image = 100.0 * (1.0 + 0.2 * np.linspace(-1, 1, SHAPE[1]) + depth * np.cos(PHASE - phase))
    image = image + noise * np.random.default_rng(seed).normal(size=SHAPE)
    image[5, 5] = np.nan
    return intensity_wave(image, PHASE, UNIT, np.ones(SHAPE, bool))


def test_depth_and_phase_come_back():
    mean, n = measured(0.1)
    assert n == 6
    assert mean.amplitude == pytest.approx(0.1, abs=4 * mean.amplitude_std)
    assert mean.phase_rad == pytest.approx(0.7, abs=4 * mean.phase_std_rad)
    assert mean.p_value < 1e-3


def test_no_wave_is_found_where_there_is_none():
    hits = sum(measured(0.0, seed=seed)[0].p_value < 0.05 for seed in range(100))
    assert hits <= 11  # 99 % limit of 100 draws at 5 %


def test_few_positions_give_no_number():
    mean, n = intensity_wave(np.ones(SHAPE), PHASE, UNIT, np.zeros(SHAPE, bool))
    assert n == 0
    assert np.isnan(mean.p_value)
