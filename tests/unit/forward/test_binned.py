"""Energies of bins of positions that are as large as the wanted deviation needs."""

import numpy as np
import pytest

from phonon_eels.forward.binned import BIN_STATUS, binned_energies
from tests.unit.forward.test_pooled import INFORMATION, SHAPE, TAKEN
from tests.unit.forward.test_pooled import _fit as made_up

BOUNDS = np.array([[36.0, 48.0], [72.0, 84.0]])
ALONE = np.sqrt(np.diag(np.linalg.inv(INFORMATION[:2, :2])))
"""Deviations of the two energies at one position."""


def fitted(energies, **how):
    """Return a made-up scan whose energies were held at `TAKEN`."""
    fit = made_up(energies, **how)
    fit.params[..., 10:12] = TAKEN
    return fit


def binned(fit, target, usable=None, along="both"):
    return binned_energies(fit, np.ones(SHAPE, bool) if usable is None else usable, BOUNDS, target, along)


def test_bins_are_as_large_as_the_target_needs():
    found = binned(fitted(TAKEN), 0.6 * ALONE[0])
    assert (found.status == 0).all()
    assert (found.n_positions[0] == 4).all()
    np.testing.assert_allclose(found.std_mev[0], ALONE[0] / 2.0)
    single = binned(fitted(TAKEN), 1.01 * ALONE.max())
    assert (single.n_positions == 1).all()


@pytest.mark.parametrize(("along", "shape"), [("rows", (1, 4)), ("columns", (4, 1)), ("both", (2, 2))])
def test_bins_have_the_shape_asked_for(along, shape):
    found = binned(fitted(TAKEN), 0.51 * ALONE[0], along=along)
    first = found.energy_mev[0] == found.energy_mev[0, 0, 0]
    assert first.sum() == 4
    assert first[: shape[0], : shape[1]].all()


def test_energies_and_deviations_hold_the_truth():
    truth = np.broadcast_to(TAKEN, (*SHAPE, 2)) + np.linspace(-0.3, 0.3, SHAPE[1])[None, :, None]
    pulls, errors = [], []
    for seed in range(30):
        found = binned(fitted(truth, seed=seed), 0.36 * ALONE.max(), along="columns")  # 8 of one energy
        off = np.moveaxis(found.energy_mev, 0, -1) - truth
        once = (slice(0, 24, 8), slice(None))  # of every bin one position
        pulls.append((off / np.moveaxis(found.std_mev, 0, -1))[once])
        errors.append(off[once])
    n = np.size(pulls) // 2
    assert np.std(pulls) == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * n))
    assert np.abs(np.mean(errors, axis=(0, 1, 2))).max() < 4.0 * ALONE.max() / np.sqrt(4 * n)


def test_a_step_is_seen_where_the_data_carry_it():
    truth = np.broadcast_to(TAKEN, (*SHAPE, 2)).copy()
    truth[:, 16:] += 1.0
    found = binned(fitted(truth, noise=0.0), 0.6 * ALONE[0])
    np.testing.assert_allclose(np.moveaxis(found.energy_mev, 0, -1)[..., 0], truth[..., 0], atol=1e-9)


def test_what_cannot_be_told_says_so():
    usable = np.zeros(SHAPE, bool)
    usable[:3, :3] = True
    fit = fitted(TAKEN)
    fit.information[0, 0] = np.nan  # does not count where it is not usable, and is no number where it is
    found = binned(fit, 1e-3 * ALONE[0], usable)
    assert set(np.unique(found.status[:, :3, :3])) == {BIN_STATUS.index("target_not_reached")}
    assert set(np.unique(found.status[:, 3:])) == {BIN_STATUS.index("no_data")}
    assert np.isnan(found.energy_mev[:, 3:]).all()
    assert (found.n_positions[:, :3, :3] == 9).all()
    far = binned(fitted(TAKEN + 20.0), 1.0)
    assert (far.status == BIN_STATUS.index("outside_bounds")).all()
    assert np.isnan(far.energy_mev).all()
