"""Joining steps: order, what a step is given, staleness, folders that are whole or not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import Settings, load_settings
from phonon_eels.errors import ConfigError, DataError, InputFileError
from phonon_eels.io.results import read_summary
from phonon_eels.pipeline import run, run_step, step_parameters, unfinished_step
from phonon_eels.provenance import array_digest
from phonon_eels.spectrum_image import StepResult
from phonon_eels.steps.registry import steps_of_route
from tests.unit.fake_steps import FakeSteps, replace_steps, small_image  # noqa: F401 (a fixture)

FORWARD = [
    *("ingest", "register_frames", "remove_spikes", "align_zlp", "calibrate", "fit_peaks"),
    *("assign_layers", "map_superstructure", "measure_modulation", "report"),
]
BACKEND = CpuBackend(1)
EVERYTHING_ON = ("calibrate.method=zero", "denoise.method=pca")
"""Steps that are off by default would not be called."""
ALL_ON = load_settings(overrides=EVERYTHING_ON)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A file that the faked reader takes."""
    path = tmp_path / "in" / "scan.hspy"
    path.parent.mkdir()
    path.write_bytes(b"spectra")
    return path


def go(scan: Path, *overrides: str, **options: Any) -> Path:
    """Run all steps; return the folder of the dataset."""
    output = scan.parent.parent / "results"
    run(scan, output, load_settings(overrides=[*EVERYTHING_ON, *overrides]), backend=BACKEND, **options)
    return output / "scan"


class TestRun:
    def test_runs_the_steps_of_the_route_in_order(self, scan: Path, fake_steps: FakeSteps) -> None:
        folder = go(scan)
        assert fake_steps.since() == FORWARD
        go(scan, "route=classic", force=True)
        assert fake_steps.since() == [entry.name for entry in steps_of_route("classic")]
        assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
            *(entry.name for entry in steps_of_route("classic")),
            "summary.json",
            "logs",
        }

    def test_overview_holds_every_step_and_the_primary_result(self, scan: Path, fake_steps: FakeSteps) -> None:
        primary = {"amplitude_mev": {"value": 1.0, "std": 0.2, "unit": "meV", "status": "ok"}, "p_value": 0.01}
        fake_steps.instead["measure_modulation"] = lambda *_: StepResult(summary={"primary": primary, "claim": True})
        fake_steps.instead["assign_layers"] = lambda *_: StepResult(skipped="there is no HAADF")
        overview = json.loads((go(scan) / "summary.json").read_text())
        assert list(overview["steps"]) == sorted(FORWARD)
        assert (overview["primary"], overview["claim"], overview["dataset"]) == (primary, True, "scan")
        assert overview["skipped"] == {"assign_layers": "there is no HAADF"}
        assert overview["steps"]["fit_peaks"]["messages"] == ["fit_peaks has something to say"]

    def test_second_run_does_nothing_and_force_does_all(self, scan: Path, fake_steps: FakeSteps) -> None:
        first = array_digest(go(scan))
        fake_steps.since()
        assert array_digest(go(scan)) == first
        assert fake_steps.since() == []
        go(scan, force=True)
        assert fake_steps.since() == FORWARD

    def test_goes_on_where_a_failed_run_stopped(self, scan: Path, fake_steps: FakeSteps) -> None:
        def fail(*_: Any) -> StepResult:
            raise DataError("no zero-loss peak")

        fake_steps.instead["calibrate"] = fail
        with pytest.raises(DataError, match="no zero-loss peak"):
            go(scan)
        folder = scan.parent.parent / "results" / "scan"
        assert not (folder / "calibrate").exists()
        assert not (folder / "summary.json").exists()
        assert unfinished_step(folder, ALL_ON) == "calibrate"
        fake_steps.instead.clear()
        fake_steps.since()
        go(scan)
        assert fake_steps.since() == FORWARD[FORWARD.index("calibrate") :]
        assert unfinished_step(folder, ALL_ON) is None

    def test_failing_again_keeps_the_earlier_result_but_not_as_finished(
        self, scan: Path, fake_steps: FakeSteps
    ) -> None:
        folder = go(scan)

        def fail(*_: Any) -> StepResult:
            raise DataError("no peak")

        fake_steps.instead["fit_peaks"] = fail
        with pytest.raises(DataError, match="no peak"):
            go(scan, "fit_peaks.background=linear")
        assert (
            unfinished_step(folder, load_settings(overrides=[*EVERYTHING_ON, "fit_peaks.background=linear"]))
            == "fit_peaks"
        )
        assert not list(folder.glob(".*.tmp-*"))

    def test_paths_are_those_on_disk(self, scan: Path, fake_steps: FakeSteps) -> None:
        outcomes = run(scan, scan.parent.parent / "results", backend=BACKEND)
        for outcome in outcomes:
            assert all(path.exists() for path in outcome.paths)
            assert outcome.paths[-1].name == "summary.json"
        assert {path.name for path in outcomes[0].paths} == {"image.zspy", "source.json", "summary.json"}
        assert {path.name for path in outcomes[3].paths} == {"maps.nc", "sizes.csv", "summary.json"}
        assert outcomes[0].read().summary["answer"]["value"] == 42.0


CHANGES = [
    ("report.dpi=99", ["report"]),
    ("fit_peaks.background=linear", ["fit_peaks", "measure_modulation", "report"]),
    ("measure_modulation.phase_bins=12", ["measure_modulation", "report"]),
    ("map_superstructure.lowpass_periods=2", ["map_superstructure", "measure_modulation", "report"]),
    (
        "assign_layers.min_probability=0.6",
        ["assign_layers", "map_superstructure", "measure_modulation", "report"],
    ),
    ("calibrate.method=gain_loss", FORWARD[FORWARD.index("calibrate") :]),
    ("align_zlp.line_shape=gaussian", FORWARD[FORWARD.index("align_zlp") :]),
    ("ingest.quality=warn", FORWARD),
    ("acquisition.temperature_k=100", FORWARD),
    # Steps that the route does not run do not matter.
    ("deconvolve.iterations=3", []),
    ("denoise.components=3", []),
]


class TestStaleness:
    @pytest.mark.parametrize(("override", "expected"), CHANGES, ids=[change[0] for change in CHANGES])
    def test_a_setting_runs_again_only_what_depends_on_it(
        self, scan: Path, fake_steps: FakeSteps, override: str, expected: list[str]
    ) -> None:
        go(scan)
        fake_steps.since()
        go(scan, override)
        assert fake_steps.since() == expected

    def test_back_to_the_old_setting_runs_again_too(self, scan: Path, fake_steps: FakeSteps) -> None:
        go(scan)
        go(scan, "report.dpi=99")
        fake_steps.since()
        go(scan)
        assert fake_steps.since() == ["report"]

    def test_an_input_counts_by_content(self, scan: Path, fake_steps: FakeSteps) -> None:
        go(scan)
        fake_steps.since()
        content = scan.read_bytes()
        scan.write_bytes(content)
        go(scan)
        assert fake_steps.since() == []
        scan.write_bytes(b"other spectra")
        go(scan)
        assert fake_steps.since() == FORWARD

    def test_a_moved_input_is_the_same_input(self, scan: Path, fake_steps: FakeSteps) -> None:
        go(scan)
        fake_steps.since()
        moved = scan.rename(scan.parent.parent / "scan.hspy")
        run(moved, scan.parent.parent / "results", ALL_ON, backend=BACKEND)
        assert fake_steps.since() == []

    def test_a_material_file_counts_by_content(self, scan: Path, fake_steps: FakeSteps, tmp_path: Path) -> None:
        tree = {"name": "one", "modes": [{"name": "A", "energy_mev": 50, "bounds_mev": [40, 60], "fwhm_mev": 4}]}
        for name in ("first.yaml", "second.yaml"):
            (tmp_path / name).write_text(yaml.safe_dump(tree))
        go(scan, f"material={tmp_path / 'first.yaml'}")
        fake_steps.since()
        go(scan, f"material={tmp_path / 'second.yaml'}")
        assert fake_steps.since() == []
        tree["modes"][0]["fwhm_mev"] = 5  # type: ignore[index]
        (tmp_path / "second.yaml").write_text(yaml.safe_dump(tree))
        go(scan, f"material={tmp_path / 'second.yaml'}")
        assert "fit_peaks" in fake_steps.since()

    def test_a_removed_result_is_made_again_and_nothing_else(self, scan: Path, fake_steps: FakeSteps) -> None:
        folder = go(scan)
        fake_steps.since()
        shutil.rmtree(folder / "fit_peaks")
        go(scan)
        assert fake_steps.since() == ["fit_peaks"]

    def test_parameters_name_only_what_the_step_depends_on(self) -> None:
        base = Settings()
        changed = load_settings(overrides=["fit_peaks.background=linear", "route=classic"])
        assert step_parameters(base, "fit_peaks") != step_parameters(changed, "fit_peaks")
        assert step_parameters(base, "remove_spikes") == step_parameters(changed, "remove_spikes")
        assert "\n" not in step_parameters(base, "fit_peaks")
        assert set(json.loads(step_parameters(base, "align_zlp"))) == {"align_zlp", "route"}


class TestWhatAStepIsGiven:
    def test_nearest_earlier_image(self, scan: Path, fake_steps: FakeSteps) -> None:
        fake_steps.instead["remove_spikes"] = lambda *_: StepResult(image=small_image(7.0))
        go(scan)
        assert float(fake_steps.images["register_frames"].counts.max()) == 1.0
        assert float(fake_steps.images["fit_peaks"].counts.max()) == 7.0

    def test_image_of_a_step_outside_the_route_is_not_taken(self, scan: Path, fake_steps: FakeSteps) -> None:
        fake_steps.instead["deconvolve"] = lambda *_: StepResult(image=small_image(9.0))
        go(scan, "route=classic")
        assert float(fake_steps.images["fit_peaks"].counts.max()) == 9.0
        go(scan)
        assert float(fake_steps.images["fit_peaks"].counts.max()) == 1.0

    def test_only_what_it_declares(self, scan: Path, fake_steps: FakeSteps) -> None:
        go(scan, "seed=5", "route=classic", "acquisition.temperature_k=90")
        contexts = fake_steps.contexts
        fit, normalise, report = contexts["fit_peaks"], contexts["normalise"], contexts["report"]
        assert (normalise.seed, normalise.route, dict(normalise.acquisition_settings)) == (0, "forward", {})
        assert (fit.seed, fit.route, dict(fit.acquisition_settings)) == (0, "classic", {})
        assert (report.seed, report.route, report.acquisition_settings["temperature_k"]) == (5, "classic", 90)
        needed = {"register_frames", "align_zlp", "calibrate", "normalise", "subtract_zlp", "deconvolve"}
        assert set(fit.tables) == set(fit.summaries) == needed
        assert set(fit.maps) == {"align_zlp"}
        assert float(fit.maps["align_zlp"]["height_nm"][0, 0]) == len("align_zlp")
        assert fit.tables["align_zlp"]["sizes"]["height_nm"][0] == 1.0 / 3.0
        assert set(fake_steps.contexts["report"].summaries) == {e.name for e in steps_of_route("classic")} - {"report"}

    def test_skipped_steps_say_so_and_leave_no_maps(self, scan: Path, fake_steps: FakeSteps) -> None:
        fake_steps.instead["assign_layers"] = lambda *_: StepResult(skipped="there is no HAADF")
        folder = go(scan)
        context = fake_steps.contexts["map_superstructure"]
        assert dict(context.maps) == {}
        assert context.summaries["assign_layers"]["skipped"] == "there is no HAADF"
        assert [path.name for path in (folder / "assign_layers").iterdir()] == ["summary.json"]

    def test_steps_that_are_switched_off_are_not_even_loaded(self, scan: Path, fake_steps: FakeSteps) -> None:
        overrides = ["calibrate.method=off", "map_superstructure.enabled=false"]
        run(scan, scan.parent.parent / "results", load_settings(overrides=overrides), backend=BACKEND)
        assert [name for name in FORWARD if name not in fake_steps.ran] == ["calibrate", "map_superstructure"]
        overview = json.loads((scan.parent.parent / "results" / "scan" / "summary.json").read_text())
        assert overview["skipped"] == {
            "calibrate": "switched off (calibrate.method: off)",
            "map_superstructure": "switched off (map_superstructure.enabled: false)",
        }

    def test_truth_beside_the_file_goes_to_the_report_alone(self, scan: Path, fake_steps: FakeSteps) -> None:
        scan.with_name("scan.truth.json").write_text('{"modes": []}')
        folder = go(scan)
        assert json.loads((folder / "ingest" / "truth.json").read_text()) == {"modes": []}
        assert [name for name, context in fake_steps.contexts.items() if context.truth is not None] == ["report"]

    def test_reader_gets_haadf_signal_and_acquisition(self, scan: Path, fake_steps: FakeSteps, tmp_path: Path) -> None:
        (tmp_path / "dark.tif").write_bytes(b"image")
        go(scan, "ingest.signal=2", "acquisition.gain=3", haadf=tmp_path / "dark.tif")
        path, options = fake_steps.read[0]
        assert path == scan
        assert (options["haadf"], options["signal"], options["acquisition"].gain) == (tmp_path / "dark.tif", 2, 3.0)

    def test_folder_to_write_into_becomes_part_of_the_result(self, scan: Path, fake_steps: FakeSteps) -> None:
        def draw(image: Any, settings: Any, context: Any) -> StepResult:
            (context.folder / "figures").mkdir()
            (context.folder / "figures" / "a.png").write_bytes(b"picture")
            return StepResult()

        fake_steps.instead["report"] = draw
        outcome = run(scan, scan.parent.parent / "results", backend=BACKEND)[-1]
        assert (outcome.folder / "figures" / "a.png").read_bytes() == b"picture"
        assert outcome.folder / "figures" / "a.png" in outcome.paths

    def test_progress_names_the_step(self, scan: Path, fake_steps: FakeSteps) -> None:
        seen: list[tuple[str, int, int]] = []

        def work(image: Any, settings: Any, context: Any) -> StepResult:
            context.progress(3, 4)
            return StepResult()

        fake_steps.instead["fit_peaks"] = work
        run(scan, scan.parent.parent / "results", backend=BACKEND, progress=lambda *given: seen.append(given))
        assert ("fit_peaks", 3, 4) in seen


class TestRunStep:
    def test_one_after_the_other_equals_run(self, scan: Path, fake_steps: FakeSteps, tmp_path: Path) -> None:
        whole = array_digest(go(scan))
        folder = tmp_path / "single" / "scan"
        for name in FORWARD:
            # As the workflow does it: each step is told only the settings that it depends on.
            settings = Settings.model_validate(json.loads(step_parameters(ALL_ON, name)))
            outcome = run_step(folder, name, settings, input_path=scan if name == "ingest" else None, backend=BACKEND)
            assert not outcome.up_to_date
        assert array_digest(folder) == whole
        assert unfinished_step(folder, ALL_ON) is None

    def test_a_step_too_early_names_the_command(self, scan: Path, tmp_path: Path, fake_steps: FakeSteps) -> None:
        with pytest.raises(InputFileError, match=r"scan: is no folder of a dataset; run `phonon-eels ingest FILE"):
            run_step(tmp_path / "scan", "fit_peaks", backend=BACKEND)
        assert not (tmp_path / "scan").exists()
        run_step(tmp_path / "scan", "ingest", input_path=scan, backend=BACKEND)
        with pytest.raises(InputFileError, match=r"no finished result of calibrate.*phonon-eels calibrate"):
            run_step(tmp_path / "scan", "fit_peaks", backend=BACKEND)

    def test_ingest_needs_a_file_once(self, scan: Path, tmp_path: Path, fake_steps: FakeSteps) -> None:
        with pytest.raises(InputFileError, match="ingest needs the file"):
            run_step(tmp_path / "x", "ingest", backend=BACKEND)
        with pytest.raises(InputFileError, match=r"gone\.hspy: the spectra file cannot be read"):
            run_step(tmp_path / "x", "ingest", input_path=tmp_path / "gone.hspy", backend=BACKEND)
        assert not (tmp_path / "x").exists()
        run_step(tmp_path / "x", "ingest", input_path=scan, backend=BACKEND)
        assert run_step(tmp_path / "x", "ingest", backend=BACKEND).up_to_date

    def test_unknown_step_and_step_of_the_other_route(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"fit_peak'.*none of the steps.*fit_peaks"):
            run_step(tmp_path / "x", "fit_peak", backend=BACKEND)
        with pytest.raises(ConfigError, match="deconvolve does not belong to route = forward"):
            run_step(tmp_path / "x", "deconvolve", backend=BACKEND)
        assert not (tmp_path / "x").exists()

    def test_record_says_what_made_it(self, scan: Path, fake_steps: FakeSteps) -> None:
        provenance = read_summary(go(scan) / "fit_peaks")["provenance"]
        assert set(provenance["settings"]) == {"fit_peaks", "route"}
        assert set(provenance["parents"]) == {"register_frames", "align_zlp", "calibrate"}
        assert (provenance["device"], provenance["threads"]) == ("cpu", 1)
        assert len(provenance["material"]) == 64
