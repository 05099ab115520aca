from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.component_fit import passes
from phonon_eels.component_fit.fit import fit_components
from phonon_eels.component_fit.model import Component, Tie, build_model
from phonon_eels.component_fit.result import STATUS_WORDS
from phonon_eels.component_fit.start import evaluate_model, shared_start
from phonon_eels.errors import ConfigError, DataError
from phonon_eels.kernels.likelihood import POISSON
from tests.unit.component_fit.made_up import ENERGIES, TRUTH, counts, expected, three_gaussians

WORD = {word: number for number, word in enumerate(STATUS_WORDS)}


@pytest.fixture(scope="module")
def scan():
    return counts((6, 5))


@pytest.fixture(scope="module")
def fitted(scan):
    return fit_components(scan, ENERGIES, three_gaussians(), covariance=True)


def test_finds_the_truth(fitted):
    assert (fitted.status == WORD["converged"]).all()
    pulls = (fitted.values - TRUTH) / fitted.std
    assert np.abs(pulls).max() < 4.5
    assert abs(pulls.mean()) < 4.0 / np.sqrt(30)  # parameters of one spectrum are correlated: count the spectra
    np.testing.assert_allclose(np.sqrt(np.einsum("rcii->rci", fitted.covariance)), fitted.std, rtol=1e-9)
    assert 0.2 < fitted.p_value.mean() < 0.8


def test_eight_peaks_and_no_more():
    energies, centres = np.linspace(10.0, 130.0, 400), 15.0 + 13.0 * np.arange(9)

    def peaks(n):
        return [
            *(
                Component("gaussian", f"p{k}", {"centre": c, "fwhm": 6.5}, {"centre": (c - 5.0, c + 5.0)})
                for k, c in enumerate(centres[:n])
            ),
            Component("offset", "floor"),
        ]

    model = build_model(peaks(8), energies)
    truth = np.concatenate([*([800.0 + 250.0 * k, centres[k] + 0.5, 6.0] for k in range(8)), [5.0]])
    mean = evaluate_model(model, truth)[0][: energies.size]
    found = fit_components(np.random.default_rng(5).poisson(mean, (10, 10, energies.size)), energies, peaks(8))
    assert (found.status == WORD["converged"]).all()
    pulls = (found.values - truth) / found.std
    assert np.abs(pulls.mean(axis=(0, 1))).max() < 4.0 / 10.0
    assert pulls.std(axis=(0, 1)).min() > 0.75
    assert pulls.std(axis=(0, 1)).max() < 1.25
    with pytest.raises(ConfigError, match="9 peaks were given; at most 8 are fitted at once"):
        build_model(peaks(9), energies)


def test_same_optimum_as_iminuit(scan, fitted):
    from iminuit import Minuit

    model = fitted.model
    y = scan[2, 3].astype(float)

    def deviance(params):
        mean = evaluate_model(model, params)[0][: y.size]
        return 2.0 * np.sum(mean - y + y * np.log(np.where(y > 0, y, 1.0) / mean))

    minuit = Minuit(deviance, TRUTH)
    minuit.errordef = Minuit.LEAST_SQUARES
    minuit.strategy = 2
    minuit.migrad(ncall=20000)
    minuit.hesse()
    assert fitted.deviance[2, 3] == pytest.approx(minuit.fval, abs=1e-3)
    assert np.abs((fitted.values[2, 3] - np.array(minuit.values)) / np.array(minuit.errors)).max() < 0.02
    # Fisher's expected information against the observed one
    np.testing.assert_allclose(fitted.std[2, 3], np.array(minuit.errors), rtol=0.15)


def test_same_least_squares_as_lmfit(scan):
    import lmfit

    components = three_gaussians()
    y = scan[0, 0].astype(float)
    ours = fit_components(y, ENERGIES, components, likelihood="gaussian", variance=40.0)
    model = ours.model
    params = lmfit.Parameters()
    for name, value in zip(model.names, TRUTH, strict=True):
        params.add(name.replace(".", "_"), value=value)
    result = lmfit.minimize(
        lambda p: (y - evaluate_model(model, np.array(list(p.valuesdict().values())))[0][: y.size]) / np.sqrt(40.0),
        params, scale_covar=False, ftol=1e-13, xtol=1e-13,
    )  # fmt: skip
    theirs = np.array(list(result.params.valuesdict().values()))
    errors = np.array([p.stderr for p in result.params.values()])
    assert ours.deviance[0, 0] == pytest.approx(result.chisqr, rel=1e-6)
    assert np.abs((ours.values[0, 0] - theirs) / errors).max() < 0.01
    np.testing.assert_allclose(ours.std[0, 0], errors, rtol=0.02)


def test_positions_do_not_know_of_each_other(scan, fitted, monkeypatch):
    order = np.random.default_rng(3).permutation(30)
    shuffled = scan.reshape(30, -1)[order].reshape(scan.shape)
    again = fit_components(shuffled, ENERGIES, three_gaussians())
    # sums over the scan are formed in another order, so starts differ by rounding
    np.testing.assert_allclose(again.values.reshape(30, -1), fitted.values.reshape(30, -1)[order], rtol=2e-6)
    monkeypatch.setattr("phonon_eels.backends.cpu.BLOCK_BYTES", 10_000)
    for threads in (1, 3):
        same = fit_components(scan, ENERGIES, three_gaussians(), backend=CpuBackend(threads))
        np.testing.assert_array_equal(same.values, fitted.values)
        np.testing.assert_array_equal(same.std, fitted.std)


def test_number_types_and_dask_give_the_same(scan, fitted):
    for kind in (np.uint16, np.float32):
        same = fit_components(scan.astype(kind), ENERGIES, three_gaussians())
        np.testing.assert_array_equal(same.values, fitted.values)
    lazy = fit_components(da.from_array(scan, chunks=(2, 3, 60)), ENERGIES, three_gaussians())
    np.testing.assert_array_equal(lazy.values, fitted.values)


def test_missing_channels_and_empty_spectra(scan, fitted):
    broken = scan.astype(float)
    broken[0, 0] = 0.0
    broken[0, 1] = np.nan
    broken[0, 2, 60:70] = np.nan
    bad = np.zeros(scan.shape, bool)
    bad[0, 3, 60:70] = True
    broken[0, 3, 60:70] = 1e6
    fit = fit_components(broken, ENERGIES, three_gaussians(), bad=bad)
    assert [STATUS_WORDS[s] for s in fit.status[0]] == ["no_data", "no_data", "converged", "converged", "converged"]
    assert np.isnan(fit.values[0, :2]).all()
    assert np.isnan(fit.deviance[0, :2]).all()
    assert fit.n_channels[0, 2:].tolist() == [170, 170, 180]
    pulls = (fit.values - TRUTH) / fit.std
    assert np.nanmax(np.abs(pulls)) < 4.5
    # the others start elsewhere, from another mean spectrum, and end at the same optimum
    assert (np.abs(fit.values[1:] - fitted.values[1:]) / fitted.std[1:]).max() < 0.03


def test_gain_dark_level_and_read_noise():
    random = np.random.default_rng(5)
    mean = expected(three_gaussians(), TRUTH)
    electrons = random.poisson(mean, (8, 8, mean.size)) + random.normal(0.0, 4.0, (8, 8, mean.size))
    fit = fit_components(
        2.5 * electrons + 170.0, ENERGIES, three_gaussians(), gain=2.5, dark_level=170.0, read_noise_e=4.0
    )
    pulls = (fit.values - TRUTH) / fit.std
    assert np.abs(pulls.mean(axis=(0, 1))).max() < 4.0 / 8.0
    assert 0.75 < pulls.std() < 1.25


@pytest.mark.parametrize("mean", [20.0, 4.0])
def test_poisson_mean_of_a_constant(mean):
    y = np.random.default_rng(1).poisson(mean, (200, 100))
    fit = fit_components(y, np.arange(100.0), [Component("offset", "floor")])
    # The maximum likelihood estimate of a constant is the mean, exactly.
    np.testing.assert_allclose(fit.value("floor.value")[:, 0], y.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(fit.value_std("floor.value")[:, 0], np.sqrt(y.mean(axis=1) / 100.0), rtol=2e-2)


def test_units_and_counts_scale(scan, fitted):
    thousand = [
        Component(c.kind, c.name, {k: 1e-3 * v for k, v in c.start.items()}, c.bounds) for c in three_gaussians()
    ]
    in_ev = fit_components(scan, 1e-3 * ENERGIES, thousand)
    np.testing.assert_allclose(1e3 * in_ev.value("b.centre"), fitted.value("b.centre"), rtol=1e-6)
    np.testing.assert_allclose(in_ev.value("b.area"), fitted.value("b.area"), rtol=1e-5)
    seven = fit_components(7.0 * scan, ENERGIES, three_gaussians(), gain=7.0)
    np.testing.assert_allclose(seven.values, fitted.values, rtol=1e-6)


def test_bounds_hold_and_are_told(scan):
    components = three_gaussians()
    components[1] = Component(
        "gaussian", "b", {"centre": 56.0, "fwhm": 5.0}, {"centre": (54.0, 56.5), "fwhm": (2.0, 9.0)}
    )
    fit = fit_components(scan, ENERGIES, components)
    held = fit.value("b.centre") == 56.5
    assert held.mean() > 0.9
    assert (fit.value("b.centre") <= 56.5).all()
    assert (fit.status[held] == WORD["at_bound"]).all()
    assert np.isnan(fit.value_std("b.centre")[held]).all()
    assert np.isfinite(fit.value_std("b.area")).all()


def test_bounded_optimum_is_that_of_scipy(scan):
    from scipy.optimize import least_squares

    components = three_gaussians()
    components[1] = Component(
        "gaussian", "b", {"centre": 56.0, "fwhm": 5.0}, {"centre": (54.0, 56.5), "fwhm": (2.0, 5.0)}
    )
    y = scan[1].astype(float)
    fit = fit_components(y, ENERGIES, components, likelihood="gaussian", variance=50.0)
    for k in range(y.shape[0]):
        start = np.clip(TRUTH, fit.model.bounds[0] + 1e-6, fit.model.bounds[1] - 1e-6)
        tight = least_squares(
            lambda p, k=k: (evaluate_model(fit.model, p)[0][:180] - y[k]) / np.sqrt(50.0), start,
            lambda p: evaluate_model(fit.model, p)[1][:, :180].T / np.sqrt(50.0), bounds=tuple(fit.model.bounds[:2]),
            x_scale=np.abs(TRUTH), ftol=1e-14, xtol=1e-14, gtol=1e-14, max_nfev=2000,
        )  # fmt: skip
        assert fit.deviance[k, 0] <= 2.0 * tight.cost * (1.0 + 1e-6)


def test_a_peak_that_is_not_there_vanishes():
    gone = TRUTH.copy()
    gone[3] = 0.0
    fit = fit_components(counts((4, 10), 2, gone), ENERGIES, three_gaussians())
    without = np.isin(fit.status, [WORD["at_bound"], WORD["not_identified"], WORD["few_counts"]])
    assert without.all()  # never simply "converged"
    at_zero = fit.value("b.area") == 0.0
    assert at_zero.any()
    assert np.isnan(fit.value_std("b.centre")[at_zero]).all()
    pulls = (fit.value("c.centre") - TRUTH[7]) / fit.value_std("c.centre")
    assert np.abs(pulls).max() < 4.0


def test_tied_parameters(scan):
    components = three_gaussians()
    components[1] = Component(
        "gaussian", "b", tied={"fwhm": Tie("a.fwhm"), "centre": Tie("a.centre", offset=19.0)}, start={"area": 500.0}
    )
    fit = fit_components(scan, ENERGIES, components)
    np.testing.assert_array_equal(fit.value("b.fwhm"), fit.value("a.fwhm"))
    np.testing.assert_array_equal(fit.value("b.centre"), fit.value("a.centre") + 19.0)
    np.testing.assert_array_equal(fit.value_std("b.fwhm"), fit.value_std("a.fwhm"))
    pulls = (fit.values - TRUTH) / fit.std
    assert np.abs(pulls).max() < 4.5


def test_a_bad_start_is_made_good(scan, fitted):
    model = build_model(three_gaussians(), ENERGIES)
    far = TRUTH.copy()
    far[[1, 4]] = [46.0, 47.0]
    problem = passes.Problem(model, scan, None, None, np.ones(180), 0, 1.0, 0.0, 0.0, POISSON, passes.TOLERANCE, 60)
    start = passes.run_positions(problem, CpuBackend(1), starts=np.broadcast_to(far, (6, 5, 12)))
    lost = start[2][..., 0] > fitted.deviance + 1.0
    assert lost.any()
    mean, _ = passes.mean_spectrum(problem, CpuBackend(1))
    changed = passes.retry(problem, CpuBackend(1), start, lost, TRUTH, mean)
    np.testing.assert_array_equal(changed, lost)
    np.testing.assert_allclose(start[2][..., 0][lost], fitted.deviance[lost], atol=1e-3)


def test_rescaled_deviations(scan):
    plain = fit_components(scan, ENERGIES, three_gaussians(), likelihood="gaussian", variance=1.0)
    scaled = fit_components(scan, ENERGIES, three_gaussians(), likelihood="gaussian", variance=1.0, rescale=True)
    factor = np.sqrt(plain.pearson_chi2 / (180 - 12))
    np.testing.assert_allclose(scaled.std, plain.std * factor[..., None], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": []}, "components is empty"),
        ({"components": [Component("sinc", "a")]}, "kind = 'sinc' is none of gaussian"),
        ({"components": [Component("gaussian", "a", {"centre": 40.0})]}, "start needs fwhm"),
        ({"components": [Component("offset", "a"), Component("offset", "a")]}, "names must differ"),
        ({"components": [Component("offset", "a", {"height": 1.0})]}, "'height' is none of its parameters"),
        ({"components": [Component("offset", "a", bounds={"value": (2.0, 1.0)})]}, "low must be below high"),
        ({"components": [Component("offset", "a", tied={"value": Tie("b.value")})]}, "is tied to 'b.value', which is none"),
        ({"components": [Component("offset", "a", fixed=["value"])]}, "is fixed, so start must say at what"),
        ({"variance": 1.0}, "has its variance from the model"),
        ({"likelihood": "gaussian"}, "needs `variance`"),
        ({"window_mev": (200.0, 300.0)}, "holds 0 channels"),
        ({"energies_mev": ENERGIES[:-1]}, "both must agree"),
        ({"energies_mev": ENERGIES - 50.0, "components": [Component("power_law", "a")]}, "needs positive energies"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(change, message):
    arguments = {"energies_mev": ENERGIES, "components": three_gaussians(), **change}
    with pytest.raises(ConfigError, match=message):
        fit_components(np.ones((2, 180)), **arguments)


def test_a_scan_without_data_is_refused():
    with pytest.raises(DataError, match="0 usable channels"):
        fit_components(np.full((2, 180), np.nan), ENERGIES, three_gaussians())


def test_the_second_order_of_the_start_saves_evaluations():
    random = np.random.default_rng(3)
    moved = np.tile(TRUTH, (200, 1))
    moved[:, [0, 3, 6]] *= random.uniform(0.7, 1.4, (200, 3))
    moved[:, [1, 4, 7]] += random.normal(0.0, 0.5, (200, 3))
    cube = random.poisson([expected(three_gaussians(), p) for p in moved])[None].astype(float)
    model = build_model(three_gaussians(), ENERGIES)
    problem = passes.Problem(model, cube, None, None, np.ones(180), 0, 1.0, 0.0, 0.0, POISSON, passes.TOLERANCE, 60)
    start = shared_start(model, TRUTH, cube[0].mean(axis=0))
    first = replace(start, pairs=start.pairs[:0])
    most, least = (passes.run_positions(problem, CpuBackend(1), shared=s) for s in (first, start))
    assert least[2][..., 4].mean() < most[2][..., 4].mean() - 0.4
    np.testing.assert_allclose(least[2][..., 0], most[2][..., 0], rtol=2e-6)


@pytest.mark.parametrize("retried", [False, True])
def test_what_is_fixed_stays_and_what_is_tied_follows_whatever_the_counts(retried):
    """Amplitudes start scaled to the counts of a position; one that is fixed must not."""
    spectra = counts((2, 30)) * np.array([1, 3])[:, None, None]
    if retried:  # spikes: these positions are fitted again, from other starts
        spectra[:, ::5, 90] += 3000
    parts = three_gaussians()
    parts[2] = Component("gaussian", "c", {"centre": 78.0, "fwhm": 6.0, "area": 2400.0}, fixed=("area",))
    parts[1] = Component("gaussian", "b", {"centre": 58.0, "fwhm": 7.0}, tied={"area": Tie("c.area", 0.5, 10.0)})
    parts[3] = Component("exponential", "tail", {"amplitude": -5.0}, fixed=("amplitude",))
    parts[4] = Component("exp_polynomial", "floor", {"c0": 3.0}, fixed=("c0",), degree=1)
    parts.append(
        Component(
            "pseudo_voigt", "d", {"centre": 66.0, "fwhm": 4.0, "fraction": 0.3}, fixed=("centre", "fwhm", "fraction")
        )
    )
    fit = fit_components(spectra, ENERGIES, parts)
    assert (fit.value("c.area") == 2400.0).all()
    assert (fit.value("b.area") == 1210.0).all()
    assert (fit.value("tail.amplitude") == -5.0).all()
    assert (fit.value("floor.c0") == 3.0).all()
    for word, value in {"centre": 66.0, "fwhm": 4.0, "fraction": 0.3}.items():
        assert (fit.value(f"d.{word}") == value).all()
    assert np.isnan(fit.value_std("c.area")).all()
    free = fit.value("a.area")
    assert np.median(free[1]) / np.median(free[0]) > 2.0


def test_a_fixed_value_outside_its_bounds_is_an_error():
    part = Component("gaussian", "c", {"centre": 78.0, "fwhm": 6.0}, {"fwhm": (1.0, 5.0)}, fixed=("fwhm",))
    with pytest.raises(ConfigError, match="fwhm is fixed at 6, outside its bounds 1 … 5"):
        build_model([part], ENERGIES)
