"""Axes, units, frames and HAADF of files come out right; what is missing is asked for by key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonon_eels.config.settings import AcquisitionSettings
from phonon_eels.errors import ConfigError, DataError, InputFileError
from phonon_eels.io.axes import mev_per_unit, nm_per_unit
from phonon_eels.io.export import signal_dictionary, write_hspy
from phonon_eels.io.metadata import camera_gain, file_acquisition
from phonon_eels.io.read import choose_spectrum, find_haadf, read, sum_of_frames, to_spectrum_image
from phonon_eels.io.vendor import FileSignal
from phonon_eels.spectrum_image import EnergyAxis, SpectrumImage
from tests.unit.io.scans import small_scan

FILE = Path("night/scan 7.dm4")
ENERGY = {"name": "Energy loss", "units": "eV", "offset": -0.0101, "scale": 0.0005, "navigate": False}
ROW = {"name": "y", "units": "nm", "offset": 0.0, "scale": 0.05, "navigate": True}
COLUMN = {**ROW, "name": "x", "scale": 0.06}
FRAME = {"name": "frame", "units": "", "offset": 0.0, "scale": 1.0, "navigate": True}


def signal(data: np.ndarray, *axes: Mapping[str, Any], flags_meant: bool = False, **entries: Any) -> FileSignal:
    metadata = {"General": {"title": entries.pop("title", "")}, "Signal": {"signal_type": "EELS"}, **entries}
    return FileSignal(0, data, axes, metadata, flags_meant=flags_meant)


def cube(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


@pytest.mark.parametrize(
    ("unit", "scale"), [("eV", 0.0005), ("meV", 0.5), ("keV", 5e-7), ("ev", 0.0005), (" eV ", 0.0005)]
)
def test_energy_units_are_told_apart(unit: str, scale: float) -> None:
    energy = {**ENERGY, "units": unit, "scale": scale, "offset": -20.2 * scale}
    image = to_spectrum_image(signal(cube(2, 3, 8), ROW, COLUMN, energy), FILE)
    assert image.energy == EnergyAxis(-10.1, 0.5, 8)


def test_mega_is_not_milli() -> None:
    assert mev_per_unit("MeV") is None
    assert mev_per_unit("KeV") == 1e6
    assert mev_per_unit("s") is None
    assert nm_per_unit("µm") == 1e3
    assert nm_per_unit("Mm") is None


def test_energy_axis_is_found_by_its_unit_not_by_its_place() -> None:
    data = cube(8, 2, 3)
    image = to_spectrum_image(signal(data, ENERGY, ROW, COLUMN), FILE)
    assert image.shape == (2, 3, 8)
    np.testing.assert_array_equal(image.counts[1, 2], data[:, 1, 2])
    assert (image.scan[0].step_nm, image.scan[1].step_nm) == (0.05, 0.06)


def test_falling_energies_are_turned() -> None:
    data = cube(2, 3, 8)
    energy = {**ENERGY, "scale": -0.0005, "offset": 0.0}
    image = to_spectrum_image(signal(data, ROW, COLUMN, energy), FILE)
    assert image.energy == EnergyAxis(-3.5, 0.5, 8)
    np.testing.assert_array_equal(image.counts[0, 0], data[0, 0, ::-1])


def test_line_scans_and_single_spectra() -> None:
    line = to_spectrum_image(signal(cube(5, 8), COLUMN, ENERGY), FILE)
    assert line.shape == (1, 5, 8)
    assert line.scan[1].step_nm == 0.06
    np.testing.assert_array_equal(line.counts[0, 3], cube(5, 8)[3])
    single = to_spectrum_image(signal(cube(8), ENERGY), FILE)
    assert single.shape == (1, 1, 8)
    np.testing.assert_array_equal(single.counts[0, 0], cube(8))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_frame_axis_is_the_one_without_length(place: int) -> None:
    data = np.moveaxis(cube(4, 2, 3, 8), 0, place)
    axes = [ROW, COLUMN]
    axes.insert(place, FRAME)
    image = to_spectrum_image(signal(data, *axes, ENERGY), FILE)
    assert image.frames is not None
    np.testing.assert_array_equal(image.frames, cube(4, 2, 3, 8))
    np.testing.assert_array_equal(image.counts, cube(4, 2, 3, 8).sum(axis=0))
    assert image.acquisition.n_frames == 4


def test_ambiguous_frame_axis_is_refused() -> None:
    with pytest.raises(InputFileError, match=r"which of the three axes .* counts the frames cannot be told"):
        to_spectrum_image(signal(cube(4, 2, 3, 8), {**ROW, "name": "z"}, ROW, COLUMN, ENERGY), FILE)


def test_frames_add_without_loss() -> None:
    frames = np.full((5, 1, 1, 3), 65535, np.uint16)
    assert sum_of_frames(frames).tolist() == [[[5 * 65535] * 3]]
    assert sum_of_frames(frames.astype(np.float32)).dtype == np.float32


def test_missing_energy_unit_is_asked_for() -> None:
    bare = signal(cube(2, 3, 8), ROW, COLUMN, {**ENERGY, "units": ""})
    with pytest.raises(InputFileError, match=r"scan 7\.dm4: the energy axis has no unit .*acquisition\.energy_unit"):
        to_spectrum_image(bare, FILE)
    image = to_spectrum_image(bare, FILE, AcquisitionSettings(energy_unit="eV"))
    assert image.energy == EnergyAxis(-10.1, 0.5, 8)


def test_unit_that_contradicts_the_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"acquisition\.energy_unit = meV, but .* says eV"):
        to_spectrum_image(signal(cube(2, 3, 8), ROW, COLUMN, ENERGY), FILE, AcquisitionSettings(energy_unit="meV"))


def test_missing_scan_unit_is_asked_for() -> None:
    bare = signal(cube(2, 3, 8), {**ROW, "units": None}, COLUMN, ENERGY)
    with pytest.raises(InputFileError, match=r"no unit; set acquisition\.scan_step_nm or acquisition\.scan_unit"):
        to_spectrum_image(bare, FILE)
    with_unit = to_spectrum_image(bare, FILE, AcquisitionSettings(scan_unit="Å"))
    assert [axis.step_nm for axis in with_unit.scan] == [0.005, 0.06]
    with_step = to_spectrum_image(bare, FILE, AcquisitionSettings(scan_step_nm=0.2))
    assert [axis.step_nm for axis in with_step.scan] == [0.2, 0.06]


def test_wrong_scan_unit_is_named() -> None:
    with pytest.raises(InputFileError, match=r"has the unit s, which is no length; set acquisition\.scan_step_nm"):
        to_spectrum_image(signal(cube(2, 3, 8), {**ROW, "units": "s"}, COLUMN, ENERGY), FILE)


def test_marks_that_contradict_the_units_are_refused_in_hyperspy_files() -> None:
    axes = ({**ENERGY, "navigate": True}, {**ROW, "navigate": True}, {**COLUMN, "navigate": False})
    with pytest.raises(InputFileError, match="axes are in the wrong order"):
        to_spectrum_image(signal(cube(8, 2, 3), *axes, flags_meant=True), FILE)
    # DigitalMicrograph's marks say nothing: RosettaSciIO sets them by the place.
    assert to_spectrum_image(signal(cube(8, 2, 3), *axes), FILE).shape == (2, 3, 8)


def test_signal_axis_in_nm_is_refused() -> None:
    length = {**ENERGY, "units": "nm"}
    with pytest.raises(InputFileError, match="the signal axis “Energy loss” has the unit nm, not eV"):
        to_spectrum_image(signal(cube(2, 3, 8), ROW, COLUMN, length), FILE)


def test_unequal_steps_are_refused() -> None:
    bent = {"name": "Energy loss", "units": "eV", "axis": [0.0, 1.0, 3.0], "navigate": False}
    with pytest.raises(InputFileError, match="unequal steps; resample"):
        to_spectrum_image(signal(cube(2, 3, 3), ROW, COLUMN, bent), FILE)
    even = {**bent, "axis": [0.001, 0.002, 0.003]}
    assert to_spectrum_image(signal(cube(2, 3, 3), ROW, COLUMN, even), FILE).energy == EnergyAxis(1.0, 1.0, 3)


def test_big_endian_counts_become_native() -> None:
    image = to_spectrum_image(signal(cube(2, 3, 8).astype(">u2"), ROW, COLUMN, ENERGY), FILE)
    assert image.counts.dtype == np.dtype("=u2")
    assert image.counts.dtype.isnative


def test_zero_angle_means_unknown_and_units_beside_a_value_count() -> None:
    tem = {
        "beam_energy": 60000.0,
        "beam_energy_units": "V",
        "convergence_angle": 0.03,
        "convergence_angle_units": "rad",
        "Detector": {"EELS": {"collection_angle": 0.0, "dwell_time": 100.0, "dwell_time_units": "ms"}},
        "Stage": {"temperature": 100},
    }
    found = file_acquisition({"Acquisition_instrument": {"TEM": tem}}, {})
    assert found.beam_energy_kev == 60.0
    assert found.convergence_semi_angle_mrad == 30.0
    assert found.collection_semi_angle_mrad is None
    assert found.dwell_time_s == pytest.approx(0.1)
    assert found.temperature_k == 100.0
    assert file_acquisition({}, {}) == type(found)()


def test_settings_win_over_the_file() -> None:
    tem = {"TEM": {"beam_energy": 60.0, "convergence_angle": 30.0}}
    settings = AcquisitionSettings(beam_energy_kev=200.0, gain=0.5, dark_level=2.0, read_noise_e=3.0)
    image = to_spectrum_image(
        signal(cube(4, 2, 3, 8), FRAME, ROW, COLUMN, ENERGY, Acquisition_instrument=tem), FILE, settings
    )
    assert image.acquisition.beam_energy_kev == 200.0
    assert image.acquisition.convergence_semi_angle_mrad == 30.0
    # Of the sum of four frames: dark levels add, read noise adds in squares.
    assert (image.noise.gain, image.noise.dark_level, image.noise.read_noise_e) == (0.5, 8.0, 6.0)
    assert image.noise.source["noise_correlation"] == "assumed"


def test_digital_micrograph_gives_electrons_per_count() -> None:
    def brightness(unit: str) -> dict[str, Any]:
        entry = {"Units": unit, "Scale": 0.125, "Origin": 0.0}
        return {"ImageList": {"TagGroup0": {"ImageData": {"Calibrations": {"Brightness": entry}}}}}

    model = {"Signal": {"Noise_properties": {"Variance_linear_model": {"gain_factor": 0.125}}}}
    assert camera_gain(model, brightness("e-")) == 8.0
    assert camera_gain(model, brightness("")) == 0.125
    model["Signal"]["Noise_properties"]["Variance_linear_model"]["gain_factor"] = 1.0
    assert camera_gain(model, {}) is None


def test_several_spectrum_images_are_listed() -> None:
    items = [signal(cube(2, 3, 8), ROW, COLUMN, ENERGY, title=f"no. {number}") for number in range(2)]
    items = [items[0], FileSignal(5, items[1].data, items[1].axes, items[1].metadata)]
    with pytest.raises(InputFileError, match=r"holds 2 spectrum images: 0: no\. 0 .*5: no\. 1 .*ingest\.signal"):
        choose_spectrum(items, None, FILE)
    assert choose_spectrum(items, 5, FILE).number == 5
    with pytest.raises(InputFileError, match=r"signal 3 is not a spectrum image; choose ingest\.signal from 0"):
        choose_spectrum(items, 3, FILE)


def plain_image(data: np.ndarray, title: str) -> FileSignal:
    axes = tuple({**axis, "navigate": False} for axis in (ROW, COLUMN))
    return FileSignal(9, data, axes, {"General": {"title": title}, "Signal": {"signal_type": ""}})


def test_images_only() -> None:
    with pytest.raises(InputFileError, match=r"holds no spectra, only image \(2, 3\)"):
        choose_spectrum([plain_image(cube(2, 3), "HAADF")], None, FILE)


def haadf_of(*images: FileSignal) -> np.ndarray | None:
    spectra = signal(cube(2, 3, 8), ROW, COLUMN, ENERGY)
    image = to_spectrum_image(spectra, FILE)
    return find_haadf([spectra, *images], spectra, image, FILE).get("haadf")


def test_dark_field_of_the_same_scan_is_taken() -> None:
    assert haadf_of(plain_image(cube(2, 3), "STEM HAADF")) is not None
    assert haadf_of(plain_image(cube(2, 3), "DF-S")) is not None
    assert haadf_of(plain_image(cube(2, 3), "Fe map")) is None
    assert haadf_of(plain_image(cube(6, 6), "HAADF survey")) is None
    both = haadf_of(plain_image(cube(2, 3) + 5, "HAADF"), plain_image(cube(2, 3), "ADF"))
    np.testing.assert_array_equal(both, cube(2, 3) + 5)
    assert haadf_of(plain_image(cube(2, 3), "HAADF 1"), plain_image(cube(2, 3), "HAADF 2")) is None, "which one?"


def test_haadf_of_another_shape_under_our_key_is_refused() -> None:
    spectra = signal(cube(2, 3, 8), ROW, COLUMN, ENERGY, PhononEELS={"haadf": cube(3, 2)})
    image = to_spectrum_image(spectra, FILE)
    with pytest.raises(DataError, match=r"the HAADF in .*scan 7\.dm4 .* has shape \(3, 2\), the scan \(2, 3\)"):
        find_haadf([spectra], spectra, image, FILE)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".png", ".hspy"])
def test_haadf_in_a_file_of_its_own(tmp_path: Path, suffix: str) -> None:
    spectra = write_hspy(small_scan(), tmp_path / "scan.hspy")
    haadf = np.random.default_rng(1).integers(0, 255, (4, 5)).astype(np.uint8)
    path = tmp_path / f"haadf{suffix}"
    write_picture(haadf, path)
    image = read(spectra, haadf=path)
    np.testing.assert_array_equal(image.haadf, haadf)
    write_picture(haadf[:3], path)
    with pytest.raises(DataError, match=rf"haadf\{suffix} has shape \(3, 5\), the scan \(4, 5\)"):
        read(spectra, haadf=path)


def write_picture(data: np.ndarray, path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, data)
    elif path.suffix == ".hspy":
        from rsciio.hspy import file_writer

        record = signal_dictionary(small_scan(), small_scan().counts)
        axes = [{**axis, "navigate": False, "size": n} for axis, n in zip(record["axes"][:2], data.shape, strict=True)]
        record |= {"data": data, "axes": axes}
        record["metadata"] = {"General": {"title": "HAADF"}, "Signal": {"signal_type": ""}}
        file_writer(str(path), record, show_progressbar=False)
    else:
        import imageio.v3 as iio

        iio.imwrite(path, data)


def test_pickled_haadf_is_refused(tmp_path: Path) -> None:
    spectra = write_hspy(small_scan(), tmp_path / "scan.hspy")
    np.save(tmp_path / "evil.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputFileError, match=r"evil\.npy cannot be read as an image .*allow_pickle"):
        read(spectra, haadf=tmp_path / "evil.npy")


def test_titles(tmp_path: Path) -> None:
    path = write_hspy(small_scan(title=""), tmp_path / "night scan.hspy")
    image: SpectrumImage = read(path)
    assert image.title == "night scan"
