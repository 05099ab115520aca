"""YAML and `--set` into checked settings, with one-line errors that name the key and the nearest right one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from phonon_eels.config.material import Material
from phonon_eels.config.settings import Settings
from phonon_eels.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
MAX_YAML_BYTES = 1_000_000  # no honest settings file is larger; keeps YAML bombs out together with safe_load


def load_settings(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Read settings from a YAML file, then apply overrides of the form ``align_zlp.fit_half_width_fwhm=2``.

    Parameters
    ----------
    path
        YAML file; None for the defaults.
    overrides
        ``key=value`` strings; the value is YAML.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or a value is not allowed; the message names the key.
    """
    tree = {} if path is None else read_yaml(Path(path))
    return settings_from_tree(apply_overrides(tree, overrides), str(path) if path else "settings")


def settings_from_tree(tree: Mapping[str, Any], origin: str) -> Settings:
    """Check settings that are already a tree of plain values.

    Parameters
    ----------
    origin
        Where they come from (a file, an option), for the message.

    Raises
    ------
    ConfigError
        As `load_settings`.
    """
    return _check(Settings, tree, origin)


def load_material(name_or_path: str, relative_to: Path | None = None) -> Material:
    """Read a shipped material by name, or a user's own YAML file by path.

    Parameters
    ----------
    relative_to
        Folder that a relative path counts from, the configuration file's own.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        if not path.is_absolute() and relative_to is not None and not path.exists():
            path = relative_to / path
        return _check(Material, read_yaml(path), str(path))
    folder = resources.files("phonon_eels.materials")
    shipped = sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name_or_path not in shipped:
        raise ConfigError(
            f"material = {name_or_path!r} is not shipped; use one of {', '.join(shipped)}, or the path of a .yaml file of your own"
        )
    return _check(Material, yaml.safe_load(folder.joinpath(f"{name_or_path}.yaml").read_text("utf-8")), name_or_path)


def json_schema(model: type[BaseModel] = Settings) -> str:
    """Return the JSON schema of the settings (or of another model), the reference for editors and other programs."""
    return json.dumps(model.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; nothing in it can run code."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_YAML_BYTES} bytes, which no settings file is")
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(
            f"{path}: cannot be read as a settings file ({problem}); give an existing YAML file"
        ) from problem
    except yaml.YAMLError as problem:
        where = " ".join(str(problem).split())
        raise ConfigError(f"{path}: is not valid YAML: {where}") from problem
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines at the top, got a {type(tree).__name__}")
    return tree


def apply_overrides(tree: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a settings tree with ``a.b=value`` strings written over it."""
    result: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {text!r}: write it as key=value, for example fit_peaks.background=linear")
        node = result
        *parents, last = key.strip().split(".")
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {text!r}: {part} is a value, not a section")
        try:
            node[last] = yaml.safe_load(value)
        except yaml.YAMLError as problem:
            raise ConfigError(f"--set {text!r}: the value is not valid YAML") from problem
    return result


def _check(model: type[Model], tree: Mapping[str, Any], origin: str) -> Model:
    try:
        return model.model_validate(tree)
    except ValidationError as problem:
        raise ConfigError(f"{origin}: " + _one_line(model, problem)) from problem


def _one_line(model: type[BaseModel], problem: ValidationError) -> str:
    first = problem.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = _keys(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}"
        text = f"unknown key {key}; {hint}"
    elif first["type"] == "missing":
        text = f"{key} is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        text = f"{key} = {first['input']!r}: {message}" if key else message
    more = len(problem.errors()) - 1
    return " ".join((text + (f" (and {more} more)" if more else "")).split())


def _keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed at a place in the tree."""
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:  # a place in a list, or a name that the user gave
            continue
        annotation = model.model_fields[part].annotation
        found = [
            item
            for item in (annotation, *_arguments(annotation))
            if isinstance(item, type) and issubclass(item, BaseModel)
        ]
        if not found:
            return []
        model = found[0]
    return list(model.model_fields)


def _arguments(annotation: Any) -> list[Any]:
    direct = list(getattr(annotation, "__args__", ()) or ())
    return direct + [inner for item in direct for inner in _arguments(item)]
