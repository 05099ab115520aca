"""The two scans of `sample_data/`: one with modulated phonon energies, and its twin without.

Everything but the seed and the energy modulation is the same: corrugation, leakage, drift, thickness. What tells the
twins apart is therefore the modulation alone. Run ``python -m phonon_eels.simulate sample_data`` to make them again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from phonon_eels.config import SimulationSettings, load_material
from phonon_eels.simulate.build import Simulation, simulate
from phonon_eels.simulate.files import truth_paths, write_simulation

MANIFEST_VERSION = 1
COMMAND = "python -m phonon_eels.simulate sample_data"
SEEDS = {"bi2212_modulated": 20250617, "bi2212_null": 20250804}

# Truth a little off the material file's own numbers: a fit that only returns its start values is found out.
ENERGIES_MEV = {"Sr22": 22.4, "BiO38": 38.2, "CuO42": 42.3, "BiO57": 57.1, "SrO67": 67.4, "CuO78": 78.3}
MODULATION_MEV = {"BiO38": 0.4, "CuO42": 0.5, "CuO78": 1.0}


def sample_settings(name: str) -> SimulationSettings:
    """Return the settings of one sample, `bi2212_modulated` or `bi2212_null`.

    The loss spectrum is what the default fit assumes (oscillators, constant background, no multiphonon losses, no
    fixed pattern), so that its standard errors can be judged on it; the other effects are on.
    """
    return SimulationSettings.model_validate(
        {
            "title": name,
            "seed": SEEDS[name],
            # 4 half cells: 8 half-slab units, BiO to BiO inside; 2.2 periods of the superstructure across.
            "scan": {"rows": 112, "columns": 64, "row_step_nm": 0.055, "column_step_nm": 0.09, "c_origin_nm": 0.0335},
            "phonons": {"energies_mev": ENERGIES_MEV},
            "modulation": {
                "energy_enabled": name == "bi2212_modulated",
                "modes": {mode: {"energy_mev": amplitude} for mode, amplitude in MODULATION_MEV.items()},
            },
            "detector": {"dtype": "uint16", "dark_level": 20.0, "fixed_pattern": 0.0},
        }
    )


def make_sample(name: str) -> Simulation:
    """Simulate one sample."""
    return simulate(sample_settings(name), load_material("bi2212"))


def array_hashes(simulation: Simulation) -> dict[str, str]:
    """SHA-256 of the arrays' bytes. Files of equal content differ in their bytes, arrays do not."""
    arrays = {"counts": simulation.image.counts, "haadf": simulation.image.haadf}
    return {name: array_hash(np.asarray(array)) for name, array in arrays.items()}


def array_hash(array: np.ndarray) -> str:
    """SHA-256 of one array's bytes in little endian and C order."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def write_samples(folder: str | Path) -> list[Path]:
    """Make both samples, their truth and `manifest.json` in a folder; return the paths.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    from phonon_eels.io.atomic import staged_file

    folder = Path(folder)
    written: list[Path] = []
    manifest: dict[str, Any] = {"schema_version": MANIFEST_VERSION, "command": COMMAND, "samples": {}}
    for name in SEEDS:
        simulation = make_sample(name)
        path = folder / f"{name}.hspy"
        written += write_simulation(simulation, path)
        manifest["samples"][name] = {
            "file": path.name,
            "truth": [found.name for found in truth_paths(path)],
            "seed": SEEDS[name],
            "shape": list(simulation.image.shape),
            "dtype": str(simulation.image.counts.dtype),
            "sha256": array_hashes(simulation),
            "settings": sample_settings(name).model_dump(mode="json"),
        }
    target = folder / "manifest.json"
    with staged_file(target) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [*written, target]
