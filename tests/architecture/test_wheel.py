"""The wheel is whole: in an environment with nothing else, away from the repository, it analyses the sample data."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.architecture.modules import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

WHERE_IS_THE_SAMPLE = """
import importlib.resources, json, phonon_eels
from phonon_eels import pipeline
folder = importlib.resources.files("phonon_eels") / "sample_data"
print(json.dumps({"package": phonon_eels.__file__, "samples": sorted(str(p) for p in folder.glob("*.hspy"))}))
"""


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=env, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by hatchling itself: no front end, hence no build environment to download."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=REPOSITORY)
    (path,) = folder.glob("phonon_eels-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and what the wheel itself asks for."""
    folder = tmp_path_factory.mktemp("empty")
    environment = folder / "venv"
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        run(uv, "venv", "--python", sys.executable, environment, cwd=folder)
        run(uv, "pip", "install", "--python", environment / "bin" / "python", wheel, cwd=folder)
    else:
        run(sys.executable, "-m", "venv", environment, cwd=folder)
        run(environment / "bin" / "python", "-m", "pip", "install", "-q", wheel, cwd=folder)
    return environment / "bin"


def test_wheel_holds_what_the_program_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("pipelines/recipes", "sample_data"):
        wanted = {
            f"phonon_eels/{Path(folder).name}/{path.relative_to(REPOSITORY / folder).as_posix()}"
            for path in (REPOSITORY / folder).rglob("*")
            if path.is_file()
        }
        assert wanted, f"{folder} is empty"
        assert wanted <= names
    sources = {
        path.relative_to(REPOSITORY).as_posix()
        for pattern in ("*.py", "*.pyi", "*.yaml", "*.j2", "py.typed")
        for path in (REPOSITORY / "phonon_eels").rglob(pattern)
    }
    assert sources <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    strays = [name for name in names if not name.startswith(("phonon_eels/", "phonon_eels-"))]
    assert not strays, "a wheel must not put anything else into site-packages"


def test_installed_wheel_analyses_the_sample(installed: Path, tmp_path: Path) -> None:
    # Nothing of the repository or of the test run may help: no PYTHONPATH, another working folder, other caches.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV"))}
    env["PATH"] = f"{installed}{os.pathsep}{env.get('PATH', '')}"

    facts = json.loads(run(installed / "python", "-c", WHERE_IS_THE_SAMPLE, cwd=tmp_path, env=env).splitlines()[-1])
    assert not Path(facts["package"]).is_relative_to(REPOSITORY)
    assert facts["samples"], "the wheel holds no sample data"

    program = installed / "phonon-eels"
    assert "0." in run(program, "--version", cwd=tmp_path, env=env)
    output = tmp_path / "out of the way"
    printed = run(program, "run", facts["samples"][0], "--output", output, cwd=tmp_path, env=env)

    paths = [Path(line) for line in printed.splitlines() if line.strip()]
    assert paths, "the paths of the results are said on standard output"
    assert all(path.exists() for path in paths)
    assert any(path.name == "report.html" for path in paths) or list(output.rglob("report.html"))
    assert list(output.rglob("summary.json"))
