"""The sample scan gives the same bytes whatever the blocks, chunks and threads, the modulation test included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phonon_eels.backends.cpu import CpuBackend
from phonon_eels.config import load_settings
from phonon_eels.pipeline import run
from phonon_eels.provenance import array_digest

SCAN = "bi2212_modulated"


@pytest.mark.slow
def test_blocks_and_threads_leave_no_trace(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = repository / "sample_data" / f"{SCAN}.hspy"
    found = {}
    # Blocks of 96 (all), 10 and 3 of the 96 rows; chunks on disk of 93 and 2 rows; cubes read at once, and block by block.
    for name, threads, block_bytes, chunk_megabytes in (
        ("one", 1, 16_000_000, 8.0),
        ("two", 2, 1_900_000, 0.3),
        ("three", 3, 600_000, 0.2),
    ):
        monkeypatch.setattr("phonon_eels.backends.cpu.BLOCK_BYTES", block_bytes)
        monkeypatch.setattr("phonon_eels.pipeline.inputs.IN_MEMORY_BYTES", 32e6 if name == "one" else 0.0)
        settings = load_settings(overrides=[f"ingest.chunk_megabytes={chunk_megabytes}", "report.figure_formats=[png]"])
        run(scan, tmp_path / name, settings, backend=CpuBackend(threads))
        found[name] = array_digest(tmp_path / name / SCAN)
    record = json.loads((tmp_path / "one" / SCAN / "measure_modulation" / "summary.json").read_text("utf-8"))
    assert record["skipped"] is None
    for part in ("fit_peaks/maps.nc:energy_mev", "measure_modulation/tables/amplitudes.csv", "align_zlp/maps.nc"):
        assert any(key.startswith(part) for key in found["one"]), part
    for name in ("two", "three"):
        different = [key for key in found["one"] if found[name].get(key) != found["one"][key]]
        assert different == []
        assert found[name].keys() == found["one"].keys()
