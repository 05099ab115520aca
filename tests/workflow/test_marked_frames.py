"""Frames and a drawn mask through the whole program: what a user sees."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from phonon_eels.config import load_material, load_simulation
from phonon_eels.io.results import read_maps
from phonon_eels.simulate import simulate, write_simulation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = "masks:\n  files:\n    - {path: marks.yaml}\n"
MARKS = """\
unit: nm
polygons:
  - {kind: vacuum, vertices: [[-1, -1], [-1, 0.16], [99, 0.16], [99, -1]]}
  - {kind: contamination, vertices: [[0.5, 0.5], [0.5, 0.8], [0.8, 0.8], [0.8, 0.5]]}
"""


def run(folder: Path, *words: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "phonon_eels", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_masked_frames(tmp_path: Path) -> None:
    sizes = ["scan.rows=36", "scan.columns=24", "scan.frames=4", "seed=7"]
    write_simulation(simulate(load_simulation(overrides=sizes), load_material("bi2212")), tmp_path / "scan.hspy")
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    (tmp_path / "marks.yaml").write_text(MARKS)
    said = run(tmp_path, "run", "scan.hspy", "--config", "settings.yaml")
    assert "positions are masked (" in said
    assert "blurs the sum by" in said
    assert "lie closer to the sample than 2 µm" in said
    folder = tmp_path / "results" / "scan"
    for step in ("align_zlp", "fit_peaks", "assign_layers"):
        maps = read_maps(folder / step / "maps.nc")
        words = maps["status"].attrs["flag_meanings"].split()
        n = int((maps["status"] == words.index("masked")).sum())
        assert n > 20
        summary = json.loads((folder / step / "summary.json").read_text())["summary"]
        assert summary["status_counts"]["masked"] == n
    with (folder / "fit_peaks" / "tables" / "reproducibility.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert rows[-1]["mode"] == "all"
    assert float(rows[-1]["p_value"]) > 1e-4
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    for words in ("What was left out", "Energies of both halves of the frames", "odd frames (2), meV"):
        assert words in page

    # Half of the frames: other results, said so.
    run(tmp_path, "register_frames", "--dataset-folder", str(folder), "--config", "settings.yaml", "--split", "odd")
    summary = json.loads((folder / "register_frames" / "summary.json").read_text())["summary"]
    assert summary["split"] == "odd"
    assert summary["n_frames_used"] == 2

    # A changed mask makes results stale: they are made again.
    (tmp_path / "marks.yaml").write_text(MARKS.replace("0.16", "0.3"))
    assert "ingest: done" in run(tmp_path, "ingest", "--dataset-folder", str(folder), "--config", "settings.yaml")
