"""Spectrum images of a layered crystal with known truth.

`simulate` makes one in memory, `write_simulation` puts it and its truth on disk, `write_samples` makes `sample_data/`.
"""

from phonon_eels.simulate.build import Simulation, simulate
from phonon_eels.simulate.crystal import Scene, crystal_scene
from phonon_eels.simulate.files import truth_paths, write_simulation
from phonon_eels.simulate.haadf import haadf
from phonon_eels.simulate.sample import sample_settings, write_samples

__all__ = [
    "Scene",
    "Simulation",
    "crystal_scene",
    "haadf",
    "sample_settings",
    "simulate",
    "truth_paths",
    "write_samples",
    "write_simulation",
]
