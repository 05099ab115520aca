"""Every measured file through `inspect` and `run`, as far as it goes, and the sentence where it stops."""

import subprocess
import sys
from pathlib import Path

import pytest

from phonon_eels.cli import main

NO_PEAK = "no zero-loss peak in range: "
# file, what `inspect` must say, extra options of `run`, the reason why `run` stops
FILES = [
    ("digitalmicrograph/EELS_SI.dm4", "2 rows × 2 columns", (), f"{NO_PEAK}the axis runs from 300000"),
    ("digitalmicrograph/EELS_spectrum.dm3", "a single spectrum", (), f"{NO_PEAK}no channel stands out of the noise"),
    ("digitalmicrograph/EELS_STO.dm3", "350000 … 861750 meV", (), f"{NO_PEAK}the axis runs from 350000"),
    ("velox/velox_EELS_EDS.zip", "HAADF: signal 10, DF-S", (), "holds 3 spectrum images: 14: EELS (16, 20, 2048)"),
    ("velox/velox_EELS_EDS.zip", "counts: 80 … ", ("--set", "ingest.signal=16"), f"{NO_PEAK}no channel stands out"),
    ("msa/example1.msa", "520130 … 582130 meV", (), f"{NO_PEAK}the axis runs from 520130"),
    ("nion/si_uint16.ndata1", "3 rows × 5 columns, step 0.5 nm", (), f"{NO_PEAK}the axis runs from -59.95"),
    ("nion/si_uint16.nhdf", "-59.95 … -12.45 meV, 0.5 meV", (), f"{NO_PEAK}the axis runs from -59.95"),
    ("nion/si_float32_4frames.ndata1", "4 frames of 3 rows × 5 columns", (), f"{NO_PEAK}the axis runs from -59.95"),
    ("nion/si_float32_4frames.nhdf", "4 frames of 3 rows × 5 columns", (), f"{NO_PEAK}the axis runs from -59.95"),
    ("nion/session.nsproj", "Several spectrum images", (), "holds 2 spectrum images: 0: si_uint16 (3, 5, 96)"),
    ("nion/session.nsproj", "HAADF: signal 2", ("--set", "ingest.signal=0"), f"{NO_PEAK}the axis runs from -59.95"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shown", "options", "reason"), FILES, ids=lambda value: str(value)[:30])
def test_as_far_as_it_goes(
    name: str, shown: str, options: tuple[str, ...], reason: str, shared_data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = shared_data / name
    assert main(["inspect", str(path)]) == 0
    assert shown in capsys.readouterr().out
    arguments = ["run", str(path), "--output", str(tmp_path), "--dataset", "scan", "--threads", "1", *options]
    assert main(arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert reason in said[0]
    assert str(path) in said[0]
    assert not list(tmp_path.rglob("summary.json"))


def test_every_file_has_its_test(shared_data: Path) -> None:
    """The line scan goes through all steps, in `test_line_scan`; arrays of truth are no files of a microscope."""
    here = {path.relative_to(shared_data).as_posix() for path in shared_data.rglob("*") if path.is_file()}
    tested = {name for name, *_ in FILES} | {"hyperspy/LSMO_linescan_low_loss.hdf5", "README.md"}
    left = {name for name in here - tested if not name.endswith("_truth.npy") and " Data/" not in name}
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize("spectrum", [False, True], ids=["line scan", "single spectrum"])
def test_measured_line_and_a_spectrum_of_it_on_both_routes(spectrum: bool, shared_data: Path, tmp_path: Path) -> None:
    """Calibration to the zero-loss peak and deconvolution included; what means nothing on a line is said."""
    import hyperspy.api as hs

    path = shared_data / "hyperspy" / "LSMO_linescan_low_loss.hdf5"
    if spectrum:
        line = hs.load(str(path), file_format="HSPY")
        line.inav[7].save(str(tmp_path / "one.hspy"))
        path = tmp_path / "one.hspy"
    config = Path(__file__).parents[2] / "docs" / "examples" / "lsmo_line_scan.yaml"
    for route in ("forward", "classic"):
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "phonon_eels",
            "run",
            str(path),
            "--output",
            str(tmp_path / route),
        ]
        command += [
            "--dataset",
            "scan",
            "--config",
            str(config),
            "--set",
            f"route={route}",
            "--set",
            "calibrate.method=zero",
        ]
        command += ["--set", "subtract_zlp.windows_mev=[[5000, 8000], [70000, 90000]]", "--set"]
        command += ["subtract_zlp.output_window_mev=[5000, 90000]", "--set", "deconvolve.psf_half_width_mev=4000"]
        if route == "classic":
            # The example's window begins on the gain side of the zero-loss peak, which this route has taken away.
            command += ["--set", "fit_peaks.window_mev=[6000, 75000]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "assign_layers: skipped: " in done.stderr
        assert (tmp_path / route / "scan" / "report" / "report.html").is_file()
