"""A whole simulation: reproducible, the same in any blocks, whole on disk."""

import json

import numpy as np
import pytest

from phonon_eels.config import SimulationSettings, load_material
from phonon_eels.errors import OutputError
from phonon_eels.simulate import build, simulate, truth_paths, write_simulation

MATERIAL = load_material("bi2212")


def settings(seed=11, frames=1, dtype="uint16", **scan):
    return SimulationSettings.model_validate(
        {
            "seed": seed,
            "scan": {"rows": 9, "columns": 5, "frames": frames, "c_origin_nm": 0.4, **scan},
            "energy": {"offset_mev": -30.0, "channels": 240},
            "detector": {"dtype": dtype, "dark_level": 10.0, "spike_rate": 1e-3},
        }
    )


@pytest.fixture(scope="module")
def two_frames():
    return simulate(settings(frames=2), MATERIAL)


def test_same_seed_same_bytes(two_frames):
    again = simulate(settings(frames=2), MATERIAL)
    assert np.array_equal(again.image.frames, two_frames.image.frames)
    assert np.array_equal(again.image.haadf_frames, two_frames.image.haadf_frames)
    assert again.truth == two_frames.truth
    assert again.truth_maps.identical(two_frames.truth_maps)
    other = simulate(settings(frames=2, seed=12), MATERIAL)
    assert not np.array_equal(other.image.frames, two_frames.image.frames)


@pytest.mark.parametrize("block_bytes", [1, 30_000, 10_000_000])
def test_blocks_do_not_change_the_result(block_bytes, two_frames, monkeypatch):
    monkeypatch.setattr(build, "LAZY_BLOCK_BYTES", block_bytes)
    lazy = simulate(settings(frames=2), MATERIAL, lazy=True).image
    assert hasattr(lazy.frames, "dask")
    assert np.array_equal(lazy.frames.compute(scheduler="threads", num_workers=2), two_frames.image.frames)
    assert np.array_equal(lazy.counts.compute(scheduler="synchronous"), two_frames.image.counts)


def test_frames_share_the_truth_and_differ_in_drift(two_frames):
    image, maps = two_frames.image, two_frames.truth_maps
    assert image.frames.shape == (2, 9, 5, 240)
    assert np.array_equal(image.counts, image.frames.sum(axis=0))
    assert image.noise.dark_level == 20.0
    assert image.noise.read_noise_e == pytest.approx(2**0.5)
    assert maps["frame_zlp_center_mev"].shape == (2, 9, 5)
    assert not np.array_equal(image.haadf_frames[0], image.haadf_frames[1])
    assert maps["zlp_counts"].values.mean() == pytest.approx(4e5, rel=0.05)


def test_maps_have_units_and_coordinates(two_frames):
    maps = two_frames.truth_maps
    assert all("units" in maps[name].attrs for name in maps.data_vars)
    assert maps["energy_mev"].dims == ("mode", "row", "column")
    assert maps["row"].values == pytest.approx(0.055 * np.arange(9))
    assert list(maps["mode"].values) == [mode.name for mode in MATERIAL.modes]


def test_progress_counts_rows():
    seen = []
    simulate(settings(), MATERIAL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(row + 1, 9) for row in range(9)]


def test_written_file_reads_back_with_its_truth(tmp_path, two_frames):
    import xarray as xr

    from phonon_eels.io.read import read

    single = simulate(settings(), MATERIAL)
    path, tree, maps = write_simulation(single, tmp_path / "scan.hspy")
    assert (tree, maps) == truth_paths(path)
    image = read(path)
    assert np.array_equal(np.asarray(image.counts), single.image.counts)
    assert np.array_equal(image.haadf, single.image.haadf)
    assert image.energy.offset_mev == pytest.approx(-30.0)
    assert image.energy.dispersion_mev == pytest.approx(0.5)
    assert (image.noise.gain, image.noise.dark_level) == (2.5, 10.0)
    assert json.loads(tree.read_text("utf-8")) == json.loads(json.dumps(single.truth))
    with xr.open_dataset(maps, engine="h5netcdf") as found:
        assert found["phase_rad"].values == pytest.approx(single.truth_maps["phase_rad"].values, abs=1e-5)
        assert found["layer"].attrs["flag_meanings"] == "Ca CuO2 SrO BiO"
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_lazy_simulation_goes_to_zspy_block_by_block(tmp_path):
    import zarr

    made = simulate(settings(), MATERIAL)
    path, *_ = write_simulation(simulate(settings(), MATERIAL, lazy=True), tmp_path / "scan.zspy")
    group = zarr.open(str(path), mode="r")["Experiments"]
    (experiment,) = group.values()
    assert np.array_equal(experiment["data"][...], made.image.counts)
    assert experiment["metadata/PhononEELS/haadf"].shape == (9, 5)


def test_names_that_cannot_be_written_are_refused(tmp_path, two_frames):
    with pytest.raises(OutputError, match=r"scan.npz: a simulation is written as .hspy or .zspy"):
        write_simulation(two_frames, tmp_path / "scan.npz")
    with pytest.raises(OutputError, match=r"scan.zspy: several frames go into one .hspy file"):
        write_simulation(two_frames, tmp_path / "scan.zspy")
    assert not list(tmp_path.iterdir())
