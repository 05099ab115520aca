"""Slabs without a wave are told; noise is not taken for a twin."""

import numpy as np

from phonon_eels.lattice.superstructure import find_superstructure
from phonon_eels.lattice.twins import slab_waves
from phonon_eels.lattice.wave import Samples


def scene(sizes, noise_nm=0.003, seed=0):
    """Return samples and sides of two BiO planes a slab, antiphase from slab to slab, a wave of 2.578 nm."""
    random = np.random.default_rng(seed)
    t = np.arange(0.0, 9.0, 0.1)
    parts = []
    for slab, size in enumerate(sizes):
        for side in (-1, 1):
            u = size * (-1) ** slab * np.cos(2 * np.pi * t / 2.578 + 0.4) + noise_nm * random.normal(size=t.size)
            s = np.full(t.size, 1.543 * (slab + 0.5) + 0.61 * side)
            parts.append(
                (
                    np.full(t.size, 2 * slab + (side > 0)),
                    np.full(t.size, slab),
                    s,
                    t,
                    u,
                    np.full(t.size, noise_nm),
                    np.full(t.size, side),
                )
            )
    plane, slab, s, t, u, std, side = (np.concatenate(column) for column in zip(*parts, strict=True))
    samples = Samples(plane, slab, s, t, u, std)
    return samples, find_superstructure(samples, side, (2.50, 2.66), antiphase_slabs=True)


def test_a_turned_slab_is_noticed():
    found = slab_waves(*scene([0.035, 0.035, 0.0, 0.035]))
    assert [entry.verdict for entry in found] == ["wave", "wave", "no wave", "wave"]
    for entry, size in zip(found, [0.035, 0.035, 0.0, 0.035], strict=True):
        # The length of a noisy vector is biased upwards where there is none.
        assert abs(entry.amplitude_nm - size) < 4.5 * entry.amplitude_std_nm


def test_slabs_that_all_show_it_are_no_twins():
    for seed in range(20):
        found = slab_waves(*scene([0.035] * 4, noise_nm=0.01, seed=seed))
        assert {entry.verdict for entry in found} == {"wave"}


def test_noise_is_not_taken_for_a_twin():
    for seed in range(20):
        samples, whole = scene([0.02] * 4, noise_nm=0.02, seed=seed)
        assert "no wave" not in {entry.verdict for entry in slab_waves(samples, whole)}
