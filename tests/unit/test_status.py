"""What the morning shows: every dataset, why it failed, what retries it; and what two writers can do to each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.cli import main
from phonon_eels.config import load_settings
from phonon_eels.errors import DataError, InputFileError, OutputError
from phonon_eels.io.atomic import staged
from phonon_eels.pipeline import read_datasets, run
from phonon_eels.pipeline.datasets import Dataset, append_dataset, read_rows
from phonon_eels.pipeline.index_page import as_text, duration, write_index
from phonon_eels.pipeline.lock import lock_dataset, lock_step
from phonon_eels.pipeline.record import LOGS, read_record, recorded
from phonon_eels.pipeline.resources import ScanSize, memory_mb, runtime_min, scan_size
from phonon_eels.pipeline.status import collect_status
from phonon_eels.pipeline.workflow import Workflow
from phonon_eels.spectrum_image import StepResult
from tests.unit.fake_steps import FakeSteps, replace_steps  # noqa: F401 (a fixture)

BACKEND = CpuBackend(1)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.hspy"
    path.write_bytes(b"spectra")
    return path


def go(scan: Path, name: str = "scan") -> None:
    run(scan, scan.parent / "results", load_settings(), dataset=name, backend=BACKEND)


def fail(*_: object) -> StepResult:
    raise DataError("the <b>lens</b> was off; switch it on")


class Rows(HTMLParser):
    """Text of every table cell, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1] += data


class TestRecord:
    def test_success_keeps_its_time_when_nothing_has_to_be_done(self, scan: Path, fake_steps: FakeSteps) -> None:
        go(scan)
        folder = scan.parent / "results" / "scan"
        first = read_record(folder, "fit_peaks")
        assert (first["state"], first["reason"]) == ("done", None)
        assert first["seconds"] >= 0.0
        assert first["peak_mb"] > 10
        go(scan)
        assert read_record(folder, "fit_peaks") == first

    def test_failure_says_why_and_goes_when_it_is_mended(self, scan: Path, fake_steps: FakeSteps) -> None:
        fake_steps.instead["align_zlp"] = fail
        with pytest.raises(DataError, match="lens"):
            go(scan)
        folder = scan.parent / "results" / "scan"
        assert read_record(folder, "align_zlp")["reason"] == "the <b>lens</b> was off; switch it on"
        assert (
            (folder / LOGS / "align_zlp.log")
            .read_text("utf-8")
            .endswith("error: the <b>lens</b> was off; switch it on\n")
        )
        assert "done" in (folder / LOGS / "ingest.log").read_text("utf-8")
        del fake_steps.instead["align_zlp"]
        go(scan)
        assert read_record(folder, "align_zlp")["state"] == "done"

    @pytest.mark.parametrize(("problem", "state"), [(KeyboardInterrupt, "stopped"), (ZeroDivisionError, "failed")])
    def test_other_ends(self, tmp_path: Path, problem: type[BaseException], state: str) -> None:
        with pytest.raises(problem, match="enough"), recorded(tmp_path, "ingest", with_log=False):
            raise problem("enough")
        assert read_record(tmp_path, "ingest")["state"] == state

    def test_a_lost_attempt_does_not_overwrite_what_the_newer_one_says(self, tmp_path: Path) -> None:
        def overtaken() -> None:
            newer = {**read_record(tmp_path, "ingest"), "process": 1, "state": "done"}
            (tmp_path / LOGS / "ingest.json").write_text(json.dumps(newer))
            raise OutputError("overtaken")

        with pytest.raises(OutputError, match="overtaken"), recorded(tmp_path, "ingest", with_log=False):
            overtaken()
        assert read_record(tmp_path, "ingest")["state"] == "done"


class TestStatus:
    def test_failed_ones_come_first_with_reason_and_command(self, scan: Path, fake_steps: FakeSteps) -> None:
        go(scan, "a_good_one")
        fake_steps.instead["fit_peaks"] = fail
        with pytest.raises(DataError, match="lens"):
            go(scan, "z_bad_one")
        rows = collect_status(scan.parent / "results")
        assert [(row.name, row.state) for row in rows] == [("z_bad_one", "failed"), ("a_good_one", "warned")]
        assert rows[0].step == "fit_peaks"
        assert rows[0].reason == "the <b>lens</b> was off; switch it on"
        assert rows[0].command
        text = as_text(rows)
        assert text.splitlines()[0].startswith("failed   z_bad_one")
        assert f"retry: {rows[0].command}" in text
        assert text.splitlines()[-1] == "1 failed, 1 finished, with warnings"

    def test_a_killed_step_is_named(self, tmp_path: Path) -> None:
        # A process that ends without a word leaves "running" behind.
        program = f"""
import os
from pathlib import Path
from phonon_eels.pipeline.record import recorded
with recorded(Path({str(tmp_path / "r" / "scan")!r}), "fit_peaks", with_log=False):
    os._exit(9)
"""
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
        (row,) = collect_status(tmp_path / "r")
        assert (row.state, row.step) == ("failed", "fit_peaks")
        assert "was killed" in row.reason

    def test_a_running_step_is_running_until_all_has_ended(self, tmp_path: Path) -> None:
        with recorded(tmp_path / "r" / "scan", "fit_peaks", with_log=False):
            assert collect_status(tmp_path / "r")[0].state == "running"
            assert collect_status(tmp_path / "r", ended=True)[0].state == "failed"

    def test_a_dataset_without_folder_waits_or_tells_its_log(self, tmp_path: Path) -> None:
        table = [Dataset("one", Path("one.hspy")), Dataset("two", Path("two.hspy"), Path("two.tif"))]
        (tmp_path / "two" / LOGS).mkdir(parents=True)
        (tmp_path / "two" / LOGS / "run.log").write_text("device auto\nerror: two.hspy does not exist\n")
        two, one = collect_status(tmp_path, table)
        assert (one.name, one.state) == ("one", "waiting")
        assert (two.state, two.reason) == ("failed", "two.hspy does not exist")
        assert two.command == f"phonon-eels run two.hspy --output {tmp_path} --dataset two --haadf two.tif"

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputFileError, match="is no folder of results; run `phonon-eels run"):
            collect_status(tmp_path / "gone")

    def test_command(self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str]) -> None:
        go(scan)
        results = str(scan.parent / "results")
        assert main(["status", results]) == 0
        assert "1 finished, with warnings" in capsys.readouterr().out
        fake_steps.instead["align_zlp"] = fail
        with pytest.raises(DataError, match="lens"):
            go(scan, "other")
        assert main(["status", results]) == 2
        assert "failed   other" in capsys.readouterr().out


class TestPage:
    def test_one_file_with_every_row_escaped(self, scan: Path, fake_steps: FakeSteps) -> None:
        go(scan)
        fake_steps.instead["align_zlp"] = fail
        with pytest.raises(DataError, match="lens"):
            go(scan, "bad")
        page = Rows((scan.parent / "results" / "index.html").read_text("utf-8"))
        assert len(page.rows) == 3
        assert "the <b>lens</b> was off" in page.rows[1]
        assert "b" not in page.tags
        assert not [source for source in page.sources if source.startswith(("http", "/"))]

    def test_picture_energies_modulation(self, tmp_path: Path) -> None:
        folder = tmp_path / "scan"
        (folder / LOGS).mkdir(parents=True)
        (folder / "report").mkdir()
        (folder / "report" / "report.html").write_text("a report")
        (folder / "thumbnail.png").write_bytes(b"a picture")
        summary = {
            "schema_version": 1,
            "primary": {"mode": "CuO78", "amplitude_mev": {"value": 0.9931, "std": 0.0123}, "p_value": 2.4e-7},
            "modes": [{"mode": "CuO78", "energy_mev": 78.2941, "energy_mev_std": 0.0084}],
            "quality": [{"verdict": "pass"}, {"verdict": "warn", "sentence": "<much> drift"}],
            "steps": {"measure_modulation": {"summary": {"verdict": "claim"}, "messages": [], "skipped": None}},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        write_index(tmp_path, collect_status(tmp_path))
        page = Rows((tmp_path / "index.html").read_text("utf-8"))
        assert "78.2941 ± 0.0084" in page.rows[1]
        assert "modulation of CuO78: 0.993 ± 0.012 meV, p = 2.4e-07 (claim)" in page.rows[1]
        assert "<much> drift" in page.rows[1]
        assert "report/report.html" in str(page.sources)
        assert any(source.startswith("data:image/png;base64,") for source in page.sources)

    def test_numbers(self) -> None:
        assert [duration(seconds) for seconds in (4.4, 61.0, 7300.0)] == ["4 s", "1 min 01 s", "2 h 01 min"]


class TestTwoWriters:
    def test_a_newer_attempt_keeps_the_older_out(self, tmp_path: Path) -> None:
        folder = tmp_path / "scan"
        with lock_dataset(folder) as old:
            old.check("ingest")
            with lock_dataset(folder, take_over=True) as new:
                new.check("ingest")
                with pytest.raises(OutputError, match=r"a newer attempt has taken over .*process"):
                    old.check("ingest")

    def test_without_taking_over_the_second_is_refused(self, tmp_path: Path) -> None:
        with (
            lock_dataset(tmp_path / "scan"),
            pytest.raises(OutputError, match=r"another phonon-eels writes there.*--take-over"),
            lock_dataset(tmp_path / "scan"),
        ):
            pass

    def test_a_step_of_its_own_keeps_a_lost_run_out_of_that_step_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "scan"
        with lock_dataset(folder) as run_fence, lock_step(folder, "fit_peaks", take_over=True) as step_fence:
            step_fence.check("fit_peaks")
            run_fence.check("align_zlp")
            with pytest.raises(OutputError, match="newer attempt"):
                run_fence.check("fit_peaks")

    def test_the_lost_one_leaves_no_result(self, scan: Path, fake_steps: FakeSteps) -> None:
        """A second attempt takes over while the first computes: the first says so, stops and leaves its result out."""
        folder = scan.parent / "results" / "scan"

        def overtaken(*_: object) -> StepResult:
            with lock_dataset(folder, take_over=True):
                return StepResult(summary={"answer": "of the lost one"})

        fake_steps.instead["align_zlp"] = overtaken
        with pytest.raises(OutputError, match="newer attempt"):
            go(scan)
        assert not (folder / "align_zlp").exists()
        assert not list(folder.glob(".*.tmp-*"))
        del fake_steps.instead["align_zlp"]
        fake_steps.since()
        go(scan)
        assert fake_steps.since()[0] == "align_zlp"

    def test_inputs_replaced_while_they_are_read(self, scan: Path, fake_steps: FakeSteps) -> None:
        folder = scan.parent / "results" / "scan"

        def replaced(*_: object) -> StepResult:
            os.rename(folder / "calibrate", folder / "old")
            (folder / "calibrate").mkdir()
            (folder / "calibrate" / "summary.json").write_bytes((folder / "old" / "summary.json").read_bytes())
            return StepResult()

        fake_steps.instead["fit_peaks"] = replaced
        with pytest.raises(OutputError, match="results that it reads were replaced meanwhile"):
            go(scan)
        assert not (folder / "fit_peaks").exists()

    def test_exchange_at_the_same_time(self, tmp_path: Path) -> None:
        """Two processes exchange one folder again and again: it is always whole, never missing at the end."""
        program = """
import os, sys
from pathlib import Path
from phonon_eels.io.atomic import staged
for number in range(60):
    with staged(Path(sys.argv[1])) as temporary:
        (temporary / "one").write_text(f"{os.getpid()} {number}")
        (temporary / "two").write_text(f"{os.getpid()} {number}")
"""
        writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "step")]) for _ in range(2)]
        assert [writer.wait(120) for writer in writers] == [0, 0]
        assert (tmp_path / "step" / "one").read_text() == (tmp_path / "step" / "two").read_text()
        assert {path.name for path in tmp_path.iterdir()} == {"step"}

    def test_check_comes_before_the_exchange(self, tmp_path: Path) -> None:
        (tmp_path / "step").mkdir()
        (tmp_path / "step" / "file").write_text("old")

        def refuse() -> None:
            raise OutputError("not any more")

        with pytest.raises(OutputError, match="not any more"), staged(tmp_path / "step", refuse) as temporary:
            (temporary / "file").write_text("new")
        assert (tmp_path / "step" / "file").read_text() == "old"


class TestTable:
    def test_bad_rows_cost_the_others_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "datasets.tsv"
        path.write_text("# schema_version: 1\ndataset\tpath\none\ta.hspy\nONE\tb.hspy\n../up\tc.hspy\ntwo\n")
        one, twin, up, two = read_rows(path)
        assert one.refusal is None
        assert (twin.name, up.name, two.name) == ("ONE.line4", "_up.line5", "two.line6")
        assert "datasets.tsv:4: dataset ONE occurs twice" in str(twin.refusal)
        assert "cannot name a folder" in str(up.refusal)
        assert "needs a dataset and a path" in str(two.refusal)
        workflow = Workflow.from_config({"datasets": str(path), "results": str(tmp_path / "r")})
        assert workflow.file_options("ONE.line4") == ["b.hspy", "--refused", twin.refusal]

    def test_newer_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "t.tsv").write_text("# schema_version: 7\ndataset\tpath\n")
        with pytest.raises(InputFileError, match="table of version 7, this program reads 1"):
            read_rows(tmp_path / "t.tsv")

    def test_append(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tsv"
        append_dataset(path, Dataset("one", Path("a.hspy"), note="two\twords"))
        append_dataset(path, Dataset("two", Path("b.dm4"), Path("b.tif")))
        assert [(row.name, row.haadf, row.note) for row in read_datasets(path)] == [
            ("one", None, "two words"),
            ("two", Path("b.tif"), ""),
        ]
        assert path.read_text().startswith("# schema_version: 1\n")

    def test_refused_row_is_a_failure_of_its_own(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["run", "b.hspy", "--output", str(tmp_path), "--dataset", "one.line4", "--refused", "one occurs twice"]
        assert main(words) == 2
        assert "error: one occurs twice" in capsys.readouterr().err
        (row,) = collect_status(tmp_path)
        assert (row.state, row.reason) == ("failed", "one occurs twice")


class TestResources:
    def test_size_of_a_scan(self, repository: Path, tmp_path: Path) -> None:
        assert scan_size(repository / "sample_data" / "bi2212_null.hspy") == ScanSize(7168, 352)
        assert scan_size(tmp_path / "gone.hspy").positions == 1
        (tmp_path / "x.dm4").write_bytes(bytes(1_000_000))
        assert scan_size(tmp_path / "x.dm4").positions == pytest.approx(1_000_000 / 1024, abs=1)

    def test_grow_with_positions_threads_and_attempts(self) -> None:
        small, large = ScanSize(1_000, 512), ScanSize(10_000_000, 512)
        assert memory_mb(small, None, 1) < memory_mb(small, None, 8) < memory_mb(large, None, 8)
        assert memory_mb(small, None, 1) == max(
            memory_mb(small, step, 1) for step in ("report", "denoise", "fit_peaks")
        )
        assert runtime_min(large, "fit_peaks", 1) > 3 * runtime_min(large, "fit_peaks", 4)
        # 256 × 256 × 1024 was measured at 1,080 MB with two threads.
        assert 1_080 < memory_mb(ScanSize(256 * 256, 1024), None, 2) < 2_500

    def test_workflow_asks_for_more_after_a_failure_and_for_gpus(self, tmp_path: Path) -> None:
        (tmp_path / "t.tsv").write_text("dataset\tpath\none\ta.hspy\n")
        config = {"datasets": str(tmp_path / "t.tsv"), "results": "r"}
        workflow = Workflow.from_config(config)
        assert not workflow.gpu
        wildcards = type("Wildcards", (), {"dataset": "one"})()
        first, second = (workflow.memory_mb("fit_peaks")(wildcards, attempt, 1) for attempt in (1, 2))
        assert second == 2 * first
        workflow = Workflow.from_config({**config, "device": "cuda", "gpu_gres": "gpu:a100:1", "gpu_partition": "fast"})
        assert workflow.gpu == {"gres": "gpu:a100:1", "slurm_partition": "fast"}


def test_thumbnail(tmp_path: Path) -> None:
    from matplotlib.image import imread

    from phonon_eels.figures.thumbnail import save_thumbnail

    values = np.full((10, 20), np.nan)
    values[:, 10:] = 1.0
    values[0, 10:] = 0.0
    save_thumbnail(values, tmp_path / "t.png", height_per_width=0.5, pixels=40)
    picture = imread(tmp_path / "t.png")
    assert picture.shape[:2] == (20, 40)
    assert picture[-1, 0, 0] == picture[0, 30, 0] == 0.0
    assert picture[5, 30, 0] == 1.0
