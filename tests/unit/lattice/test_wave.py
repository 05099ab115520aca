"""Wave fit, phase rule and lock-in on made-up displacements."""

import numpy as np
import pytest

from phonon_eels.lattice.phase_lock import lock_in
from phonon_eels.lattice.superstructure import NoSuperstructureError, find_superstructure, phase_offset
from phonon_eels.lattice.wave import Samples, fit_wave, slab_sign

BOUNDS = (2.50, 2.66)


def _samples(
    n_slabs=3, length=8.0, noise=0.003, amplitude=0.035, period=2.578, phase=0.8, tilt=0.0, pattern="rigid", drift=0.0,
    local=None, seed=0,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    t = np.arange(0.0, length, 0.1)
    rows = []
    for plane in range(2 * n_slabs):
        slab, side = plane // 2, -1 if plane % 2 == 0 else 1
        s = 1.543 * (slab + 0.5) + side * 0.61
        sign = (-1.0) ** slab * (side if pattern == "breathing" else 1.0) if pattern != "common" else 1.0
        angle = 2 * np.pi * t / period + tilt * s + phase + (0.0 if local is None else local(t))
        u = sign * amplitude * np.cos(angle) + drift * (t / length) ** 2 + 0.01 * plane
        u = u + noise * rng.standard_normal(len(t))
        rows += [(plane, slab, s, tt, uu, noise, side) for tt, uu in zip(t, u, strict=True)]
    table = np.array(rows)
    return Samples(table[:, 0].astype(int), table[:, 1].astype(int), *table[:, 2:6].T), table[:, 6]


def test_wave_is_recovered_within_its_errors():
    pulls = []
    for seed in range(12):
        samples, _side = _samples(seed=seed, tilt=0.03, drift=0.05)
        wave = fit_wave(samples, slab_sign(samples.slab, True), BOUNDS)
        pulls.append(
            [
                (wave.period_nm - 2.578) / wave.period_std_nm,
                (wave.amplitude_nm - 0.035) / wave.amplitude_std_nm,
                (wave.tilt_rad_per_nm - 0.03) / wave.tilt_std_rad_per_nm,
            ]
        )
    pulls = np.array(pulls)
    assert np.abs(pulls).max() < 4.0
    assert 0.5 < np.sqrt(np.mean(pulls**2)) < 1.6


def test_phase_counts_from_the_crest_along_increasing_c():
    samples, _side = _samples(noise=1e-5)
    wave = fit_wave(samples, slab_sign(samples.slab, True), BOUNDS)
    phase = wave.phase_at(samples.s_nm, samples.t_nm)
    even = samples.slab == 0
    assert wave.phase_rad == pytest.approx(0.8, abs=1e-3)
    crest = np.abs(np.angle(np.exp(1j * phase))) < 0.1
    first = even & (samples.plane == 0)
    assert samples.u_nm[crest & first].min() > 0.034


@pytest.mark.parametrize("bent", [0.0, 0.15])
def test_noise_and_drift_alone_are_not_significant(bent):
    p = []
    for seed in range(40):
        samples, _side = _samples(amplitude=0.0, drift=bent, seed=seed)
        wave = fit_wave(samples, slab_sign(samples.slab, True), BOUNDS)
        p.append(wave.p_value)
    assert np.mean(np.array(p) < 0.05) < 0.2
    assert min(p) > 1e-4


@pytest.mark.parametrize(("pattern", "verdict"), [("rigid", "gap breathes"), ("breathing", "slab breathes")])
def test_phase_rule_is_read_from_the_displacements(pattern, verdict):
    samples, side = _samples(pattern=pattern)
    found = find_superstructure(samples, side, BOUNDS, antiphase_slabs=True)
    assert found.pattern == pattern
    assert found.breathing.verdict == verdict
    strong, weak = ("gap", "slab") if pattern == "rigid" else ("slab", "gap")
    assert getattr(found.breathing, f"{strong}_nm") == pytest.approx(
        0.07, abs=5 * getattr(found.breathing, f"{strong}_std_nm")
    )
    assert getattr(found.breathing, f"{weak}_nm") < 5 * getattr(found.breathing, f"{weak}_std_nm")


def test_wave_in_phase_in_all_slabs_is_no_superstructure_of_this_crystal():
    samples, side = _samples(pattern="common")
    with pytest.raises(NoSuperstructureError, match="no "):
        find_superstructure(samples, side, BOUNDS, antiphase_slabs=True)
    assert find_superstructure(samples, side, BOUNDS, antiphase_slabs=False).wave.amplitude_nm == pytest.approx(
        0.035, rel=0.1
    )


def test_outward_phase_flips_between_sides_and_slabs():
    samples, side = _samples()
    found = find_superstructure(samples, side, BOUNDS, antiphase_slabs=True)
    slab, sides = np.array([0, 0, 1, 1]), np.array([-1, 1, -1, 1])
    np.testing.assert_allclose(phase_offset(slab, sides, found, True), [np.pi, 0.0, 0.0, np.pi])
    np.testing.assert_allclose(phase_offset(slab, sides, found, False), [0.0, 0.0, np.pi, np.pi])


def test_too_little_or_no_wave_is_said():
    samples, side = _samples(length=1.9)
    with pytest.raises(NoSuperstructureError, match=r"at least 0\.8 are needed"):
        find_superstructure(samples, side, BOUNDS, antiphase_slabs=True)
    samples, side = _samples(amplitude=0.0, seed=3)
    with pytest.raises(NoSuperstructureError, match=r"no (significant )?superstructure"):
        find_superstructure(samples, side, BOUNDS, antiphase_slabs=True)


def test_fixed_period_stays():
    samples, side = _samples()
    found = find_superstructure(samples, side, BOUNDS, antiphase_slabs=True, period_nm=2.55)
    assert found.wave.period_nm == pytest.approx(2.55)
    assert found.wave.period_std_nm == pytest.approx(0.0, abs=1e-6)


def test_lock_in_follows_a_phase_that_wanders():
    def wander(t):
        return 0.8 * np.sin(2 * np.pi * t / 14.0)

    samples, side = _samples(length=14.0, local=wander)
    found = find_superstructure(samples, side, (2.3, 2.9), antiphase_slabs=True)
    local = lock_in(samples, found.sign, found.wave, 0.8 * 2.578)
    t = local.t_nm
    total = found.wave.phase_at(np.full(len(t), local.s_nm[1]), t) + local.kept * local.phase_rad[1]
    truth = 2 * np.pi * t / 2.578 + 0.8 + wander(t)
    off = np.angle(np.exp(1j * (total - truth)))
    assert np.sqrt(np.mean(off**2)) < 0.1
    # the global wave alone does worse
    alone = np.angle(np.exp(1j * (found.wave.phase_at(np.full(len(t), local.s_nm[1]), t) - truth)))
    assert np.sqrt(np.mean(alone**2)) > 1.5 * np.sqrt(np.mean(off**2))
    assert not local.slip.any()


def test_phase_slip_is_flagged_where_it_is():
    samples, side = _samples(length=16.0, local=lambda t: np.where(t > 12.0, 2.2, 0.0))
    found = find_superstructure(samples, side, BOUNDS, antiphase_slabs=True)
    assert abs(found.wave.period_nm - 2.578) < 0.03
    local = lock_in(samples, found.sign, found.wave, 0.8 * 2.578)
    assert local.slip.any()
    assert np.abs(local.t_nm[local.slip.any(axis=0)] - 12.0).max() < 2.6


def test_lock_in_amplitude_has_honest_errors():
    samples, side = _samples(length=12.0, seed=5)
    found = find_superstructure(samples, side, BOUNDS, antiphase_slabs=True)
    local = lock_in(samples, found.sign, found.wave, 1.5 * 2.578)
    pull = (local.amplitude_nm - 0.035) / local.amplitude_std_nm
    assert np.sqrt(np.mean(pull**2)) < 2.0
    assert local.kept < 0.7
