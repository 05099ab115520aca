"""Close pairs at every position: propagation of the covariance, statuses, and the maps of both routes."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.config.settings import FitPeaks
from phonon_eels.forward.covariance import fit_covariance, mode_parameters
from phonon_eels.forward.information import fisher_matrix
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.pair_maps import (
    CENTROID_ONLY,
    FAILED,
    NO_DEVIATION,
    NOT_IDENTIFIABLE,
    OK,
    pair_maps,
    pair_quantities,
    ratio_interval,
)
from phonon_eels.steps.refit import chosen_positions, refit_peaks
from tests.unit.forward.spectra import BI2212, alignment_of, context_of, fit, model_of, simulated, with_results
from tests.unit.steps import test_classic_peaks

AREAS, ENERGIES = np.array([900.0, 1300.0]), np.array([38.0, 42.0])
STD = np.array([40.0, 50.0, 0.2, 0.15])
CORRELATION = np.array([[1.0, -0.7, -0.5, -0.6], [-0.7, 1.0, 0.4, 0.5], [-0.5, 0.4, 1.0, 0.6], [-0.6, 0.5, 0.6, 1.0]])
COVARIANCE = CORRELATION * np.outer(STD, STD)


def quantities_of(parameters):
    """Return centroid, splitting and ratio as they are defined, written a second time."""
    a1, a2, e1, e2 = parameters
    return np.array([(a1 * e1 + a2 * e2) / (a1 + a2), e2 - e1, a1 / a2])


def test_covariance_is_that_of_the_derivatives():
    at = np.concatenate([AREAS, ENERGIES])
    steps = np.diag(1e-4 * STD)
    gradient = np.stack([(quantities_of(at + h) - quantities_of(at - h)) / (2.0 * h.sum()) for h in steps], axis=1)
    value, found = pair_quantities(AREAS, ENERGIES, COVARIANCE)
    np.testing.assert_allclose(value, quantities_of(at), rtol=1e-12)
    np.testing.assert_allclose(found, gradient @ COVARIANCE @ gradient.T, rtol=1e-6)


def test_covariance_is_that_of_draws():
    n = 200_000
    draws = np.random.default_rng(0).multivariate_normal(np.concatenate([AREAS, ENERGIES]), COVARIANCE, n)
    scatter = np.cov(np.array([quantities_of(own) for own in draws]).T)
    _, found = pair_quantities(AREAS, ENERGIES, COVARIANCE)
    std, true_std = np.sqrt(np.diag(found)), np.sqrt(np.diag(scatter))
    # The scatter of n draws is known to 1/sqrt(2 n) = 0.16 %; second order adds 0.6 % to the ratio's.
    np.testing.assert_allclose(std, true_std, rtol=0.015)
    np.testing.assert_allclose(found / np.outer(std, std), scatter / np.outer(true_std, true_std), atol=0.01)


@pytest.mark.parametrize("significance", [2.5, 4.0, 8.0])
def test_interval_of_the_ratio_holds_the_truth_however_faint_the_upper_line(significance):
    n, std = 20_000, np.array([1.0, 1.0])
    matrix = np.outer(std, std) * np.array([[1.0, -0.8], [-0.8, 1.0]])
    draws = np.random.default_rng(1).multivariate_normal([3.0, significance], matrix, n)
    low, high = ratio_interval(draws, np.broadcast_to(matrix, (n, 2, 2)))
    truth = 3.0 / significance
    # Where a2 is below one deviation there is no interval; by the theorem those draws are not within it either way.
    upper = draws[:, 1] > 1.0
    held = np.where(upper, (low < truth) & (truth < high), np.abs(draws[:, 0] - truth * draws[:, 1]) < np.sqrt(
        matrix[0, 0] - 2.0 * truth * matrix[0, 1] + truth**2 * matrix[1, 1]))  # fmt: skip
    assert abs(held.mean() - 0.6827) < 2.58 * np.sqrt(0.6827 * 0.3173 / n)


def maps_of(label=0, areas=AREAS, covariance=COVARIANCE, fitted=(True, True)):
    """Return the maps of one pair at one position, name → number."""
    found = pair_maps(
        [(0, 1)], ("a", "b"), areas[None, None], ENERGIES[None, None], covariance[None, None, None],
        np.array([[fitted]]), np.full((2, 1, 1), label),
    )  # fmt: skip
    assert found.names == ("a+b",)
    flags = {name: int(numbers[0, 0, 0]) for name, (numbers, _) in found.flags.items()}
    return {name: float(array[0, 0, 0]) for name, (array, _) in found.values.items()} | flags


def test_what_is_told_of_a_pair():
    whole = maps_of()
    assert (whole["pair_status"], whole["area_ratio_status"]) == (OK, 0)
    assert np.isfinite(list(whole.values())).all()
    _, expected = pair_quantities(AREAS, ENERGIES, COVARIANCE)
    told = whole["centroid_splitting_correlation"] * whole["centroid_mev_std"] * whole["splitting_mev_std"]
    assert told == pytest.approx(expected[0, 1], rel=1e-12)

    for only in (maps_of(label=1), maps_of(fitted=(True, False))):
        assert only["pair_status"] == CENTROID_ONLY
        assert only["centroid_mev"] == whole["centroid_mev"]
        assert only["area_ratio_std"] == whole["area_ratio_std"]
        assert np.isnan(
            [only["splitting_mev"], only["splitting_mev_std"], only["centroid_splitting_correlation"]]
        ).all()

    singular = np.full((4, 4), np.nan)
    for status, nothing in (
        (NOT_IDENTIFIABLE, maps_of(label=2)), (FAILED, maps_of(label=3)), (NO_DEVIATION, maps_of(covariance=singular)),
    ):  # fmt: skip
        assert nothing["pair_status"] == status
        assert nothing["area_ratio_status"] == 4
        assert np.isnan([v for name, v in nothing.items() if not name.endswith("status")]).all()


@pytest.mark.parametrize(("upper_area", "status", "value", "std"), [(1300.0, 0, 1, 1), (400.0, 1, 1, 1), (200.0, 2, 1, 0), (80.0, 3, 0, 0), (-9.0, 3, 0, 0)])  # fmt: skip
def test_ratio_over_a_faint_line_says_so(upper_area, status, value, std):
    found = maps_of(areas=np.array([900.0, upper_area]))
    assert found["area_ratio_status"] == status
    assert np.isfinite(found["area_ratio"]) == np.isfinite(found["area_ratio_low68"]) == value
    assert np.isfinite(found["area_ratio_std"]) == std
    if value:
        assert found["area_ratio_low68"] < found["area_ratio"] < found["area_ratio_high68"]
    assert np.isfinite(found["centroid_mev_std"])


# The forward route ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan():
    return simulated(5, 6, phonons={"area_e": 6e4}, detector={"poisson": True, "gain": 2.5, "read_noise_e": 1.0})


def covariance_of(scan, model, found, modes, prior, with_held=True):
    from phonon_eels.backends.cpu import CpuBackend

    blocks = {}
    kept = mode_parameters(model.n_modes, modes) if modes is not None else np.flatnonzero(model.free(True))
    fit_covariance(
        scan.image, model, alignment_of(scan), found, CpuBackend(1), kept, blocks.__setitem__, prior_std_mev=prior,
        with_held=with_held,
    )  # fmt: skip
    parts = [blocks[row] for row in sorted(blocks)]
    return np.concatenate([p.covariance for p in parts]), np.concatenate([p.bound for p in parts])


def test_covariance_is_the_inverse_of_the_fisher_matrix(scan):
    model = model_of(scan)
    prior = np.full(6, np.inf)
    found = fit(scan, model)
    covariance, bound = covariance_of(scan, model, found, None, prior)
    kept = np.flatnonzero(model.free(True))
    expected = np.linalg.inv(fisher_matrix(model, found.params[2, 3])[np.ix_(kept, kept)])
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(covariance[2, 3] / scale, expected / scale, atol=1e-5)
    # The fit's own deviations are of the point before its last short step.
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance, axis1=2, axis2=3)), found.std[..., kept], rtol=5e-3)
    # Without priors on the modes the bounds are the deviations.
    np.testing.assert_allclose(bound[..., kept], np.sqrt(np.diagonal(covariance, axis1=2, axis2=3)), rtol=1e-9)


def test_covariance_of_channels_that_share_noise(scan):
    model = replace(model_of(scan), noise_correlation=1.6)
    found = fit(scan, model)
    covariance, bound = covariance_of(scan, model, found, None, np.full(6, np.inf))
    kept = np.flatnonzero(model.free(True))
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance, axis1=2, axis2=3)), found.std[..., kept], rtol=5e-3)
    np.testing.assert_allclose(covariance, np.swapaxes(covariance, 2, 3), rtol=1e-9)
    # The bounds take channels as independent.
    assert np.abs(bound[..., kept] / found.std[..., kept] - 1.0).max() > 0.01


def test_an_energy_that_was_held_is_as_uncertain_as_its_prior(scan):
    model = model_of(scan)
    prior = np.array([np.inf, 1.5, 1.5, np.inf, np.inf, np.inf])
    seen = np.ones((5, 6, 6), bool)
    seen[..., 2] = False
    found = fit(scan, model, free_energies=seen, energy_prior_std_mev=prior)
    covariance, _ = covariance_of(scan, model, found, [1, 2], prior)
    alone, _ = covariance_of(scan, model, found, [1, 2], prior, with_held=False)
    assert np.isnan(alone[..., 3, :]).all()
    std = np.sqrt(covariance[..., 3, 3])
    assert (std < 1.5).all()  # and what the data add
    assert (np.sqrt(covariance[..., 2, 2]) > np.sqrt(alone[..., 2, 2])).all()
    assert np.isnan(found.std[..., N_LOCAL + 6 + 2]).all()


@pytest.fixture(scope="module")
def fitted(scan):
    context = context_of(BI2212)
    context = with_results(context, align_zlp=align_zlp(scan.image, Settings().align_zlp, context))
    settings = Settings().fit_peaks.model_copy(update={"covariance_maps": True})
    return settings, context, fit_peaks(scan.image, settings, context)


def test_maps_of_a_pair_hold_the_truth(fitted):
    maps = fitted[2].maps
    assert maps["pair"].values.tolist() == ["BiO38+CuO42"]
    assert (maps["pair_status"] == 0).all()
    for name, truth in (("centroid_mev", 40.0), ("splitting_mev", 4.0), ("area_ratio", 1.0)):
        assert maps[name].dims == maps[f"{name}_std"].dims == ("pair", "row", "column")
        assert maps[name].attrs["units"] == maps[f"{name}_std"].attrs["units"]
        assert "E1" in maps["centroid_mev"].attrs["comment"]
        pull = ((maps[name] - truth) / maps[f"{name}_std"]).values
        assert np.nanmax(np.abs(pull)) < 5.0, name
        assert abs(np.nanmean(pull)) < 0.6, name
    own = maps["energy_mev_std"].sel(mode=["BiO38", "CuO42"]).min("mode")
    assert (maps["centroid_mev_std"].isel(pair=0) < own).all()
    assert fitted[2].summary["pair_status_counts"]["BiO38+CuO42"]["ok"] == 30


def test_centroids_count_from_the_calibrated_zero(scan, fitted):
    settings, context, result = fitted
    zero = {"zero_from_zlp_mev": {"value": 0.4, "std": 0.03}, "dispersion_mev": {"value": 0.5, "std": None}}
    moved = fit_peaks(scan.image, settings, replace(context, summaries={**context.summaries, "calibrate": zero})).maps
    np.testing.assert_allclose(moved["centroid_mev"], result.maps["centroid_mev"] - 0.4, rtol=1e-12)
    np.testing.assert_array_equal(moved["splitting_mev"], result.maps["splitting_mev"])


def test_whole_covariance_agrees_with_deviations_and_pair(fitted):
    maps = fitted[2].maps
    matrix = maps["covariance"]
    assert matrix.dims == ("parameter", "other_parameter", "row", "column")
    names = matrix["parameter"].values.tolist()
    assert names == matrix["other_parameter"].values.tolist()
    assert len(names) == 18
    for name, unit in zip(names, matrix["parameter_unit"].values, strict=True):
        mode, _, word = name.rpartition(".")
        std = maps[f"{word}_std"].sel(mode=mode) if mode else maps[f"{word}_std"]
        assert std.attrs["units"] == unit
        np.testing.assert_allclose(np.sqrt(matrix.sel(parameter=name, other_parameter=name)), std, rtol=1e-12)
    four = [f"{mode}.{word}" for word in ("area_e", "energy_mev") for mode in ("BiO38", "CuO42")]
    own = np.moveaxis(matrix.sel(parameter=four, other_parameter=four).values, (0, 1), (2, 3))
    areas, energies = (
        np.moveaxis(maps[word].sel(mode=["BiO38", "CuO42"]).values, 0, 2) for word in ("area_e", "fitted_energy_mev")
    )
    _, found = pair_quantities(areas, energies, own)
    np.testing.assert_allclose(np.sqrt(found[..., 0, 0]), maps["centroid_mev_std"].values[0], rtol=5e-3)
    np.testing.assert_allclose(np.sqrt(found[..., 1, 1]), maps["splitting_mev_std"].values[0], rtol=5e-3)


def test_every_fitted_parameter_has_a_bound(fitted):
    """Bound and deviation agree but for noise where no prior has a part: everything but the pair's energies."""
    maps = fitted[2].maps
    for name in maps["covariance"]["parameter"].values.tolist():
        mode, _, word = name.rpartition(".")
        bound, std = (maps[f"{word}{end}"].sel(mode=mode) if mode else maps[f"{word}{end}"] for end in ("_crb", "_std"))
        assert bound.attrs["units"] == std.attrs["units"]
        assert np.isfinite(bound).all(), name
        if mode not in ("BiO38", "CuO42"):
            assert float((bound / std).median()) == pytest.approx(1.0, abs=0.03), name


def test_without_the_option_there_is_no_matrix(scan, fitted):
    maps = fit_peaks(scan.image, Settings().fit_peaks, fitted[1]).maps
    assert "covariance" not in maps
    np.testing.assert_array_equal(maps["centroid_mev"], fitted[2].maps["centroid_mev"])


def spoilt(result, place):
    """Return the result with one position told as failed and its pair moved."""
    maps = result.maps.copy(deep=True)
    maps["status"].values[place] = 1
    for name in ("centroid_mev", "apparent_centroid_mev", "covariance", "pair_status"):
        if name in maps:
            maps[name].values[..., *place] += 3
    return replace(result, maps=maps)


def of_route(route, request):
    """Return image, context, settings and result of the fit that the tests of a route share."""
    if route == "classic":
        return request.getfixturevalue("classic")
    settings, context, result = request.getfixturevalue("fitted")
    return request.getfixturevalue("scan").image, context, settings, result


@pytest.mark.parametrize("route", ["forward", "classic"])
def test_pairs_of_positions_fitted_again(route, request):
    image, context, settings, result = of_route(route, request)
    place = (2, 1)
    again, chosen, changed = refit_peaks(spoilt(result, place), image, settings, context, "status == max_iterations")
    assert (chosen, changed) == (1, 1)
    prefix = "apparent_" if route == "classic" else ""
    for name, limit in ((f"{prefix}centroid_mev", 0.05), ("covariance", None), ("pair_status", 0.0)):
        new, old = (r.maps[name].values[..., *place] for r in (again, result))
        scale = result.maps[f"{name}_std"].values[..., *place] if limit else 1.0
        np.testing.assert_allclose(new, old, rtol=0.05 if limit is None else 0.0, atol=(limit or 1e-9) * np.max(scale))
    assert again.summary["pair_status_counts"] == result.summary["pair_status_counts"]
    if route == "classic":
        rescaled = settings.model_copy(update={"scale_std_by_chi2": True})
        new = refit_peaks(spoilt(result, place), image, rescaled, context, "status == max_iterations")[0].maps
        root = np.sqrt(again.maps["deviance_per_dof"].values[place])
        for name in ("apparent_centroid_mev_std", "area_e_std"):
            np.testing.assert_allclose(
                new[name].values[..., *place], root * again.maps[name].values[..., *place], rtol=1e-9
            )
    assert chosen_positions(result.maps, f"BiO38_CuO42.{prefix}centroid_mev > 0").all()


# The classic route ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classic():
    image, context, _ = test_classic_peaks.scan_of("gaussian")
    settings = FitPeaks(line_shape="gaussian", covariance_maps=True)
    return image, context, settings, fit_peaks(image, settings, context)


def test_classic_pairs_and_covariance(classic):
    maps = classic[3].maps
    ok = (maps["pair_status"] == 0).values
    assert ok.mean() > 0.5
    own = maps["apparent_energy_mev_std"].sel(mode=["BiO38", "CuO42"]).min("mode").values[None]
    assert (maps["apparent_centroid_mev_std"].values < own)[ok].all()
    pull = (maps["apparent_centroid_mev"] - 40.0) / maps["apparent_centroid_mev_std"]
    assert float(np.abs(pull).max()) < 4.5
    matrix = maps["covariance"]
    for name, unit in zip(matrix["parameter"].values, matrix["parameter_unit"].values, strict=True):
        mode, _, word = str(name).rpartition(".")
        diagonal = np.sqrt(matrix.sel(parameter=name, other_parameter=name))
        if mode != "background":
            std = maps[f"{word}_std"].sel(mode=mode)
            assert std.attrs["units"] == unit
            shown = np.isfinite(std)
            np.testing.assert_allclose(diagonal.values[shown], std.values[shown], rtol=1e-6)
    assert str(matrix["parameter_unit"].sel(parameter="background.value").values) == "electrons/channel"


# Rescaled by chi-squared ---------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["forward", "classic"])
def test_deviations_are_rescaled_by_chi_squared_only_when_asked(route, request):
    image, context, settings, plain = of_route(route, request)
    scaled = fit_peaks(image, settings.model_copy(update={"scale_std_by_chi2": True}), context)
    chi2 = plain.maps["deviance_per_dof"].values
    multiplied = set()
    for name, variable in plain.maps.data_vars.items():
        new = scaled.maps[name]
        if name.endswith("_std") and not name.endswith("_naive_std"):
            np.testing.assert_allclose(new, variable * np.sqrt(chi2), rtol=1e-9, err_msg=name)
            multiplied.add(name)
        elif name == "covariance":
            np.testing.assert_allclose(new, variable * chi2, rtol=1e-9)
        elif name.endswith(("68", "95")):
            middle = plain.maps[name.rpartition("_")[0]]
            moved = np.asarray(middle + (variable - middle) * np.sqrt(chi2))
            kept = np.isclose(new, variable, rtol=1e-12, equal_nan=True)
            assert (np.isclose(new, moved, rtol=1e-9, equal_nan=True) | kept).all(), name
            assert not kept.all()
        else:
            np.testing.assert_array_equal(new, variable, err_msg=name)
            assert "scaled" not in new.attrs
            continue
        assert ("the root of" in new.attrs["scaled"]) == (name != "covariance")
        assert "scaled" not in variable.attrs
    assert {"area_e_std", "area_ratio_std"} < multiplied
    assert any("scale_std_by_chi2" in message for message in scaled.messages)
    assert not any("scale_std_by_chi2" in message for message in plain.messages)
