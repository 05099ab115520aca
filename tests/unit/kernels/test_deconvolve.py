"""Deconvolution of one spectrum."""

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.kernels.convolve import (
    LANES,
    TAPS,
    convolve_folded,
    convolve_one,
    correlate_one,
    fold_one,
    folded_rows,
    unfold_one,
)
from phonon_eels.kernels.deconvolve import (
    DONE,
    EMPTY,
    NOT_FINITE,
    SMALLEST_RESPONSE,
    Response,
    centred_response,
    make_response,
    richardson_lucy_one,
    richardson_lucy_scratch,
)
from phonon_eels.kernels.fourier import (
    apply_matrix_one,
    filter_matrix,
    ratio_filter,
    scattering_filters,
    single_scattering,
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
    accelerate: bool = False,
    misfit: np.ndarray | None = None,
    check: np.ndarray | None = None,
    stop: bool | None = None,
) -> tuple[int, np.ndarray, np.ndarray]:
    estimate, report = np.empty(counts.size), np.empty(3)
    status = richardson_lucy_one(
        counts,
        counts if check is None else check,
        np.full(counts.size, np.nan) if variance is None else variance,
        response.taps,
        response.anchors,
        response.inverse_cover,
        response.inverse_transpose,
        iterations,
        variance is not None if stop is None else stop,
        accelerate,
        estimate,
        np.full(richardson_lucy_scratch(counts.size, response.taps.shape[1]), np.nan),
        np.full(iterations + 1, np.nan) if misfit is None else misfit,
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
    assert response.anchor == 40  # the zeros that a shift by a fraction would need are cut off again
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
    matrix, out = ratio_matrix(response, 10.0 * stretch), np.empty(N)
    truth = truth_peak(sigma=3.0)
    apply_matrix_one(matrix, seen(truth, response), out)
    assert out.sum() == pytest.approx(truth.sum(), rel=2e-2)
    assert (out * CHANNELS).sum() / out.sum() == pytest.approx(100.0, abs=0.2)
    flat = np.empty(N)
    apply_matrix_one(matrix, np.full(N, 7.0), flat)
    assert flat == pytest.approx(7.0)


def test_fourier_ratio_of_an_asymmetric_response_puts_the_peak_back() -> None:
    response = make_response(split_pearson7(np.arange(-80.0, 81.0), 8.0, 1.3, 3.0), 80, N)
    matrix, out = ratio_matrix(response, 8.0), np.empty(N)
    apply_matrix_one(matrix, seen(truth_peak(sigma=3.0), response), out)
    width = np.hypot(3.0, 8.0 / 2.3548)
    want = truth_peak(sigma=width) * 3.0 / width
    assert out[60:140] == pytest.approx(want[60:140], abs=0.01 * want.max())


def ratio_matrix(response: Response, fwhm: float, noise_to_signal: float = 0.0) -> np.ndarray:
    transfer = ratio_filter(response.values, response.anchor, 2 * N, fwhm, noise_to_signal)
    return CpuBackend(1).whole_array(filter_matrix, np.eye(N), shared=(transfer,))


def without_plural(
    losses: np.ndarray, counts: np.ndarray, response: Response, first_channel: float
) -> tuple[np.ndarray, np.ndarray]:
    filters = scattering_filters(response.values, response.anchor, losses.shape[1], first_channel)
    return CpuBackend(1).whole_array(single_scattering, losses, counts, shared=filters)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200, 513])
@pytest.mark.parametrize("n_response", [1, 4, 41, 300])
def test_folded_convolution_is_the_plain_one(n: int, n_response: int) -> None:
    rng = np.random.default_rng(n)
    values, response = rng.random(n), rng.random(n_response)
    rows, n_taps = folded_rows(n), TAPS * -(-n_response // TAPS)
    taps = np.zeros(n_taps)
    taps[:n_response] = response
    for anchor in sorted({0, n_response // 2, n_response - 1}):
        first = n_taps - 1 - anchor
        padded, folded, out = np.full(LANES * (rows + n_taps - 1), np.nan), np.empty(LANES * rows), np.empty(n)
        fold_one(values, rows, 0.0, padded[LANES * first : LANES * (first + rows)])
        convolve_folded(padded, first, rows, taps, anchor, folded)
        unfold_one(folded, rows, out)
        plain = np.empty(n)
        convolve_one(values, response, anchor, plain)
        assert out == pytest.approx(plain, rel=1e-12)


def test_far_ends_of_the_response_are_cut_off() -> None:
    values = np.exp(-0.5 * (np.arange(-50.0, 51.0) / 5.0) ** 2)
    response = make_response(values, 50.0, N)
    assert response.values.size < 60
    assert response.values.min() >= SMALLEST_RESPONSE * response.values.max()
    assert response.values[response.anchor] == response.values.max()


def test_acceleration_goes_the_same_way_in_fewer_steps() -> None:
    response = make_response(zero_loss(), 60, N)
    mean = seen(truth_peak(), response) + 20.0
    plain, fast = np.full(61, np.nan), np.full(61, np.nan)
    lucy(mean, response, 60, variance=mean, misfit=plain, stop=False)
    _, estimate, _ = lucy(mean, response, 60, variance=mean, misfit=fast, accelerate=True, stop=False)
    assert fast[10] < plain[15]  # two thirds of the iterations
    assert fast[60] < plain[60]
    assert model_sum(estimate, response) == pytest.approx(mean.sum(), rel=1e-9)
    assert (estimate >= 0.0).all()


def test_misfit_against_counts_kept_apart_has_a_minimum() -> None:
    """More iterations fit the counts better and better, but not counts of the same truth that were kept apart."""
    response = make_response(zero_loss(), 60, N)
    mean = seen(truth_peak(sigma=3.0), response) + 20.0
    rng = np.random.default_rng(6)
    own, apart = np.zeros(401), np.zeros(401)
    for _ in range(20):
        counts, check = rng.poisson(mean).astype(float), rng.poisson(mean).astype(float)
        misfit = np.empty(401)
        lucy(counts, response, 400, variance=mean, misfit=misfit, stop=False)
        own += misfit / 20
        lucy(counts, response, 400, variance=mean, check=check, misfit=misfit, stop=False)
        apart += misfit / 20
    assert (np.diff(own) < 0.0).all()
    assert 1 <= apart.argmin() < 400
    assert apart.min() > 1.0


def test_wiener_filter_follows_the_signal_and_refuses_noise() -> None:
    response = make_response(zero_loss(), 60, N)
    truth, out = truth_peak(sigma=4.0), np.empty(N)
    apply_matrix_one(ratio_matrix(response, 0.0, 1e-6), seen(truth, response), out)
    assert out == pytest.approx(truth, abs=0.03 * truth.max())
    for noise_to_signal in (1e-6, 1e-1):
        flat = np.empty(N)
        apply_matrix_one(ratio_matrix(response, 0.0, noise_to_signal), np.full(N, 7.0), flat)
        assert flat == pytest.approx(7.0)
    gains = [float((ratio_matrix(response, 0.0, s) ** 2).sum(axis=0).mean()) for s in (1e-6, 1e-3, 1e-1)]
    assert gains[0] > gains[1] > gains[2]


@pytest.mark.parametrize("thickness", [0.1, 0.7, 1.6])
@pytest.mark.parametrize("first_channel", [0.0, 20.0])
def test_plural_scattering_is_removed(thickness: float, first_channel: float) -> None:
    """P = I0 H (exp(s) - 1): what the Fourier-log inverts, made by repeated convolution."""
    n = 1200
    channels = np.arange(float(n))
    line = np.exp(-0.5 * ((channels - 80.0) / 9.0) ** 2) + 0.5 * np.exp(-0.5 * ((channels - 130.0) / 12.0) ** 2)
    response = make_response(zero_loss(40), 40, n)
    term, total = thickness * line / line.sum(), np.zeros(n)
    once = term.copy()
    for order in range(1, 12):
        total += term
        term = np.convolve(term, once)[:n] / (order + 1)
    counts, single = np.empty(n), np.empty(n)
    convolve_one(1e5 * total, response.values, response.anchor, counts)
    convolve_one(1e5 * once, response.values, response.anchor, single)
    start = int(first_channel)
    found, losses = without_plural(counts[None, start:], np.array([1e5]), response, start)
    assert losses[0] == pytest.approx(thickness, rel=1e-3)
    assert found[0] == pytest.approx(single[start:], abs=2e-3 * single.max())
    assert np.abs(counts - single).max() > 0.02 * thickness * single.max()  # there was something to remove


def test_fourier_log_refuses_what_has_no_logarithm_and_amplifies_no_noise() -> None:
    response = make_response(zero_loss(), 60, N)
    found, losses = without_plural(np.full((1, N), -10.0), np.array([100.0]), response, 20.0)
    assert np.isnan(found).all()
    assert np.isnan(losses[0])
    mean = seen(truth_peak(), response)
    noisy = np.random.default_rng(7).poisson(np.broadcast_to(mean + 5.0, (200, N))).astype(float)
    found, _ = without_plural(noisy, np.full(200, 1e6), response, 20.0)
    assert found.var(axis=0).mean() == pytest.approx(noisy.var(axis=0).mean(), rel=0.3)


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
