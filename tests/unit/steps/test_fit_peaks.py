"""The step that fits the material's modes at every position."""

from dataclasses import replace

import numpy as np
import pytest

from phonon_eels.config import Settings
from phonon_eels.errors import DataError
from phonon_eels.kernels.lineshapes import split_pearson7
from phonon_eels.spectrum_image import REGIONS
from phonon_eels.steps import vacuum_response
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.fit_peaks import FIT_PEAKS, fit_peaks, prepare
from phonon_eels.steps.vacuum import VacuumReference
from phonon_eels.steps.vacuum_response import joint_response
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, simulated, with_results

MATERIAL = material_of(*SEPARATED)
TRUE_MEV = (38.0, 57.5, 78.0)


@pytest.fixture(scope="module")
def counted():
    return simulated(
        8, 8, material=MATERIAL, energy={"jitter_mev": 0.1}, zero_loss={"width_wander": 0.01},
        phonons={"area_e": 8e3}, detector={"poisson": True, "gain": 2.5, "read_noise_e": 1.0},
    )  # fmt: skip


def _context(image, threads=1, material=MATERIAL):
    context = context_of(material, threads)
    return with_results(context, align_zlp=align_zlp(image, Settings().align_zlp, context))


def _run(image, threads=1, material=MATERIAL, **settings):
    return fit_peaks(image, Settings().fit_peaks.model_copy(update=settings), _context(image, threads, material))


@pytest.fixture(scope="module")
def fitted(counted):
    return _run(counted.image)


def test_energies_and_areas_hold_the_truth(counted, fitted):
    maps = fitted.maps
    assert maps["mode"].values.tolist() == list(SEPARATED)
    assert (maps["status"] == 0).all()
    assert (maps["mode_status"] == 0).all()
    for name in ("energy_mev", "area_e"):
        pull = (maps[name].values - counted.truth_maps[name].values) / maps[f"{name}_std"].values
        assert np.abs(pull).max() < 5.0, name
        assert np.abs(pull.mean(axis=(1, 2))).max() < 0.6, name
        assert 0.8 < pull[:, :, :].std() < 1.2, name
    assert 0.9 < float(maps["deviance_per_dof"].mean()) < 1.1
    assert 0.02 < float((maps["p_value"] < 0.5).mean()) < 0.98


def test_scan_wide_modes(fitted):
    modes = fitted.tables["modes"].set_index("mode")
    for name, energy in zip(SEPARATED, TRUE_MEV, strict=True):
        row = modes.loc[name]
        assert abs(row["energy_mev"] - energy) < 4.0 * row["energy_mev_std"] + 0.01
        assert row["energy_mev_std"] < 0.1
        assert row["identifiable"] == "identifiable"
        assert row["n_positions"] == 64
    # Without a calibration the linearisation of the zero-loss shape is left: about 0.01 meV at a resolution of 7.5 meV.
    np.testing.assert_allclose(modes["energy_mev_syst"], 1.3e-3 * 7.5, rtol=0.1)


def test_calibration_gives_the_systematic_part(counted):
    context = _context(counted.image)
    context = replace(
        context, summaries={**context.summaries, "calibrate": {"dispersion_mev": {"value": 0.5, "std": 0.005}}}
    )
    table = fit_peaks(counted.image, Settings().fit_peaks, context).tables["modes"]
    np.testing.assert_allclose(table["energy_mev_syst"], np.hypot(0.01 * table["energy_mev"], 1.3e-3 * 7.5), rtol=1e-3)


def test_energies_count_from_the_calibrated_zero(counted, fitted):
    context = _context(counted.image)
    zero = {"zero_from_zlp_mev": {"value": 0.4, "std": 0.03}, "dispersion_mev": {"value": 0.5, "std": None}}
    context = replace(context, summaries={**context.summaries, "calibrate": zero})
    moved = fit_peaks(counted.image, Settings().fit_peaks, context)
    np.testing.assert_allclose(moved.maps["energy_mev"], fitted.maps["energy_mev"] - 0.4, rtol=1e-12)
    np.testing.assert_array_equal(moved.maps["fitted_energy_mev"], fitted.maps["fitted_energy_mev"])
    table, before = moved.tables["modes"], fitted.tables["modes"]
    np.testing.assert_allclose(table["energy_mev"], before["energy_mev"] - 0.4, rtol=1e-12)
    np.testing.assert_allclose(table["energy_mev_syst"], np.hypot(before["energy_mev_syst"], 0.03), rtol=1e-6)
    np.testing.assert_array_equal(table["energy_mev_std"], before["energy_mev_std"])


def test_energies_of_bins_reach_the_deviation_asked_for(counted, fitted):
    maps = _run(counted.image, bin_to_std_mev=0.1).maps
    np.testing.assert_array_equal(maps["energy_mev"], fitted.maps["energy_mev"])
    reached = (maps["binned_status"] == 0).values
    assert reached.mean() > 0.6
    assert maps["binned_energy_mev_std"].values[reached].max() <= 0.1
    assert maps["bin_positions"].values[reached].max() > 1
    pull = (maps["binned_energy_mev"] - counted.truth_maps["energy_mev"]) / maps["binned_energy_mev_std"]
    assert float(np.abs(pull).max()) < 4.0
    single = 1.0 / (maps["energy_mev_crb"] ** 2).mean()
    told = 1.0 / (maps["binned_energy_mev_std"] ** 2).mean()
    assert float(told / single) > 1.5


def test_mean_spectrum_is_made_of_its_parts(fitted):
    table = fitted.tables["mean_spectrum"]
    parts = [c for c in table if c.endswith("_e") and c not in ("counts_e", "model_e")]
    np.testing.assert_allclose(table[parts].sum(axis=1), table["model_e"], rtol=1e-9)
    assert fitted.summary["mean_chi2_per_dof"] < 2.0
    assert {"BiO38_e", "zlp_e", "background_e"} <= set(table)


def test_names_units_and_statuses(fitted):
    for name, unit in FIT_PEAKS.makes.items():
        assert fitted.maps[name].attrs["units"] == unit
        assert fitted.maps[f"{name}_std"].attrs["units"] == unit
    assert all("units" in variable.attrs for name, variable in fitted.maps.variables.items() if name != "mode")
    assert sum(fitted.summary["status_counts"].values()) == 64


def test_mode_that_is_not_there_has_no_energy():
    absent = simulated(
        4, 4, material=MATERIAL, phonons={"relative_areas": {"BiO57": 0.0}, "area_e": 8e3},
        detector={"poisson": True},
    )  # fmt: skip
    result = _run(absent.image)
    gone = result.maps.sel(mode="BiO57")
    assert (gone["mode_status"] == 2).mean() > 0.9
    assert np.isnan(gone["energy_mev"].values[gone["mode_status"].values == 2]).all()
    assert np.isfinite(gone["area_e"]).all()
    assert result.tables["modes"].set_index("mode").loc["BiO57", "identifiable"] == "not identifiable"


def test_close_pair_is_given_as_centroid_splitting_and_ratio():
    pair = simulated(6, 6, phonons={"area_e": 8e3}, detector={"poisson": True})
    table = _run(pair.image, material=pair_material()).tables["pairs"]
    assert table["pair"].tolist() == ["BiO38+CuO42"]
    row = table.iloc[0]
    assert abs(row["centroid_mev"] - 40.0) < 4.0 * row["centroid_mev_std"] + 0.05
    assert abs(row["splitting_mev"] - 4.0) < 4.0 * row["splitting_mev_std"] + 0.1


def pair_material():
    from tests.unit.forward.spectra import BI2212

    return BI2212


def test_broken_positions_keep_their_place(counted):
    counts = np.array(counted.image.counts, float)
    counts[0, 0] = 0.0
    counts[3, 3] = np.nan
    result = _run(counted.image.with_(counts=counts))
    for place in ((0, 0), (3, 3)):
        assert result.maps["status"].values[place] not in (0, 4)
        assert (result.maps["mode_status"].values[:, place[0], place[1]] == 3).all()
        assert np.isnan(result.maps["energy_mev"].values[:, place[0], place[1]]).all()
    assert any("2 of 64 positions could not be fitted" in message for message in result.messages)
    good = result.maps["status"].values == 0
    assert good.sum() == 62


def test_denoised_counts_are_refused_on_the_forward_route(counted):
    noise = replace(counted.image.noise, denoised=True)
    context = _context(counted.image)  # the zero-loss fit refuses them as well
    with pytest.raises(DataError, match=r"needs raw counts.*denoise\.method to none"):
        fit_peaks(counted.image.with_(noise=noise), Settings().fit_peaks, context)


def test_unknown_temperature_is_said(counted):
    acquisition = replace(counted.image.acquisition, temperature_k=None)
    messages = _run(counted.image.with_(acquisition=acquisition)).messages
    assert any("temperature_k is not known: 293 K assumed" in message for message in messages)


def test_wrong_shape_of_the_zero_loss_peak_is_told():
    other = simulated(
        4, 4, material=MATERIAL, zero_loss={"shape": "gaussian_exponential", "skirt_share": 0.2, "electrons": 2e6},
        detector={"poisson": True},
    )  # fmt: skip
    messages = _run(other.image).messages
    assert any(
        "the shape of the zero-loss peak or the list of modes is not complete" in message for message in messages
    )


def test_intrinsic_widths_may_be_held(counted, fitted):
    held = _run(counted.image, intrinsic_widths="material").tables["modes"].set_index("mode")
    np.testing.assert_allclose(held["fwhm_mev"], [m.fwhm_mev for m in MATERIAL.modes], rtol=1e-3)
    shared = fitted.tables["modes"].set_index("mode")
    np.testing.assert_allclose(shared["fwhm_mev"], [m.fwhm_mev for m in MATERIAL.modes], rtol=0.15)
    assert (shared["fwhm_mev_std"] > 0.0).all()


def _with_vacuum(context, n_too_close, skirts=0.0):
    energies = 0.5 * np.arange(-90, 240)
    mean = 1e8 * (split_pearson7(energies, 7.5, 1.8, 1.8) + skirts * np.exp(-np.abs(energies) / 12.0)) + 5.0
    electrons = np.random.default_rng(3).poisson(mean).astype(float)
    table = VacuumReference(electrons, mean, energies, 500, 3000.0, n_too_close).table()
    told = {"n_spectra": 500, "distance_nm": 3000.0, "n_too_close": n_too_close}
    summaries = {**context.summaries, "align_zlp": {**context.summaries["align_zlp"], "vacuum_reference": told}}
    return replace(context, summaries=summaries, tables={"align_zlp": {"vacuum_reference": table}})


def test_the_vacuum_of_the_masks_is_the_response(counted):
    """Used where it is far from the specimen, told and left out where it is not, unless it is asked for."""
    settings = Settings().fit_peaks
    far = fit_peaks(counted.image, settings, _with_vacuum(_context(counted.image), 0))
    assert far.summary["model"]["vacuum"] is not None
    assert (far.tables["modes"]["energy_mev_syst_vacuum"] > 0.0).all()
    assert any("measured in vacuum with" in message for message in far.messages)
    near = fit_peaks(counted.image, settings, _with_vacuum(_context(counted.image), 7))
    assert near.summary["model"]["vacuum"] is None
    assert any("not the vacuum reference" in message for message in near.messages)
    asked = settings.model_copy(update={"response": "vacuum"})
    with pytest.raises(DataError, match="response = vacuum has no vacuum"):
        fit_peaks(counted.image, asked, _context(counted.image))


def _with_empty_rows(counted):
    """Rows 0 and 1 see no specimen."""
    empty = simulated(
        8, 8, seed=5, material=MATERIAL, energy={"jitter_mev": 0.1}, zero_loss={"width_wander": 0.01},
        phonons={"area_e": 0.0}, detector={"poisson": True, "gain": 2.5, "read_noise_e": 1.0},
    )  # fmt: skip
    counts = np.array(counted.image.counts)
    counts[:2] = np.asarray(empty.image.counts)[:2]
    return counted.image.with_(counts=counts)


def test_vacuum_and_scan_are_fitted_together(counted):
    """A sixteenth of the scan as vacuum: together they know the shape better than the vacuum alone, and agree about it."""
    image = _with_empty_rows(counted)
    joint, before = (
        _run(image, vacuum_region=(0, 1, 0, 4), vacuum_fit=how, response="vacuum") for how in ("joint", "before")
    )
    assert joint.summary["model"]["vacuum"]["joint"] is True
    assert joint.summary["model"]["vacuum"]["settled"] is True
    assert joint.summary["model"]["vacuum"]["tension_p"] > 1e-3
    assert before.summary["model"]["vacuum"]["joint"] is False
    assert any("joint fit with 60 spectra" in message for message in joint.messages)
    assert not any("joint fit" in message for message in before.messages)
    names = ("energy_mev", "energy_mev_syst_vacuum")
    together, alone = (result.tables["modes"].set_index("mode")[list(names)] for result in (joint, before))
    assert (together["energy_mev_syst_vacuum"] < 0.6 * alone["energy_mev_syst_vacuum"]).all()
    truth = counted.truth_maps["energy_mev"].values.mean(axis=(1, 2))
    for table in (together, alone):
        assert (np.abs(table["energy_mev"] - truth) < 4.0 * np.hypot(table["energy_mev_syst_vacuum"], 0.03)).all()


def test_large_scans_are_thinned_for_the_joint_fit_only(counted, monkeypatch):
    monkeypatch.setattr(vacuum_response, "MOST_POSITIONS", 20)
    found = _run(_with_empty_rows(counted), vacuum_region=(0, 1, 0, 4), response="vacuum")
    assert any("joint fit with 14 spectra" in message for message in found.messages)
    assert np.isfinite(found.maps["energy_mev"].values[:, 2:]).all()


def test_an_even_grid_of_positions_is_chosen():
    chosen = np.ones((6, 9), bool)
    chosen[0] = False
    assert (vacuum_response.thinned(chosen, 45) == chosen).all()
    few = vacuum_response.thinned(chosen, 12)
    assert sorted(set(np.argwhere(few)[:, 0])) == [2, 4]
    assert sorted(set(np.argwhere(few)[:, 1])) == [0, 2, 4, 6, 8]
    assert vacuum_response.thinned(np.ones((1, 50), bool), 10).sum() == 10


def test_vacuum_of_another_peak_is_told(counted):
    """The vacuum's peak stands on skirts that the scan's does not have: no width or tail of a position makes up for them."""
    context = _context(counted.image)
    odd, like = (fit_peaks(counted.image, Settings().fit_peaks, _with_vacuum(context, 0, s)) for s in (0.01, 0.0))
    assert any("vacuum and scan disagree" in message for message in odd.messages)
    assert not any("vacuum and scan disagree" in message for message in like.messages)


def test_what_is_counted_in_vacuum_plays_no_part_beside_the_reference(counted):
    """The scan's side of the joint fit does not look at positions marked as vacuum, however they are marked."""
    settings = Settings().fit_peaks.model_copy(update={"vacuum_region": (0, 2, 0, 8), "response": "vacuum"})
    image = _with_empty_rows(counted)
    context = _context(image)
    prepared = prepare(image, settings.model_copy(update={"vacuum_fit": "before"}), context)
    by_mask = settings.model_copy(update={"vacuum_region": None})
    marked = np.zeros((8, 8), np.int8)
    marked[:2] = REGIONS.index("vacuum")

    def factors(row, settings, regions=None):
        """Coefficients of the joint fit when all spectra of a row are spoilt after the reference was taken from them."""
        counts = np.array(image.counts)
        if row is not None:
            counts[row] = np.roll(3.0 * counts[row], 60, axis=-1)
        spoilt = image.with_(counts=counts, regions=regions)
        return joint_response(spoilt, prepared, settings, context)

    for chosen, regions in ((settings, None), (by_mask, marked)):
        kept, inside, outside = (factors(row, chosen, regions) for row in (None, 1, 5))
        assert kept.positions == 48
        np.testing.assert_array_equal(inside.beta, kept.beta)
        np.testing.assert_array_equal(inside.covariance, kept.covariance)
        assert np.abs(outside.beta - kept.beta).max() > 1e-6
