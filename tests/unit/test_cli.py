"""The command line: exit codes, what goes to which stream, what options become."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from phonon_eels.cli import main
from phonon_eels.cli.options import settings_of
from phonon_eels.cli.parser import build_parser
from phonon_eels.config import STEP_NAMES, json_schema
from phonon_eels.config.planning import PlanSettings
from phonon_eels.errors import ConfigError, DataError, QualityError
from phonon_eels.pipeline.gather import gather_settings
from phonon_eels.spectrum_image import StepResult
from tests.unit.fake_steps import FakeSteps, replace_steps  # noqa: F401 (a fixture)


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the faked reader takes, in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scan.hspy"
    path.write_bytes(b"spectra")
    return path


def raising(problem: BaseException) -> Any:
    def run(*_: Any) -> StepResult:
        raise problem

    return run


class TestRun:
    def test_paths_on_stdout_words_on_stderr(
        self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", "scan.hspy", "--device", "cpu"]) == 0
        out, err = capsys.readouterr()
        paths = [Path(line) for line in out.splitlines()]
        assert [path for path in paths if not path.exists()] == []
        assert paths[-1] == Path("results/scan/summary.json")
        assert "fit_peaks: fit_peaks has something to say" in err
        assert "results/" not in err

    def test_quiet_says_nothing_but_paths(
        self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", "scan.hspy", "--quiet"]) == 0
        out, err = capsys.readouterr()
        assert out
        assert err == ""

    def test_options_reach_the_steps(self, scan: Path, fake_steps: FakeSteps) -> None:
        (scan.parent / "dark.npy").write_bytes(b"image")
        (scan.parent / "my.yaml").write_text("seed: 3\nfit_peaks: {background: linear, max_iterations: 9}\n")
        words = "run scan.hspy --output out --dataset a.b --config my.yaml --haadf dark.npy --threads 1 --set seed=4"
        assert main([*words.split(), "--set", "fit_peaks.background=exponential"]) == 0
        assert (scan.parent / "out" / "a.b" / "summary.json").is_file()
        settings = fake_steps.settings["fit_peaks"]
        assert (settings.background, settings.max_iterations) == ("exponential", 9)
        assert fake_steps.contexts["report"].seed == 4
        assert fake_steps.contexts["fit_peaks"].backend.threads == 1
        assert fake_steps.read[0][1]["haadf"] == (scan.parent / "dark.npy")

    def test_force(self, scan: Path, fake_steps: FakeSteps) -> None:
        main(["run", "scan.hspy"])
        fake_steps.since()
        main(["run", "scan.hspy"])
        assert fake_steps.since() == []
        main(["run", "scan.hspy", "--force"])
        assert "report" in fake_steps.since()

    def test_progress_bars_on_stderr_when_asked(
        self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def work(image: Any, settings: Any, context: Any) -> StepResult:
            for done in range(5):
                context.progress(done, 4)
            return StepResult(messages=("a [b] message",))

        fake_steps.instead["fit_peaks"] = work
        assert main(["run", "scan.hspy", "--progress"]) == 0
        out, err = capsys.readouterr()
        assert "fit_peaks" in err
        assert "fit_peaks: a [b] message" in err
        assert "\x1b" not in out

    def test_leaves_the_log_as_it_was(self, scan: Path, fake_steps: FakeSteps) -> None:
        logger = logging.getLogger("phonon_eels")
        before = (logger.level, list(logger.handlers))
        main(["run", "scan.hspy"])
        assert (logger.level, list(logger.handlers)) == before


class TestExitCodes:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["run", "gone.hspy"], "gone.hspy: the spectra file cannot be read"),
            (["run", "scan.hspy", "--set", "fit_peak.background=linear"], "did you mean fit_peaks?"),
            (["run", "scan.hspy", "--set", "seed"], "write it as key=value"),
            (["run", "scan.hspy", "--set", "seed=-1"], "seed = -1"),
            (["run", "scan.hspy", "--config", "gone.yaml"], "gone.yaml: cannot be read as a settings file"),
            (["run", "scan.hspy", "--recipe", "nobody"], "recipe = nobody: is not shipped"),
            (["run", "scan.hspy", "--settings", "{"], "--settings: is not JSON"),
            (["run", "scan.hspy", "--settings", "[]"], "--settings: must be one JSON object"),
            (["run", "scan.hspy", "--dataset", "../up"], "for example --dataset up"),
            (["run", "scan.hspy", "--dataset", "my scan"], "for example --dataset my_scan"),
            (["run", "scan.hspy", "--output", "scan.hspy"], "a file stands where a folder is needed"),
            (["run", "scan.hspy", "--output", "/proc/results"], "cannot write /proc/results/scan"),
            (["run", "scan.hspy", "--device", "cuda"], "--device cpu"),
            (["run", "scan.hspy", "--set", "material=unobtainium"], "is not shipped; use one of bi2212"),
            (
                ["fit_peaks", "--dataset-folder", "results/scan"],
                "phonon-eels ingest FILE --dataset-folder results/scan",
            ),
            (["simulate"], "give either the FILE to write, or --sample DIR"),
        ],
    )
    def test_bad_input_is_one_line_and_2(
        self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str], words: list[str], message: str
    ) -> None:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert message in lines[0]
        assert "Traceback" not in err
        assert not list(scan.parent.glob("results/*/*/summary.json"))

    def test_quality_failure_is_3(self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str]) -> None:
        fake_steps.instead["ingest"] = raising(QualityError("the scan is saturated;\nlower the dose"))
        assert main(["run", "scan.hspy"]) == 3
        assert capsys.readouterr().err.splitlines()[-1] == "error: scan.hspy: the scan is saturated; lower the dose"

    def test_ctrl_c_is_130_and_the_next_run_goes_on(
        self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake_steps.instead["align_zlp"] = raising(KeyboardInterrupt())
        assert main(["run", "scan.hspy"]) == 130
        assert "stopped: finished steps are kept" in capsys.readouterr().err
        assert not list(Path("results/scan").glob(".*.tmp-*"))
        fake_steps.instead.clear()
        fake_steps.since()
        assert main(["run", "scan.hspy"]) == 0
        assert fake_steps.since()[0] == "align_zlp"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_signal_that_python_forgets_ends_it(
        self, scan: Path, fake_steps: FakeSteps, number: signal.Signals
    ) -> None:
        """An import is full of such callbacks: what a handler raises in one of them is printed and the work goes on."""

        class Something:
            pass

        def during_an_import(*_: Any) -> StepResult:
            thing = Something()
            reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
            del thing
            assert reference() is None
            return StepResult()

        fake_steps.instead["align_zlp"] = during_an_import
        # A shell that starts the tests in the background lets them ignore Ctrl-C.
        before = signal.signal(number, signal.default_int_handler)
        code = 0
        try:
            code = main(["run", "scan.hspy"])
        except SystemExit as left:
            code = left.code
        finally:
            signal.signal(number, before)
        assert code == 128 + number
        assert (Path("results/scan/align_zlp")).exists()
        assert not [step for step in fake_steps.since() if step == "subtract_zlp"]
        assert not Path("results/scan/report").exists()

    def test_sigterm_is_143_and_tidy(self, scan: Path, fake_steps: FakeSteps) -> None:
        def terminate(*_: Any) -> StepResult:
            os.kill(os.getpid(), signal.SIGTERM)
            return StepResult()

        before = signal.getsignal(signal.SIGTERM)
        fake_steps.instead["align_zlp"] = terminate
        with pytest.raises(SystemExit, match="143"):
            main(["run", "scan.hspy"])
        assert signal.getsignal(signal.SIGTERM) is before
        assert not Path("results/scan/align_zlp").exists()
        assert not list(Path("results/scan").glob(".*.tmp-*"))

    def test_debug_shows_where(self, scan: Path, fake_steps: FakeSteps) -> None:
        fake_steps.instead["ingest"] = raising(DataError("odd"))
        with pytest.raises(DataError, match="odd"):
            main(["run", "scan.hspy", "--debug"])

    def test_a_defect_is_not_dressed_up_as_bad_input(self, scan: Path, fake_steps: FakeSteps) -> None:
        fake_steps.instead["ingest"] = raising(ZeroDivisionError("ours"))
        with pytest.raises(ZeroDivisionError, match="ours"):
            main(["run", "scan.hspy"])

    @pytest.mark.parametrize(
        "words", [[], ["walk"], ["run"], ["run", "x", "--threads", "0"], ["run", "x", "--dev", "cpu"]]
    )
    def test_wrong_words_are_2(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "usage: phonon-eels" in capsys.readouterr().err


class TestCommands:
    def test_every_step_is_a_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        words = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")}
        assert {"run", "inspect", "simulate", "schema", *STEP_NAMES} <= words

    @pytest.mark.parametrize("name", ["run", "inspect", "simulate", "schema", *STEP_NAMES])
    def test_help_of_each(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert f"usage: phonon-eels {name}" in capsys.readouterr().out

    def test_one_step_as_the_workflow_calls_it(
        self, scan: Path, fake_steps: FakeSteps, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = json.dumps({"ingest": {"quality": "warn"}, "acquisition": {"gain": 8}})
        assert main(["ingest", "scan.hspy", "--dataset-folder", "results/x", "--settings", settings]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "results/x/ingest/summary.json"
        assert fake_steps.settings["ingest"].quality == "warn"
        assert fake_steps.contexts["ingest"].acquisition_settings["gain"] == 8
        assert main(["register_frames", "--dataset-folder", "results/x"]) == 0
        assert fake_steps.since() == ["ingest", "register_frames"]

    def test_schema_is_the_schema(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["schema"]) == 0
        assert capsys.readouterr().out == json_schema()
        assert main(["schema", "--plan"]) == 0
        assert capsys.readouterr().out == json_schema(PlanSettings)

    def test_output_cut_off_is_no_error(self) -> None:
        done = subprocess.run(
            f"{sys.executable} -m phonon_eels schema | head -n 1; exit ${{PIPESTATUS[0]}}",
            shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


class TestSimulateAndInspect:
    SMALL = ("--set", "scan.rows=12", "--set", "scan.columns=4", "--quiet")

    def test_one_makes_what_the_other_describes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["simulate", "made.hspy", *self.SMALL]) == 0
        assert capsys.readouterr().out.splitlines() == ["made.hspy", "made.truth.json", "made.truth.nc"]
        assert main(["inspect", "made.hspy"]) == 0
        text = capsys.readouterr().out
        assert "12 rows × 4 columns" in text
        assert main(["inspect", "made.hspy", "--json", "--set", "acquisition.temperature_k=77"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["signals"][0]["spectrum"]["acquisition"]["temperature_k"] == 77

    def test_inspect_writes_a_picture_of_every_check(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["simulate", "made.hspy", *self.SMALL]) == 0
        capsys.readouterr()
        assert main(["inspect", "made.hspy", "--json", "--pictures", "seen"]) == 0
        found = json.loads(capsys.readouterr().out)
        names = [f"made-0-{kind}.{ending}" for kind in ("quality", "checks") for ending in ("png", "svg")]
        assert [Path(path).name for path in found["pictures"]] == names
        checks = found["signals"][0]["spectrum"]["quality"]
        assert {"axis_order", "fixed_pattern", "dispersion"} <= {check["check"] for check in checks}
        drawn = (tmp_path / "seen" / "made-0-checks.svg").read_text(encoding="utf-8")
        for check in checks:
            assert f"{check['check'].removesuffix('_e').replace('_', ' ')}: {check['verdict']}" in drawn
        (tmp_path / "file").touch()
        assert main(["inspect", "made.hspy", "--pictures", "file"]) == 2
        assert "file" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["inspect", "gone.hspy"], "gone.hspy"),
            (["inspect", "gone.hspy", "--set", "acquisition.beam=60"], "unknown key acquisition.beam"),
            (["simulate", "made.txt", *SMALL], "made.txt: a simulation is written as .hspy or .zspy"),
            (["simulate", "made.hspy", "--set", "scan.row=4"], "did you mean rows?"),
            (["simulate", "made.hspy", "--material", "nothing"], "is not shipped"),
            (["simulate", "--sample", "d", "--set", "seed=4"], "leave --config and --set out"),
        ],
    )
    def test_bad_input(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        words: list[str], message: str,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        assert main(words) == 2
        assert message in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


class TestSettings:
    def test_later_sources_win_key_by_key(self, tmp_path: Path) -> None:
        config = tmp_path / "c.yaml"
        config.write_text("fit_peaks: {background: linear, max_iterations: 9}\nseed: 1\n")
        words = ["run", "x", "--config", str(config), "--settings", '{"seed": 2, "fit_peaks": {"gain_side": false}}']
        settings = settings_of(build_parser().parse_args([*words, "--set", "fit_peaks.max_iterations=7"]))
        fit = settings.fit_peaks
        assert (fit.background, fit.gain_side, fit.max_iterations, settings.seed) == ("linear", False, 7, 2)

    def test_material_counts_from_the_config_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        (tmp_path / "c.yaml").write_text("material: mine.yaml\n")
        assert gather_settings(file=Path("../c.yaml")).material == "../mine.yaml"
        assert gather_settings(file=Path("../c.yaml"), overrides=["material=own.yaml"]).material == "own.yaml"
        (tmp_path / "c.yaml").write_text("material: bi2212\n")
        assert gather_settings(file=Path("../c.yaml")).material == "bi2212"

    def test_configuration_of_the_workflow_is_a_file_of_settings_too(self, tmp_path: Path) -> None:
        """What *copy as config.yaml* of the viewer gives runs without the workflow, as within it."""
        config = tmp_path / "config.yaml"
        config.write_text("results: elsewhere\nroute: classic\nsettings:\n  fit_peaks: {background: linear}\n")
        settings = settings_of(build_parser().parse_args(["run", "x", "--config", str(config), "--set", "seed=5"]))
        assert (settings.route, settings.fit_peaks.background, settings.seed) == ("classic", "linear", 5)
        config.write_text("recipe: pku2021\nroute: null\nsettings: null\n")
        assert gather_settings(file=config) == gather_settings("pku2021")
        config.write_text("settings: {route: classic}\n")
        with pytest.raises(ConfigError, match="the route is the key `route` beside `settings`"):
            gather_settings(file=config)
        config.write_text("settings: 3\n")
        with pytest.raises(ConfigError, match="settings: must hold `key: value` lines, got a int"):
            gather_settings(file=config)

    def test_error_names_the_file(self, tmp_path: Path) -> None:
        config = tmp_path / "c.yaml"
        config.write_text("align_zlp: {line_shap: gaussian}\n")
        with pytest.raises(ConfigError, match=r"c\.yaml: unknown key align_zlp\.line_shap; did you mean line_shape\?"):
            gather_settings(file=config)
