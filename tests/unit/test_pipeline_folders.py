"""Names of datasets, folders that cannot be, and two processes that want the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.errors import InputFileError, OutputError
from phonon_eels.pipeline import check_dataset_name, run
from phonon_eels.pipeline.lock import lock_dataset, lock_step
from tests.unit.fake_steps import FakeSteps, replace_steps  # noqa: F401 (a fixture)

BACKEND = CpuBackend(1)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A file that the faked reader takes."""
    path = tmp_path / "in" / "scan.hspy"
    path.parent.mkdir()
    path.write_bytes(b"spectra")
    return path


class TestNamesAndFolders:
    @pytest.mark.parametrize("name", ["a", "scan-1", "2024_05.b", "A.", "x" * 100])
    def test_good_names(self, name: str) -> None:
        assert check_dataset_name(name) == name

    @pytest.mark.parametrize(
        ("name", "proposal"),
        [
            ("my scan", "my_scan"),
            ("../up", "up"),
            ("a/b", "a_b"),
            (".hidden", "hidden"),
            ("a..b", r"a\.b"),
            ("", "scan"),
            ("ä ö", "scan"),
            ("new\nline", "new_line"),
            ("y" * 101, "y" * 100),
        ],
    )
    def test_bad_names_get_a_proposal_that_is_good(self, name: str, proposal: str) -> None:
        with pytest.raises(OutputError, match=f"--dataset {proposal}$"):
            check_dataset_name(name)
        check_dataset_name(proposal.replace("\\", ""))

    def test_a_bad_name_leaves_nothing(self, scan: Path, fake_steps: FakeSteps) -> None:
        output = scan.parent.parent / "results"
        with pytest.raises(OutputError, match="cannot name a folder"):
            run(scan, output, dataset="../elsewhere", backend=BACKEND)
        assert not output.exists()
        assert not (output.parent / "elsewhere").exists()

    def test_a_missing_file_leaves_nothing(self, tmp_path: Path, fake_steps: FakeSteps) -> None:
        with pytest.raises(InputFileError, match=r"gone\.hspy: the spectra file cannot be read"):
            run(tmp_path / "gone.hspy", tmp_path / "results", backend=BACKEND)
        assert not (tmp_path / "results").exists()

    def test_results_folder_that_is_a_file(self, scan: Path, fake_steps: FakeSteps, tmp_path: Path) -> None:
        (tmp_path / "results").write_text("I am a file")
        with pytest.raises(OutputError, match="a file stands where a folder is needed"):
            run(scan, tmp_path / "results", backend=BACKEND)

    def test_another_file_under_the_same_name_is_refused(
        self, scan: Path, fake_steps: FakeSteps, tmp_path: Path
    ) -> None:
        run(scan, tmp_path / "results", backend=BACKEND)
        other = tmp_path / "other" / "scan.hspy"
        other.parent.mkdir()
        other.write_bytes(b"something else")
        with pytest.raises(OutputError, match=r"results of another file.*--dataset.*--force"):
            run(other, tmp_path / "results", backend=BACKEND)
        fake_steps.since()
        run(other, tmp_path / "results", backend=BACKEND, force=True)
        assert fake_steps.since()[0] == "ingest"


class TestLocks:
    def test_two_runs_of_one_dataset(self, tmp_path: Path) -> None:
        with (
            lock_dataset(tmp_path / "x"),
            pytest.raises(OutputError, match=r"another phonon-eels writes there \(process \d+ on"),
            lock_dataset(tmp_path / "x"),
        ):
            pass
        with lock_dataset(tmp_path / "x"):
            pass

    def test_a_step_during_a_run_and_a_run_during_a_step(self, tmp_path: Path) -> None:
        with (
            lock_dataset(tmp_path / "x"),
            pytest.raises(OutputError, match="another phonon-eels writes there"),
            lock_step(tmp_path / "x", "report"),
        ):
            pass
        with (
            lock_step(tmp_path / "x", "report"),
            pytest.raises(OutputError, match="another phonon-eels writes there"),
            lock_dataset(tmp_path / "x"),
        ):
            pass

    def test_steps_beside_each_other(self, tmp_path: Path) -> None:
        with lock_step(tmp_path / "x", "fit_peaks"), lock_step(tmp_path / "x", "assign_layers"):
            pass
        with (
            lock_step(tmp_path / "x", "fit_peaks"),
            pytest.raises(OutputError, match="another phonon-eels writes there"),
            lock_step(tmp_path / "x", "fit_peaks"),
        ):
            pass
