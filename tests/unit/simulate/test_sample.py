"""The samples in git are those that the manifest and the seeded command describe."""

import json

import h5py
import numpy as np
import pytest

from phonon_eels.config import SimulationSettings
from phonon_eels.simulate.sample import SEEDS, array_hash, array_hashes, make_sample, sample_settings

MOST_BYTES = 6_000_000


@pytest.fixture(scope="module")
def manifest(repository):
    return json.loads((repository / "sample_data" / "manifest.json").read_text("utf-8"))


def arrays(path):
    with h5py.File(path, "r") as file:
        (experiment,) = file["Experiments"].values()
        return {"counts": experiment["data"][...], "haadf": experiment["metadata/PhononEELS/haadf"][...]}


@pytest.mark.parametrize("name", list(SEEDS))
def test_manifest_matches_the_files(name, manifest, repository):
    entry = manifest["samples"][name]
    path = repository / "sample_data" / entry["file"]
    assert path.stat().st_size <= MOST_BYTES
    found = arrays(path)
    assert {key: array_hash(value) for key, value in found.items()} == entry["sha256"]
    assert list(found["counts"].shape) == entry["shape"]
    assert SimulationSettings.model_validate(entry["settings"]) == sample_settings(name)
    for truth in entry["truth"]:
        assert (path.parent / truth).is_file()


def test_twins_differ_in_seed_and_energy_modulation_only():
    trees = [sample_settings(name).model_dump() for name in SEEDS]
    for tree, name in zip(trees, SEEDS, strict=True):
        assert tree.pop("title") == name
        assert tree.pop("seed") == SEEDS[name]
        assert tree["modulation"].pop("energy_enabled") is (name == "bi2212_modulated")
    assert trees[0] == trees[1]


def test_truth_says_what_was_planted(repository):
    amplitude = {}
    for name in SEEDS:
        truth = json.loads((repository / "sample_data" / f"{name}.truth.json").read_text("utf-8"))
        assert truth["schema_version"] == 1
        amplitude[name] = {mode["name"]: mode["modulation_amplitude_mev"] for mode in truth["modes"]}
        planes = [plane for plane in truth["planes"] if plane["layer"] == "CuO2" and plane["whole"]]
        assert len(planes) == 8, "enough units of replication"
        field_nm = 63 * truth["settings"]["scan"]["column_step_nm"]
        assert field_nm / truth["superstructure"]["period_nm"] > 2.19
        assert truth["attenuation"]["CuO78"] == pytest.approx(0.962, abs=0.002)
    assert amplitude["bi2212_modulated"] == {
        "Sr22": 0.0, "BiO38": 0.4, "CuO42": 0.5, "BiO57": 0.0, "SrO67": 0.0, "CuO78": 1.0,
    }  # fmt: skip
    assert not any(amplitude["bi2212_null"].values())


def test_no_channel_is_cut_off(repository):
    """The dark level keeps read noise from going below what an unsigned integer holds; the peak stays below its top."""
    for name in SEEDS:
        counts = arrays(repository / "sample_data" / f"{name}.hspy")["counts"]
        assert counts.dtype == np.uint16
        assert counts.min() > 0
        assert (counts == 65535).sum() <= 5, "a cosmic ray may be larger"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SEEDS))
def test_the_command_makes_the_same_arrays_again(name, manifest):
    assert array_hashes(make_sample(name)) == manifest["samples"][name]["sha256"]
