"""From options to checked settings."""

from __future__ import annotations

import argparse
import json
from typing import Any

from phonon_eels.config import Settings
from phonon_eels.errors import ConfigError
from phonon_eels.pipeline.gather import gather_settings


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings that ``--recipe``, ``--config``, ``--settings`` and ``--set`` ask for.

    Raises
    ------
    ConfigError
        If a source cannot be read, or a key or a value is not allowed.
    """
    tree = None if options.settings is None else _json_tree(options.settings)
    return gather_settings(options.recipe, options.config, tree, options.overrides)


def _json_tree(text: str) -> dict[str, Any]:
    try:
        tree = json.loads(text)
    except ValueError as problem:
        raise ConfigError(f'--settings: is not JSON ({problem}); write it as \'{{"route": "classic"}}\'') from problem
    if not isinstance(tree, dict):
        raise ConfigError(f"--settings: must be one JSON object, got a {type(tree).__name__}")
    return tree
