"""Backgrounds under the phonons."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonon_eels.config.settings import SubtractZlp
from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import Acquisition, NoiseModel, SpectrumImage
from phonon_eels.steps.background_models import SHAPES
from phonon_eels.steps.subtract_zlp import subtract_zlp
from phonon_eels.steps.vacuum import VacuumReference
from tests.unit.steps.classic_scans import ALIGNED, axis, context_of, elastic, image_of, noisy_image, phonons

CLEAR = ((14.0, 24.0), (110.0, 150.0))


def clean_image(**fields: Any) -> SpectrumImage:
    energy = axis()
    mean = elastic(energy.energies_mev) + phonons(energy.energies_mev)
    return image_of(np.broadcast_to(mean, (2, 2, mean.size)).copy(), energy, **fields)


def vacuum_beside(image: SpectrumImage, seed: int = 9) -> SpectrumImage:
    """Replace the first column by vacuum: a zero-loss peak of another height, no phonons."""
    counts = np.array(image.counts)
    mean = 0.7 * (elastic(image.energy.energies_mev) + 2.0)
    counts[:, 0] = np.random.default_rng(seed).poisson(np.broadcast_to(mean, counts[:, 0].shape))
    return image.with_(counts=counts)


def test_known_tail_leaves_the_phonons() -> None:
    result = subtract_zlp(clean_image(), SubtractZlp(windows_mev=CLEAR), context_of())
    energies = result.image.energy.energies_mev
    assert energies[0] == 20.0
    assert energies[-1] == 200.0
    loss = np.asarray(result.image.counts)
    assert loss == pytest.approx(np.broadcast_to(phonons(energies), loss.shape), abs=4.0)
    background = elastic(energies).sum()
    assert result.maps["background_counts"].values == pytest.approx(background, rel=0.05)
    assert result.maps["background_counts"].attrs["units"] == "detector counts"
    assert set(result.maps["status"].values.ravel()) <= {0, 1}


@pytest.mark.parametrize("method", [*SHAPES])
def test_every_method_works_and_differs(method: str) -> None:
    region = (0, 1, 0, 0) if method == "reference" else None
    settings = SubtractZlp(method=method, windows_mev=CLEAR, reference_region=region, compare_models=False)
    result = subtract_zlp(vacuum_beside(noisy_image(2, 2)), settings, context_of())
    loss, variance = np.asarray(result.image.counts), np.asarray(result.image.variance)
    assert np.isfinite(loss).all()
    assert (variance > 0.0).all()
    loss, variance = loss[:, 1:], variance[:, 1:]
    assert loss.min() < 0.0  # negative values are data
    assert result.summary["method"] == method
    for name in result.maps.data_vars:
        assert result.maps[name].attrs["units"]
        if name not in ("status", "noise_draws") and not name.endswith("_std"):  # no ensemble here
            assert f"{name}_std" in result.maps
    phonon = (result.image.energy.energies_mev > 70.0) & (result.image.energy.energies_mev < 86.0)
    assert loss[..., phonon].mean() == pytest.approx(60.0, abs=40.0 if method.startswith("exp") else 20.0)


def test_variance_of_the_background_is_added() -> None:
    image = noisy_image(2, 2, variance=np.full((2, 2, 300), 25.0))
    result = subtract_zlp(image, SubtractZlp(method="power_law", windows_mev=CLEAR), context_of())
    assert (np.asarray(result.image.variance) > 25.0).all()


@pytest.mark.statistics
def test_variance_is_that_of_repeated_measurements() -> None:
    image = noisy_image(20, 20)
    result = subtract_zlp(image, SubtractZlp(method="log_quadratic", windows_mev=CLEAR), context_of())
    between = slice(20, 80)  # 40 … 100 meV, outside the windows
    spread = np.asarray(result.image.counts).reshape(400, -1).var(axis=0)[between]
    carried = np.asarray(result.image.variance).reshape(400, -1).mean(axis=0)[between]
    assert np.mean(carried / spread) == pytest.approx(1.0, abs=0.1)
    area = result.maps["background_counts"].values
    assert area.std() == pytest.approx(result.maps["background_counts_std"].values.mean(), rel=0.15)


def test_dark_level_goes_with_the_background() -> None:
    dark = clean_image().with_(counts=clean_image().counts + 80.0, noise=NoiseModel(dark_level=80.0))
    settings = SubtractZlp(method="power_law", windows_mev=CLEAR)
    have, want = subtract_zlp(dark, settings, context_of()), subtract_zlp(clean_image(), settings, context_of())
    assert np.asarray(have.image.counts) == pytest.approx(np.asarray(want.image.counts), abs=1e-2)
    assert have.image.noise.dark_level == 0.0


def test_default_windows_sit_on_the_modes_and_the_program_says_so() -> None:
    messages = subtract_zlp(clean_image(), SubtractZlp(), context_of()).messages
    (warning,) = [message for message in messages if "sits on" in message]
    assert "BiO38 (38 meV)" in warning
    assert "CuO42 (42 meV)" in warning
    assert "CuO78" not in warning
    free = SubtractZlp(windows_mev=((10.0, 16.0), (110.0, 150.0)))
    assert not any("sits on" in message for message in subtract_zlp(clean_image(), free, context_of()).messages)


def test_windows_are_cut_at_the_axis_or_refused() -> None:
    windows = ((26.0, 43.0), (188.0, 300.0))
    result = subtract_zlp(clean_image(), SubtractZlp(windows_mev=windows), context_of())
    assert any("188 … 300 meV leaves the energy axis" in message for message in result.messages)
    assert result.summary["windows_mev"][1] == [188.0, 239.0]
    with pytest.raises(DataError, match=r"subtract_zlp\.windows_mev = 188 … 300 meV does not fit"):
        subtract_zlp(clean_image(), SubtractZlp(windows_mev=windows, clip_windows=False), context_of())


def test_window_beyond_the_axis_moves_to_its_end_and_one_below_it_is_left_out() -> None:
    one = subtract_zlp(clean_image(), SubtractZlp(windows_mev=((26.0, 43.0), (400.0, 500.0))), context_of())
    assert any("400 … 500 meV lies beyond the energy axis" in message for message in one.messages)
    low, high = one.summary["windows_mev"][1]
    assert high == clean_image().energy.last_mev
    assert 0.85 * high < low < high
    below = subtract_zlp(clean_image(), SubtractZlp(windows_mev=((26.0, 43.0), (-900.0, -800.0))), context_of())
    assert any("is left out" in message for message in below.messages)
    assert any("extrapolation" in message for message in below.messages)
    with pytest.raises(DataError, match=r"subtract_zlp\.windows_mev .* leaves no window of at least 5 channels"):
        subtract_zlp(clean_image(), SubtractZlp(windows_mev=((-900.0, -800.0),)), context_of())
    with pytest.raises(DataError, match=r"subtract_zlp\.output_window_mev = 300 … 400 meV"):
        subtract_zlp(clean_image(), SubtractZlp(output_window_mev=(300.0, 400.0)), context_of())
    with pytest.raises(DataError, match="above 0 meV"):
        subtract_zlp(clean_image(), SubtractZlp(method="power_law", windows_mev=((-50.0, -20.0),)), context_of())


def test_spectra_that_were_not_moved_are_refused() -> None:
    context = context_of(summaries={"align_zlp": {"alignment": "coordinate"}})
    with pytest.raises(DataError, match=r"align_zlp\.alignment"):
        subtract_zlp(clean_image(), SubtractZlp(), context)


def test_empty_and_missing_spectra_fail_visibly_and_alone() -> None:
    image = noisy_image(2, 2)
    counts = image.counts.astype(float)
    counts[0, 0] = 0.0
    counts[0, 1] = np.nan
    settings = SubtractZlp(windows_mev=CLEAR)
    result = subtract_zlp(image.with_(counts=counts), settings, context_of())
    assert result.maps["status"].values[0].tolist() == [4, 4]
    loss = np.asarray(result.image.counts)
    assert np.isnan(loss[0]).all()
    assert np.array_equal(loss[1], np.asarray(subtract_zlp(image, settings, context_of()).image.counts)[1])
    assert any("2 of 4 positions" in message for message in result.messages)


def test_bad_channels_do_not_enter_the_fit() -> None:
    image = clean_image()
    counts, bad = image.counts.copy(), np.zeros(image.shape, dtype=bool)
    bad[..., image.energy.window(18.0, 20.0, "here")] = True
    counts[bad] = 1e7
    settings = SubtractZlp(method="power_law", windows_mev=CLEAR)
    hit = subtract_zlp(image.with_(counts=counts, bad=bad), settings, context_of())
    clean = subtract_zlp(image, settings, context_of())
    assert np.asarray(hit.image.counts)[..., 10:] == pytest.approx(np.asarray(clean.image.counts)[..., 10:], abs=5.0)
    assert hit.image.bad.shape == hit.image.shape


def test_mirrored_gain_leaves_the_phonons() -> None:
    image = clean_image(acquisition=Acquisition(temperature_k=293.0))
    result = subtract_zlp(image, SubtractZlp(method="mirrored_gain"), context_of())
    energies = result.image.energy.energies_mev
    assert energies[-1] == 60.0  # the gain side ends there
    assert any("was cut to 20 … 60 meV" in message for message in result.messages)
    loss = np.asarray(result.image.counts)
    assert loss == pytest.approx(np.broadcast_to(phonons(energies), loss.shape), abs=0.05)
    assert result.maps["background_counts"].values == pytest.approx(elastic(energies).sum(), rel=1e-4)


def test_mirrored_gain_between_channels_and_its_variance() -> None:
    energy = axis()
    energy = type(energy)(energy.offset_mev + 0.3, energy.dispersion_mev, energy.n_channels)
    mean = elastic(energy.energies_mev) + phonons(energy.energies_mev)
    counts = np.random.default_rng(8).poisson(np.broadcast_to(mean, (20, 20, mean.size)))
    image = image_of(counts, energy, acquisition=Acquisition(temperature_k=293.0))
    result = subtract_zlp(image, SubtractZlp(method="mirrored_gain"), context_of())
    loss = np.asarray(result.image.counts).reshape(400, -1)
    upper = slice(10, None)  # below, the steep tail is not linear between channels
    assert loss.mean(axis=0)[upper] == pytest.approx(phonons(result.image.energy.energies_mev)[upper], abs=12.0)
    carried = np.asarray(result.image.variance).reshape(400, -1).mean(axis=0)
    assert np.mean(carried[upper] / loss.var(axis=0)[upper]) == pytest.approx(1.0, abs=0.08)


def test_mirrored_gain_needs_a_temperature_and_a_gain_side() -> None:
    with pytest.raises(DataError, match=r"acquisition\.temperature_k"):
        subtract_zlp(clean_image(), SubtractZlp(method="mirrored_gain"), context_of())
    warm = clean_image(acquisition=Acquisition(temperature_k=293.0))
    with pytest.raises(DataError, match="energy-gain side"):
        subtract_zlp(warm, SubtractZlp(method="mirrored_gain", output_window_mev=(70.0, 200.0)), context_of())


def test_measured_reference_from_vacuum_in_the_scan() -> None:
    image = vacuum_beside(noisy_image(40, 4))
    settings = SubtractZlp(method="reference", windows_mev=CLEAR, reference_region=(0, 39, 0, 0))
    result = subtract_zlp(image, settings, context_of())
    energies = result.image.energy.energies_mev
    mean = np.asarray(result.image.counts)[:, 1:].mean(axis=(0, 1))
    assert mean[10:] == pytest.approx(phonons(energies)[10:], abs=8.0)
    assert any("mean zero-loss peak of 40 positions" in message for message in result.messages)
    assert np.abs(result.maps["background_shift_mev"].values[:, 1:]).mean() < 1.5
    one = settings.model_copy(update={"reference_region": (0, 0, 0, 0)})
    noisier = np.asarray(subtract_zlp(image, one, context_of()).image.variance)[:, 1:].mean()
    assert noisier > 1.2 * np.asarray(result.image.variance)[:, 1:].mean()  # one position of vacuum is noise for all


def test_measured_reference_from_a_file(tmp_path: Path) -> None:
    energies = np.arange(-50.0, 260.0, 0.5)
    name = tmp_path / "vacuum.csv"
    np.savetxt(name, np.stack([energies, 3.0 * elastic(energies - 1.2)], axis=1), delimiter=",", header="meV, counts")
    settings = SubtractZlp(method="reference", windows_mev=CLEAR, reference_file=str(name))
    result = subtract_zlp(clean_image(), settings, context_of())
    shown = result.image.energy.energies_mev
    loss = np.asarray(result.image.counts)
    assert loss == pytest.approx(np.broadcast_to(phonons(shown), loss.shape), abs=4.0)
    (tmp_path / "words.csv").write_text("no numbers here")
    bad = settings.model_copy(update={"reference_file": str(tmp_path / "words.csv")})
    with pytest.raises(DataError, match="cannot be read"):
        subtract_zlp(clean_image(), bad, context_of())
    outside = SubtractZlp(method="reference", reference_region=(0, 9, 0, 0))
    with pytest.raises(DataError, match=r"reference_region = \[0, 9, 0, 0\] does not lie in the scan"):
        subtract_zlp(clean_image(), outside, context_of())
    with pytest.raises(ValueError, match=r"takes either subtract_zlp\.reference_region"):
        SubtractZlp(method="reference", reference_file="vacuum.csv", reference_region=(0, 1, 0, 1))
    with pytest.raises(DataError, match=r"has no vacuum: mark some with masks\.files"):
        subtract_zlp(clean_image(), SubtractZlp(method="reference"), context_of())


def test_the_vacuum_of_the_masks_is_the_reference() -> None:
    energies = np.arange(-50.0, 230.0)
    mean = 50.0 * (elastic(energies) + 2.0)
    electrons = np.random.default_rng(18).poisson(mean).astype(float)
    told = {"n_spectra": 50, "distance_nm": None, "n_too_close": 0}
    table = VacuumReference(electrons, mean, energies, 50, float("nan"), 0).table()
    context = replace(
        context_of(summaries={"align_zlp": {**ALIGNED, "vacuum_reference": told}}),
        tables={"align_zlp": {"vacuum_reference": table}},
    )
    result = subtract_zlp(noisy_image(20, 6), SubtractZlp(method="reference", windows_mev=CLEAR), context)
    shown = result.image.energy.energies_mev
    mean_loss = np.asarray(result.image.counts).mean(axis=(0, 1))
    assert mean_loss[10:] == pytest.approx(phonons(shown)[10:], abs=10.0)
    assert any("50 spectra of a file of their own" in message for message in result.messages)


def test_models_are_compared_and_the_right_one_wins() -> None:
    energy = axis()
    mean = 4e6 * np.maximum(energy.energies_mev, 5.0) ** -2.2
    counts = np.random.default_rng(16).poisson(np.broadcast_to(mean, (8, 8, mean.size)))
    result = subtract_zlp(image_of(counts, energy), SubtractZlp(method="exponential", windows_mev=CLEAR), context_of())
    table = result.tables["models"].set_index("method")
    assert table.index[0] == "power_law"
    assert table.loc["power_law", "chi2_per_dof"] == pytest.approx(1.0, abs=0.1)
    assert table.loc["power_law", "held_out_chi2_per_channel"] < table.loc["exponential", "held_out_chi2_per_channel"]
    assert table.loc["power_law", "delta_bic"] == 0.0
    assert table["akaike_weight"].sum() == pytest.approx(1.0)
    assert result.summary["best_model"] == "power_law"
    assert any("by AIC power_law describes the windows better" in message for message in result.messages)


def test_ensemble_widens_the_variance_and_is_kept_apart() -> None:
    image = noisy_image(3, 3)
    plain = SubtractZlp(method="power_law", windows_mev=CLEAR)
    narrow = subtract_zlp(image, plain, context_of())
    wide = subtract_zlp(image, plain.model_copy(update={"ensemble": "windows_and_models"}), context_of())
    assert np.array_equal(np.asarray(wide.image.counts), np.asarray(narrow.image.counts))
    assert (np.asarray(wide.image.variance) >= np.asarray(narrow.image.variance)).all()
    assert np.asarray(wide.image.variance).mean() > 1.02 * np.asarray(narrow.image.variance).mean()
    assert "background_counts_syst" not in narrow.maps
    assert (wide.maps["background_counts_syst"].values > 0.0).all()
    assert wide.summary["ensemble"]["members"] >= 3


@pytest.mark.statistics
@pytest.mark.parametrize(
    ("method", "truth"),
    [
        ("power_law", "power_law"),
        ("log_quadratic", "power_law"),
        ("log_quadratic", "log_quadratic"),
        ("power_law", "log_quadratic"),  # refused by the data: the difference to what they prefer is the error
        ("exponential", "power_law"),
        ("exp_polynomial2", "exponential"),
        ("exponential", "exponential"),
    ],
)
def test_coverage_with_windows_and_models_varied(method: str, truth: str) -> None:
    """The area of the background under the modes lies in its interval at least as often as stated."""
    energy = axis()
    e = np.maximum(energy.energies_mev, 5.0)
    mean = {
        "power_law": 600.0 * (e / 40.0) ** -2.2,
        "exponential": 600.0 * np.exp(-0.022 * (e - 40.0)),
        "log_quadratic": 600.0 * np.exp(-1.4 * np.log(e / 40.0) - 0.5 * np.log(e / 40.0) ** 2),
    }[truth]
    out = (energy.energies_mev >= 20.0) & (energy.energies_mev <= 200.0)
    counts = np.random.default_rng(17).poisson(np.broadcast_to(mean, (12, 14, mean.size)))
    settings = SubtractZlp(method=method, windows_mev=((14.0, 26.0), (100.0, 160.0)), ensemble="windows_and_models")
    maps = subtract_zlp(image_of(counts, energy), settings, context_of()).maps
    error = maps["background_counts"].values - mean[out].sum()
    inside = np.abs(error) / np.hypot(maps["background_counts_std"].values, maps["background_counts_syst"].values)
    for nominal, limit in ((0.683, 1.0), (0.954, 2.0)):
        lowest = nominal - 2.33 * np.sqrt(nominal * (1.0 - nominal) / inside.size)  # 99 %, one-sided
        assert (inside < limit).mean() >= lowest
