"""Settings from several sources: a shipped recipe, a file, a tree of values, single ones. Later ones win."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from phonon_eels.config import Settings, apply_overrides
from phonon_eels.config.load import read_yaml, settings_from_tree
from phonon_eels.errors import ConfigError


def gather_settings(
    recipe: str | None = None,
    file: Path | None = None,
    tree: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
) -> Settings:
    """Return checked settings; each source wins over the one before, key by key.

    Parameters
    ----------
    recipe
        Name of a shipped set of settings.
    file
        YAML file; relative paths of a material or of masks in it count from its folder. The workflow's own configuration, with the
        settings below its key ``settings``, is taken as the workflow takes it.
    tree
        Settings as a tree of plain values.
    overrides
        ``key=value`` strings.

    Raises
    ------
    ConfigError
        If a source cannot be read, or a key or a value is not allowed; the message names the key.

    Examples
    --------
    >>> settings = gather_settings("forward", overrides=["fit_peaks.background=linear"])
    >>> settings.route, settings.fit_peaks.background
    ('forward', 'linear')
    """
    merged: dict[str, Any] = {}
    origins = []
    if recipe:
        merged = _merge(merged, read_yaml(recipe_path(recipe)))
        origins.append(f"recipe {recipe}")
    if file is not None:
        merged = _merge(merged, _settings_in(file))
        origins.append(str(file))
    if tree:
        merged = _merge(merged, tree)
    overrides = tuple(overrides)
    if overrides:
        merged = apply_overrides(merged, overrides)
        origins.append("--set")
    return settings_from_tree(merged, " + ".join(origins) or "settings")


def recipe_path(name: str) -> Path:
    """Return the file of a shipped recipe.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    found = _shipped("pipelines/recipes", "recipes", "*.yaml")
    if name not in found:
        raise ConfigError(
            f"recipe = {name}: is not shipped; use one of {', '.join(sorted(found)) or '(none found)'}, "
            f"or give a file of your own with --config"
        )
    return found[name]


def sample_path(name: str = "bi2212_modulated") -> Path:
    """Return the file of a shipped sample scan.

    Parameters
    ----------
    name
        ``bi2212_modulated``, or its twin without modulation ``bi2212_null``.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    found = _shipped("sample_data", "sample_data", "*.hspy")
    if name not in found:
        raise ConfigError(f"sample {name!r} is not shipped; there are {', '.join(sorted(found)) or 'none'}")
    return found[name]


def _shipped(in_repository: str, in_package: str, pattern: str) -> dict[str, Path]:
    """Return name → file: package data in a wheel, folders at the top in the repository."""
    package = Path(str(resources.files("phonon_eels")))
    folders = (package.parent / in_repository, package / in_package)
    return {path.stem: path for folder in folders for path in sorted(folder.glob(pattern))}


def _settings_in(file: Path) -> dict[str, Any]:
    """Return the tree of a file of settings, or of the workflow's configuration: recipe, settings over it, route."""
    tree = read_yaml(file)
    if "settings" not in tree:
        return _files_beside(tree, file.parent)
    inner = tree["settings"] or {}
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{file}: settings: must hold `key: value` lines, got a {type(inner).__name__}")
    if "route" in inner:
        raise ConfigError(f"{file}: settings.route: the route is the key `route` beside `settings`; say it there")
    below = read_yaml(recipe_path(tree["recipe"])) if tree.get("recipe") else {}
    return _merge(below, {**inner, **({"route": tree["route"]} if tree.get("route") else {})})


def _files_beside(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative paths in a file (material, masks) count from that file, wherever the program is started."""

    def beside(text: str) -> str:
        path = Path(text).expanduser()
        return str(path if path.is_absolute() else folder / path)

    tree = dict(tree)
    material, masks = tree.get("material"), tree.get("masks")
    if isinstance(material, str) and material.endswith((".yaml", ".yml")):
        tree["material"] = beside(material)
    if isinstance(masks, Mapping):
        tree["masks"] = masks = dict(masks)
        if isinstance(masks.get("vacuum_file"), str):
            masks["vacuum_file"] = beside(masks["vacuum_file"])
        if isinstance(masks.get("files"), list):
            masks["files"] = [
                {**file, "path": beside(file["path"])}
                if isinstance(file, Mapping) and isinstance(file.get("path"), str)
                else file
                for file in masks["files"]
            ]
    return tree


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
