"""`inspect` tells the truth about measured files and about simulated ones."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from phonon_eels.errors import InputFileError
from phonon_eels.io.export import write_hspy
from phonon_eels.io.inspect import as_text, inspect
from phonon_eels.io.read import read
from tests.unit.io.scans import small_scan


def test_own_file(tmp_path: Path) -> None:
    path = write_hspy(small_scan(rows=12, columns=12), tmp_path / "scan.hspy")
    report = inspect(path, threads=1)
    json.dumps(report, allow_nan=False)
    (item,) = report["signals"]
    found = item["spectrum"]
    assert found["shape"] == {"frames": 1, "rows": 12, "columns": 12, "channels": 64}
    assert found["energy_mev"] == {"first": -10.1, "last": 21.4, "dispersion": 0.5}
    assert abs(found["zero_loss"]["position_mev"]) < 0.2
    assert found["zero_loss"]["fwhm_mev"] == pytest.approx(2.0 * 2.3548, rel=0.05)
    assert found["haadf"]
    assert found["missing"] == ["acquisition.read_noise_e"]
    text = as_text(report)
    for fact in ("12 rows × 12 columns, step 0.05 nm × 0.06 nm", "0.5 meV per channel", "temperature 293 K"):
        assert fact in text
    assert "FWHM 4." in text


def test_units_that_are_missing_are_named(tmp_path: Path) -> None:
    import h5py

    path = write_hspy(small_scan(), tmp_path / "scan.hspy")
    with h5py.File(path, "a") as file:
        file["Experiments/a small-scan/axis-2"].attrs["units"] = ""
    text = as_text(inspect(path, threads=1))
    assert "cannot be used: " in text
    assert "acquisition.energy_unit" in text


def test_measured_line_scan(shared_data: Path) -> None:
    path = shared_data / "hyperspy" / "LSMO_linescan_low_loss.hdf5"
    (item,) = inspect(path, threads=1)["signals"]
    found = item["spectrum"]
    assert found["shape"] == {"frames": 1, "rows": 1, "columns": 40, "channels": 1024}
    assert found["energy_mev"] == {"first": -50_000.0, "last": 461_500.0, "dispersion": 500.0}
    assert found["scan_nm"]["row_step"] is None
    assert found["scan_nm"]["column_step"] == pytest.approx(3.219, abs=0.001)
    assert 3000 < found["zero_loss"]["position_mev"] < 3500
    assert 900 < found["zero_loss"]["fwhm_mev"] < 1500
    assert not found["counts"]["whole_numbers"]
    assert found["counts"]["minimum"] == pytest.approx(-165.8, abs=0.1)
    acquisition = found["acquisition"]
    assert acquisition["beam_energy_kev"] == 80.0
    assert acquisition["convergence_semi_angle_mrad"] == 27.42
    assert acquisition["collection_semi_angle_mrad"] == 33.19
    assert acquisition["dwell_time_s"] == 0.1
    assert "acquisition.temperature_k" in found["missing"]
    dispersion = next(record for record in found["quality"] if record["check"] == "dispersion")
    assert dispersion["verdict"] == "warn"


def test_measured_core_loss_image(shared_data: Path) -> None:
    path = shared_data / "digitalmicrograph" / "EELS_SI.dm4"
    (item,) = inspect(path, threads=1)["signals"]
    found = item["spectrum"]
    assert found["shape"] == {"frames": 1, "rows": 2, "columns": 2, "channels": 2048}
    assert found["energy_mev"]["first"] == 300_000.0
    assert found["scan_nm"]["row_step"] == pytest.approx(1.992, abs=0.001)
    assert "does not come near 0" in found["zero_loss"]["problem"]
    assert found["acquisition"]["beam_energy_kev"] == 200.0
    assert found["acquisition"]["collection_semi_angle_mrad"] == 62.0
    assert found["electrons_per_count"] == pytest.approx(0.1285, abs=1e-4)
    assert found["noise"]["gain"] == pytest.approx(7.78, abs=1e-3)
    assert found["noise"]["source"]["gain"] == "given"
    assert 0 < found["counts"]["negative_fraction"] < 0.01


def test_gain_of_the_core_loss_image_agrees_with_its_noise(shared_data: Path) -> None:
    """Variance over mean of channel-to-channel differences: about the gain, not about its reciprocal 0.13."""
    counts = np.asarray(read(shared_data / "digitalmicrograph" / "EELS_SI.dm4").counts, dtype=float)
    second = np.diff(counts, 2, axis=2)
    variance = (1.4826 * np.median(np.abs(second))) ** 2 / 6.0
    assert 2.0 < variance / np.median(counts) < 12.0


@pytest.mark.parametrize(
    ("name", "first_mev", "reason"),
    [
        ("digitalmicrograph/EELS_spectrum.dm3", -100_000.0, "stands out of the noise"),
        ("digitalmicrograph/EELS_STO.dm3", 350_000.0, "does not come near 0"),
        ("msa/example1.msa", 520_130.0, "does not come near 0"),
    ],
)
def test_measured_single_spectra(shared_data: Path, name: str, first_mev: float, reason: str) -> None:
    (item,) = inspect(shared_data / name, threads=1)["signals"]
    found = item["spectrum"]
    assert (found["shape"]["rows"], found["shape"]["columns"]) == (1, 1)
    assert found["energy_mev"]["first"] == first_mev
    assert reason in found["zero_loss"]["problem"]
    if name.endswith("EELS_spectrum.dm3"):
        assert found["acquisition"]["collection_semi_angle_mrad"] is None, "0.0 in the file means unknown"
        assert "acquisition.collection_semi_angle_mrad" in found["missing"]
    if name.endswith(".msa"):
        assert found["acquisition"]["dwell_time_s"] == pytest.approx(0.1)
        assert found["acquisition"]["collection_semi_angle_mrad"] == 3.4


def test_velox_file_with_many_signals(shared_data: Path, tmp_path: Path) -> None:
    zipped = shared_data / "velox" / "velox_EELS_EDS.zip"
    zipfile.ZipFile(zipped).extractall(tmp_path)
    (path,) = tmp_path.glob("*.emd")
    signals = inspect(path, threads=1)["signals"]
    spectra = [item for item in signals if item["kind"] == "spectrum"]
    assert [item["spectrum"]["energy_mev"]["first"] for item in spectra] == [800_000.0, 480_000.0, -21_502.6]
    for item in spectra:
        assert item["spectrum"]["shape"] == {"frames": 1, "rows": 16, "columns": 20, "channels": 2048}
        assert item["spectrum"]["scan_nm"]["row_step"] == pytest.approx(158.658, abs=0.001)
        assert "problem" in item["spectrum"]["zero_loss"]
        assert item["spectrum"]["counts"]["minimum"] in (79.0, 80.0)
        assert item["images_of_another_shape"] == [13]
        assert item["spectrum"]["acquisition"]["beam_energy_kev"] == 300.0
    assert sum(item["kind"] == "image" for item in signals) == 8
    with pytest.raises(InputFileError, match=r"holds 3 spectrum images: 14: .*choose one with ingest\.signal"):
        read(path)
    image = read(path, signal=16)
    assert image.haadf is not None, "the dark-field image of the same scan, not the 128 × 128 one"
    np.testing.assert_array_equal(np.asarray(image.counts), read(zipped, signal=16).counts)


@pytest.mark.parametrize("name", ["si_uint16.ndata1", "si_float32_4frames.nhdf", "session.nsproj"])
def test_nion_files(shared_data: Path, name: str) -> None:
    report = inspect(shared_data / "nion" / name, threads=1)
    for item in report["signals"]:
        if item["kind"] != "spectrum":
            assert (item["title"], item["shape"]) == ("HAADF", [3, 5])
            continue
        found = item["spectrum"]
        frames = 4 if "4frames" in item["title"] else 1
        assert found["shape"] == {"frames": frames, "rows": 3, "columns": 5, "channels": 96}
        assert found["energy_mev"]["first"] == -59.95
        assert found["acquisition"]["beam_energy_kev"] == 60.0
        assert found["haadf"] == (name == "session.nsproj")
        assert "acquisition.convergence_semi_angle_mrad" in found["missing"]


def test_nion_library_files(shared_data: Path) -> None:
    paths = [path for path in (shared_data / "nion" / "session Data").rglob("*.*") if path.is_file()]
    kinds = sorted(inspect(path, threads=1)["signals"][0]["kind"] for path in paths)
    assert kinds == ["image", "spectrum", "spectrum"]
