"""The settings as a form, and as configuration files. No Qt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from phonon_eels.config import STEP_NAMES, Settings, load_settings
from phonon_eels.errors import ConfigError
from phonon_eels.pipeline.workflow import Workflow
from phonon_eels.viewer import forms


def changed_settings() -> Settings:
    """Settings with every kind of field changed."""
    return Settings.model_validate(
        {
            "route": "classic",
            "seed": 7,
            "acquisition": {"temperature_k": 293.15, "geometry": "off-axis"},
            "remove_spikes": {"enabled": False, "grow_channels": 3},
            "align_zlp": {"search_window_mev": [-20.5, 20.0]},
            "calibrate": {"method": "lines", "lines": [{"mode": "CuO78", "energy_mev": 78.25}]},
            "subtract_zlp": {"windows_mev": [[20.0, 30.0], [100.0, 110.0]]},
            "map_superstructure": {"antiphase_planes": False},
            "measure_modulation": {"gap": {"template_phase_rad": 0.5}},
            "fit_peaks": {"background": "linear", "tail_std": 0.012345678901234},
        }
    )


def test_every_setting_has_a_field() -> None:
    keys = {field.key for section in forms.sections() for field in section.fields}

    def leaves(key: tuple[str, ...], value: Any) -> set[tuple[str, ...]]:
        if not isinstance(value, dict) or not value:  # modes by name: none in the defaults
            return {key}
        return set().union(*(leaves((*key, name), entry) for name, entry in value.items()))

    assert keys == leaves((), Settings().model_dump(mode="json")) - {("schema_version",)}
    assert [section.name for section in forms.sections()][-len(STEP_NAMES) :] == list(STEP_NAMES)


def field(name: str, key: str) -> forms.Field:
    section = next(section for section in forms.sections() if section.name == name)
    return next(field for field in section.fields if field.key[-1] == key)


def test_fields_know_units_bounds_and_words() -> None:
    width = field("align_zlp", "fit_half_width_fwhm")
    assert (width.kind, width.unit, width.minimum, width.open_minimum) == ("number", "FWHM", 0, True)
    assert "Half width of the fitted window" in width.tooltip
    assert "above 0 FWHM" in width.tooltip
    assert "default: 1.5 FWHM" in width.tooltip
    window = field("align_zlp", "search_window_mev")
    assert (window.kind, window.optional, window.unit) == ("window", True, "meV")
    assert field("report", "dpi").maximum == 600
    assert {"none", "constant", "linear"} <= set(field("fit_peaks", "background").choices)
    assert field("subtract_zlp", "windows_mev").kind == "yaml"
    assert (field("map_superstructure", "antiphase_planes").kind, field("ingest", "signal").kind) == ("flag", "whole")


def test_values_make_the_same_settings_again() -> None:
    settings = changed_settings()
    assert forms.settings_of(forms.values_of(settings)) == settings


def test_a_wrong_value_names_its_key() -> None:
    values = {**forms.values_of(Settings()), ("fit_peaks", "max_iterations"): 0}
    with pytest.raises(ConfigError, match=r"fit_peaks\.max_iterations"):
        forms.settings_of(values)
    with pytest.raises(ConfigError, match=r"subtract_zlp\.windows_mev.*not valid YAML"):
        forms.parse_yaml("[[1, 2", ("subtract_zlp", "windows_mev"))


@pytest.mark.parametrize("settings", [Settings(), changed_settings()], ids=["defaults", "changed"])
def test_config_comes_back_and_runs_in_the_batch(settings: Settings, tmp_path: Path) -> None:
    text = forms.config_text(settings)
    assert forms.read_config(text, "clipboard") == settings
    # The workflow reads the same text as part of its own configuration.
    (tmp_path / "scan.hspy").touch()
    (tmp_path / "datasets.tsv").write_text(f"dataset\tpath\thaadf\tgroup\tnote\none\t{tmp_path / 'scan.hspy'}\t\t\t\n")
    config: dict[str, Any] = {"datasets": str(tmp_path / "datasets.tsv"), "results": "results", **yaml.safe_load(text)}
    assert Workflow.from_config(config).settings == settings


@pytest.mark.parametrize("settings", [Settings(), changed_settings()], ids=["defaults", "changed"])
def test_saved_settings_are_those_of_the_command_line(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(forms.settings_text(settings), "utf-8")
    assert load_settings(path) == settings
    assert forms.read_config(path.read_text("utf-8"), str(path)) == settings


def test_config_says_only_what_differs() -> None:
    assert yaml.safe_load(forms.config_text(Settings())) == {"route": "forward", "settings": {}}
    assert forms.changed(Settings(seed=3)) == {"seed": 3}


def test_a_material_beside_the_file_is_found(tmp_path: Path) -> None:
    settings = forms.read_config("material: mine.yaml", "file", tmp_path)
    assert settings.material == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1, 2]", "must hold `key: value` lines"),
        ("fit_peeks: {}", "did you mean fit_peaks"),
        ("a: [", "not valid YAML"),
        ("settings: {route: classic}", "the route is the key"),
        ("recipe: nothing\nsettings: {}", "is not shipped"),
    ],
)
def test_bad_config_is_refused_in_words(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        forms.read_config(text, "clipboard")
