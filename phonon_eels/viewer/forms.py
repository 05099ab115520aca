"""The settings as a form: fields with units, bounds and words, made from the models; and settings as YAML. No Qt."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from phonon_eels.config import STEP_NAMES, Settings
from phonon_eels.config.load import settings_from_tree
from phonon_eels.errors import ConfigError
from phonon_eels.pipeline.gather import gather_settings

Kind = Literal["flag", "whole", "number", "choice", "window", "text", "yaml"]
Key = tuple[str, ...]

UNITS = (
    ("_mev", "meV"), ("_kev", "keV"), ("_mrad", "mrad"), ("_nm", "nm"), ("_rad", "rad"), ("_fwhm", "FWHM"),
    ("_sigma", "σ"), ("_channels", "channels"), ("_periods", "periods"), ("_megabytes", "MB"), ("_counts", "counts"),
    ("_k", "K"), ("_s", "s"), ("_e", "e⁻"),
)  # fmt: skip
"""Ending of a setting's name → unit as it is shown."""

GENERAL = "general"
HIDDEN = ("schema_version",)


@dataclass(frozen=True)
class Field:
    """One setting of the form.

    Attributes
    ----------
    key
        Path in the tree of settings, as ("align_zlp", "fit_half_width_fwhm").
    label, unit, tooltip
        Words beside it; the unit is empty where there is none.
    kind
        What is entered: a flag, a whole number, a number, one of `choices`, a window (two numbers), text, or YAML for
        what has more structure than that.
    optional
        Whether it may be left open (None).
    default
        Value that the models give it.
    minimum, maximum
        Bounds, None for none; `open_minimum` says that the lower one itself is excluded.
    """

    key: Key
    label: str
    unit: str
    tooltip: str
    kind: Kind
    optional: bool
    default: Any
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    open_minimum: bool = False


@dataclass(frozen=True)
class Section:
    """Settings of one step, of the acquisition, or of the run as a whole."""

    name: str
    description: str
    fields: tuple[Field, ...]


def sections() -> tuple[Section, ...]:
    """Return all settings in the order in which they matter: the run, the acquisition, then the steps."""
    schema = Settings.model_json_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    defaults = Settings().model_dump(mode="json")  # the schema has none where they are made
    general = tuple(
        _field((name,), entry, defaults)
        for name, entry in properties.items()
        if "$ref" not in entry and name not in HIDDEN
    )
    found = [Section(GENERAL, str(schema.get("description", "")), general)]
    # Sections that belong to no step come first: what the files do not say, masks.
    shared = [name for name, entry in properties.items() if "$ref" in entry and name not in STEP_NAMES]
    for name in (*shared, *STEP_NAMES):
        model = definitions[properties[name]["$ref"].rpartition("/")[2]]
        found.append(
            Section(name, str(model.get("description", "")), tuple(_fields((name,), model, definitions, defaults)))
        )
    return tuple(found)


def _fields(
    key: Key, model: Mapping[str, Any], definitions: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[Field]:
    """Yield the fields of a model, those of models inside it too."""
    for name, entry in model["properties"].items():
        if "$ref" in entry:
            yield from _fields((*key, name), definitions[entry["$ref"].rpartition("/")[2]], definitions, defaults)
        else:
            yield _field((*key, name), entry, defaults)


def _field(key: Key, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> Field:
    options = entry.get("anyOf", [entry])
    real = [option for option in options if option.get("type") != "null"]
    optional = len(real) < len(options)
    inner = real[0] if len(real) == 1 else {}
    exclusive = "exclusiveMinimum" in inner
    minimum = inner.get("exclusiveMinimum", inner.get("minimum"))
    maximum = inner.get("exclusiveMaximum", inner.get("maximum"))
    name = key[-1]
    ending, unit = next(((end, word) for end, word in UNITS if name.endswith(end)), ("", ""))
    label = " ".join([*key[1:-1], name.removesuffix(ending) or name]).replace("_", " ")
    field = Field(
        key, label, unit, "", _kind(inner), optional, _at(defaults, key), tuple(inner.get("enum", ())), minimum, maximum,
        exclusive,
    )  # fmt: skip
    return Field(**{**field.__dict__, "tooltip": _tooltip(field, str(entry.get("description", "")))})


def _kind(entry: Mapping[str, Any]) -> Kind:
    if "enum" in entry:
        return "choice"
    if entry.get("type") == "array" and [item.get("type") for item in entry.get("prefixItems", ())] == ["number"] * 2:
        return "window"
    kinds: dict[str, Kind] = {"boolean": "flag", "integer": "whole", "number": "number", "string": "text"}
    return kinds.get(str(entry.get("type")), "yaml")


def _tooltip(field: Field, description: str) -> str:
    """Return what the setting does, its key, what is allowed and the default."""
    unit = f" {field.unit}" if field.unit else ""
    allowed = []
    if field.minimum is not None:
        allowed.append(f"{'above' if field.open_minimum else 'at least'} {field.minimum:g}")
    if field.maximum is not None:
        allowed.append(f"at most {field.maximum:g}")
    lines = [description] if description else []
    lines.append(".".join(field.key) + (f": {' and '.join(allowed)}{unit}" if allowed else ""))
    lines.append(f"default: {_short(field.default)}{unit if field.default is not None else ''}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if value is None:
        return "left open"
    return str(value).lower() if isinstance(value, bool) else _flow(value)


def _flow(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def values_of(settings: Settings) -> dict[Key, Any]:
    """Return the value of every field, as plain values."""
    tree = settings.model_dump(mode="json")
    return {field.key: _at(tree, field.key) for section in sections() for field in section.fields}


def settings_of(values: Mapping[Key, Any], origin: str = "the form") -> Settings:
    """Return checked settings of a form's values.

    Raises
    ------
    ConfigError
        If a value is not allowed; the message names the key.
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
        node[key[-1]] = value
    return settings_from_tree(tree, origin)


def parse_yaml(text: str, key: Key) -> Any:
    """Return what stands in a YAML field.

    Raises
    ------
    ConfigError
        If it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ConfigError(
            f"{'.'.join(key)} = {text!r}: is not valid YAML; write it as [[26, 43], [188, 236]]"
        ) from problem


def yaml_text(value: Any) -> str:
    """Return a value as one line of YAML."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def changed(settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from the defaults, as a tree of plain values."""
    tree, default = settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            inner = {key: entry for key, entry in value.items() if entry != default[name][key]}
            if inner:
                found[name] = inner
        elif value != default[name]:
            found[name] = value
    return found


def config_text(settings: Settings) -> str:
    """Return settings as the part of ``pipelines/config.yaml`` that holds them: the route, and what differs from the defaults.

    `read_config` reads it back; `snakemake` reads it as it stands in that file.
    """
    tree = changed(settings)
    route = tree.pop("route", settings.route)
    head = (
        "# Settings found in the viewer. In pipelines/config.yaml these keys take the place of those of the same name;\n"
        "# what is not named keeps its default. `Save settings` writes a file for `phonon-eels run --config`.\n"
    )
    return head + _dump({"route": route, "settings": tree})


def settings_text(settings: Settings) -> str:
    """Return settings as a file for ``phonon-eels run --config``: what differs from the defaults."""
    head = "# Settings found in the viewer, for `phonon-eels run FILE --config`; the rest keeps its default.\n"
    return head + _dump({"schema_version": settings.schema_version, **changed(settings)})


def _dump(tree: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def read_config(text: str, origin: str, folder: Path | None = None) -> Settings:
    """Read settings from a file of settings, or from the workflow's configuration.

    Parameters
    ----------
    origin
        Where the text comes from, for the message.
    folder
        Where a relative path of a material in a file of settings counts from.

    Raises
    ------
    ConfigError
        If it is neither, or a key or value is not allowed; the message names the key.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ConfigError(f"{origin}: is not valid YAML: {' '.join(str(problem).split())}") from problem
    if tree is None:
        return Settings()
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin}: must hold `key: value` lines at the top, got a {type(tree).__name__}")
    if "settings" not in tree:
        material = tree.get("material")
        if folder is not None and isinstance(material, str) and material.endswith((".yaml", ".yml")):
            tree["material"] = str(folder / Path(material).expanduser())
        return settings_from_tree(tree, origin)
    inner = dict(tree["settings"] or {})
    if "route" in inner:
        raise ConfigError(f"{origin}: settings.route: the route is the key `route` beside `settings`; say it there")
    if tree.get("route"):
        inner["route"] = tree["route"]
    return gather_settings(recipe=tree.get("recipe"), tree=inner)


def steps_named(route: str) -> Iterator[str]:
    """Yield the steps of a route, in order."""
    from phonon_eels.steps.registry import steps_of_route

    for entry in steps_of_route("classic" if route == "classic" else "forward"):
        yield entry.name


def _at(tree: Mapping[str, Any], key: Key) -> Any:
    node: Any = tree
    for part in key:
        node = node[part]
    return node
