"""Every benchmark runs to its end. How fast it is, is for whoever runs it alone on a quiet machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("bench_*.py"))
SCREEN = ("xvfb-run", "-a", "-s", "-screen 0 1366x768x24")


def test_there_are_benchmarks():
    assert SCRIPTS


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_benchmark_runs_to_its_end(script, tmp_path):
    screen = () if os.environ.get("DISPLAY") or "viewer" not in script.stem else SCREEN
    if screen and shutil.which(screen[0]) is None:
        pytest.skip("no screen: set DISPLAY, or install xvfb-run (Debian: apt-get install xvfb)")
    command = [*screen, sys.executable, str(script), "--quick"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.strip()
