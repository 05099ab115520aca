"""Moving a spectrum by a fraction of a channel."""

import numpy as np
import pytest

from phonon_eels.kernels.resample import resample_one

CHANNELS = np.arange(120.0)


def peak(centre: float, sigma: float = 6.8, height: float = 1e4) -> np.ndarray:
    return height * np.exp(-0.5 * ((CHANNELS - centre) / sigma) ** 2)


def moved(counts: np.ndarray, shift: float, variance: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    out, out_variance = np.empty(counts.size), np.empty(counts.size)
    status = resample_one(counts, counts if variance is None else variance, shift, out, out_variance)
    return out, out_variance, status


def moments(counts: np.ndarray) -> tuple[float, float, float]:
    total = counts.sum()
    mean = (counts * CHANNELS).sum() / total
    return total, mean, np.sqrt((counts * (CHANNELS - mean) ** 2).sum() / total)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, -0.3, 4.75, -7.1])
def test_counts_place_and_width_are_conserved(shift: float) -> None:
    out, _, _ = moved(peak(60.0), shift)
    total, mean, width = moments(out)
    want = moments(peak(60.0))
    assert total == pytest.approx(want[0], rel=1e-12)
    assert mean == pytest.approx(60.0 + shift, abs=1e-9)  # a positive shift moves towards higher channels
    assert width == pytest.approx(want[2], rel=1e-9)


def test_shape_is_that_of_the_moved_peak() -> None:
    out, _, _ = moved(peak(60.0), 0.5)
    assert np.abs(out - peak(60.5)).max() < 1e-4 * 1e4  # linear interpolation is off by 3e-3


def test_whole_channels_are_copied_bit_for_bit() -> None:
    counts = np.random.default_rng(0).poisson(50.0, 120).astype(float)
    out, variance, uncovered = moved(counts, 3.0)
    assert np.array_equal(out[3:], counts[:-3])
    assert np.array_equal(variance[3:], counts[:-3])
    assert uncovered == 3


@pytest.mark.parametrize(("shift", "first", "last"), [(2.5, 3, 120), (-2.5, 0, 117), (0.0, 0, 120), (-0.5, 0, 119)])
def test_channels_beyond_the_axis_are_marked_not_extrapolated(shift: float, first: int, last: int) -> None:
    out, variance, uncovered = moved(CHANNELS**2 + 5.0, shift)
    inside = np.zeros(120, dtype=bool)
    inside[first:last] = True
    assert np.array_equal(np.isfinite(variance), inside)
    assert (out[~inside] == 0.0).all()
    assert uncovered == 120 - inside.sum()
    assert (out[inside] > 0.0).all()


def test_shift_larger_than_the_spectrum() -> None:
    out, variance, uncovered = moved(peak(60.0), 500.3)
    assert uncovered == 120
    assert (out == 0.0).all()
    assert np.isnan(variance).all()


@pytest.mark.statistics
@pytest.mark.parametrize("shift", [0.5, -0.2])
def test_variance_is_that_of_repeated_measurements(shift: float) -> None:
    rng = np.random.default_rng(1)
    mean = peak(60.0) + 100.0
    many = np.array([moved(rng.poisson(mean).astype(float), shift)[0] for _ in range(3000)])
    _, variance, _ = moved(mean, shift)
    inside = slice(5, -5)
    assert np.mean(many.var(axis=0)[inside] / variance[inside]) == pytest.approx(1.0, abs=0.01)
    assert variance[100] / 100.0 == pytest.approx(0.640625 if shift == 0.5 else 0.79648, abs=1e-4)


def test_shift_that_is_no_number() -> None:
    out, variance, status = moved(peak(60.0), float("nan"))
    assert status == -1
    assert np.isnan(out).all()
    assert np.isnan(variance).all()
