"""Temperature of single positions: right, with an honest interval, flagged against the stage, silent where electrons are few."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, chi2

from phonon_eels.config import Settings
from phonon_eels.forward.position_temperature import TEMPERATURE_STATUS
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.refit import refit_peaks
from phonon_eels.steps.report_figures import recipes
from phonon_eels.steps.report_sources import NotDrawn, Sources
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, simulated, with_results

MATERIAL = material_of(*SEPARATED)
SETTINGS = Settings().fit_peaks.model_copy(update={"thermometry_positions": True})


def _scene(rows, kelvin, area_e, stage_k, seed):
    simulation = simulated(
        rows, 12, seed=seed, material=MATERIAL, phonons={"temperature_k": kelvin, "area_e": area_e},
        energy={"offset_mev": -100.0, "channels": 430}, detector={"poisson": True},
    )  # fmt: skip
    image = simulation.image.with_(acquisition=replace(simulation.image.acquisition, temperature_k=stage_k))
    context = context_of(MATERIAL)
    return image, with_results(context, align_zlp=align_zlp(image, Settings().align_zlp, context))


def _pulls_and_cover(maps, kelvin):
    value, std = maps["temperature_k"].values, maps["temperature_k_std"].values
    held = (maps["temperature_k_low68"].values <= kelvin) & (kelvin <= maps["temperature_k_high68"].values)
    return (value - kelvin) / std, held


@pytest.fixture(scope="module")
def warm():
    """The specimen is at 340 K, the stage says 293."""
    image, context = _scene(12, 340.0, 2e4, 293.0, 21)
    return image, context, fit_peaks(image, SETTINGS, context)


@pytest.mark.parametrize(("kelvin", "area_e"), [(293.0, 2e4), (230.0, 5e3)])
def test_intervals_hold_the_truth(kelvin, area_e):
    image, context = _scene(12, kelvin, area_e, kelvin, 22)
    found = fit_peaks(image, SETTINGS, context)
    pulls, held = _pulls_and_cover(found.maps, kelvin)
    assert np.isfinite(pulls).all()
    assert abs(pulls.mean()) < 3.3 / 12.0
    low, high = np.sqrt(chi2.ppf([0.001, 0.999], 143) / 143)
    assert low < pulls.std() < high
    assert binom.ppf(0.005, 144, 0.683) <= held.sum() <= binom.ppf(0.995, 144, 0.683)
    root = found.maps["temperature_pull_to_stage"].values  # the stage is right: standard normal
    assert abs(root.mean()) < 3.3 / 12.0
    assert low < root.std() < high
    assert found.maps["temperature_k"].attrs["units"] == "K"


def test_stage_that_disagrees_does_not_pull_and_is_flagged(warm):
    _, _, found = warm
    pulls, held = _pulls_and_cover(found.maps, 340.0)
    assert abs(pulls.mean()) < 3.3 / 12.0
    assert binom.ppf(0.005, 144, 0.683) <= held.sum() <= binom.ppf(0.995, 144, 0.683)
    assert (found.maps["temperature_pull_to_stage"].values > 0.0).all()
    counts = found.summary["temperature_status_counts"]
    assert counts["disagrees_with_stage"] > 100
    assert counts["ok"] + counts["disagrees_with_stage"] == 144
    assert any("disagree with the stage's temperature" in message for message in found.messages)


def test_few_electrons_have_a_status_and_no_number():
    image, context = _scene(4, 293.0, 50.0, 293.0, 23)
    found = fit_peaks(image, SETTINGS, context)
    status = found.maps["temperature_status"]
    assert status.attrs["flag_meanings"].split() == list(TEMPERATURE_STATUS)
    blank = status.values >= TEMPERATURE_STATUS.index("not_determined")
    assert blank.mean() > 0.9
    for name in ("temperature_k", "temperature_k_std", "temperature_k_low68", "temperature_k_high68"):
        np.testing.assert_array_equal(np.isnan(found.maps[name].values), blank)


def test_a_hot_column_stands_out():
    """Positions hotter than the rest by more than the search first reaches are found, each by itself."""
    image, context = _scene(8, 293.0, 1e5, 293.0, 24)
    hot, _ = _scene(8, 500.0, 1e5, 293.0, 25)
    counts = np.array(image.counts)
    counts[:, 5] = np.asarray(hot.counts)[:, 5]
    image = image.with_(counts=counts)
    context = with_results(context, align_zlp=align_zlp(image, Settings().align_zlp, context))
    found = fit_peaks(image, SETTINGS, context).maps["temperature_k"].values
    assert np.nanmin(found[:, 5]) > 430.0
    assert np.nanmax(np.delete(found, 5, axis=1)) < 330.0


def test_default_has_no_map(warm):
    image, context, _ = warm
    assert "temperature_k" not in fit_peaks(image, Settings().fit_peaks, context).maps


def test_refit_brings_temperatures_along(warm):
    image, context, found = warm
    again, chosen, changed = refit_peaks(found, image, SETTINGS, context, "temperature_status == disagrees_with_stage")
    assert chosen == found.summary["temperature_status_counts"]["disagrees_with_stage"]
    assert changed == chosen
    picked = found.maps["temperature_status"].values == 1
    before, after = (result.maps["temperature_k"].values for result in (found, again))
    np.testing.assert_array_equal(after[~picked], before[~picked])
    # The energies are fitted anew at the stage's temperature; the profile does not ask where it started.
    np.testing.assert_allclose(after[picked], before[picked], atol=0.5)
    assert sum(again.summary["temperature_status_counts"].values()) == 144


def test_report_shows_the_map(warm, tmp_path):
    image, context, found = warm
    sources = Sources(image, with_results(context, fit_peaks=found))
    recipe = next(entry for entry in recipes(sources) if entry.name == "temperature_map")
    recipe.draw(sources).savefig(tmp_path / "map.png", dpi=150)
    blank = found.maps.assign(temperature_k=found.maps["temperature_k"] * np.nan)
    without = Sources(image, with_results(context, fit_peaks=StepResult(maps=blank)))
    with pytest.raises(NotDrawn, match="electrons on the gain side"):
        recipe.draw(without)
