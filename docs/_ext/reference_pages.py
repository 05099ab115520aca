"""Writes the reference of settings, commands and steps from the program itself, so that it cannot go stale.

Notebooks are brought in from the top of the repository, because Sphinx reads nothing outside its folder.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}


def _write(app: Sphinx) -> None:
    from phonon_eels.cli.parser import build_parser
    from phonon_eels.config import Settings
    from phonon_eels.steps.registry import REGISTRY

    for notebook in sorted((Path(app.srcdir).parent / "notebooks").glob("*.ipynb")):
        copy = Path(app.srcdir) / "notebooks" / notebook.name
        if not copy.exists() or copy.read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, copy)
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "settings.md": _settings(Settings.model_json_schema()),
        "commands.md": _commands(build_parser()),
        "steps.md": _steps(REGISTRY),
    }
    for name, text in pages.items():
        path = folder / name
        # Sphinx reads again what has a new time: a page that says the same keeps its time.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# Settings -----------------------------------------------------------------------------------------


def _settings(schema: dict[str, Any]) -> str:
    lines = [
        "# Settings",
        "",
        "Every setting, made from the models that check them. A key nobody knows is an error.",
        "",
    ]
    plain = {name: entry for name, entry in schema["properties"].items() if "$ref" not in entry}
    lines += ["## At the top", "", *_table(plain, "")]
    for section, entry in schema["properties"].items():
        if "$ref" not in entry:
            continue
        model = schema["$defs"][entry["$ref"].rpartition("/")[2]]
        lines += [f"## {section}", "", *(model.get("description", "").splitlines()), ""]
        lines += _table(model["properties"], f"{section}.")
    return "\n".join(lines) + "\n"


def _table(properties: dict[str, Any], prefix: str) -> Iterator[str]:
    yield from ("| key | allowed | default | meaning |", "|---|---|---|---|")
    for key, entry in properties.items():
        meaning = " ".join(entry.get("description", "").split()).replace("|", "\\|")
        yield f"| `{prefix}{key}` | {_allowed(entry)} | {_default(entry)} | {meaning} |"
    yield ""


def _allowed(entry: dict[str, Any]) -> str:
    if "anyOf" in entry:
        return " or ".join(_allowed(option) for option in entry["anyOf"])
    if "enum" in entry:
        return ", ".join(f"`{word}`" for word in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "$ref" in entry:
        return "see " + entry["$ref"].rpartition("/")[2]
    kind = {"number": "number", "integer": "whole number", "boolean": "true, false", "null": "empty", "string": "text"}
    if entry.get("type") == "array":
        if "prefixItems" in entry:
            return "[" + ", ".join(_allowed(item) for item in entry["prefixItems"]) + "]"
        return "list of " + _allowed(entry.get("items", {}))
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    told = [f"{sign} {entry[word]:g}" for word, sign in bounds.items() if word in entry]
    return " ".join([kind.get(entry.get("type", ""), "any"), ", ".join(told)]).strip()


def _default(entry: dict[str, Any]) -> str:
    if "default" not in entry:
        return "must be given"
    value = entry["default"]
    if value is None or value == [] or value == {}:
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


# Commands -----------------------------------------------------------------------------------------


def _commands(parser: argparse.ArgumentParser) -> str:
    lines = ["# Commands", "", "What `phonon-eels COMMAND --help` says.", "", "```text", *_help(parser), "```", ""]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                lines += [f"## {word}", "", "```text", *_help(child), "```", ""]
    return "\n".join(lines)


def _help(parser: argparse.ArgumentParser) -> list[str]:
    return parser.format_help().rstrip().splitlines()


# Steps --------------------------------------------------------------------------------------------


def _steps(registry: Any) -> str:
    lines = [
        "# Steps",
        "",
        "In the order in which they run. Each is a function, a section of the settings, a command, a",
    ]
    lines += ["rule of the workflow and a folder of results of the same name.", ""]
    for entry in registry:
        spec = entry.load()
        lines += [
            f"## {entry.name}",
            "",
            "```{eval-rst}",
            f".. autofunction:: {spec.run.__module__}.{spec.run.__name__}",
        ]
        lines += ["```", ""]
        lines += ["| makes | unit |", "|---|---|", *(f"| `{k}` | {v or '1'} |" for k, v in spec.makes.items()), ""]
    return "\n".join(lines)
