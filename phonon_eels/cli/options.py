"""From options to checked settings."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from phonon_eels.config import Settings
from phonon_eels.errors import ConfigError
from phonon_eels.pipeline.gather import gather_settings

if TYPE_CHECKING:
    from phonon_eels.backends.base import Backend


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings that ``--recipe``, ``--config``, ``--settings``, ``--set`` and ``--split`` ask for.

    Raises
    ------
    ConfigError
        If a source cannot be read, or a key or a value is not allowed.
    """
    tree = None if options.settings is None else _json_tree(options.settings)
    split = getattr(options, "split", None)
    overrides = [*options.overrides, *([f"register_frames.split={split}"] if split else [])]
    return gather_settings(options.recipe, options.config, tree, overrides)


@contextlib.contextmanager
def computing(options: argparse.Namespace, at_once_bytes: float = 0.0) -> Iterator[Backend]:
    """Give the backend that ``--device``, ``--threads``, ``--scheduler``, ``--workers`` and ``--cluster`` ask for.

    Parameters
    ----------
    at_once_bytes
        Size up to which a cube is computed at once instead of later, in this process.

    Raises
    ------
    ConfigError
        If they contradict each other.
    DeviceError
        If it cannot be had.
    """
    many = {name: getattr(options, name) for name in ("scheduler", "workers", "cluster", "worker_memory")}
    if all(value is None for value in many.values()):
        from phonon_eels.backends.select import select_backend

        yield select_backend(options.device, options.threads, at_once_bytes=at_once_bytes)
        return
    if options.scheduler is not None and any(
        many[name] is not None for name in ("workers", "cluster", "worker_memory")
    ):
        raise ConfigError("--scheduler: its workers are there already; leave --workers, --cluster, --worker-memory out")
    from phonon_eels.backends.workers.connect import workers_backend

    device: Literal["cpu", "cuda"] = "cuda" if options.device == "cuda" else "cpu"
    with workers_backend(**many, threads=options.threads, device=device) as backend:
        yield backend


def _json_tree(text: str) -> dict[str, Any]:
    try:
        tree = json.loads(text)
    except ValueError as problem:
        raise ConfigError(f'--settings: is not JSON ({problem}); write it as \'{{"route": "classic"}}\'') from problem
    if not isinstance(tree, dict):
        raise ConfigError(f"--settings: must be one JSON object, got a {type(tree).__name__}")
    return tree
