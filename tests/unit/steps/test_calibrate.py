"""calibrate on mean spectra with a known wrong axis."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.config.settings import Calibrate
from phonon_eels.errors import DataError
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.calibrate import calibrate
from phonon_eels.steps.spec import StepContext

MATERIAL = load_material("bi2212")
SHAPE = (5, 8)
LINES = ((57.5, 4.0), (110.0, 3.0))


def context(maps, material=MATERIAL, threads=2):
    return StepContext(material=material, backend=CpuBackend(threads), maps={"align_zlp": maps})


def make(
    *, dispersion=0.5, zero=0.0, wander=0.8, seed=1, gain=0.13, lines=LINES, gain_side=0.3, noise=True, offset=0.0
):
    """Channels are truly 0.5 meV wide; the file says `dispersion`, and its 0 lies at the true energy `zero`."""
    rng = np.random.default_rng(seed)
    n = 560
    true = -130.0 + 0.5 * np.arange(n)
    shift = offset + wander * rng.normal(size=SHAPE)
    cube = np.empty((*SHAPE, n))
    for place in np.ndindex(SHAPE):
        e = true - shift[place]
        cube[place] = 1e6 * (1.0 + (2 ** (1 / 1.8) - 1) * (e / 4.0) ** 2) ** -1.8
        for energy, height in lines:
            for sign, factor in ((1.0, 1.0), (-1.0, gain_side)):
                cube[place] += factor * 3e3 * height * np.exp(-0.5 * ((e - sign * energy) / 3.6) ** 2)
    counts = rng.poisson(cube) if noise else cube
    axis = EnergyAxis((true[0] - zero) * dispersion / 0.5, dispersion, n)
    center = (shift - zero) * dispersion / 0.5
    scan = (ScanAxis("row", 0.2, SHAPE[0]), ScanAxis("column", 0.2, SHAPE[1]))
    unit = {"units": "meV"}
    maps = xr.Dataset(
        {
            "zlp_center_mev": (("row", "column"), center, unit),
            "zlp_center_mev_std": (("row", "column"), np.full(SHAPE, 0.004), unit),
            "status": (("row", "column"), np.zeros(SHAPE, np.int16), {"units": "1"}),
        }
    )
    image = SpectrumImage(counts * gain, axis, scan, NoiseModel(gain), Acquisition(temperature_k=293.0))
    return image, maps


def test_zero_between_gain_and_loss_is_told_from_the_zero_loss_centre():
    """The pairs lie around the zero-loss centre here: what fits must take off is 0 within its deviation."""
    image, maps = make(zero=3.0, offset=1.0)
    summary = calibrate(image, Calibrate(method="gain_loss"), context(maps)).summary
    found = summary["zero_from_zlp_mev"]
    assert abs(found["value"]) < 4.0 * found["std"]
    assert 0.0 < found["std"] < 0.5
    # The wander of the centres (0.8 meV) is in the zero of the axis, not in what fits take off.
    assert found["std"] < summary["zero_mev"]["std"]
    moved = maps.assign(zlp_center_mev=maps["zlp_center_mev"] + 0.5)
    shifted = calibrate(image, Calibrate(method="gain_loss"), context(moved)).summary["zero_from_zlp_mev"]
    assert shifted["value"] == pytest.approx(found["value"] - 0.5, abs=0.05)
    assert calibrate(image, Calibrate(method="zero"), context(maps)).summary["zero_from_zlp_mev"]["value"] == 0.0


def known(*energies, std=0.0):
    lines = [{"mode": f"m{k}", "energy_mev": e, "energy_std_mev": std} for k, e in enumerate(energies)]
    return Calibrate(method="lines", lines=lines)


def test_off_is_skipped():
    image, maps = make()
    result = calibrate(image, Calibrate(), context(maps))
    assert result.skipped == "calibration is off"
    assert result.image is None


def test_zero_puts_the_mean_peak_at_zero():
    image, maps = make(zero=2.5)
    result = calibrate(image, Calibrate(method="zero"), context(maps))
    mean = float(maps["zlp_center_mev"].mean())
    assert result.summary["zero_mev"]["value"] == pytest.approx(mean)
    assert result.summary["zero_mev"]["std"] == pytest.approx(float(maps["zlp_center_mev"].std(ddof=1)) / 40**0.5)
    assert result.image.energy.offset_mev == pytest.approx(image.energy.offset_mev - mean)
    assert result.image.energy.dispersion_mev == 0.5
    assert result.image.counts is image.counts
    assert float(result.maps["zlp_center_mev"].mean()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("dispersion", [0.48, 0.5, 0.53])
def test_known_lines_give_dispersion_and_zero(dispersion):
    image, maps = make(dispersion=dispersion, zero=1.5)
    result = calibrate(image, known(57.5, 110.0), context(maps))
    found, zero = result.summary["dispersion_mev"], result.summary["zero_mev"]
    assert found["value"] == pytest.approx(0.5, abs=4.0 * found["std"])
    assert 0.0 < found["std"] < 0.5 * 0.002
    true_zero = float(maps["zlp_center_mev"].mean())
    assert zero["value"] == pytest.approx(true_zero, abs=4.0 * zero["std"] + 1e-3)
    assert -1.0 <= result.summary["correlation"] <= 1.0
    table = result.tables["lines"]
    np.testing.assert_allclose(table["calibrated_energy_mev"], [57.5, 110.0], atol=0.15)
    assert result.image.energy.dispersion_mev == found["value"]
    # Centres are on the new axis: the same channels as before.
    channel = (result.maps["zlp_center_mev"] - result.image.energy.offset_mev) / result.image.energy.dispersion_mev
    before = (maps["zlp_center_mev"] - image.energy.offset_mev) / image.energy.dispersion_mev
    np.testing.assert_allclose(channel, before)


def test_part_of_a_channel_is_not_lost():
    """All peaks lie 0.4 channels off the middle of a channel: whole-channel sums must not move the lines by that."""
    image, maps = make(offset=0.2, wander=0.0, noise=False)
    result = calibrate(image, known(57.5, 110.0), context(maps))
    np.testing.assert_allclose(result.tables["lines"]["fitted_energy_mev"], [57.7, 110.2], atol=0.06)


def test_zero_is_as_uncertain_as_the_peak_it_rests_on():
    image, maps = make(wander=0.0)
    maps["zlp_center_mev_std"] = maps["zlp_center_mev_std"] * 100.0
    summary = calibrate(image, known(110.0), context(maps)).summary
    assert summary["zero_mev"]["std"] == pytest.approx(0.4 / 40**0.5, rel=0.05)
    # Were the zero higher, the line would be nearer to it and the channels wider.
    assert summary["correlation"] > 0.5


def test_deviations_are_honest():
    """Pulls of the dispersion over seeds, one line and the zero-loss peak."""
    pulls = []
    for seed in range(24):
        image, maps = make(seed=seed, wander=0.0, lines=((110.0, 1.0),))
        found = calibrate(image, known(110.0), context(maps)).summary["dispersion_mev"]
        pulls.append((found["value"] - 0.5) / found["std"])
    assert 0.6 < np.std(pulls) < 1.5
    assert abs(np.mean(pulls)) < 1.0


def test_uncertain_reference_energies_enter_the_deviation():
    image, maps = make()
    sharp = calibrate(image, known(57.5, 110.0), context(maps)).summary["dispersion_mev"]["std"]
    vague = calibrate(image, known(57.5, 110.0, std=1.0), context(maps)).summary["dispersion_mev"]["std"]
    assert vague > 5.0 * sharp
    assert vague == pytest.approx(0.5 * 1.0 / np.hypot(57.5, 110.0), rel=0.1)


def test_gain_and_loss_pairs_give_the_zero_without_known_energies():
    image, maps = make(wander=0.5, lines=((57.5, 4.0), (78.0, 4.0)), gain_side=0.4)
    # The fitted zero-loss centres are 0.7 meV off (an asymmetric peak); the pairs know better.
    maps["zlp_center_mev"] = maps["zlp_center_mev"] + 0.7
    maps["zlp_center_mev"].attrs["units"] = "meV"
    result = calibrate(image, Calibrate(method="gain_loss"), context(maps))
    zero = result.summary["zero_mev"]
    shift = float(maps["zlp_center_mev"].mean()) - 0.7
    assert zero["value"] == pytest.approx(shift, abs=4.0 * zero["std"])
    assert zero["std"] < 0.3
    assert set(result.tables["lines"]["line"]) == {"BiO57 loss", "BiO57 gain", "CuO78 loss", "CuO78 gain"}
    assert result.summary["dispersion_mev"]["status"] == "not measured"
    assert any("occupation" in message for message in result.messages)


def test_lines_that_are_not_there_are_named():
    image, maps = make(lines=())
    with pytest.raises(DataError, match=r"calibrate\.lines: m0 \(57\.5 meV\)"):
        calibrate(image, known(57.5), context(maps))
    with pytest.raises(DataError, match="no mode of the material is seen"):
        calibrate(image, Calibrate(method="gain_loss"), context(maps))


def test_align_zlp_must_have_run():
    image, maps = make()
    with pytest.raises(DataError, match="run align_zlp first"):
        calibrate(image, Calibrate(method="zero"), StepContext(material=MATERIAL, backend=CpuBackend(1)))
    with pytest.raises(DataError, match="found no zero-loss peak"):
        calibrate(image, Calibrate(method="zero"), context(maps.where(False)))


def test_positions_without_peak_are_left_out():
    image, maps = make()
    center = maps["zlp_center_mev"].values.copy()
    center[0, 0] = np.nan
    counts = image.counts.copy()
    counts[0, 0] = 1e9
    maps["zlp_center_mev"] = (("row", "column"), center, {"units": "meV"})
    found = calibrate(image.with_(counts=counts), known(57.5, 110.0), context(maps)).summary["dispersion_mev"]
    assert found["value"] == pytest.approx(0.5, abs=4.0 * found["std"])


def test_resampled_images_have_their_peaks_at_zero():
    image, maps = make(wander=0.0, gain=1.0, dispersion=0.53)
    moved = image.with_(variance=np.maximum(image.counts, 1.0))
    maps["zlp_center_mev"] = maps["zlp_center_mev"] + 40.0  # where they were before
    maps["zlp_center_mev"].attrs["units"] = "meV"
    result = calibrate(moved, known(57.5, 110.0), context(maps))
    found = result.summary["dispersion_mev"]
    assert found["value"] == pytest.approx(0.5, abs=4.0 * found["std"])
    assert result.summary["zero_mev"]["value"] == pytest.approx(0.0, abs=0.1)


def test_blocks_threads_and_dask_do_not_change_the_result():
    image, maps = make()
    wanted = calibrate(image, known(57.5, 110.0), context(maps, threads=1))
    lazy = image.with_(counts=da.from_array(image.counts, chunks=(2, 3, 100)))
    other = calibrate(lazy, known(57.5, 110.0), context(maps, threads=4))
    assert other.summary == wanted.summary
    assert isinstance(other.image.counts, da.Array)
