"""Whole-array work: what a step computes with `backend.xp` and `backend.fft` alone, wherever that is."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.fft
import xarray as xr

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.backends.cuda import device_memory, find
from phonon_eels.backends.cuda.device_memory import NumbaMemory, PoolMemory, call_whole
from phonon_eels.backends.memory import SHARE_OF_FREE
from phonon_eels.backends.select import select_backend
from phonon_eels.config.frames import RegisterFrames
from phonon_eels.config.settings import Deconvolve, Denoise
from phonon_eels.errors import DeviceError
from phonon_eels.kernels.fourier import scattering_bytes, scattering_filters, single_scattering
from phonon_eels.steps.carried_noise import resampled_noise
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.denoise import denoise
from phonon_eels.steps.register_frames import register_frames
from tests.unit.backends.array_module import DeviceArray, FakeDevice, Module
from tests.unit.steps.classic_scans import context_of
from tests.unit.steps.test_deconvolve import loss_scan
from tests.unit.steps.test_denoise import two_component_mean
from tests.unit.steps.test_register_frames import context as frames_context
from tests.unit.steps.test_register_frames import make as frames_of

RESPONSE = np.exp(-0.5 * (np.arange(-12.0, 13.0) / 3.0) ** 2)


def plural(backend: CpuBackend, n: int = 40, row_bytes: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    losses = np.random.default_rng(0).poisson(20.0, (n, 90)).astype(float)
    filters = scattering_filters(RESPONSE, 12, 90, 20.0)
    return backend.whole_array(single_scattering, losses, np.full(n, 1e5), shared=filters, row_bytes=row_bytes)


def test_the_processor_has_numpy_and_scipy() -> None:
    assert CpuBackend(1).xp is np
    assert CpuBackend(1).fft is scipy.fft


class TestStandIn:
    """A fake that lets everything pass shows nothing."""

    on = SimpleNamespace(xp=Module(np, "cupy"))

    @pytest.mark.parametrize(
        "forgotten",
        [
            lambda there, here: there + here,
            lambda there, here: here * there,
            lambda there, here: there[here > 0.0],
            lambda there, here: TestStandIn.on.xp.where(there > 0.0, here, 0.0),
            lambda there, here: TestStandIn.on.xp.concatenate([there, here]),
        ],
    )
    def test_arrays_of_the_host_are_refused(self, forgotten: Any) -> None:
        with pytest.raises(TypeError, match="an array of the host among those of the device"):
            forgotten(self.on.xp.asarray(np.ones(3)), np.ones(3))

    @pytest.mark.parametrize("forgotten", [np.asarray, np.concatenate, np.mean, lambda a: np.ones(3).dot(a)])
    def test_numpy_is_refused_on_the_device(self, forgotten: Any) -> None:
        with pytest.raises(TypeError, match="numpy"):
            forgotten(self.on.xp.asarray(np.ones(3)))

    def test_a_result_left_on_the_host_is_refused(self) -> None:
        with pytest.raises(AssertionError, match="no array of the device"):
            FakeDevice().whole_array(lambda on, array: 1.0, np.ones(3))

    def test_names_and_arguments_that_cupy_lacks_are_refused(self) -> None:
        pytest.importorskip("cupy")
        with pytest.raises(AssertionError, match="cupy has no nanquantile"):
            _ = self.on.xp.nanquantile
        there = self.on.xp.asarray(np.ones(3))
        with pytest.raises(TypeError, match="unexpected keyword argument 'method'"):
            self.on.xp.median(there, method="lower")
        with pytest.raises(TypeError, match="unexpected keyword argument 'workers'"):
            Module(scipy.fft, "cupyx.scipy.fft").rfft(there, workers=2)


class TestSteps:
    """The steps' whole-array work gives the processor's results, to the last bit, with a module that only knows its own arrays."""

    def same(self, ours: Any, theirs: Any) -> None:
        np.testing.assert_array_equal(np.asarray(theirs.image.counts), np.asarray(ours.image.counts))
        if ours.image.variance is not None:
            np.testing.assert_array_equal(np.asarray(theirs.image.variance), np.asarray(ours.image.variance))
        assert repr(theirs.summary) == repr(ours.summary)
        for name in ours.maps or ():
            np.testing.assert_array_equal(theirs.maps[name].values, ours.maps[name].values, err_msg=name)

    @pytest.mark.parametrize(
        ("method", "function"), [("fourier_log", "single_scattering"), ("fourier_ratio", "filter_matrix")]
    )
    def test_deconvolution(self, method: str, function: str) -> None:
        image, settings, device = loss_scan(), Deconvolve(method=method), FakeDevice()
        zero_loss = xr.Dataset({"zlp_counts": (("row", "column"), np.full(image.shape[:2], 1e6))})
        context = context_of(maps={"align_zlp": zero_loss})
        ours = deconvolve(image, settings, context)
        theirs = deconvolve(image, settings, replace(context, backend=device))
        self.same(ours, theirs)
        assert set(device.called) == {function}

    def test_principal_components(self) -> None:
        (_, image), device = two_component_mean(6, 5), FakeDevice()
        ours = denoise(image, Denoise(method="pca"), context_of())
        theirs = denoise(image, Denoise(method="pca"), replace(context_of(), backend=device))
        self.same(ours, theirs)
        assert "_eigen" in device.called

    def test_registration_of_frames(self) -> None:
        image, device = frames_of(), FakeDevice()
        ours = register_frames(image, RegisterFrames(), frames_context())
        theirs = register_frames(image, RegisterFrames(), replace(frames_context(), backend=device))
        self.same(ours, theirs)
        assert set(device.called) == {"mean_autocorrelation", "correlation_map"}

    @pytest.mark.parametrize("fractions", [np.empty(0), np.array([0.1, -0.4])])
    def test_noise_that_channels_share(self, fractions: np.ndarray) -> None:
        device, variance = FakeDevice(), np.linspace(1.0, 4.0, 50)
        ours, theirs = (
            resampled_noise(np.random.default_rng(1), variance, fractions, 30, 1.6, backend=backend)
            for backend in (CpuBackend(1), device)
        )
        np.testing.assert_array_equal(theirs, ours)
        assert device.called == ["_coloured"], "one way there and back for all draws"


class TestRows:
    """A cube that is larger than the device goes there in parts."""

    @pytest.mark.parametrize(("rows", "parts"), [(40, 1), (39, 2), (7, 6), (1, 40)])
    def test_parts_make_the_whole(self, rows: int, parts: int) -> None:
        shared = sum(part.nbytes for part in scattering_filters(RESPONSE, 12, 90, 20.0)[1:])
        each = 10_000 + 90 * 8 + 8
        device = FakeDevice(free_bytes=(rows * each + shared + 1.0) / SHARE_OF_FREE)
        for ours, theirs in zip(plural(CpuBackend(1)), plural(device, row_bytes=1e4), strict=True):
            np.testing.assert_array_equal(theirs, ours)
        assert device.array_module.crossed == {"in": 3 + 2 * parts, "out": 2 * parts}

    def test_nothing_is_no_work_for_the_device(self) -> None:
        single, losses = plural(FakeDevice(), 0, 1e4)
        assert (single.shape, losses.shape) == ((0, 90), (0,))

    def test_no_room_for_one_row(self) -> None:
        with pytest.raises(DeviceError, match="but 0 MB are free on the device"):
            plural(FakeDevice(free_bytes=5e3), row_bytes=1e4)

    @pytest.mark.parametrize(("n", "rows", "first"), [(301, 300, -12.5), (1024, 100, -100.0)])
    def test_memory_is_what_the_model_says(self, n: int, rows: int, first: float) -> None:
        """The model counts one transform more than numpy holds: the work area of a GPU's transform."""
        filters = scattering_filters(RESPONSE, 12, n, first)
        losses = np.random.default_rng(0).poisson(50.0, (rows, n)).astype(float)
        tracemalloc.start()
        CpuBackend(1).whole_array(single_scattering, losses, np.full(rows, 1e5), shared=filters)
        peak = tracemalloc.get_traced_memory()[1] / rows + 16.0 * (filters[0] // 2 + 1)
        tracemalloc.stop()
        assert 0.8 * scattering_bytes(filters[0]) <= peak <= scattering_bytes(filters[0])


class Pool:
    """What `PoolMemory` uses of CuPy."""

    def __init__(self) -> None:
        self.given: list[tuple[tuple[int, ...], Any]] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> tuple[str, tuple[int, ...]]:
        self.given.append((shape, dtype))
        return ("cupy", shape)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_bytes=lambda: 7_000_000)


class TestPool:
    """Memory of the device is CuPy's, and what its pool keeps counts as free."""

    def memory(self, pool: Pool) -> PoolMemory:
        return PoolMemory(pool, lambda shape, dtype: np.full(shape, 3, dtype), lambda array: ("numba", array))

    def test_arrays_are_views_of_the_pool_s(self) -> None:
        pool = Pool()
        assert self.memory(pool).empty((3, 4), np.float32) == ("numba", ("cupy", (3, 4)))
        assert pool.given == [((3, 4), np.float32)]
        assert self.memory(pool).pinned((2,), np.int64).tolist() == [3, 3]

    def test_what_the_pool_keeps_is_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        info = SimpleNamespace(get_memory_info=lambda: SimpleNamespace(free=5_000_000))
        monkeypatch.setattr(device_memory, "cuda", SimpleNamespace(current_context=lambda: info))
        assert NumbaMemory().free_bytes() == 5_000_000
        assert self.memory(Pool()).free_bytes() == 12_000_000

    def test_an_array_of_nothing_has_no_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = SimpleNamespace(device_array=lambda shape, dtype: ("numba's own", shape))
        monkeypatch.setattr(device_memory, "cuda", made)
        pool = Pool()
        assert self.memory(pool).empty((0, 1), bool) == ("numba's own", (0, 1))
        assert pool.given == []


def test_cuda_without_cupy_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a device and numba-cuda, where only CuPy was left out."""
    monkeypatch.setattr(find, "_driver_is_missing", lambda: False)
    monkeypatch.setattr("numba.cuda.is_available", lambda: True)
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(find, "find_spec", lambda name: None)
    with pytest.raises(
        DeviceError, match=r"device = cuda: CuPy is not installed.*phonon-eels\[cuda\]; use --device cpu"
    ):
        select_backend("cuda")


def test_whole_arrays_that_have_no_room_are_said_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = pytest.importorskip("cupy")
    from phonon_eels.backends.cuda import backend

    def refuse(*_: Any) -> None:
        raise cupy.cuda.memory.OutOfMemoryError(8, 0)

    cleared: list[bool] = []
    monkeypatch.setattr(backend, "why_no_cuda", lambda: None)
    monkeypatch.setattr(backend, "device_memory", lambda: SimpleNamespace(free_bytes=lambda: 1e9))
    monkeypatch.setattr(cupy.fft.config, "clear_plan_cache", lambda: cleared.append(True))
    monkeypatch.setattr(cupy, "asarray", refuse)
    device = backend.CudaBackend(1)
    assert device.xp is cupy
    with pytest.raises(DeviceError, match=r"no room for this array as a whole .*--device cpu"):
        device.whole_array(lambda on, array: array, np.ones(3))
    assert cleared == [True]


def test_results_may_be_one_array_or_several() -> None:
    on = FakeDevice()
    one = call_whole(on, lambda on, a: a + 1.0, (np.arange(5.0),), (), 8.0, 60.0)
    np.testing.assert_array_equal(one, np.arange(5.0) + 1.0)
    assert isinstance(on.xp.asarray(one), DeviceArray)
