"""The fit of all positions: alignment, statuses, sums."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.forward.scan import NO_CHANNEL, NO_ZERO_LOSS, Alignment, electrons, fit_scan
from phonon_eels.forward.sums import aligned_sums
from phonon_eels.kernels.likelihood import AT_BOUND, CONVERGED, NO_DATA
from tests.unit.forward.spectra import (
    SEPARATED,
    alignment_of,
    fit,
    material_of,
    model_of,
    simulated,
    start_params,
    true_params,
)

MATERIAL = material_of(*SEPARATED)


@pytest.fixture(scope="module")
def counted():
    return simulated(
        6, 5, material=MATERIAL, energy={"drift_mev": 2.0, "jitter_mev": 0.2}, detector={"poisson": True, "gain": 2.5, "read_noise_e": 2.0}
    )  # fmt: skip


def test_alignment_from_centres(counted):
    image = counted.image
    center = np.full(image.shape[:2], np.nan)
    center[0, 0], center[0, 1], center[0, 2], center[0, 3] = 0.0, 0.26, -0.24, 1e6
    found = Alignment.from_center(center, image)
    zero = round(image.energy.channel(0.0))
    assert found.channel[0].tolist() == [zero, zero + 1, zero, NO_CHANNEL, NO_CHANNEL]
    np.testing.assert_allclose(found.shift_mev[0], [0.0, -0.24, -0.24, 0.0, 0.0], atol=1e-12)
    assert (Alignment.at_zero(image).channel == zero).all()


def test_every_position_is_fitted(counted):
    model = model_of(counted, MATERIAL)
    found = fit(counted, model)
    assert (found.status == CONVERGED).all()
    off = (found.params - true_params(counted, model)) / found.std
    assert np.nanmax(np.abs(off)) < 5.0
    dof = found.n_channels - model.free(True).sum()
    assert np.mean(found.pearson_chi2 / dof) == pytest.approx(1.0, abs=0.05)
    assert found.energies().shape == (6, 5, 3)
    assert found.areas(found.std).shape == (6, 5, 3)


def test_eight_modes():
    def eight(off_mev):
        one = material_of("CuO78").modes[0]
        modes = [
            one.model_copy(update={"name": f"m{k}", "energy_mev": e + off_mev, "bounds_mev": (e - 5.0, e + 5.0)})
            for k, e in enumerate(np.arange(20.0, 110.0, 12.0))
        ]
        return MATERIAL.model_copy(update={"modes": tuple(modes)})

    simulation = simulated(3, 2, material=eight(0.0), phonons={"area_e": 8e3, "background_e_per_mev": 4.0})
    model = model_of(simulation, eight(1.0))
    found = fit(simulation, model)
    assert (found.status == CONVERGED).all()
    first = model.n_params - 2 * model.n_modes
    truth = true_params(simulation, model)[..., first : first + 8]
    assert truth[0, 0].tolist() == pytest.approx(np.arange(20.0, 110.0, 12.0))
    np.testing.assert_allclose(found.energies(), truth, atol=0.001)


def test_what_cannot_be_fitted_is_nan_with_a_status(counted):
    counts = np.array(counted.image.counts, dtype=float)
    counts[0, 0] = 0.0
    counts[1, 1] = np.nan
    counts[2, 2, 20:] = np.nan
    model = model_of(counted, MATERIAL)
    broken = type(counted)(counted.image.with_(counts=counts), counted.truth, counted.truth_maps)
    found = fit(broken, model, profile=True)
    whole = fit(counted, model, profile=True)
    assert found.status[1, 1] == NO_DATA
    assert found.status[2, 2] != CONVERGED
    assert np.isnan(found.params[1, 1]).all()
    assert not found.score[1, 1].any()
    # An empty spectrum is no certain measurement.
    assert found.status[0, 0] != CONVERGED or (found.std[0, 0, 8:11] > np.abs(found.params[0, 0, 8:11])).all()
    others = np.ones((6, 5), bool)
    others[[0, 1, 2], [0, 1, 2]] = False
    np.testing.assert_array_equal(found.params[others], whole.params[others])
    np.testing.assert_array_equal(found.score[others], whole.score[others])


def test_positions_without_a_zero_loss_peak(counted):
    model, alignment = model_of(counted, MATERIAL), alignment_of(counted)
    channel = alignment.channel.copy()
    channel[0, 0] = NO_CHANNEL

    found = fit_scan(
        counted.image, model, Alignment(channel, alignment.shift_mev), start_params(counted, model), CpuBackend(1),
        free_energies=True,
    )  # fmt: skip
    assert found.status[0, 0] == NO_ZERO_LOSS
    assert np.isnan(found.params[0, 0]).all()
    assert (found.status.ravel()[1:] == CONVERGED).all()


def test_bad_channels_are_left_out(counted):
    model = model_of(counted, MATERIAL)
    counts = np.array(counted.image.counts, dtype=float)
    bad = np.zeros(counts.shape, bool)
    bad[:, :, 200] = True
    counts[:, :, 200] = 1e6
    spoiled = type(counted)(counted.image.with_(counts=counts, bad=bad), counted.truth, counted.truth_maps)
    found, whole = fit(spoiled, model), fit(counted, model)
    assert (found.status == CONVERGED).all()
    assert (found.n_channels == whole.n_channels - 1).all()
    assert np.nanmax(np.abs(found.params - whole.params) / whole.std) < 1.5


def test_held_modes_and_priors(counted):
    model = model_of(counted, MATERIAL)
    some = np.zeros((6, 5, 3), bool)
    some[:, :2, 2] = True
    found = fit(counted, model, free_energies=some)
    assert np.isfinite(found.energies(found.std)[:, :2, 2]).all()
    assert np.isnan(found.energies(found.std)[:, 2:]).all()
    np.testing.assert_array_equal(found.energies()[:, :, 0], model.mode_energies_mev[0])
    tight = fit(counted, model, energy_prior_std_mev=np.full(3, 1e-3))
    np.testing.assert_allclose(tight.energies(), np.broadcast_to(model.mode_energies_mev, (6, 5, 3)), atol=1e-2)
    elsewhere = fit(
        counted, model, energy_prior_std_mev=np.full(3, 1e-3), prior_energies_mev=model.mode_energies_mev + 0.5
    )
    np.testing.assert_allclose(elsewhere.energies() - tight.energies(), 0.5, atol=2e-2)


def test_scores_lead_to_the_fitted_energies(counted):
    """One step of the scores with the energies held is (to first order) the free fit; their information its deviation."""
    model = model_of(counted, MATERIAL)
    free, held = fit(counted, model), fit(counted, model, free_energies=False, profile=True)
    information = held.information[..., :3, :3]
    step = np.linalg.solve(information, held.score[..., :3, None])[..., 0]
    away = free.energies() - model.mode_energies_mev
    std = free.energies(free.std)
    assert np.max(np.abs(step - away) / std) < 1.0
    assert np.sqrt(np.mean(((step - away) / std) ** 2)) < 0.25
    np.testing.assert_allclose(np.sqrt(np.diagonal(np.linalg.inv(information), axis1=-2, axis2=-1)), std, rtol=0.3)


def test_bound_is_told(counted):
    from dataclasses import replace

    model = model_of(counted, MATERIAL)
    low = model.bounds_mev.copy()
    low[2] = (79.5, 83.0)
    found = fit(counted, replace(model, bounds_mev=low))
    stuck = found.energies()[..., 2] == 79.5
    assert stuck.mean() > 0.8
    assert (found.status[stuck] == AT_BOUND).all()
    assert np.isnan(found.energies(found.std)[stuck][:, 2]).all()


def test_variance_means_electrons_already(counted):
    assert electrons(counted.image) == (2.5, 0.0)
    assert electrons(counted.image.with_(variance=counted.image.counts)) == (1.0, 0.0)


def test_sums_follow_the_zero_loss_peak(counted):
    image, alignment = counted.image, alignment_of(counted)
    weights = np.stack([np.ones((6, 5)), np.linspace(-1.0, 1.0, 30).reshape(6, 5)])
    sums, squares = aligned_sums(image, alignment, -30, 120, weights, CpuBackend(2))
    electrons_ = np.asarray(image.counts, float) / 2.5
    z = np.stack([
        [electrons_[r, c, alignment.channel[r, c] - 30 : alignment.channel[r, c] + 90] for c in range(5)] for r in range(6)
    ])  # fmt: skip
    np.testing.assert_allclose(sums, np.einsum("grc,rcn->gn", weights, z), rtol=1e-6, atol=0.02)
    np.testing.assert_allclose(squares, np.einsum("grc,rcn->gn", weights**2, z + 4.0), rtol=1e-6, atol=0.02)
    for threads in (1, 3):
        again = aligned_sums(image, alignment, -30, 120, weights, CpuBackend(threads))
        np.testing.assert_array_equal(again[0], sums)


def test_missing_channels_take_the_mean_of_their_row(counted):
    image, alignment = counted.image, alignment_of(counted)
    bad = np.zeros(image.shape, bool)
    bad[2, 3, :] = True
    bad[4, 1, 150] = True
    counts = np.where(bad, 1e9, image.counts)
    one = np.ones((1, 6, 5))
    clean = aligned_sums(image, alignment, -30, 120, one, CpuBackend(1))[0]
    mended = aligned_sums(image.with_(counts=counts, bad=bad), alignment, -30, 120, one, CpuBackend(1))[0]
    # The lost spectrum is left out; the lost channel is filled in.
    assert np.isfinite(mended).all()
    np.testing.assert_allclose(mended[0, 5:] / clean[0, 5:], 29 / 30, rtol=0.1)


def test_blocks_keep_what_they_are_asked_to(counted):
    """Rows are reduced where they were fitted: what is kept does not depend on the blocks, and is what a whole profile says."""
    model = model_of(counted, MATERIAL)
    whole = fit(counted, model, free_energies=False, profile=True)

    def reduce(here, block):
        assert block.status.shape == (here.stop - here.start, 5)
        return replace(block.of_energies(), sums=np.add.reduce(block.score, axis=1))

    for rows in (1, 4, 6):
        backend = CpuBackend(1)
        backend.block_bytes = rows * 8 * int(np.prod(counted.image.shape[1:]))
        found = fit(counted, model, backend, free_energies=False, profile=True, reduce=reduce)
        np.testing.assert_array_equal(found.params, whole.params)
        np.testing.assert_array_equal(found.information, whole.information[..., :3, :3])
        np.testing.assert_array_equal(found.area_slope, whole.area_slope[..., :3])
        np.testing.assert_array_equal(found.sums, whole.score.sum(axis=1))


def test_a_second_try_is_for_those_that_ended_badly(counted):
    model = model_of(counted, MATERIAL)
    hopeless = start_params(counted, model)
    hopeless[1, 2] = np.nan
    hopeless[1, 2, :] = 1e-9
    alone, mended = (
        fit_scan(
            counted.image, model, alignment_of(counted), hopeless, CpuBackend(1), free_energies=True, max_iterations=6,
            retry_starts=retry,
        )
        for retry in (None, lambda rows: start_params(counted, model)[rows])
    )  # fmt: skip
    bad = ~np.isin(alone.status, (CONVERGED, AT_BOUND))
    assert bad[1, 2]
    assert np.isin(mended.status, (CONVERGED, AT_BOUND)).all()
    np.testing.assert_array_equal(mended.params[~bad], alone.params[~bad])
    whole = fit(counted, model)
    np.testing.assert_allclose(mended.energies()[1, 2], whole.energies()[1, 2], atol=0.01)
