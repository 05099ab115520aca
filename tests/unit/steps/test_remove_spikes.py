"""remove_spikes on small cubes with planted spikes."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.config.settings import RemoveSpikes
from phonon_eels.errors import DataError
from phonon_eels.kernels.outliers import DEAD, SPIKE
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.peak_spikes import spikes_on_peak
from phonon_eels.steps.remove_spikes import REMOVE_SPIKES, _Found, detection_level, remove_spikes
from phonon_eels.steps.spec import StepContext

MATERIAL = load_material("bi2212")
AXIS = EnergyAxis(-50.0, 0.5, 360)
GIVEN = dict.fromkeys(("gain", "dark_level", "read_noise_e", "noise_correlation"), "given")


def context(threads=2, **more):
    return StepContext(material=MATERIAL, backend=CpuBackend(threads), **more)


def mean_spectrum(height=2e4, background=20.0, zero=0.0):
    energy = AXIS.energies_mev - zero
    peak = height * (1.0 + (2 ** (1 / 1.8) - 1) * (energy / 4.0) ** 2) ** -1.8
    return peak + background + 0.004 * height * np.exp(-0.5 * ((energy - 78.0) / 3.8) ** 2)


def make(shape=(6, 14), *, gain=1.0, dark=0.0, seed=1, noise=True, **spectrum):
    rng = np.random.default_rng(seed)
    wander = rng.normal(0.0, 0.3, shape).cumsum(axis=1)
    electrons = np.stack([[mean_spectrum(zero=z, **spectrum) for z in row] for row in wander])
    electrons = rng.poisson(electrons) if noise else electrons
    model = NoiseModel(gain, dark, 0.0, 1.0, GIVEN)
    scan = (ScanAxis("row", 0.2, shape[0]), ScanAxis("column", 0.2, shape[1]))
    return SpectrumImage(electrons * gain + dark, AXIS, scan, model)


def test_spikes_are_found_repaired_marked_and_counted():
    image = make(gain=0.13, dark=7.0)
    counts = image.counts.copy()
    places = [(0, 0, 300), (2, 5, 200), (5, 13, 40)]
    for place in places:
        counts[place] += 0.13 * 400.0
    result = remove_spikes(image.with_(counts=counts), RemoveSpikes(grow_channels=1), context())
    repaired, bad = np.asarray(result.image.counts), np.asarray(result.image.bad)
    assert result.summary["spikes"] == 3
    assert {tuple(p) for p in np.argwhere(bad)} == {(r, c, k + d) for r, c, k in places for d in (-1, 0, 1)}
    np.testing.assert_array_equal(repaired[~bad], counts[~bad])
    for place in places:
        truth = 0.13 * mean_spectrum()[place[2]] + 7.0
        assert abs(repaired[place] - truth) < 0.13 * 3.0 * np.sqrt(mean_spectrum()[place[2]])
    spikes = result.maps["spikes"]
    assert spikes.attrs["units"] == "1"
    assert int(spikes.sum()) == 3
    assert int(spikes[2, 5]) == 1
    assert result.maps["status"].values[2, 5] == 1
    table = result.tables["spikes"]
    assert table["energy_loss_mev"].tolist() == [AXIS.energies_mev[k] for _, _, k in places]
    assert set(result.maps.data_vars) == {*REMOVE_SPIKES.makes, "status"}


def test_clean_scan_gives_no_image():
    result = remove_spikes(make(), RemoveSpikes(), context())
    assert result.image is None
    assert result.skipped is None
    assert result.summary["spikes"] == 0
    assert len(result.tables["spikes"]) == 0


def test_off_is_skipped():
    assert "off" in remove_spikes(make(), RemoveSpikes(enabled=False), context()).skipped


def test_blocks_threads_and_dask_do_not_change_the_result():
    image = make((9, 12), seed=3)
    rng = np.random.default_rng(5)
    counts = image.counts.astype(np.uint16)
    places = tuple(np.array([rng.integers(0, n, 40) for n in counts.shape]))
    counts[places] += 3000
    wanted = None
    for array, threads in (
        (counts, 1),
        (da.from_array(counts, chunks=(2, 5, 100)), 3),
        (da.from_array(counts, chunks=(4, -1, -1)), 9),
    ):
        result = remove_spikes(image.with_(counts=array), RemoveSpikes(), context(threads))
        assert isinstance(result.image.counts, da.Array)
        found = (np.asarray(result.image.counts), np.asarray(result.image.bad), result.maps["spikes"].values)
        assert found[0].dtype == np.float32
        if wanted is None:
            wanted = found
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_dead_and_hot_channels_are_told_apart():
    image = make(background=400.0)
    counts = image.counts.copy()
    counts[:, :, 250] += 60.0  # 3 σ each: seen only in the mean
    counts[3, 4, 320] = 0.0
    result = remove_spikes(image.with_(counts=counts), RemoveSpikes(grow_channels=0), context())
    assert result.summary["hot_channels"] == [250]
    assert result.tables["hot_channels"]["energy_loss_mev"].tolist() == [75.0]
    assert result.summary["dead"] == 1
    assert result.maps["dead_channels"].values[3, 4] == 1
    assert np.asarray(result.image.bad)[:, :, 250].all()
    assert np.asarray(result.image.counts)[:, :, 250].mean() == pytest.approx(image.counts[:, :, 250].mean(), rel=0.02)
    assert any("channels 250" in message for message in result.messages)


def test_one_strong_spike_is_no_hot_channel():
    image = make()
    counts = image.counts.copy()
    counts[2, 2, 250] += 1e7
    assert remove_spikes(image.with_(counts=counts), RemoveSpikes(), context()).summary["hot_channels"] == []


def test_protected_channels_are_never_touched():
    image = make()
    counts = image.counts.copy()
    counts[1, 1, 256] += 1e5  # 78 meV
    counts[1, 1, 300] += 1e5
    result = remove_spikes(image.with_(counts=counts), RemoveSpikes(protect_mev=(70.0, 85.0)), context())
    assert np.asarray(result.image.counts)[1, 1, 256] == counts[1, 1, 256]
    assert result.summary["spikes"] == 1
    with pytest.raises(DataError, match=r"remove_spikes\.protect_mev"):
        remove_spikes(image, RemoveSpikes(protect_mev=(70.0, 850.0)), context())


def test_saturated_channels_are_marked_not_changed():
    image = make(height=3e4)
    image = image.with_(acquisition=Acquisition(n_frames=2))
    result = remove_spikes(image, RemoveSpikes(), context(acquisition_settings={"saturation_counts": 14_000.0}))
    bad = np.asarray(result.image.bad)
    np.testing.assert_array_equal(bad, image.counts >= 28_000.0)
    np.testing.assert_array_equal(np.asarray(result.image.counts), image.counts)
    assert result.summary["saturated"] == bad.sum() > 0
    assert set(np.unique(result.maps["status"])) == {0, 2} or set(np.unique(result.maps["status"])) == {2}


def test_known_bad_channels_stay_marked():
    image = make()
    bad = np.zeros(image.shape, dtype=bool)
    bad[0, 0, 100] = True
    counts = image.counts.copy()
    counts[0, 0, 100] += 1e6
    counts[4, 4, 300] += 1e4
    result = remove_spikes(image.with_(counts=counts, bad=bad), RemoveSpikes(), context())
    assert result.summary["spikes"] == 1
    assert np.asarray(result.image.bad)[0, 0, 100]
    assert np.asarray(result.image.counts)[0, 0, 100] == counts[0, 0, 100]


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (40, 2)])
def test_line_scans_along_either_direction(shape):
    image = make((1, 40) if shape[1] == 1 else (2, 40) if shape[1] == 2 else shape, seed=8)
    counts = image.counts.copy()
    counts[0, 17, 330] += 300.0
    if shape[1] < 3:
        counts = counts.transpose(1, 0, 2)
    scan = (ScanAxis("row", 0.2, shape[0]), ScanAxis("column", 0.2, shape[1]))
    result = remove_spikes(SpectrumImage(counts, AXIS, scan, image.noise), RemoveSpikes(grow_channels=0), context())
    place = (0, 17, 330) if shape[1] >= 3 else (17, 0, 330)
    assert np.argwhere(np.asarray(result.image.bad)).tolist() == [list(place)]


def test_single_spectrum_says_that_it_has_no_neighbours():
    image = make((1, 1))
    counts = image.counts.copy()
    counts[0, 0, 330] += 5000.0
    result = remove_spikes(image.with_(counts=counts), RemoveSpikes(grow_channels=0), context())
    assert np.argwhere(np.asarray(result.image.bad)).tolist() == [[0, 0, 330]]
    assert any("too few positions" in message for message in result.messages)


def test_a_wrong_assumed_gain_is_noticed():
    image = make(gain=5.0).with_(noise=NoiseModel(source={"gain": "assumed"}))
    result = remove_spikes(image, RemoveSpikes(), context())
    assert result.summary["spikes"] == 0
    assert result.summary["noise_scale"] == pytest.approx(5.0**0.5, rel=0.1)
    assert any("times what the noise model says" in message for message in result.messages)


def test_detection_level_leaves_small_thresholds_alone():
    assert detection_level(8.0) == pytest.approx(4.8)
    assert detection_level(20.0) == pytest.approx(12.0)
    assert detection_level(3.0) == 3.0


def test_suspects_on_the_peak_take_the_memory_of_their_windows(tmp_path):
    """Every row has suspects, as wherever the peak's shape is not quite known: the rows must not be held for them."""
    image = make((40, 16), gain=1.0, seed=4)
    quiet = np.asarray(image.counts, dtype=np.float32)
    counts = np.zeros((*quiet.shape[:2], 16 * quiet.shape[2]), dtype=np.float32)
    counts[..., : quiet.shape[2]] = quiet
    top = int(quiet.mean(axis=(0, 1)).argmax())
    counts[:, 5, top] *= 1.2
    np.save(tmp_path / "counts.npy", counts)
    wide = image.with_(
        counts=da.from_array(np.load(tmp_path / "counts.npy", mmap_mode="r"), chunks=(1, -1, -1)),
        energy=EnergyAxis(image.energy.offset_mev, image.energy.dispersion_mev, counts.shape[2]),
    )
    backend = CpuBackend(1)
    backend.block_bytes = 1
    spikes_on_peak(wide, np.zeros(counts.shape[2], bool), 5.0, backend)  # what is loaded and compiled once
    tracemalloc.start()
    found = spikes_on_peak(wide, np.zeros(counts.shape[2], bool), 5.0, backend)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(found.row[found.channel == top]) == set(range(40))
    assert peak < 0.5 * counts.nbytes


def flagged_everywhere(dtype, rows=40, columns=50):
    """Spikes in one channel of five of every spectrum, away from the zero-loss peak."""
    image = make((rows, columns), seed=3, noise=True)
    counts = np.asarray(image.counts).astype(dtype)
    counts[..., 150::5] += np.asarray(3000, dtype)
    return image.with_(counts=counts)


@pytest.mark.parametrize(("dtype", "most"), [(np.uint16, 15), (np.float32, 15), (np.float64, 23)])
def test_lists_of_flagged_channels_are_small(dtype, most):
    """A scan with very many flagged channels: what is kept of each is bounded, in type and in number."""
    image = flagged_everywhere(dtype)
    result = remove_spikes(image, RemoveSpikes(on_zero_loss=False), context())
    flagged = result.summary["masked_channels"]
    assert flagged > 50_000
    kept = result.image.counts, result.image.bad
    lists = {id(a): a.nbytes for cube in kept for a in _lists_in(cube)}
    assert lists
    assert sum(lists.values()) <= most * flagged
    assert int(np.asarray(result.image.bad).sum()) == flagged
    spikes = result.tables["spikes"]
    assert len(spikes) == 1000
    channel = np.round((spikes["energy_loss_mev"].to_numpy() - AXIS.offset_mev) / AXIS.dispersion_mev).astype(int)
    repaired = np.asarray(result.image.counts)[spikes["row"], spikes["column"], channel]
    np.testing.assert_allclose(repaired, spikes["expected_counts"], rtol=1e-6)
    assert int(result.maps["repaired_channels"].sum()) == flagged


def _lists_in(cube):
    """The lists that a lazy cube's tasks hold on to."""
    found, seen = [], set()
    pending = list(cube.dask.values())
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if type(thing).__name__ == "_Found":
            found += [thing.row, thing.column, thing.channel, thing.flag, thing.counts, thing.expected]
        elif isinstance(thing, (list, tuple)):
            pending += thing
        elif isinstance(thing, dict):
            pending += thing.values()
        else:
            pending += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
            pending += [getattr(thing, name) for name in ("func", "args", "kwargs") if hasattr(thing, name)]
    return found


def test_more_flagged_channels_than_any_scan_has_are_refused(monkeypatch):
    monkeypatch.setattr("phonon_eels.steps.remove_spikes.MOST_FLAGGED", 5000)
    with pytest.raises(DataError, match=r"more than 5000 channels are flagged.*acquisition\.gain.*threshold_sigma"):
        remove_spikes(flagged_everywhere(np.float32), RemoveSpikes(on_zero_loss=False), context())


def test_the_largest_are_found_part_by_part(monkeypatch):
    """The same as by sorting all of them, ties in their order."""
    random = np.random.default_rng(5)
    n = 1000
    flag = random.choice([1, 2, 3, 5], n).astype(np.uint8)
    counts, expected = random.integers(0, 40, n).astype(np.uint16), np.full(n, 20.0, np.float32)
    found = _Found(*(np.arange(n),) * 3, flag, counts, expected)
    chosen = np.flatnonzero((flag == SPIKE) | (flag == DEAD))
    order = np.argsort(-np.abs(counts[chosen].astype(float) - 20.0), kind="stable")
    for chunk in (77, 10_000):
        monkeypatch.setattr("phonon_eels.steps.remove_spikes.CHUNK", chunk)
        np.testing.assert_array_equal(found.largest(50), np.sort(chosen[order[:50]]))
