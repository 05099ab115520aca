"""Deconvolution of one spectrum."""

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from phonon_eels.kernels.deconvolve import (
    DONE,
    EMPTY,
    NOT_FINITE,
    Response,
    apply_matrix_one,
    centred_response,
    convolve_one,
    correlate_one,
    fourier_ratio_matrix,
    make_response,
    richardson_lucy_noise_gain,
    richardson_lucy_one,
)
from phonon_eels.kernels.lineshapes import split_pearson7

N = 200
CHANNELS = np.arange(float(N))


def zero_loss(half: int = 60, centre: float = 0.0) -> np.ndarray:
    return split_pearson7(np.arange(-half, half + 1) - centre, 12.0, 1.6, 2.2)


def lucy(
    counts: np.ndarray,
    response: Response,
    iterations: int = 10,
    variance: np.ndarray | None = None,
) -> tuple[int, np.ndarray, np.ndarray]:
    estimate, report = np.empty(counts.size), np.empty(3)
    status = richardson_lucy_one(
        counts,
        np.full(counts.size, np.nan) if variance is None else variance,
        response.values,
        response.anchor,
        response.inverse_cover,
        response.transpose_cover,
        iterations,
        variance is not None,
        estimate,
        np.empty((2, counts.size)),
        report,
    )
    return status, estimate, report


def seen(truth: np.ndarray, response: Response) -> np.ndarray:
    out = np.empty(truth.size)
    convolve_one(truth, response.values, response.anchor, out)
    return out


def model_sum(estimate: np.ndarray, response: Response) -> float:
    return float((seen(estimate, response) * response.inverse_cover).sum())


def truth_peak(centre: float = 100.0, sigma: float = 5.0) -> np.ndarray:
    return 1e4 * np.exp(-0.5 * ((CHANNELS - centre) / sigma) ** 2)


def test_convolution_and_its_transpose_agree_with_scipy() -> None:
    response, values = zero_loss(20), np.random.default_rng(0).random(N)
    out = np.empty(N)
    convolve_one(values, response, 20, out)
    assert out == pytest.approx(correlate1d(values, response[::-1], mode="constant"))
    correlate_one(values, response, 20, out)
    assert out == pytest.approx(correlate1d(values, response, mode="constant"))


@pytest.mark.parametrize("n", [1, 3, 5, 17, 50])
@pytest.mark.parametrize("n_response", [1, 2, 4, 5, 9, 40, 101])
def test_convolution_is_the_matrix_whatever_the_lengths(n: int, n_response: int) -> None:
    rng = np.random.default_rng(n)
    values, response, out = rng.random(n), rng.random(n_response), np.empty(n)
    for anchor in sorted({0, n_response // 2, n_response - 1}):
        offset = np.arange(n)[:, None] - np.arange(n)[None, :] + anchor
        inside = (offset >= 0) & (offset < n_response)
        matrix = np.where(inside, response[np.clip(offset, 0, n_response - 1)], 0.0)
        convolve_one(values, response, anchor, out)
        assert out == pytest.approx(matrix @ values, abs=1e-12)
        correlate_one(values, response, anchor, out)
        assert out == pytest.approx(matrix.T @ values, abs=1e-12)


@pytest.mark.parametrize("half", [3, 60, 400])
def test_response_shorter_and_longer_than_the_spectrum(half: int) -> None:
    response = make_response(zero_loss(half), half, N)
    counts = seen(truth_peak(), response) + 10.0
    status, estimate, _ = lucy(counts, response)
    assert status == DONE
    assert np.isfinite(estimate).all()
    assert model_sum(estimate, response) == pytest.approx(counts.sum(), rel=1e-12)


def test_agrees_with_the_textbook_iteration_away_from_the_edges() -> None:
    response = make_response(zero_loss(40), 40, N)
    counts = seen(truth_peak(), response) + 50.0
    estimate = counts.copy()
    for _ in range(10):
        model = correlate1d(estimate, response.values[::-1], mode="nearest", origin=0)
        estimate = estimate * correlate1d(counts / model, response.values, mode="nearest")
    ours = lucy(counts, response)[1]
    assert response.anchor == 42  # two channels of padding on either side
    assert ours[70:130] == pytest.approx(estimate[70:130], rel=2e-3)


def test_peak_comes_back_where_it_was_narrower_and_with_its_counts() -> None:
    response = make_response(zero_loss(), 60, N)
    counts = seen(truth_peak(sigma=2.0), response)
    estimate = lucy(counts, response, 60)[1]
    assert estimate.argmax() == 100  # an asymmetric response that is not flipped in the transpose moves it
    assert (estimate > 0.5 * estimate.max()).sum() < 0.7 * (counts > 0.5 * counts.max()).sum()
    assert estimate.sum() == pytest.approx(truth_peak(sigma=2.0).sum(), rel=1e-2)


def test_zeros_stay_finite_and_counts_are_conserved() -> None:
    response = make_response(zero_loss(), 60, N)
    rng = np.random.default_rng(1)
    for mean in (0.02, 0.3, 3.0):
        counts = rng.poisson(mean, N).astype(float)
        status, estimate, _ = lucy(counts, response, 30)
        assert status == DONE
        assert np.isfinite(estimate).all()
        assert (estimate >= 0.0).all()
        assert model_sum(estimate, response) == pytest.approx(counts.sum(), rel=1e-9)


def test_spectrum_that_is_zero_but_for_one_channel() -> None:
    counts = np.zeros(N)
    counts[50] = 7.0
    response = make_response(zero_loss(5), 5, N)
    status, estimate, _ = lucy(counts, response)
    assert status == DONE
    assert np.isfinite(estimate).all()
    assert model_sum(estimate, response) == pytest.approx(7.0)


def test_nothing_to_deconvolve() -> None:
    response = make_response(zero_loss(), 60, N)
    assert lucy(np.zeros(N), response)[0] == EMPTY
    status, estimate, _ = lucy(np.full(N, -5.0), response)
    assert status == EMPTY
    assert (estimate == -5.0).all()
    missing = np.ones(N)
    missing[3] = np.nan
    status, estimate, _ = lucy(missing, response)
    assert status == NOT_FINITE
    assert np.isnan(estimate).all()


def test_negative_values_are_data() -> None:
    """Clipping at 0 would add counts; so would taking absolute values."""
    response = make_response(zero_loss(), 60, N)
    counts = seen(truth_peak(), response) + np.random.default_rng(2).normal(0.0, 30.0, N)
    status, estimate, report = lucy(counts, response)
    assert status == DONE
    assert report[1] == -counts.min()
    conserved = model_sum(estimate + report[1], response) - report[1] * N
    assert conserved == pytest.approx(counts.sum(), rel=1e-9)
    assert estimate.min() < 0.0
    assert estimate[:30].mean() == pytest.approx(counts[:30].mean(), abs=10.0)


@pytest.mark.parametrize("factor", [1e-8, 1e5])
def test_scale_of_the_counts_does_not_matter(factor: float) -> None:
    response = make_response(zero_loss(), 60, N)
    counts = np.random.default_rng(3).poisson(seen(truth_peak(), response) + 5.0) - 8.0
    ours = lucy(factor * counts, response)[1]
    assert ours == pytest.approx(factor * lucy(counts, response)[1], rel=1e-9)
    assert make_response(1e-6 * zero_loss(), 60, N).values == pytest.approx(response.values)


def test_flat_spectrum_passes_unchanged_edges_included() -> None:
    response = make_response(zero_loss(), 60, N)
    assert lucy(np.full(N, 40.0), response, 50)[1] == pytest.approx(40.0)


@pytest.mark.parametrize("fraction", [0.0, 0.3, -0.5])
def test_centre_between_channels(fraction: float) -> None:
    """The same instrument, sampled with its centre off the channel: the result must not move."""
    shifted = zero_loss(60, fraction)
    response = make_response(shifted, 60 + fraction, N)
    counts = seen(truth_peak(), make_response(zero_loss(), 60, N))
    estimate = lucy(counts, response)[1]
    reference = lucy(counts, make_response(zero_loss(), 60, N))[1]
    assert (estimate * CHANNELS).sum() / estimate.sum() == pytest.approx(
        (reference * CHANNELS).sum() / reference.sum(), abs=0.02
    )


def test_discrepancy_stops_at_the_noise() -> None:
    response = make_response(zero_loss(), 60, N)
    mean = seen(truth_peak(), response) + 20.0
    counts = np.random.default_rng(4).poisson(mean).astype(float)
    _, _, report = lucy(counts, response, 200, variance=mean)
    assert 1 <= report[0] < 200
    assert report[2] <= 1.0
    _, _, noisier = lucy(counts, response, 200, variance=9.0 * mean)
    assert noisier[0] <= report[0]


@pytest.mark.parametrize("stretch", [0.5, 1.0, 3.0])
def test_fourier_ratio_keeps_the_scale(stretch: float) -> None:
    response = make_response(split_pearson7(np.arange(-80, 81) / stretch, 8.0, 1.8, 1.8), 80, N)
    matrix, out = fourier_ratio_matrix(response.values, response.anchor, N, 10.0 * stretch), np.empty(N)
    truth = truth_peak(sigma=3.0)
    apply_matrix_one(matrix, seen(truth, response), out)
    assert out.sum() == pytest.approx(truth.sum(), rel=2e-2)
    assert (out * CHANNELS).sum() / out.sum() == pytest.approx(100.0, abs=0.2)
    flat = np.empty(N)
    apply_matrix_one(matrix, np.full(N, 7.0), flat)
    assert flat == pytest.approx(7.0)


def test_fourier_ratio_of_an_asymmetric_response_puts_the_peak_back() -> None:
    response = make_response(split_pearson7(np.arange(-80.0, 81.0), 8.0, 1.3, 3.0), 80, N)
    matrix, out = fourier_ratio_matrix(response.values, response.anchor, N, 8.0), np.empty(N)
    apply_matrix_one(matrix, seen(truth_peak(sigma=3.0), response), out)
    width = np.hypot(3.0, 8.0 / 2.3548)
    want = truth_peak(sigma=width) * 3.0 / width
    assert out[60:140] == pytest.approx(want[60:140], abs=0.01 * want.max())


@pytest.mark.statistics
def test_noise_gain_of_a_flat_spectrum() -> None:
    response = make_response(zero_loss(), 60, N)
    rng = np.random.default_rng(5)
    many = np.array([lucy(rng.poisson(400.0, N).astype(float), response)[1] for _ in range(300)])
    gain = richardson_lucy_noise_gain(response.values, response.anchor, 10)
    assert gain[0] == 1.0
    assert many.var(axis=0)[60:140].mean() / 400.0 == pytest.approx(gain[10], rel=0.05)


@pytest.mark.parametrize(
    ("values", "centre", "message"),
    [
        (np.zeros(5), 2.0, "not all zero"),
        (np.array([1.0, -1.0, 1.0]), 1.0, "values >= 0"),
        (np.array([1.0, np.nan, 1.0]), 1.0, "finite"),
        (np.ones(5), 5.2, "must lie inside the response"),
    ],
)
def test_impossible_responses_are_refused(values: np.ndarray, centre: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        centred_response(values, centre)
