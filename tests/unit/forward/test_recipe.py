"""Energies and widths that a recipe fixes or ties, on the forward route."""

import numpy as np
import pytest
from pydantic import ValidationError

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, load_settings
from phonon_eels.config.recipe import FixedSeparation
from phonon_eels.config.settings import FitPeaks
from phonon_eels.errors import ConfigError
from phonon_eels.forward.information import cramer_rao, fisher_matrix, sensitivities
from phonon_eels.forward.recipe import checked_material, read_recipe
from phonon_eels.forward.scan import fit_scan
from phonon_eels.kernels.forward import N_LOCAL
from phonon_eels.kernels.intervals import PROFILE
from phonon_eels.kernels.likelihood import CONVERGED
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.fit_peaks import fit_peaks
from tests.unit.forward.spectra import (
    BI2212,
    alignment_of,
    context_of,
    fit,
    material_of,
    model_of,
    simulated,
    start_params,
    with_results,
)  # fmt: skip

MATERIAL = material_of("BiO38", "BiO57", "CuO78")
TRUTH = np.array([38.0, 57.5, 78.0])
PAIR = (FixedSeparation(mode="BiO57", from_mode="BiO38", separation_mev=19.5),)
CLOSE = material_of("BiO38", "CuO42", "CuO78")
CLOSE_PAIR = (FixedSeparation(mode="CuO42", from_mode="BiO38", separation_mev=4.0),)
COUNTED = {"phonons": {"area_e": 8e3}, "detector": {"poisson": True, "gain": 1.0}}


@pytest.fixture(scope="module")
def counted():
    return simulated(6, 6, material=MATERIAL, **COUNTED)


@pytest.fixture(scope="module")
def both(counted):
    """The same counts fitted with the pair tied and with it free."""
    return tuple(
        (model, fit(counted, model))
        for model in (model_of(counted, MATERIAL, fixed_separation_mev=ties) for ties in (PAIR, ()))
    )


def test_a_tie_holds_to_the_last_bit_and_shares_its_deviation(both):
    (_, tied), (_, free) = both
    assert (tied.status == CONVERGED).all()
    energies, stds = tied.energies(), tied.energies(tied.std)
    np.testing.assert_array_equal(energies[..., 1], energies[..., 0] + 19.5)
    np.testing.assert_array_equal(stds[..., 1], stds[..., 0])
    assert (stds > 0.0).all()
    assert (np.abs(free.energies()[..., 1] - free.energies()[..., 0] - 19.5) > 0.05).mean() > 0.5


def test_a_tie_takes_one_degree_of_freedom_less(both):
    (_, tied), (_, free) = both
    assert np.median(free.chi2_taken - tied.chi2_taken) == pytest.approx(1.0, abs=0.02)


def test_deviations_are_those_of_the_smaller_model(both):
    """The kernel's deviations against those of the Fisher matrix of all parameters, with the tie as a linear map."""
    (model, tied), _ = both
    design = np.delete(np.eye(model.n_params), np.flatnonzero(model.free(True) != 1), axis=1)
    first = N_LOCAL + model.n_modes
    assert design.shape[1] == 6 + 3 + 2
    design[first + 1] = design[first]
    np.testing.assert_array_equal(model.design(), design)
    covariance = np.linalg.inv(design.T @ fisher_matrix(model, tied.params[2, 3]) @ design)
    expected = np.sqrt(np.diag(design @ covariance @ design.T))
    fitted = np.isfinite(tied.std[2, 3])
    np.testing.assert_array_equal(fitted, expected > 0.0)
    np.testing.assert_allclose(tied.std[2, 3][fitted], expected[fitted], rtol=0.02)


def test_a_true_tie_agrees_with_the_free_fit_and_is_more_precise(both):
    """An efficient estimate differs from a worse one by the root of the difference of their variances (Hausman)."""
    (_, tied), (_, free) = both
    small, large = tied.energies(tied.std), free.energies(free.std)
    assert (small[..., 0] < large[..., :2].min(axis=-1)).all()
    assert (small[..., 2] < 1.01 * large[..., 2]).all()
    pulls = (tied.energies() - free.energies())[..., :2] / np.sqrt((large**2 - small**2)[..., :2])
    assert np.abs(pulls).max() < 4.5
    assert np.abs(pulls.mean(axis=(0, 1))).max() < 3.3 / 6.0
    assert (np.abs((tied.energies() - TRUTH) / small) < 4.5).all()


def test_without_noise_ties_and_fixed_energies_find_the_truth():
    """A pair of 4 meV under a resolution of 7.5 meV."""
    quiet = simulated(1, 2, material=CLOSE, phonons={"area_e": 8e3})
    for held in ({"fixed_separation_mev": CLOSE_PAIR}, {"fixed_energies_mev": {"CuO42": 42.0}}):
        fixed = "fixed_energies_mev" in held
        model = model_of(quiet, CLOSE, **held)
        start = start_params(quiet, model)
        start[..., N_LOCAL + 3] += 0.7
        start[..., N_LOCAL + 4] -= 0.0 if fixed else 0.7  # followers need not start in their place
        found = fit_scan(quiet.image, model, alignment_of(quiet), start, CpuBackend(1), free_energies=True)
        assert (found.status == CONVERGED).all()
        np.testing.assert_allclose(found.energies(), np.broadcast_to([38.0, 42.0, 78.0], (1, 2, 3)), atol=5e-3)
        assert np.isnan(found.energies(found.std)[0, 0]).tolist() == [False, fixed, False]


def test_modes_that_hang_together_are_fitted_where_one_of_them_is_seen(counted):
    model = model_of(counted, MATERIAL, fixed_separation_mev=PAIR)
    seen = np.ones((6, 6, 3), bool)
    seen[0, 0, 0] = False  # the one that leads
    seen[0, 1, :2] = False
    found = fit(counted, model, free_energies=seen)
    stds = found.energies(found.std)
    assert np.isfinite(stds[0, 0]).all()
    assert np.isnan(stds[0, 1, :2]).all()
    np.testing.assert_array_equal(found.energies()[0, 1, :2], model.mode_energies_mev[:2])


def test_intervals_by_profile_move_together():
    faint = simulated(4, 4, material=MATERIAL, phonons={"area_e": 800.0}, detector={"poisson": True, "gain": 1.0})
    model = model_of(faint, MATERIAL, fixed_separation_mev=PAIR)
    found = fit(faint, model, profile_below=1e6)
    assert (found.interval_kind[..., 0] == PROFILE).any()
    np.testing.assert_array_equal(found.interval_kind[..., 1], found.interval_kind[..., 0])
    np.testing.assert_array_equal(found.intervals[..., 1, :], found.intervals[..., 0, :] + 19.5)
    here = (found.interval_kind[..., 0] == PROFILE) & (found.status == CONVERGED)
    half = 0.5 * (found.intervals[here][:, 0, 1] - found.intervals[here][:, 0, 0])
    assert np.median(half / found.energies(found.std)[here][:, 0]) == pytest.approx(1.0, abs=0.15)


def test_bounds_and_sensitivities_follow_the_tie(counted, both):
    (model, tied), _ = both
    held = fit(counted, model, free_energies=False, profile=True)
    bound, loose = cramer_rao(held, model.recipe), cramer_rao(held)
    np.testing.assert_array_equal(bound.energy_mev[..., 0], bound.energy_mev[..., 1])
    assert (bound.energy_mev[..., 0] < loose.energy_mev[..., :2].min(axis=-1)).all()
    np.testing.assert_allclose(np.median(bound.energy_mev / tied.energies(tied.std), axis=(0, 1)), 1.0, atol=0.03)
    follows = sensitivities(model, tied.params[0, 0])
    np.testing.assert_allclose(follows[0], follows[1], rtol=1e-12)
    fixed = model_of(counted, MATERIAL, fixed_energies_mev={"BiO38": 38.0})
    assert (sensitivities(fixed, tied.params[0, 0])[0] == 0.0).all()


@pytest.fixture(scope="module")
def run(counted):
    context = context_of(MATERIAL)
    context = with_results(context, align_zlp=align_zlp(counted.image, Settings().align_zlp, context))
    return lambda **settings: fit_peaks(counted.image, FitPeaks(**settings), context)


def test_the_step_ties_energies_and_widths(run):
    found = run(
        fixed_separation_mev=PAIR, same_fwhm=[["BiO38", "CuO78"]], fixed_fwhm_mev={"BiO57": 4.5}, bin_to_std_mev=0.05
    )
    maps, table = found.maps, found.tables["modes"].set_index("mode")
    for name in ("energy_mev", "fitted_energy_mev", "energy_mev_low95"):
        first, second = (maps[name].sel(mode=mode).values for mode in ("BiO38", "BiO57"))
        np.testing.assert_array_equal(second, first + 19.5)
    np.testing.assert_allclose(maps["binned_energy_mev"][1] - maps["binned_energy_mev"][0], 19.5, atol=1e-12)
    np.testing.assert_array_equal(*(maps["energy_mev_std"].sel(mode=mode).values for mode in ("BiO38", "BiO57")))
    assert table.loc["BiO57", "energy_mev"] == table.loc["BiO38", "energy_mev"] + 19.5
    assert table.loc["BiO57", "held"] == "BiO38 +19.5 meV"
    assert table.loc["CuO78", "fwhm_mev"] == table.loc["BiO38", "fwhm_mev"]
    assert table.loc["CuO78", "fwhm_mev_std"] == table.loc["BiO38", "fwhm_mev_std"] > 0.0
    assert table.loc["BiO57", "fwhm_mev"] == 4.5
    assert np.isnan(table.loc["BiO57", "fwhm_mev_std"])
    pulls = (table["energy_mev"] - TRUTH) / table["energy_mev_std"]
    assert (np.abs(pulls) < 4.0).all()


def test_the_step_fixes_energies_and_says_so(run):
    found = run(fixed_energies_mev={"BiO38": 38.0})
    held = found.maps.sel(mode="BiO38")
    assert (held["energy_mev"] == 38.0).all()
    assert np.isnan(held["energy_mev_std"]).all()
    assert found.summary["mode_status_counts"]["BiO38"]["energy_fixed"] == 36
    row = found.tables["modes"].set_index("mode").loc["BiO38"]
    assert (row["energy_mev"], row["held"]) == (38.0, "energy fixed")
    assert np.isnan(row["energy_mev_std"])
    pulls = (found.maps["area_e"].sel(mode="BiO38") / found.maps["area_e_std"].sel(mode="BiO38")).values
    assert (pulls > 5.0).all()


def test_covariance_and_pairs_follow_the_tie():
    """The pair of 4 meV: tied, its splitting is the recipe's; with one line fixed, its centroid still is an estimate."""
    material = CLOSE.model_copy(update={"pairs": (("BiO38", "CuO42"),)})
    scan = simulated(3, 3, material=material, phonons={"area_e": 4e4}, detector={"poisson": True, "gain": 1.0})
    context = context_of(material)
    context = with_results(context, align_zlp=align_zlp(scan.image, Settings().align_zlp, context))
    tied, fixed = (
        fit_peaks(scan.image, FitPeaks(covariance_maps=True, **recipe), context).maps
        for recipe in ({"fixed_separation_mev": CLOSE_PAIR}, {"fixed_energies_mev": {"CuO42": 42.0}})
    )
    energies = (
        tied["covariance"].sel(parameter="BiO38.energy_mev").values,
        tied["covariance"].sel(parameter="CuO42.energy_mev").values,
    )
    np.testing.assert_allclose(energies[0], energies[1], rtol=1e-12)
    variance = tied["covariance"].sel(parameter="BiO38.energy_mev", other_parameter="CuO42.energy_mev").values
    np.testing.assert_allclose(np.sqrt(variance), tied["fitted_energy_mev_std"].sel(mode="BiO38").values, rtol=1e-9)
    told = (tied["pair_status"] == 0).values
    assert told.any()
    np.testing.assert_allclose(tied["splitting_mev"].values[told], 4.0, atol=1e-12)
    assert (tied["splitting_mev_std"].values[told] < 1e-6).all()
    for maps in (tied, fixed):
        told = (maps["pair_status"] <= 1).values
        assert told.any()
        pulls = ((maps["centroid_mev"] - 40.0) / maps["centroid_mev_std"]).values[told]
        assert np.abs(pulls).max() < 4.0
    assert (fixed["pair_status"] != 0).all()
    assert np.isnan(fixed["covariance"].sel(parameter="CuO42.energy_mev")).all()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"fixed_energies_mev": {"BiO38": 38.0}, "fixed_separation_mev": [CLOSE_PAIR[0].model_copy(update={"mode": "BiO38", "from_mode": "CuO42"})]}, "leave it out of one of them"),
        ({"fixed_separation_mev": [*CLOSE_PAIR, FixedSeparation(mode="BiO38", from_mode="CuO42", separation_mev=-4.0)]}, "in a circle: CuO42 → BiO38 → CuO42"),
        ({"fixed_separation_mev": [FixedSeparation(mode="BiO38", from_mode="BiO38", separation_mev=1.0)]}, "in a circle"),
        ({"fixed_separation_mev": [*CLOSE_PAIR, *CLOSE_PAIR]}, "more than once"),
        ({"same_fwhm": [["BiO38", "CuO42"]], "fixed_fwhm_mev": {"BiO38": 4.0}}, "in fixed_fwhm_mev and in same_fwhm"),
        ({"same_fwhm": [["BiO38", "CuO42"], ["CuO42", "CuO78"]]}, "more than once"),
        ({"same_fwhm": [["BiO38"]]}, "at least 2"),
        ({"lorentzian_share": 1.0}, "less than 1"),
    ],
)  # fmt: skip
def test_recipes_that_contradict_themselves_are_refused(recipe, message):
    with pytest.raises(ValidationError, match=message):
        FitPeaks(**recipe)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fixed_energies_mev={BiO99: 38.0}", "'BiO99' is no mode of material bi2212"),
        ("fixed_energies_mev={BiO38: 60.0}", "outside its bounds"),
        (
            "fixed_separation_mev=[{mode: CuO42, from_mode: BiO38, separation_mev: 40.0}]",
            "cannot hold for BiO38, CuO42",
        ),
        ("same_fwhm=[[BiO38, Cu]]", "fit_peaks.same_fwhm: 'Cu' is no mode"),
    ],
)
def test_recipes_that_do_not_go_with_the_material_are_refused_at_the_start(override, message):
    settings = load_settings(None, [f"fit_peaks.{override}"])
    with pytest.raises(ConfigError, match=message):
        checked_material(settings)


def test_chains_of_ties_lead_to_one_energy():
    names = [mode.name for mode in BI2212.modes]
    first, second, third = names[:3]
    ties = [
        FixedSeparation(mode=third, from_mode=second, separation_mev=10.0),
        FixedSeparation(mode=second, from_mode=first, separation_mev=-2.0),
    ]
    recipe = read_recipe(FitPeaks(fixed_separation_mev=ties), BI2212, names)
    assert recipe.owner[:3].tolist() == [0, 0, 0]
    assert recipe.offset_mev[:3].tolist() == [0.0, -2.0, 8.0]
    fixed = read_recipe(FitPeaks(fixed_separation_mev=ties, fixed_energies_mev={first: 30.0}), BI2212, names)
    assert fixed.fixed[:3].all()
    assert fixed.offset_mev[:3].tolist() == [30.0, 28.0, 38.0]
    with pytest.raises(ConfigError, match="lies beyond the fitted window"):
        read_recipe(FitPeaks(fixed_separation_mev=ties[:1]), BI2212, [third])
