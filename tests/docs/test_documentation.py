"""The documentation builds without a warning, without a network and without running what takes minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, the notebooks as they are in git: without results."""
    out = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-D", "nb_execution_mode=off"]
    done = subprocess.run(
        [*command, "-d", str(out / "trees"), str(REPOSITORY / "docs"), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_setting_has_a_line(pages: Path) -> None:
    from phonon_eels.config import Settings

    text = (pages / "reference/generated/settings.html").read_text(encoding="utf-8")
    for section, field in Settings.model_fields.items():
        assert section in text
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"{section}.{key}" in text


def test_every_command_and_step_has_a_heading(pages: Path) -> None:
    from phonon_eels.steps.registry import REGISTRY

    commands = (pages / "reference/generated/commands.html").read_text(encoding="utf-8")
    steps = (pages / "reference/generated/steps.html").read_text(encoding="utf-8")
    assert 'id="run"' in commands
    for entry in REGISTRY:
        assert f"phonon_eels.steps.{entry.name}.{entry.name}" in steps


def test_notebooks_are_pages(pages: Path) -> None:
    for notebook in (REPOSITORY / "notebooks").glob("*.ipynb"):
        assert (pages / "notebooks" / f"{notebook.stem}.html").is_file()
