"""register_frames: counts moved by whole numbers, nothing lost, nothing invented."""

import dask.array as da
import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_material
from phonon_eels.config.frames import RegisterFrames
from phonon_eels.errors import DataError
from phonon_eels.lattice.line_drift import LineDrift
from phonon_eels.spectrum_image import Acquisition, EnergyAxis, NoiseModel, ScanAxis, SpectrumImage
from phonon_eels.steps.register_frames import REGISTER_FRAMES, register_frames
from phonon_eels.steps.spec import StepContext

MATERIAL = load_material("bi2212")
N = 160
AXIS = EnergyAxis(-30.0, 0.5, N)
SHIFTS = np.array([[0, 0], [1, -2], [2, 1], [-1, 1]])
ENERGY = np.array([0.0, 3.0, -2.0, 5.0])


def context(threads=2, **more):
    return StepContext(material=MATERIAL, backend=CpuBackend(threads), **more)


def scene(size):
    """An image without periods."""
    rows, columns = np.mgrid[0:size, 0:size]
    rng = np.random.default_rng(0)
    blobs = [(rng.uniform(0, size, 2), rng.uniform(1.2, 2.5), rng.uniform(0.3, 1)) for _ in range(40)]
    return sum(a * np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / w**2) for (y, x), w, a in blobs)


def make(*, shifts=SHIFTS, energy=ENERGY, shape=(24, 22), noise=True, electrons=3000.0, seed=1, spread=0.6):
    """Frames in which what is at r in the first frame is at r + shift, the zero-loss peak at channel 60 + energy."""
    rng = np.random.default_rng(seed)
    margin = 6
    wide = scene(max(shape) + 2 * margin)
    jitter = spread * np.sin(np.arange(shape[0]))[:, None] * np.ones(shape[1])
    channels = np.arange(N)
    frames, images = [], []
    for (dr, dc), de in zip(shifts, energy, strict=True):
        low, left = margin - dr, margin - dc
        view = wide[low : low + shape[0], left : left + shape[1]]
        center = 60.0 + de + jitter
        mean = (
            electrons / 17.0 * (0.5 + view)[..., None] * np.exp(-0.5 * ((channels - center[..., None]) / 6.8) ** 2)
            + 0.5
        )
        frames.append(rng.poisson(mean) if noise else mean)
        images.append(rng.normal(view, 0.02))
    cube = np.array(frames)
    scan = (ScanAxis("row", 0.05, shape[0]), ScanAxis("column", 0.05, shape[1]))
    return SpectrumImage(
        cube.sum(axis=0), AXIS, scan, NoiseModel(1.0, 8.0, 4.0), Acquisition(n_frames=len(shifts)),
        frames=cube, haadf_frames=np.array(images),
    )  # fmt: skip


def test_one_frame_has_nothing_to_register():
    image = make()
    result = register_frames(image.with_(frames=None, haadf_frames=None), RegisterFrames(), context())
    assert result.skipped == "one frame: nothing to register"
    assert result.image is None
    assert register_frames(image.with_(frames=image.frames[:1]), RegisterFrames(), context()).skipped
    assert "off" in register_frames(image, RegisterFrames(enabled=False), context()).skipped


def test_drift_in_scan_and_energy_is_found_and_undone():
    image = make()
    result = register_frames(image, RegisterFrames(), context())
    table = result.tables["drift"]
    np.testing.assert_allclose(table["row_shift_nm"] / 0.05, SHIFTS[:, 0], atol=0.15)
    np.testing.assert_allclose(table["column_shift_nm"] / 0.05, SHIFTS[:, 1], atol=0.15)
    np.testing.assert_allclose(table["energy_shift_mev"] / 0.5, ENERGY, atol=0.1)
    assert table["used"].all()
    summed = result.image
    # Common area: rows 1 … 22, columns 2 … 21 of the first frame.
    assert summed.shape[:2] == (24 - 3, 22 - 3)
    assert summed.scan[0].offset_nm == pytest.approx(0.05)
    assert summed.scan[1].offset_nm == pytest.approx(0.10)
    assert summed.frames is None
    assert summed.haadf_frames is None
    spectrum = np.asarray(summed.counts).sum(axis=(0, 1))
    width = np.sqrt(np.average((np.arange(spectrum.size) - np.average(np.arange(spectrum.size), weights=spectrum)) ** 2,
                               weights=np.where(spectrum > 0.01 * spectrum.max(), spectrum, 0)))  # fmt: skip
    assert width < 1.03 * np.hypot(6.8, 0.3)
    # The scene is sharp again: as in the first frame.
    np.testing.assert_allclose(summed.haadf, image.haadf_frames[0][1:22, 2:21], atol=0.08)


def test_counts_are_moved_not_changed():
    """Every number of the sum is the sum of numbers of the frames at the places that the offsets name."""
    image = make()
    result = register_frames(image, RegisterFrames(), context())
    summed = np.asarray(result.image.counts)
    shift = result.maps["energy_shift_channel"].values
    first = round((result.image.energy.offset_mev - AXIS.offset_mev) / 0.5)
    wanted = np.zeros(summed.shape)
    for f, (dr, dc) in enumerate(SHIFTS):
        for r in range(summed.shape[0]):
            for c in range(summed.shape[1]):
                begin = first + shift[f, r, c]
                wanted[r, c] += image.frames[f, r + 1 + dr, c + 2 + dc, begin : begin + summed.shape[2]]
    np.testing.assert_array_equal(summed, wanted)
    assert result.image.energy.n_channels == summed.shape[2]
    assert result.summary["channels_cut"] == N - summed.shape[2] >= 7


def test_noise_model_belongs_to_the_frames_that_were_added():
    image = make()
    noise = register_frames(image, RegisterFrames(), context()).image.noise
    assert (noise.dark_level, noise.read_noise_e) == (8.0, 4.0)
    half = register_frames(image, RegisterFrames(), context(), frames="odd").image
    assert (half.noise.dark_level, half.noise.read_noise_e) == (4.0, pytest.approx(4.0 / 2**0.5))
    assert half.acquisition.n_frames == 2


def test_halves_share_one_geometry_and_add_up():
    image = make()
    parts = {name: register_frames(image, RegisterFrames(), context(), frames=name).image for name in
             ("all", "odd", "even", "first", "last")}  # fmt: skip
    counts = {name: np.asarray(part.counts, dtype=float) for name, part in parts.items()}
    np.testing.assert_array_equal(counts["odd"] + counts["even"], counts["all"])
    np.testing.assert_array_equal(counts["first"] + counts["last"], counts["all"])
    assert parts["odd"].energy == parts["all"].energy
    chosen = register_frames(image, RegisterFrames(), context(), frames=[0, 2])
    np.testing.assert_array_equal(np.asarray(chosen.image.counts), counts["odd"])
    assert chosen.tables["drift"]["used"].tolist() == [True, False, True, False]
    with pytest.raises(DataError, match="frame numbers run from 0 to 3"):
        register_frames(image, RegisterFrames(), context(), frames=[4])
    with pytest.raises(DataError, match="give one of all, odd"):
        register_frames(image, RegisterFrames(), context(), frames="third")


def test_small_integers_do_not_wrap():
    image = make(noise=False)
    frames = np.minimum(image.frames * 400.0, 60_000.0).astype(np.uint16)
    summed = np.asarray(
        register_frames(image.with_(frames=frames), RegisterFrames(align_energy=False), context()).image.counts
    )
    assert summed.max() > 100_000.0
    wanted = sum(frames[f, 1 + r : 22 + r, 2 + c : 21 + c].astype(float) for f, (r, c) in enumerate(SHIFTS))
    np.testing.assert_array_equal(summed, wanted)


def test_blocks_threads_and_dask_do_not_change_the_result():
    image = make()
    wanted = register_frames(image, RegisterFrames(), context(1))
    lazy = image.with_(frames=da.from_array(image.frames, chunks=(1, 5, 7, 50)))
    other = register_frames(lazy, RegisterFrames(), context(5))
    assert isinstance(other.image.counts, da.Array)
    np.testing.assert_array_equal(np.asarray(other.image.counts), np.asarray(wanted.image.counts))
    for name in wanted.maps.data_vars:
        np.testing.assert_array_equal(other.maps[name].values, wanted.maps[name].values)
    assert other.tables["drift"].equals(wanted.tables["drift"])


def test_offsets_are_kept_with_units_and_deviation():
    result = register_frames(make(spread=0.0), RegisterFrames(), context())
    maps = result.maps
    assert set(REGISTER_FRAMES.makes) < set(maps.data_vars)
    assert all("units" in maps[name].attrs for name in maps.data_vars)
    offset = maps["energy_offset_channel"].values
    pull = (offset - offset.mean(axis=(1, 2), keepdims=True)) / maps["energy_offset_channel_std"].values
    assert 0.8 < pull.std() < 1.2
    assert np.abs(offset - maps["energy_shift_channel"].values).max() <= 0.5
    assert result.summary["measured_energy_blur_rms_channel"] < 0.5
    assert result.summary["energy_blur_rms_channel"] == pytest.approx(0.2887, abs=1e-4)
    assert result.summary["position_blur_rms_nm"] == pytest.approx(0.2887 * 0.05, abs=1e-5)


def test_bad_frames_are_left_out_with_a_reason():
    shifts = np.concatenate([SHIFTS, SHIFTS[:3]])
    image = make(shifts=shifts, energy=np.concatenate([ENERGY, ENERGY[:3]]))
    frames, images = image.frames.copy(), image.haadf_frames.copy()
    frames[2] //= 3
    images[4] = np.random.default_rng(9).normal(size=images[4].shape)
    result = register_frames(image.with_(frames=frames, haadf_frames=images), RegisterFrames(), context())
    table = result.tables["drift"]
    assert table["used"].tolist() == [True, True, False, True, False, True, True]
    assert table["reason"][2].startswith("counts 0.2")
    assert table["reason"][4].startswith("correlation")
    assert set(result.summary["rejected"]) == {"2", "4"}
    assert result.summary["n_frames_used"] == 5
    assert result.image.noise.dark_level == pytest.approx(8.0 * 5 / 7)
    assert sum("left out" in message for message in result.messages) == 2


def test_without_haadf_the_energies_are_still_aligned():
    image = make(shifts=np.zeros((4, 2), int)).with_(haadf_frames=None)
    result = register_frames(image, RegisterFrames(), context())
    assert result.image.shape[:2] == (24, 22)
    assert result.tables["drift"]["row_shift_nm_std"].isna().all()
    assert result.summary["row_drift_nm"]["status"] == "not measured"
    assert any("no HAADF" in message for message in result.messages)
    assert result.summary["channels_cut"] >= 7


def test_a_spike_does_not_cost_channels():
    image = make()
    frames = image.frames.copy()
    frames[1, 5, 5, 150] = 10**6
    plain = register_frames(image, RegisterFrames(), context())
    result = register_frames(image.with_(frames=frames), RegisterFrames(), context())
    assert result.summary["channels_cut"] == plain.summary["channels_cut"]
    assert result.maps["status"].values.sum() == 1


def test_saturation_of_one_frame_marks_the_sum():
    image = make()
    limit = float(np.quantile(image.frames, 0.999))
    result = register_frames(
        image, RegisterFrames(align_energy=False), context(acquisition_settings={"saturation_counts": limit})
    )
    wanted = np.any(
        [image.frames[f, 1 + r : 22 + r, 2 + c : 21 + c] >= limit for f, (r, c) in enumerate(SHIFTS)], axis=0
    )
    np.testing.assert_array_equal(np.asarray(result.image.bad), wanted)


def test_nothing_in_common_is_an_error():
    image = make(shape=(10, 10), shifts=np.zeros((3, 2), int), energy=[0.0, 1.0, 0.0])
    frames = np.full((2, 10, 10, 12), 1.0)
    frames[0, ..., 0] = 1e4
    frames[1, ..., 11] = 1e4
    tiny = SpectrumImage(frames.sum(0), EnergyAxis(0.0, 1.0, 12), image.scan, frames=frames)
    with pytest.raises(DataError, match="no channel is common to all"):
        register_frames(tiny, RegisterFrames(), context())


def test_halves_add_up_to_the_sum_and_say_how_many_frames_they_hold():
    shifts = np.array([[0, 0], [1, -2], [2, 1], [-1, 1], [0, 2]])
    image = make(shifts=shifts, energy=[0.0, 3.0, -2.0, 5.0, 1.0])
    result = register_frames(image, RegisterFrames(halves="odd_even"), context())
    halves, total = np.asarray(result.image.halves), np.asarray(result.image.counts)
    np.testing.assert_array_equal(halves.sum(axis=0), total)
    assert result.summary["halves"] == {"kind": "odd_even", "n_frames": [3, 2, 5]}
    for half, split in zip(halves, ("odd", "even"), strict=True):
        alone = register_frames(image, RegisterFrames(split=split), context())
        np.testing.assert_array_equal(half, np.asarray(alone.image.counts))
        assert alone.summary["split"] == split
        assert alone.image.halves is None  # fewer than four frames
        assert alone.image.noise.dark_level == pytest.approx(8.0 * {"odd": 3, "even": 2}[split] / 5)
    by_time = register_frames(image, RegisterFrames(halves="first_last"), context())
    assert by_time.summary["halves"]["n_frames"] == [2, 2, 5]  # the middle one belongs to neither
    none = register_frames(image, RegisterFrames(halves="none"), context())
    assert none.image.halves is None
    assert "halves" not in none.summary


def test_offsets_of_every_frame_and_position_are_coordinates():
    image = make(energy=[0.0, 3.3, -2.0, 5.4])
    result = register_frames(image, RegisterFrames(), context())
    maps = result.maps
    n_frames, rows, columns = 4, *result.image.shape[:2]
    for name, unit in (("row_offset_nm", "nm"), ("column_offset_nm", "nm"), ("energy_offset_mev", "meV")):
        assert name in maps.coords
        assert maps[name].dims == ("frame", "row", "column")
        assert maps[name].shape == (n_frames, rows, columns)
        assert maps[name].attrs["units"] == unit
    # Whole positions were planted: less than the accuracy of the registration is left.
    assert np.abs(maps["row_offset_nm"]).max() < 0.2 * 0.05
    # What is left of the energies is what whole channels could not take: half a channel at most, and the planted parts.
    energy = maps["energy_offset_mev"].values
    assert np.nanmax(np.abs(energy)) <= 0.5 * 0.5 + 0.05
    moved = maps["energy_offset_channel"].values - maps["energy_shift_channel"].values
    np.testing.assert_allclose(energy, moved * 0.5, atol=1e-5)


def test_added_blur_is_that_of_what_is_left():
    half = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5], [0.5, 0.5]])
    image = make(shifts=np.zeros((4, 2), int), noise=False)
    from phonon_eels.lattice.registration import Drift
    from phonon_eels.steps.register_frames import added_blur

    result = register_frames(image, RegisterFrames(), context())
    drift = Drift(half, np.full((4, 2), 0.1), np.ones(4), np.zeros(4, bool), np.empty((0, 2)), np.full(4, np.inf))
    blur = added_blur(
        image, result.maps, drift, np.zeros((4, 2), int), np.ones(4, bool), LineDrift(*np.full((2, 4, 2), np.nan))
    )
    # Offsets of 0 and half a position: 0.25 positions rms, at 0.5 Å a step.
    for name in ("row", "column"):
        found = blur[f"added_blur_{name}_fwhm_angstrom"]
        assert found["value"] == pytest.approx(2.3548 * 0.25 * 0.5, rel=1e-4)
        assert found["std"] == pytest.approx(2.3548 * 0.1 * 0.5, rel=1e-4)
        assert found["unit"] == "Å"
    assert blur["added_blur_fwhm_mev"]["unit"] == "meV"
    assert 0.0 <= blur["added_blur_fwhm_mev"]["value"] < 2.3548 * 0.3 * 0.5
    said = " ".join(result.messages)
    assert "blurs the sum by" in said
    assert "meV (FWHM)" in said


def test_a_mask_drawn_on_the_first_frame_moves_with_the_common_area():
    image = make()
    regions = np.zeros((24, 22), np.uint8)
    regions[5, 7] = 1
    result = register_frames(image.with_(regions=regions), RegisterFrames(), context()).image
    top = round((result.scan[0].offset_nm - image.scan[0].offset_nm) / 0.05)
    left = round((result.scan[1].offset_nm - image.scan[1].offset_nm) / 0.05)
    assert result.regions.shape == result.shape[:2]
    assert np.argwhere(result.regions).tolist() == [[5 - top, 7 - left]]


def test_too_coarse_a_scan_is_refused_and_added_in_place():
    image = make()
    wide = image.with_(scan=(image.scan[0], ScanAxis("column", 0.15, 22)))
    result = register_frames(wide, RegisterFrames(), context())
    assert "not testable at this sampling: positions 1.5 Å apart" in " ".join(result.messages)
    assert "added in place" in " ".join(result.messages)
    for name in ("row_drift_nm", "column_drift_nm"):
        assert result.summary[name]["status"] == "not testable at this sampling"
    assert (result.tables["drift"]["row_shift_nm"] == 0.0).all()
    assert result.tables["drift"]["row_shift_nm_std"].isna().all()
    assert result.image.shape[:2] == (24, 22)
    np.testing.assert_allclose(result.tables["drift"]["energy_shift_mev"] / 0.5, ENERGY, atol=0.1)
    asked = register_frames(wide, RegisterFrames(largest_step_nm=0.2), context())
    np.testing.assert_allclose(asked.tables["drift"]["row_shift_nm"] / 0.05, SHIFTS[:, 0], atol=0.15)
    assert "may come out a lattice period off" in " ".join(asked.messages)
    assert "testable" not in " ".join(register_frames(image, RegisterFrames(), context()).messages)


def test_frames_that_could_lie_elsewhere_are_told():
    """Stripes without an end: a shift by their period cannot be told from none."""
    image = make(shifts=np.zeros((4, 2), int), energy=np.zeros(4))
    stripes = np.sin(2.0 * np.pi * np.arange(22) / 6.0)[None] + 0.7 * np.sin(2.0 * np.pi * np.arange(24) / 8.0)[:, None]
    walk = [0, 2, 3, 3]
    frames = np.stack([np.roll(stripes, by, axis=1) for by in walk])
    frames += np.random.default_rng(3).normal(0.0, 0.02, frames.shape)
    result = register_frames(image.with_(haadf_frames=frames), RegisterFrames(), context())
    unsure = result.summary["frames_unsure"]
    assert unsure
    assert (result.tables["drift"]["period_margin"].iloc[unsure] < 3.0).all()
    assert "could as well lie a lattice period elsewhere" in " ".join(result.messages)
    sure = register_frames(image, RegisterFrames(), context())
    assert sure.summary["frames_unsure"] == []
    assert "period elsewhere" not in " ".join(sure.messages)
