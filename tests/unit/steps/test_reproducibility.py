"""Energies of both halves of the frames: equal within their deviations, and not if one half is moved."""

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.align_zlp import align_zlp
from phonon_eels.steps.fit_peaks import fit_peaks
from phonon_eels.steps.report_frames import reproducibility_table
from phonon_eels.steps.reproducibility import counted_parameters
from tests.unit.forward.spectra import SEPARATED, context_of, material_of, model_of, simulated, with_results

MATERIAL = material_of(*SEPARATED)


def halved(seed, shift_mev=0.0):
    """An image with halves of two frames each; in the second half the last mode lies `shift_mev` higher."""
    parts = []
    for half in range(2):
        modes = tuple(
            mode.model_copy(update={"energy_mev": mode.energy_mev + (shift_mev if half and n == 2 else 0.0)})
            for n, mode in enumerate(MATERIAL.modes)
        )
        parts.append(
            simulated(
                6, 6, seed=seed + 1000 * half, material=MATERIAL.model_copy(update={"modes": modes}),
                phonons={"area_e": 4e3}, detector={"poisson": True, "gain": 2.0, "read_noise_e": 1.0, "dark_level": 10.0},
            ).image
        )  # fmt: skip
    stack = np.stack([part.counts for part in parts]).astype(np.float32)
    noise = parts[0].noise
    both = type(noise)(noise.gain, 2 * noise.dark_level, noise.read_noise_e * 2**0.5, source=noise.source)
    return parts[0].with_(counts=stack.sum(axis=0), halves=stack, noise=both)


def fitted(image, n_frames=(2, 2, 4)):
    registered = StepResult(summary={"halves": {"kind": "odd_even", "n_frames": list(n_frames)}})
    context = with_results(context_of(MATERIAL), register_frames=registered)
    context = with_results(context, align_zlp=align_zlp(image, Settings().align_zlp, context))
    result = fit_peaks(image, Settings().fit_peaks, context)
    return result, with_results(context, fit_peaks=result)


def test_halves_of_the_same_scan_agree():
    pulls, values = [], []
    for seed in range(4):
        table = fitted(halved(seed))[0].tables["reproducibility"]
        assert table["mode"].tolist() == [*SEPARATED, "all"]
        each = table[table["mode"] != "all"]
        pulls += (each["difference_mev"] / each["difference_mev_std"]).tolist()
        values.append(float(table[table["mode"] == "all"]["p_value"].iloc[0]))
        np.testing.assert_allclose(each["energy_first_mev"], [38.0, 57.5, 78.0], atol=0.4)
        np.testing.assert_allclose(
            each["difference_mev_std"], np.hypot(each["energy_first_mev_std"], each["energy_second_mev_std"])
        )
    # 12 pulls of unit variance: χ² lies between its 0.001 and 0.999 quantiles.
    assert 2.2 < float(np.sum(np.square(pulls))) < 32.9
    assert min(values) > 1e-3


def test_a_mode_that_moved_between_the_halves_is_told():
    result, context = fitted(halved(0, shift_mev=1.0))
    table = result.tables["reproducibility"].set_index("mode")
    moved = table.loc[SEPARATED[2]]
    assert moved["difference_mev"] == pytest.approx(-1.0, abs=4 * moved["difference_mev_std"])
    assert moved["p_value"] < 1e-3
    assert table.loc["all", "p_value"] < 1e-2
    shown = reproducibility_table(context)
    assert "do not repeat" in shown.note
    assert shown.header[1] == "odd frames (2), meV"
    assert len(shown.rows) == 3


def test_without_halves_there_is_no_table():
    image = halved(0).with_(halves=None)
    result, context = fitted(image)
    assert "reproducibility" not in result.tables
    assert reproducibility_table(context) is None


def test_same_for_any_number_of_threads():
    image = halved(2)
    registered = StepResult(summary={"halves": {"kind": "odd_even", "n_frames": [2, 2, 4]}})
    tables = []
    for threads in (1, 3):
        context = with_results(context_of(MATERIAL, threads), register_frames=registered)
        context = with_results(context, align_zlp=align_zlp(image, Settings().align_zlp, context))
        tables.append(fit_peaks(image, Settings().fit_peaks, context).tables["reproducibility"])
    assert CpuBackend(3).threads == 3
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("kind", "counted"), [("linear", [0, 5, 6]), ("power_law", [0, 5]), ("exp_polynomial", [0, 5])]
)
def test_only_what_counts_electrons_follows_the_dose(kind, counted):
    """The slope of a straight background is electrons; that of a power law or an exponential is a shape."""
    model = model_of(simulated(2, 2, material=MATERIAL), MATERIAL, background=kind)
    assert counted_parameters(model) == [*counted, 8, 9, 10]


def test_halves_are_fitted_with_the_background_of_the_whole():
    """Halves of a power-law background: its exponent starts where the whole's ended, not at half of it."""
    image = halved(3)
    energies = image.energy.energies_mev
    tail = 60.0 / (1.0 + (np.maximum(energies, 0.0) / 30.0) ** 1.5)
    extra = np.random.default_rng(8).poisson(np.broadcast_to(tail, image.halves.shape)) * image.noise.gain
    image = image.with_(halves=image.halves + extra, counts=image.counts + extra.sum(axis=0))
    registered = StepResult(summary={"halves": {"kind": "odd_even", "n_frames": [2, 2, 4]}})
    context = with_results(context_of(MATERIAL), register_frames=registered)
    context = with_results(context, align_zlp=align_zlp(image, Settings().align_zlp, context))
    settings = Settings().fit_peaks.model_copy(update={"background": "power_law"})
    table = fit_peaks(image, settings, context).tables["reproducibility"]
    each = table[table["mode"] != "all"]
    pulls = each["difference_mev"] / each["difference_mev_std"]
    assert float((pulls**2).sum()) < 16.3  # the 0.999 quantile of chi-squared with three degrees
