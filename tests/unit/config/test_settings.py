"""Settings: unknown keys, wrong values, overrides; every error is one line that names the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from phonon_eels.config import STEP_NAMES, Settings, apply_overrides, json_schema, load_material, load_settings
from phonon_eels.config.base import descriptions
from phonon_eels.errors import ConfigError
from phonon_eels.steps.registry import REGISTRY, find_step, steps_of_route, upstream


def test_defaults_are_valid_and_survive_json() -> None:
    settings = load_settings()
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        Settings().fit_peaks.background = "linear"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit_peak.background=linear", "unknown key fit_peak; did you mean fit_peaks?"),
        ("align_zlp.line_shap=gaussian", "unknown key align_zlp.line_shap; did you mean line_shape?"),
        ("acquisition.beam_energy=60", "unknown key acquisition.beam_energy; did you mean beam_energy_kev?"),
        ("calibrate.lines=[{mod: A, energy_mev: 1}]", "calibrate.lines.0.mod"),
        ("report.zzzzzz=1", "unknown key report.zzzzzz; allowed are figure_formats, dpi"),
        ("route=reverse", "route = 'reverse'"),
        ("align_zlp.fit_half_width_fwhm=0", "align_zlp.fit_half_width_fwhm = 0"),
        ("align_zlp.fit_half_width_fwhm=.nan", "align_zlp.fit_half_width_fwhm"),
        ("align_zlp.fit_half_width_fwhm=.inf", "align_zlp.fit_half_width_fwhm"),
        ("align_zlp.search_window_mev=[5, -5]", "needs its lower end first, got 5 … -5"),
        ("align_zlp.search_window_mev=[5]", "align_zlp.search_window_mev"),
        ("measure_modulation.confidence=95", "measure_modulation.confidence = 95"),
        ("fit_peaks.max_iterations=1.5", "fit_peaks.max_iterations = 1.5"),
        ("ingest.estimate_noise=perhaps", "ingest.estimate_noise = 'perhaps'"),
        ("calibrate.method=lines", "calibrate.lines: at least one"),
        ("schema_version=2", "schema_version = 2"),
        ("seed", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("seed.deeper.down=3", "seed"),
        ("fit_peaks.window_mev=[1,", "the value is not valid YAML"),
    ],
)
def test_error_is_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as caught:
        load_settings(overrides=[override])
    assert message in str(caught.value)


def test_several_errors_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"unknown key .*\(and 1 more\)"):
        load_settings(overrides=["a=1", "b=2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1\n- 2\n", "must hold `key: value` lines at the top, got a list"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("x" * 1_000_001, "larger than 1000000 bytes"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"my\.yaml: ") as caught:
        load_settings(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("fit_peaks: {background: linear, max_iterations: 9}\n")
    fit = load_settings(path, ["fit_peaks.background=exponential", "fit_peaks.window_mev=[-50, 110]"]).fit_peaks
    assert (fit.background, fit.max_iterations, fit.window_mev) == ("exponential", 9, (-50.0, 110.0))
    path.write_text("")
    assert load_settings(path) == Settings()


def test_off_is_a_word_though_yaml_reads_false() -> None:
    assert load_settings(overrides=["calibrate.method=off"]).calibrate.method == "off"


def test_overrides_leave_the_tree_alone() -> None:
    tree: dict[str, Any] = {"a": {"b": 1}}
    assert apply_overrides(tree, ["a.b=2", "a.c=null", "d=text"]) == {"a": {"b": 2, "c": None}, "d": "text"}
    assert tree == {"a": {"b": 1}}


def test_schema_describes_every_setting() -> None:
    schema = json.loads(json_schema())
    assert set(STEP_NAMES) <= set(schema["properties"])
    described = schema["$defs"]["AlignZlp"]["properties"]["fit_half_width_fwhm"]["description"]
    assert described.startswith("Half width of the fitted window")


def units_of(model: type[BaseModel]) -> list[str]:
    """Names of settings that hold a length, an energy or an angle without saying the unit."""
    odd = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            odd += units_of(field.annotation)
        elif "float" in str(field.annotation) and name not in descriptions(model) and "_" not in name:
            odd.append(f"{model.__name__}.{name}")
    return odd


def test_numbers_say_their_unit_or_are_described() -> None:
    assert units_of(Settings) == []


class TestMaterial:
    def test_shipped(self) -> None:
        assert load_material("bi2212").primary_test is not None

    def test_unknown(self) -> None:
        with pytest.raises(ConfigError, match=r"material = 'bi2201' is not shipped; use one of bi2212, or the path"):
            load_material("bi2201")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"modes": []}, "modes"),
            ({"mods": []}, "unknown key mods; did you mean modes?"),
            ({"energy_mev": 70}, "energy_mev = 70 of mode A must lie inside bounds_mev"),
            ({"pairs": [["A", "B"]]}, "pairs and primary_test may name only the modes ['A'], got B"),
        ],
    )
    def test_broken(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        mode = {"name": "A", "energy_mev": 50, "bounds_mev": [40, 60], "fwhm_mev": 4}
        tree = {"name": "mine", "modes": [mode]}
        mode.update({key: value for key, value in changes.items() if key in mode})
        tree.update({key: value for key, value in changes.items() if key not in mode})
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps(tree))
        with pytest.raises(ConfigError, match=r"mine\.yaml: [^\n]+$") as caught:
            load_material(str(path))
        assert message in str(caught.value)

    def test_relative_path_counts_from_the_given_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mode = {"name": "A", "energy_mev": 50, "bounds_mev": [40, 60], "fwhm_mev": 4}
        (tmp_path / "mine.yaml").write_text(json.dumps({"name": "mine", "modes": [mode]}))
        monkeypatch.chdir("/")
        assert load_material("mine.yaml", tmp_path).name == "mine"


class TestRegistry:
    def test_names_are_those_of_the_settings_in_order(self) -> None:
        assert tuple(entry.name for entry in REGISTRY) == STEP_NAMES

    def test_routes(self) -> None:
        forward = [entry.name for entry in steps_of_route("forward")]
        assert forward == [name for name in STEP_NAMES if not find_step(name).classic_only]
        assert [entry.name for entry in steps_of_route("classic")] == list(STEP_NAMES)

    def test_needs_are_earlier_steps(self) -> None:
        for number, entry in enumerate(REGISTRY):
            assert set(entry.needs) <= set(STEP_NAMES[:number]), entry.name

    def test_layers_and_superstructure_do_not_wait_for_the_peaks(self) -> None:
        for route in ("forward", "classic"):
            assert "fit_peaks" not in upstream("assign_layers", route)
            assert "fit_peaks" not in upstream("map_superstructure", route)
            assert upstream("ingest", route) == ()
