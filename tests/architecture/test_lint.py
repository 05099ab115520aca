"""Lint, format and types are tests like any other: `make test` and the server find the same as the editor."""

import subprocess
import sys

import pytest

from tests.architecture.modules import REPOSITORY


@pytest.mark.parametrize(
    "command", ["ruff check --quiet .", "ruff format --quiet --check .", "mypy --no-error-summary"]
)
def test_clean(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, f"`{command}` says:\n{done.stdout}{done.stderr}"
