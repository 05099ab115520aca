"""What must not change the result of a fit: order, blocks, threads, dtype, units, gain."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.forward.model import build_forward_model
from phonon_eels.forward.scan import Alignment, fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.response import ZeroLossShape
from phonon_eels.spectrum_image import EnergyAxis
from phonon_eels.units import thermal_energy_mev
from tests.unit.forward.spectra import SEPARATED, alignment_of, fit, material_of, model_of, simulated, start_params

MATERIAL = material_of(*SEPARATED)
FIELDS = ("params", "std", "objective", "pearson_chi2", "n_channels", "iterations", "status", "score", "information")


@pytest.fixture(scope="module")
def counted():
    return simulated(
        6, 5, material=MATERIAL, energy={"jitter_mev": 0.2}, zero_loss={"width_wander": 0.02},
        detector={"poisson": True, "gain": 1.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(counted):
    return model_of(counted, MATERIAL)


@pytest.fixture(scope="module")
def reference(counted, model):
    return fit(counted, model, profile=True)


def _same(a, b):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunks", [None, (1, 5, 340), (4, 2, 100)])
def test_blocks_and_threads_are_bit_identical(counted, model, reference, threads, chunks):
    image = counted.image
    if chunks is not None:
        image = image.with_(counts=da.from_array(image.counts, chunks=chunks))
    again = type(counted)(image, counted.truth, counted.truth_maps)
    _same(fit(again, model, CpuBackend(threads), profile=True), reference)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_of_positions_does_not_matter(counted, model, reference, seed):
    order = np.random.default_rng(seed).permutation(30)

    def shuffled(values):
        return values.reshape(30, *values.shape[2:])[order].reshape(values.shape)

    place = alignment_of(counted)
    found = fit_scan(
        counted.image.with_(counts=shuffled(np.asarray(counted.image.counts))), model,
        Alignment(shuffled(place.channel), shuffled(place.shift_mev)), shuffled(start_params(counted, model)),
        CpuBackend(2), free_energies=True, profile=True,
    )  # fmt: skip
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), shuffled(getattr(reference, name)), err_msg=name)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_dtype_of_the_counts_does_not_matter(counted, model, reference, dtype):
    counts = np.asarray(counted.image.counts)
    np.testing.assert_array_equal(counts, np.rint(counts))
    again = type(counted)(counted.image.with_(counts=counts.astype(dtype)), counted.truth, counted.truth_maps)
    _same(fit(again, model, profile=True), reference)


@given(gain=st.floats(0.05, 50.0), dark=st.floats(-100.0, 1000.0))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gain_and_dark_level_cancel(counted, model, reference, gain, dark):
    counts = np.asarray(counted.image.counts, float) * gain + dark
    image = counted.image.with_(counts=counts, noise=replace(counted.image.noise, gain=gain, dark_level=dark))
    found = fit(type(counted)(image, counted.truth, counted.truth_maps), model)
    assert np.nanmax(np.abs(found.params - reference.params) / reference.std) < 0.02
    np.testing.assert_allclose(found.std, reference.std, rtol=2e-3)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_more_counts_keep_the_energies(model, factor):
    """Noise-free: areas, height and background grow, deviations shrink with the root, energies stay."""
    quiet = simulated(1, 2, material=MATERIAL)
    first = fit(quiet, model)
    more = quiet.image.with_(counts=np.asarray(quiet.image.counts, float) * factor)
    start = start_params(quiet, model)
    start[..., [0, 5, 6, *range(N_LOCAL, N_LOCAL + 3)]] *= factor
    second = fit_scan(more, model, alignment_of(quiet), start, CpuBackend(1), free_energies=True)
    std = first.energies(first.std)
    assert (np.abs(second.energies() - first.energies()) / std).max() < 0.05
    np.testing.assert_allclose(second.areas() / first.areas(), factor, rtol=0.01)
    ratio = second.energies(second.std) / std
    assert (np.abs(ratio * np.sqrt(factor) - 1.0) < 0.25).all()


def test_unit_of_the_energy_does_not_matter(counted, model, reference):
    """All energies times 1,000 (meV written as µeV): energies and their deviations times 1,000, areas as they are."""
    k = 1000.0
    modes = tuple(
        mode.model_copy(
            update={
                "energy_mev": k * mode.energy_mev, "fwhm_mev": k * mode.fwhm_mev,
                "bounds_mev": (k * mode.bounds_mev[0], k * mode.bounds_mev[1]),
            }
        )
        for mode in MATERIAL.modes
    )  # fmt: skip
    material = MATERIAL.model_copy(update={"modes": modes})
    first, n = model.first_channel, model.energies_mev.size
    shape = ZeroLossShape(k * 7.5, 1.6, 1.9)
    axis = counted.image.energy
    image = counted.image.with_(energy=EnergyAxis(k * axis.offset_mev, k * axis.dispersion_mev, axis.n_channels))
    scaled = build_forward_model(
        Settings().fit_peaks, material, np.arange(first, first + n), k * 0.5, shape, k * thermal_energy_mev(293.0)
    )
    place, start = alignment_of(counted), start_params(counted, model)
    start[..., 1] *= k
    start[..., N_LOCAL + 3 :] *= k
    found = fit_scan(
        image, scaled, Alignment(place.channel, k * place.shift_mev), start, CpuBackend(1), free_energies=True
    )
    np.testing.assert_allclose(found.energies() / k, reference.energies(), rtol=1e-6)
    # Deviations belong to the point before the last step, up to 0.01 standard deviations away.
    np.testing.assert_allclose(found.energies(found.std) / k, reference.energies(reference.std), rtol=1e-3)
    np.testing.assert_allclose(found.areas(), reference.areas(), rtol=1e-4, atol=0.1)


@given(counts=st.lists(st.sampled_from([0.0, -5.0, 1e-3, 1e9, np.nan, np.inf]), min_size=4, max_size=4))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wild_spectra_never_raise_and_never_converge_to_nan(counted, model, reference, counts):
    spoiled = np.array(counted.image.counts, float)
    spoiled[0, 0] = np.resize(counts, spoiled.shape[2])
    found = fit(type(counted)(counted.image.with_(counts=spoiled), counted.truth, counted.truth_maps), model)
    if found.status[0, 0] == 0:
        assert np.isfinite(found.params[0, 0]).all()
        assert np.isfinite(found.std[0, 0][model.free(True) == 1]).all()
    np.testing.assert_array_equal(found.params[1:], reference.params[1:])
