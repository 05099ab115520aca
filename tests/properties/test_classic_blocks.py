"""Bits of the classic steps depend neither on blocks, threads nor chunks; resampling always keeps counts."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phonon_eels.config.settings import Deconvolve, Denoise, Normalise, SubtractZlp
from phonon_eels.kernels.resample import resample_one
from phonon_eels.spectrum_image import SpectrumImage, StepResult
from phonon_eels.steps.deconvolve import deconvolve
from phonon_eels.steps.denoise import denoise
from phonon_eels.steps.normalise import normalise
from phonon_eels.steps.subtract_zlp import subtract_zlp
from tests.unit.steps.classic_scans import axis, context_of, noisy_image

STEPS = {
    "normalise": (normalise, Normalise()),
    "normalise_total": (normalise, Normalise(method="total")),
    "denoise": (denoise, Denoise(method="pca")),
    "pearson7": (subtract_zlp, SubtractZlp()),
    "power_law": (subtract_zlp, SubtractZlp(method="power_law")),
    "richardson_lucy": (deconvolve, Deconvolve()),
    "discrepancy": (deconvolve, Deconvolve(stop="discrepancy", iterations=15)),
    "fourier_ratio": (deconvolve, Deconvolve(method="fourier_ratio")),
}


def run(name: str, image: SpectrumImage, threads: int) -> tuple[StepResult, np.ndarray, np.ndarray | None]:
    function, step_settings = STEPS[name]
    result = function(image, step_settings, context_of(threads))
    variance = result.image.variance
    return result, np.asarray(result.image.counts), None if variance is None else np.asarray(variance)


def same(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right, equal_nan=True))


@pytest.mark.parametrize("name", sorted(STEPS))
def test_blocks_threads_and_chunks_do_not_matter(name: str) -> None:
    energy = axis(dispersion_mev=2.0)
    image = noisy_image(7, 5, energy)
    if name in ("richardson_lucy", "discrepancy", "fourier_ratio"):
        image = image.with_(variance=np.maximum(image.counts, 1.0))
    want, counts, variance = run(name, image, 1)
    lazy = {"counts": da.from_array(image.counts, chunks=(2, 3, 40))}
    if image.variance is not None:
        lazy["variance"] = da.from_array(image.variance, chunks=(3, 5, 70))
    for other, threads in ((image, 7), (image.with_(**lazy), 3)):
        have, other_counts, other_variance = run(name, other, threads)
        assert same(other_counts, counts)
        assert same(other_variance, variance) if variance is not None else other_variance is None
        if want.maps is not None:
            for key in want.maps.data_vars:
                assert same(have.maps[key].values, want.maps[key].values), key
        for key, table in want.tables.items():
            assert have.tables[key].equals(table)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_images_are_lazy(name: str) -> None:
    function, step_settings = STEPS[name]
    image = noisy_image(3, 2, variance=np.ones((3, 2, 300)))
    assert isinstance(function(image, step_settings, context_of()).image.counts, da.Array)


@settings(max_examples=60, deadline=None)
@given(
    inside=arrays(np.float64, 20, elements=st.floats(-1e6, 1e6)),
    shift=st.floats(-9.0, 9.0),
)
def test_resampling_keeps_the_counts(inside: np.ndarray, shift: float) -> None:
    counts = np.concatenate([np.zeros(15), inside, np.zeros(15)])
    out, variance = np.empty(50), np.empty(50)
    resample_one(counts, np.abs(counts), shift, out, variance)
    scale = np.abs(counts).sum() + 1.0
    assert out.sum() == pytest.approx(counts.sum(), abs=1e-9 * scale)
    channels = np.arange(50.0)
    moved = (out * channels).sum() - (counts * channels).sum()
    assert moved == pytest.approx(shift * counts.sum(), abs=1e-7 * scale)
