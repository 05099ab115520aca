"""Bad input on the command line: exit code 2, one line that names the file and the cure, nothing that looks finished.

Words that the command line itself refuses are in tests/unit/test_cli.py, files that the reader refuses in test_bad_input.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from phonon_eels.cli import main
from phonon_eels.config import load_material, load_simulation
from phonon_eels.io.results import read_image
from phonon_eels.simulate import simulate, write_simulation

Change = Callable[[h5py.Group], None]
QUICK = ("--set", "report.figure_formats=[png]", "--set", "report.dpi=50", "--threads", "1")
SIZES = ("scan.rows=12", "scan.columns=10", "energy.channels=200", "seed=3")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated scan, 12 × 10 × 200, with HAADF, energies in eV."""
    path = tmp_path_factory.mktemp("good") / "scan.hspy"
    write_simulation(simulate(load_simulation(overrides=SIZES), load_material("bi2212")), path)
    return path


@pytest.fixture
def scan(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to be spoiled, alone in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(good, "scan.hspy")
    return Path("scan.hspy")


def spoil(path: Path, change: Change) -> None:
    with h5py.File(path, "a") as file:
        change(next(iter(file["Experiments"].values())))


def counts(change: Callable[[np.ndarray], Any]) -> Change:
    """Replace the counts by what `change` makes of them."""

    def write(group: h5py.Group) -> None:
        data = group["data"][...].astype(np.float32)
        group["data"][...] = change(data)

    return write


def energy_axis(**attributes: Any) -> Change:
    def write(group: h5py.Group) -> None:
        group["axis-2"].attrs.update(attributes)

    return write


def as_image(group: h5py.Group) -> None:
    data = group["data"][:, :, 0]
    del group["data"], group["axis-2"]
    group["data"] = data
    for number in range(2):
        group[f"axis-{number}"].attrs["navigate"] = False


def in_mev(group: h5py.Group) -> None:
    axis = group["axis-2"].attrs
    axis["units"], axis["scale"], axis["offset"] = "meV", 1e3 * axis["scale"], 1e3 * axis["offset"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run, expect exit code 2 and one error line, and no result that looks finished; return the line."""
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    for name in ("summary.json", "report", "fit_peaks"):
        assert not list(Path().glob(f"*/*/{name}")), f"{name} looks like a finished run"
    assert not list(Path().rglob("*.tmp-*"))
    return lines[0]


class TestFile:
    def test_missing(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused(capsys, "gone.hspy")
        assert "gone.hspy" in line
        assert "give the path of an existing file" in line
        assert not Path("results").exists()

    def test_truncated(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scan.write_bytes(scan.read_bytes()[:60_000])
        line = refused(capsys, "scan.hspy")
        assert "scan.hspy cannot be read as .hspy" in line
        assert "copy it again" in line

    def test_text_renamed(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scan.write_text("energy counts\n" * 40)
        line = refused(capsys, "scan.hspy")
        assert "scan.hspy is no HDF5 file" in line
        assert "export it again" in line

    def test_a_folder(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path("night").mkdir()
        assert "night" in refused(capsys, "night")

    def test_name_with_a_space(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scan.rename("my scan.hspy")
        line = refused(capsys, "my scan.hspy")
        assert "dataset = 'my scan'" in line
        assert "--dataset my_scan" in line
        assert not Path("results").exists()


class TestContent:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            pytest.param(as_image, ("holds no spectra", "give the spectrum image's file"), id="2-D"),
            pytest.param(
                energy_axis(units="<undefined>"),
                ("the energy axis has no unit", "set acquisition.energy_unit to eV or meV"),
                id="no unit",
            ),
            pytest.param(
                energy_axis(offset=5.0),
                ("no zero-loss peak in range", "from 5000 to", "give a scan that includes it"),
                id="no zero-loss peak",
            ),
            pytest.param(
                counts(lambda y: np.broadcast_to(y[..., -1:], y.shape)),
                ("no zero-loss peak in range",),
                id="flat spectra",
            ),
            pytest.param(counts(lambda y: np.full_like(y, np.nan)), ("NaN", "export the file again"), id="NaN"),
            pytest.param(counts(lambda y: -y - 1.0), ("are negative", "give the raw counts"), id="mostly negative"),
        ],
    )
    def test_spectra_that_cannot_be_used(
        self, scan: Path, capsys: pytest.CaptureFixture[str], change: Change, words: tuple[str, ...]
    ) -> None:
        spoil(scan, change)
        line = refused(capsys, "scan.hspy")
        assert "scan.hspy" in line
        for word in words:
            assert word in line
        left = [path for path in Path("results/scan").glob("*/*") if path.parent.name != "logs"]
        assert not left

    def test_window_outside_the_axis(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused(capsys, "scan.hspy", "--set", "fit_peaks.window_mev=[-500,30]", *QUICK)
        assert line.startswith("error: scan.hspy: fit_peaks.window_mev")
        assert "-500" in line
        assert "choose a window inside it" in line

    def test_modes_beyond_the_axis(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        spoil(scan, counts(lambda y: y))
        spoil(scan, energy_axis(scale=2e-4, offset=-0.024))
        line = refused(capsys, "scan.hspy", *QUICK)
        assert line.startswith("error: scan.hspy: the energy axis ends")
        assert "below the first mode of material bi2212 (22 meV)" in line

    def test_ev_that_calls_itself_mev(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        spoil(scan, energy_axis(units="meV"))
        assert main(["run", "scan.hspy", *QUICK]) == 2
        err = capsys.readouterr().err
        assert "no microscope is that good, the file's energy unit is wrong" in err
        assert "mend the unit" in err.splitlines()[-1]

    def test_mev_that_calls_itself_ev(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        spoil(scan, in_mev)
        spoil(scan, energy_axis(units="eV"))
        assert main(["run", "scan.hspy", *QUICK]) == 2
        err = capsys.readouterr().err
        assert "too wide for phonons, unless the file's energy unit is wrong" in err
        assert "lie inside the zero-loss peak" in err.splitlines()[-1]


class TestHaadf:
    def test_another_shape(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.save("dark.npy", np.ones((5, 7)))
        line = refused(capsys, "scan.hspy", "--haadf", "dark.npy")
        assert "error: scan.hspy: the HAADF in" in line
        assert "dark.npy has shape (5, 7), the scan (12, 10)" in line
        assert "give the image that was taken with the spectra, or none" in line

    def test_missing(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused(capsys, "scan.hspy", "--haadf", "dark.npy")
        assert "dark.npy: the haadf file cannot be read" in line

    def test_absent(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        def without(group: h5py.Group) -> None:
            del group["metadata/PhononEELS/haadf"]

        spoil(scan, without)
        assert main(["run", "scan.hspy", *QUICK]) == 0
        err = capsys.readouterr().err
        for step in ("assign_layers", "map_superstructure", "measure_modulation"):
            record = json.loads(Path(f"results/scan/{step}/summary.json").read_text("utf-8"))
            assert record["skipped"]
            assert f"{step}: skipped: {record['skipped']}" in err
        assert "assign_layers: skipped: no HAADF: layers cannot be assigned" in err
        assert Path("results/scan/report/report.html").is_file()


class TestOutput:
    def test_unwritable(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        # A folder that is a file: permissions would not stop the administrator, who runs tests in containers.
        Path("results").write_text("no folder")
        line = refused(capsys, "scan.hspy")
        assert "cannot write" in line
        assert "move it away or choose another results folder" in line
        assert Path("results").read_text() == "no folder"

    @pytest.mark.parametrize("name", ["../up", "a/b", "my scan", "..", ".hidden", "scan\n"])
    def test_dataset_names(self, scan: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
        line = refused(capsys, "scan.hspy", "--dataset", name)
        assert "cannot name a folder of results; use letters, digits" in line
        assert {path.name for path in Path().iterdir()} == {"scan.hspy"}
        assert not Path("../up").exists()


class TestAccepted:
    def test_single_positions_without_a_value(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        def holes(y: np.ndarray) -> np.ndarray:
            y[2, 3] = np.nan
            y[5, 5, 60] = np.nan
            y[7, 1, 3] = -12.0
            return y

        spoil(scan, counts(holes))
        assert main(["run", "scan.hspy", *QUICK]) == 0
        assert "NaN" in capsys.readouterr().err
        image = read_image(Path("results/scan/ingest"))
        bad = np.asarray(image.bad)
        assert bad.sum() == 201
        assert bad[2, 3].all()
        assert bad[5, 5, 60]
        assert np.asarray(image.counts)[7, 1, 3] == -12.0  # single negative counts are kept
        with xr.open_dataset("results/scan/fit_peaks/maps.nc") as maps:
            area = maps["area_e"].values[0]
            assert maps["status"].values[2, 3] == 5
            assert maps["status"].attrs["flag_meanings"].split()[5] == "no_zero_loss"
        assert np.argwhere(np.isnan(area)).tolist() == [[2, 3]]

    def test_ev_and_mev_are_the_same(self, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, change in (("ev", None), ("mev", in_mev)):
            shutil.copyfile(scan, f"{name}.hspy")
            if change:
                spoil(Path(f"{name}.hspy"), change)
            assert main(["ingest", f"{name}.hspy", "--dataset-folder", f"results/{name}", "--threads", "1"]) == 0
        capsys.readouterr()
        ev, mev = (read_image(Path(f"results/{name}/ingest")) for name in ("ev", "mev"))
        assert ev.energy.dispersion_mev == pytest.approx(0.5)
        assert mev.energy.dispersion_mev == pytest.approx(ev.energy.dispersion_mev)
        assert mev.energy.offset_mev == pytest.approx(ev.energy.offset_mev)
        np.testing.assert_array_equal(np.asarray(ev.counts), np.asarray(mev.counts))
