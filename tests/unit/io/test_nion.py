"""Nion Swift's files come out bit by bit, in the right order, with the half channel, and lazily as eagerly."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonon_eels.errors import InputFileError
from phonon_eels.io.inspect import as_text, inspect
from phonon_eels.io.nion_project import decoded, encoded, project_files
from phonon_eels.io.read import read
from phonon_eels.pipeline.staleness import describe_source
from phonon_eels.spectrum_image import EnergyAxis, ScanAxis, SpectrumImage
from tests.unit.io.nion_files import (
    COLUMN,
    ENERGY,
    ROW,
    UUIDS,
    calibration,
    counts,
    haadf_properties,
    properties,
    write_h5,
    write_ndata,
    write_nhdf,
    write_project,
)

LAYOUTS = ("scan.ndata", "scan.ndata1", "scan.h5", "scan.nhdf")


def write(path: Path, data: np.ndarray, about: Any) -> Path:
    if path.suffix == ".h5":
        return write_h5(path, data, about)
    if path.suffix == ".nhdf":
        return write_nhdf(path, (data, about))
    return write_ndata(path, data, about, data_first=path.suffix == ".ndata")


def read_item(folder: Path, data: np.ndarray, **changes: Any) -> SpectrumImage:
    return read(write_ndata(folder / "scan.ndata", data, properties(data, **changes)))


# Written by Nion Swift itself ---------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("ending", [".ndata1", ".nhdf", " in the library"])
@pytest.mark.parametrize("name", ["si_uint16", "si_float32_4frames"])
def test_files_of_nion_swift(shared_data: Path, name: str, ending: str, lazy: bool) -> None:
    folder = shared_data / "nion"
    library = {"si_uint16": "*_U068T4ZVHF6IBY539XIVTP50H.ndata", "si_float32_4frames": "*_N84266MBEF62IAUVHIX1BIFRC.h5"}
    path = folder / f"{name}{ending}" if ending[0] == "." else next((folder / "session Data").rglob(library[name]))
    image = read(path, lazy=lazy)
    truth = np.load(folder / f"{name}_truth.npy")
    raw = image.counts if image.frames is None else image.frames
    assert isinstance(image.counts, np.ndarray) != lazy
    assert raw.dtype == truth.dtype
    np.testing.assert_array_equal(np.asarray(raw), truth)
    np.testing.assert_array_equal(np.asarray(image.counts), truth if truth.ndim == 3 else truth.sum(axis=0))
    assert image.acquisition.n_frames == (1 if truth.ndim == 3 else 4)
    assert image.energy == EnergyAxis(-60.2 + 0.25, 0.5, 96)
    assert image.scan == (ScanAxis("row", 0.5, 3, 0.25), ScanAxis("column", 0.5, 5, 0.25))
    assert image.acquisition.beam_energy_kev == 60.0
    assert image.acquisition.dwell_time_s == 0.02
    assert image.title == name
    assert (image.frames is None) == (truth.ndim == 3)
    # As the note beside the files says: the last channel counts columns, the peak moves a channel per row.
    np.testing.assert_array_equal(np.asarray(raw[..., 2, :, -1]).reshape(-1, 5)[0], np.arange(5))
    assert np.argmax(np.asarray(image.counts)[2, 0]) == 42


def test_project_of_nion_swift(shared_data: Path) -> None:
    folder = shared_data / "nion"
    path = folder / "session.nsproj"
    with pytest.raises(InputFileError, match=r"holds 2 spectrum images: 0: si_uint16 .*1: .*4frames.*ingest\.signal"):
        read(path)
    for number, name in enumerate(["si_uint16", "si_float32_4frames"]):
        image = read(path, signal=number)
        raw = image.counts if image.frames is None else image.frames
        np.testing.assert_array_equal(np.asarray(raw), np.load(folder / f"{name}_truth.npy"))
        np.testing.assert_array_equal(image.haadf, np.arange(15.0).reshape(3, 5))
    assert len(project_files(path)) == 3


# Axes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4)])
def test_order_units_and_half_channel(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    data = counts(*shape)
    path = write(tmp_path / "last night" / name, data, properties(data)) if name[-1] != "f" else None
    path = path or write(tmp_path / name, data, properties(data))
    lazy, eager = read(path), read(path, lazy=False)
    for image in (lazy, eager):
        raw = image.counts if image.frames is None else image.frames
        np.testing.assert_array_equal(np.asarray(raw), data)
        np.testing.assert_array_equal(np.asarray(image.counts), data if len(shape) == 3 else data.sum(axis=0))
        assert image.energy == EnergyAxis(-20.0, 1.0, 4), "left edge at -20.5 meV: the first channel is centred at -20"
        assert image.scan == (ScanAxis("row", 0.5, 2, -0.75), ScanAxis("column", 0.25, 3, 2.125))
    assert hasattr(lazy.counts, "dask")
    assert isinstance(eager.counts, np.ndarray)
    assert lazy.acquisition == eager.acquisition


def test_names_of_exports(tmp_path: Path) -> None:
    data = counts(2, 3, 4)
    about = properties(data)
    about["spatial_calibrations"] = about.pop("dimensional_calibrations")
    del about["is_sequence"]
    assert read(write_ndata(tmp_path / "scan.ndata1", data, about)).energy == EnergyAxis(-20.0, 1.0, 4)


def test_files_without_dimension_counts(tmp_path: Path) -> None:
    data = counts(2, 3, 4)
    about = {key: value for key, value in properties(data).items() if not key.endswith("dimension_count")}
    image = read(write_ndata(tmp_path / "old.ndata1", data, about))
    np.testing.assert_array_equal(np.asarray(image.counts), data)


def test_line_scans_and_single_spectra_with_frames(tmp_path: Path) -> None:
    line = counts(3, 4)
    image = read_item(tmp_path, line)
    assert image.shape == (1, 3, 4)
    assert image.scan[1] == ScanAxis("column", 0.25, 3, 2.125)
    assert image.frames is None
    frames = read_item(
        tmp_path,
        line,
        is_sequence=True,
        collection_dimension_count=0,
        dimensional_calibrations=[calibration(units="s"), ENERGY],
    )
    assert frames.shape == (1, 1, 4)
    np.testing.assert_array_equal(np.asarray(frames.frames)[:, 0, 0], line)
    of_lines = read_item(
        tmp_path,
        counts(5, 3, 4),
        is_sequence=True,
        collection_dimension_count=1,
        dimensional_calibrations=[calibration(), COLUMN, ENERGY],
    )
    np.testing.assert_array_equal(np.asarray(of_lines.frames)[:, 0], counts(5, 3, 4))
    assert read_item(tmp_path, counts(8), collection_dimension_count=0).shape == (1, 1, 8)


@pytest.mark.parametrize("dtype", [">u2", "<i4", "float64", "uint8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_and_orders_of_values(tmp_path: Path, dtype: str, order: str) -> None:
    data = np.asarray(counts(2, 3, 5).astype(dtype), order=order)
    image = read_item(tmp_path, data)
    assert image.counts.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(image.counts), data)


def test_units_other_than_ev(tmp_path: Path) -> None:
    about = [calibration(0.0, 5.0, "Å"), calibration(0.0, 1e-3, "µm"), calibration(-20.0, 1.0, "meV")]
    image = read_item(tmp_path, counts(2, 3, 4), dimensional_calibrations=about)
    assert image.energy == EnergyAxis(-19.5, 1.0, 4)
    assert image.scan == (ScanAxis("row", 0.5, 2, 0.25), ScanAxis("column", 1.0, 3, 0.5))
    flipped = read_item(
        tmp_path, counts(2, 3, 4), dimensional_calibrations=[ROW, COLUMN, calibration(0.004, -0.001, "eV")]
    )
    assert flipped.energy == EnergyAxis(0.5, 1.0, 4)
    np.testing.assert_array_equal(np.asarray(flipped.counts), counts(2, 3, 4)[..., ::-1])


def test_what_is_not_calibrated_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"scan\.ndata: the energy axis has no unit.*acquisition\.energy_unit"):
        read_item(tmp_path, counts(2, 3, 4), dimensional_calibrations=[ROW, COLUMN, calibration()])
    with pytest.raises(
        InputFileError, match=r"scan\.ndata: the scan axis “y” has no unit; .*acquisition\.scan_step_nm"
    ):
        read_item(tmp_path, counts(2, 3, 4), dimensional_calibrations=[calibration(0, 0, "nm"), COLUMN, ENERGY])


def test_pictures_and_diffraction_are_no_spectra(tmp_path: Path) -> None:
    path = write_nhdf(
        tmp_path / "all.nhdf",
        (counts(2, 3, 3, dtype="uint8"), haadf_properties(counts(2, 3))),
        (
            counts(2, 2, 3, 3),
            haadf_properties(counts(2, 3), collection_dimension_count=2, dimensional_calibrations=None),
        ),
    )
    assert [item["kind"] for item in inspect(path)["signals"]] == ["other", "other"]
    with pytest.raises(InputFileError, match=r"all\.nhdf holds no spectra, only other"):
        read(path)


# Metadata -----------------------------------------------------------------------------------------


def acquisition(folder: Path, **metadata: Any) -> Any:
    return read_item(folder, counts(2, 3, 4), metadata=metadata, session={"instrument": "HERMES"}).acquisition


def test_acquisition_is_typed(tmp_path: Path) -> None:
    found = acquisition(
        tmp_path,
        instrument={"high_tension": 60000.0, "ImageScanned": {"EHT": 60000, "probe_ha": 0.030}},
        hardware_source={"exposure": 0.003, "collection_angle_rad": 0.025},
        scan={"pixel_time_us": 2500.0},
    )
    assert found.beam_energy_kev == 60.0
    assert found.convergence_semi_angle_mrad == 30.0
    assert found.collection_semi_angle_mrad == 25.0
    assert found.dwell_time_s == 0.003
    assert found.instrument == "HERMES"
    assert found.temperature_k is None
    assert found.n_frames == 1


def test_metadata_that_contradict_or_lie_are_unknown(tmp_path: Path) -> None:
    assert (
        acquisition(tmp_path, instrument={"high_tension": 60000}, hardware_source={"EHT": 200000}).beam_energy_kev
        is None
    )
    assert acquisition(tmp_path, instrument={"high_tension": 60}).beam_energy_kev is None, "kilovolts? nobody knows"
    assert acquisition(tmp_path, instrument={"high_tension": "60 kV"}).beam_energy_kev is None
    assert acquisition(tmp_path, instrument={"probe_ha": 30.0}).convergence_semi_angle_mrad is None
    assert acquisition(tmp_path, instrument=7, hardware_source=["x"], scan=None).dwell_time_s is None


def test_exposure_of_a_scan_device_is_no_dwell_time(tmp_path: Path) -> None:
    found = acquisition(tmp_path, hardware_source={"exposure": 1.5, "pixel_time_us": 20.0})
    assert found.dwell_time_s == pytest.approx(20e-6)
    assert acquisition(tmp_path, scan={"pixel_time_us": 20.0}).dwell_time_s == pytest.approx(20e-6)


def test_gain_of_the_camera(tmp_path: Path) -> None:
    image = read_item(tmp_path, counts(2, 3, 4), metadata={"hardware_source": {"counts_per_electron": 40}})
    assert image.noise.gain == 40.0
    assert image.noise.source["gain"] == "given"
    assert image.noise.source["dark_level"] == "assumed"


# Projects -----------------------------------------------------------------------------------------


def test_names_of_data_files() -> None:
    assert encoded(UUIDS[0]) == "data_U068T4ZVHF6IBY539XIVTP50H"
    for item in (*UUIDS, uuid.UUID("45f2c033-2a3e-469e-9327-461dc53cf704")):
        # Leading A's, the digit 0, are not written: they are the last ones, so nothing is lost.
        assert decoded(encoded(item)) == item
    for name in ("notes", "data_", "data_a", "data_" + "Z" * 26, "data_" + "0" * 25):
        assert decoded(name) is None


def session(folder: Path) -> Path:
    """A night: scan with frames, HAADF of another scan, HAADF stack, live spectrum, Fourier transform, deleted item."""
    data = folder / "last night Data" / "2026" / "11"
    frames = counts(2, 3, 4, 5)
    write_h5(data / f"{encoded(UUIDS[0])}.h5", frames, properties(frames))
    stack = counts(2, 3, 4, dtype="float32")
    write_ndata(data / f"{encoded(UUIDS[1])}.ndata", stack, haadf_properties(stack))
    spectrum = counts(5)
    write_ndata(data / f"{encoded(UUIDS[2])}.ndata", spectrum, properties(spectrum, uuid=str(UUIDS[2]), title="live"))
    transform = counts(3, 4).astype(complex)
    write_ndata(data / "data_FFT.ndata", transform, haadf_properties(transform, uuid=str(uuid.UUID(int=7))))
    gone = uuid.UUID(int=8)
    write_ndata(data / "data_I.ndata", spectrum, properties(spectrum, uuid=str(gone)))
    write_ndata(folder / "last night Data" / "trash" / "data_J.ndata", spectrum)
    return write_project(folder / "last night.nsproj", UUIDS[2], UUIDS[0], UUIDS[1], data_item_deletions=[str(gone)])


def test_scan_and_its_haadf_are_found_in_a_session(tmp_path: Path) -> None:
    path = session(tmp_path)
    report = inspect(path)
    assert [item["title"] for item in report["signals"]] == ["live", "a scan", "Superscan (HAADF)"]
    assert "last night.nsproj" in as_text(report)
    for lazy in (True, False):
        image = read(path, lazy=lazy)
        np.testing.assert_array_equal(np.asarray(image.frames), counts(2, 3, 4, 5))
        np.testing.assert_array_equal(image.haadf_frames, counts(2, 3, 4))
        np.testing.assert_array_equal(image.haadf, counts(2, 3, 4).mean(axis=0))
        assert isinstance(image.counts, np.ndarray) != lazy
    assert read(path, signal=0).shape == (1, 1, 5)


def test_haadf_of_the_same_scan_is_told_by_its_mark(tmp_path: Path) -> None:
    data = counts(2, 3, 4)
    images = [counts(2, 3) + number for number in range(2)]
    marks = [{"scan": {"scan_id": f"scan {number}"}} for number in range(2)]
    path = write_nhdf(
        tmp_path / "both.nhdf",
        (images[0], haadf_properties(images[0], metadata=marks[0])),
        (images[1], haadf_properties(images[1], metadata=marks[1])),
        (data, properties(data, metadata=marks[1])),
    )
    np.testing.assert_array_equal(read(path).haadf, images[1])
    unmarked = write_nhdf(
        tmp_path / "which.nhdf",
        *((image, haadf_properties(image)) for image in images),
        (data, properties(data)),
    )
    assert read(unmarked).haadf is None, "which one?"


def test_one_bad_file_does_not_cost_the_session(tmp_path: Path) -> None:
    path = session(tmp_path)
    (bad,) = tmp_path.rglob(f"{encoded(UUIDS[1])}.ndata")
    bad.write_bytes(bad.read_bytes()[:-30])
    with pytest.raises(
        InputFileError, match=rf"1 of its items cannot be read \(the first: .*{bad.name}.*ingest\.signal"
    ):
        read(path)
    np.testing.assert_array_equal(np.asarray(read(path, signal=1).frames), counts(2, 3, 4, 5))
    bad.unlink()
    with pytest.raises(InputFileError, match=rf"{bad.stem}\.ndata or \.h5 is not in the data folder; copy the whole"):
        read(path)


def test_project_without_its_data(tmp_path: Path) -> None:
    path = write_project(tmp_path / "night.nsproj")
    with pytest.raises(InputFileError, match=r"night\.nsproj: its data folder “night Data” is not beside it; copy"):
        read(path)
    (tmp_path / "night Data").mkdir()
    with pytest.raises(InputFileError, match=r"night\.nsproj holds no data items; copy the folder “night Data”"):
        read(path)
    broken = tmp_path / "night Data" / "data_A.ndata"
    broken.write_bytes(b"no zip")
    with pytest.raises(
        InputFileError, match=r"night\.nsproj: no spectra can be read, because .*data_A\.ndata is damaged"
    ):
        read(path)


def test_project_that_was_moved_or_leads_elsewhere(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "other place"
    write_ndata(home / "night Data" / "data_A.ndata", counts(2, 3, 4))
    write_ndata(outside / "data_A.ndata", counts(2, 3, 5))
    for name in (
        "D:\\microscope\\night Data",
        "/somewhere/night Data",
        "../other place",
        str(outside),
        ".",
        "/",
        "x/..",
    ):
        path = write_project(home / "night.nsproj", project_data_folders=[name])
        assert read(path).shape == (2, 3, 4), name
    absolute = write_project(home / "x.nsproj", project_data_folders=[str(home / "night Data")])
    assert read(absolute).shape == (2, 3, 4)
    alone = write_project(home / "y.nsproj", project_data_folders=["../other place"])
    with pytest.raises(InputFileError, match=r"y\.nsproj: its data folder “\.\./other place” is not beside it"):
        read(alone)


def test_project_counts_as_its_data(tmp_path: Path) -> None:
    """A result is stale when the values of a project's items change, though the .nsproj does not."""
    path = session(tmp_path)
    before = describe_source({"spectra": path})["spectra"]["sha256"]
    assert describe_source({"spectra": path})["spectra"]["sha256"] == before
    (scan,) = tmp_path.rglob("*.h5")
    frames = counts(2, 3, 4, 5) + 1
    write_h5(scan, frames, properties(frames))
    assert describe_source({"spectra": path})["spectra"]["sha256"] != before
