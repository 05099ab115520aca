"""The table of datasets, and what the workflow makes of it and of its configuration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from phonon_eels.errors import ConfigError, InputFileError
from phonon_eels.pipeline import read_datasets, run
from phonon_eels.pipeline.workflow import Workflow
from tests.unit.fake_steps import FakeSteps, replace_steps  # noqa: F401 (a fixture)

HEADER = "dataset\tpath\thaadf\tgroup\tnote\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "datasets.tsv"
    path.write_text(HEADER + "# a remark\none\tdata/one.hspy\t\tfilm\tfirst try\n\ntwo\tdata/two.dm4\tdata/two.tif\n")
    return path


def test_rows(table: Path) -> None:
    one, two = read_datasets(table)
    assert (one.name, one.path, one.haadf, one.group, one.note) == (
        "one",
        Path("data/one.hspy"),
        None,
        "film",
        "first try",
    )
    assert (two.name, two.haadf, two.group) == ("two", Path("data/two.tif"), "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no dataset"),
        ("dataset,path\na,b\n", r"columns are .*allowed are dataset, path.*tabs"),
        (HEADER + "one\n", r"datasets\.tsv:2: a row needs a dataset and a path"),
        (HEADER + "one\ta.hspy\nmy scan\tb.hspy\n", r"datasets\.tsv:3: .*my scan.*for example --dataset my_scan"),
        (HEADER + "../up\ta.hspy\n", "cannot name a folder"),
        (HEADER + "one\ta.hspy\nOne\tb.hspy\n", "dataset One occurs twice"),
    ],
)
def test_broken_table(table: Path, text: str, message: str) -> None:
    table.write_text(text)
    with pytest.raises((InputFileError, ConfigError), match=message):
        read_datasets(table)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.tsv: the table of datasets cannot be read"):
        read_datasets(tmp_path / "gone.tsv")


class TestWorkflow:
    def test_inputs_follow_the_route(self, table: Path) -> None:
        forward = Workflow.from_config({"datasets": table, "results": "r", "route": "forward"})
        classic = Workflow.from_config({"datasets": table, "results": "r", "route": "classic"})
        assert forward.inputs("fit_peaks") == [
            "r/{dataset}/calibrate/summary.json",
            "r/{dataset}/register_frames/summary.json",
            "r/{dataset}/align_zlp/summary.json",
        ]
        assert classic.inputs("fit_peaks")[0] == "r/{dataset}/deconvolve/summary.json"
        assert forward.inputs("deconvolve") == []
        assert forward.inputs("ingest") == []
        assert forward.folder(SimpleNamespace(dataset="one")) == "r/one"

    def test_own_material_file_is_an_input_of_the_steps_that_use_it(self, table: Path) -> None:
        config = {"datasets": table, "results": "r", "settings": {"material": "mine.yaml"}}
        workflow = Workflow.from_config(config)
        assert "mine.yaml" in workflow.inputs("fit_peaks")
        assert "mine.yaml" not in workflow.inputs("remove_spikes")

    def test_missing_file_is_left_to_its_own_ingest(self, table: Path, tmp_path: Path) -> None:
        (tmp_path / "here.hspy").write_bytes(b"x")
        (tmp_path / "here.truth.json").write_text("{}")
        table.write_text(HEADER + f"one\t{tmp_path / 'here.hspy'}\ntwo\tgone.dm4\tgone.tif\n")
        workflow = Workflow.from_config({"datasets": table, "results": "r"})
        assert workflow.source("one") == [str(tmp_path / "here.hspy"), str(tmp_path / "here.truth.json")]
        assert workflow.source("two") == []
        assert workflow.file_options("two") == ["gone.dm4", "--haadf", "gone.tif"]

    def test_route_has_one_place(self, table: Path) -> None:
        with pytest.raises(ConfigError, match="key `route` of the workflow's own configuration"):
            Workflow.from_config({"datasets": table, "results": "r", "settings": {"route": "classic"}})

    def test_unknown_setting_names_the_nearest(self, table: Path) -> None:
        with pytest.raises(ConfigError, match=r"unknown key fit_peak; did you mean fit_peaks\?"):
            Workflow.from_config({"datasets": table, "results": "r", "settings": {"fit_peak": {}}})

    def test_failures_name_dataset_step_and_reason(self, table: Path, tmp_path: Path) -> None:
        workflow = Workflow.from_config({"datasets": table, "results": str(tmp_path / "r")})
        log = tmp_path / "r" / "two" / "logs" / "ingest.log"
        log.parent.mkdir(parents=True)
        log.write_text("ingest: starts\nerror: data/two.dm4: is not there\n")
        first, one, two = workflow.failures().splitlines()
        assert "not finished" in first
        assert one.split() == ["one:", "ingest:", "did", "not", "run"]
        assert two.strip() == "two: ingest: data/two.dm4: is not there"

    def test_finished_datasets_did_not_fail(self, table: Path, tmp_path: Path, fake_steps: FakeSteps) -> None:
        scan = tmp_path / "one.hspy"
        scan.write_bytes(b"spectra")
        workflow = Workflow.from_config({"datasets": table, "results": str(tmp_path / "r")})
        run(scan, tmp_path / "r", workflow.settings)
        assert [line.split()[0] for line in workflow.failures().splitlines()[1:]] == ["two:"]
        (tmp_path / "r" / "one" / "fit_peaks" / "summary.json").unlink()
        assert "one: fit_peaks: has to run again" in workflow.failures()
